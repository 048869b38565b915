//! Promise: HTTP+SSE of 2024-11-05 works on `/sse` and by GET on the unified path, and nothing of a
//! session is left once its stream is closed.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends where it fails, helpers of it too"
)]

mod support;

use http_body_util::Full;
use serde_json::{Value, json};
use support::{
    Answer, Client, Mark, OTHER_TOKEN, SCRIPT, Stream, TestServer, bounded, call, config,
    eventually, hello, note,
};

const PATHS: [&str; 3] = ["/sse", "/mcp", "/sse/"];

struct Legacy {
    client: Client,
    stream: Stream,
    /// Where messages are posted, as the server named it.
    endpoint: String,
}

impl Legacy {
    async fn open(client: &Client, path: &str) -> Self {
        let get = client.request("GET", path).header("accept", "text/event-stream");
        let mut stream = client.open(get.body(Full::default()).unwrap()).await.events();
        assert_eq!(stream.headers.get("mcp-session-id"), None);
        let first = stream.next().await.unwrap();
        assert_eq!((first.name.as_deref(), first.id), (Some("endpoint"), None));
        let endpoint = first.data.unwrap();
        assert!(endpoint.starts_with('/') && !endpoint.starts_with("//"), "{endpoint}");
        Self { client: client.clone(), stream, endpoint }
    }

    async fn post(&self, body: &Value) -> Answer {
        self.client.send(self.client.post(&self.endpoint, body)).await
    }

    async fn tell(&self, body: &Value) {
        let answer = self.post(body).await;
        assert_eq!(answer.status, 202, "{answer:?}");
    }

    async fn ask(&mut self, body: &Value) -> Value {
        self.tell(body).await;
        self.stream.message().await
    }

    async fn initialize(&mut self, version: &str) {
        let answer = self.ask(&hello(version)).await;
        assert_eq!(
            (&answer["id"], &answer["result"]["protocolVersion"]),
            (&json!(0), &json!(version))
        );
        self.tell(&note("notifications/initialized", json!({}))).await;
    }
}

fn clients(server: &TestServer) -> [Client; 2] {
    [server.client(), server.client().h2()]
}

#[tokio::test]
async fn a_whole_conversation_on_one_stream() {
    bounded(async {
        let (server, told) = TestServer::fixture().await;
        for (client, path) in clients(&server).iter().flat_map(|it| PATHS.map(|path| (it, path))) {
            for version in ["2024-11-05", "2025-11-25"] {
                let mut legacy = Legacy::open(client, path).await;
                legacy.initialize(version).await;
                let echo = legacy.ask(&call("a", "f/echo", json!({ "ü": 1 }))).await;
                assert_eq!(echo, json!({ "jsonrpc": "2.0", "id": "a", "result": { "ü": 1 } }));
                let ask = json!({ "method": "roots/list", "params": {} });
                let question = legacy.ask(&call(2, "f/ask", ask)).await;
                assert_eq!(question["method"], "roots/list");
                let roots = json!({ "roots": [] });
                let answer = json!({ "jsonrpc": "2.0", "id": question["id"], "result": roots });
                assert_eq!(legacy.ask(&answer).await["result"], roots);
                let meta = json!({ "_meta": { "progressToken": "p" } });
                let progress = legacy.ask(&call(3, "f/progress", meta)).await;
                assert_eq!(progress["params"]["progressToken"], "p");
                for _ in 0..2 {
                    assert_eq!(legacy.stream.message().await["method"], "notifications/progress");
                }
                assert_eq!(legacy.stream.message().await["id"], 3);
                let caller = legacy.ask(&call(4, "f/caller", json!({}))).await;
                assert_eq!(caller["result"]["transport"], "http+sse");
            }
        }
        assert_eq!(told.count("notifications/initialized"), 12);
        assert!(server.stop().await);
    })
    .await;
}

#[tokio::test]
async fn a_cancelled_call_ends_and_the_session_goes_on() {
    bounded(async {
        let (server, told) = TestServer::fixture().await;
        let mut legacy = Legacy::open(&server.client(), "/sse").await;
        legacy.initialize("2024-11-05").await;
        legacy.tell(&call(1, "f/hang", json!({}))).await;
        eventually(|| told.count("f/hang") == 1).await;
        legacy.tell(&note("notifications/cancelled", json!({ "requestId": 1 }))).await;
        eventually(|| told.count("dropped") == 1).await;
        legacy.tell(&call(2, "f/echo", json!({}))).await;
        loop {
            // The cancelled call may be answered by an error, or by nothing.
            let message = legacy.stream.message().await;
            if message["id"] == 2 {
                return;
            }
            assert_eq!(message["id"], 1);
        }
    })
    .await;
}

#[tokio::test]
async fn messages_need_a_session_of_ones_own() {
    bounded(async {
        let (server, _told) = TestServer::fixture().await;
        for client in clients(&server) {
            let legacy = Legacy::open(&client, "/sse").await;
            let body = call(1, "f/echo", json!({}));
            let to = |client: &Client, path: &str| {
                let client = client.clone();
                let request = client.post(path, &body);
                async move { client.send(request).await }
            };
            for path in ["/messages", "/messages?sessionId=", "/messages?x=1"] {
                assert_eq!(to(&client, path).await.refusal(), (400, -32_000), "{path}");
            }
            let unknown = to(&client, &format!("/messages?sessionId={}", "0".repeat(64))).await;
            let foreign = to(&client.clone().token(OTHER_TOKEN), &legacy.endpoint).await;
            assert_eq!(unknown.refusal(), (404, -32_001));
            assert_eq!((foreign.status, foreign.body), (unknown.status, unknown.body));
            // Nor is it one of the other transport.
            let streamable = client.initialize("2025-11-25").await;
            let mixed = to(&client, &format!("/messages?sessionId={}", streamable.id)).await;
            assert_eq!(mixed.refusal(), (404, -32_001));
            let id = legacy.endpoint.split_once('=').unwrap().1;
            let mut mixed = client.post("/mcp", &body);
            mixed.headers_mut().insert("mcp-session-id", id.parse().unwrap());
            assert_eq!(client.send(mixed).await.refusal(), (404, -32_001));
            let garbage = client.post_bytes(&legacy.endpoint, "{nope");
            assert_eq!(client.send(garbage).await.refusal(), (400, -32_700));
            let batch = json!([body]);
            assert_eq!(legacy.post(&batch).await.refusal(), (400, -32_600));
        }
    })
    .await;
}

