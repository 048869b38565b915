//! Promise: Streamable HTTP of 2025-03-26, 2025-06-18 and 2025-11-25 on the unified path: sessions,
//! versions, ids, framing, and which refusal each mistake gets.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails, helpers of it too")]

mod support;

use futures_util::future::join_all;
use http_body_util::Full;
use serde_json::{Value, json};
use support::{
    Answer, Client, Fixture, Mark, OTHER_TOKEN, Session, TestServer, VERSIONS, bounded, call,
    config, eventually, hello, note,
};

async fn with_accept(session: &Session, accept: Option<&str>, body: &Value) -> Answer {
    let request = session.request("POST").header("content-type", "application/json");
    let request = match accept {
        Some(accept) => request.header("accept", accept),
        None => request,
    };
    session.client.send(request.body(Full::new(body.to_string().into())).unwrap()).await
}

fn both(server: &TestServer) -> [Client; 2] {
    [server.client(), server.client().h2()]
}

#[tokio::test]
async fn a_session_begins_lives_and_ends() {
    bounded(async {
        let (server, told) = TestServer::fixture().await;
        for (client, version) in both(&server).iter().flat_map(|it| VERSIONS.map(|v| (it, v))) {
            let session = client.initialize(version).await;
            assert_eq!(session.version, version);
            assert!(session.id.len() >= 43 && session.id.bytes().all(|it| it.is_ascii_graphic()));
            let echo = session.call(1, "f/echo", json!({ "a": [1, "b"] })).await;
            assert_eq!(echo, json!({ "jsonrpc": "2.0", "id": 1, "result": { "a": [1, "b"] } }));
            let unknown = session.call(2, "nope", json!({})).await;
            assert_eq!(unknown["error"]["code"], -32_601);
            let ended = session.delete().await;
            assert!(ended.status.is_success() && ended.body.is_empty(), "{ended:?}");
            for answer in [
                session.post(&call(3, "f/echo", json!({}))).await,
                session.post(&note("notifications/initialized", json!({}))).await,
                session.delete().await,
                client.bare(session.request("GET").header("accept", "text/event-stream")).await,
            ] {
                assert_eq!(answer.refusal(), (404, -32_001), "{answer:?}");
            }
        }
        assert_eq!(told.count("notifications/initialized"), 6);
        assert!(server.stop().await);
    })
    .await;
}

#[tokio::test]
async fn an_unknown_version_is_answered_with_the_newest_legacy_one() {
    bounded(async {
        let (server, _told) = TestServer::fixture().await;
        for asked in ["1.0", "2026-07-28", "2099-01-01", ""] {
            assert_eq!(server.client().initialize(asked).await.version, "2025-11-25");
        }
    })
    .await;
}

#[tokio::test]
async fn every_id_comes_back_as_it_was() {
    bounded(async {
        let mark = Mark::new();
        let (fixture, _told) = Fixture::new();
        for (behind, method) in
            [(mcp_edge::Behind::handler(fixture), "f/echo"), (mark.diagnostics(), "prompts/list")]
        {
            let server = TestServer::start(config(), behind).await;
            let session = server.client().initialize("2025-11-25").await;
            for id in [
                "0",
                "-1",
                "9007199254740993",
                "18446744073709551616",
                "123456789012345678901234567890123456789",
                r#""""#,
                r#""0""#,
                r#""a b\n\u0000\"\\ü𝄞""#,
                r#""server-discover-probe-1""#,
            ] {
                let body =
                    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{}}}}"#);
                for accept in ["application/json", "text/event-stream"] {
                    let request = session
                        .request("POST")
                        .header("content-type", "application/json")
                        .header("accept", accept)
                        .body(Full::new(body.clone().into()));
                    let answer = session.client.send(request.unwrap()).await;
                    let text = String::from_utf8(answer.body.to_vec()).unwrap();
                    let value: Result<String, _> = serde_json::from_str(id);
                    match value {
                        Ok(value) => assert_eq!(answer.message()["id"], value, "{text}"),
                        Err(_number) => {
                            assert!(text.contains(&format!(r#""id":{id},"#)), "{id}: {text}");
                        }
                    }
                    assert!(text.contains("result"), "{text}");
                }
            }
            assert!(server.stop().await);
        }
        mark.gone().await;
    })
    .await;
}

