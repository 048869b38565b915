//! Heads that are to be read as something else, or to cost memory.

use crate::floods::open;
use crate::support::frames::*;
use crate::support::{TOKEN, TestServer, call, loopback, within};

/// What may come of a head that must not pass.
#[derive(Clone, Copy, Debug)]
enum Due {
    /// A reset, or the connection's end, with this code.
    Code(u32),
    /// This status.
    Status(u16),
}

use Due::{Code, Status};

const PROTOCOL: u32 = 1;

/// A call's head with a token, and these bytes behind it.
fn with(more: &[u8]) -> Vec<u8> {
    let mut block = request("POST", "/mcp");
    block.extend(field("content-type", "application/json"));
    block.extend(field("authorization", format!("Bearer {TOKEN}")));
    block.extend(more);
    block
}

/// The four pseudo-header fields, one of them another.
fn pseudo(name: &str, value: &str) -> Vec<u8> {
    let usual =
        [(":method", "POST"), (":scheme", "https"), (":path", "/mcp"), (":authority", "localhost")];
    let mut block = fields(usual.map(|(n, v)| (n, if n == name { value } else { v })));
    block.extend(field("authorization", format!("Bearer {TOKEN}")));
    block
}

fn heads() -> Vec<(&'static str, Vec<u8>, Due)> {
    let long = "x".repeat(4000);
    // One entry in the table, and a byte for each time that it is meant again.
    let bomb = [b"\x40".to_vec(), field("x", &long)[1..].to_vec(), vec![0xbe; 12_000]].concat();
    let crumbs = field("cookie", "a=b").repeat(1200);
    vec![
        ("CR LF in a value", with(&field("x", "a\r\nx-injected: b")), Code(PROTOCOL)),
        ("LF in a value", with(&field("x", "a\nx-injected: b")), Code(PROTOCOL)),
        ("CR in a value", with(&field("x", "a\rb")), Code(PROTOCOL)),
        ("NUL in a value", with(&field("x", "a\0b")), Code(PROTOCOL)),
        ("CR LF in a name", with(&field("x\r\ny", "a")), Code(PROTOCOL)),
        ("a colon in a name", with(&field("x:y", "a")), Code(PROTOCOL)),
        ("a space in a name", with(&field("x y", "a")), Code(PROTOCOL)),
        ("a name of nothing", with(&field("", "a")), Code(PROTOCOL)),
        ("an upper-case name", with(&field("Authorization", "a")), Code(PROTOCOL)),
        ("a name beyond ASCII", with(&field("x\u{e9}", "a")), Code(PROTOCOL)),
        ("transfer-encoding", with(&field("transfer-encoding", "chunked")), Code(PROTOCOL)),
        ("connection", with(&field("connection", "x")), Code(PROTOCOL)),
        ("keep-alive", with(&field("keep-alive", "5")), Code(PROTOCOL)),
        ("proxy-connection", with(&field("proxy-connection", "close")), Code(PROTOCOL)),
        ("upgrade", with(&field("upgrade", "websocket")), Code(PROTOCOL)),
        ("a pseudo-header field last", with(&field(":path", "/livez")), Code(PROTOCOL)),
        ("an unknown pseudo-header field", with(&field(":host", "localhost")), Code(PROTOCOL)),
        ("CR LF in the path", pseudo(":path", "/mcp HTTP/1.1\r\nx: y"), Code(PROTOCOL)),
        ("a space in the path", pseudo(":path", "/mcp x"), Code(PROTOCOL)),
        ("a path without a slash", pseudo(":path", "mcp"), Code(PROTOCOL)),
        ("CR LF in the authority", pseudo(":authority", "localhost\r\nx: y"), Code(PROTOCOL)),
        ("a user in the authority", pseudo(":authority", "me@localhost"), Status(400)),
        ("another authority", pseudo(":authority", "evil.example"), Status(403)),
        ("a method of two words", pseudo(":method", "POST /x"), Code(PROTOCOL)),
        ("another Host than the authority", with(&field("host", "evil.example")), Status(400)),
        ("Host twice", with(&field("host", "localhost").repeat(2)), Status(400)),
        (
            "two lengths",
            with(&fields([("content-length", "2"), ("content-length", "3")])),
            Code(PROTOCOL),
        ),
        ("a length that is none", with(&field("content-length", "+2")), Code(PROTOCOL)),
        (
            "extended CONNECT",
            {
                let mut block = pseudo(":method", "CONNECT");
                block.splice(0..0, field(":protocol", "websocket"));
                block
            },
            Code(PROTOCOL),
        ),
        ("more fields than there may be", with(&field("x", "").repeat(101)), Status(431)),
        ("cookie crumbs", with(&crumbs), Status(431)),
        ("a large value", with(&field("x", "y".repeat(15_000)).repeat(3)), Status(431)),
        ("a bomb", with(&bomb), Code(0xb)),
    ]
}

/// A head in as many frames as it needs.
fn framed(block: &[u8]) -> Vec<u8> {
    let mut pieces = block.chunks(16_384).peekable();
    let mut bytes = Vec::new();
    let mut kind = (HEADERS, END_STREAM);
    while let Some(piece) = pieces.next() {
        let (kind, flags) = std::mem::replace(&mut kind, (CONTINUATION, 0));
        let last = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        bytes.extend(frame(kind, flags | last, 1, piece));
    }
    bytes
}

#[tokio::test]
async fn no_head_is_read_as_another() {
    within(std::time::Duration::from_mins(2), async {
        let (server, told) = TestServer::fixture().await;
        let mut faults = Vec::new();
        for (what, block, due) in heads() {
            let mut peer = Frames::connect(&server, loopback(66)).await;
            peer.send(&framed(&block)).await;
            let verdict = peer.answer(1).await;
            let met = match (due, verdict) {
                (Code(code), Verdict::Reset(said) | Verdict::GoAway(said)) => said == code,
                (Status(status), Verdict::Status(said)) => said == status,
                _ => false,
            };
            if !met {
                faults.push(format!("{what}: {verdict:?}, and not {due:?}"));
            }
        }
        assert!(faults.is_empty(), "\n{}", faults.join("\n"));
        assert_eq!(told.log(), Vec::<String>::new(), "nothing came through");
    })
    .await;
}

#[tokio::test]
async fn a_window_of_nothing_holds_no_more_than_its_own_connection() {
    within(std::time::Duration::from_mins(1), async {
        let (server, _told) = TestServer::fixture().await;
        let mut peer = Frames::connect(&server, loopback(66)).await;
        assert!(peer.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await);
        let echo = call(1, "f/echo", serde_json::json!({})).to_string();
        for stream in (1..200).step_by(2) {
            let ask = [open(stream), frame(DATA, END_STREAM, stream, echo.as_bytes())].concat();
            assert!(peer.send(&ask).await);
            while peer.next().await.unwrap().stream != stream {}
        }
        // Every stream is taken: one more is not answered.
        assert!(peer.send(&open(201)).await);
        assert_eq!(peer.answer(201).await, Verdict::Reset(7));
        let good = server.client().from(loopback(2)).h2();
        assert_eq!(good.bare(good.request("GET", "/livez")).await.status, 200);
    })
    .await;
}
