//! Promise: a program started through the binary's shim sees nothing of that, ends as if it were
//! not there, dumps no core, and leaves nothing behind, whoever is killed first.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail")]

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tokio::time::Instant;

const EDGE: &str = env!("CARGO_BIN_EXE_mcp-edge");

fn shim(args: &[&str]) -> Output {
    Command::new(EDGE).arg("__keep").args(args).output().unwrap()
}

fn through_shim(args: &[&str]) -> Output {
    let me = std::process::id().to_string();
    shim(&[&[me.as_str(), "--"], args].concat())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Is it there, and no zombie that an idle init has not reaped?
fn alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.contains(") Z ") && !stat.contains(") X "))
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what} took too long");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_program_gets_its_arguments_and_its_status_is_kept() {
    let output =
        through_shim(&["sh", "-c", r#"printf '<%s>' "$@"; exit 7"#, "sh", "a b", "", "--"]);
    assert_eq!(text(&output.stdout), "<a b><><-->");
    assert_eq!(output.status.code(), Some(7));
}

#[test]
fn no_core_is_dumped() {
    let output = through_shim(&["sh", "-c", "ulimit -Sc; ulimit -Hc; kill -SEGV $$"]);
    assert_eq!(text(&output.stdout), "0\n0\n");
    assert_eq!(output.status.signal(), Some(11));
    assert!(!output.status.core_dumped());
}

/// Signals that this process ignores, as one does that a shell began in the background: what it
/// starts ignores them too.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap()
}

#[test]
fn a_program_ends_as_if_there_were_no_keeper() {
    let ignored = ignored();
    for signal in [1, 2, 3, 6, 9, 10, 11, 15].into_iter().filter(|it| ignored >> (it - 1) & 1 == 0)
    {
        let output = through_shim(&["sh", "-c", &format!("kill -{signal} $$")]);
        assert_eq!(output.status.signal(), Some(signal), "{:?}", output.status);
    }
    for status in [0, 1, 126, 255] {
        let output = through_shim(&["sh", "-c", &format!("exit {status}")]);
        assert_eq!(output.status.code(), Some(status));
    }
}

#[test]
fn what_it_may_have_is_what_was_asked_for() {
    let tell = "ulimit -Sn; ulimit -d; grep NoNewPrivs /proc/self/status";
    let me = std::process::id().to_string();
    let limits = ["--open-files=64", "--memory=1048576000", "--new-privileges"];
    let output = shim(&[&[me.as_str()], &limits[..], &["--", "sh", "-c", tell]].concat());
    assert_eq!(text(&output.stdout), "64\n1024000\nNoNewPrivs:\t0\n");
    let output = through_shim(&["sh", "-c", tell]);
    assert!(text(&output.stdout).ends_with("\nunlimited\nNoNewPrivs:\t1\n"), "{output:?}");
}

#[test]
fn signals_are_as_a_program_expects_them() {
    let output = through_shim(&["sh", "-c", "grep SigIgn /proc/self/status"]);
    let ignored = text(&output.stdout).trim_start_matches("SigIgn:").trim();
    let pipe = 1_u64 << (13 - 1);
    assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & pipe, 0, "SIGPIPE is ignored");
}

#[test]
fn what_cannot_be_started_is_told_as_shells_do() {
    let missing = through_shim(&["/no/such/program"]);
    assert_eq!(missing.status.code(), Some(127));
    assert!(text(&missing.stderr).starts_with("mcp-edge: could not start `/no/such/program`: "));
    assert_eq!(text(&missing.stderr).lines().count(), 1);
    assert_eq!(through_shim(&["/tmp"]).status.code(), Some(126));
    for args in [
        &[][..],
        &["1"],
        &["1", "--"],
        &["x", "--", "true"],
        &["0", "--", "true"],
        &["1", "true"],
        &["1", "--memory=much", "--", "true"],
    ] {
        let output = shim(args);
        assert_eq!(output.status.code(), Some(64), "{args:?}");
        assert!(text(&output.stderr).contains("usage"));
    }
}

#[test]
fn a_child_whose_edge_is_gone_already_does_not_start() {
    let output = shim(&["1", "--", "echo", "started"]);
    assert_eq!(output.status.code(), Some(126));
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn a_killed_edge_takes_its_child_along() {
    // The shell stands for the edge; it starts the shim as its own child.
    let script = r#""$0" __keep $$ -- sh -c 'echo $$; exec sleep 1000' & wait"#;
    let mut edge =
        Command::new("sh").args(["-c", script, EDGE]).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(edge.stdout.take().unwrap());
    let mut child = String::new();
    output.read_line(&mut child).unwrap();
    let child = child.trim();
    let command = || std::fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
    wait_until("becoming the program", || command() == "sleep\n");
    edge.kill().unwrap();
    edge.wait().unwrap();
    wait_until("the child's death", || !alive(child));
    // Its end of the pipe is closed as well.
    assert_eq!(output.read_to_string(&mut String::new()).unwrap(), 0);
}

/// A hook may signal every process of the edge's name, and keepers have it too.
#[test]
fn a_keeper_is_not_ended_by_signals_that_are_for_the_edge() {
    let script = "kill -HUP $PPID; kill -QUIT $PPID; kill -USR2 $PPID; kill -TERM $PPID; exit 7";
    let output = through_shim(&["sh", "-c", script]);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
}
