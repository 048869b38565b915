//! What is started, and what is not.

use std::pin::pin;

use futures_util::FutureExt;

use super::*;
use crate::observe::metrics::Gauge;

#[tokio::test]
async fn places_are_counted_and_given_back() {
    let backend = backend(&sh(ECHO));
    let open_within = |max_children| {
        let limits = Limits { max_children, ..Limits::default() };
        backend.open(Starter::Edge, &Quota::unbounded(), &limits)
    };
    let links = [open_within(2).unwrap(), open_within(2).unwrap()];
    assert_eq!(children(&backend), 2);
    let full = open_within(2).unwrap_err();
    assert!(matches!(full, OpenError::Full(2)), "{full:?}");
    // Another limit counts at once; a lower one ends nobody.
    let third = open_within(3).unwrap();
    assert!(matches!(open_within(1).unwrap_err(), OpenError::Full(1)));
    assert_eq!(children(&backend), 3);
    drop((links, third));
    empty(&backend).await;
    drop(open_within(1).unwrap());
    empty(&backend).await;
}

#[test]
fn places_are_counted_while_somebody_waits_for_all_of_them() {
    let gauge = Gauge::default();
    let places = Total::counting(gauge.clone());
    let (one, other) = (places.try_take(100).unwrap(), places.try_take(100).unwrap());
    assert_eq!(gauge.value(), 2);
    let mut all = pin!(all_free(places.clone()));
    assert!((&mut all).now_or_never().is_none());
    assert_eq!(gauge.value(), 2);
    assert!(places.try_take(100).is_none(), "the edge is about to end");
    drop(one);
    assert!((&mut all).now_or_never().is_none());
    assert_eq!(gauge.value(), 1);
    drop(other);
    assert_eq!(gauge.value(), 0);
    assert!((&mut all).now_or_never().is_some());
    assert_eq!(gauge.value(), 0);
    assert!(places.try_take(100).is_some());
}

#[tokio::test]
async fn a_program_that_does_not_start_costs_no_place() {
    let directory = tempfile::tempdir().unwrap();
    let program = executable(&directory, "#!/no/such/interpreter\n");
    let mut command = sh("");
    command.program = program.to_str().unwrap().to_owned();
    let backend = backend(&command);
    for _ in 0..5 {
        assert!(matches!(open_on(&backend), Err(OpenError::Spawn { .. })));
    }
    assert!(matches!(open_on(&backend), Err(OpenError::Held { .. })));
    assert_eq!(children(&backend), 0);
}

#[tokio::test]
async fn the_environment_is_what_was_configured_and_stays_out_of_the_last_words() {
    let mut command = sh("env >&2; exit 1");
    command.env = vec![
        ("API_KEY".to_owned(), Secret::new("a-long-secret")),
        ("MODE".to_owned(), Secret::new("on")),
    ];
    let (_, gone) = everything(&mut open_on(&backend(&command)).unwrap()).await;
    let lines: Vec<&str> = gone.lines().collect();
    assert!(gone.contains("API_KEY=[redacted]") && gone.contains("MODE=on"), "{gone}");
    // Cargo's variables are in the edge's own environment here.
    assert!(!gone.contains("CARGO") && lines.len() < 15, "{gone}");
}

#[tokio::test]
async fn tokens_and_unfit_programs_are_refused_at_start_up() {
    let new = |command: &ChildCommand| {
        let secrets = [Secret::new("the-token")];
        StdioBackend::new(command, &secrets, Metrics::default(), Drain::default())
            .unwrap_err()
            .to_string()
    };
    let mut command = sh("");
    command.env = vec![("KEY".to_owned(), Secret::new("the-token"))];
    assert_eq!(new(&command), "`KEY` would hand the edge's token to the child");
    command.env = vec![("MCP_AUTH_TOKEN".to_owned(), Secret::new("other"))];
    assert!(new(&command).starts_with("MCP_AUTH_TOKEN is"));
    command = sh("");
    command.program = "no-such-program".to_owned();
    assert_eq!(new(&command), "`no-such-program` was not found in PATH");
    command = sh("");
    command.shim = Some(PathBuf::from("/no/such/shim"));
    assert_eq!(new(&command), "cannot run `/no/such/shim`");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shim_is_told_who_its_parent_is_and_what_to_become() {
    let directory = tempfile::tempdir().unwrap();
    let shim =
        "#!/bin/sh\n[ \"$1 $2 $3\" = \"__keep $PPID --\" ] || exit 99\nshift 3\nexec \"$@\"\n";
    let mut command = sh(ECHO);
    command.shim = Some(executable(&directory, shim));
    let backend = backend(&command);
    let mut link = open_on(&backend).unwrap();
    send(&link, note("through")).await;
    assert_eq!(method(&mut link).await, "through");
    drop(link);
    empty(&backend).await;
}
