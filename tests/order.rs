//! Promise: what a client says behind `initialize` reaches the MCP server behind it, and
//! `notifications/initialized` before the first call, on every way in and in front of every backend.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails, helpers of it too")]

mod support;

use std::sync::Mutex;
use std::time::Duration;

use http_body_util::Full;
use mcp_edge::{Behind, Upstream};
use serde_json::{Value, json};
use support::{
    Act, Client, Deed, EDGE, Scripted, ScriptedSse, Seen, TOKEN, TestServer, bounded, call, config,
    eventually, hello, note,
};
use tokio::task::JoinSet;
use tokio::time::sleep;

const REFUSED: &str = r#"{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"Missing session ID"}}"#;

/// What each server of the SDKs refuses: a call without the session, or before `initialized`.
fn strict() -> impl Fn(&Seen) -> Act {
    let begun = Mutex::new(false);
    move |seen: &Seen| {
        let mut begun = begun.lock().unwrap();
        match &*seen.method() {
            "initialize" => Act::Well,
            _ if seen.session().is_empty() => Act::Say(400, REFUSED.to_owned()),
            "notifications/initialized" => {
                *begun = true;
                Act::Well
            }
            "tools/list" | "tools/call" if !*begun => Act::Say(400, REFUSED.to_owned()),
            _ => Act::Well,
        }
    }
}

/// The same of HTTP+SSE.
fn strict_sse() -> impl Fn(&Seen) -> Deed {
    let begun = Mutex::new(0);
    move |seen: &Seen| {
        let mut begun = begun.lock().unwrap();
        match (&*seen.method(), *begun) {
            ("initialize", _) => *begun = 1,
            ("notifications/initialized", 1) => *begun = 2,
            ("tools/list" | "tools/call", 0 | 1) => {
                let error = json!({ "code": -32602, "message": "not initialized" });
                return Deed::Answer(json!({ "error": error }));
            }
            _ => {}
        }
        Deed::Well
    }
}

fn lines() -> String {
    let messages = [
        hello("2025-06-18"),
        note("notifications/initialized", json!({})),
        call(2, "tools/list", json!({})),
        call(3, "tools/call", json!({ "name": "echo", "arguments": { "text": "a" } })),
    ];
    messages.map(|message| message.to_string()).join("\n")
}

