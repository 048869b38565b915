//! Promise: SIGHUP reads certificates and keys again, all or nothing, and no request is lost; no
//! other signal of a renewal or log rotation hook ends the edge without a drain; a terminal that
//! goes ends it in good order.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail"
)]

mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use support::{
    Client, EDGE, TOKEN, bounded, ca_named, call, eventually, is_ignored, terminal, trusting,
};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// A CA, and the pair of files that the edge is started with.
struct Pki {
    dir: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let issuer = ca_named("CA of the tests");
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        let this = Self { dir, issuer };
        this.renew(&["localhost"]);
        this
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// Replaces certificate and key, as a renewal does; gives the new certificate.
    fn renew(&self, names: &[&str]) -> Vec<u8> {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        fs::write(self.path("fullchain.pem"), leaf.pem() + &self.issuer.pem()).unwrap();
        fs::write(self.path("privkey.pem"), key.serialize_pem()).unwrap();
        leaf.der().to_vec()
    }

    fn options(&self) -> Vec<String> {
        let file = |option: &str, file| format!("{option}={}", self.path(file).display());
        vec![file("--cert", "fullchain.pem"), file("--key", "privkey.pem")]
    }
}

/// The binary, and all that it logs.
struct Edge {
    child: Child,
    port: u16,
    log: Arc<Mutex<Vec<Value>>>,
    ca: PathBuf,
}

impl Edge {
    fn start(pki: &Pki) -> Self {
        Self::spawn(Command::new(EDGE), &pki.options(), &pki.path("ca.pem"), Stdio::null())
    }

