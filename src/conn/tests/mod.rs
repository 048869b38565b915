//! Every time limit, on a clock that stands still until everybody waits: one client over a pipe,
//! the whole edge, and the exact second at which it ends.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Instant;

use super::edge::Edge;
use super::*;
use crate::backend::embedded::{Call, CallError, Handler, ServerInfo};
use crate::config::{Access, Config, Limits, Times, TlsRules, TlsSource};

mod drain;
mod http2;
mod reload;
mod sessions;

/// Does what its calls' methods say.
struct Fixture;

impl Handler for Fixture {
    fn info(&self) -> ServerInfo {
        let (name, version) = ("fixture".to_owned(), "1".to_owned());
        ServerInfo { name, version, capabilities: json!({}), instructions: None }
    }

    async fn call(&self, call: Call) -> Result<Value, CallError> {
        match call.method.as_str() {
            "hang" => std::future::pending().await,
            "huge" => Ok(json!("x".repeat(4 * 1024 * 1024))),
            "some" => Ok(json!("x".repeat(60_000))),
            "large" => Ok(json!("x".repeat(200_000))),
            "late" => {
                tokio::time::sleep(Duration::from_secs(20)).await;
                Ok(json!({}))
            }
            _ => Ok(json!({})),
        }
    }
}

struct Rig {
    config: Config,
    edge: Edge,
}

impl Rig {
    fn new() -> Self {
        Self::with(None)
    }

    fn with_tls() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = TlsSource::SelfSigned { dir: dir.path().to_owned(), names: Vec::new() };
        let (tls, _) = TlsAcceptor::new(&source, TlsRules::default(), SystemTime::now()).unwrap();
        Self::with(Some(tls))
    }

    fn with(tls: Option<TlsAcceptor>) -> Self {
        let limits = Limits { requests_per_second: 1000, burst: 1000, ..Limits::default() };
        let config = Config {
            tls: TlsSource::None,
            access: Access::Anonymous,
            limits: limits.check().unwrap(),
            ..Config::default()
        };
        let edge = Edge::with(&config, Fixture, tls);
        Self { config, edge }
    }

    /// Holds what begins from now on to these times.
    fn keep_to(&self, times: Times) {
        self.edge.policy.replace(Policy { times, ..Policy::new(&self.config, &[]) });
    }

    /// How often this happened.
    fn count(&self, outcome: &str) -> u64 {
        self.edge.metrics.outcomes()[outcome]
    }

    /// How many sessions there are.
    fn sessions(&self) -> usize {
        self.edge.metrics.gauges().sessions.value()
    }

    /// How many connections there are.
    fn connections(&self) -> usize {
        self.edge.drain.front_tasks()
    }

    /// Two seconds after now the connection is gone, and not much before.
    async fn lingers(&self) {
        tokio::time::sleep(Duration::from_millis(1900)).await;
        assert_eq!(self.connections(), 1);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(self.connections(), 0);
    }

    fn connect(&self) -> Client {
        let (ours, theirs) = duplex(64 * 1024);
        self.edge.drain.spawn(self.edge.http1(theirs));
        Client::of(ours)
    }

    /// As if TLS had settled on HTTP/2.
    fn connect_http2(&self) -> Client {
        let (ours, theirs) = duplex(1024 * 1024);
        self.edge.drain.spawn(self.edge.http2(theirs));
        Client::of(ours)
    }
}

struct Client {
    io: DuplexStream,
    begun: Instant,
}

impl Client {
    fn of(io: DuplexStream) -> Self {
        Self { io, begun: Instant::now() }
    }

    async fn send(&mut self, text: &str) {
        self.io.write_all(text.as_bytes()).await.unwrap();
    }

    async fn post(&mut self, headers: &str, body: &str) {
        let length = body.len();
        self.send(&format!(
            "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\n{headers}content-length: {length}\r\n\
             \r\n{body}"
        ))
        .await;
    }

    /// Begins a request with a body of 99 bytes.
    async fn begin_post(&mut self, begin: &str) {
        self.send(&format!(
            "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: 99\r\n\r\n{begin}"
        ))
        .await;
    }

