//! Promise: whatever a child does, of it and all that it started nothing is left when its session
//! ends, when the edge ends, and when the edge, or a keeper, is killed; and whoever waits for it is
//! told.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends where it fails, helpers of it too"
)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use http_body_util::Full;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use support::{
    Client, EDGE, Edge, Mark, SCRIPT, Session, TestServer, bounded, call, config, eventually,
    hello, loopback, note, within,
};
use tokio::time::{Instant, timeout};

const SOON: Duration = Duration::from_secs(1);

/// A whole family, of which only the first two are in the child's group: a child in the
/// background, one in a session of its own, and grandchildren whose parents are gone.
const FAMILY: &str = r#"
sleep 1000 &
setsid sleep 1000 &
(setsid sh -c 'trap "" TERM HUP; sleep 1000 & (sleep 1000 & ) ; exec sleep 1000' &)
"#;
const FAMILY_SIZE: usize = 5;

fn family() -> String {
    format!("{FAMILY}{SCRIPT}")
}

/// The script, which on a method does this as well.
fn on(method: &str, deed: &str) -> String {
    let case = format!("case $line in\n *'\"method\":\"{method}\"'*) {deed} ;;");
    SCRIPT.replace("case $line in", &case)
}

fn start(mark: &Mark, script: &str) -> Edge {
    start_with(mark, &[], script)
}

fn start_with(mark: &Mark, options: &[&str], script: &str) -> Edge {
    Edge::start(mark, options, &["sh", "-c", script])
}

async fn open(edge: &Edge) -> Session {
    edge.client.initialize("2025-11-25").await
}

