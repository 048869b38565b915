//! Promise: a signal ends the binary in good order: no new work, what is in flight is answered,
//! streams end, no child is left, exit 0 within the grace; a second signal ends it at once.

mod support;

use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit, setrlimit};
use serde_json::{Value, json};
use support::{EDGE, Edge, Mark, SCRIPT, TOKEN, bounded, call, eventually, is_ignored};
use tokio::time::Instant;

#[tokio::test]
async fn what_is_in_flight_is_answered_and_nothing_is_left() {
    bounded(async {
        for (signal, h2) in [(Signal::TERM, false), (Signal::INT, true), (Signal::QUIT, false)] {
            if signal == Signal::QUIT && is_ignored(signal.as_raw()) {
                continue;
            }
            let mark = Mark::new();
            let mut edge = Edge::start(&mark, &["--shutdown-timeout=10s"], &[EDGE]);
            let client = edge.client.clone();
            let client = if h2 { client.h2() } else { client };
            let session = client.initialize("2025-11-25").await;
            let idle = client.initialize("2025-11-25").await;
            let mut standalone = idle.listen(None).await.events();
            let arguments = json!({ "n": 3, "delay_ms": 300 });
            let meta = json!({ "progressToken": "p" });
            let params = json!({ "name": "count", "arguments": arguments, "_meta": meta });
            let mut held = session.stream(&call(1, "tools/call", params)).await.events();
            assert_eq!(held.message().await["params"]["progress"], 1.0);
            assert_eq!(mark.programs().len(), 2);
            let begun = Instant::now();
            edge.signal(signal);
            let rest = held.rest().await;
            assert_eq!((rest.len(), &rest[2]["result"]["isError"]), (3, &Value::Null));
            let mut goodbye = None;
            while let Some(event) = standalone.next().await {
                goodbye = event.retry;
            }
            assert!(goodbye.is_some(), "the stream ended without a hint");
            assert!(client.try_connect().await.is_err());
            let status = edge.ended().await;
            assert_eq!(status.code(), Some(0));
            assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
            mark.gone().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_call_beyond_the_grace_is_told_so() {
    bounded(async {
        let mark = Mark::new();
        let command = ["sh", "-c", SCRIPT];
        let mut edge = Edge::start(&mark, &["--shutdown-timeout=3s"], &command);
        let session = edge.client.initialize("2025-11-25").await;
        let mut held = session.stream(&call(1, "t/hold", json!({}))).await.events();
        held.next().await;
        let begun = Instant::now();
        edge.signal(Signal::TERM);
        let rest = held.rest().await;
        assert_eq!(rest[0]["error"]["code"], -32_603);
        assert_eq!(edge.ended().await.code(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        mark.gone().await;
    })
    .await;
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    bounded(async {
        let mark = Mark::new();
        let command = ["sh", "-c", SCRIPT];
        let mut edge = Edge::start(&mark, &[], &command);
        let session = edge.client.initialize("2025-11-25").await;
        let mut held = session.stream(&call(1, "t/hold", json!({}))).await.events();
        held.next().await;
        let mut standalone = session.listen(None).await.events();
        edge.signal(Signal::TERM);
        // The first was heard once streams end.
        while standalone.next().await.is_some() {}
        assert!(edge.child.try_wait().unwrap().is_none());
        let begun = Instant::now();
        edge.signal(Signal::TERM);
        let status = edge.ended().await;
        assert_ne!(status.code(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        mark.gone().await;
    })
    .await;
}

#[tokio::test]
async fn a_killed_edge_leaves_no_child() {
    bounded(async {
        let mark = Mark::new();
        let mut edge = Edge::start(&mark, &[], &[EDGE]);
        edge.client.initialize("2025-11-25").await;
        assert_eq!(mark.programs().len(), 1);
        edge.signal(Signal::KILL);
        edge.ended().await;
        mark.gone().await;
    })
    .await;
}

#[tokio::test]
async fn a_childs_environment_holds_neither_token_nor_secrets() {
    bounded(async {
        let mark = Mark::new();
        let telling = SCRIPT.replace(
            "case $line in",
            "case $line in\n *'\"t/env\"'*) say '\"id\":'\"$id\"',\"result\":{\"env\":\"'\"$(env | tr '\\n\"\\\\' ' ..')\"'\"}' ;;",
        );
        let edge = Edge::start(&mark, &[], &["sh", "-c", &telling]);
        let session = edge.client.initialize("2025-11-25").await;
        let answer = session.call(1, "t/env", json!({})).await;
        let environment = answer["result"]["env"].as_str().unwrap();
        assert!(environment.contains(&mark.text()), "{environment}");
        assert!(environment.contains("PATH="));
        for secret in [TOKEN, "MCP_AUTH_TOKEN", "SOME_SECRET", "not-for-children"] {
            assert!(!environment.contains(secret), "{environment}");
        }
        eventually(|| mark.programs().len() == 1).await;
    })
    .await;
}

#[tokio::test]
async fn the_edge_takes_every_open_file_that_it_may_have() {
    bounded(async {
        let given = getrlimit(Resource::Nofile);
        let less = given.maximum.map_or(1000, |most| most / 2);
        setrlimit(Resource::Nofile, Rlimit { current: Some(less), ..given }).unwrap();
        let edge = Edge::start(&Mark::new(), &[], &[EDGE]);
        let pid = Pid::from_child(&edge.child);
        let found = prlimit(Some(pid), Resource::Nofile, given).unwrap();
        assert_eq!((found.current, found.maximum), (given.maximum, given.maximum));
    })
    .await;
}
