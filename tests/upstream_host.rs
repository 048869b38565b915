//! Promise: the operator says which `Host` an upstream is sent, and is told if the upstream refuses one.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails, helpers of it too")]

mod support;

use http::HeaderValue;
use http_body_util::Full;
use mcp_edge::{Behind, PassRule, Upstream, UpstreamHost};
use serde_json::json;
use support::{Act, Scripted, Seen, TestServer, bounded, call, config, hello, piped};

fn host(seen: &Seen) -> String {
    let hosts: Vec<_> = seen.headers.get_all("host").iter().collect();
    assert_eq!(hosts.len(), 1, "{hosts:?}");
    hosts.first().unwrap().to_str().unwrap().to_owned()
}

/// As `FastMCP` does that knows itself by this name.
async fn picky(name: &'static str) -> Scripted {
    Scripted::new(move |seen| {
        if host(seen).split(':').next() == Some(name) {
            Act::Well
        } else {
            Act::Say(421, "Invalid Host header".to_owned())
        }
    })
    .await
}

fn before(upside: &Scripted, host: UpstreamHost) -> Behind {
    let pass = vec![
        PassRule { path: "/p".to_owned(), beneath: true, open: false },
        PassRule { path: "/health".to_owned(), beneath: false, open: true },
    ];
    Behind::upstream(Upstream { host, pass, ..upside.upstream() })
}

/// What a bare call, a session, both kinds of passed paths, and readiness are answered.
async fn statuses(server: &TestServer) -> Vec<(&'static str, u16)> {
    let client = server.client();
    let tool = call(1, "tools/call", json!({ "name": "act", "arguments": {} }));
    let bare = client.send(client.post("/mcp", &tool)).await;
    let bare = if bare.json().get("result").is_some() { 200 } else { 0 };
    let session = client.send(client.post("/mcp", &hello("2025-06-18"))).await;
    let session = if session.message().get("result").is_some() { 200 } else { 0 };
    let put = |path| client.request("PUT", path).body(Full::default()).unwrap();
    let passed = client.send(put("/p/a")).await.status.as_u16();
    let open = client.send(put("/health")).await.status.as_u16();
    let ready = client.bare(client.request("GET", "/readyz")).await.status.as_u16();
    vec![("bare", bare), ("session", session), ("pass", passed), ("open", open), ("ready", ready)]
}

#[tokio::test]
async fn an_upstream_gets_the_host_that_it_is_said_to_want() {
    bounded(async {
        let fine = [("bare", 200), ("session", 200), ("pass", 202), ("open", 202), ("ready", 200)];
        let upside = picky("mcp.internal").await;
        let named = UpstreamHost::Named(HeaderValue::from_static("mcp.internal:9000"));
        let server = TestServer::start(config(), before(&upside, named)).await;
        assert_eq!(statuses(&server).await, fine);
        assert!(upside.seen().iter().all(|seen| host(seen) == "mcp.internal:9000"));

        let upside = picky("localhost").await;
        let server = TestServer::start(config(), before(&upside, UpstreamHost::Client)).await;
        assert_eq!(statuses(&server).await, fine);
        // The edge's own questions too.
        let sent = format!("localhost:{}", server.address.port());
        assert!(upside.seen().iter().all(|seen| host(seen) == sent));

        let upside = picky("127.0.0.1").await;
        let server = TestServer::start(config(), before(&upside, UpstreamHost::Own)).await;
        assert_eq!(statuses(&server).await, fine);
        let own = upside.address.to_string();
        assert!(upside.seen().iter().all(|seen| host(seen) == own));
    })
    .await;
}

#[tokio::test]
async fn a_host_that_is_refused_is_told_with_the_option_that_mends_it() {
    bounded(async {
        for (status, body) in [
            (421, "Invalid Host header"),
            (403, "Forbidden: Host header is not allowed"),
            (400, r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"Invalid Host: a"}}"#),
        ] {
            for kind in ["auto", "sse", "streamable"] {
                let upside = Scripted::new(move |_| Act::Say(status, body.to_owned())).await;
                let url = format!("http://{}/mcp?key=secret", upside.address);
                let options =
                    ["--upstream-wait=0s", "--upstream-kind", kind, "--upstream", url.as_str()];
                let output = piped(&options, &format!("{}\n", hello("2025-06-18"))).await;
                let answer = String::from_utf8(output.stdout).unwrap();
                let log = String::from_utf8(output.stderr).unwrap();
                let option = "--upstream-host (MCP_UPSTREAM_HOST)";
                assert!(answer.contains("refuses the Host") && answer.contains(option), "{answer}");
                let sent = format!("host=\"{}\"", upside.address);
                let told = log.lines().filter(|it| it.contains(option) && it.contains(&sent));
                assert_eq!(told.count(), 1, "{kind} {status}: {log}");
                assert!(!log.contains("secret") && !answer.contains("secret"), "{log}");
            }
        }
    })
    .await;
}
