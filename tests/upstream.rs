//! Promise: before a Streamable HTTP upstream nothing is lost that could be kept, nothing is done
//! twice that may be done once, nothing of the client's goes up that is not listed, and each wait
//! and each heap has an end.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails, helpers of it too")]

mod support;

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use http::HeaderName;
use mcp_edge::{Behind, Config, Limits, Times, Upstream};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use support::{
    Act, Client, OTHER_TOKEN, Scripted, Seen, TOKEN, TestServer, bounded, call, config, eventually,
    note, upstream_limits,
};
use tokio::task::JoinSet;

async fn edge(upstream: Upstream) -> TestServer {
    TestServer::start(config(), Behind::upstream(upstream)).await
}

fn calling(id: impl Into<Value>, tool: &str) -> Value {
    call(id, "tools/call", json!({ "name": tool, "arguments": {} }))
}

/// The answer to a bare call.
async fn bare(client: &Client, message: &Value) -> Value {
    let answer = client.send(client.post("/mcp", message)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// True once, for each name.
#[derive(Default)]
struct First(std::sync::Mutex<HashSet<String>>);

impl First {
    fn of(&self, name: Option<String>) -> bool {
        name.is_some_and(|name| self.0.lock().unwrap().insert(name))
    }
}

#[tokio::test]
async fn a_call_that_broke_off_is_repeated_only_if_that_is_harmless() {
    bounded(async {
        for session in [true, false] {
            let first = First::default();
            let cut_first = move |seen: &Seen| {
                if first.of(seen.tool()) { Act::Cut } else { Act::Well }
            };
            let upside = Scripted::new(cut_first).await;
            let server = edge(upside.upstream()).await;
            let client = server.client();
            let (act, look) = (calling(7, "act"), calling("b", "look"));
            let (acted, looked) = if session {
                let session = client.initialize("2025-06-18").await;
                eventually(|| upside.methods().contains(&"tools/list".to_owned())).await;
                (session.post(&act).await.message(), session.post(&look).await.message())
            } else {
                // Whoever calls first has the list of tools read.
                bare(&client, &call(0, "ping", json!({}))).await;
                bare(&client, &call(0, "tools/list", json!({}))).await;
                (bare(&client, &act).await, bare(&client, &look).await)
            };
            assert_eq!((&acted["id"], &acted["error"]["code"]), (&json!(7), &json!(-32_603)));
            assert_eq!(upside.calls("act"), 1, "it may have been done");
            assert_eq!(
                (&looked["id"], &looked["result"]["seen"]["name"]),
                (&json!("b"), &json!("look"))
            );
            assert_eq!(upside.calls("look"), 2);
        }
    })
    .await;
}

#[tokio::test]
async fn a_lost_session_is_begun_again_before_anything_else_is_said_in_it() {
    bounded(async {
        let lost = Arc::new(AtomicBool::new(false));
        let forgets = Arc::clone(&lost);
        let upside = Scripted::new(move |seen| {
            let old = seen.session() == "s-1" && forgets.load(Ordering::SeqCst);
            if old { Act::Say(404, String::new()) } else { Act::Well }
        })
        .await;
        let server = edge(upside.upstream()).await;
        let session = server.client().initialize("2025-06-18").await;
        eventually(|| upside.methods().iter().any(|method| method == "tools/list")).await;
        lost.store(true, Ordering::SeqCst);
        let before = upside.seen();
        let calls: Vec<_> = (1..=5).map(|id| calling(id, "act")).collect();
        let answers = join_all(calls.iter().map(|call| session.post(call))).await;
        for (answer, id) in answers.iter().zip(1..) {
            assert_eq!((answer.message()["id"].clone(), answer.status.as_u16()), (json!(id), 200));
            assert_eq!(answer.message()["result"]["seen"]["name"], "act");
        }
        let after = upside.seen().split_off(before.len());
        let of = |name: &str| after.iter().filter(|seen| seen.method() == name).collect::<Vec<_>>();
        let [hello] = of("initialize")[..] else { unreachable!("{after:?}") };
        let first = before.iter().find(|seen| seen.method() == "initialize").unwrap();
        assert_eq!(hello.json()["params"], first.json()["params"]);
        assert_eq!(of("notifications/initialized").len(), 1);
        let done: Vec<_> =
            of("tools/call").into_iter().filter(|it| it.session() == "s-2").collect();
        assert_eq!(done.len(), 5, "each once in the new session");
        let place = |method: &str| {
            after
                .iter()
                .position(|seen| seen.session() == "s-2" && seen.method() == method)
                .unwrap()
        };
        assert!(place("notifications/initialized") < place("tools/call"), "{after:?}");
    })
    .await;
}

#[tokio::test]
async fn a_call_waits_until_the_session_is_begun_whole() {
    bounded(async {
        let upside = Scripted::new(move |seen| match (seen.session(), &*seen.method()) {
            ("s-1", "tools/call") => Act::Say(404, String::new()),
            ("s-2", "notifications/initialized") => Act::Held,
            _ => Act::Well,
        })
        .await;
        let server = edge(upside.upstream()).await;
        let session = server.client().initialize("2025-06-18").await;
        let (one, other) = (calling(1, "act"), calling(2, "act"));
        let begun = |method: &str| {
            upside.seen().iter().any(|it| it.session() == "s-2" && it.method() == method)
        };
        let later = async {
            eventually(|| begun("notifications/initialized")).await;
            let overtaking = session.post(&other);
            let holding = async {
                let stranger = server.client().token(OTHER_TOKEN);
                bare(&stranger, &call(0, "tools/list", json!({}))).await;
                assert!(!begun("tools/call"), "it overtook `initialized`");
                upside.let_go();
            };
            tokio::join!(overtaking, holding).0
        };
        let (first, second) = tokio::join!(session.post(&one), later);
        assert!(first.message()["result"].is_object(), "{first:?}");
        assert!(second.message()["result"].is_object(), "{second:?}");
    })
    .await;
}

#[tokio::test]
async fn an_error_that_answers_the_call_is_no_lost_session() {
    bounded(async {
        let upside = Scripted::new(|seen| {
            let text = "the checkout session has expired";
            let error = |id: &Value, code: i32| {
                let error = json!({ "code": code, "message": text });
                json!({ "jsonrpc": "2.0", "id": id, "error": error }).to_string()
            };
            match (seen.tool().as_deref(), seen.session()) {
                (Some("pay"), _) => Act::Say(400, error(&seen.json()["id"], -32_602)),
                // What the SDKs say.
                (Some("act"), "s-1") => Act::Say(400, error(&Value::Null, -32_000)),
                _ => Act::Well,
            }
        })
        .await;
        let server = edge(upside.upstream()).await;
        let session = server.client().initialize("2025-06-18").await;
        for answer in [
            session.post(&calling(5, "pay")).await.message(),
            bare(&server.client(), &calling(5, "pay")).await,
        ] {
            assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(5), &json!(-32_602)));
        }
        assert_eq!(upside.calls("pay"), 2, "each once");
        assert!(session.post(&calling(6, "act")).await.message()["result"].is_object());
        assert_eq!(upside.calls("act"), 2);
    })
    .await;
}

