//! Promise: every count has its limit, reaching it has its status, and whoever keeps to the limits
//! notices nothing of those who do not.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails, helpers of it too")]

mod support;

use std::time::Duration;

use futures_util::future::join_all;
use http_body_util::Full;
use mcp_edge::{Behind, Config, Limits, Times};
use serde_json::json;
use support::{
    Answer, Client, Conn, Fixture, Mark, RawClient, TOKEN, TestServer, bounded, call, config,
    eventually, hello, loopback, within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

async fn limited(limits: Limits) -> TestServer {
    TestServer::start(Config { limits, ..config() }, Behind::handler(Fixture::new().0)).await
}

/// The limits that operators get without a word, as far as rate goes.
fn default_rate() -> Limits {
    let Limits { requests_per_second, burst, .. } = Limits::default();
    Limits { requests_per_second, burst, ..config().limits }
}

async fn bare_call(client: &Client) -> Answer {
    let request = client.request("POST", "/mcp").header("content-type", "application/json");
    let body = call(1, "f/echo", json!({})).to_string();
    client.send(request.body(Full::new(body.into())).unwrap()).await
}

/// A refusal that says when to come back.
fn retry_after(answer: &Answer) -> u64 {
    assert!(answer.json().get("error").is_some(), "{answer:?}");
    answer.header("retry-after").parse().unwrap()
}

#[tokio::test]
async fn of_60_requests_at_once_21_pass_and_others_notice_nothing() {
    bounded(async {
        let server = limited(default_rate()).await;
        for last in [1, 3] {
            let client = server.client().from(loopback(last)).h2();
            let conn = client.connect().await;
            // Connected beforehand, so that the requests come within a moment.
            let mut conns = vec![conn];
            for _ in 0..11 {
                conns.push(client.connect().await);
            }
            let begun = Instant::now();
            let answers = join_all(conns.iter_mut().map(|conn| async {
                let mut answers = Vec::new();
                for _ in 0..5 {
                    let body = call(1, "f/echo", json!({})).to_string();
                    let request = client.request("POST", "/mcp");
                    let request = request.header("content-type", "application/json");
                    answers.push(conn.send(request.body(Full::new(body.into())).unwrap()).await);
                }
                answers
            }))
            .await;
            let late = usize::try_from(begun.elapsed().as_millis() / 100).unwrap();
            let answers: Vec<_> = answers.into_iter().flatten().collect();
            let passed = answers.iter().filter(|it| it.status == 200).count();
            assert!((20..=21 + late).contains(&passed), "{passed} passed, {late} became due");
            let refused = server.report().refusals["rate_limited"];
            assert!(refused >= u64::try_from(answers.len() - passed).unwrap(), "{refused}");
            for refused in answers.iter().filter(|it| it.status != 200) {
                assert_eq!(refused.status, 429);
                assert!(retry_after(refused) >= 1);
            }
            let other = server.client().from(loopback(last + 1));
            for _ in 0..10 {
                assert_eq!(bare_call(&other).await.status, 200);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_flood_is_refused_before_its_bodies_come() {
    bounded(async {
        let server = limited(Limits { burst: 3, requests_per_second: 1, ..config().limits }).await;
        let mut refusals = Vec::new();
        // Connected beforehand, so that the requests come within a moment.
        let mut raws = Vec::new();
        for _ in 0..8 {
            raws.push(server.raw().await);
        }
        for mut raw in raws {
            raw.send(
                "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                 expect: 100-continue\r\ncontent-length: 10000000\r\n\r\n",
            )
            .await;
            let answer = timeout(Duration::from_secs(2), raw.answer()).await.unwrap().unwrap();
            assert!(answer.json().get("error").is_some());
            refusals.push(answer.status);
        }
        assert_eq!(refusals.first_chunk::<4>(), Some(&[401; 4]));
        assert_eq!(refusals.last_chunk::<3>(), Some(&[429; 3]));
    })
    .await;
}

#[tokio::test]
async fn a_body_that_says_it_is_too_large_is_refused_before_it_comes() {
    bounded(async {
        let server = limited(Limits { max_body_bytes: 100_000, ..config().limits }).await;
        let head = format!(
            "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             authorization: Bearer {TOKEN}\r\n"
        );
        let mut said = server.raw().await;
        said.send(format!("{head}content-length: 100001\r\n\r\n")).await;
        let answer = timeout(Duration::from_secs(2), said.answer()).await.unwrap().unwrap();
        assert_eq!((answer.status, answer.json().get("error").is_some()), (413, true));
        let mut chunked = server.raw().await;
        chunked.send(format!("{head}transfer-encoding: chunked\r\n\r\n")).await;
        for _ in 0..11 {
            chunked.send(format!("2710\r\n{}\r\n", " ".repeat(10_000))).await;
        }
        let answer = timeout(Duration::from_secs(2), chunked.answer()).await.unwrap().unwrap();
        assert_eq!((answer.status, answer.json().get("error").is_some()), (413, true));
    })
    .await;
}

#[tokio::test]
async fn who_is_let_wait_gets_a_turn() {
    bounded(async {
        let limits = Limits { burst: 0, requests_per_second: 10, ..config().limits };
        let times = Times { rate_wait: Duration::from_secs(5), ..config().times };
        let (fixture, _told) = Fixture::new();
        let config = Config { limits, times, ..config() };
        let server = TestServer::start(config, Behind::handler(fixture)).await;
        let client = server.client();
        let begun = Instant::now();
        let answers = join_all((0..8).map(|_| bare_call(&client))).await;
        assert!(answers.iter().all(|it| it.status == 200), "{answers:?}");
        assert!(begun.elapsed() >= Duration::from_millis(600), "{:?}", begun.elapsed());
        // Nobody waits for who does not even bring a token.
        let stranger = client.stranger();
        let answers = join_all((0..8).map(|_| bare_call(&stranger))).await;
        assert!(answers.iter().any(|it| it.status == 429));
    })
    .await;
}

#[tokio::test]
async fn the_21st_connection_of_one_address_is_refused() {
    bounded(async {
        let Limits { connections_per_ip, .. } = Limits::default();
        let server = limited(Limits { connections_per_ip, ..config().limits }).await;
        let (client, other) = (server.client(), server.client().from(loopback(2)));
        let mut conns = Vec::new();
        for _ in 0..20 {
            conns.push(client.connect().await);
        }
        // Before any TLS: the socket ends without a byte.
        let mut refused = client.tcp().await.unwrap();
        assert!(matches!(refused.read(&mut [0; 16]).await, Ok(0) | Err(_)));
        assert!(client.try_connect().await.is_err());
        let report = server.report();
        assert_eq!((report.connections, report.outcomes["connections_per_ip"]), (20, 2));
        assert_eq!(bare_call(&other).await.status, 200);
        let request = client.post("/mcp", &hello("2025-11-25"));
        assert_eq!(conns.last_mut().unwrap().send(request).await.status, 200);
        drop(conns.pop());
        while client.try_connect().await.is_err() {}
    })
    .await;
}

#[tokio::test]
async fn connections_in_all_are_limited() {
    bounded(async {
        let server = limited(Limits { max_connections: 6, ..config().limits }).await;
        let mut conns = Vec::new();
        for last in 1..=6 {
            conns.push(known(&server.client().from(loopback(last))).await);
        }
        let late = server.client().from(loopback(7));
        // A server may refuse it, or leave it waiting.
        let waited = timeout(Duration::from_millis(300), late.try_connect()).await;
        assert!(!matches!(waited, Ok(Ok(_))));
        assert_eq!(server.report().outcomes["max_connections"], 1);
        let client = server.client();
        let begun = Instant::now();
        let request = client.post("/mcp", &hello("2025-11-25"));
        assert_eq!(conns.last_mut().unwrap().send(request).await.status, 200);
        assert!(begun.elapsed() < Duration::from_secs(1), "the rest stay fast");
        drop(conns.pop());
        while late.try_connect().await.is_err() {}
    })
    .await;
}

/// A connection that has shown its token.
async fn known(client: &Client) -> Conn {
    let mut conn = client.connect().await;
    let request = client.post("/mcp", &call(1, "f/echo", json!({})));
    assert_eq!(conn.send(request).await.status, 200);
    conn
}

#[tokio::test]
async fn where_all_places_are_taken_the_oldest_stranger_gives_way() {
    bounded(async {
        let server = limited(Limits { max_connections: 4, ..config().limits }).await;
        let mut kept = known(&server.client().from(loopback(1))).await;
        let mut first = server.client().from(loopback(2)).connect().await;
        let mut strangers = Vec::new();
        for last in 3..=4 {
            strangers.push(server.client().from(loopback(last)).connect().await);
        }
        let client = server.client().from(loopback(5));
        assert_eq!(bare_call(&client).await.status, 200);
        first.ended().await;
        let report = server.report();
        assert_eq!(report.outcomes["max_unauthenticated"], 1);
        assert_eq!(report.outcomes["max_connections"], 0);
        let request = client.post("/mcp", &call(1, "f/echo", json!({})));
        assert_eq!(kept.send(request).await.status, 200);
    })
    .await;
}

/// Key updates are records without data, and rustls lets 31 in a row pass.
#[tokio::test]
async fn tls_records_without_data_end_a_connection() {
    bounded(async {
        let server = TestServer::start(config(), Behind::diagnostics()).await;
        let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned();
        let settings = "\0\0\0\x04\0\0\0\0\0";
        for (floods, bytes) in [(1, "x".repeat(100)), (2, preface + &settings.repeat(9))] {
            let mut client = if floods == 1 { server.raw().await } else { server.raw_h2().await };
            let mut taken = 0;
            for byte in bytes.bytes() {
                for _ in 0..31 {
                    client.io.get_mut().1.refresh_traffic_keys().unwrap();
                }
                if client.io.write_all(&[byte]).await.is_err() || client.io.flush().await.is_err() {
                    break;
                }
                taken += 1;
                // The server runs on this thread too.
                tokio::task::yield_now().await;
            }
            eventually(|| server.report().outcomes["tls_flood"] == floods).await;
            eventually(|| server.report().connections == 0).await;
            assert!(taken < 100, "nothing ended it");
        }
    })
    .await;
}

/// A client of TLS 1.3 looks at our certificate when the handshake is over for the server.
#[tokio::test]
async fn a_client_that_does_not_trust_us_is_a_failed_handshake() {
    bounded(async {
        let server = TestServer::start(config(), Behind::diagnostics()).await;
        for (failed, alpn) in [(1, "http/1.1"), (2, "h2")] {
            let nobody = rustls::RootCertStore::empty();
            let mut tls = rustls::ClientConfig::builder()
                .with_root_certificates(nobody)
                .with_no_client_auth();
            tls.alpn_protocols = vec![alpn.into()];
            let tcp = TcpStream::connect(server.address).await.unwrap();
            assert!(RawClient::over(tcp, tls).await.is_err());
            eventually(|| server.report().outcomes["handshake_failed"] == failed).await;
        }
    })
    .await;
}

/// Half a hello; what follows never comes.
async fn half_handshake(client: &Client) -> TcpStream {
    let mut tcp = client.tcp().await.unwrap();
    tcp.write_all(b"\x16\x03\x01\x02\x00\x01\x00").await.unwrap();
    tcp
}

#[tokio::test]
async fn half_handshakes_from_many_addresses_shut_nobody_out() {
    bounded(async {
        let limits = Limits { max_unauthenticated: 50, max_connections: 100, ..config().limits };
        let server = limited(limits).await;
        let mut kept = known(&server.client().from(loopback(200))).await;
        let mut halves = Vec::new();
        for wave in 0..10 {
            for last in 1..=50 {
                halves.push(half_handshake(&server.client().from(loopback(last))).await);
            }
            let good = server.client().from(loopback(100 + wave));
            assert_eq!(bare_call(&good).await.status, 200, "in wave {wave}");
        }
        eventually(|| server.report().unauthenticated <= 50).await;
        let report = server.report();
        assert!(report.outcomes["max_unauthenticated"] >= 450, "{report:?}");
        assert_eq!(report.outcomes["max_connections"], 0);
        let request = server.client().post("/mcp", &call(1, "f/echo", json!({})));
        assert_eq!(kept.send(request).await.status, 200);
        drop(halves);
        eventually(|| server.report().unauthenticated == 0).await;
    })
    .await;
}

#[tokio::test]
async fn who_has_begun_a_handshake_outlasts_silent_connections() {
    bounded(async {
        let limits = Limits { max_unauthenticated: 10, ..config().limits };
        let server = limited(limits).await;
        let begun = half_handshake(&server.client().from(loopback(1))).await;
        eventually(|| server.report().unauthenticated == 1).await;
        let mut silent = Vec::new();
        for last in 2..=40 {
            silent.push(server.client().from(loopback(last)).tcp().await);
        }
        eventually(|| server.report().outcomes["max_unauthenticated"] == 30).await;
        eventually(|| server.report().connections == 10).await;
        // The oldest of all, and still there.
        let mut byte = [0];
        let error = begun.try_read(&mut byte).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    })
    .await;
}

#[tokio::test]
async fn streams_of_one_address_are_limited() {
    bounded(async {
        let server = limited(Limits { streams_per_ip: 3, ..config().limits }).await;
        let client = server.client();
        let mut sessions = Vec::new();
        for _ in 0..4 {
            sessions.push(client.initialize("2025-11-25").await);
        }
        let mut streams = Vec::new();
        for session in sessions.iter().take(3) {
            streams.push(session.listen(None).await.events());
        }
        let last = sessions.last().unwrap();
        for path in ["/mcp", "/sse"] {
            let get = client.request("GET", path).header("accept", "text/event-stream");
            let get = if path == "/mcp" { get.header("mcp-session-id", &last.id) } else { get };
            let refused = client.bare(get).await;
            assert_eq!(refused.status, 429);
            assert!(retry_after(&refused) >= 1);
        }
        // Calls are not long streams, and another address has its own.
        let answer = last.call(1, "f/echo", json!({})).await;
        assert!(answer.get("result").is_some());
        let other = server.client().from(loopback(2)).initialize("2025-11-25").await;
        let _other = other.listen(None).await.events();
        drop(streams.pop());
        while last.listen(None).await.status != 200 {}
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_is_reset_gives_its_place_back() {
    bounded(async {
        let server = limited(Limits { streams_per_ip: 1, ..config().limits }).await;
        let session = server.client().h2().initialize("2025-11-25").await;
        let mut conn = session.client.connect().await;
        for _ in 0..10 {
            let get = || {
                let get = session.request("GET").header("accept", "text/event-stream");
                get.body(Full::default()).unwrap()
            };
            let stream = loop {
                let response = conn.begin(get()).await.unwrap();
                if response.status() == 200 {
                    break response;
                }
                assert_eq!(response.status(), 429);
            };
            assert_eq!(conn.begin(get()).await.unwrap().status(), 429);
            // Only this stream ends, not the connection.
            drop(stream);
        }
    })
    .await;
}

#[tokio::test]
async fn sessions_are_limited_for_one_address_and_in_all() {
    bounded(async {
        let server =
            limited(Limits { sessions_per_ip: 2, max_sessions: 3, ..config().limits }).await;
        let (one, other) = (server.client(), server.client().from(loopback(2)));
        let first = one.initialize("2025-11-25").await;
        let second = one.initialize("2025-11-25").await;
        let _streams = (first.listen(None).await, second.listen(None).await);
        let refused = one.send(one.post("/mcp", &hello("2025-11-25"))).await;
        assert_eq!((refused.status.as_u16(), refused.json().get("id")), (429, Some(&json!(0))));
        assert!(retry_after(&refused) >= 1);
        let third = other.initialize("2025-11-25").await;
        let _stream = third.listen(None).await;
        let refused = other.send(other.post("/mcp", &hello("2025-11-25"))).await;
        assert_eq!(refused.status, 503);
        assert!(retry_after(&refused) >= 1);
        let sse = other.request("GET", "/sse").header("accept", "text/event-stream");
        assert_eq!(other.bare(sse).await.status, 503);
        assert_eq!(first.delete().await.status, 204);
        while other.send(other.post("/mcp", &hello("2025-11-25"))).await.status != 200 {}
    })
    .await;
}

#[tokio::test]
async fn children_are_limited_and_idle_warm_ones_give_way() {
    within(Duration::from_mins(1), async {
        let mark = Mark::new();
        let limits = Limits { max_children: 2, ..config().limits };
        let server = TestServer::start(Config { limits, ..config() }, mark.diagnostics()).await;
        let client = server.client();
        let bare = || async {
            let request = client.request("POST", "/mcp").header("content-type", "application/json");
            let body = call(1, "tools/list", json!({})).to_string();
            client.send(request.body(Full::new(body.into())).unwrap()).await
        };
        assert_eq!(bare().await.status, 200);
        assert_eq!(mark.programs().len(), 1);
        let first = client.initialize("2025-11-25").await;
        let second = client.initialize("2025-11-25").await;
        let _streams = (first.listen(None).await, second.listen(None).await);
        assert_eq!(mark.programs().len(), 2, "the warm one gave way");
        let refused = client.send(client.post("/mcp", &hello("2025-11-25"))).await;
        assert_eq!(refused.status, 503);
        assert!(retry_after(&refused) >= 1);
        assert_eq!(bare().await.status, 503);
        second.call(1, "tools/list", json!({})).await;
        assert_eq!(first.delete().await.status, 204);
        eventually(|| mark.programs().len() == 1).await;
        while bare().await.status != 200 {}
        second.call(2, "tools/list", json!({})).await;
        assert!(server.stop().await);
        mark.gone().await;
    })
    .await;
}

/// One connect of a hosted client: it never uses its session again, and never ends it.
async fn visit(client: &Client) {
    let session = client.initialize("2025-11-25").await;
    session.call(1, "tools/call", json!({ "name": "echo", "arguments": { "text": "x" } })).await;
}

#[tokio::test]
async fn thirty_sessions_that_nobody_uses_again_lock_nobody_out() {
    within(Duration::from_mins(2), async {
        let defaults = Limits::default();
        let per_ip = Limits { sessions_per_ip: defaults.sessions_per_ip, ..config().limits };
        for limits in [
            per_ip.clone(),
            Limits { max_sessions: 7, ..config().limits },
            Limits { max_children: 5, ..per_ip },
        ] {
            let places = limits.max_children;
            let mark = Mark::new();
            let server = TestServer::start(Config { limits, ..config() }, mark.diagnostics()).await;
            let client = server.client();
            // One that came back after a pause keeps its session.
            let working = client.initialize("2025-11-25").await;
            sleep(Duration::from_millis(1600)).await;
            let who = working.call(7, "tools/call", json!({ "name": "whoami" })).await;
            for _ in 0..30 {
                visit(&client).await;
            }
            let again = working.call(8, "tools/call", json!({ "name": "whoami" })).await;
            assert_eq!(who["result"]["structuredContent"], again["result"]["structuredContent"]);
            let evicted = server.report().outcomes["session_evicted"];
            assert!(evicted >= 10, "{evicted} of 31 sessions at {places} places for processes");
            assert!(mark.programs().len() <= usize::try_from(places).unwrap());
            assert!(server.stop().await);
            mark.gone().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_refused_session_hears_when_the_first_place_can_be_free() {
    bounded(async {
        let limits = Limits { sessions_per_ip: 1, ..config().limits };
        let mark = Mark::new();
        let children = Limits { max_children: 1, ..config().limits };
        for (limits, status) in [(limits, 429), (children, 503)] {
            let server = TestServer::start(Config { limits, ..config() }, mark.diagnostics()).await;
            let client = server.client();
            let working = client.initialize("2025-11-25").await;
            sleep(Duration::from_millis(1600)).await;
            working.call(1, "tools/list", json!({})).await;
            let refused = client.send(client.post("/mcp", &hello("2025-11-25"))).await;
            assert_eq!(refused.status, status);
            let wait = retry_after(&refused);
            assert!((290..=300).contains(&wait), "five idle minutes: {wait}");
            assert!(server.stop().await);
        }
    })
    .await;
}

#[tokio::test]
async fn heads_that_are_too_large_are_charged_like_any_other() {
    bounded(async {
        let limits = Limits { requests_per_second: 1, burst: 1, ..config().limits };
        let server = limited(limits).await;
        let client = server.client().h2();
        let mut statuses = Vec::new();
        for _ in 0..4 {
            let large = client.request("POST", "/mcp").header("x-large", "x".repeat(40_000));
            let large = large.body(Full::default()).unwrap();
            statuses.push(client.send(large).await.status.as_u16());
        }
        assert_eq!(statuses.first(), Some(&431));
        assert!(statuses.contains(&429), "{statuses:?}");
    })
    .await;
}

#[tokio::test]
async fn health_has_a_generous_rate_of_its_own() {
    const ASKED: u64 = 1500;
    bounded(async {
        let server = limited(Limits { requests_per_second: 1, burst: 0, ..config().limits }).await;
        for (last, path) in [(11, "/livez"), (12, "/readyz"), (13, "/health"), (14, "/healthz")] {
            let client = server.client().stranger().from(loopback(last)).h2();
            let mut conn = client.connect().await;
            let begun = Instant::now();
            let (mut well, mut refused) = (0, 0);
            for _ in 0..ASKED {
                let request = client.request("GET", path).body(Full::default()).unwrap();
                let answer = conn.send(request).await;
                if answer.status == 200 {
                    assert!(answer.body.is_empty());
                    well += 1;
                    if refused > 0 {
                        break;
                    }
                } else {
                    assert_eq!((answer.status.as_u16(), retry_after(&answer)), (429, 1), "{path}");
                    assert_eq!(answer.json()["error"], "rate_limited");
                    refused += 1;
                }
            }
            let due = u64::try_from(begun.elapsed().as_millis() / 10).unwrap();
            assert!((101..=102 + due).contains(&well), "{path}: {well} passed, {due} became due");
            assert!(refused > 0 || due + 101 >= ASKED, "{path}: {well} passed");
            // It is no part of the rate of calls, nor is that one a part of it.
            let caller = server.client().from(loopback(last));
            assert_eq!(bare_call(&caller).await.status, 200);
        }
    })
    .await;
}
