//! Promise: bytes that two readers of HTTP/1.1 could read in two ways end the connection with one
//! answer in JSON, and nothing behind them is a request; slow peers cost a good client nothing.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where it fails"
)]
#![expect(clippy::too_many_lines, reason = "tables of cases")]
mod support;

use std::time::Duration;

use serde_json::json;
use support::{RawClient, TOKEN, TestServer, bounded, call, within};
use tokio::task::JoinSet;

/// A valid request that must never be seen.
fn smuggled() -> String {
    let body = call(1, "f/smuggled", json!({})).to_string();
    format!(
        "{}content-length: {}\r\n\r\n{body}",
        post("POST /mcp HTTP/1.1\r\nhost: localhost\r\n"),
        body.len()
    )
}

/// A head under way: all that a call needs behind these lines.
fn post(start: &str) -> String {
    format!("{start}authorization: Bearer {TOKEN}\r\ncontent-type: application/json\r\n")
}

/// Heads that are wrong whatever comes behind, and their statuses.
fn heads() -> Vec<(String, u16)> {
    let mut cases = Vec::new();
    for line in [
        "GET /mcp",
        "GET",
        "/mcp",
        "GET /mcp HTTP",
        "GET /mcp HTTP/",
        "GET /mcp HTTP/1",
        "GET /mcp HTTP/1.",
        "GET /mcp HTTP/0.9",
        "GET /mcp HTTP/1.2",
        "GET /mcp HTTP/1.10",
        "GET /mcp HTTP/2.0",
        "GET /mcp HTTP/9.9",
        "GET /mcp http/1.1",
        "GET /mcp HTTP/1,1",
        "GET /mcp HTTP/1.1x",
        "GET /mcp HTTP /1.1",
        "GET /mcp HTTP/ 1.1",
        "GET /mcp HTTPS/1.1",
        "GET /mcp ICY/1.1",
        "GET  /mcp HTTP/1.1",
        "GET /mcp  HTTP/1.1",
        "GET /mcp HTTP/1.1 ",
        " GET /mcp HTTP/1.1",
        "\tGET /mcp HTTP/1.1",
        "GET\t/mcp HTTP/1.1",
        "GET /mcp\tHTTP/1.1",
        "GET /mcp HTTP/1.1\t",
        "GET\u{b}/mcp HTTP/1.1",
        "GET /mcp\u{c}HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /mcp HTTP/1.1 x",
        "G(T /mcp HTTP/1.1",
        "G\0T /mcp HTTP/1.1",
        "G:T /mcp HTTP/1.1",
        "{} /mcp HTTP/1.1",
        "GET@ /mcp HTTP/1.1",
        "\"GET\" /mcp HTTP/1.1",
        "G\u{e9}T /mcp HTTP/1.1",
        "GET mcp HTTP/1.1",
        "GET * HTTP/1.1",
        "POST * HTTP/1.1",
        "GET localhost HTTP/1.1",
        "GET localhost:1 HTTP/1.1",
        "GET /\0 HTTP/1.1",
        "GET /\u{1} HTTP/1.1",
        "GET /\u{7f} HTTP/1.1",
        "GET /mcp#x HTTP/1.1",
        "GET /\u{e9} HTTP/1.1",
        "GET http:/// HTTP/1.1",
        "GET ftp://localhost/ HTTP/1.1",
        "GET file:///etc/passwd HTTP/1.1",
        "GET http://evil/mcp HTTP/1.1",
        "GET https://localhost:1/mcp HTTP/1.1",
        "GET http://localhost@evil/mcp HTTP/1.1",
        "GET http://evil\\@localhost/mcp HTTP/1.1",
        "CONNECT evil:443 HTTP/1.1",
        "CONNECT /mcp HTTP/1.1",
        "PRI * HTTP/2.0",
        "\u{16}\u{3}\u{1}\u{2}",
    ] {
        cases.push((format!("{}\r\n", post(&format!("{line}\r\nhost: localhost\r\n"))), 400));
    }
    for fields in [
        "",
        "host: localhost\r\nhost: localhost\r\n",
        "host: localhost\r\nHost: evil\r\n",
        "host: a b\r\n",
        "host: localhost, evil\r\n",
        "host: localhost/x\r\n",
        "host: u@localhost\r\n",
        "host: localhost\0\r\n",
        "host : localhost\r\n",
        "host\t: localhost\r\n",
        " host: localhost\r\n",
        "host:\r\n localhost\r\n",
        "xhost: localhost\r\n",
        "host; localhost\r\n",
    ] {
        cases.push((format!("{}\r\n", post(&format!("POST /mcp HTTP/1.1\r\n{fields}"))), 400));
    }
    for (field, status) in [
        ("no colon", 400),
        ("nocolon", 400),
        (": x", 400),
        (":", 400),
        ("x : y", 400),
        ("x\t: y", 400),
        ("x y: z", 400),
        ("x\0: y", 400),
        ("x\u{e9}: y", 400),
        ("(x): y", 400),
        ("x,y: z", 400),
        ("x;y: z", 400),
        ("x/y: z", 400),
        ("x[0]: y", 400),
        ("{x}: y", 400),
        ("x@y: z", 400),
        ("\"x\": y", 400),
        ("\u{b}x: y", 400),
        (" x: y", 400),
        ("\tx: y", 400),
        ("x: a\0b", 400),
        ("x: \u{1}", 400),
        ("x: a\u{8}", 400),
        ("x: a\u{b}", 400),
        ("x: a\u{c}b", 400),
        ("x: \u{1b}[31m", 400),
        ("x: a\u{7f}", 400),
        ("x: a\rb", 400),
        ("x: a\r", 400),
        ("\rx: a", 400),
        ("x: a\nb: c", 400),
        ("x: y\r\n folded", 400),
        ("x: y\r\n\tfolded", 400),
        ("x: y\r\n ", 400),
        ("expect: 200-ok", 417),
        ("expect: 100-continue, more", 417),
        ("expect:", 417),
    ] {
        let head = post("POST /mcp HTTP/1.1\r\nhost: localhost\r\n");
        cases.push((format!("{head}{field}\r\n\r\n"), status));
    }
    let head = post("POST /mcp HTTP/1.1\r\nhost: localhost\r\n");
    cases.push((format!("{}\n", head.replace("\r\n", "\n")), 400));
    cases.push((format!("{head}\n"), 400));
    cases.push((head.replacen("\r\n", "\n", 1) + "\r\n", 400));
    cases.push((head.replace("\r\n", "\r") + "\r\n\r\n", 400));
    cases.push((head.replace("\r\n", "\n\r") + "\r\n\r\n", 400));
    cases.push((head.replace("\r\n", "\r\r\n") + "\r\n", 400));
    cases.push((format!("\n{head}\r\n"), 400));
    cases.push((format!("\r{head}\r\n"), 400));
    cases.push((format!("\r\n\r\n{head}\r\n"), 400));
    cases.push((format!("{head}x: {}\r\n\r\n", "y".repeat(80_000)), 431));
    cases.push((format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "y".repeat(80_000)), 414));
    cases
}

