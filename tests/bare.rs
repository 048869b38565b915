//! Promise: one POST without session, handshake or `Accept` is answered by one JSON text, and
//! callers who share a warm child share nothing else.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails, helpers of it too")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use http_body_util::Full;
use mcp_edge::{Config, Limits, Times};
use serde_json::{Value, json};
use support::{
    Answer, Client, Mark, OTHER_TOKEN, SCRIPT, TestServer, bounded, call, config, eventually,
    hello, loopback, note,
};
use tokio::time::{Instant, sleep};

/// Nothing but what it takes.
fn bare(client: &Client, body: &Value) -> http::Request<Full<bytes::Bytes>> {
    let request = client.request("POST", "/mcp").header("content-type", "application/json");
    request.body(Full::new(body.to_string().into())).unwrap()
}

async fn ask(client: &Client, body: &Value) -> Answer {
    client.send(bare(client, body)).await
}

fn echo(text: &str) -> Value {
    call(1, "tools/call", json!({ "name": "echo", "arguments": { "text": text } }))
}

#[tokio::test]
async fn a_bare_call_is_answered_as_json() {
    bounded(async {
        let (server, told) = TestServer::fixture().await;
        for client in [server.client(), server.client().h2()] {
            for id in [json!(0), json!("s"), json!(-5), json!(9_007_199_254_740_993_u64)] {
                let answer = ask(&client, &call(id.clone(), "f/echo", json!({ "a": 1 }))).await;
                assert_eq!(answer.status, 200);
                assert_eq!(answer.header("mcp-session-id"), "");
                let echoed = json!({ "jsonrpc": "2.0", "id": id, "result": { "a": 1 } });
                assert_eq!(answer.json(), echoed);
            }
            let caller = ask(&client, &call(1, "f/caller", json!({}))).await.json();
            assert_eq!(caller["result"]["transport"], "bare");
            let unknown = ask(&client, &call(1, "nope", json!({}))).await;
            assert_eq!(unknown.refusal(), (200, -32_601));
            let chatty = json!({ "method": "notifications/message", "params": {} });
            let chatty = ask(&client, &call(1, "f/say", chatty)).await;
            assert_eq!(chatty.json()["result"], json!({}));
            let noted = ask(&client, &note("notifications/initialized", json!({}))).await;
            assert_eq!((noted.status.as_u16(), noted.body.len()), (202, 0));
        }
        assert!(told.log().iter().all(|entry| entry != "f/hang"));
        assert!(server.stop().await);
    })
    .await;
}

#[tokio::test]
async fn a_question_to_nobody_is_refused_and_the_call_goes_on() {
    bounded(async {
        let (server, _told) = TestServer::fixture().await;
        let client = server.client();
        for method in ["sampling/createMessage", "elicitation/create", "roots/list"] {
            let asking = json!({ "method": method, "params": {} });
            let answer = ask(&client, &call(1, "f/ask", asking)).await;
            assert_eq!(answer.refusal(), (200, -32_601), "{method}");
        }
        let ping = json!({ "method": "ping", "params": {} });
        assert_eq!(ask(&client, &call(1, "f/ask", ping)).await.json()["result"], json!({}));
    })
    .await;
}

#[tokio::test]
async fn of_200_calls_at_once_each_gets_its_own_answer() {
    bounded(async {
        let mark = Mark::new();
        let server = TestServer::start(config(), mark.diagnostics()).await;
        let clients: Vec<Client> = (0..8)
            .map(|n| {
                let client = server.client().from(loopback(10 + n));
                let client = if n % 2 == 0 { client.h2() } else { client };
                if n % 4 < 2 { client.token(OTHER_TOKEN) } else { client }
            })
            .collect();
        let calls = (0..200).map(|n| {
            let client = clients[n % clients.len()].clone();
            async move {
                let text = format!("call {n}");
                let answer = ask(&client, &echo(&text)).await;
                assert_eq!(answer.status, 200, "{answer:?}");
                let answer = answer.json();
                assert_eq!(answer["id"], 1);
                assert_eq!(answer["result"]["content"][0]["text"], text);
            }
        });
        join_all(calls).await;
        // Four of each principal.
        assert!((1..=8).contains(&mark.programs().len()), "{:?}", mark.alive());
        assert!(server.stop().await);
        mark.gone().await;
    })
    .await;
}

