//! Promise: an edge that is out of descriptors says so once, does not spin, keeps whom it has, and
//! still takes newcomers in at the cost of strangers.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends where it fails, helpers of it too"
)]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use http_body_util::Full;
use serde_json::{Value, json};
use support::{
    Act, Answer, Client, Conn, EDGE, SCRIPT, Scripted, TOKEN, bounded, call, eventually, hello,
    trusting,
};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// So many descriptors are allowed to an edge, and none more.
const FEW: &str = "64";
/// Nothing is to end but for want of descriptors.
const PATIENT: [&str; 5] = [
    "--connections-per-ip=1000",
    "--max-unauthenticated=1000",
    "--tls-handshake-timeout=10m",
    "--header-timeout=10m",
    "--idle-timeout=10m",
];

/// The binary under a low limit of open files. It is killed, by its number, when the test is over.
struct Edge {
    process: Child,
    log: Arc<Mutex<Vec<Value>>>,
    client: Client,
    _certs: tempfile::TempDir,
}

impl Edge {
    fn start(options: &[&str], command: &[&str]) -> Self {
        let certs = tempfile::tempdir().unwrap();
        let mut process = Command::new("sh")
            .args(["-c", r#"ulimit -n "$0" && exec "$@""#, FEW, EDGE])
            .args(["--self-signed", "--port=0", "--log-format=json", "--burst=1000"])
            .args(["--certs-dir", certs.path().to_str().unwrap(), "--report-interval=50ms"])
            .args(options)
            .args(command.first().map(|_| "--"))
            .args(command)
            .env_clear()
            .envs([("PATH", "/usr/bin:/bin"), ("MCP_AUTH_TOKEN", TOKEN)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut before = Vec::new();
        let serving = loop {
            let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
            if event["message"] == "serving" {
                break event;
            }
            before.push(event);
        };
        let log = Arc::new(Mutex::new(before));
        let writes = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                writes.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        let port = u16::try_from(serving["port"].as_u64().unwrap()).unwrap();
        let tls = trusting(&certs.path().join("ca.pem"));
        let client = Client::new(([127, 0, 0, 1], port).into(), tls);
        Self { process, log, client, _certs: certs }
    }

    /// How many lines of the log say this.
    fn told(&self, text: &str) -> usize {
        let log = self.log.lock().unwrap();
        let messages = log.iter().filter_map(|event| event["message"].as_str());
        messages.filter(|message| message.contains(text)).count()
    }

    /// The latest report.
    fn report(&self) -> Value {
        let log = self.log.lock().unwrap();
        let report = log.iter().rev().find_map(|event| event.get("report"));
        report.cloned().unwrap_or_default()
    }

    /// How often there was nothing to accept with.
    fn failed(&self) -> u64 {
        self.report()["outcomes"]["accept_failed"].as_u64().unwrap_or_default()
    }

    async fn silent(&self) -> TcpStream {
        self.client.tcp().await.unwrap()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _gone_already = self.process.kill();
        let _status = self.process.wait();
    }
}

async fn ping(client: &Client, conn: &mut Conn) -> Answer {
    conn.send(client.post("/mcp", &call(1, "ping", json!({})))).await
}

/// A connection that has shown its token.
async fn known(client: Client) -> Conn {
    let mut conn = client.connect().await;
    let nothing = client.request("DELETE", "/mcp").header("mcp-session-id", "none");
    assert_eq!(conn.send(nothing.body(Full::default()).unwrap()).await.status, 404);
    conn
}

#[tokio::test]
async fn silent_connections_that_take_all_descriptors_shut_nobody_out() {
    bounded(async {
        let edge = Edge::start(&PATIENT, &[]);
        let mut kept = known(edge.client.clone()).await;
        let mut silent = Vec::new();
        for _ in 0..200 {
            silent.push(edge.silent().await);
        }
        eventually(|| edge.failed() > 0).await;
        // They are all still there, and more of them than there are descriptors.
        drop(known(edge.client.clone()).await);
        assert_eq!(ping(&edge.client, &mut kept).await.status, 200);
        assert_eq!(edge.told("out of open files"), 1);
        // Each time that it failed somebody went, and there are no more than came.
        assert!(edge.failed() <= 202, "{}", edge.report());
        drop(silent);
        eventually(|| edge.report()["unauthenticated"] == 0).await;
        drop(known(edge.client.clone()).await);
        eventually(|| edge.told("accepted again") == 1).await;
        assert_eq!(edge.told("out of open files"), 1);
        assert_eq!(ping(&edge.client, &mut kept).await.status, 200);
    })
    .await;
}

/// Connections that have shown their token and hold all descriptors, and newcomers who wait for some
/// of these. What is behind the edge is not asked for anything.
async fn all_taken(edge: &Edge) -> (Vec<Conn>, JoinSet<Conn>) {
    let mut kept = Vec::new();
    while edge.failed() == 0 {
        tokio::select! {
            conn = known(edge.client.clone()) => kept.push(conn),
            () = eventually(|| edge.failed() > 0) => {}
        }
    }
    let mut newcomers = JoinSet::new();
    for _ in 0..5 {
        newcomers.spawn(known(edge.client.clone()));
    }
    // It rests between two tries, and nobody is there who could go.
    let before = edge.failed();
    eventually(|| edge.failed() > before + 10).await;
    (kept, newcomers)
}

#[tokio::test]
async fn who_is_known_stays_and_newcomers_wait_for_descriptors() {
    bounded(async {
        let edge = Edge::start(&PATIENT, &[]);
        let (mut kept, newcomers) = all_taken(&edge).await;
        for conn in &mut kept {
            assert_eq!(ping(&edge.client, conn).await.status, 200);
        }
        assert_eq!(edge.told("out of open files"), 1);
        drop(kept);
        assert_eq!(newcomers.join_all().await.len(), 5);
    })
    .await;
}

#[tokio::test]
async fn an_upstream_that_cannot_be_reached_for_want_of_them_costs_its_call_only() {
    bounded(async {
        let upside = Scripted::new(|_| Act::Well).await;
        let url = format!("--upstream=http://{}/mcp", upside.address);
        let options = [&PATIENT[..], &["--upstream-wait=200ms", &url]].concat();
        let edge = Edge::start(&options, &[]);
        // The start looks whether somebody is there.
        eventually(|| upside.taken() == 1).await;
        let (mut kept, newcomers) = all_taken(&edge).await;
        let mut conn = kept.pop().unwrap();
        let look = call(7, "tools/call", json!({ "name": "look", "arguments": {} }));
        let answer = conn.send(edge.client.post("/mcp", &look)).await.json();
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(7), &json!(-32603)));
        assert_eq!(upside.taken(), 1);
        drop(kept);
        assert_eq!(newcomers.join_all().await.len(), 5);
        let answer = conn.send(edge.client.post("/mcp", &look)).await.json();
        assert_eq!(answer["result"]["seen"]["name"], "look", "{answer}");
    })
    .await;
}

#[tokio::test]
async fn a_child_that_cannot_be_started_costs_its_call_only() {
    bounded(async {
        let edge = Edge::start(&PATIENT, &["sh", "-c", SCRIPT]);
        let client = &edge.client;
        let open = || async { client.send(client.post("/mcp", &hello("2025-11-25"))).await };
        let mut ids = Vec::new();
        let refused = loop {
            let answer = open().await;
            if answer.status != 200 {
                break answer;
            }
            ids.push(answer.header("mcp-session-id").to_owned());
        };
        assert_eq!(refused.status, 502, "{refused:?}");
        let answer = refused.json();
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(0), &json!(-32603)));
        assert!(ids.len() > 5, "{}", ids.len());
        eventually(|| edge.report()["outcomes"]["spawn_failed"].as_u64() > Some(0)).await;
        // Sessions that are there go on, and their descriptors come back.
        for id in &ids {
            let delete = client.request("DELETE", "/mcp").header("mcp-session-id", id);
            assert_eq!(client.bare(delete).await.status, 204);
        }
        eventually(|| edge.report()["children"] == 0).await;
        assert_eq!(open().await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn too_low_a_limit_is_told_at_the_start() {
    bounded(async {
        let told = "may need 1032 open files, and the limit is 64";
        assert_eq!(Edge::start(&["--max-connections=1000"], &[]).told(told), 1);
        assert_eq!(Edge::start(&["--max-connections=32"], &[]).told("open files"), 0);
    })
    .await;
}