/// An internal error under the call's own id that says all of this.
fn told(answer: &Value, id: u32, words: &[&str]) {
    assert_eq!(
        (&answer["error"]["code"], &answer["id"]),
        (&json!(-32_603), &json!(id)),
        "{answer}"
    );
    let text = answer["error"]["message"].as_str().unwrap();
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

fn keeper(mark: &Mark) -> i32 {
    let keepers = mark.keepers();
    assert_eq!(keepers.len(), 1);
    keepers[0]
}

/// Opens a session with this script, ends it, and expects that nobody is left, the edge being well.
async fn leaves_nothing(script: &str) {
    let mark = Mark::new();
    let mut edge = start(&mark, script);
    let session = open(&edge).await;
    assert!(!mark.programs().is_empty());
    assert_eq!(session.delete().await.status, 204);
    mark.gone().await;
    let again = open(&edge).await;
    drop(again);
    edge.signal(Signal::TERM);
    assert_eq!(edge.ended().await.code(), Some(0));
    mark.gone().await;
}

#[tokio::test]
async fn one_that_ignores_term_leaves_nothing() {
    let stubborn = format!("trap '' TERM; (trap '' TERM; sleep 1000) & {SCRIPT} sleep 1000");
    bounded(leaves_nothing(&stubborn)).await;
}

#[tokio::test]
async fn one_that_forks_away_leaves_nothing() {
    bounded(leaves_nothing(&family())).await;
}

#[tokio::test]
async fn one_that_floods_its_output_leaves_nothing() {
    bounded(leaves_nothing(&format!("(while :; do echo noise; done) & {SCRIPT}"))).await;
}

#[tokio::test]
async fn one_that_floods_its_stderr_leaves_nothing() {
    bounded(leaves_nothing(&format!("(while :; do echo noise >&2; done) & {SCRIPT}"))).await;
}

#[tokio::test]
async fn a_family_that_never_stops_forking_leaves_nothing() {
    // Each generation leaves its parent behind within milliseconds, in a session of its own.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("comet");
    let path = file.display();
    std::fs::write(&file, format!("(setsid sh -c '. {path}' &) ; sleep 0.02\n")).unwrap();
    bounded(leaves_nothing(&format!("(sh -c '. {path}' &) ; sleep 0.1; {SCRIPT}"))).await;
}

#[tokio::test]
async fn an_exit_takes_the_family_along_and_is_told_at_once() {
    bounded(async {
        let mark = Mark::new();
        let script = format!("{FAMILY}{}", on("t/die", "echo 'no more' >&2; exit 3"));
        let edge = start(&mark, &script);
        let session = open(&edge).await;
        eventually(|| mark.programs().len() > FAMILY_SIZE).await;
        let begun = Instant::now();
        told(&session.call(7, "t/die", json!({})).await, 7, &["status 3", "no more"]);
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        mark.gone().await;
        // The next one is served at once.
        let begun = Instant::now();
        open(&edge).await.call(8, "t/pid", json!({})).await;
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    })
    .await;
}

#[tokio::test]
async fn half_a_line_ends_with_the_call_and_what_follows_is_served() {
    bounded(async {
        let mark = Mark::new();
        let script = on("t/half", r#"printf '{"jsonrpc":"2.0","id":'; exec sleep 1000"#);
        let edge = start_with(&mark, &["--call-timeout=500ms"], &script);
        let session = open(&edge).await;
        told(&session.call(1, "t/half", json!({})).await, 1, &["did not answer"]);
        assert_eq!(session.delete().await.status, 204);
        mark.gone().await;
    })
    .await;
}

#[tokio::test]
async fn one_that_closes_its_output_and_stays_is_told_of_and_ended() {
    bounded(async {
        let mark = Mark::new();
        let script = on("t/mute", "exec 1>&-; echo 'no voice' >&2; sleep 1000");
        let edge = start(&mark, &script);
        let session = open(&edge).await;
        let begun = Instant::now();
        told(&session.call(2, "t/mute", json!({})).await, 2, &["closed its output", "no voice"]);
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        mark.gone().await;
    })
    .await;
}

#[tokio::test]
async fn one_that_closes_its_input_and_stays_is_told_of_and_ended() {
    bounded(async {
        let mark = Mark::new();
        let edge = start(&mark, &on("t/deaf", "exec 0<&-; exec sleep 1000"));
        let session = open(&edge).await;
        let deaf = session.stream(&call(3, "t/deaf", json!({}))).await;
        let poking = async {
            // Something has to be said to notice.
            loop {
                session.post(&note("t/log", json!({}))).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let mut events = deaf.events();
        let rest = tokio::select! { rest = events.rest() => rest, () = poking => Vec::new() };
        told(rest.last().unwrap(), 3, &["closed its input"]);
        mark.gone().await;
    })
    .await;
}

#[tokio::test]
async fn one_that_takes_its_time_to_start_is_waited_for() {
    bounded(async {
        let mark = Mark::new();
        let edge = start(&mark, &format!("sleep 1.5; {SCRIPT}"));
        let session = open(&edge).await;
        session.call(1, "t/pid", json!({})).await;
        assert_eq!(session.delete().await.status, 204);
        mark.gone().await;
    })
    .await;
}

#[tokio::test]
async fn a_killed_edge_leaves_nothing_of_any_family() {
    bounded(async {
        let mark = Mark::new();
        // It does not end with its input either.
        let mut edge = start(&mark, &format!("{} sleep 1000", family()));
        let (one, other) = (open(&edge).await, open(&edge).await);
        let mut held = one.stream(&call(1, "t/hold", json!({}))).await.events();
        held.next().await;
        other.call(1, "t/pid", json!({})).await;
        eventually(|| mark.programs().len() == 2 * (FAMILY_SIZE + 1)).await;
        edge.signal(Signal::KILL);
        edge.ended().await;
        mark.gone().await;
    })
    .await;
}

#[tokio::test]
async fn sigterm_ends_stubborn_families() {
    bounded(async {
        let mark = Mark::new();
        let script = format!("trap '' TERM; {} sleep 1000", family());
        let mut edge = start_with(&mark, &["--shutdown-timeout=9s"], &script);
        let session = open(&edge).await;
        let mut held = session.stream(&call(1, "t/hold", json!({}))).await.events();
        held.next().await;
        edge.signal(Signal::TERM);
        told(held.rest().await.last().unwrap(), 1, &[]);
        assert_eq!(edge.ended().await.code(), Some(0));
        // Not even for a moment: whoever waits for the edge may rely on it.
        assert_eq!(mark.programs().len(), 0);
    })
    .await;
}

#[tokio::test]
async fn what_outlives_a_killed_keeper_is_ended_by_the_edge() {
    bounded(async {
        let mark = Mark::new();
        let edge = start(&mark, &family());
        let session = open(&edge).await;
        eventually(|| mark.programs().len() == FAMILY_SIZE + 1).await;
        let mut held = session.stream(&call(4, "t/hold", json!({}))).await.events();
        held.next().await;
        signal(keeper(&mark), Signal::KILL);
        let rest = timeout(SOON, held.rest()).await.unwrap();
        told(rest.last().unwrap(), 4, &["SIGKILL"]);
        mark.gone().await;
        open(&edge).await;
    })
    .await;
}

#[tokio::test]
async fn a_stopped_keeper_cannot_hold_its_family() {
    bounded(async {
        let mark = Mark::new();
        let edge = start(&mark, &family());
        let session = open(&edge).await;
        signal(keeper(&mark), Signal::STOP);
        assert_eq!(session.delete().await.status, 204);
        mark.gone().await;
    })
    .await;
}

#[tokio::test]
async fn an_edge_on_stdin_and_stdout_leaves_nothing_either() {
    bounded(async {
        for kill in [false, true] {
            let script = if kill { format!("{} sleep 1000", family()) } else { family() };
            let mark = Mark::new();
            let mut edge = Command::new(EDGE)
                .args(["--transport=stdio", "--env", &mark.text(), "--", "sh", "-c", &script])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let (mut stdin, stdout) = (edge.stdin.take().unwrap(), edge.stdout.take().unwrap());
            writeln!(stdin, "{}", hello("2025-11-25")).unwrap();
            let mut answer = String::new();
            BufReader::new(stdout).read_line(&mut answer).unwrap();
            assert!(answer.contains("serverInfo"), "{answer}");
            eventually(|| mark.programs().len() == FAMILY_SIZE + 1).await;
            if kill {
                edge.kill().unwrap();
            }
            drop(stdin);
            edge.wait().unwrap();
            mark.gone().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_child_may_have_as_many_files_as_the_edge_was_given() {
    within(Duration::from_secs(30), async {
        let mark = Mark::new();
        let tell = r#"say '"id":'"$id"',"result":{"files":'$(ulimit -Sn)'}'"#;
        let edge = start(&mark, &on("t/files", tell));
        let answer = open(&edge).await.call(1, "t/files", json!({})).await;
        let own = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        assert_eq!(answer["result"]["files"].as_u64(), own);
    })
    .await;
}

/// The script, which answers pings too.
fn ponging() -> String {
    on("ping", r#"say '"id":'"$id"',"result":{}'"#)
}

/// Lets the child start once the file `up` is there.
fn dying_until(up: &std::path::Path) -> String {
    format!("[ -e '{}' ] || {{ echo 'no database' >&2; exit 3; }}\n{}", up.display(), ponging())
}

#[tokio::test]
async fn a_crash_loop_is_held_back_told_of_and_left() {
    bounded(async {
        let mark = Mark::new();
        let dir = tempfile::tempdir().unwrap();
        let up = dir.path().join("up");
        let server = TestServer::start(config(), mark.sh(&dying_until(&up))).await;
        let client = server.client();
        let bare = |id: u32| {
            let body = call(id, "t/pid", json!({})).to_string();
            let request = client.request("POST", "/mcp").header("content-type", "application/json");
            client.send(request.body(Full::new(body.into())).unwrap())
        };
        for id in 0..5 {
            // The handshake is the edge's own: these are nobody's fault.
            let answer = bare(id).await;
            assert_ne!(answer.refusal().0, 503);
            told(&answer.json(), id, &["status 3", "no database"]);
        }
        let held = bare(5).await;
        assert_eq!(held.status, 503);
        let wait: u64 = held.header("retry-after").parse().unwrap();
        assert!(wait >= 1, "{wait}");
        told(&held.json(), 5, &["ends as soon as it is started", "status 3", "no database"]);
        // Whoever asks is told, whichever way.
        let hello = client.send(client.post("/mcp", &hello("2025-11-25"))).await;
        assert_eq!(hello.status, 503);
        told(&hello.json(), 0, &["status 3"]);
        assert_eq!(client.bare(client.request("GET", "/readyz")).await.status, 503);
        let report = server.report();
        assert!(report.crash_loop);
        let (failed, entered) = (report.outcomes["start_failed"], report.outcomes["crash_loop"]);
        assert_eq!((failed, entered), (5, 1));
        assert_eq!(report.refusals["crash_loop"], 2);
        // It is tried again by itself as clients ask, and the loop is over once it stays up.
        std::fs::write(&up, "").unwrap();
        let mut latest = bare(6).await;
        while latest.status != 200 {
            assert_eq!(latest.status, 503);
            tokio::time::sleep(Duration::from_millis(50)).await;
            latest = bare(6).await;
        }
        assert!(latest.json()["result"]["pid"].is_number(), "{latest:?}");
        eventually(|| !server.report().crash_loop).await;
        assert!(ready(&client).await);
        assert_eq!(server.report().outcomes["start_failed"], 5);
        assert!(server.stop().await);
        mark.gone().await;
    })
    .await;
}

async fn ready(client: &Client) -> bool {
    client.bare(client.request("GET", "/readyz")).await.status == 200
}

#[tokio::test]
async fn one_client_whose_handshake_ends_the_child_holds_nobody_else_back() {
    bounded(async {
        let mark = Mark::new();
        let script = ponging().replace(
            "case $line in",
            "case $line in\n *'\"protocolVersion\":\"2024-11-05\"'*) exit 9 ;;",
        );
        let server = TestServer::start(config(), mark.sh(&script)).await;
        let (bad, good) = (server.client(), server.client().from(loopback(7)));
        for _ in 0..5 {
            let refused = bad.send(bad.post("/mcp", &hello("2024-11-05"))).await;
            told(&refused.message(), 0, &["status 9"]);
        }
        assert_eq!(bad.send(bad.post("/mcp", &hello("2024-11-05"))).await.status, 503);
        for _ in 0..5 {
            good.initialize("2025-11-25").await;
        }
        assert!(!server.report().crash_loop && ready(&good).await);
        assert!(server.stop().await);
        mark.gone().await;
    })
    .await;
}

#[tokio::test]
async fn calls_that_end_the_child_are_no_crash_loop() {
    bounded(async {
        let mark = Mark::new();
        let server = TestServer::start(config(), mark.sh(&on("t/die", "exit 4"))).await;
        for id in 0..8 {
            let session = server.client().initialize("2025-11-25").await;
            told(&session.call(id, "t/die", json!({})).await, id, &["status 4"]);
        }
        let report = server.report();
        assert!(!report.crash_loop);
        assert_eq!(report.outcomes["start_failed"], 0);
        assert!(server.stop().await);
        mark.gone().await;
    })
    .await;
}

#[tokio::test]
async fn one_that_eats_memory_is_refused_it_and_the_caller_is_told() {
    bounded(async {
        let mark = Mark::new();
        let eat = on("t/eat", r"x=$(head -c 500000000 /dev/zero | tr '\0' x)");
        let edge = start_with(&mark, &["--child-memory=64MiB"], &eat);
        let session = open(&edge).await;
        told(&session.call(1, "t/eat", json!({})).await, 1, &["the MCP server ended"]);
        mark.gone().await;
    })
    .await;
}