#[tokio::test]
async fn other_methods_are_405_and_say_which_are_not() {
    bounded(async {
        let (server, _told) = TestServer::fixture().await;
        for client in clients(&server) {
            for (method, path, allowed) in [
                ("POST", "/sse", "GET"),
                ("DELETE", "/sse", "GET"),
                ("PUT", "/sse", "GET"),
                ("GET", "/messages", "POST"),
                ("DELETE", "/messages", "POST"),
            ] {
                let answer = client.bare(client.request(method, path)).await;
                assert_eq!(answer.status, 405, "{method} {path}");
                assert!(answer.header("allow").contains(allowed), "{answer:?}");
                assert!(answer.json().is_object());
            }
            let post = client.send(client.post("/sse", &hello("2025-11-25"))).await;
            assert_eq!(post.status, 405);
            let refused = client.bare(client.request("GET", "/sse").header("accept", "text/html"));
            assert_eq!(refused.await.status, 406);
        }
    })
    .await;
}

#[tokio::test]
async fn a_session_and_its_child_end_with_the_stream() {
    bounded(async {
        let mark = Mark::new();
        let server = TestServer::start(config(), mark.diagnostics()).await;
        for client in clients(&server) {
            let mut legacy = Legacy::open(&client, "/sse").await;
            legacy.initialize("2024-11-05").await;
            assert_eq!(mark.programs().len(), 1);
            let Legacy { stream, endpoint, .. } = legacy;
            drop(stream);
            mark.gone().await;
            let late = client.send(client.post(&endpoint, &call(1, "ping", json!({})))).await;
            assert_eq!(late.refusal(), (404, -32_001));
        }
    })
    .await;
}

#[tokio::test]
async fn a_stream_ends_when_its_child_does() {
    bounded(async {
        let mark = Mark::new();
        let server = TestServer::start(config(), mark.sh(SCRIPT)).await;
        let mut legacy = Legacy::open(&server.client(), "/sse").await;
        legacy.initialize("2024-11-05").await;
        legacy.tell(&call(7, "t/hold", json!({}))).await;
        let pid = legacy.ask(&call(8, "t/pid", json!({}))).await["result"]["pid"].clone();
        kill(&pid);
        let error = legacy.stream.message().await;
        assert_eq!((&error["id"], &error["error"]["code"]), (&json!(7), &json!(-32_603)));
        let told = legacy.stream.next().await.unwrap();
        assert_eq!((told.name.as_deref(), told.message().is_some()), (Some("error"), true));
        assert!(legacy.stream.next().await.is_none());
    })
    .await;
}

fn kill(pid: &Value) {
    let pid = i32::try_from(pid.as_i64().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_client_that_came_back_without_a_word_is_served() {
    bounded(async {
        let mark = Mark::new();
        let server = TestServer::start(config(), mark.diagnostics()).await;
        for path in PATHS {
            let mut legacy = Legacy::open(&server.client(), path).await;
            let params = json!({ "name": "echo", "arguments": { "text": "back" } });
            let answer = legacy.ask(&call("x", "tools/call", params)).await;
            assert_eq!(answer["id"], "x");
            assert_eq!(answer["result"]["content"][0]["text"], "back");
            assert_eq!(legacy.ask(&call(1, "tools/list", json!({}))).await["id"], 1);
        }
        assert!(server.stop().await);
        mark.gone().await;
    })
    .await;
}

#[tokio::test]
async fn the_endpoint_stays_beneath_the_path_that_was_asked() {
    bounded(async {
        let config = mcp_edge::Config { path: "/api/v1/mcp".to_owned(), ..config() };
        let behind = mcp_edge::Behind::handler(support::Fixture::new().0);
        let server = TestServer::start(config, behind).await;
        for client in clients(&server) {
            for (path, beneath) in [
                ("/api/v1/mcp", "/api/v1/mcp/messages?sessionId="),
                ("/api/v1/mcp/", "/api/v1/mcp/messages?sessionId="),
                ("/sse", "/messages?sessionId="),
            ] {
                let mut legacy = Legacy::open(&client, path).await;
                assert!(legacy.endpoint.starts_with(beneath), "{path}: {}", legacy.endpoint);
                legacy.initialize("2024-11-05").await;
                // Both paths take the messages of any such session, with a slash at the end too.
                let id = legacy.endpoint.split_once('=').unwrap().1.to_owned();
                for path in ["/api/v1/mcp/messages", "/api/v1/mcp/messages/", "/messages"] {
                    legacy.endpoint = format!("{path}?sessionId={id}");
                    let echo = legacy.ask(&call(path, "f/echo", json!({}))).await;
                    assert_eq!(echo["id"], path);
                }
            }
            let other = client.bare(client.request("GET", "/api/v1/mcp/messages")).await;
            assert_eq!((other.status.as_u16(), other.header("allow")), (405, "POST, OPTIONS"));
        }
    })
    .await;
}