/// Lengths of a body in doubt.
fn lengths() -> Vec<(String, u16)> {
    let head = post("POST /mcp HTTP/1.1\r\nhost: localhost\r\n");
    let mut cases: Vec<_> = [
        "content-length: 5\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 5",
        "transfer-encoding: chunked\r\ncontent-length: 0",
        "Content-Length: 5\r\nTRANSFER-ENCODING: CHUNKED",
        "content-length: 5\r\ncontent-length: 5",
        "content-length: 5\r\ncontent-length: 0",
        "content-length: 0\r\nContent-Length: 5",
        "content-length: 5, 5",
        "content-length: 5,0",
        "content-length:",
        "content-length: +5",
        "content-length: -5",
        "content-length: -0",
        "content-length: 5.0",
        "content-length: 5e0",
        "content-length: 0x5",
        "content-length: 0o5",
        "content-length: 5 5",
        "content-length: 5;x",
        "content-length: '5'",
        "content-length: five",
        "content-length: \u{0663}",
        "content-length: 99999999999999999999",
        "content-length: 18446744073709551621",
        "content-length : 5",
        "content-length\t: 5",
        "content-length\u{b}: 5",
        "content-length: 5\u{b}",
        "content-length:\r\n 5",
        " content-length: 5",
        "transfer-encoding: gzip",
        "transfer-encoding: identity",
        "transfer-encoding: xchunked",
        "transfer-encoding: chunkedx",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: identity, chunked",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: chunked, chunked",
        "transfer-encoding: chunked,",
        "transfer-encoding: ,chunked",
        "transfer-encoding: \"chunked\"",
        "transfer-encoding: chunked;q=1",
        "transfer-encoding: cow",
        "transfer-encoding:",
        "transfer-encoding : chunked",
        "transfer-encoding\t: chunked",
        "transfer-encoding: \u{b}chunked",
        "transfer-encoding: chunked\u{c}",
        "transfer-encoding:\r\n chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: x",
        "transfer-encoding: identity\r\ntransfer-encoding: chunked",
        "x: y\r\n transfer-encoding: chunked",
        "x: y\ntransfer-encoding: chunked",
        "x: y\rtransfer-encoding: chunked",
        "transfer-encoding: chunked\0",
        "transfer-encoding; chunked",
    ]
    .iter()
    .map(|fields| (format!("{head}{fields}\r\n\r\n0\r\n\r\n"), 400))
    .collect();
    let old = post("POST /mcp HTTP/1.0\r\nhost: localhost\r\n");
    cases.push((format!("{old}transfer-encoding: chunked\r\n\r\n0\r\n\r\n"), 400));
    cases
}

