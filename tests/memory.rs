//! Promise: what messages take of memory has a lid, in all and for each client; whoever reaches it
//! is told so, and others notice nothing.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails, helpers of it too")]

mod support;

use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::join_all;
use http_body_util::Full;
use mcp_edge::{Behind, Config, Limits, Times, UpstreamKind};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use socket2::SockRef;
use support::{
    Answer, Client, Fixture, Mark, RawClient, SCRIPT, TOKEN, TestServer, bounded, call, config,
    eventually, hello, loopback, within,
};

const KIB: usize = 1024;
/// The largest body in these tests.
const BODY: usize = 100 * KIB;

fn limits(buffered: usize) -> Limits {
    Limits {
        max_body_bytes: BODY,
        max_line_bytes: BODY,
        max_buffered_bytes: buffered,
        ..*config().limits
    }
}

async fn limited(limits: Limits) -> TestServer {
    TestServer::start(
        Config { limits: limits.check().unwrap(), ..config() },
        Behind::handler(Fixture::new().0),
    )
    .await
}

async fn bare(client: &Client, method: &str, params: serde_json::Value) -> Answer {
    let request = client.request("POST", "/mcp").header("content-type", "application/json");
    let body = call(1, method, params).to_string();
    client.send(request.body(Full::new(body.into())).unwrap()).await
}

/// A connection from this address on which a body has begun, and does not go on.
async fn half_a_body(server: &TestServer, from: IpAddr, framing: &str, sent: &str) -> RawClient {
    let tcp = server.client().from(from).tcp().await.unwrap();
    let mut raw = RawClient::over(tcp, rustls::ClientConfig::clone(&server.tls)).await.unwrap();
    raw.send(format!(
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         authorization: Bearer {TOKEN}\r\n{framing}\r\n\r\n{sent}"
    ))
    .await;
    raw
}

async fn declared(server: &TestServer, from: IpAddr) -> RawClient {
    let framing = format!("content-length: {BODY}");
    half_a_body(server, from, &framing, &" ".repeat(90 * KIB)).await
}

fn held(server: &TestServer) -> usize {
    server.report().buffered_bytes
}