#[tokio::test]
async fn the_stream_of_a_session_is_asked_for_again_whatever_refused_it() {
    bounded(async {
        let refused = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&refused);
        let upside = Scripted::new(move |seen| {
            if seen.method() != "GET" {
                return Act::Well;
            }
            let note = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#;
            match counting.fetch_add(1, Ordering::SeqCst) {
                0 => Act::Events(format!("id: a-1\ndata: {note}\n\n")),
                1 => Act::Say(400, r#"{"error":"no such event"}"#.to_owned()),
                2 => Act::Say(503, String::new()),
                3 => Act::Say(409, String::new()),
                4 => Act::Cut,
                5 => Act::Events(format!("data: {note}\n\n")),
                _ => Act::Hang,
            }
        })
        .await;
        let server = edge(upside.upstream()).await;
        let session = server.client().initialize("2025-06-18").await;
        let mut stream = session.listen(None).await.events();
        for _ in 0..2 {
            assert_eq!(stream.message().await["method"], "notifications/message");
        }
        let gets: Vec<_> = upside.seen().into_iter().filter(|it| it.method() == "GET").collect();
        let last = |at: usize| gets[at].headers.get("last-event-id").map(|id| id.to_str().unwrap());
        assert_eq!([last(0), last(1), last(2)], [None, Some("a-1"), None]);
    })
    .await;
}