/// Chunks that are wrong, behind a good head.
fn chunks() -> Vec<(String, u16)> {
    let head = post("POST /mcp HTTP/1.1\r\nhost: localhost\r\n");
    let long = format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "x".repeat(300));
    let trailer = format!("0\r\nx: {}\r\n\r\n", "y".repeat(40_000));
    let many = format!("0\r\n{}\r\n", "x: y\r\n".repeat(101));
    [
        "zz\r\n",
        "\r\n",
        " 2\r\n{}\r\n0\r\n\r\n",
        "2 \r\n{}\r\n0\r\n\r\n",
        "2\t\r\n{}\r\n0\r\n\r\n",
        "+2\r\n{}\r\n0\r\n\r\n",
        "-2\r\n{}\r\n0\r\n\r\n",
        "0x2\r\n{}\r\n0\r\n\r\n",
        "2_0\r\n{}\r\n0\r\n\r\n",
        "000000002\r\n{}\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\n",
        "10000000000000002\r\n{}\r\n0\r\n\r\n",
        "2\n{}\r\n0\r\n\r\n",
        "2\r{}\r\n0\r\n\r\n",
        "2\r\n{}\n0\r\n\r\n",
        "2\r\n{}0\r\n\r\n",
        "2\r\n{}x\r\n0\r\n\r\n",
        "2\r\n{}\r0\r\n\r\n",
        "3\r\n{}\r\n0\r\n\r\n",
        "2 ;x\r\n{}\r\n0\r\n\r\n",
        "2;x\n{}\r\n0\r\n\r\n",
        "2;x\0\r\n{}\r\n0\r\n\r\n",
        "2;\rx\r\n{}\r\n0\r\n\r\n",
        ";x\r\n{}\r\n0\r\n\r\n",
        "2\r\n{}\r\n0\n\n",
        "2\r\n{}\r\n0\r\n\n",
        "2\r\n{}\r\n0\r\nno colon\r\n\r\n",
        "2\r\n{}\r\n0\r\n x: y\r\n\r\n",
        "2\r\n{}\r\n0\r\nx : y\r\n\r\n",
        "2\r\n{}\r\n0\r\nx: y\n\r\n",
        "2\r\n{}\r\n0\r\nx: \0\r\n\r\n",
        "0\r\ncontent-length: 5\r\n\r\n",
        "0\r\ntransfer-encoding: chunked\r\n\r\n",
        "0\r\nhost: evil\r\n\r\n",
        "0\r\nauthorization: Bearer x\r\n\r\n",
        "0\r\ncontent-type: text/plain\r\n\r\n",
        &*long,
        &*trailer,
        &*many,
    ]
    .iter()
    .map(|body| (format!("{head}transfer-encoding: chunked\r\n\r\n{body}"), 400))
    .collect()
}

/// Sends a case with a whole request behind it: one refusal, the end, and nothing was called.
async fn refused(server: &TestServer, bytes: &str, status: u16) {
    let mut raw = server.raw().await;
    raw.send(format!("{bytes}{}", smuggled())).await;
    let shown: String = bytes.chars().take(300).collect();
    let answer = raw.answer().await.unwrap_or_else(|| panic!("no answer to {shown:?}"));
    assert_eq!(answer.status, status, "{shown:?}: {answer:?}");
    assert!(answer.json().is_object());
    assert!(answer.head.contains("connection: close\r\n"), "{shown:?}: {answer:?}");
    let rest = raw.until_closed().await;
    assert_eq!(String::from_utf8_lossy(&rest), "", "behind the answer to {shown:?}");
}

