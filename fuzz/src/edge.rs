//! A whole edge on a pipe, on a clock that stands still until everybody waits.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mcp_edge::fuzzing::conn::Edge;
use mcp_edge::{
    Access, Call, CallError, Config, Handler, Limits, Principal, Secret, ServerInfo, Times,
    TlsSource,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};

/// The one good token.
pub const TOKEN: &str = "a-token-of-the-fuzzer";

/// No connection lives longer than this, on its own clock.
const LONGEST: Duration = Duration::from_secs(3600);

/// Counts its calls, each of which must carry the token.
#[derive(Clone, Debug, Default)]
pub struct Counting(Arc<AtomicUsize>);

impl Handler for Counting {
    fn info(&self) -> ServerInfo {
        let (name, version) = ("fixture".to_owned(), "1".to_owned());
        ServerInfo { name, version, capabilities: json!({ "tools": {} }), instructions: None }
    }

    async fn call(&self, call: Call) -> Result<Value, CallError> {
        assert!(matches!(call.caller.principal, Principal::Token(_)), "a call without a token");
        self.0.fetch_add(1, Ordering::Relaxed);
        match call.method.as_str() {
            "tools/list" => Ok(json!({ "tools": [{ "name": "x" }] })),
            "late" => {
                sleep(Duration::from_secs(3)).await;
                Ok(json!({}))
            }
            "noisy" => {
                call.notify("notifications/message", &json!({ "data": "x" })).await;
                Ok(json!({}))
            }
            _ => Ok(json!({})),
        }
    }
}

/// Runs this to its end.
///
/// # Panics
/// Where that takes longer than a connection may.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async { timeout(LONGEST, future).await.expect("it does not end") })
}

/// What a connection came to.
#[derive(Debug)]
pub struct Outcome {
    /// All that the edge wrote.
    pub written: Vec<u8>,
    /// How many calls the handler saw.
    pub calls: usize,
}

fn config() -> Config {
    let limits = Limits {
        requests_per_second: 100_000,
        burst: 100_000,
        max_body_bytes: 8192,
        ..Limits::default()
    };
    let times = Times { stream_age: Duration::from_secs(40), ..Times::default() };
    let access = Access::Tokens(vec![Secret::new(TOKEN)]);
    Config {
        tls: TlsSource::None,
        access,
        limits: limits.check().unwrap(),
        times: times.check().unwrap(),
        ..Config::default()
    }
}

/// Serves one connection: `client` has the other end of the pipe, and its writing half only, for
/// all that comes is read meanwhile. When it returns the half is closed if it says so.
///
/// # Panics
/// Where the connection does not end, or leaves something open.
pub fn serve<F>(
    http2: bool,
    client: impl FnOnce(tokio::io::WriteHalf<DuplexStream>) -> F,
) -> Outcome
where
    F: Future<Output = Option<tokio::io::WriteHalf<DuplexStream>>>,
{
    let handler = Counting::default();
    let calls = Arc::clone(&handler.0);
    let written = run(async {
        let edge = Edge::new(&config(), handler);
        let (ours, theirs) = duplex(64 * 1024);
        let (mut reading, writing) = tokio::io::split(ours);
        let mut written = Vec::new();
        let serving =
            async { if http2 { edge.http2(theirs).await } else { edge.http1(theirs).await } };
        let reading = async {
            // A connection that is cut may end in an error.
            drop(reading.read_to_end(&mut written).await);
        };
        let writing = async {
            if let Some(mut half) = client(writing).await {
                drop(half.shutdown().await);
            }
            // It may be longer about it than the edge listens.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ((), ()) = async { tokio::join!(serving, reading) } => {}
            () = writing => {}
        }
        // Tasks of its requests hear of its end a moment later.
        sleep(Duration::from_secs(1)).await;
        assert_eq!(edge.streams(), 0, "a stream outlives its connection");
        assert!(edge.finish().await, "something is left running");
        written
    });
    Outcome { written, calls: calls.load(Ordering::Relaxed) }
}
