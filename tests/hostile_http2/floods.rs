//! Floods, each of frames that the protocol allows, or of small errors that it forgives.

use mcp_edge::Report;

use crate::support::frames::*;
use crate::support::{TOKEN, TestServer, bounded, call, loopback};

/// Frames that one connection may send of any flood.
pub(crate) const MOST: usize = 2000;
/// `ENHANCE_YOUR_CALM` (RFC 9113 section 7).
const CALM: u32 = 0xb;

/// A flood: its name, how many frames one round has, what is sent before it, and one round of it.
pub(crate) struct Flood {
    pub(crate) name: &'static str,
    pub(crate) frames: usize,
    pub(crate) begin: fn() -> Vec<u8>,
    pub(crate) round: fn(u32) -> Vec<u8>,
}

fn nothing() -> Vec<u8> {
    Vec::new()
}

/// A request whose body has not come yet.
pub(crate) fn open(stream: u32) -> Vec<u8> {
    let mut block = request("POST", "/mcp");
    block.extend(field("content-type", "application/json"));
    block.extend(field("authorization", format!("Bearer {TOKEN}")));
    frame(HEADERS, END_HEADERS, stream, &block)
}

/// A call that is never answered.
pub(crate) fn held(stream: u32) -> Vec<u8> {
    let body = call(1, "f/hang", serde_json::json!({})).to_string();
    [open(stream), frame(DATA, END_STREAM, stream, body.as_bytes())].concat()
}

fn head(stream: u32) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, &get("/livez"))
}

fn nth(round: u32) -> u32 {
    1 + 2 * round
}