async fn all_refused(cases: Vec<(String, u16)>) {
    let (server, told) = TestServer::fixture().await;
    let number = u64::try_from(cases.len()).unwrap();
    for (bytes, status) in cases {
        refused(&server, &bytes, status).await;
    }
    assert_eq!(told.log(), Vec::<String>::new(), "something was called");
    let malformed = server.report().outcomes["malformed"];
    assert_eq!(malformed, number, "some were refused by somebody else");
    let session = server.client().initialize("2025-11-25").await;
    let _answer = session.call("check", "f/echo", json!({})).await;
    assert!(server.stop().await);
}

#[tokio::test]
async fn malformed_heads_are_refused_and_end_the_connection() {
    within(Duration::from_mins(3), all_refused(heads())).await;
}

#[tokio::test]
async fn a_length_in_doubt_is_refused_and_ends_the_connection() {
    within(Duration::from_mins(3), all_refused(lengths())).await;
}

#[tokio::test]
async fn malformed_chunks_are_refused_and_end_the_connection() {
    within(Duration::from_mins(3), all_refused(chunks())).await;
}

#[tokio::test]
async fn what_is_whole_before_a_violation_is_answered_first() {
    bounded(async {
        let (server, told) = TestServer::fixture().await;
        let session = server.client().initialize("2025-11-25").await;
        let head = post("POST /mcp HTTP/1.1\r\nhost: localhost\r\n");
        let body = call(1, "f/echo", json!({})).to_string();
        let good = format!(
            "{head}accept: application/json\r\nmcp-session-id: {}\r\ncontent-length: {}\r\n\r\n{body}",
            session.id,
            body.len()
        );
        let mut raw = server.raw().await;
        raw.send(format!("{good}{good}{head}\n{}", smuggled())).await;
        for expected in [200, 200, 400] {
            let answer = raw.answer().await.unwrap();
            assert_eq!(answer.status, expected, "{answer:?}");
        }
        assert!(raw.until_closed().await.is_empty());
        assert_eq!((told.count("f/echo"), told.count("f/smuggled")), (2, 0));
        assert_eq!(server.report().refusals["bad_request"], 1);
    })
    .await;
}

#[tokio::test]
async fn nobody_is_told_to_continue_before_the_token_is_checked() {
    bounded(async {
        let (server, _told) = TestServer::fixture().await;
        let body = call(1, "ping", json!({})).to_string();
        let rest = format!(
            "content-type: application/json\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let start = "POST /mcp HTTP/1.1\r\nhost: localhost\r\n";
        for wrong in ["", "authorization: Bearer wrong\r\n"] {
            let mut raw = server.raw().await;
            raw.send(format!("{start}{wrong}{rest}")).await;
            let all = raw.until_closed().await;
            assert!(all.starts_with(b"HTTP/1.1 401 "), "{}", String::from_utf8_lossy(&all));
        }
        let mut raw = server.raw().await;
        raw.send(format!("{start}authorization: Bearer {TOKEN}\r\n{rest}")).await;
        assert_eq!(raw.answer().await.unwrap().status, 100);
        raw.send(body).await;
        assert_eq!(raw.answer().await.unwrap().status, 200);
    })
    .await;
}

#[tokio::test]
async fn a_good_client_is_served_beside_800_slow_ones() {
    within(Duration::from_mins(3), async {
        let (server, _told) = TestServer::fixture().await;
        let session = server.client().initialize("2025-11-25").await;
        let mut slow = JoinSet::new();
        for number in 0..800 {
            let tcp = tokio::net::TcpStream::connect(server.address).await.unwrap();
            // Some say nothing, not even hello; some begin a head, some a body.
            if number % 8 != 0 {
                slow.spawn(async move { (RawClient::on(tcp), false) });
                continue;
            }
            let tls = (*server.tls).clone();
            let head = post("POST /mcp HTTP/1.1\r\nhost: localhost\r\n");
            slow.spawn(async move {
                let mut raw = RawClient::over(tcp, tls).await.unwrap();
                let more = if number % 16 == 0 { "content-length: 100\r\n\r\n{" } else { "x: " };
                raw.send(format!("{head}{more}")).await;
                (RawClient::on(raw.io.into_inner().0), true)
            });
        }
        let held = slow.join_all().await;
        for number in 0..50 {
            let echo = session.call(number, "f/echo", json!({})).await;
            assert!(echo["result"].is_object(), "{echo}");
        }
        assert_eq!(held.len(), 800);
    })
    .await;
}