#[tokio::test]
async fn a_warm_child_serves_the_next_call() {
    bounded(async {
        let mark = Mark::new();
        let server = TestServer::start(config(), mark.diagnostics()).await;
        let client = server.client();
        ask(&client, &echo("first")).await;
        let warm = mark.programs();
        assert_eq!(warm.len(), 1);
        for n in 0..20 {
            assert_eq!(ask(&client, &echo(&n.to_string())).await.status, 200);
        }
        assert_eq!(mark.programs(), warm);
    })
    .await;
}

#[tokio::test]
async fn a_client_that_goes_away_cancels() {
    bounded(async {
        let (server, told) = TestServer::fixture().await;
        for (client, round) in [server.client(), server.client().h2()].iter().zip(1..) {
            let mut conn = client.connect().await;
            let hang = bare(client, &call(1, "f/hang", json!({})));
            let going = async {
                eventually(|| told.count("f/hang") == round).await;
            };
            tokio::select! {
                answer = conn.begin(hang) => drop(answer.map(|it| assert_eq!(it.status(), 0))),
                () = going => {}
            }
            drop(conn);
            eventually(|| told.count("dropped") == round).await;
            assert_eq!(ask(client, &call(1, "f/echo", json!({}))).await.status, 200);
        }
    })
    .await;
}

