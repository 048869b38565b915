//! Promise: malformed, hostile or truncated input of any kind gets its status and its JSON-RPC
//! code; it never gives a 5xx or a hang, and others notice nothing.
mod support;

use std::time::Duration;

use mcp_edge::{Behind, Config, Limits};
use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, TestRunner};
use serde_json::json;
use support::{
    Client, Fixture, Mark, RawClient, Session, TOKEN, TestServer, bounded, call, config, hello,
};
use tokio::time::timeout;

/// What an HTTP/2 connection begins with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long an answer is waited for that may never come.
const MOMENT: Duration = Duration::from_millis(150);

/// Bodies, and status and code that each gets; the id that can be read is echoed.
fn bodies() -> Vec<(Vec<u8>, (u16, i64))> {
    let parse = (400, -32_700);
    let shape = (400, -32_600);
    let text = |text: &str| text.as_bytes().to_vec();
    let deep = |open: &str, close: &str| {
        let open = open.repeat(5000);
        let close = close.repeat(5000);
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"f/echo","params":{{"a":{open}{close}}}}}"#)
    };
    vec![
        (text(""), parse),
        (text("   "), parse),
        (text("{"), parse),
        (text("}"), parse),
        (text("nope"), parse),
        (text(r#"{"jsonrpc":"2.0","id":1,"method":"f/ec"#), parse),
        (text(r#"{"jsonrpc":"2.0","id":1,"method":"f/echo"} trailing"#), parse),
        (text(r#"{"jsonrpc":"2.0","id":1,"method":"f/echo",}"#), parse),
        (text(r"{'jsonrpc':'2.0','id':1,'method':'f/echo'}"), parse),
        (b"\xff\xfe{}".to_vec(), parse),
        (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"f/\xff\"}".to_vec(), parse),
        (b"\0\0\0\0".to_vec(), parse),
        (vec![b'['; 100_000], shape),
        (deep("[", "]").into_bytes(), shape),
        (deep(r#"{"a":"#, "}").into_bytes(), shape),
        (text("null"), shape),
        (text("17"), shape),
        (text("\"text\""), shape),
        (text("true"), shape),
        (text("{}"), shape),
        (text("[]"), shape),
        (text("[1]"), shape),
        (text(r#"{"id":1,"method":"f/echo"}"#), shape),
        (text(r#"{"jsonrpc":"1.0","id":1,"method":"f/echo"}"#), shape),
        (text(r#"{"jsonrpc":2.0,"id":1,"method":"f/echo"}"#), shape),
        (text(r#"{"jsonrpc":"2.0","id":null,"method":"f/echo"}"#), shape),
        (text(r#"{"jsonrpc":"2.0","id":1.5,"method":"f/echo"}"#), shape),
        (text(r#"{"jsonrpc":"2.0","id":1e3,"method":"f/echo"}"#), shape),
        (text(r#"{"jsonrpc":"2.0","id":true,"method":"f/echo"}"#), shape),
        (text(r#"{"jsonrpc":"2.0","id":{},"method":"f/echo"}"#), shape),
        (text(r#"{"jsonrpc":"2.0","id":[1],"method":"f/echo"}"#), shape),
        (text(r#"{"jsonrpc":"2.0","id":1}"#), shape),
        (text(r#"{"jsonrpc":"2.0","id":1,"method":7}"#), shape),
        (text(r#"{"jsonrpc":"2.0","id":1,"method":null}"#), shape),
        (text(r#"{"jsonrpc":"2.0","id":1,"method":"f/echo","params":7}"#), shape),
        (text(r#"{"jsonrpc":"2.0","id":1,"method":"f/echo","params":"x"}"#), shape),
        (text(r#"{"jsonrpc":"2.0","id":1,"method":"f/echo","result":{}}"#), shape),
        (text(r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":""}}"#), shape),
        (text(r#"{"jsonrpc":"2.0","result":{}}"#), shape),
        (text(r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"f/echo"}"#), shape),
        (text(r#"{"jsonrpc":"2.0","id":1,"method":"f/echo","method":"f/hang"}"#), shape),
    ]
}

async fn still_works(session: &Session) {
    let echo = session.call("check", "f/echo", json!({ "ok": true })).await;
    assert_eq!(echo, json!({ "jsonrpc": "2.0", "id": "check", "result": { "ok": true } }));
}

#[tokio::test]
async fn a_bad_body_gets_its_code_and_the_session_goes_on() {
    bounded(async {
        let (server, told) = TestServer::fixture().await;
        for client in [server.client(), server.client().h2()] {
            let session = client.initialize("2025-11-25").await;
            let mut conn = client.connect().await;
            for (body, (status, code)) in bodies() {
                let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
                let with_session = conn.send(session.posting(body.clone())).await;
                assert_eq!(with_session.refusal(), (status, code), "{shown}");
                let without = conn.send(client.post_bytes("/mcp", body)).await;
                assert_eq!(without.refusal(), (status, code), "{shown}");
            }
            still_works(&session).await;
        }
        assert_eq!(told.count("f/hang"), 0);
        assert!(server.stop().await);
    })
    .await;
}

#[tokio::test]
async fn a_refusal_names_the_id_it_could_read() {
    bounded(async {
        let (server, _told) = TestServer::fixture().await;
        let client = server.client();
        for (body, id) in [
            (r#"{"jsonrpc":"1.0","id":"a","method":"f/echo"}"#, Some(json!("a"))),
            (r#"{"jsonrpc":"2.0","id":0}"#, Some(json!(0))),
            (r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#, None),
            ("{", None),
        ] {
            let answer = client.send(client.post_bytes("/mcp", body)).await.json();
            assert_eq!(answer.get("id"), id.as_ref(), "{body}");
        }
    })
    .await;
}

/// What hostile fields a request may carry, and what becomes of it.
#[tokio::test]
async fn hostile_fields_are_refused_or_harmless() {
    bounded(async {
        let (server, _told) = TestServer::fixture().await;
        for client in [server.client(), server.client().h2()] {
            let session = client.initialize("2025-11-25").await;
            let long = "a".repeat(10_000);
            for (name, value, status) in [
                ("mcp-session-id", &b""[..], 404),
                ("mcp-session-id", b"../../etc/passwd", 404),
                ("mcp-session-id", long.as_bytes(), 404),
                ("mcp-session-id", b"caf\xe9", 400),
                ("mcp-protocol-version", b"\xff", 400),
                ("last-event-id", b"\xff\xff", 400),
                ("content-type", b"application/json\xff", 415),
                ("content-type", b"multipart/form-data; boundary=x", 415),
                ("content-type", b"application/json; charset=utf-8", 200),
                ("content-type", b"application/json;Charset=\"UTF-8\"", 200),
                ("content-type", b"application/json; charset=us-ascii; v=1", 200),
                ("content-type", b"application/json; charset=utf-16", 415),
                ("content-type", b"application/json; charset=utf-16le; charset=utf-8", 415),
                ("content-type", b"application/json; v=1; CHARSET = \"iso-8859-1\"", 415),
                ("content-type", b"application/json; charset=", 415),
                ("content-encoding", b"br", 415),
                ("accept", b"\xff", 200),
                ("accept", b"application/json;q=0", 406),
            ] {
                let mut request = session.posting(call(1, "f/echo", json!({})).to_string());
                request.headers_mut().insert(name, http::HeaderValue::from_bytes(value).unwrap());
                let answer = client.send(request).await;
                let shown = String::from_utf8_lossy(value);
                assert_eq!(answer.status, status, "{name}: {shown:.40}");
                assert!(answer.json().is_object());
            }
            still_works(&session).await;
        }
    })
    .await;
}

/// Sends bytes; every answer, until the server closes or has no more to say.
///
/// `first` is how long the first may take. Where the server waits for more, its own time limit ends
/// it: see the paused-clock tests.
async fn statuses(mut raw: RawClient, bytes: &[u8], first: Duration) -> Vec<u16> {
    raw.send(bytes).await;
    let mut statuses = Vec::new();
    let mut patience = first;
    while let Ok(Some(answer)) = timeout(patience, raw.answer()).await {
        assert!(answer.status < 400 || answer.json().is_object());
        statuses.push(answer.status);
        if answer.head.contains("connection: close") {
            break;
        }
        patience = MOMENT;
    }
    statuses
}

#[tokio::test]
async fn what_is_no_http_is_refused_in_json() {
    bounded(async {
        let (server, _told) = TestServer::fixture().await;
        let session = server.client().initialize("2025-11-25").await;
        let auth = format!("host: localhost\r\nauthorization: Bearer {TOKEN}\r\n");
        let post = format!("POST /mcp HTTP/1.1\r\n{auth}content-type: application/json\r\n");
        let target = "x".repeat(70_000);
        for (bytes, expected) in [
            ("\r\n\r\nnonsense\r\n\r\n".to_owned(), Some(400)),
            ("GET\r\n\r\n".to_owned(), Some(400)),
            ("GET /mcp\r\n\r\n".to_owned(), Some(400)),
            ("GET /mcp HTTP/9.9\r\n\r\n".to_owned(), Some(400)),
            ("GET /mcp HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), Some(400)),
            ("GET /mcp HTTP/1.1\r\nna me: x\r\n\r\n".to_owned(), Some(400)),
            ("GET /mcp HTTP/1.1\r\nhost: a\0b\r\n\r\n".to_owned(), Some(400)),
            (format!("GET /{target} HTTP/1.1\r\n{auth}\r\n"), None),
            (format!("{post}content-length: x\r\n\r\n"), Some(400)),
            (format!("{post}content-length: -1\r\n\r\n"), Some(400)),
            (format!("{post}content-length: 1\r\ncontent-length: 2\r\n\r\n{{}}"), Some(400)),
            (format!("{post}content-length: 99999999999999999999999\r\n\r\n"), None),
            (format!("{post}content-length: 9999999999\r\n\r\n"), Some(413)),
            (format!("{post}transfer-encoding: gzip\r\n\r\n"), Some(400)),
            (format!("{post}transfer-encoding: chunked\r\n\r\nzz\r\n"), Some(400)),
            (format!("{post}transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n"), Some(400)),
            ("CONNECT localhost:1 HTTP/1.1\r\nhost: localhost:1\r\n\r\n".to_owned(), Some(401)),
            ("\u{16}\u{3}\u{1}".to_owned() + &"x".repeat(100), None),
        ] {
            let first = if expected.is_some() { Duration::from_secs(5) } else { MOMENT };
            let got = statuses(server.raw().await, bytes.as_bytes(), first).await;
            let shown = bytes.get(..bytes.len().min(160)).unwrap_or_default();
            assert!(got.iter().all(|status| *status < 500), "{shown:?}: {got:?}");
            if let Some(expected) = expected {
                assert_eq!(got, [expected], "{shown:?}");
            } else {
                assert!(got.iter().all(|status| *status >= 400), "{shown:?}: {got:?}");
            }
        }
        still_works(&session).await;
        assert!(server.stop().await);
    })
    .await;
}

/// Smuggling: what comes behind a message of doubtful length is no request.
#[tokio::test]
async fn a_request_is_not_smuggled_in() {
    bounded(async {
        let (server, told) = TestServer::fixture().await;
        let auth = format!("host: localhost\r\nauthorization: Bearer {TOKEN}\r\n");
        let inner = call(1, "f/smuggled", json!({})).to_string();
        let inner = format!(
            "POST /mcp HTTP/1.1\r\n{auth}content-type: application/json\r\ncontent-length: {}\r\n\r\n{inner}",
            inner.len()
        );
        let head = format!("POST /mcp HTTP/1.1\r\n{auth}content-type: application/json\r\n");
        for framing in [
            "content-length: 5\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
            "transfer-encoding: chunked, identity\r\n",
            "transfer-encoding: xchunked\r\n",
            "content-length: 5\r\ncontent-length: 0\r\n",
        ] {
            let bytes = format!("{head}{framing}\r\n0\r\n\r\n{inner}");
            let got = statuses(server.raw().await, bytes.as_bytes(), MOMENT).await;
            assert!(got.iter().all(|status| (400..500).contains(status)), "{framing}: {got:?}");
        }
        assert_eq!(told.count("f/smuggled"), 0);
    })
    .await;
}

#[tokio::test]
async fn a_client_that_breaks_off_leaves_nothing() {
    bounded(async {
        let (server, told) = TestServer::fixture().await;
        let session = server.client().initialize("2025-11-25").await;
        let body = call(1, "f/echo", json!({})).to_string();
        let whole = format!(
            "POST /mcp HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\
             content-type: application/json\r\naccept: application/json\r\n\
             mcp-session-id: {}\r\ncontent-length: {}\r\n\r\n{body}",
            session.id,
            body.len()
        );
        for length in (0..whole.len()).step_by(17) {
            let mut raw = server.raw().await;
            raw.send(&whole.as_bytes()[..length]).await;
            drop(raw);
        }
        still_works(&session).await;
        assert_eq!(told.count("f/echo"), 1);
        assert!(server.stop().await, "a task was left behind");
    })
    .await;
}

#[tokio::test]
async fn http2_gone_wrong_ends_one_connection() {
    bounded(async {
        let (server, _told) = TestServer::fixture().await;
        let session = server.client().h2().initialize("2025-11-25").await;
        let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
            let length = u8::try_from(payload.len()).unwrap();
            [&[0, 0, length, kind, flags, 0, 0, 0, stream][..], payload].concat()
        };
        let settings = frame(4, 0, 0, &[]);
        for bad in [
            b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
            b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec(),
            [PREFACE, &frame(0, 0, 1, b"data before headers")].concat(),
            [PREFACE, &settings, &frame(1, 5, 1, b"\xff\xff\xff\xff")].concat(),
            [PREFACE, &settings, &frame(1, 5, 2, b"\x82")].concat(),
            [PREFACE, &settings, &frame(9, 4, 1, b"\x82")].concat(),
            [PREFACE, &settings, &frame(8, 0, 0, &[0, 0, 0, 0])].concat(),
            [PREFACE, &settings, &frame(6, 0, 0, b"short")].concat(),
            [PREFACE, &settings, &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat(),
        ] {
            let mut raw = server.raw_h2().await;
            raw.send(&bad).await;
            let end = timeout(Duration::from_secs(5), raw.until_closed()).await;
            assert!(end.is_ok(), "the server waits for more of {bad:?}");
        }
        still_works(&session).await;
        assert!(server.stop().await);
    })
    .await;
}

#[tokio::test]
async fn a_child_is_not_reached_by_what_is_refused() {
    bounded(async {
        let mark = Mark::new();
        let server = TestServer::start(config(), mark.diagnostics()).await;
        let client = server.client();
        let session = client.initialize("2025-11-25").await;
        let mut conn = client.connect().await;
        for (body, refusal) in bodies() {
            assert_eq!(conn.send(session.posting(body)).await.refusal(), refusal);
        }
        // A message over many lines stays one message.
        let pretty = serde_json::to_string_pretty(&call(1, "tools/list", json!({}))).unwrap();
        for breaks in ["\n", "\r\n", "\r"] {
            let answer = conn.send(session.posting(pretty.replace('\n', breaks))).await;
            assert_eq!((answer.status.as_u16(), &answer.message()["id"]), (200, &json!(1)));
        }
        assert!(server.stop().await);
        mark.gone().await;
    })
    .await;
}

fn shaped() -> impl Strategy<Value = Vec<u8>> {
    let value = prop_oneof![
        Just("null".to_owned()),
        Just("{}".to_owned()),
        Just("[]".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| number.to_string()),
        ".{0,12}".prop_map(|text| json!(text).to_string()),
        Just(r#""2.0""#.to_owned()),
        Just(r#""f/echo""#.to_owned()),
        Just(r#""initialize""#.to_owned()),
        Just(r#""notifications/cancelled""#.to_owned()),
        Just(r#"{"requestId":1,"_meta":{"progressToken":[]}}"#.to_owned()),
    ];
    let key = prop_oneof![
        Just("jsonrpc"),
        Just("id"),
        Just("method"),
        Just("params"),
        Just("result"),
        Just("error"),
    ];
    let object = proptest::collection::vec((key, value), 0..6).prop_map(|pairs| {
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        format!("{{\"jsonrpc\":\"2.0\",{}}}", pairs.join(",")).into_bytes()
    });
    prop_oneof![proptest::collection::vec(any::<u8>(), 0..200), object]
}

async fn survives(client: &Client, session: &Session, body: Vec<u8>) {
    for request in [session.posting(body.clone()), client.post_bytes("/mcp", body.clone())] {
        let mut conn = client.connect().await;
        let answer = timeout(Duration::from_secs(5), conn.send(request)).await;
        let shown = String::from_utf8_lossy(&body);
        let status = answer.unwrap_or_else(|_| unreachable!("it hangs: {shown}")).status;
        assert!(status.is_success() || status.is_client_error(), "{status}: {shown}");
    }
}

#[test]
fn no_body_is_too_strange() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (server, session) = runtime.block_on(async {
        let limits = Limits { max_sessions: 100_000, sessions_per_ip: 100_000, ..config().limits };
        let (fixture, _told) = Fixture::new();
        let config = Config { limits, ..config() };
        let server = TestServer::start(config, Behind::handler(fixture)).await;
        let session = server.client().initialize("2025-03-26").await;
        (server, session)
    });
    let client = server.client().h2();
    let runs = Runs { cases: 300, failure_persistence: None, ..Runs::default() };
    let ran = TestRunner::new(runs).run(&shaped(), |body| {
        runtime.block_on(survives(&client, &session, body));
        Ok(())
    });
    ran.unwrap();
    runtime.block_on(async {
        still_works(&session).await;
        let again = client.send(client.post("/mcp", &hello("2025-11-25"))).await;
        assert_eq!(again.status, 200);
        assert!(server.stop().await);
    });
}