#[tokio::test]
async fn one_client_may_hold_a_quarter_and_others_notice_nothing() {
    bounded(async {
        let server = limited(limits(1700 * KIB)).await;
        let (hostile, good) = (loopback(2), loopback(3));
        let mut bodies = Vec::new();
        for count in 1..=4 {
            bodies.push(declared(&server, hostile).await);
            eventually(|| held(&server) >= count * 90 * KIB).await;
        }
        // Before it is read ...
        let mut early = half_a_body(&server, hostile, &format!("content-length: {BODY}"), "").await;
        let refused = early.answer().await.unwrap();
        assert_eq!(refused.status, 429, "{refused:?}");
        assert_eq!(refused.json()["error"]["code"], -32_000);
        assert!(refused.head.contains("retry-after: "), "{refused:?}");
        // ... and while it is read, where it does not say how long it is.
        let chunk = format!("16000\r\n{}\r\n", " ".repeat(0x16000));
        let mut late = half_a_body(&server, hostile, "transfer-encoding: chunked", &chunk).await;
        assert_eq!(late.answer().await.unwrap().status, 429);
        let report = server.report();
        assert_eq!(report.refusals["too_many_bytes"], 2);
        assert!(report.outcomes["peer_memory_full"] >= 2 && report.outcomes["memory_full"] == 0);
        for client in [server.client().from(good), server.client().from(good).h2()] {
            let text = "x".repeat(90 * KIB);
            let answer = bare(&client, "f/echo", json!({ "text": text })).await;
            assert_eq!(answer.json()["result"]["text"], text);
        }
        // What is given up comes back.
        drop(bodies);
        eventually(|| held(&server) == 0).await;
        assert_eq!(bare(&server.client().from(hostile), "f/echo", json!({})).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn when_all_is_used_up_it_is_503_until_it_is_given_back() {
    bounded(async {
        let server = limited(limits(1050 * KIB)).await;
        let mut bodies = Vec::new();
        for last in 2..=11 {
            bodies.push(declared(&server, loopback(last)).await);
            eventually(|| held(&server) >= bodies.len() * 90 * KIB).await;
        }
        let mut early =
            half_a_body(&server, loopback(12), &format!("content-length: {BODY}"), "").await;
        let refused = early.answer().await.unwrap();
        assert_eq!(refused.status, 503, "{refused:?}");
        assert!(refused.head.contains("retry-after: "), "{refused:?}");
        let report = server.report();
        assert_eq!((report.refusals["bytes_full"], report.outcomes["memory_full"]), (1, 1));
        drop(bodies);
        eventually(|| held(&server) == 0).await;
        assert_eq!(bare(&server.client(), "f/echo", json!({})).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn what_takes_far_more_as_values_than_as_text_is_charged_as_that() {
    bounded(async {
        let server = limited(limits(8192 * KIB)).await;
        let client = server.client();
        let text = |part: &str| format!("[{}1]", part.repeat(90 * KIB / part.len()));
        let body = |part: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"f/echo","params":{{"a":{}}}}}"#,
                text(part)
            )
        };
        let cheap = "\"long enough a text to be cheap\",";
        assert!(
            client.send(client.post_bytes("/mcp", body(cheap))).await.json()["result"].is_object()
        );
        // It could never be held: to come back later is no use.
        let too_much = |answer: &Answer| {
            assert_eq!(answer.status, 413, "{answer:?}");
            assert_eq!(answer.header("retry-after"), "", "{answer:?}");
        };
        let answer = client.send(client.post_bytes("/mcp", body("1,"))).await;
        too_much(&answer);
        assert_eq!((&answer.json()["id"], answer.refusal().1), (&json!(1), -32_000));
        let session = client.initialize("2025-11-25").await;
        too_much(&client.send(session.posting(body("1,"))).await);
        let request = client.request("GET", "/sse").header("accept", "text/event-stream");
        let mut sse = client.open(request.body(Full::default()).unwrap()).await.events();
        let endpoint = sse.next().await.unwrap().data.unwrap();
        too_much(&client.send(client.post_bytes(&endpoint, body("1,"))).await);
        assert_eq!(session.delete().await.status, 204);
        let plain = format!(r#"{{"name":"x","arguments":{{"a":{}}}}}"#, text("1,"));
        let answer = client.send(client.post_bytes("/mcp/call-tool", plain)).await;
        too_much(&answer);
        assert_eq!(answer.json()["error"], "message_too_large");
        assert_eq!(server.report().refusals["message_too_large"], 4);
        drop(sse);
        eventually(|| held(&server) == 0).await;
    })
    .await;
}

/// A child with answers of any length: `t/long` is answered by a line of about `$1` bytes.
fn long(bytes: usize) -> String {
    let say = format!(
        r#"case $line in
    *'"method":"t/long"'*) printf '{{"result":{{"text":"%0{bytes}d"}},"jsonrpc":"2.0","id":%s}}\n' 0 "$id" ;;"#
    );
    SCRIPT.replace("case $line in", &say)
}

#[tokio::test]
async fn whose_answer_is_too_long_is_told_at_once() {
    bounded(async {
        let mark = Mark::new();
        let config = Config { limits: limits(1600 * KIB).check().unwrap(), ..config() };
        let server = TestServer::start(config, mark.sh(&long(2 * BODY))).await;
        let session = server.client().initialize("2025-11-25").await;
        let told = session.call("é", "t/long", json!({})).await;
        assert_eq!((&told["id"], &told["error"]["code"]), (&json!("é"), &json!(-32_603)));
        assert!(told["error"]["message"].as_str().unwrap().contains("--max-line-bytes"), "{told}");
        let told = bare(&server.client(), "t/long", json!({})).await.json();
        assert_eq!((&told["id"], &told["error"]["code"]), (&json!(1), &json!(-32_603)));
        assert_eq!(server.report().outcomes["line_too_long"], 2);
        session.call(2, "t/pid", json!({})).await;
        assert!(server.stop().await);
        mark.gone().await;
    })
    .await;
}

#[tokio::test]
async fn whose_answer_finds_no_memory_is_told_at_once() {
    bounded(async {
        let mark = Mark::new();
        let limits = Limits { max_line_bytes: 2048 * KIB, ..limits(1024 * KIB) };
        let config = Config { limits: limits.check().unwrap(), ..config() };
        let server = TestServer::start(config, mark.sh(&long(1500 * KIB))).await;
        let session = server.client().initialize("2025-11-25").await;
        let told = session.call(7, "t/long", json!({})).await;
        assert_eq!((&told["id"], &told["error"]["code"]), (&json!(7), &json!(-32_603)));
        assert!(told["error"]["message"].as_str().unwrap().contains("no memory"), "{told}");
        assert_eq!(server.report().outcomes["line_unbuffered"], 1);
        session.call(8, "t/pid", json!({})).await;
        assert!(server.stop().await);
        mark.gone().await;
    })
    .await;
}

#[tokio::test]
async fn an_upstreams_answer_without_memory_is_its_callers_error() {
    bounded(async {
        let (behind, _told) = TestServer::fixture().await;
        for kind in [UpstreamKind::Streamable, UpstreamKind::Sse] {
            let limits = Limits { max_line_bytes: 4096 * KIB, ..limits(1024 * KIB) };
            let config = Config { limits: limits.check().unwrap(), ..config() };
            let server = TestServer::start(config, behind.as_upstream(kind)).await;
            let told = bare(&server.client(), "f/huge", json!({ "size": 3072 * KIB })).await.json();
            assert_eq!((&told["id"], &told["error"]["code"]), (&json!(1), &json!(-32_603)));
            assert!(told["error"]["message"].as_str().unwrap().contains("no memory"), "{told}");
            let outcomes = server.report().outcomes;
            assert!(outcomes["memory_full"] + outcomes["peer_memory_full"] >= 1);
            let fits = bare(&server.client(), "f/huge", json!({ "size": 10 * KIB })).await.json();
            assert!(fits.get("result").is_some(), "{kind:?} {fits}");
        }
    })
    .await;
}

/// A child that says, once told, as much as it is let.
fn flood() -> String {
    let line = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"%04000d"}}"#;
    let flood = format!("case $line in\n *'\"t/flood\"'*) exec yes \"$(printf '{line}' 0)\" ;;");
    SCRIPT.replace("case $line in", &flood)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_never_read_cost_less_than_a_mebibyte_each_and_are_cut() {
    const READERS: usize = 4;
    within(Duration::from_mins(1), async {
        let mark = Mark::new();
        let times = Times { write: Duration::from_secs(3), ..*config().times };
        let server = TestServer::start(
            Config { times: times.check().unwrap(), ..config() },
            mark.sh(&flood()),
        )
        .await;
        let client = server.client();
        let sessions = join_all((0..READERS).map(|_| client.initialize("2025-11-25"))).await;
        let mut readers = Vec::new();
        for session in &sessions {
            let tcp = client.tcp().await.unwrap();
            SockRef::from(&tcp).set_recv_buffer_size(4096).unwrap();
            let tls = rustls::ClientConfig::clone(&server.tls);
            let mut raw = RawClient::over(tcp, tls).await.unwrap();
            raw.send(format!(
                "GET /mcp HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\
                 authorization: Bearer {TOKEN}\r\nmcp-session-id: {}\r\n\r\n",
                session.id
            ))
            .await;
            raw.until("\r\n\r\n").await;
            readers.push(raw);
        }
        let flood = json!({ "jsonrpc": "2.0", "method": "t/flood" });
        for session in &sessions {
            assert_eq!(session.post(&flood).await.status, 202);
        }
        let most = std::cell::Cell::new(0);
        eventually(|| {
            most.set(most.get().max(held(&server)));
            // By the edge, or by the kernel for it (TCP_USER_TIMEOUT).
            server.report().connections == 0
        })
        .await;
        assert!(most.get() < READERS * 1024 * KIB, "{} bytes", most.get());
        // Nobody reads any more: their children talk to a log that keeps its newest events.
        eventually(|| server.report().outcomes["events_dropped"] > 0).await;
        eventually(|| server.report().streams == 0).await;
        assert!(held(&server) < READERS * 1024 * KIB);
        for session in &sessions {
            assert_eq!(session.delete().await.status, 204);
        }
        drop(readers);
        eventually(|| held(&server) == 0).await;
        assert!(server.stop().await);
        mark.gone().await;
    })
    .await;
}

/// A child that says lines of so many bytes without end, once it is asked to.
fn large(bytes: usize) -> String {
    let line = format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"data":"%0{bytes}d"}}}}"#
    );
    let large =
        format!("case $line in\n *'\"t/large\"'*) while :; do printf '{line}\\n' 0; done ;;");
    SCRIPT.replace("case $line in", &large)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_never_read_hold_no_more_than_a_mebibyte_and_one_event() {
    for bytes in [100_000, 1_000_000, 4_000_000] {
        within(Duration::from_mins(1), async {
            let mark = Mark::new();
            let times = Times { write: Duration::from_secs(3), ..*config().times };
            let server = TestServer::start(
                Config { times: times.check().unwrap(), ..config() },
                mark.sh(&large(bytes)),
            )
            .await;
            let client = server.client();
            let session = client.initialize("2025-11-25").await;
            let tcp = client.tcp().await.unwrap();
            SockRef::from(&tcp).set_recv_buffer_size(4096).unwrap();
            let tls = rustls::ClientConfig::clone(&server.tls);
            let mut raw = RawClient::over(tcp, tls).await.unwrap();
            raw.send(format!(
                "GET /mcp HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\
                 authorization: Bearer {TOKEN}\r\nmcp-session-id: {}\r\n\r\n",
                session.id
            ))
            .await;
            raw.until("\r\n\r\n").await;
            let ask = json!({ "jsonrpc": "2.0", "method": "t/large" });
            assert_eq!(session.post(&ask).await.status, 202);
            let most = std::cell::Cell::new(0);
            eventually(|| {
                let held = held(&server);
                // What its session holds when it is cut off, or gone, is another matter.
                let report = server.report();
                if report.streams > 0 && report.outcomes["reader_cut"] == 0 {
                    most.set(most.get().max(held));
                }
                report.connections == 0
            })
            .await;
            assert!(most.get() >= bytes, "{} bytes of {bytes}", most.get());
            assert!(most.get() < 1024 * KIB + bytes, "{} bytes of {bytes}", most.get());
            assert_eq!(session.delete().await.status, 204);
            eventually(|| held(&server) == 0).await;
            assert!(server.stop().await);
            mark.gone().await;
        })
        .await;
    }
}

