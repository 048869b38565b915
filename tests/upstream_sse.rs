//! Promise: before an HTTP+SSE upstream a call is repeated for so long as was said and no longer,
//! a call that is over is forgotten, and no message waits for a call's end.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mcp_edge::{Behind, Config, Times, Upstream};
use serde_json::{Value, json};
use support::{
    Deed, ScriptedSse, Seen, TestServer, bounded, call, config, eventually, note, upstream_limits,
};
use tokio::task::JoinSet;

async fn edge(upstream: Upstream) -> TestServer {
    TestServer::start(config(), Behind::upstream(upstream)).await
}

fn calling(id: impl Into<Value>, tool: &str) -> Value {
    call(id, "tools/call", json!({ "name": tool, "arguments": {} }))
}

fn is_call(seen: &Seen, tool: &str) -> bool {
    seen.tool().as_deref() == Some(tool)
}

#[tokio::test]
async fn a_call_that_ends_the_stream_each_time_is_given_up() {
    bounded(async {
        let deadly = |seen: &Seen| if is_call(seen, "look") { Deed::Fall } else { Deed::Well };
        let upside = ScriptedSse::new(deadly).await;
        let wait = Duration::from_millis(400);
        let server =
            edge(Upstream { limits: upstream_limits(|it| it.wait = wait), ..upside.upstream() })
                .await;
        let session = server.client().initialize("2025-06-18").await;
        eventually(|| upside.count("tools/list") == 1).await;
        let answer = session.post(&calling("mine", "look")).await.message();
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!("mine"), &json!(-32_603)));
        // Between them 25, 50, 100, 200 ms and so on.
        assert!((2..=6).contains(&upside.calls("look")), "{}", upside.calls("look"));
        // The session outlives it.
        let answer = session.post(&calling(2, "act")).await.message();
        assert!(answer["result"].is_object(), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn without_a_wait_an_upstream_that_is_there_answers() {
    bounded(async {
        let upside = ScriptedSse::new(|_| Deed::Well).await;
        let server = edge(Upstream {
            limits: upstream_limits(|it| it.wait = Duration::ZERO),
            ..upside.upstream()
        })
        .await;
        let session = server.client().initialize("2025-06-18").await;
        let answer = session.post(&calling(2, "act")).await.message();
        assert!(answer["result"].is_object(), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn a_cancelled_call_is_not_sent_again() {
    bounded(async {
        let silent = |seen: &Seen| if is_call(seen, "look") { Deed::Silent } else { Deed::Well };
        let upside = ScriptedSse::new(silent).await;
        let server = edge(upside.upstream()).await;
        let session = server.client().initialize("2025-06-18").await;
        eventually(|| upside.count("tools/list") == 1).await;
        let mut asking = JoinSet::new();
        let caller = session.clone();
        asking.spawn(async move { caller.post(&calling("mine", "look")).await });
        eventually(|| upside.calls("look") == 1).await;
        session.post(&note("notifications/cancelled", json!({ "requestId": "mine" }))).await;
        eventually(|| upside.count("notifications/cancelled") == 1).await;
        upside.fall();
        eventually(|| upside.count("GET") == 2).await;
        // What is repeated comes first.
        let answer = session.post(&calling(2, "act")).await.message();
        assert!(answer["result"].is_object(), "{answer}");
        assert_eq!((upside.count("GET"), upside.calls("look")), (2, 1));
    })
    .await;
}

#[tokio::test]
async fn an_answer_of_the_clients_does_not_wait_for_the_post_of_the_call_that_asked() {
    bounded(async {
        let asks = |seen: &Seen| if is_call(seen, "act") { Deed::Ask } else { Deed::Well };
        let upside = ScriptedSse::new(asks).await;
        let server = edge(upside.upstream()).await;
        let session = server.client().initialize("2025-06-18").await;
        let mut stream = session.stream(&calling(1, "act")).await.events();
        let question = stream.message().await;
        assert_eq!(question["method"], "elicitation/create");
        session.answer(&question, json!({ "action": "decline" })).await;
        let answer = stream.message().await;
        assert_eq!((&answer["id"], answer["result"].is_object()), (&json!(1), true), "{answer}");
        assert_eq!(upside.count("GET"), 1);
    })
    .await;
}

#[tokio::test]
async fn calls_whose_posts_take_long_are_side_by_side_and_lose_no_stream() {
    bounded(async {
        let holds = |seen: &Seen| if is_call(seen, "act") { Deed::Held } else { Deed::Well };
        let upside = ScriptedSse::new(holds).await;
        let head = Duration::from_millis(200);
        let server =
            edge(Upstream { limits: upstream_limits(|it| it.head = head), ..upside.upstream() })
                .await;
        let session = server.client().initialize("2025-06-18").await;
        let mut asking = JoinSet::new();
        for id in 1..=8 {
            let caller = session.clone();
            asking.spawn(async move { caller.post(&calling(id, "act")).await.message() });
        }
        // Each of them holds up what follows for a second, if any but the first does.
        eventually(|| upside.calls("act") == 8).await;
        let answer = session.post(&calling(9, "look")).await.message();
        assert!(answer["result"].is_object(), "{answer}");
        upside.let_go();
        while let Some(answer) = asking.join_next().await {
            let answer = answer.unwrap();
            assert!(answer["result"].is_object(), "{answer}");
        }
        assert_eq!(upside.count("GET"), 1);
    })
    .await;
}

#[tokio::test]
async fn every_page_of_the_tools_is_read() {
    bounded(async {
        let fallen = AtomicBool::new(false);
        let upside = ScriptedSse::new(move |seen| {
            let cursor = seen.json()["params"]["cursor"].clone();
            match &*seen.method() {
                "tools/list" if cursor.is_null() => {
                    let tool = json!({ "name": "act", "inputSchema": {} });
                    Deed::Answer(json!({ "result": { "tools": [tool], "nextCursor": "two" } }))
                }
                "tools/call" if !fallen.swap(true, Ordering::SeqCst) => Deed::Fall,
                _ => Deed::Well,
            }
        })
        .await;
        let server = edge(upside.upstream()).await;
        let session = server.client().initialize("2025-06-18").await;
        eventually(|| upside.count("tools/list") == 2).await;
        let answer = session.post(&calling(1, "look")).await.message();
        assert!(answer["result"].is_object(), "{answer}");
        assert_eq!((upside.calls("look"), upside.count("tools/list")), (2, 2));
    })
    .await;
}

#[tokio::test]
async fn where_the_tools_were_not_learnt_the_next_session_asks_again() {
    bounded(async {
        let refusals =
            [Deed::Answer(json!({ "error": { "code": -1, "message": "no" } })), Deed::Say(500)];
        let refusals = std::sync::Mutex::new(Vec::from(refusals));
        let upside = ScriptedSse::new(move |seen| match &*seen.method() {
            "tools/list" => refusals.lock().unwrap().pop().unwrap_or(Deed::Well),
            _ => Deed::Well,
        })
        .await;
        let server = edge(upside.upstream()).await;
        for asked in 1..=3 {
            let session = server.client().initialize("2025-06-18").await;
            eventually(|| upside.count("tools/list") == asked).await;
            // Its answer comes behind that one.
            let answer = session.post(&calling(1, "act")).await.message();
            assert!(answer["result"].is_object(), "{answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_fell_while_the_tools_were_read_has_them_read_again() {
    bounded(async {
        let fallen = [AtomicBool::new(false), AtomicBool::new(false)];
        let upside = ScriptedSse::new(move |seen| {
            let once = match &*seen.method() {
                "tools/list" => Some(&fallen[0]),
                "tools/call" => Some(&fallen[1]),
                _ => None,
            };
            let first = once.is_some_and(|once| !once.swap(true, Ordering::SeqCst));
            if first { Deed::Fall } else { Deed::Well }
        })
        .await;
        let server = edge(upside.upstream()).await;
        let session = server.client().initialize("2025-06-18").await;
        eventually(|| upside.count("tools/list") == 2).await;
        // Its answer comes behind that one.
        session.post(&call(1, "prompts/list", json!({}))).await;
        let answer = session.post(&calling(2, "look")).await.message();
        assert!(answer["result"].is_object(), "{answer}");
        assert_eq!(upside.calls("look"), 2);
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_fails_its_call_at_once() {
    bounded(async {
        let raw = r#"{"jsonrpc":"2.0","id":ID,"result":{},"error":null}"#;
        let broken = move |seen: &Seen| {
            if is_call(seen, "act") { Deed::Raw(raw.to_owned()) } else { Deed::Well }
        };
        let upside = ScriptedSse::new(broken).await;
        let times = Times { call: Duration::from_secs(5), ..*config().times };
        let behind = Behind::upstream(upside.upstream());
        let server =
            TestServer::start(Config { times: times.check().unwrap(), ..config() }, behind).await;
        let session = server.client().initialize("2025-06-18").await;
        for _ in 0..2 {
            let answer = session.post(&calling("mine", "act")).await.message();
            let text = answer["error"]["message"].as_str().unwrap();
            assert!(text.contains("cannot be read: not a JSON-RPC 2.0 message"), "{text}");
        }
        assert_eq!(server.report().outcomes["answer_unreadable"], 2);
        assert_eq!(upside.count("GET"), 1);
    })
    .await;
}