/// What an edge on stdin and stdout answers to all of this at once.
async fn piped(behind: &[&str], input: &str) -> Vec<Value> {
    let text = String::from_utf8(support::piped(behind, input).await.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn all_answered(answers: &[Value]) {
    for id in [0, 2, 3] {
        let answer = answers.iter().find(|answer| answer["id"] == id);
        assert!(answer.is_some_and(|it| it["result"].is_object()), "{id}: {answers:?}");
    }
}

#[tokio::test]
async fn messages_piped_in_at_once_are_answered_whatever_is_behind() {
    bounded(async {
        let child = ["--env=MCP_TRANSPORT=stdio", "--", EDGE];
        all_answered(&piped(&child, &lines()).await);
        all_answered(&piped(&[], &lines()).await);
        for kind in ["auto", "streamable"] {
            let upside = Scripted::new(strict()).await;
            let url = format!("http://{}/mcp", upside.address);
            let answers = piped(&["--upstream", &url, "--upstream-kind", kind], &lines()).await;
            all_answered(&answers);
        }
        for kind in ["auto", "sse"] {
            let upside = ScriptedSse::new(strict_sse()).await;
            let url = format!("http://{}/sse", upside.address);
            let answers = piped(&["--upstream", &url, "--upstream-kind", kind], &lines()).await;
            all_answered(&answers);
        }
    })
    .await;
}

/// A call at the upstream that comes before `initialized`, in what it saw.
fn out_of_order(methods: &[String]) -> bool {
    let place = |method: &str| methods.iter().position(|it| it == method);
    let (begun, call) = (place("notifications/initialized"), place("tools/call"));
    begun.is_none() || call.is_some_and(|call| Some(call) < begun)
}

#[tokio::test]
async fn what_follows_a_slow_initialize_waits_for_its_answer() {
    bounded(async {
        let slow = |seen: &Seen| if seen.method() == "initialize" { Act::Held } else { Act::Well };
        let upside = Scripted::new(slow).await;
        let url = format!("http://{}/mcp", upside.address);
        let asking =
            async { piped(&["--upstream-kind=streamable", "--upstream", &url], &lines()).await };
        let letting = async {
            eventually(|| upside.methods().contains(&"initialize".to_owned())).await;
            sleep(Duration::from_millis(200)).await;
            assert_eq!(upside.methods(), ["initialize"]);
            upside.let_go();
        };
        let (answers, ()) = tokio::join!(asking, letting);
        all_answered(&answers);
        assert!(!out_of_order(&upside.methods()), "{:?}", upside.methods());
    })
    .await;
}

#[tokio::test]
async fn what_follows_a_slow_initialize_waits_for_its_answer_on_a_stream_too() {
    bounded(async {
        let slow =
            |seen: &Seen| if seen.method() == "initialize" { Deed::Late } else { Deed::Well };
        let upside = ScriptedSse::new(slow).await;
        let url = format!("http://{}/sse", upside.address);
        let asking = async { piped(&["--upstream-kind=sse", "--upstream", &url], &lines()).await };
        let letting = async {
            eventually(|| upside.count("initialize") == 1).await;
            sleep(Duration::from_millis(200)).await;
            let others = upside.methods();
            assert_eq!(others, ["GET", "initialize"]);
            upside.let_go();
        };
        let (answers, ()) = tokio::join!(asking, letting);
        all_answered(&answers);
        assert!(!out_of_order(&upside.methods()), "{:?}", upside.methods());
    })
    .await;
}

async fn legacy(client: &Client) -> (support::Stream, String) {
    let get = client.request("GET", "/sse").header("accept", "text/event-stream");
    let mut stream = client.open(get.body(Full::default()).unwrap()).await.events();
    let endpoint = stream.next().await.unwrap().data.unwrap();
    (stream, endpoint)
}

/// A client that goes on without `initialize` has the edge say it; meanwhile it says more.
#[tokio::test]
async fn nothing_overtakes_the_handshake_that_the_edge_makes_for_a_client() {
    bounded(async {
        let slow = |seen: &Seen| if seen.method() == "initialize" { Act::Held } else { Act::Well };
        let upside = Scripted::new(slow).await;
        let server = TestServer::start(config(), Behind::upstream(upside.upstream())).await;
        let client = server.client();
        let (mut stream, endpoint) = legacy(&client).await;
        let mut posting = JoinSet::new();
        for id in [1, 2, 3] {
            let client = client.clone();
            let endpoint = endpoint.clone();
            posting.spawn(async move {
                let call = call(id, "tools/call", json!({ "name": "act", "arguments": {} }));
                client.send(client.post(&endpoint, &call)).await.status
            });
        }
        eventually(|| upside.methods().contains(&"initialize".to_owned())).await;
        sleep(Duration::from_millis(200)).await;
        upside.let_go();
        for _ in 0..3 {
            let answer = stream.message().await;
            assert!(answer["result"].is_object(), "{answer}");
        }
        while let Some(status) = posting.join_next().await {
            assert_eq!(status.unwrap(), 202);
        }
        assert!(!out_of_order(&upside.methods()), "{:?}", upside.methods());
    })
    .await;
}

/// The same where the client itself says `initialize`, and all else at once behind it.
#[tokio::test]
async fn posts_on_the_side_of_a_stream_stay_in_order() {
    bounded(async {
        let streamable = Scripted::new(strict()).await;
        let sse = ScriptedSse::new(strict_sse()).await;
        let behind: [Upstream; 2] = [streamable.upstream(), sse.upstream()];
        for upstream in behind {
            let server = TestServer::start(config(), Behind::upstream(upstream)).await;
            let client = server.client().token(TOKEN);
            let (mut stream, endpoint) = legacy(&client).await;
            for line in lines().lines() {
                // None of them waits for the answer to the one before.
                let message: Value = serde_json::from_str(line).unwrap();
                assert_eq!(client.send(client.post(&endpoint, &message)).await.status, 202);
            }
            let mut answers = Vec::new();
            for _ in 0..3 {
                answers.push(stream.message().await);
            }
            all_answered(&answers);
        }
    })
    .await;
}

/// Where a bare call is the first, the edge says all that comes before it.
#[tokio::test]
async fn a_bare_call_comes_behind_the_whole_handshake() {
    bounded(async {
        let streamable = Scripted::new(strict()).await;
        let sse = ScriptedSse::new(strict_sse()).await;
        let behind: [Upstream; 2] = [streamable.upstream(), sse.upstream()];
        for upstream in behind {
            let server = TestServer::start(config(), Behind::upstream(upstream)).await;
            let client = server.client();
            let mut asking = JoinSet::new();
            for id in 0..8 {
                let client = client.clone();
                asking.spawn(async move {
                    let call = call(id, "tools/call", json!({ "name": "act", "arguments": {} }));
                    client.send(client.post("/mcp", &call)).await.json()
                });
            }
            while let Some(answer) = asking.join_next().await {
                let answer = answer.unwrap();
                assert!(answer["result"].is_object(), "{answer}");
            }
        }
    })
    .await;
}