/// Opens an HTTP+SSE stream, and waits for its first event.
async fn listen(client: Client) -> support::Stream {
    let request = client.request("GET", "/sse").header("accept", "text/event-stream");
    let mut stream = client.open(request.body(Full::default()).unwrap()).await.events();
    assert!(stream.next().await.is_some());
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_2000_readers_that_vanish_nothing_is_left() {
    const READERS: usize = 2000;
    within(Duration::from_mins(3), async {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
        let limits = Limits { streams_per_ip: 3000, connections_per_ip: 3000, ..*config().limits };
        let server = limited(limits).await;
        let client = server.client();
        drop(listen(client.clone()).await);
        eventually(|| server.report().connections == 0).await;
        let before = server.report().descriptors.unwrap();
        let mut readers = Vec::new();
        while readers.len() < READERS {
            let kinds = [client.clone(), client.clone().abrupt(), client.clone().h2()];
            let kinds = kinds.into_iter().cycle().take(99);
            readers.extend(join_all(kinds.map(listen)).await);
        }
        let report = server.report();
        assert!(report.streams >= 2000 && report.sessions >= 2000, "{report:?}");
        drop(readers);
        eventually(|| {
            let report = server.report();
            let left = [report.connections, report.sessions, report.buffered_bytes];
            left == [0; 3] && report.streams == 0
        })
        .await;
        eventually(|| server.report().descriptors.unwrap() <= before).await;
        assert!(server.stop().await, "a task was left behind");
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_is_not_fetched_is_counted_until_its_session_ends() {
    bounded(async {
        let server = limited(limits(1600 * KIB)).await;
        let session = server.client().initialize("2025-11-25").await;
        drop(session.stream(&call(1, "f/huge", json!({ "size": 50 * KIB }))).await);
        eventually(|| server.report().connections == 0).await;
        assert_eq!(session.delete().await.status, 204);
        eventually(|| held(&server) == 0).await;
        let again = server.client();
        assert_eq!(again.send(again.post("/mcp", &hello("2025-11-25"))).await.status, 200);
    })
    .await;
}