#[tokio::test]
async fn a_call_may_be_polled_for_as_long_as_something_comes() {
    bounded(async {
        let polled = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&polled);
        let call = Arc::new(std::sync::Mutex::new(Value::Null));
        let upside = Scripted::new(move |seen| {
            if seen.tool().is_some() {
                *call.lock().unwrap() = seen.json()["id"].clone();
                return Act::Events("id: p-0\nretry: 10\ndata:\n\n".to_owned());
            }
            if seen.method() != "GET" || !seen.headers.contains_key("last-event-id") {
                return if seen.method() == "GET" { Act::Hang } else { Act::Well };
            }
            let at = counting.fetch_add(1, Ordering::SeqCst) + 1;
            if at < 20 {
                return Act::Events(format!("id: p-{at}\ndata:\n\n"));
            }
            let id = call.lock().unwrap().clone();
            Act::Events(format!("data: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{}}}}\n\n"))
        })
        .await;
        let server = edge(upside.upstream()).await;
        let session = server.client().initialize("2025-11-25").await;
        let answer = session.post(&calling(9, "act")).await.message();
        assert_eq!(answer, json!({ "jsonrpc": "2.0", "id": 9, "result": {} }));
        assert_eq!((upside.calls("act"), polled.load(Ordering::SeqCst)), (1, 20));
    })
    .await;
}

