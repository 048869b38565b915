//! Promise: what a server says goes to the stream that it belongs to, whatever its client has open,
//! and a client that lost a stream gets the rest of it exactly once.
#![expect(clippy::indexing_slicing, reason = "a test ends where it fails, helpers of it too")]

mod support;

use futures_util::future::join_all;
use serde_json::{Value, json};
use support::{
    Mark, SCRIPT, Session, Stream, TestServer, VERSIONS, bounded, call, config, eventually, note,
};

/// The kinds of questions that servers ask, and what a client might answer.
fn questions() -> [(&'static str, Value, Value); 4] {
    let sampling = json!({ "messages": [], "maxTokens": 5 });
    let sampled =
        json!({ "role": "assistant", "model": "m", "content": { "type": "text", "text": "ü" } });
    let asked = json!({ "message": "name?", "requestedSchema": { "type": "object" } });
    [
        ("sampling/createMessage", sampling, sampled),
        ("elicitation/create", asked, json!({ "action": "accept", "content": { "n": 1 } })),
        ("roots/list", json!({}), json!({ "roots": [{ "uri": "file:///a" }] })),
        ("ping", json!({}), json!({})),
    ]
}

/// A stream that stays silent: nothing but `say` comes on it, with which it ends the wait.
async fn silent(session: &Session, stream: &mut Stream, say: &Value) {
    assert_eq!(session.post(say).await.status, 202);
    assert_eq!(stream.message().await["params"]["data"], "log");
}

#[tokio::test]
async fn a_question_goes_on_its_calls_stream_and_its_answer_comes_back() {
    bounded(async {
        let (server, _told) = TestServer::fixture().await;
        for client in [server.client(), server.client().h2()] {
            for version in VERSIONS {
                let session = client.initialize(version).await;
                for (method, params, result) in questions() {
                    let ask = json!({ "method": method, "params": params });
                    let mut stream = session.stream(&call("a", "f/ask", ask)).await.events();
                    let question = stream.message().await;
                    assert_eq!(
                        (&question["method"], &question["params"]),
                        (&json!(method), &params)
                    );
                    session.answer(&question, result.clone()).await;
                    let answers = stream.rest().await;
                    assert_eq!(answers, [json!({ "jsonrpc": "2.0", "id": "a", "result": result })]);
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_clients_refusal_is_an_answer_too() {
    bounded(async {
        let (server, _told) = TestServer::fixture().await;
        let session = server.client().initialize("2025-11-25").await;
        let mut stream = session
            .stream(&call(1, "f/ask", json!({ "method": "roots/list", "params": {} })))
            .await;
        let question = stream.message().await;
        let error = json!({ "code": -1, "message": "no" });
        let refusal = json!({ "jsonrpc": "2.0", "id": question["id"], "error": error });
        assert_eq!(session.post(&refusal).await.status, 202);
        assert_eq!(stream.message().await["error"], error);
    })
    .await;
}

#[tokio::test]
async fn with_many_calls_in_flight_each_stream_has_its_own() {
    bounded(async {
        let (server, _told) = TestServer::fixture().await;
        for client in [server.client(), server.client().h2()] {
            let session = client.initialize("2025-11-25").await;
            let standalone = session.listen(None).await.events();
            let calls: Vec<_> = (0..12)
                .map(|id| {
                    call(id, "f/ask", json!({ "method": "roots/list", "params": { "of": id } }))
                })
                .collect();
            let mut streams = join_all(calls.iter().map(|call| session.stream(call))).await;
            for (id, stream) in streams.iter_mut().enumerate().rev() {
                let question = stream.message().await;
                assert_eq!(question["params"]["of"], id);
                session.answer(&question, json!({ "roots": [id] })).await;
            }
            for (id, mut stream) in streams.into_iter().enumerate() {
                let answer = stream.rest().await;
                assert_eq!(
                    answer,
                    [json!({ "jsonrpc": "2.0", "id": id, "result": { "roots": [id] } })]
                );
            }
            assert_eq!(standalone.last.as_deref(), None, "nothing was read of it");
            assert_eq!(session.delete().await.status, 204);
            let mut standalone = standalone;
            let mut seen = Vec::new();
            while let Some(event) = standalone.next().await {
                seen.extend(event.message());
            }
            assert_eq!(seen, Vec::<Value>::new());
        }
    })
    .await;
}

#[tokio::test]
async fn progress_and_logs_come_before_the_answer_in_order() {
    bounded(async {
        let (server, _told) = TestServer::fixture().await;
        let session = server.client().initialize("2025-06-18").await;
        for token in [json!(0), json!("p"), json!(7)] {
            let asked = json!({ "_meta": { "progressToken": token } });
            let mut stream = session.stream(&call(1, "f/progress", asked)).await.events();
            for step in [1.0, 2.0, 3.0] {
                let progress = stream.message().await;
                assert_eq!(progress["params"]["progressToken"], token);
                assert_eq!(progress["params"]["progress"], step);
            }
            assert_eq!(stream.rest().await.len(), 1);
        }
        let log = json!({ "level": "warning", "data": { "a": 1 } });
        let say = json!({ "method": "notifications/message", "params": log });
        let mut stream = session.stream(&call(1, "f/say", say)).await.events();
        assert_eq!(stream.message().await["params"], log);
        assert_eq!(stream.message().await["id"], 1);
    })
    .await;
}

#[tokio::test]
async fn progress_of_a_child_finds_its_call_among_many() {
    bounded(async {
        let mark = Mark::new();
        let server = TestServer::start(config(), mark.diagnostics()).await;
        let session = server.client().initialize("2025-11-25").await;
        let calls: Vec<_> = (0..6)
            .map(|id| {
                let token = if id % 2 == 0 { json!(id) } else { json!(format!("token-{id}")) };
                let arguments = json!({ "n": 5, "delay_ms": 5 });
                let meta = json!({ "progressToken": token });
                let params = json!({ "name": "count", "arguments": arguments, "_meta": meta });
                call(id, "tools/call", params)
            })
            .collect();
        let answers = join_all(calls.iter().map(|call| session.post(call))).await;
        for (call, answer) in calls.iter().zip(answers) {
            let mut messages = answer.messages();
            assert_eq!(messages.pop().unwrap()["id"], call["id"]);
            let steps: Vec<_> = messages.iter().map(|it| &it["params"]["progress"]).collect();
            assert_eq!(steps, [1.0, 2.0, 3.0, 4.0, 5.0]);
            for message in &messages {
                let token = &call["params"]["_meta"]["progressToken"];
                assert_eq!(&message["params"]["progressToken"], token);
            }
        }
        assert!(server.stop().await);
        mark.gone().await;
    })
    .await;
}

#[tokio::test]
async fn what_a_child_says_outside_any_call_waits_for_the_get_stream() {
    bounded(async {
        let mark = Mark::new();
        let dir = tempfile::tempdir().unwrap();
        let said = dir.path().join("said");
        let noting = format!("esac; : > '{}'", said.display());
        let script = SCRIPT.replace("esac", &noting);
        let server = TestServer::start(config(), mark.sh(&script)).await;
        let session = server.client().initialize("2025-11-25").await;
        eventually(|| std::fs::remove_file(&said).is_ok()).await;
        let (log, ask) = (note("t/log", json!({})), note("t/ask", json!({})));
        assert_eq!(session.post(&log).await.status, 202);
        eventually(|| said.exists()).await;
        let mut standalone = session.listen(None).await.events();
        assert_eq!(standalone.message().await["params"]["data"], "log");
        session.post(&ask).await;
        let question = standalone.message().await;
        assert_eq!(question["method"], "roots/list");
        session.answer(&question, json!({ "roots": [] })).await;
        assert_eq!(standalone.message().await["params"]["data"], "heard");
    })
    .await;
}

#[tokio::test]
async fn progress_of_a_call_that_is_over_reaches_no_other() {
    bounded(async {
        let mark = Mark::new();
        let late =
            r#""method":"notifications/progress","params":{"progressToken":"a","progress":1}"#;
        let script = format!("case $line in\n *'\"t/late\"'*) say '{late}' ;;");
        let script = SCRIPT.replace("case $line in", &script);
        let server = TestServer::start(config(), mark.sh(&script)).await;
        let session = server.client().initialize("2025-11-25").await;
        let over = call(1, "t/hold", json!({ "_meta": { "progressToken": "a" } }));
        let mut over = session.stream(&over).await.events();
        let cancel = note("notifications/cancelled", json!({ "requestId": 1 }));
        assert_eq!(session.post(&cancel).await.status, 202);
        over.rest().await;
        let mut next = session.stream(&call(2, "t/hold", json!({}))).await.events();
        session.post(&note("t/late", json!({}))).await;
        session.post(&note("t/finish", json!({ "id": 2, "x": 0 }))).await;
        let rest = next.rest().await;
        assert_eq!((rest.len(), &rest[0]["id"]), (1, &json!(2)), "{rest:?}");
    })
    .await;
}

#[tokio::test]
async fn with_one_call_in_flight_it_is_that_calls() {
    bounded(async {
        let mark = Mark::new();
        let server = TestServer::start(config(), mark.sh(SCRIPT)).await;
        let session = server.client().initialize("2025-11-25").await;
        let mut standalone = session.listen(None).await.events();
        let mut held = session.stream(&call(5, "t/hold", json!({}))).await.events();
        session.post(&note("t/ask", json!({}))).await;
        let question = held.message().await;
        session.answer(&question, json!({ "roots": [] })).await;
        assert_eq!(held.message().await["params"]["data"], "heard");
        session.post(&note("t/finish", json!({ "id": 5, "x": 0 }))).await;
        assert_eq!(held.rest().await[0]["result"]["held"], true);
        silent(&session, &mut standalone, &note("t/log", json!({}))).await;
    })
    .await;
}

#[tokio::test]
async fn with_several_in_flight_it_is_the_get_streams_or_the_newest_calls() {
    bounded(async {
        let mark = Mark::new();
        let server = TestServer::start(config(), mark.sh(SCRIPT)).await;
        let session = server.client().initialize("2025-11-25").await;
        let log = note("t/log", json!({}));
        let mut older = session.stream(&call(5, "t/hold", json!({}))).await.events();
        let mut newer = session.stream(&call(6, "t/hold", json!({}))).await.events();
        silent(&session, &mut newer, &log).await;
        let mut standalone = session.listen(None).await.events();
        silent(&session, &mut standalone, &log).await;
        session.post(&note("t/ask", json!({}))).await;
        assert_eq!(standalone.message().await["method"], "roots/list");
        for (id, stream) in [(6, &mut newer), (5, &mut older)] {
            session.post(&note("t/finish", json!({ "id": id, "x": 0 }))).await;
            let rest = stream.rest().await;
            assert_eq!((rest.len(), &rest[0]["id"]), (1, &json!(id)));
        }
    })
    .await;
}

#[tokio::test]
async fn a_cancelled_call_ends_and_the_session_goes_on() {
    bounded(async {
        let (server, told) = TestServer::fixture().await;
        for (client, round) in [server.client(), server.client().h2()].iter().zip(1..) {
            let session = client.initialize("2025-11-25").await;
            let mut hang = session.stream(&call("h", "f/hang", json!({}))).await.events();
            let mut other = session.stream(&call(2, "f/gate", json!({}))).await.events();
            let cancel = json!({ "requestId": "h", "reason": "enough" });
            assert_eq!(session.post(&note("notifications/cancelled", cancel)).await.status, 202);
            eventually(|| told.count("dropped") == round).await;
            assert_eq!(hang.rest().await, Vec::<Value>::new());
            let stale = json!({ "requestId": 99 });
            assert_eq!(session.post(&note("notifications/cancelled", stale)).await.status, 202);
            told.gate.add_permits(1);
            assert_eq!(other.rest().await.len(), 1);
            session.call("h", "f/echo", json!({})).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_child_hears_that_its_call_was_cancelled() {
    bounded(async {
        let mark = Mark::new();
        let heard = "case $line in\n *'\"notifications/cancelled\"'*'\"requestId\":\"h\"'*) \
                     say '\"method\":\"x/heard\"' ;;";
        let script = SCRIPT.replace("case $line in", heard);
        let server = TestServer::start(config(), mark.sh(&script)).await;
        let session = server.client().initialize("2025-11-25").await;
        let mut standalone = session.listen(None).await.events();
        let mut held = session.stream(&call("h", "t/hold", json!({}))).await.events();
        held.next().await;
        let cancel = note("notifications/cancelled", json!({ "requestId": "h" }));
        assert_eq!(session.post(&cancel).await.status, 202);
        assert_eq!(standalone.message().await["method"], "x/heard");
        held.rest().await;
        session.call("h", "t/pid", json!({})).await;
    })
    .await;
}

#[tokio::test]
async fn a_client_that_goes_away_does_not_cancel() {
    bounded(async {
        let (server, told) = TestServer::fixture().await;
        let session = server.client().initialize("2025-11-25").await;
        let mut cut = session.stream(&call(1, "f/gate", json!({ "kept": true }))).await.events();
        let primed = cut.next().await.unwrap();
        assert_eq!((primed.data.as_deref(), primed.name), (Some(""), None));
        drop(cut);
        told.gate.add_permits(1);
        let mut again = session.listen(primed.id.as_deref()).await.events();
        let answers = again.rest().await;
        assert_eq!(answers, [json!({ "jsonrpc": "2.0", "id": 1, "result": { "kept": true } })]);
    })
    .await;
}

#[tokio::test]
async fn a_cut_stream_is_resumed_and_each_event_comes_once() {
    bounded(async {
        let (server, told) = TestServer::fixture().await;
        for client in [server.client(), server.client().h2()] {
            let session = client.initialize("2025-11-25").await;
            let mut stream = session.stream(&call(1, "f/stages", json!({ "n": 6 }))).await.events();
            let mut seen = Vec::new();
            for stage in 1..=6 {
                let message = stream.message().await;
                seen.push(message["params"]["data"].clone());
                let last = stream.last.clone();
                if stage % 2 == 0 {
                    drop(stream);
                    told.gate.add_permits(1);
                    stream = session.listen(last.as_deref()).await.events();
                } else {
                    told.gate.add_permits(1);
                }
            }
            assert_eq!(seen, [1, 2, 3, 4, 5, 6]);
            let answers = stream.rest().await;
            assert_eq!(answers, [json!({ "jsonrpc": "2.0", "id": 1, "result": { "done": true } })]);
        }
    })
    .await;
}

#[tokio::test]
async fn a_resumed_stream_has_nothing_of_another() {
    bounded(async {
        let (server, told) = TestServer::fixture().await;
        let session = server.client().initialize("2025-11-25").await;
        let mut one = session.stream(&call(1, "f/stages", json!({ "n": 2 }))).await.events();
        let mut two = session.stream(&call(2, "f/stages", json!({ "n": 2 }))).await.events();
        one.message().await;
        two.message().await;
        let last = one.last.clone();
        drop(one);
        told.gate.add_permits(4);
        assert_eq!(two.rest().await.len(), 2);
        let mut one = session.listen(last.as_deref()).await.events();
        let rest = one.rest().await;
        assert_eq!(rest[0]["params"]["data"], 2);
        assert_eq!((rest.len(), &rest[1]["id"]), (2, &json!(1)));
        // Twice is not once more: the position is the client's own word.
        let again = session.listen(last.as_deref()).await.events().rest().await;
        assert_eq!(again, rest);
    })
    .await;
}

#[tokio::test]
async fn a_second_get_replaces_the_first() {
    bounded(async {
        let mark = Mark::new();
        let server = TestServer::start(config(), mark.sh(SCRIPT)).await;
        let session = server.client().h2().initialize("2025-11-25").await;
        let mut first = session.listen(None).await.events();
        assert_eq!(first.next().await.unwrap().data.as_deref(), Some(""));
        let mut second = session.listen(None).await.events();
        assert_eq!(first.rest().await, Vec::<Value>::new());
        silent(&session, &mut second, &note("t/log", json!({}))).await;
        let last = second.last.clone();
        drop(second);
        session.post(&note("t/log", json!({}))).await;
        let mut third = session.listen(last.as_deref()).await.events();
        assert_eq!(third.message().await["params"]["data"], "log");
        silent(&session, &mut third, &note("t/log", json!({}))).await;
    })
    .await;
}

#[tokio::test]
async fn an_event_that_never_was_is_refused() {
    bounded(async {
        let (server, _told) = TestServer::fixture().await;
        let session = server.client().initialize("2025-11-25").await;
        for unknown in ["77-1", "1-99999", "x", "-", "1", "1-", "99999999999999999999-1", "1-1-1"] {
            let get = session.request("GET").header("accept", "text/event-stream");
            let answer = session.client.bare(get.header("last-event-id", unknown)).await;
            assert_eq!(answer.refusal(), (400, -32_000), "{unknown}");
        }
        // Of the stream that belongs to no call there is always a rest: what comes from now on.
        assert_eq!(session.listen(Some("0-99999")).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn only_clients_of_2025_11_25_are_primed() {
    bounded(async {
        let (server, told) = TestServer::fixture().await;
        for version in VERSIONS {
            let session = server.client().initialize(version).await;
            let mut stream = session.stream(&call(1, "f/stages", json!({ "n": 1 }))).await.events();
            let first = stream.next().await.unwrap();
            let empty = first.data.as_deref() == Some("");
            assert_eq!(empty, version == "2025-11-25", "{version}: {first:?}");
            assert!(first.id.is_some());
            told.gate.add_permits(1);
            while let Some(event) = stream.next().await {
                assert_ne!(event.data.as_deref(), Some(""));
            }
        }
    })
    .await;
}