    async fn get(&mut self, path: &str, headers: &str) {
        self.send(&format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n{headers}\r\n"
        ))
        .await;
    }

    /// Reads until the text was seen.
    async fn until(&mut self, text: &str) -> String {
        let mut read = String::new();
        while !read.contains(text) {
            let mut piece = [0; 4096];
            let length = self.io.read(&mut piece).await.unwrap();
            assert!(length > 0, "ended after {read}");
            read.push_str(std::str::from_utf8(&piece[..length]).unwrap());
        }
        read
    }

    /// Reads to the end of the connection; the end, and how many seconds after the start it came.
    async fn read_out(&mut self) -> (String, u64) {
        let mut rest = Vec::new();
        // A connection that is cut may end with an error.
        drop(self.io.read_to_end(&mut rest).await);
        (String::from_utf8_lossy(&rest).into_owned(), self.seconds())
    }

    /// Sends this again and again, with a pause behind each, until there is an answer, and reads it.
    async fn drip(&mut self, piece: &[u8], pause: Duration) -> String {
        let (mut reader, mut writer) = tokio::io::split(&mut self.io);
        let dripping = async {
            while writer.write_all(piece).await.is_ok() {
                tokio::time::sleep(pause).await;
            }
        };
        let mut answer = String::new();
        tokio::select! {
            () = dripping => {}
            read = reader.read_to_string(&mut answer) => drop(read),
        }
        answer
    }

    fn seconds(&self) -> u64 {
        self.begun.elapsed().as_secs()
    }

    /// Opens a session; the header line that names it.
    async fn initialize(&mut self, version: &str) -> String {
        let params = json!({ "protocolVersion": version, "capabilities": {},
            "clientInfo": { "name": "t", "version": "1" } });
        let body = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params });
        self.post("", &body.to_string()).await;
        let answer = self.until("serverInfo").await;
        let at = answer.find("mcp-session-id: ").unwrap();
        answer.split_at(at).1.split_inclusive("\r\n").next().unwrap().to_owned()
    }
}

fn call(method: &str) -> String {
    json!({ "jsonrpc": "2.0", "id": 1, "method": method }).to_string()
}