#[tokio::test]
async fn a_json_answer_may_come_late_behind_its_head() {
    bounded(async {
        let late = |seen: &Seen| if seen.tool().is_some() { Act::HeldBody } else { Act::Well };
        let upside = Scripted::stateless(late).await;
        let head = Duration::from_secs(1);
        let server =
            edge(Upstream { limits: upstream_limits(|it| it.head = head), ..upside.upstream() })
                .await;
        let client = server.client();
        let message = calling(1, "act");
        let waiting = async {
            eventually(|| upside.calls("act") == 1).await;
            // A round trip later the head is there, too.
            bare(&client, &call(2, "tools/list", json!({}))).await;
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(3)).await;
            tokio::time::resume();
            bare(&client, &call(3, "tools/list", json!({}))).await;
            upside.let_go();
        };
        let (answer, ()) = tokio::join!(bare(&client, &message), waiting);
        assert!(answer["result"].is_object(), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn a_call_that_is_polled_in_vain_is_given_up() {
    bounded(async {
        let upside = Scripted::new(|seen| match &*seen.method() {
            "tools/call" => Act::Events("id: p-0\nretry: 10\ndata:\n\n".to_owned()),
            "GET" if seen.headers.contains_key("last-event-id") => Act::Events(String::new()),
            "GET" => Act::Hang,
            _ => Act::Well,
        })
        .await;
        let server = edge(upside.upstream()).await;
        let session = server.client().initialize("2025-11-25").await;
        let answer = session.post(&calling(9, "act")).await.message();
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(9), &json!(-32_603)));
        let polls =
            upside.seen().iter().filter(|it| it.headers.contains_key("last-event-id")).count();
        assert_eq!((upside.calls("act"), polls), (1, 5));
    })
    .await;
}

#[tokio::test]
async fn a_notification_that_hangs_holds_up_what_follows_for_a_moment_only() {
    bounded(async {
        let upside = Scripted::new(|seen| match &*seen.method() {
            "notifications/roots/list_changed" => Act::Hang,
            _ => Act::Well,
        })
        .await;
        let server = edge(upside.upstream()).await;
        let session = server.client().initialize("2025-06-18").await;
        session.post(&note("notifications/roots/list_changed", json!({}))).await;
        assert!(session.post(&calling(1, "act")).await.message()["result"].is_object());
        // It came first nevertheless.
        let place = |method: &str| upside.methods().iter().position(|it| it == method);
        assert!(place("notifications/roots/list_changed") < place("tools/call"));
    })
    .await;
}

#[tokio::test]
async fn an_upstream_that_hangs_with_its_tools_is_asked_by_the_next_session() {
    bounded(async {
        let asked = AtomicBool::new(false);
        let upside = Scripted::new(move |seen| match &*seen.method() {
            "tools/list" if !asked.swap(true, Ordering::SeqCst) => Act::Hang,
            _ => Act::Well,
        })
        .await;
        let head = Duration::from_millis(50);
        let server =
            edge(Upstream { limits: upstream_limits(|it| it.head = head), ..upside.upstream() })
                .await;
        let lists = || upside.methods().iter().filter(|it| *it == "tools/list").count();
        while lists() < 2 {
            server.client().initialize("2025-06-18").await;
            eventually(|| lists() > 0).await;
        }
    })
    .await;
}

#[tokio::test]
async fn callers_that_leave_during_the_first_hello_leave_one_session() {
    bounded(async {
        let upside = Scripted::new(|seen| match &*seen.method() {
            "initialize" => Act::Held,
            _ => Act::Well,
        })
        .await;
        let server = edge(upside.upstream()).await;
        let mut leaving = JoinSet::new();
        for id in 0..5 {
            let client = server.client().abrupt();
            let request = client.post("/mcp", &calling(id, "act"));
            leaving.spawn(async move { client.send(request).await });
        }
        let hellos = || upside.methods().iter().filter(|it| *it == "initialize").count();
        eventually(|| hellos() == 1).await;
        leaving.abort_all();
        while leaving.join_next().await.is_some() {}
        upside.let_go();
        let answer = bare(&server.client(), &calling(7, "act")).await;
        assert!(answer["result"].is_object(), "{answer}");
        assert_eq!(hellos(), 1);
    })
    .await;
}

#[tokio::test]
async fn cancellations_do_not_wait_for_each_other() {
    bounded(async {
        // It hangs with everything that is no beginning.
        let upside = Scripted::new(|seen| match &*seen.method() {
            "tools/call" | "notifications/cancelled" => Act::Hang,
            _ => Act::Well,
        })
        .await;
        let server = edge(upside.upstream()).await;
        let session = server.client().initialize("2025-06-18").await;
        let calls: Vec<_> = (1..=40).map(|id| calling(id, "act")).collect();
        let calling = join_all(calls.iter().map(|call| session.post(call)));
        let cancelling = async {
            eventually(|| upside.calls("act") == 40).await;
            for id in 1..=40 {
                let params = json!({ "requestId": id });
                session.post(&note("notifications/cancelled", params)).await;
            }
            let told = || {
                let methods = upside.methods();
                methods.iter().filter(|it| *it == "notifications/cancelled").count()
            };
            eventually(|| told() == 40).await;
            // What comes next does not wait for what hangs.
            assert_eq!(session.post(&call(99, "tools/list", json!({}))).await.message()["id"], 99);
        };
        tokio::select! {
            () = cancelling => {}
            answers = calling => assert_eq!(answers.len(), 40),
        }
    })
    .await;
}

#[tokio::test]
async fn an_upstream_that_loses_each_session_is_given_up() {
    bounded(async {
        let upside = Scripted::new(|seen| match seen.tool() {
            Some(_) => Act::Say(404, String::new()),
            None => Act::Well,
        })
        .await;
        let server = edge(upside.upstream()).await;
        let session = server.client().initialize("2025-06-18").await;
        let answer = session.post(&calling(1, "act")).await.message();
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(1), &json!(-32_603)));
        assert_eq!(upside.calls("act"), 4);
    })
    .await;
}

