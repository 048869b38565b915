//! Figures of every flood, for whoever wants to see them: `tests/threats/http2`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::floods::{FLOODS, Flood, MOST};
use crate::support::frames::Frames;
use crate::support::{Client, TestServer, call, loopback, within};

/// Sends rounds of it, until it is cut off: how many frames it took.
async fn frames_until_cut(server: &TestServer, flood: &Flood) -> Option<usize> {
    let mut peer = Frames::connect(server, loopback(66)).await;
    peer.send(&(flood.begin)()).await;
    let mut frames = 0;
    for round in 0..u32::try_from(2 * MOST / flood.frames).unwrap() {
        if !peer.send(&(flood.round)(round)).await || peer.is_over() {
            return Some(frames);
        }
        frames += flood.frames;
        // Slow enough for the count to mean something, fast enough for a flood.
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    let said = tokio::time::timeout(Duration::from_secs(5), peer.goaway()).await;
    said.is_ok_and(|said| said.is_some()).then_some(frames)
}

/// A good client's calls, one behind the other, until it is told to end: how many, and the longest.
async fn good(client: &Client, ended: &AtomicBool) -> (usize, Duration) {
    let mut conn = client.connect().await;
    let (mut calls, mut longest) = (0, Duration::ZERO);
    while !ended.load(Ordering::Relaxed) || calls < 5 {
        let begun = tokio::time::Instant::now();
        let answer = conn.send(client.post("/mcp", &call(1, "f/echo", json!({})))).await;
        assert_eq!(answer.status, 200);
        (calls, longest) = (calls + 1, longest.max(begun.elapsed()));
    }
    (calls, longest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "figures, not a check"]
async fn figures() {
    within(Duration::from_mins(5), async {
        let (server, _told) = TestServer::fixture().await;
        let client = server.client().from(loopback(2)).h2();
        let rss = || server.report().memory_bytes.unwrap_or_default();
        // What the first connections cost is not the floods' doing.
        good(&client, &AtomicBool::new(true)).await;
        let start = rss();
        println!("| flood | frames until GOAWAY | RSS growth, kB (client's included) | good client: calls, longest ms |");
        println!("|---|---|---|---|");
        for flood in FLOODS {
            let before = rss();
            let ended = AtomicBool::new(false);
            let flooding = async {
                let frames = frames_until_cut(&server, flood).await;
                ended.store(true, Ordering::Relaxed);
                frames
            };
            let (frames, (calls, longest)) = tokio::join!(flooding, good(&client, &ended));
            let frames = frames.map_or("never".to_owned(), |frames| frames.to_string());
            let grown = rss().saturating_sub(before) / 1024;
            println!("| {} | {frames} | {grown} | {calls}, {} |", flood.name, longest.as_millis());
        }
        println!("in all: {} kB", rss().saturating_sub(start) / 1024);
    })
    .await;
}