#[tokio::test(start_paused = true)]
async fn a_silent_handshake_ends_at_10_seconds() {
    let rig = Rig::with_tls();
    let mut silent = rig.connect();
    let mut partial = rig.connect();
    partial.io.write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
    assert_eq!(silent.read_out().await.1, 10);
    assert_eq!(partial.read_out().await.1, 10);
    assert_eq!(rig.count("handshake_timeout"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_end_is_answered_408_at_10_seconds() {
    let rig = Rig::new();
    let mut client = rig.connect();
    tokio::time::sleep(Duration::from_secs(3)).await;
    client.send("POST /mcp HTTP/1.1\r\nhost: loc").await;
    let (answer, seconds) = client.read_out().await;
    assert_eq!(seconds, 10);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("application/json"), "{answer}");
    assert_eq!(rig.count("head_timeout"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_drips_has_no_longer() {
    let rig = Rig::new();
    let mut client = rig.connect();
    let answer = client.drip(b"G", Duration::from_secs(1)).await;
    assert_eq!(client.seconds(), 10);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_new_connection_without_a_word_ends_at_10_seconds() {
    let rig = Rig::new();
    assert_eq!(rig.connect().read_out().await, (String::new(), 10));
}

/// A head whose body comes in chunks.
const CHUNKED: &str = "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
    transfer-encoding: chunked\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn a_chunk_beyond_the_limit_is_refused_at_its_size_line() {
    let rig = Rig::new();
    // 10 MiB are allowed.
    for (chunk, rest, status, second) in [
        (0, "a00001", "413", 0),
        (0, "ffffffff", "413", 0),
        (0x60_0000, "400001", "413", 0),
        (0, "a00000", "408", 10),
        (0x60_0000, "400000", "408", 10),
    ] {
        let mut client = rig.connect();
        client.send(CHUNKED).await;
        if chunk > 0 {
            let data = "x".repeat(chunk);
            client.send(&format!("{chunk:x}\r\n{data}\r\n")).await;
        }
        client.send(&format!("{rest}\r\n")).await;
        let answer = client.until("\r\n\r\n").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{rest}: {answer}");
        assert_eq!(client.seconds(), second, "{rest}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_chunk_of_the_next_request_says_nothing_of_this_one() {
    let rig = Rig::new();
    let mut client = rig.connect();
    let body = call("ping");
    let length = body.len();
    let first = format!(
        "{CHUNKED}1\r\n{{\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        length - 1,
        body.trim_start_matches('{')
    );
    client.send(&format!("{first}{first}{CHUNKED}a00001\r\n")).await;
    let answers = client.until("HTTP/1.1 413 ").await;
    assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 2, "{answers}");
    assert_eq!(client.seconds(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_answered_before_its_body_is_listened_to() {
    let rig = Rig::new();
    for request in ["GET /livez", "OPTIONS /mcp", "POST /nowhere"] {
        let mut client = rig.connect();
        let head =
            format!("{request} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5000000\r\n\r\n");
        client.send(&head).await;
        let answer = client.until("\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
        // Closing on what is under way would reset the connection, and the answer would be lost.
        for _ in 0..19 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(client.io.write_all(&[b'x'; 16_384]).await.is_ok(), "{request}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends_at_75_seconds() {
    let rig = Rig::new();
    let mut client = rig.connect();
    tokio::time::sleep(Duration::from_secs(5)).await;
    client.send("GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let answer = client.until("\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(client.read_out().await, (String::new(), 80));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_is_answered_408_at_10_seconds() {
    let rig = Rig::new();
    let mut client = rig.connect();
    client.begin_post("{").await;
    let (answer, seconds) = client.read_out().await;
    assert_eq!(seconds, 10);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("-32600"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_drips_is_answered_408_at_60_seconds() {
    let rig = Rig::new();
    let mut client = rig.connect();
    client.begin_post("").await;
    let answer = client.drip(b" ", Duration::from_secs(9)).await;
    assert_eq!(client.seconds(), 60);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_is_cut_at_30_seconds() {
    let rig = Rig::new();
    let mut client = rig.connect();
    let session = client.initialize("2025-06-18").await;
    client.post(&session, &call("huge")).await;
    // 64 KiB fit into the pipe; then the answer stands still until somebody looks again.
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert_eq!(rig.connections(), 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(rig.connections(), 0);
    assert_eq!(rig.count("write_stalled"), 1);
    let (answer, _) = client.read_out().await;
    assert!(answer.len() < 1024 * 1024, "{}", answer.len());
}

#[tokio::test(start_paused = true)]
async fn a_refused_peer_may_finish_sending_and_has_2_seconds_for_it() {
    let rig = Rig::new();
    let mut client = rig.connect();
    let head = "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\n\
                content-length: 1000000\r\n\r\n";
    client.send(head).await;
    let answer = client.until("}").await;
    assert!(answer.starts_with("HTTP/1.1 415 "), "{answer}");
    // Without a listener at the other end this would be a broken pipe.
    client.send(&"x".repeat(500_000)).await;
    rig.lingers().await;
}

#[tokio::test(start_paused = true)]
async fn a_violation_waits_for_the_call_before_it_and_its_peer_has_2_seconds() {
    let rig = Rig::new();
    let mut client = rig.connect();
    let session = client.initialize("2025-06-18").await;
    let body = call("late");
    client
        .send(&format!(
            "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             accept: application/json\r\n{session}content-length: {}\r\n\r\n{body}GET /\n\n",
            body.len()
        ))
        .await;
    let answer = client.until("a line must end with CR LF").await;
    assert_eq!(client.seconds(), 20);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("HTTP/1.1 400 "), "{answer}");
    assert_eq!(rig.count("malformed"), 1);
    rig.lingers().await;
}

#[tokio::test(start_paused = true)]
async fn a_head_past_its_size_is_refused_before_it_is_whole() {
    let rig = Rig::new();
    let mut client = rig.connect();
    client.send("GET /mcp HTTP/1.1\r\nhost: localhost\r\nx: ").await;
    client.send(&"y".repeat(64 * 1024)).await;
    let answer = client.until("}").await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_eq!(client.seconds(), 0);
}