#[tokio::test]
async fn callers_without_a_session_share_one_and_never_an_id() {
    bounded(async {
        let upside = Scripted::new(|_| Act::Well).await;
        let server = edge(upside.upstream()).await;
        let (one, other) = (server.client(), server.client().token(OTHER_TOKEN));
        let message = calling(1, "act");
        let asking = [&one, &one, &one, &other].map(|client| bare(client, &message));
        for answer in join_all(asking).await {
            assert_eq!(answer["id"], 1);
        }
        let calls: Vec<_> = upside.seen().into_iter().filter(|it| it.tool().is_some()).collect();
        let names: HashSet<_> =
            calls.iter().map(|it| (it.session().to_owned(), it.json()["id"].to_string())).collect();
        assert_eq!(names.len(), 4, "{calls:?}");
        let sessions: HashSet<_> = calls.iter().map(|it| it.session().to_owned()).collect();
        assert_eq!(sessions.len(), 2, "one for each token");
    })
    .await;
}

#[tokio::test]
async fn a_session_that_no_caller_needs_any_more_is_ended_and_begun_again() {
    bounded(async {
        let upside = Scripted::new(|_| Act::Well).await;
        let server = edge(upside.upstream()).await;
        let client = server.client();
        let reload = |session_idle| {
            let times = Times { session_idle, ..Times::default() };
            let config = Config { times: times.check().unwrap(), ..server.config.clone() };
            server.control.reload(config).unwrap();
        };
        let count = |method: &str| upside.methods().iter().filter(|it| *it == method).count();
        for _ in 0..2 {
            reload(Duration::from_hours(1));
            assert_eq!(bare(&client, &calling(1, "act")).await["id"], 1);
            assert_ne!(count("DELETE"), count("initialize"));
            reload(Duration::from_millis(1));
            eventually(|| count("DELETE") == count("initialize")).await;
        }
        let calls: Vec<_> = upside.seen().into_iter().filter(|it| it.tool().is_some()).collect();
        assert_ne!(calls[0].session(), calls[1].session());
    })
    .await;
}

#[tokio::test]
async fn before_an_upstream_without_sessions_the_bytes_stay_as_they_came() {
    bounded(async {
        let upside = Scripted::stateless(|_| Act::Well).await;
        let server = edge(upside.upstream()).await;
        let client = server.client();
        let text = r#" { "id" : "1" ,"params":{"name":"act", "arguments":{"n":1.0e2}},"method":"tools/call","jsonrpc":"2.0" } "#;
        let answer = client.send(client.post_bytes("/mcp", text)).await;
        assert_eq!(answer.json()["id"], "1");
        let seen = upside.seen();
        let call = seen.iter().find(|seen| seen.tool().is_some()).unwrap();
        assert_eq!(call.body, text.as_bytes());
    })
    .await;
}

#[tokio::test]
async fn a_caller_that_goes_away_has_its_call_cancelled() {
    bounded(async {
        let hangs = |seen: &Seen| if seen.tool().is_some() { Act::Hang } else { Act::Well };
        let upside = Scripted::new(hangs).await;
        let server = edge(upside.upstream()).await;
        let client = server.client().abrupt();
        let mut asking = JoinSet::new();
        let request = client.post("/mcp", &calling("mine", "act"));
        asking.spawn(async move { client.send(request).await });
        eventually(|| upside.calls("act") == 1).await;
        asking.abort_all();
        eventually(|| upside.methods().contains(&"notifications/cancelled".to_owned())).await;
        let seen = upside.seen();
        let of = |method: &str| seen.iter().find(|seen| seen.method() == method).unwrap();
        let id = of("tools/call").json()["id"].clone();
        assert_eq!(of("notifications/cancelled").json()["params"]["requestId"], id);
    })
    .await;
}

#[tokio::test]
async fn calls_of_one_principal_without_a_session_have_a_lid() {
    bounded(async {
        let hangs = |seen: &Seen| if seen.tool().is_some() { Act::Hang } else { Act::Well };
        let upside = Scripted::stateless(hangs).await;
        let server = edge(upside.upstream()).await;
        let client = server.client();
        let mut waiting = JoinSet::new();
        for id in 0..256 {
            let client = client.clone();
            let message = calling(id, "act");
            waiting.spawn(async move { client.send(client.post("/mcp", &message)).await });
        }
        eventually(|| upside.calls("act") == 256).await;
        let refused = client.send(client.post("/mcp", &calling(256, "act"))).await;
        assert_eq!(refused.status, 429, "{refused:?}");
        assert_eq!(refused.json()["id"], 256);
        let other = client.clone().token(OTHER_TOKEN);
        assert_eq!(bare(&other, &call(1, "tools/list", json!({}))).await["id"], 1);
        // A place is free again when its caller leaves.
        waiting.abort_all();
        while waiting.join_next().await.is_some() {}
        let listing = call(1, "tools/list", json!({}));
        while client.send(client.post("/mcp", &listing)).await.status != 200 {}
    })
    .await;
}

