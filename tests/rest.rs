//! Promise: scripts that speak no JSON-RPC get the whole list of tools and the result of one call
//! as plain JSON, and each way in which that can fail has its status.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends where it fails, helpers of it too"
)]

mod support;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use mcp_edge::{Behind, Config, Limits, Times, Upstream, UpstreamKind};
use serde_json::{Value, json};
use support::{Answer, Client, Mark, TOOLS_SCRIPT, TestServer, bounded, config, upstream_limits};
use tokio::time::Instant;

async fn get(client: &Client, path: &str) -> Answer {
    client.bare(client.request("GET", path)).await
}

async fn post(client: &Client, body: impl Into<Bytes>) -> Answer {
    let request = client.request("POST", "/mcp/call-tool");
    let request = request.header("content-type", "application/json");
    client.send(request.body(Full::new(body.into())).unwrap()).await
}

async fn call(client: &Client, name: &str, arguments: Value) -> Answer {
    post(client, json!({ "name": name, "arguments": arguments }).to_string()).await
}

/// Status and label of a refusal, which is plain JSON and nothing else.
fn refusal(answer: &Answer) -> (u16, String) {
    let body = answer.json();
    assert_eq!(body.as_object().unwrap().len(), 2, "{body}");
    assert!(!body["message"].as_str().unwrap().is_empty(), "{body}");
    assert_eq!(answer.header("cache-control"), "no-store");
    (answer.status.as_u16(), body["error"].as_str().unwrap().to_owned())
}

fn is(answer: &Answer, status: u16, label: &str) {
    assert_eq!(refusal(answer), (status, label.to_owned()), "{answer:?}");
}

/// A server in front of [`TOOLS_SCRIPT`], and its directory.
async fn scripted(config: Config) -> (TestServer, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let server = TestServer::start(config, Mark::new().sh_in(TOOLS_SCRIPT, dir.path())).await;
    (server, dir)
}

fn switch(dir: &Path, name: &str) {
    std::fs::write(dir.join(name), "").unwrap();
}

#[tokio::test]
async fn the_whole_list_comes_in_its_own_bytes() {
    bounded(async {
        let (server, _dir) = scripted(config()).await;
        let whole = concat!(
            r#"{"tools":[{ "name" : "say", "weight":1.0, "inputSchema":{"type":"object","#,
            r#""properties":{"n":{"type":"integer"}},"required":["n"]} },{"name":"moan"},"#,
            r#"{"name":"silent"},{"name":"error"},{"name":"picky"},{"name":"exit"},"#,
            r##"{"name":"tree","inputSchema":{"$ref":"#/$defs/n","$defs":{"n":{"anyOf":["##,
            r##"{"type":"boolean"},{"properties":{"type":{"const":"and"},"args":{"items":"##,
            r##"{"$ref":"#/$defs/n"}}}},{"properties":{"type":{"const":"or"},"args":{"items":"##,
            r##"{"$ref":"#/$defs/n"}}}},{"properties":{"type":{"const":"not"},"args":{"items":"##,
            r##"{"$ref":"#/$defs/n"}}}}]}}}}]}"##,
        );
        for client in [server.client(), server.client().h2()] {
            for path in ["/mcp/tools", "/mcp/tools/", "/tools/list", "/tools/list/"] {
                let answer = get(&client, path).await;
                assert_eq!((answer.status.as_u16(), &*answer.body), (200, whole.as_bytes()));
                assert_eq!(answer.header("content-type"), "application/json");
                assert_eq!(answer.header("mcp-session-id"), "");
                let head = client.bare(client.request("HEAD", path)).await;
                assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
                assert_eq!(head.header("content-length"), whole.len().to_string());
            }
        }
        assert!(server.stop().await);
    })
    .await;
}