pub(crate) const FLOODS: &[Flood] = &[
    Flood {
        name: "rapid reset",
        frames: 2,
        begin: nothing,
        round: |n| [head(nth(n)), frame(RST_STREAM, 0, nth(n), &[0, 0, 0, 8])].concat(),
    },
    Flood {
        name: "rapid reset of calls with a token",
        frames: 3,
        begin: nothing,
        round: |n| [held(nth(n)), frame(RST_STREAM, 0, nth(n), &[0, 0, 0, 8])].concat(),
    },
    Flood {
        name: "reset by error: WINDOW_UPDATE of 0",
        frames: 2,
        begin: nothing,
        round: |n| [open(nth(n)), frame(WINDOW_UPDATE, 0, nth(n), &[0; 4])].concat(),
    },
    Flood {
        name: "reset by error: WINDOW_UPDATE beyond the most",
        frames: 2,
        begin: nothing,
        round: |n| {
            [open(nth(n)), frame(WINDOW_UPDATE, 0, nth(n), &[0x7f, 0xff, 0xff, 0xff])].concat()
        },
    },
    Flood {
        name: "reset by error: data behind the end",
        frames: 3,
        begin: nothing,
        round: |n| [held(nth(n)), frame(DATA, 0, nth(n), b"x")].concat(),
    },
    Flood {
        name: "reset by error: a head behind the end",
        frames: 3,
        begin: nothing,
        round: |n| [held(nth(n)), frame(HEADERS, WHOLE, nth(n), &get("/livez"))].concat(),
    },
    Flood {
        name: "reset by error: PRIORITY on itself",
        frames: 2,
        begin: nothing,
        round: |n| {
            let [a, b, c, d] = nth(n).to_be_bytes();
            [open(nth(n)), frame(PRIORITY, 0, nth(n), &[a, b, c, d, 0])].concat()
        },
    },
    Flood {
        name: "reset by error: a name in upper case",
        frames: 1,
        begin: nothing,
        round: |n| {
            let block = [get("/livez"), field("X-Upper", "x")].concat();
            frame(HEADERS, WHOLE, nth(n), &block)
        },
    },
    Flood {
        name: "reset by error: more data than was said",
        frames: 2,
        begin: nothing,
        round: |n| {
            let block = [request("POST", "/mcp"), field("content-length", "1")].concat();
            let head = frame(HEADERS, END_HEADERS, nth(n), &block);
            [head, frame(DATA, END_STREAM, nth(n), b"more")].concat()
        },
    },
    Flood {
        name: "more streams than there may be",
        frames: 1,
        begin: nothing,
        round: |n| open(nth(n)),
    },
    Flood {
        name: "CONTINUATION, full",
        frames: 1,
        begin: || frame(HEADERS, END_STREAM, 1, &get("/livez")),
        round: |_| frame(CONTINUATION, 0, 1, &field("x", "y".repeat(16_000))),
    },
    Flood {
        name: "CONTINUATION, empty",
        frames: 1,
        begin: || frame(HEADERS, END_STREAM, 1, &get("/livez")),
        round: |_| frame(CONTINUATION, 0, 1, b""),
    },
    Flood {
        name: "one empty CONTINUATION for each head",
        frames: 2,
        begin: nothing,
        round: |n| {
            let head = frame(HEADERS, END_STREAM, nth(n), &get("/livez"));
            [head, frame(CONTINUATION, END_HEADERS, nth(n), b"")].concat()
        },
    },
    Flood {
        name: "SETTINGS, empty",
        frames: 1,
        begin: nothing,
        round: |_| frame(SETTINGS, 0, 0, b""),
    },
    Flood {
        name: "SETTINGS with 2,000 entries",
        frames: 1,
        begin: nothing,
        round: |_| frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1].repeat(2000)),
    },
    Flood {
        name: "SETTINGS that change every window",
        frames: 1,
        begin: || (0..50).flat_map(|n| held(nth(n))).collect(),
        round: |n| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, u8::try_from(n % 2).unwrap(), 1]),
    },
    Flood { name: "PING", frames: 1, begin: nothing, round: |_| frame(PING, 0, 0, &[7; 8]) },
    Flood {
        name: "answers to no PING",
        frames: 1,
        begin: nothing,
        round: |_| frame(PING, ACK, 0, &[7; 8]),
    },
    Flood { name: "data, empty", frames: 1, begin: || open(1), round: |_| frame(DATA, 0, 1, b"") },
    Flood {
        name: "data, padding only",
        frames: 1,
        begin: || open(1),
        round: |_| frame(DATA, PADDED, 1, &[200; 201]),
    },
    Flood {
        name: "data, a byte each",
        frames: 1,
        begin: || open(1),
        round: |_| frame(DATA, 0, 1, b" "),
    },
    Flood {
        name: "WINDOW_UPDATE of the connection",
        frames: 1,
        begin: nothing,
        round: |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
    },
    Flood {
        name: "WINDOW_UPDATE of a stream",
        frames: 1,
        begin: || held(1),
        round: |_| frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
    },
    Flood {
        name: "an answer in bytes",
        frames: 1,
        begin: || {
            let body = call(1, "f/huge", serde_json::json!({ "size": 100_000 })).to_string();
            let window = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
            [window, open(1), frame(DATA, END_STREAM, 1, body.as_bytes())].concat()
        },
        round: |_| frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
    },
    Flood {
        name: "PRIORITY of a stream",
        frames: 1,
        begin: || held(1),
        round: |_| frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]),
    },
    Flood {
        name: "PRIORITY of ever other streams",
        frames: 1,
        begin: nothing,
        round: |n| frame(PRIORITY, 0, nth(n), &[0, 0, 0, 0, 9]),
    },
    Flood {
        name: "unknown frames, empty",
        frames: 1,
        begin: nothing,
        round: |_| frame(0x42, 0, 0, b""),
    },
    Flood {
        name: "unknown frames, full",
        frames: 1,
        begin: nothing,
        round: |_| frame(0x42, 0, 0, &[0; 16_384]),
    },
    Flood {
        name: "large heads",
        frames: 1,
        begin: nothing,
        round: |n| {
            let block = [get("/livez"), field("x", "y".repeat(16_000))].concat();
            frame(HEADERS, WHOLE, nth(n), &block)
        },
    },
    Flood {
        name: "heads that empty the table, then fill it",
        frames: 2,
        begin: nothing,
        round: |n| {
            let more = [b"\x40".to_vec(), field("x", "y".repeat(4000))[1..].to_vec()].concat();
            let block = [vec![0x20, 0x3f, 0xe1, 0x1f], get("/livez"), more].concat();
            let head = frame(HEADERS, WHOLE, nth(n), &block);
            [head, frame(RST_STREAM, 0, nth(n), &[0, 0, 0, 8])].concat()
        },
    },
];

