//! Promise: however clients hammer and disconnect, no answer reaches a session that it does not
//! belong to, and no child survives. `MCP_EDGE_SOAK_SECONDS` makes it longer, `MCP_EDGE_SOAK_SEED`
//! another run.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends where it fails, helpers of it too"
)]

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use http_body_util::Full;
use serde_json::{Value, json};
use support::{
    Client, Mark, OTHER_TOKEN, Session, Stream, TestServer, call, config, loopback, within,
};
use tokio::time::{Instant, sleep, timeout};

const CLIENTS: u64 = 16;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// xorshift64*: the same seed gives the same run, as far as the scheduler lets it.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % most
    }
}

/// One client, who knows what is its own by the texts it made up.
struct Hammer {
    client: Client,
    name: String,
    dice: Dice,
    sent: u64,
    answered: AtomicU64,
}

/// Where a client broke a stream off.
struct BrokenOff {
    /// The number of the last event that it read.
    last: String,
    /// Was the answer among the events that it read?
    answered: bool,
}

impl Hammer {
    fn text(&mut self) -> String {
        self.sent += 1;
        format!("{}:{}", self.name, self.sent)
    }

    /// A call whose answer and progress only this client can have asked for. Everybody uses the
    /// same ids.
    fn count(&mut self, id: u64, steps: u64) -> (Value, String) {
        let token = self.text();
        let arguments = json!({ "n": steps, "delay_ms": 2 });
        let meta = json!({ "progressToken": token });
        let params = json!({ "name": "count", "arguments": arguments, "_meta": meta });
        (call(id, "tools/call", params), token)
    }

    fn echo(&mut self, id: u64) -> (Value, String) {
        let text = self.text();
        let padding = "x".repeat(usize::try_from(self.dice.below(20_000)).unwrap());
        let text = format!("{text}:{padding}");
        let params = json!({ "name": "echo", "arguments": { "text": text } });
        (call(id, "tools/call", params), text)
    }

    fn own(&self, message: &Value, id: u64, token: &str) {
        if let Some(params) = message.get("params") {
            assert_eq!(params["progressToken"], token, "{} got {message}", self.name);
            return;
        }
        assert_eq!(message["id"], id, "{} got {message}", self.name);
        let text = message["result"]["content"][0]["text"].as_str().unwrap();
        assert!(text == token || text.starts_with("counted to"), "{} got {text:.80}", self.name);
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads until the stream ends, or until the dice say to break it off.
    async fn read(&mut self, mut stream: Stream, id: u64, token: &str) -> Option<BrokenOff> {
        let patience = Duration::from_millis(self.dice.below(60));
        let mut answered = false;
        let reading = async {
            while let Some(message) = stream.try_message().await {
                self.own(&message, id, token);
                answered |= message.get("result").is_some();
            }
        };
        let broken_off = timeout(patience, reading).await.is_err();
        let last = broken_off.then(|| stream.last.clone()).flatten()?;
        Some(BrokenOff { last, answered })
    }

    async fn session(&mut self) {
        let session = self.client.initialize("2025-11-25").await;
        let listening = self.dice.below(2) == 0;
        let standalone = if listening { Some(session.listen(None).await.events()) } else { None };
        for id in 0..self.dice.below(8) {
            match self.dice.below(4) {
                0 => self.one_echo(&session, id).await,
                1 => self.abandoned(&session, id).await,
                2 => self.resumed(&session, id).await,
                _ => self.several(&session, id * 100).await,
            }
        }
        drop(standalone);
        if self.dice.below(2) == 0 {
            assert_eq!(session.delete().await.status, 204);
        }
    }

    async fn one_echo(&mut self, session: &Session, id: u64) {
        let (body, text) = self.echo(id);
        let answer = session.post(&body).await;
        self.own(&answer.message(), id, &text);
    }

    async fn abandoned(&mut self, session: &Session, id: u64) {
        let (body, token) = self.count(id, 50);
        let stream = session.stream(&body).await;
        self.read(stream, id, &token).await;
        let cancel = support::note("notifications/cancelled", json!({ "requestId": id }));
        assert_eq!(session.post(&cancel).await.status, 202);
    }

    async fn resumed(&mut self, session: &Session, id: u64) {
        let (body, token) = self.count(id, 20);
        let stream = session.stream(&body).await;
        if let Some(BrokenOff { last, answered }) = self.read(stream, id, &token).await {
            let again = session.listen(Some(&last)).await;
            if answered {
                assert_eq!(again.status, 405, "nothing follows the answer");
                return;
            }
            let mut again = again.events();
            while let Some(message) = again.try_message().await {
                self.own(&message, id, &token);
            }
        }
    }

    async fn several(&mut self, session: &Session, first: u64) {
        let calls: Vec<_> = (first..first + 4).map(|id| (id, self.count(id, 5))).collect();
        let answers = join_all(calls.iter().map(|(_, (body, _))| session.post(body))).await;
        for ((id, (_, token)), answer) in calls.iter().zip(answers) {
            for message in answer.messages() {
                self.own(&message, *id, token);
            }
        }
    }

    async fn bare(&mut self) {
        let (body, text) = self.echo(1);
        let request =
            self.client.request("POST", "/mcp").header("content-type", "application/json");
        let request = request.body(Full::new(body.to_string().into())).unwrap();
        let mut conn = self.client.connect().await;
        let patience = Duration::from_millis(5 + self.dice.below(200));
        if let Ok(answer) = timeout(patience, conn.send(request)).await {
            if answer.status == 200 {
                self.own(&answer.json(), 1, &text);
            } else {
                assert_eq!(answer.status, 503, "{answer:?}");
            }
        }
    }

    async fn run(mut self, end: Instant) -> u64 {
        while Instant::now() < end {
            if self.dice.below(3) == 0 {
                self.bare().await;
            } else {
                self.session().await;
            }
            sleep(Duration::from_millis(self.dice.below(10))).await;
        }
        self.answered.into_inner()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_reaches_a_session_that_it_does_not_belong_to() {
    let seconds = number("MCP_EDGE_SOAK_SECONDS", 5);
    let seed = number("MCP_EDGE_SOAK_SEED", 0x5eed);
    within(Duration::from_secs(seconds + 60), async {
        let mark = Mark::new();
        let times = mcp_edge::Times { session_idle: Duration::from_secs(2), ..*config().times };
        let config = mcp_edge::Config { times: times.check().unwrap(), ..config() };
        let server = TestServer::start(config, mark.diagnostics()).await;
        let end = Instant::now() + Duration::from_secs(seconds);
        let hammers = (0..CLIENTS).map(|n| {
            let client = server.client().from(loopback(20 + u8::try_from(n).unwrap()));
            let client = if n % 2 == 0 { client.h2() } else { client };
            let client = if n % 4 < 2 { client.token(OTHER_TOKEN) } else { client };
            let client = if n % 3 == 0 { client.abrupt() } else { client };
            let dice = Dice(seed.wrapping_add(n * 0x9e37_79b9) | 1);
            let name = format!("client {n}");
            Hammer { client, name, dice, sent: 0, answered: AtomicU64::new(0) }.run(end)
        });
        let answered = join_all(hammers).await;
        assert!(answered.iter().all(|answered| *answered > 0), "{answered:?}");
        assert!(server.stop().await, "a task was left behind");
        mark.gone().await;
    })
    .await;
}