    /// `program` ends with the binary, or what becomes it.
    fn spawn(mut program: Command, options: &[String], ca: &Path, stdin: Stdio) -> Self {
        program
            .args(["--port=0", "--log-format=json", "--burst=1000000"])
            .args(["--requests-per-second=1000000", "--connections-per-ip=1000"])
            .args(["--shutdown-timeout=10s"])
            .args(options)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("MCP_AUTH_TOKEN", TOKEN)
            .stdin(stdin)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = program.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(Vec::new()));
        let port = loop {
            let line = lines.next().expect("it never served").unwrap();
            let event: Value = serde_json::from_str(&line).unwrap();
            let port = event["port"].as_u64().filter(|_| event["message"] == "serving");
            log.lock().unwrap().push(event);
            if let Some(port) = port {
                break u16::try_from(port).unwrap();
            }
        };
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Self { child, port, log, ca: ca.to_owned() }
    }

    fn client(&self) -> Client {
        Client::new(([127, 0, 0, 1], self.port).into(), trusting(&self.ca))
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// What was logged at this level of which the text has all of these parts.
    fn said(&self, level: &str, parts: &[&str]) -> usize {
        let log = self.log.lock().unwrap();
        let fits = |event: &&Value| {
            let text = event["message"].as_str().unwrap_or_default();
            event["level"] == level && parts.iter().all(|part| text.contains(part))
        };
        log.iter().filter(fits).count()
    }

    /// The certificate that a new connection is shown.
    async fn shown(&self) -> Vec<u8> {
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let tls = TlsConnector::from(trusting(&self.ca)).connect(name, tcp).await.unwrap();
        tls.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }

    async fn ended(&mut self) -> ExitStatus {
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Does it still answer?
    async fn lives(&self) {
        let client = self.client();
        let answer = client.send(client.post("/mcp", &call(1, "tools/list", json!({})))).await;
        assert_eq!(answer.status, 200);
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Calls without end until it is told to stop: over one connection, or each over one of its own.
async fn calls(client: Client, kept: bool, stop: Arc<AtomicBool>, answered: Arc<AtomicU32>) {
    let mut conn = client.connect().await;
    while !stop.load(Ordering::Relaxed) {
        if !kept {
            conn = client.connect().await;
        }
        let answer = conn.send(client.post("/mcp", &call(1, "tools/list", json!({})))).await;
        assert_eq!(answer.status, 200);
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

const READ: &str = "SIGHUP: read the certificates and keys again";
const KEPT: &str = "SIGHUP: nothing was replaced";

#[tokio::test]
async fn certificates_are_replaced_under_load_and_no_request_is_lost() {
    bounded(async {
        let pki = Pki::new();
        let edge = Edge::start(&pki);
        let client = edge.client();
        let session = client.initialize("2025-11-25").await;
        let mut standalone = session.listen(None).await.events();
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU32::new(0));
        let mut load = JoinSet::new();
        for (client, kept) in [
            (client.clone(), true),
            (client.clone().h2(), true),
            (client.clone(), false),
            (client.clone().h2(), false),
        ] {
            load.spawn(calls(client, kept, Arc::clone(&stop), Arc::clone(&answered)));
        }
        let arguments = json!({ "n": 40, "delay_ms": 50 });
        let params =
            json!({ "name": "count", "arguments": arguments, "_meta": { "progressToken": "p" } });
        let mut held = session.stream(&call(1, "tools/call", params)).await.events();
        held.message().await;
        let mut current = edge.shown().await;
        for round in 1..=4 {
            let before = answered.load(Ordering::Relaxed);
            eventually(|| answered.load(Ordering::Relaxed) > before + 20).await;

            // Half of a renewal changes nothing, and names the file.
            let key = fs::read(pki.path("privkey.pem")).unwrap();
            fs::write(pki.path("privkey.pem"), "-----BEGIN PRIVATE KEY-----\nMAA=\n").unwrap();
            edge.signal(Signal::HUP);
            let named = pki.path("privkey.pem").display().to_string();
            eventually(|| edge.said("ERROR", &[KEPT, &named]) == round).await;
            assert_eq!(edge.shown().await, current);
            fs::write(pki.path("privkey.pem"), key).unwrap();

            current = pki.renew(&["localhost"]);
            edge.signal(Signal::HUP);
            eventually(|| edge.said("INFO", &[READ, "fullchain.pem", "privkey.pem"]) == round)
                .await;
            assert_eq!(edge.shown().await, current);
        }
        let answers = held.rest().await;
        assert_eq!(answers.last().unwrap()["result"]["isError"], Value::Null);
        stop.store(true, Ordering::Relaxed);
        while let Some(ended) = load.join_next().await {
            ended.unwrap();
        }
        // The stream that was open all the time still carries what is for it.
        assert_eq!(session.call(2, "tools/list", json!({})).await["id"], 2);
        assert!(
            tokio::time::timeout(Duration::from_millis(50), standalone.message()).await.is_err(),
            "it ended"
        );
    })
    .await;
}

#[tokio::test]
async fn a_new_name_of_the_certificate_is_served_and_an_old_one_too() {
    bounded(async {
        let pki = Pki::new();
        let edge = Edge::start(&pki);
        let client = edge.client();
        let to = |host: &'static str| {
            let list = call(1, "tools/list", json!({}));
            let mut request = client.post("/mcp", &list);
            request.headers_mut().insert("host", host.parse().unwrap());
            request
        };
        assert_eq!(client.send(to("new.example")).await.status, 403);
        let mut old = client.connect().await;
        assert_eq!(old.send(to("localhost")).await.status, 200);
        pki.renew(&["localhost", "new.example"]);
        edge.signal(Signal::HUP);
        eventually(|| edge.said("INFO", &[READ]) == 1).await;
        assert_eq!(client.send(to("new.example")).await.status, 200);
        assert_eq!(old.send(to("localhost")).await.status, 200);
        assert_eq!(client.send(to("other.example")).await.status, 403);
    })
    .await;
}

#[tokio::test]
async fn the_files_of_self_signed_are_looked_at_again() {
    bounded(async {
        let dir = tempfile::tempdir().unwrap();
        let options = ["--self-signed".to_owned(), format!("--certs-dir={}", dir.path().display())];
        let ca = dir.path().join("ca.pem");
        let edge = Edge::spawn(Command::new(EDGE), &options, &ca, Stdio::null());
        let before = edge.shown().await;
        fs::remove_file(dir.path().join("key.pem")).unwrap();
        edge.signal(Signal::HUP);
        eventually(|| edge.said("INFO", &[READ]) == 1).await;
        let after = edge.shown().await;
        assert_ne!(before, after, "of the same CA, or `shown` had failed");
    })
    .await;
}

#[tokio::test]
async fn no_signal_of_a_hook_ends_it() {
    bounded(async {
        let plain = ["--insecure-http".to_owned()];
        let pki = Pki::new();
        let edge = Edge::start(&pki);
        for signal in [Signal::USR1, Signal::USR2, Signal::WINCH, Signal::PIPE, Signal::HUP] {
            edge.signal(signal);
            edge.lives().await;
        }
        eventually(|| edge.said("INFO", &["SIGUSR1", "does nothing"]) == 1).await;
        eventually(|| edge.said("INFO", &["SIGUSR2", "does nothing"]) == 1).await;
        let mut edge = Edge::spawn(Command::new(EDGE), &plain, Path::new("/"), Stdio::null());
        edge.signal(Signal::HUP);
        eventually(|| edge.said("INFO", &["SIGHUP", "no certificate is served"]) == 1).await;
        edge.signal(Signal::TERM);
        assert_eq!(edge.ended().await.code(), Some(0));
    })
    .await;
}

#[tokio::test]
async fn stdin_and_stdout_are_not_cut_by_a_hook() {
    bounded(async {
        let mut child = Command::new(EDGE)
            .args(["--transport=stdio", "--log-format=json"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let spoke = |line: &str| line.contains("speaking on stdin and stdout");
        assert!(log.by_ref().any(|line| spoke(&line.unwrap())));
        let pid = Pid::from_child(&child);
        for signal in [Signal::HUP, Signal::USR1, Signal::USR2] {
            kill_process(pid, signal).unwrap();
        }
        let mut stdin = child.stdin.take().unwrap();
        writeln!(stdin, "{}", call(7, "ping", json!({}))).unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
        let answer: Value = serde_json::from_str(&answers.next().unwrap().unwrap()).unwrap();
        assert_eq!(answer["id"], 7);
        drop(stdin);
        assert_eq!(child.wait().unwrap().code(), Some(0));
    })
    .await;
}

/// systemd's `SendSIGHUP=`, and a shell whose terminal goes, send it right behind another signal.
#[tokio::test]
async fn a_hup_does_not_cut_a_drain_short() {
    bounded(async {
        let pki = Pki::new();
        let mut edge = Edge::start(&pki);
        let session = edge.client().initialize("2025-11-25").await;
        let params = json!({ "name": "count", "arguments": { "n": 3, "delay_ms": 300 }, "_meta": { "progressToken": "p" } });
        let mut held = session.stream(&call(1, "tools/call", params)).await.events();
        held.message().await;
        edge.signal(Signal::TERM);
        eventually(|| edge.said("INFO", &["SIGTERM"]) == 1).await;
        edge.signal(Signal::HUP);
        let rest = held.rest().await;
        assert_eq!(rest.last().unwrap()["result"]["isError"], Value::Null);
        assert_eq!(edge.ended().await.code(), Some(0));
    })
    .await;
}

/// The edge as the leader of a session on this terminal; `before` is done by a shell that becomes it.
fn on_terminal(pki: &Pki, terminal: File, before: &str) -> Edge {
    let mut program = Command::new("setsid");
    let script = format!(r#"{before} exec "$0" "$@""#);
    program.args(["--ctty", "sh", "-c", &script, EDGE]);
    Edge::spawn(program, &pki.options(), &pki.path("ca.pem"), terminal.into())
}

#[tokio::test]
async fn a_terminal_that_goes_ends_it_in_good_order() {
    if is_ignored(Signal::HUP.as_raw()) {
        return;
    }
    bounded(async {
        let pki = Pki::new();
        let (master, slave) = terminal();
        let mut edge = on_terminal(&pki, slave, "");
        // While the terminal stands, the signal is a renewal's.
        edge.signal(Signal::HUP);
        eventually(|| edge.said("INFO", &[READ]) == 1).await;
        let session = edge.client().initialize("2025-11-25").await;
        let params = json!({ "name": "count", "arguments": { "n": 3, "delay_ms": 200 }, "_meta": { "progressToken": "p" } });
        let mut held = session.stream(&call(1, "tools/call", params)).await.events();
        held.message().await;
        drop(master);
        let rest = held.rest().await;
        assert_eq!(rest.last().unwrap()["result"]["isError"], Value::Null);
        assert_eq!(edge.ended().await.code(), Some(0));
        assert_eq!(edge.said("INFO", &["the terminal has gone", "finishing"]), 1);
    })
    .await;
}

/// As `nohup` starts it.
#[tokio::test]
async fn where_hup_was_ignored_a_terminal_that_goes_ends_nothing() {
    bounded(async {
        let pki = Pki::new();
        let (master, slave) = terminal();
        let edge = on_terminal(&pki, slave, "trap '' HUP;");
        drop(master);
        let current = pki.renew(&["localhost"]);
        eventually(|| {
            edge.signal(Signal::HUP);
            edge.said("INFO", &[READ]) > 1
        })
        .await;
        assert_eq!(edge.shown().await, current);
        edge.lives().await;
    })
    .await;
}
