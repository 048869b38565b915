//! Promise: of clients that vanish without goodbye nothing is left once the limits have passed: no
//! process, no descriptor, no session.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails, helpers of it too")]

mod support;

use std::time::Duration;

use futures_util::future::join_all;
use mcp_edge::{Config, Limits, Times};
use serde_json::json;
use support::{Client, Mark, Session, TestServer, call, config, eventually, hello, within};

/// How many vanish, and how many are there at once.
const CLIENTS: usize = 500;
const WAVE: usize = 50;

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Opens a session and its stream, and is gone.
async fn vanish(client: Client, number: usize) -> Session {
    let client = match number % 4 {
        0 => client,
        1 => client.h2(),
        2 => client.abrupt(),
        _ => client.abrupt().h2(),
    };
    let session = client.initialize("2025-11-25").await;
    let mut stream = session.listen(None).await.events();
    assert!(stream.next().await.is_some());
    if number.is_multiple_of(3) {
        let arguments = json!({ "n": 1000, "delay_ms": 100 });
        let params = json!({ "name": "count", "arguments": arguments });
        let asked = session.stream(&call(1, "tools/call", params)).await;
        drop(asked);
        let cancel = support::note("notifications/cancelled", json!({ "requestId": 1 }));
        session.post(&cancel).await;
    }
    drop(stream);
    session
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_500_clients_that_vanish_nothing_is_left() {
    within(Duration::from_mins(2), async {
        let mark = Mark::new();
        let limits = Limits {
            max_children: 2 * u32::try_from(WAVE).unwrap(),
            max_sessions: 2 * u32::try_from(WAVE).unwrap(),
            ..config().limits
        };
        let times = Times { session_idle: Duration::from_secs(1), ..config().times };
        let config = Config { limits, times, ..config() };
        let server = TestServer::start(config, mark.diagnostics()).await;
        let client = server.client();
        // Whatever is opened once and kept is open now.
        let first = client.initialize("2025-11-25").await;
        assert_eq!(first.delete().await.status, 204);
        mark.gone().await;
        let before = descriptors();
        let mut last = Vec::new();
        for wave in 0..CLIENTS / WAVE {
            let numbers = wave * WAVE..(wave + 1) * WAVE;
            last = join_all(numbers.map(|number| vanish(client.clone(), number))).await;
            // Their sessions hold their places for the idle time, and no longer.
            if wave % 2 == 1 {
                mark.gone().await;
            }
        }
        mark.gone().await;
        eventually(|| descriptors() <= before).await;
        for session in &last {
            let late = session.post(&call(1, "ping", json!({}))).await;
            assert_eq!(late.refusal(), (404, -32_001));
        }
        // Every place is free again.
        let again = join_all((0..2 * WAVE).map(|_| async {
            client.send(client.post("/mcp", &hello("2025-11-25"))).await.status
        }))
        .await;
        assert!(again.iter().all(|status| *status == 200), "{again:?}");
        assert!(server.stop().await, "a task was left behind");
        mark.gone().await;
    })
    .await;
}