#[tokio::test]
async fn what_is_accepted_decides_the_framing() {
    bounded(async {
        let (server, _told) = TestServer::fixture().await;
        for client in both(&server) {
            let session = client.initialize("2025-06-18").await;
            let quick = call(1, "f/echo", json!({}));
            let log = json!({ "method": "notifications/message", "params": { "level": "info" } });
            let chatty = call(1, "f/say", log);
            for (accept, body, events) in [
                (Some("application/json, text/event-stream"), &quick, false),
                (Some("application/json, text/event-stream"), &chatty, true),
                (Some("application/json"), &chatty, false),
                (Some("text/event-stream"), &quick, true),
                (Some("*/*"), &chatty, false),
                (None, &chatty, false),
            ] {
                let answer = with_accept(&session, accept, body).await;
                assert_eq!(answer.is_events(), events, "{accept:?}: {answer:?}");
                let methods: Vec<_> =
                    answer.messages().iter().map(|it| it["method"].clone()).collect();
                if events && body == &chatty {
                    assert_eq!(methods, [json!("notifications/message"), Value::Null]);
                } else {
                    assert_eq!(methods, [Value::Null], "{answer:?}");
                }
                assert_eq!(answer.message()["id"], 1);
                if events {
                    assert_eq!(answer.header("cache-control"), "no-cache, no-transform");
                    assert_eq!(answer.header("x-accel-buffering"), "no");
                    assert_eq!(answer.header("content-length"), "");
                }
            }
            let refused = with_accept(&session, Some("text/html"), &quick).await;
            assert_eq!(refused.refusal(), (406, -32_000));
            let no_stream = client.bare(session.request("GET").header("accept", "text/html")).await;
            assert_eq!(no_stream.refusal(), (406, -32_000));
        }
    })
    .await;
}

#[tokio::test]
async fn large_messages_pass_both_ways() {
    bounded(async {
        let (server, _told) = TestServer::fixture().await;
        for client in both(&server) {
            let session = client.initialize("2025-11-25").await;
            let text = "ü".repeat(1_500_000);
            let echo = session.call(1, "f/echo", json!({ "text": text })).await;
            assert_eq!(echo["result"]["text"], text);
            let huge = session.call(2, "f/huge", json!({ "size": 6_000_000 })).await;
            assert_eq!(huge["result"]["text"].as_str().unwrap().len(), 6_000_000);
        }
    })
    .await;
}

#[tokio::test]
async fn batches_are_for_2025_03_26_only() {
    bounded(async {
        let (server, told) = TestServer::fixture().await;
        let batch = json!([
            call(1, "f/echo", json!({ "n": 1 })),
            note("notifications/roots/list_changed", json!({})),
            call("two", "nope", json!({})),
        ]);
        let session = server.client().initialize("2025-03-26").await;
        for accept in ["application/json, text/event-stream", "text/event-stream"] {
            let answer = with_accept(&session, Some(accept), &batch).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let mut answers = answer.messages();
            if !answer.is_events() {
                answers = answers[0].as_array().unwrap().clone();
            }
            answers.sort_by_key(|it| it["id"].is_string());
            assert_eq!(answers[0]["result"]["n"], 1);
            assert_eq!((&answers[1]["id"], answers.len()), (&json!("two"), 2));
            assert_eq!(answers[1]["error"]["code"], -32_601);
        }
        let notes = json!([note("n", json!({})), note("n", json!({}))]);
        let accepted = session.post(&notes).await;
        assert_eq!((accepted.status.as_u16(), accepted.body.len()), (202, 0));
        eventually(|| told.count("n") == 2).await;
        assert_eq!(told.count("notifications/roots/list_changed"), 2);

        let hello = json!([call(9, "initialize", json!({}))]);
        let many: Vec<_> = (0..200).map(|id| call(id, "f/echo", json!({}))).collect();
        let twice = json!([call(1, "f/echo", json!({})), call(1, "f/echo", json!({}))]);
        let mixed = json!([call(1, "f/echo", json!({})), 7]);
        for bad in [json!([]), hello, Value::from(many), twice, mixed] {
            let refused = session.post(&bad).await;
            assert_eq!(refused.refusal(), (400, -32_600), "{refused:?}");
        }
        for version in ["2025-06-18", "2025-11-25"] {
            let session = server.client().initialize(version).await;
            assert_eq!(session.post(&batch).await.refusal(), (400, -32_600));
        }
        let client = server.client();
        let without = client.send(client.post("/mcp", &batch)).await;
        assert_eq!(without.refusal(), (400, -32_600));
    })
    .await;
}

