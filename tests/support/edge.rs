//! The binary itself, as a process of its own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use super::{Client, EDGE, Mark, TOKEN, trusting};

/// What the binary as a server on stdin and stdout writes until it ends, which gets all of this at
/// once.
pub(crate) async fn piped(options: &[&str], input: &str) -> Output {
    let mut edge = tokio::process::Command::new(EDGE)
        .args(["--transport", "stdio"])
        .args(options)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = edge.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    edge.wait_with_output().await.unwrap()
}

/// The binary, running. It is killed, by its number, when the test is over.
pub(crate) struct Edge {
    pub(crate) child: Child,
    pub(crate) client: Client,
    _certs: tempfile::TempDir,
}

impl Edge {
    pub(crate) fn start(mark: &Mark, options: &[&str], command: &[&str]) -> Self {
        let certs = tempfile::tempdir().unwrap();
        let mut edge = Command::new(EDGE);
        edge.args(["--self-signed", "--port=0", "--log-format=json", "--burst=1000"])
            .args(["--certs-dir", certs.path().to_str().unwrap()])
            .args(["--env", &mark.text(), "--env", "MCP_TRANSPORT=stdio"])
            .args(options)
            .arg("--")
            .args(command)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("MCP_AUTH_TOKEN", TOKEN)
            .env("SOME_SECRET", "not-for-children")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = edge.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let serving = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0, "it never served");
            if line.contains("\"serving\"") {
                break serde_json::from_str::<Value>(&line).unwrap();
            }
        };
        // Somebody has to read what is logged from now on.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let port = u16::try_from(serving["port"].as_u64().unwrap()).unwrap();
        let tls = trusting(&certs.path().join("ca.pem"));
        let client = Client::new(([127, 0, 0, 1], port).into(), tls);
        Self { child, client, _certs: certs }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _status = self.child.wait();
    }
}
