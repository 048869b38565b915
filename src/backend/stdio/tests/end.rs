//! How children end, and what is told of it.

use super::*;

#[tokio::test]
async fn the_exit_status_comes_with_the_last_words() {
    let began = Instant::now();
    let (backend, mut link) = open("echo 'no config' >&2; printf 'giving\\033 up' >&2; exit 3");
    let (_, gone) = everything(&mut link).await;
    assert_eq!(gone, "the server exited with status 3; its last words: no config\ngiving up");
    assert!(began.elapsed() < Duration::from_secs(1));
    empty(&backend).await;
}

#[tokio::test]
async fn an_exit_while_nobody_speaks_is_noticed_at_once() {
    let (backend, mut link) = open(&format!("{PID} cat >/dev/null"));
    let pid = pid(&mut link).await;
    let began = Instant::now();
    kill_process(pid, Signal::SEGV).unwrap();
    let (_, gone) = everything(&mut link).await;
    assert_eq!(gone, "the server was killed by signal 11 (SIGSEGV)");
    assert!(began.elapsed() < Duration::from_secs(1));
    empty(&backend).await;
}

#[tokio::test]
async fn a_child_that_closes_its_output_is_ended() {
    let (backend, mut link) = open(&format!("{PID} exec 1>&-; echo hm >&2; sleep 1000"));
    let began = Instant::now();
    let pid = pid(&mut link).await;
    let gone = bounded(link.from_backend.recv()).await;
    let Some(FromBackend::Gone(gone)) = gone else { panic!("{gone:?}") };
    assert_eq!(gone, "the server closed its output; its last words: hm");
    assert!(began.elapsed() < Duration::from_secs(1));
    assert!(bounded(link.from_backend.recv()).await.is_none());
    empty(&backend).await;
    assert!(!alive(pid));
}

#[tokio::test]
async fn a_child_that_closes_its_input_is_ended() {
    let (backend, mut link) = open(&format!("exec 0<&-; {PID} sleep 1000"));
    let to_backend = link.to_backend.clone();
    let pid = pid(&mut link).await;
    // A child that another test starts at this moment holds copies of all pipes until it is another
    // program: what is written meanwhile meets no error.
    let telling = async {
        let told = || ToBackend { message: note("anybody"), caller: Arc::new(Caller::stdio()) };
        while to_backend.send(told()).await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let ((_, gone), ()) = tokio::join!(everything(&mut link), telling);
    assert_eq!(gone, "the server closed its input");
    empty(&backend).await;
    assert!(!alive(pid));
}

#[tokio::test]
async fn a_grandchild_that_holds_the_output_is_not_waited_for() {
    let (backend, mut link) = open(&format!("{GRANDCHILD} sleep 0.2; exit 4"));
    let grandchild = pid(&mut link).await;
    let began = Instant::now();
    let (_, gone) = everything(&mut link).await;
    assert_eq!(gone, "the server exited with status 4");
    assert!(began.elapsed() < Duration::from_secs(1));
    empty(&backend).await;
    dead(grandchild).await;
}

#[tokio::test]
async fn a_grandchild_that_left_the_group_is_not_waited_for_either() {
    let (backend, mut link) = open(&format!("setsid {GRANDCHILD} sleep 0.2; exit 4"));
    let stray = pid(&mut link).await;
    let began = Instant::now();
    let (_, gone) = everything(&mut link).await;
    assert_eq!(gone, "the server exited with status 4");
    assert!(began.elapsed() < Duration::from_secs(1));
    empty(&backend).await;
    kill_process(stray, Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_polite_child_ends_with_its_stdin() {
    let (backend, mut link) = open(&format!("{PID} {ECHO}"));
    let pid = pid(&mut link).await;
    assert!(ends(&backend, link, &[pid]).await < Duration::from_secs(1));
}

#[tokio::test]
async fn a_stubborn_child_and_its_grandchild_are_killed() {
    // Both ignore TERM; the child also floods its output, and neither reads its stdin.
    let (backend, mut link) = open(&format!(
        "trap '' TERM; {PID} {GRANDCHILD}
        while :; do echo flood; echo flood >&2; sleep 0.01; done"
    ));
    let (child, grandchild) = (pid(&mut link).await, pid(&mut link).await);
    let took = ends(&backend, link, &[child, grandchild]).await;
    assert!(took >= Duration::from_secs(4) && took < Duration::from_secs(6), "{took:?}");
}

#[tokio::test]
async fn term_reaches_the_grandchild_that_the_child_waits_for() {
    let (backend, mut link) = open(&format!("{PID} sleep 1000; echo never"));
    let pid = pid(&mut link).await;
    assert!(ends(&backend, link, &[pid]).await < Duration::from_secs(3));
}

#[tokio::test]
async fn a_stopping_edge_is_in_a_hurry() {
    let drain = Drain::default();
    let command = sh(&format!("trap '' TERM; {PID} while :; do sleep 1; done"));
    let backend = StdioBackend::new(&command, &[], Metrics::default(), drain.clone()).unwrap();
    let mut link = open_on(&backend).unwrap();
    let pid = pid(&mut link).await;
    let began = Instant::now();
    assert!(bounded(drain.finish(Duration::from_secs(30))).await);
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(4), "{took:?}");
    assert!(!alive(pid));
    assert!(bounded(link.from_backend.recv()).await.is_none());
    assert_eq!(children(&backend), 0);
}

#[test]
fn a_runtime_that_is_dropped_kills_the_group() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let pids = runtime.block_on(async {
        let (_backend, mut link) = open(&format!("{PID} {GRANDCHILD} wait"));
        [pid(&mut link).await, pid(&mut link).await]
    });
    drop(runtime);
    let begun = Instant::now();
    while pids.iter().any(|pid| alive(*pid)) {
        assert!(begun.elapsed() < DEADLINE);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn a_child_that_does_not_read_cannot_hold_the_edge() {
    let (backend, mut link) = open(&format!("{PID} exec sleep 1000"));
    let pid = pid(&mut link).await;
    let large = serde_json::json!({ "text": "x".repeat(300_000) });
    for _ in 0..3 {
        send(&link, Message::notification("large", &large)).await;
    }
    assert!(ends(&backend, link, &[pid]).await < Duration::from_secs(3));
}