#[tokio::test]
async fn the_diagnostics_server_is_listed_and_called_with_any_backend() {
    bounded(async {
        let mark = Mark::new();
        let upstream = TestServer::start(config(), Behind::diagnostics()).await;
        for behind in [
            mark.diagnostics(),
            Behind::diagnostics(),
            upstream.as_upstream(UpstreamKind::Streamable),
            upstream.as_upstream(UpstreamKind::Sse),
        ] {
            let server = TestServer::start(config(), behind).await;
            let client = server.client();
            let list = get(&client, "/tools/list").await.json();
            let names: Vec<_> =
                list["tools"].as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
            assert_eq!(names, ["echo", "whoami", "count", "fail"]);
            let said = call(&client, "echo", json!({ "text": "plain" })).await;
            assert_eq!(said.status, 200);
            let said = said.json();
            assert_eq!(said, json!({ "content": [{ "type": "text", "text": "plain" }] }));
            let none = post(&client, r#"{"name":"whoami"}"#).await;
            assert!(none.json()["structuredContent"]["transport"].is_string());
            let failed = call(&client, "fail", json!({ "message": "as asked" })).await;
            assert_eq!((failed.status.as_u16(), &failed.json()["isError"]), (200, &json!(true)));
            let broken = call(&client, "fail", json!({ "protocol": true })).await;
            is(&broken, 502, "backend_error");
            // The backend judges the arguments, and what it says comes back as it says it.
            let judged = call(&client, "echo", json!({ "text": 5 })).await;
            assert_eq!((judged.status.as_u16(), &judged.json()["isError"]), (200, &json!(true)));
            let said = &judged.json()["content"][0]["text"];
            assert_eq!(said, "`text` is missing: echo needs a string");
            is(&call(&client, "Echo", json!({})).await, 404, "unknown_tool");
            assert!(server.stop().await);
        }
        mark.gone().await;
    })
    .await;
}

#[tokio::test]
async fn a_result_comes_as_the_backend_wrote_it_and_it_got_what_was_checked() {
    bounded(async {
        let (server, dir) = scripted(config()).await;
        let client = server.client();
        let answer = post(&client, r#"{"arguments": {"n" : 1e0, "m":[1.50]} ,"name":"say"}"#).await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.body),
            (200, &br#"{ "content" : [], "weight":1.0 }"#[..])
        );
        let moan = call(&client, "moan", json!({})).await;
        assert_eq!(
            (moan.status.as_u16(), &*moan.body),
            (200, &br#"{"isError":true,"content":[]}"#[..])
        );
        // A schema engine would need memory without end to judge these arguments.
        let mut nested = json!("leaf");
        for _ in 0..30 {
            nested = json!({ "type": "not", "args": [nested] });
        }
        assert_eq!(call(&client, "tree", nested).await.status, 200);
        let calls = std::fs::read_to_string(dir.path().join("calls")).unwrap();
        let forwarded = r#""params":{"name":"say","arguments":{"n" : 1e0, "m":[1.50]}}"#;
        assert!(calls.lines().next().unwrap().contains(forwarded), "{calls}");
        assert_eq!(calls.lines().count(), 3);
    })
    .await;
}

#[tokio::test]
async fn what_is_refused_never_reaches_the_backend() {
    bounded(async {
        let limits = Limits { max_body_bytes: 10_000, ..*config().limits };
        let (server, dir) = scripted(Config { limits: limits.check().unwrap(), ..config() }).await;
        for client in [server.client(), server.client().h2()] {
            for body in [
                "",
                "[]",
                "nope",
                r#"{"arguments":{}}"#,
                r#"{"name":"say","arguments":[]}"#,
                r#"{"name":"say","args":{"n":1}}"#,
                r#"{"name":"say","name":"moan","arguments":{"n":1}}"#,
            ] {
                is(&post(&client, body).await, 400, "not_a_call");
            }
            is(&call(&client, "none", json!({})).await, 404, "unknown_tool");
            let large = json!({ "n": 1, "text": "x".repeat(10_000) });
            is(&call(&client, "say", large).await, 413, "body_too_large");
            let text =
                client.request("POST", "/mcp/call-tool").header("content-type", "text/plain");
            let text = text.body(Full::new(r#"{"name":"moan"}"#.into())).unwrap();
            is(&client.send(text).await, 415, "unsupported_media_type");
        }
        assert!(!dir.path().join("calls").exists());
    })
    .await;
}

#[tokio::test]
async fn faults_and_silence_of_the_backend_are_told_apart() {
    bounded(async {
        let times = Times { call: Duration::from_secs(1), ..*config().times };
        let (server, dir) = scripted(Config { times: times.check().unwrap(), ..config() }).await;
        let client = server.client();
        let begun = Instant::now();
        is(&call(&client, "silent", json!({})).await, 504, "call_timeout");
        assert!(begun.elapsed() >= Duration::from_secs(1));
        let error = call(&client, "error", json!({})).await;
        is(&error, 502, "backend_error");
        assert!(error.json()["message"].as_str().unwrap().ends_with("error -32050: out of order"));
        let picky = call(&client, "picky", json!({ "n": "one" })).await;
        is(&picky, 422, "bad_arguments");
        assert_eq!(picky.json()["message"], "n must be a number");
        let exit = call(&client, "exit", json!({})).await;
        is(&exit, 502, "backend_failed");
        assert!(exit.json()["message"].as_str().unwrap().contains('7'), "{exit:?}");
        for (name, status, label) in [
            ("circle", 502, "backend_error"),
            ("listless", 502, "backend_error"),
            ("page", 504, "call_timeout"),
        ] {
            switch(dir.path(), name);
            is(&get(&client, "/tools/list").await, status, label);
            is(&call(&client, "moan", json!({})).await, status, label);
            std::fs::remove_file(dir.path().join(name)).unwrap();
        }
        assert_eq!(call(&client, "moan", json!({})).await.status, 200);
        assert!(server.stop().await);
    })
    .await;
}

#[tokio::test]
async fn a_backend_that_does_not_start_is_a_fault_and_a_full_house_is_busy() {
    bounded(async {
        let (server, dir) = scripted(config()).await;
        switch(dir.path(), "gone");
        is(&get(&server.client(), "/tools/list").await, 502, "backend_failed");
        let limits = Limits { max_children: 1, ..*config().limits };
        let (server, _dir) = scripted(Config { limits: limits.check().unwrap(), ..config() }).await;
        let client = server.client();
        let session = client.initialize("2025-11-25").await;
        let _stream = session.listen(None).await;
        for refused in [get(&client, "/tools/list").await, call(&client, "moan", json!({})).await] {
            is(&refused, 503, "children_full");
            assert_eq!(refused.header("retry-after"), "5");
        }
        session.delete().await;
    })
    .await;
}

#[tokio::test]
async fn an_upstream_that_is_down_is_a_fault() {
    bounded(async {
        for kind in [UpstreamKind::Streamable, UpstreamKind::Sse, UpstreamKind::Auto] {
            // Nobody listens on a port that was only just given back.
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let url = format!("http://{free}/mcp").parse().unwrap();
            let upstream = Upstream {
                kind,
                limits: upstream_limits(|it| it.wait = Duration::ZERO),
                ..Upstream::new(url)
            };
            let server = TestServer::start(config(), Behind::upstream(upstream)).await;
            let client = server.client();
            is(&get(&client, "/tools/list").await, 502, "backend_failed");
            is(&call(&client, "any", json!({})).await, 502, "backend_failed");
            let ready = get(&client, "/readyz").await;
            assert_eq!((ready.status.as_u16(), ready.body.len()), (503, 0));
        }
    })
    .await;
}

#[tokio::test]
async fn guard_limits_and_methods_are_those_of_any_path() {
    bounded(async {
        let limits = Limits { requests_per_second: 1, burst: 20, ..*config().limits };
        let (server, dir) = scripted(Config { limits: limits.check().unwrap(), ..config() }).await;
        let client = server.client();
        for path in ["/mcp/tools", "/tools/list", "/mcp/call-tool"] {
            is(&get(&client.clone().stranger(), path).await, 401, "unauthorized");
        }
        for (method, path, allow) in [
            ("POST", "/mcp/tools", "GET, HEAD, OPTIONS"),
            ("DELETE", "/tools/list", "GET, HEAD, OPTIONS"),
            ("GET", "/mcp/call-tool", "POST, OPTIONS"),
            ("PUT", "/mcp/call-tool/", "POST, OPTIONS"),
        ] {
            let answer = client.bare(client.request(method, path)).await;
            is(&answer, 405, "method_not_allowed");
            assert_eq!(answer.header("allow"), allow);
        }
        is(&get(&client, "/tools").await, 404, "not_found");
        is(&get(&client, "/call-tool").await, 404, "not_found");
        let mut limited = get(&client, "/tools/list").await;
        for _ in 0..30 {
            if limited.status != 200 {
                break;
            }
            limited = get(&client, "/tools/list").await;
        }
        is(&limited, 429, "rate_limited");
        assert_ne!(limited.header("retry-after"), "");
        assert!(!dir.path().join("calls").exists());
    })
    .await;
}

#[tokio::test]
async fn the_unified_path_may_be_tools() {
    bounded(async {
        let config = Config { path: "/tools".parse().unwrap(), ..config() };
        let server = TestServer::start(config, Behind::diagnostics()).await;
        let client = server.client();
        for path in ["/tools/tools", "/tools/list"] {
            assert_eq!(get(&client, path).await.status, 200, "{path}");
        }
        let bare = support::call(1, "tools/list", json!({}));
        assert_eq!(client.send(client.post("/tools", &bare)).await.status, 200);
    })
    .await;
}