#[tokio::test]
async fn idle_connections_are_kept_up_to_their_number() {
    bounded(async {
        let upside = Scripted::stateless(|_| Act::Well).await;
        let server = edge(Upstream {
            limits: upstream_limits(|it| it.connections = 2),
            ..upside.upstream()
        })
        .await;
        let client = server.client();
        bare(&client, &calling(0, "act")).await;
        let messages: Vec<_> = (1..=8).map(|id| calling(id, "act")).collect();
        join_all(messages.iter().map(|message| bare(&client, message))).await;
        eventually(|| upside.open() <= 2).await;
        let before = upside.taken();
        for id in 10..20 {
            bare(&client, &calling(id, "act")).await;
        }
        assert_eq!(upside.taken(), before, "one after another they need no further connection");
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_was_idle_for_three_seconds_is_not_used_again() {
    bounded(async {
        let upside = Scripted::stateless(|_| Act::Well).await;
        let server = edge(upside.upstream()).await;
        let client = server.client();
        bare(&client, &calling(0, "act")).await;
        eventually(|| upside.methods().contains(&"tools/list".to_owned())).await;
        bare(&client, &calling(1, "act")).await;
        for (idle, more) in [(2900, false), (3100, true)] {
            let before = upside.taken();
            tokio::time::pause();
            tokio::time::advance(Duration::from_millis(idle)).await;
            tokio::time::resume();
            bare(&client, &calling(2, "act")).await;
            assert_eq!(upside.taken() > before, more, "{idle} ms");
        }
    })
    .await;
}

#[tokio::test]
async fn an_upstream_that_takes_no_connection_counts_as_down() {
    bounded(async {
        // Its queue has one place, which is taken: the kernel lets further ones wait.
        let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any = std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        full.bind(&any.into()).unwrap();
        full.listen(0).unwrap();
        let address = full.local_addr().unwrap().as_socket().unwrap();
        let _queued = std::net::TcpStream::connect(address).unwrap();
        let url = format!("http://{address}/mcp").parse().unwrap();
        let times = Upstream {
            limits: upstream_limits(|it| {
                (it.connect, it.wait) = (Duration::from_millis(100), Duration::ZERO);
            }),
            kind: mcp_edge::UpstreamKind::Streamable,
            ..Upstream::new(url)
        };
        let server = edge(times).await;
        let answer = bare(&server.client(), &calling(3, "act")).await;
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(3), &json!(-32_603)));
        let text = answer["error"]["message"].as_str().unwrap();
        assert!(text.contains("timed out"), "{text}");
    })
    .await;
}

#[tokio::test]
async fn an_answer_larger_than_a_message_may_be_is_an_error() {
    bounded(async {
        let upside = Scripted::stateless(|seen| match seen.tool() {
            Some(_) => {
                let id = &seen.json()["id"];
                let result = json!({ "text": "x".repeat(5000) });
                Act::Say(200, json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string())
            }
            None => Act::Well,
        })
        .await;
        for (most, fits) in [(4096, false), (8192, true)] {
            let limits = Limits { max_line_bytes: most, ..*config().limits };
            let behind = Behind::upstream(upside.upstream());
            let server =
                TestServer::start(Config { limits: limits.check().unwrap(), ..config() }, behind)
                    .await;
            let answer = bare(&server.client(), &calling(1, "act")).await;
            assert_eq!(answer["id"], 1);
            assert_eq!(answer["result"].is_object(), fits, "{answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_hung_upstream_costs_its_caller_the_calls_time() {
    bounded(async {
        let hangs = |seen: &Seen| if seen.tool().is_some() { Act::Hang } else { Act::Well };
        let upside = Scripted::new(hangs).await;
        let times = Times { call: Duration::from_millis(200), ..*config().times };
        let behind = Behind::upstream(upside.upstream());
        let server =
            TestServer::start(Config { times: times.check().unwrap(), ..config() }, behind).await;
        let answer = bare(&server.client(), &calling("late", "look")).await;
        assert_eq!(answer["id"], "late");
        let text = answer["error"]["message"].as_str().unwrap();
        assert!(text.contains("did not answer"), "{text}");
        assert_eq!(upside.calls("look"), 1);
    })
    .await;
}

/// Fields that a client could wish to have believed.
const DANGEROUS: [&str; 12] = [
    "cookie",
    "x-forwarded-for",
    "x-real-ip",
    "forwarded",
    "x-forwarded-host",
    "te",
    "via",
    "proxy-authorization",
    "x-api-key",
    "x-request-id",
    "user-agent",
    "mcp-param-a",
];
/// Fields without which the request would be another one.
const RESERVED: [&str; 13] = [
    "host",
    "connection",
    "transfer-encoding",
    "content-length",
    "upgrade",
    "expect",
    "accept",
    "authorization",
    "origin",
    "content-type",
    "content-encoding",
    "mcp-session-id",
    "mcp-protocol-version",
];
/// What the edge says itself, and the message's own.
const OWN: [&str; 12] = [
    "accept",
    "content-length",
    "content-type",
    "host",
    "user-agent",
    "x-real-ip",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-request-id",
    "mcp-session-id",
    "mcp-protocol-version",
];
const LISTED: [&str; 2] = ["x-user-role", "traceparent"];
const OF_THE_CLIENT: &str = "of-the-client";

/// Names of fields, other ones each time and the same in each run.
fn names() -> impl Iterator<Item = Vec<String>> {
    let any = proptest::collection::vec("[a-z][a-z0-9-]{0,16}", 1..20);
    let mut runner = TestRunner::deterministic();
    std::iter::repeat_with(move || any.new_tree(&mut runner).unwrap().current())
}

#[tokio::test]
async fn nothing_of_a_clients_header_goes_up_unless_it_is_listed() {
    bounded(async {
        let upside = Scripted::new(|_| Act::Well).await;
        let forward_headers = LISTED.map(HeaderName::from_static).to_vec();
        let server = edge(Upstream { forward_headers, ..upside.upstream() }).await;
        let client = server.client();
        let session = client.initialize("2025-06-18").await;
        let before = upside.seen().len();
        for (round, random) in (0..48).zip(names()) {
            let message = calling(round, "act");
            let mut message = match round % 2 {
                0 => client.post("/mcp", &message),
                _ => session.posting(message.to_string()),
            };
            let random = random.iter().map(String::as_str);
            for name in random.chain(DANGEROUS).chain(LISTED).filter(|it| !RESERVED.contains(it)) {
                let name = HeaderName::try_from(name).unwrap();
                message.headers_mut().insert(name, OF_THE_CLIENT.parse().unwrap());
            }
            assert_eq!(client.send(message).await.status, 200);
        }
        let seen = upside.seen().split_off(before);
        assert_eq!(seen.iter().filter(|seen| seen.tool().is_some()).count(), 48);
        seen.iter().for_each(nothing_else);
    })
    .await;
}

fn nothing_else(request: &Seen) {
    for (name, value) in &request.headers {
        let name = name.as_str();
        let value = value.to_str().unwrap();
        let listed = LISTED.contains(&name);
        assert!(listed || OWN.contains(&name), "{name}: {value}");
        // What the edge does by itself has nothing of a client's.
        assert!(listed || value != OF_THE_CLIENT, "{name}: {value}");
        assert!(!value.contains(TOKEN), "{name}");
    }
    if request.tool().is_some() {
        for (name, value) in [
            ("x-user-role", OF_THE_CLIENT),
            ("traceparent", OF_THE_CLIENT),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-real-ip", "127.0.0.1"),
            ("x-forwarded-proto", "https"),
        ] {
            assert_eq!(request.headers.get(name).unwrap(), value, "{name}");
        }
    }
}

#[tokio::test]
async fn callers_of_an_upstream_that_is_down_wait_side_by_side() {
    bounded(async {
        let up = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&up);
        let upside = Scripted::new(move |seen| {
            if seen.method() == "initialize" && counting.fetch_add(1, Ordering::SeqCst) < 1 {
                return Act::Cut;
            }
            Act::Well
        })
        .await;
        let server = edge(upside.upstream()).await;
        let client = server.client();
        let messages: Vec<_> = (0..20).map(|id| calling(id, "act")).collect();
        for answer in join_all(messages.iter().map(|message| bare(&client, message))).await {
            assert!(answer["result"].is_object(), "{answer}");
        }
        assert_eq!(upside.calls("act"), 20);
        assert_eq!(up.load(Ordering::SeqCst), 2, "they share one session, and its beginning");
    })
    .await;
}

#[tokio::test]
async fn a_client_that_is_initialised_often_has_one_stream_opened() {
    bounded(async {
        let hang = |seen: &Seen| if seen.verb == "GET" { Act::Hang } else { Act::Well };
        let upside = Scripted::new(hang).await;
        let server = edge(upside.upstream()).await;
        let session = server.client().initialize("2025-11-25").await;
        for _ in 0..20 {
            let ready = note("notifications/initialized", json!({}));
            assert_eq!(session.post(&ready).await.status, 202);
        }
        // What is said afterwards is done afterwards.
        session.call(1, "tools/list", json!({})).await;
        let streams = upside.seen().iter().filter(|seen| seen.verb == "GET").count();
        assert!(streams <= 1, "{streams} streams");
    })
    .await;
}

#[tokio::test]
async fn ids_of_the_edges_own_are_integers() {
    bounded(async {
        let upside = Scripted::new(|_| Act::Well).await;
        let kind = mcp_edge::UpstreamKind::Auto;
        let server = edge(Upstream { kind, ..upside.upstream() }).await;
        assert!(bare(&server.client(), &calling("mine", "look")).await["result"].is_object());
        let session = server.client().initialize("2025-06-18").await;
        session.post(&calling("other", "look")).await;
        eventually(|| upside.methods().iter().any(|it| it == "tools/list")).await;
        let ids: Vec<Value> = upside.seen().iter().map(|seen| seen.json()["id"].clone()).collect();
        let own: Vec<i64> = ids.iter().filter_map(Value::as_i64).collect();
        let clients: Vec<&Value> = ids.iter().filter(|id| id.is_string()).collect();
        assert!(own.len() >= 4 && own.iter().all(|id| *id < 10), "{ids:?}");
        // The client's own ids go up as they came, where it has a session.
        assert_eq!(clients, ["other"]);
    })
    .await;
}

#[tokio::test]
async fn an_answer_without_an_id_fails_its_call_with_what_it_says() {
    bounded(async {
        let nameless = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32050,"message":"no seat"}}"#;
        let upside = Scripted::new(move |seen| match seen.tool().as_deref() {
            Some("look") => Act::Say(200, nameless.to_owned()),
            Some("act") => Act::Events(format!("data: {nameless}\n\n")),
            Some("pay") => Act::Say(200, r#"{"jsonrpc":"2.0","id":5,"result":NaN}"#.to_owned()),
            _ => Act::Well,
        });
        let upside = upside.await;
        let server = edge(upside.upstream()).await;
        let session = server.client().initialize("2025-06-18").await;
        for tool in ["look", "act"] {
            let answer = session.post(&calling(5, tool)).await.message();
            let error = json!({ "code": -32_050, "message": "no seat" });
            assert_eq!((&answer["id"], &answer["error"]), (&json!(5), &error), "{tool}");
        }
        let answer = session.post(&calling(5, "pay")).await.message();
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(5), &json!(-32_603)));
        assert_eq!(server.report().outcomes["answer_unreadable"], 3);
    })
    .await;
}