#[tokio::test]
async fn no_child_serves_two_principals_or_two_sessions() {
    bounded(async {
        let mark = Mark::new();
        let server = TestServer::start(config(), mark.sh(SCRIPT)).await;
        let (one, other) = (server.client(), server.client().token(OTHER_TOKEN));
        let pid = call(1, "t/pid", json!({}));
        let of = |client: &Client| {
            let client = client.clone();
            let pid = pid.clone();
            async move {
                let answers = join_all((0..12).map(|_| ask(&client, &pid))).await;
                let pids = answers.iter().map(|it| it.json()["result"]["pid"].as_i64().unwrap());
                pids.collect::<BTreeSet<_>>()
            }
        };
        let (ones, others) = tokio::join!(of(&one), of(&other));
        assert!(ones.is_disjoint(&others), "{ones:?} {others:?}");
        let mut sessions = Vec::new();
        for client in [&one, &one, &other] {
            let session = client.initialize("2025-11-25").await;
            let answer = session.call(1, "t/pid", json!({})).await;
            sessions.push(answer["result"]["pid"].as_i64().unwrap());
        }
        let warm = ones.len() + others.len();
        let all: BTreeSet<_> = ones.into_iter().chain(others).chain(sessions).collect();
        assert_eq!(all.len(), warm + 3);
        assert!(server.stop().await);
        mark.gone().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bare_call_never_hears_of_sessions() {
    bounded(async {
        let mark = Mark::new();
        let limits = Limits { max_children: 2, ..config().limits };
        let times = Times { session_idle: Duration::from_millis(30), ..config().times };
        let config = Config { limits, times, ..config() };
        let server = TestServer::start(config, mark.sh(SCRIPT)).await;
        let client = server.client();
        let end = Instant::now() + Duration::from_secs(3);
        let calling = |pause: u64| {
            let client = client.clone();
            async move {
                let (mut answered, mut refused) = (0, 0);
                while Instant::now() < end {
                    let answer = ask(&client, &call(1, "t/pid", json!({}))).await;
                    match answer.status.as_u16() {
                        200 => assert!(answer.json()["result"]["pid"].is_i64(), "{answer:?}"),
                        status => assert_eq!(status, 503, "{answer:?}"),
                    }
                    answered += u32::from(answer.status == 200);
                    refused += u32::from(answer.status == 503);
                    sleep(Duration::from_millis(pause)).await;
                }
                (answered, refused)
            }
        };
        // Sessions take the places of warm children, and give them back.
        let sessions = async {
            while Instant::now() < end {
                let hello = client.post("/mcp", &hello("2025-11-25"));
                let answer = client.send(hello).await;
                if answer.status == 200 {
                    let id = answer.header("mcp-session-id");
                    let delete = client.request("DELETE", "/mcp").header("mcp-session-id", id);
                    client.bare(delete).await;
                }
            }
        };
        let (one, two, three, ()) = tokio::join!(calling(0), calling(31), calling(29), sessions);
        assert!(one.0 + two.0 + three.0 > 0, "{one:?} {two:?} {three:?}");
        assert!(server.stop().await);
        mark.gone().await;
    })
    .await;
}

#[tokio::test]
async fn a_child_that_does_not_start_fails_all_who_waited_for_one() {
    bounded(async {
        let mark = Mark::new();
        let dir = tempfile::tempdir().unwrap();
        let script = r#"echo x >> "$DIR/starts"; until [ -e "$DIR/go" ]; do sleep 0.02; done"#;
        let server = TestServer::start(config(), mark.sh_in(script, dir.path())).await;
        let client = server.client();
        let starts = || {
            let text = std::fs::read_to_string(dir.path().join("starts"));
            text.map_or(0, |text| text.lines().count())
        };
        let message = echo("x");
        let calls = join_all((0..40).map(|_| ask(&client, &message)));
        let failing = async {
            eventually(|| starts() == 4).await;
            std::fs::write(dir.path().join("go"), "").unwrap();
        };
        let (answers, ()) = tokio::join!(calls, failing);
        for answer in answers {
            assert!(answer.json()["error"].is_object(), "{answer:?}");
        }
        // Each would have started one of its own. Those who came late may have.
        let before = starts();
        assert!(before < 40, "{before}");
        // What failed then stands for nobody who comes now.
        ask(&client, &message).await;
        assert_eq!(starts(), before + 1);
    })
    .await;
}

#[tokio::test]
async fn a_bare_call_that_takes_events_only_gets_its_answer_as_one() {
    bounded(async {
        let mark = Mark::new();
        let child = TestServer::start(config(), mark.sh(SCRIPT)).await;
        let (linked, _told) = TestServer::fixture().await;
        let (ping, echo, pid) = ((json!("a"), "ping"), (json!(7), "f/echo"), (json!(8), "t/pid"));
        for (server, calls) in [(&child, [&ping, &pid]), (&linked, [&ping, &echo])] {
            for client in [server.client(), server.client().h2()] {
                for (id, method) in calls {
                    let request = client
                        .request("POST", "/mcp")
                        .header("content-type", "application/json")
                        .header("accept", "text/event-stream");
                    let body = call(id.clone(), method, json!({})).to_string();
                    let request = request.body(Full::new(body.into())).unwrap();
                    let mut stream = client.open(request).await.events();
                    assert_eq!(stream.headers.get("mcp-session-id"), None);
                    let event = stream.next().await.unwrap();
                    assert_eq!((event.name.as_deref(), &event.id), (Some("message"), &None));
                    let answer = event.message().unwrap();
                    assert_eq!(&answer["id"], id);
                    assert!(answer["result"].is_object(), "{answer}");
                    assert!(stream.next().await.is_none(), "nothing follows");
                }
            }
        }
        // So is a ping in a session, which a busy child would leave waiting.
        let session = child.client().initialize("2025-11-25").await;
        let mut ping = session.posting(call(9, "ping", json!({})).to_string());
        ping.headers_mut().insert("accept", "text/event-stream".parse().unwrap());
        let mut stream = child.client().open(ping).await.events();
        assert_eq!(stream.message().await["id"], 9);
        assert!(child.stop().await);
        mark.gone().await;
    })
    .await;
}

/// A server that knows integers for ids only, and notes what it is told.
const INTEGERS: &str = r#"
say() { printf '{"jsonrpc":"2.0",%s}\n' "$1"; }
while IFS= read -r line; do
  printf '%s\n' "$line" >>"$DIR/told"
  id=${line#*'"id":'}; id=${id%%,*}
  case $line in
    *'"id":"'*) say '"id":0,"error":{"code":-32600,"message":"the id must be a number"}' ;;
    *'"method":"initialize"'*) say '"id":'"$id"',"result":{"protocolVersion":"2025-06-18","capabilities":{},"serverInfo":{"name":"sh","version":"1"}}' ;;
    *'"method":"tools/list"'*) say '"id":'"$id"',"result":{"tools":[]}' ;;
    *'"id":'*) say '"id":'"$id"',"result":{}' ;;
  esac