#[tokio::test]
async fn an_id_in_flight_is_taken_and_64_calls_are_all() {
    bounded(async {
        let (server, told) = TestServer::fixture().await;
        let session = server.client().h2().initialize("2025-11-25").await;
        let calls: Vec<_> = (0..64).map(|id| call(id, "f/gate", json!({ "id": id }))).collect();
        let held = join_all(calls.iter().map(|call| session.stream(call))).await;
        eventually(|| told.count("f/gate") == 64).await;
        let more = session.post(&call(64, "f/echo", json!({}))).await;
        assert_eq!(more.refusal(), (429, -32_000));
        assert!(more.header("retry-after").parse::<u32>().unwrap() > 0);
        assert_eq!(more.json()["id"], 64);
        told.gate.add_permits(1);
        let freed = loop {
            let answer = session.post(&call(64, "f/echo", json!({}))).await;
            if answer.status == 200 {
                break answer;
            }
        };
        assert_eq!(freed.message()["id"], 64);
        let doubled = session.post(&call(63, "f/echo", json!({}))).await;
        assert_eq!(doubled.refusal(), (400, -32_600));
        assert_eq!(doubled.json()["id"], 63);
        told.gate.add_permits(63);
        for (id, mut stream) in held.into_iter().enumerate() {
            let answers = stream.rest().await;
            assert_eq!(answers, [json!({ "jsonrpc": "2.0", "id": id, "result": { "id": id } })]);
        }
    })
    .await;
}

#[tokio::test]
async fn the_version_header_may_be_missing_or_of_another_legacy_revision() {
    bounded(async {
        let (server, _told) = TestServer::fixture().await;
        let client = server.client();
        let session = client.initialize("2025-06-18").await;
        let versioned = |version: Option<&str>| {
            let body = call(1, "f/echo", json!({})).to_string();
            let mut request = client.post_bytes("/mcp", body);
            let headers = request.headers_mut();
            headers.insert("mcp-session-id", session.id.parse().unwrap());
            if let Some(version) = version {
                headers.insert("mcp-protocol-version", version.parse().unwrap());
            }
            request
        };
        for fine in [None, Some("2025-11-25"), Some("2025-03-26"), Some("2024-11-05")] {
            assert_eq!(client.send(versioned(fine)).await.status, 200, "{fine:?}");
        }
        for bad in ["2025-01-01", "1", "latest"] {
            let refused = client.send(versioned(Some(bad))).await;
            assert_eq!(refused.refusal(), (400, -32_000), "{bad}");
            let get = client.request("GET", "/mcp").header("mcp-session-id", &session.id);
            let get = get.header("mcp-protocol-version", bad).header("accept", "*/*");
            assert_eq!(client.bare(get).await.refusal(), (400, -32_000), "{bad}");
        }
        let twice = session.request("POST").header("mcp-protocol-version", "2025-06-18");
        let twice = twice.header("content-type", "application/json");
        let body = call(1, "f/echo", json!({})).to_string();
        assert_eq!(client.send(twice.body(Full::new(body.into())).unwrap()).await.status, 400);
    })
    .await;
}

#[tokio::test]
async fn a_modern_request_is_refused_so_that_its_client_falls_back() {
    bounded(async {
        let (server, told) = TestServer::fixture().await;
        for client in both(&server) {
            let meta = json!({ "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": { "name": "t", "version": "1" },
                "io.modelcontextprotocol/clientCapabilities": {},
            } });
            let discover = client.post("/mcp", &call("probe-1", "server/discover", meta.clone()));
            let mut by_header = client.post("/mcp", &call(0, "tools/list", json!({})));
            let mut notified = client.post("/mcp", &note("f/note", json!({})));
            for request in [&mut by_header, &mut notified] {
                let headers = request.headers_mut();
                headers.insert("mcp-protocol-version", "2026-07-28".parse().unwrap());
            }
            for (request, id) in [(discover, json!("probe-1")), (by_header, json!(0))] {
                let refused = client.send(request).await;
                assert_eq!(refused.refusal(), (400, -32_000), "{refused:?}");
                assert_eq!(refused.json()["id"], id);
                assert_eq!(refused.header("mcp-session-id"), "");
            }
            let dropped = client.send(client.post("/mcp", &note("f/note", meta))).await;
            assert_eq!((dropped.status.as_u16(), dropped.body.len()), (202, 0));
            assert_eq!(client.send(notified).await.status, 202);
            for method in ["GET", "DELETE"] {
                let request = client.request(method, "/mcp").header("accept", "text/event-stream");
                let answer =
                    client.bare(request.header("mcp-protocol-version", "2026-07-28")).await;
                assert_eq!(answer.status, 405, "{method}");
                assert!(answer.header("allow").contains("POST"));
            }
            client.initialize("2025-11-25").await;
        }
        assert_eq!(told.count("f/note"), 0);
    })
    .await;
}

