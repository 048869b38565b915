//! Real processes, mostly small shell scripts. Each test has a deadline and leaves nothing behind.

mod end;
mod start;
mod talk;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
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

async fn said(link: &mut Link) -> Message {
    match bounded(link.from_backend.recv()).await {
        Some(FromBackend::Message { message, during: During::Unknown }) => message,
        other => panic!("{other:?}"),
    }
}

async fn method(link: &mut Link) -> String {
    said(link).await.method().unwrap().to_owned()
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
