//! What a connection says of its limits, and that what is cancelled by a reset was asked for all the
//! same.

use mcp_edge::{Behind, Config, Limits};
use serde_json::json;

use crate::floods::open;
use crate::support::frames::*;
use crate::support::{
    Fixture, TOKEN, TestServer, bounded, call, config, eventually, loopback, note,
};

fn calling(stream: u32, body: &str) -> Vec<u8> {
    [open(stream), frame(DATA, END_STREAM, stream, body.as_bytes())].concat()
}

/// RFC 9113 section 6.5.2: what a peer may ask for at once, and how large a head may be.
#[tokio::test]
async fn a_connection_says_its_limits() {
    bounded(async {
        let server = TestServer::start(config(), Behind::diagnostics()).await;
        let mut peer = Frames::connect(&server, loopback(67)).await;
        let first = peer.next().await.unwrap();
        assert_eq!((first.kind, first.flags, first.stream), (SETTINGS, 0, 0));
        let (id, value) = (|part: &[u8]| part[..2].to_vec(), |part: &[u8]| part[2..].to_vec());
        let said: std::collections::BTreeMap<_, _> =
            first.payload.chunks_exact(6).map(|part| (id(part), value(part))).collect();
        let (max_concurrent_streams, max_header_list_size) = ([0, 3], [0, 6]);
        assert_eq!(said[&max_concurrent_streams[..]], 100_u32.to_be_bytes());
        assert_eq!(said[&max_header_list_size[..]], (64 * 1024_u32).to_be_bytes());
    })
    .await;
}

/// RFC 9113 section 8.1: an answer may come before the body. Clients lose it that read the reset of
/// their upload with it (curl 7.88).
#[tokio::test]
async fn an_answer_before_the_body_comes_without_a_reset_behind_it() {
    bounded(async {
        let server = TestServer::start(config(), Behind::diagnostics()).await;
        let token = format!("Bearer {TOKEN}");
        let (good, json) =
            (("authorization", token.as_str()), ("content-type", "application/json"));
        for (path, more, status) in [
            ("/mcp", vec![good, json, ("content-length", "10600000")], 413),
            ("/mcp", vec![json, ("content-length", "10600000")], 401),
            ("/mcp", vec![json], 401),
            ("/mcp", vec![good, json, ("origin", "https://evil.example")], 403),
            ("/nowhere", vec![good, json, ("content-length", "1100000")], 404),
            ("/sse", vec![good, json], 405),
            ("/mcp", vec![good, ("content-type", "text/plain")], 415),
        ] {
            let mut peer = Frames::connect(&server, loopback(64)).await;
            let block = [request("POST", path), fields(more)].concat();
            assert!(peer.send(&frame(HEADERS, END_HEADERS, 1, &block)).await);
            assert!(peer.send(&frame(DATA, 0, 1, &[b'x'; 16_384])).await);
            assert_eq!(peer.answer(1).await, Verdict::Status(status), "{path}");
            loop {
                let came = peer.next().await.unwrap();
                assert_ne!(came.kind, RST_STREAM, "{path} {status}");
                if came.kind == DATA && came.flags & END_STREAM != 0 {
                    break;
                }
            }
            // What comes behind the answer in the same write comes before this.
            assert_eq!(peer.verdict(1).await, Verdict::Alive, "{path} {status}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_reset_buys_no_more_than_the_rate() {
    bounded(async {
        // None comes back while the test runs.
        let limits = Limits { requests_per_second: 1, burst: 30, ..*config().limits };
        let (fixture, told) = Fixture::new();
        let server = TestServer::start(
            Config { limits: limits.check().unwrap(), ..config() },
            Behind::handler(fixture),
        )
        .await;
        let begun = std::time::SystemTime::now();
        let hang = call(1, "f/hang", json!({})).to_string();
        let mut left = 1000;
        while left > 0 {
            // Few enough for the budget, so that only the rate limits them.
            let mut peer = Frames::connect(&server, loopback(66)).await;
            for n in 0..left.min(50) {
                let stream = 1 + 2 * n;
                assert!(peer.send(&calling(stream, &hang)).await);
                // The reset comes when the call was looked at, refused or not.
                let before = told.count("f/hang");
                let refused = server.report().refusals.get("rate_limited").copied();
                eventually(|| {
                    told.count("f/hang") > before
                        || server.report().refusals.get("rate_limited").copied() > refused
                        || begun.elapsed().is_ok_and(|time| time.as_secs() > 25)
                })
                .await;
                assert!(peer.send(&frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])).await);
            }
            assert_ne!(peer.verdict(0).await, Verdict::Closed);
            left -= left.min(50);
        }
        let seconds = usize::try_from(begun.elapsed().unwrap().as_secs()).unwrap();
        let called = told.count("f/hang");
        assert!((30..=31 + seconds + 1).contains(&called), "{called} in {seconds} s");
        // Each that was let in was cancelled.
        eventually(|| told.count("dropped") == called).await;
    })
    .await;
}

#[tokio::test]
async fn cancelled_calls_of_a_session_do_not_pile_up() {
    bounded(async {
        let (server, told) = TestServer::fixture().await;
        let session = server.client().initialize("2025-06-18").await;
        let mut peer = Frames::connect(&server, loopback(66)).await;
        // More than a session may have waiting at once (64), each told to be cancelled by the client,
        // and its stream reset.
        for n in 0..150_u32 {
            let stream = 1 + 4 * n;
            let mut block = request("POST", "/mcp");
            block.extend(field("content-type", "application/json"));
            block.extend(field("accept", "application/json, text/event-stream"));
            block.extend(field("authorization", format!("Bearer {TOKEN}")));
            block.extend(field("mcp-session-id", &session.id));
            let before = told.count("f/hang");
            let body = call(n, "f/hang", json!({})).to_string();
            let ask = [
                frame(HEADERS, END_HEADERS, stream, &block),
                frame(DATA, END_STREAM, stream, body.as_bytes()),
            ];
            assert!(peer.send(&ask.concat()).await);
            eventually(|| told.count("f/hang") > before).await;
            let cancel =
                note("notifications/cancelled", json!({ "requestId": n, "reason": "reset" }));
            let cancel = [
                frame(HEADERS, END_HEADERS, stream + 2, &block),
                frame(DATA, END_STREAM, stream + 2, cancel.to_string().as_bytes()),
                frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]),
            ];
            assert!(peer.send(&cancel.concat()).await);
            eventually(|| told.count("dropped") > before).await;
        }
        assert_eq!(told.count("dropped"), 150);
        let answer = session.call(1000, "f/echo", json!({})).await;
        assert!(answer.get("result").is_some());
    })
    .await;
}