#[tokio::test]
async fn somebody_elses_session_is_as_unknown_as_none() {
    bounded(async {
        let (server, told) = TestServer::fixture().await;
        for (client, round) in both(&server).into_iter().zip(1..) {
            let mine = client.initialize("2025-11-25").await;
            let stream = mine.listen(None).await.events();
            let theirs = Session { client: client.clone().token(OTHER_TOKEN), ..mine.clone() };
            let none = Session { id: "0".repeat(64), ..theirs.clone() };
            let hang = mine.stream(&call(1, "f/hang", json!({}))).await;
            let cancel = note("notifications/cancelled", json!({ "requestId": 1 }));
            for body in [call(1, "f/echo", json!({})), cancel] {
                let foreign = theirs.post(&body).await;
                let unknown = none.post(&body).await;
                assert_eq!(foreign.refusal(), (404, -32_001));
                assert_eq!((foreign.status, foreign.body), (unknown.status, unknown.body));
            }
            let foreign = theirs.delete().await;
            let unknown = none.delete().await;
            assert_eq!(foreign.refusal(), (404, -32_001));
            assert_eq!(foreign.body, unknown.body);
            let foreign =
                theirs.request("GET").header("accept", "*/*").header("last-event-id", "0-0");
            assert_eq!(client.bare(foreign).await.refusal(), (404, -32_001));
            assert_eq!(told.count("dropped"), round - 1);
            mine.call(2, "f/echo", json!({})).await;
            drop((stream, hang));
            assert_eq!(mine.delete().await.status, 204);
            eventually(|| told.count("dropped") == round).await;
        }
    })
    .await;
}

#[tokio::test]
async fn initialize_makes_a_new_session_unless_the_old_one_lives() {
    bounded(async {
        let (server, _told) = TestServer::fixture().await;
        let client = server.client();
        let session = client.initialize("2025-11-25").await;
        let again = session.post(&hello("2025-11-25")).await;
        assert_eq!(again.refusal(), (400, -32_600));
        assert_eq!(session.delete().await.status, 204);
        for id in [session.id.clone(), "never-was".to_owned()] {
            let dead = Session { id, ..session.clone() };
            let answer = dead.post(&hello("2025-11-25")).await;
            assert_eq!(answer.status, 200);
            let fresh = answer.header("mcp-session-id").to_owned();
            assert!(fresh.len() >= 43 && fresh != session.id);
            Session { id: fresh, ..session.clone() }.call(1, "f/echo", json!({})).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_session_that_is_deleted_ends_its_calls_and_streams() {
    bounded(async {
        let (server, told) = TestServer::fixture().await;
        for (client, round) in both(&server).into_iter().zip(1..) {
            let session = client.initialize("2025-11-25").await;
            let mut standalone = session.listen(None).await.events();
            let mut hang = session.stream(&call(1, "f/hang", json!({}))).await.events();
            let ask = json!({ "method": "roots/list", "params": {} });
            let mut asking = session.stream(&call(2, "f/ask", ask)).await.events();
            asking.message().await;
            assert_eq!(session.delete().await.status, 204);
            eventually(|| told.count("dropped") == round).await;
            for (id, stream) in [(1, &mut hang), (2, &mut asking)] {
                let rest = stream.rest().await;
                assert_eq!(rest[0]["id"], id);
                assert_eq!(rest[0]["error"]["code"], -32_603);
            }
            assert_eq!(standalone.rest().await, Vec::<Value>::new());
        }
        assert!(server.stop().await);
    })
    .await;
}

#[tokio::test]
async fn a_trailing_slash_makes_no_difference() {
    bounded(async {
        let (server, _told) = TestServer::fixture().await;
        for client in both(&server) {
            let answer = client.send(client.post("/mcp/", &hello("2025-11-25"))).await;
            assert_eq!((answer.status.as_u16(), answer.header("location")), (200, ""));
            let id = answer.header("mcp-session-id");
            let queried = client.send(client.post("/mcp?x=1", &hello("2025-11-25"))).await;
            assert_eq!(queried.status, 200);
            let delete = client.request("DELETE", "/mcp/").header("mcp-session-id", id);
            assert_eq!(client.bare(delete).await.status, 204);
        }
    })
    .await;
}

#[tokio::test]
async fn what_needs_a_session_says_so() {
    bounded(async {
        let (server, _told) = TestServer::fixture().await;
        let client = server.client();
        let answer = json!({ "jsonrpc": "2.0", "id": 1, "result": {} });
        let refused = client.send(client.post("/mcp", &answer)).await;
        assert_eq!(refused.refusal(), (400, -32_000));
        let get = client.request("GET", "/mcp").header("accept", "text/event-stream");
        let get = get.header("mcp-protocol-version", "2025-06-18");
        assert_eq!(client.bare(get).await.refusal(), (400, -32_000));
        assert_eq!(client.bare(client.request("DELETE", "/mcp")).await.refusal(), (400, -32_000));
        let session = client.initialize("2025-11-25").await;
        // An answer that nobody waits for is no mistake that the client could mend.
        assert_eq!(session.post(&answer).await.status, 202);
    })
    .await;
}
