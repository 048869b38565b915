//! What goes through the pipes.

use super::*;
use crate::limits::lines::LAST_WORDS;

#[tokio::test]
async fn what_is_told_comes_back() {
    let (backend, mut link) = open(ECHO);
    for n in 0..200 {
        send(&link, note(&format!("n{n}"))).await;
        assert_eq!(method(&mut link).await, format!("n{n}"));
    }
    let broken = Message::parse("{\n\"jsonrpc\":\"2.0\",\n\"method\":\"lines\"}".into()).unwrap();
    send(&link, broken).await;
    assert_eq!(method(&mut link).await, "lines");
    assert_eq!(children(&backend), 1);
    drop(link);
    empty(&backend).await;
}

#[tokio::test]
async fn a_full_queue_makes_the_child_wait_and_loses_nothing() {
    let (backend, mut link) = open(
        r#"n=0; while [ $n -lt 5000 ]; do printf '{"jsonrpc":"2.0","method":"%d"}\n' $n; n=$((n+1)); done"#,
    );
    sleep(Duration::from_millis(300)).await;
    let (methods, gone) = everything(&mut link).await;
    assert_eq!(methods.len(), 5000);
    assert_eq!(methods[4999], "4999");
    assert_eq!(gone, "the server exited with status 0");
    empty(&backend).await;
}

#[tokio::test]
async fn noise_is_skipped_and_messages_are_not() {
    let long = "x".repeat(MAX_LINE + 1);
    let script = format!(
        r#"
        m() {{ printf '{{"jsonrpc":"2.0","method":"%s"}}' "$1"; }}
        echo 'Listening on stdio'; echo; printf '\r\n   \n'
        m crlf; printf '\r\n'
        echo '{{"not":"rpc"}}'; echo {long}
        printf '{{"jsonrpc":"2.0",'; sleep 0.1; printf '"method":"split"}}\n'
        printf '['; m one; printf ','; m two; printf ']\n'
        m unfinished"#
    );
    let (backend, mut link) = open(&script);
    let (methods, _) = everything(&mut link).await;
    assert_eq!(methods, ["crlf", "split", "one", "two", "unfinished"]);
    empty(&backend).await;
}

#[tokio::test]
async fn what_was_queued_is_written_before_stdin_closes() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("heard");
    let (backend, link) = open(&format!("cat > {}", file.display()));
    for n in 0..QUEUE {
        send(&link, note(&format!("n{n}"))).await;
    }
    let Link { to_backend, from_backend: _said } = link;
    drop(to_backend);
    empty(&backend).await;
    assert_eq!(std::fs::read_to_string(file).unwrap().lines().count(), QUEUE);
}

#[tokio::test]
async fn what_was_written_before_the_exit_comes_first_however_slow_the_reader() {
    let (backend, mut link) = open(
        r#"n=0; while [ $n -lt 1000 ]; do printf '{"jsonrpc":"2.0","method":"%d"}\n' $n; n=$((n+1)); done; exit 5"#,
    );
    // The process is long gone, and its place is free, before anybody reads.
    empty(&backend).await;
    sleep(LAST_WORDS * 2).await;
    let (methods, gone) = everything(&mut link).await;
    assert_eq!(methods.len(), 1000);
    assert_eq!(gone, "the server exited with status 5");
}