done
"#;

#[tokio::test]
async fn the_edge_speaks_the_plainest_mcp_to_a_backend() {
    bounded(async {
        let mark = Mark::new();
        let dir = tempfile::tempdir().unwrap();
        let times = Times { call: Duration::from_secs(5), ..config().times };
        let behind = mark.sh_in(INTEGERS, dir.path());
        let server = TestServer::start(Config { times, ..config() }, behind).await;
        let client = server.client();
        let answer = ask(&client, &call("mine", "tools/list", json!({}))).await.json();
        assert_eq!(answer["result"]["tools"], json!([]), "{answer}");
        let tools = client.bare(client.request("GET", "/mcp/tools")).await;
        assert_eq!((tools.status.as_u16(), tools.json()), (200, json!({ "tools": [] })));
        assert_eq!(client.bare(client.request("GET", "/readyz")).await.status, 200);
        let told = std::fs::read_to_string(dir.path().join("told")).unwrap();
        let told: Vec<Value> =
            told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let hello = json!({
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": { "name": "mcp-edge", "version": env!("CARGO_PKG_VERSION") },
        });
        let hello = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello });
        let ready = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        let list = |id: i64| json!({ "jsonrpc": "2.0", "id": id, "method": "tools/list" });
        let mut asked = list(2);
        // That one's parameters are the client's own.
        asked["params"] = json!({});
        let ping = json!({ "jsonrpc": "2.0", "id": 2, "method": "ping" });
        assert_eq!(told, [hello.clone(), ready.clone(), asked, list(3), hello, ready, ping]);
        assert!(server.stop().await);
        mark.gone().await;
    })
    .await;
}

#[tokio::test]
async fn a_server_that_refuses_initialize_without_its_id_is_heard_at_once() {
    bounded(async {
        for named in ["", r#""id":null,"#, r#""id":0,"#] {
            let mark = Mark::new();
            let times = Times { call: Duration::from_secs(5), ..config().times };
            let script = format!(
                r#"read -r line
                printf '{{"jsonrpc":"2.0",{named}"error":{{"code":-32001,"message":"no licence"}}}}\n'
                cat >/dev/null"#
            );
            let server = TestServer::start(Config { times, ..config() }, mark.sh(&script)).await;
            let client = server.client();
            let begun = Instant::now();
            let answer = ask(&client, &call(1, "tools/list", json!({}))).await.json();
            let text = answer["error"]["message"].as_str().unwrap();
            assert!(text.contains("no licence"), "{text}");
            let mut hello = hello("2025-06-18");
            hello["id"] = json!("a");
            let answer = client.send(client.post("/mcp", &hello)).await.message();
            assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!("a"), &json!(-32_001)));
            let tools = client.bare(client.request("GET", "/mcp/tools")).await;
            assert_eq!(tools.status, 502, "{tools:?}");
            assert_eq!(client.bare(client.request("GET", "/readyz")).await.status, 503);
            assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
            assert!(server.stop().await);
            mark.gone().await;
        }
    })
    .await;
}