/// Sends as much of it as may be sent, and the GOAWAY that comes of it.
async fn flooded(server: &TestServer, flood: &Flood) -> Option<(u32, u32)> {
    let mut peer = Frames::connect(server, loopback(66)).await;
    peer.send(&(flood.begin)()).await;
    let rounds = MOST / flood.frames;
    for round in 0..u32::try_from(rounds).unwrap() {
        // Once it is cut off it cannot send what is left.
        if !peer.send(&(flood.round)(round)).await {
            break;
        }
    }
    peer.goaway().await
}

fn ended(report: &Report) -> u64 {
    report.outcomes["http2_flood"] + report.outcomes["http2_broken"]
}

#[tokio::test]
async fn every_flood_ends_in_goaway_and_a_good_client_notices_nothing() {
    crate::support::within(std::time::Duration::from_mins(3), async {
        let (server, _told) = TestServer::fixture().await;
        let good = server.client().from(loopback(2)).h2();
        let mut conn = good.connect().await;
        for flood in FLOODS {
            let before = ended(&server.report());
            let ask = async {
                for _ in 0..3 {
                    let request = good.post("/mcp", &call(1, "f/echo", serde_json::json!({})));
                    assert_eq!(conn.send(request).await.status, 200, "beside {}", flood.name);
                }
            };
            let (said, ()) = tokio::join!(flooded(&server, flood), ask);
            let Some((_, code)) = said else { panic!("{}: no GOAWAY", flood.name) };
            // Some of these errors the library does not forgive even once.
            let unforgiven = flood.name.starts_with("reset by error") && code == 1;
            assert!(code == CALM || unforgiven, "{}: {code:#x}", flood.name);
            assert_eq!(ended(&server.report()), before + 1, "{}", flood.name);
        }
        // The connection that was there before is there still.
        let request = good.post("/mcp", &call(1, "f/echo", serde_json::json!({})));
        assert_eq!(conn.send(request).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn who_is_sent_away_may_ask_again_for_what_was_not_looked_at() {
    bounded(async {
        let (server, _told) = TestServer::fixture().await;
        let mut peer = Frames::connect(&server, loopback(66)).await;
        assert!(peer.send(&head(1)).await);
        assert_eq!(peer.answer(1).await, Verdict::Status(200));
        let pings = frame(PING, 0, 0, &[7; 8]).repeat(1500);
        peer.send(&[pings, head(3)].concat()).await;
        assert_eq!(peer.goaway().await, Some((1, CALM)));
    })
    .await;
}

#[tokio::test]
async fn a_busy_client_is_no_flood() {
    bounded(async {
        let (server, _told) = TestServer::fixture().await;
        let client = server.client().h2();
        let mut conn = client.connect().await;
        for id in 0..500 {
            let request = client.post("/mcp", &call(id, "f/echo", serde_json::json!({})));
            assert_eq!(conn.send(request).await.status, 200, "{id}");
        }
        // A large answer, a PING and two WINDOW_UPDATEs for each piece of it.
        let mut peer = Frames::connect(&server, loopback(3)).await;
        let body = call(1, "f/huge", serde_json::json!({ "size": 2_000_000 })).to_string();
        let ask = [open(1), frame(DATA, END_STREAM, 1, body.as_bytes())].concat();
        assert!(peer.send(&ask).await);
        let (mut taken, mut frames) = (0, 0);
        while taken < 2_000_000 {
            let came = peer.next().await.unwrap();
            assert_ne!(came.kind, GOAWAY);
            if came.kind == DATA && !came.payload.is_empty() {
                taken += came.payload.len();
                frames += 1;
                let room = u32::try_from(came.payload.len()).unwrap().to_be_bytes();
                let answer = [
                    frame(WINDOW_UPDATE, 0, 0, &room),
                    frame(WINDOW_UPDATE, 0, 1, &room),
                    frame(PING, 0, 0, &[1; 8]),
                ];
                assert!(peer.send(&answer.concat()).await);
            }
        }
        assert!(frames > 100, "{frames}");
        assert_eq!(ended(&server.report()), 0);
    })
    .await;
}
