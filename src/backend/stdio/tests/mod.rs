//! Real processes, mostly small shell scripts. Each test has a deadline and leaves nothing behind.

mod end;
mod start;
mod talk;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::backend::{Caller, During, FromBackend, ToBackend};
use crate::wire::jsonrpc::Message;

const DEADLINE: Duration = Duration::from_secs(20);
const MAX_LINE: usize = 1000;

/// Answers each line with itself.
const ECHO: &str = "while read -r line; do printf '%s\\n' \"$line\"; done";
/// Says its own number, then what the script adds.
const PID: &str = r#"printf '{"jsonrpc":"2.0","method":"%s"}\n' $$; "#;

/// A grandchild that says its own number and holds the pipes.
const GRANDCHILD: &str =
    r#"sh -c 'printf "{\"jsonrpc\":\"2.0\",\"method\":\"$$\"}\n"; exec sleep 1000' & "#;

fn sh(script: &str) -> ChildCommand {
    ChildCommand {
        program: "sh".to_owned(),
        args: vec!["-c".to_owned(), script.to_owned()],
        ..ChildCommand::default()
    }
}

fn backend(command: &ChildCommand) -> StdioBackend {
    StdioBackend::new(command, &[], Metrics::default(), Drain::default()).unwrap()
}

fn open_on(backend: &StdioBackend) -> Result<Link, OpenError> {
    let limits = Limits { max_line_bytes: MAX_LINE, max_children: 4, ..Limits::default() };
    backend.open(Starter::Edge, &Quota::unbounded(), &limits)
}

fn open(script: &str) -> (StdioBackend, Link) {
    let backend = backend(&sh(script));
    let link = open_on(&backend).unwrap();
    (backend, link)
}

/// A script that can be run.
fn executable(directory: &TempDir, text: &str) -> PathBuf {
    let path = directory.path().join("script");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

fn note(method: &str) -> Message {
    Message::notification(method, &serde_json::Value::Null)
}

async fn bounded<T>(what: impl Future<Output = T>) -> T {
    timeout(DEADLINE, what).await.expect("the test took too long")
}

async fn send(link: &Link, message: Message) {
    bounded(link.to_backend.send(ToBackend { message, caller: Arc::new(Caller::stdio()) }))
        .await
        .unwrap();
}

async fn method(link: &mut Link) -> String {
    match bounded(link.from_backend.recv()).await {
        Some(FromBackend::Message { message, during: During::Unknown }) => {
            message.method().unwrap().to_owned()
        }
        other => panic!("{other:?}"),
    }
}

/// The methods of all messages up to the end, and the last word.
async fn everything(link: &mut Link) -> (Vec<String>, String) {
    let mut methods = Vec::new();
    loop {
        match bounded(link.from_backend.recv()).await {
            Some(FromBackend::Message { message, .. }) => {
                methods.push(message.method().unwrap().to_owned());
            }
            // Nobody reads what was said before.
            Some(FromBackend::Taken(until_taken)) => drop(until_taken),
            Some(FromBackend::Gone(text)) => {
                assert!(
                    bounded(link.from_backend.recv()).await.is_none(),
                    "something followed Gone"
                );
                return (methods, text);
            }
            other @ (None | Some(FromBackend::Unanswered { .. } | FromBackend::Suspect(_))) => {
                panic!("{other:?} after {methods:?}")
            }
        }
    }
}

async fn pid(link: &mut Link) -> Pid {
    Pid::from_raw(method(link).await.parse().unwrap()).unwrap()
}

/// Is it there, and no zombie that an idle init has not reaped?
fn alive(pid: Pid) -> bool {
    let stat =
        std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).unwrap_or_default();
    test_kill_process(pid).is_ok() && !stat.contains(") Z ") && !stat.contains(") X ")
}

async fn dead(pid: Pid) {
    bounded(async {
        while alive(pid) {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

fn children(backend: &StdioBackend) -> usize {
    backend.metrics.gauges().children.value()
}

async fn empty(backend: &StdioBackend) {
    bounded(async {
        while children(backend) > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Drops the link, and says how long it took until nobody was left.
async fn ends(backend: &StdioBackend, link: Link, pids: &[Pid]) -> Duration {
    let began = Instant::now();
    drop(link);
    empty(backend).await;
    assert!(!pids.iter().any(|pid| alive(*pid)));
    began.elapsed()
}
