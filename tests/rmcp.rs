//! Promise: the client of the Rust SDK works over TLS as it comes, whatever stands behind.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails, helpers of it too")]

mod support;

use std::sync::Arc;

use mcp_edge::Behind;
use parking_lot::Mutex;
use rmcp::model::{CallToolRequestParams, ProgressNotificationParam};
use rmcp::service::NotificationContext;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientHandler, RoleClient, ServiceExt};
use serde_json::{Value, json};
use support::{Mark, OTHER_TOKEN, TOKEN, TestServer, bounded, config};

/// Writes down the progress that it is told of.
#[derive(Clone, Default)]
struct Noting(Arc<Mutex<Vec<f64>>>);

impl ClientHandler for Noting {
    async fn on_progress(
        &self,
        params: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        self.0.lock().push(params.progress);
    }
}

fn transport(server: &TestServer, token: &str) -> StreamableHttpClientTransport<reqwest::Client> {
    let ca = std::fs::read(&server.ca).unwrap();
    let ca = reqwest::Certificate::from_pem(&ca).unwrap();
    let http = reqwest::Client::builder().tls_certs_only([ca]).build().unwrap();
    let url = format!("https://localhost:{}/mcp", server.address.port());
    let config = StreamableHttpClientTransportConfig::with_uri(url).auth_header(token);
    StreamableHttpClientTransport::with_client(http, config)
}

fn tool(name: &'static str, arguments: &Value) -> CallToolRequestParams {
    CallToolRequestParams::new(name).with_arguments(arguments.as_object().unwrap().clone())
}

async fn whole_conversation(server: &TestServer) {
    let noting = Noting::default();
    let client = noting.clone().serve(transport(server, TOKEN)).await.unwrap();
    let info = serde_json::to_value(client.peer_info().unwrap()).unwrap();
    assert_eq!(info.pointer("/serverInfo/name"), Some(&json!("mcp-edge-diagnostics")));
    let tools = client.list_all_tools().await.unwrap();
    let mut names: Vec<_> = tools.iter().map(|tool| tool.name.to_string()).collect();
    names.sort_unstable();
    assert_eq!(names, ["count", "echo", "fail", "whoami"]);

    let echo = client.call_tool(tool("echo", &json!({ "text": "ü\n" }))).await.unwrap();
    let echo = serde_json::to_value(echo).unwrap();
    assert_eq!(echo.pointer("/content/0/text"), Some(&json!("ü\n")));
    client.call_tool(tool("count", &json!({ "n": 4, "delay_ms": 20 }))).await.unwrap();
    let steps = noting.0.lock().clone();
    assert_eq!(steps, [1.0, 2.0, 3.0, 4.0]);
    let failed = client.call_tool(tool("fail", &json!({ "message": "no" }))).await.unwrap();
    assert_eq!(failed.is_error, Some(true));
    let refused = client.call_tool(tool("fail", &json!({ "protocol": true }))).await;
    assert!(refused.unwrap_err().to_string().contains("as asked"));

    assert_eq!(client.list_all_resources().await.unwrap().len(), 1);
    assert_eq!(client.list_all_prompts().await.unwrap().len(), 1);
    client.cancel().await.unwrap();
}

#[tokio::test]
async fn it_talks_to_a_handler() {
    bounded(async {
        let server = TestServer::start(config(), Behind::diagnostics()).await;
        whole_conversation(&server).await;
        assert!(server.stop().await);
    })
    .await;
}

#[tokio::test]
async fn it_talks_to_a_child_which_ends_with_it() {
    bounded(async {
        let mark = Mark::new();
        let server = TestServer::start(config(), mark.diagnostics()).await;
        whole_conversation(&server).await;
        // Closing the client ends its session: nobody waits for the idle time.
        mark.gone().await;
        assert!(server.stop().await);
    })
    .await;
}

#[tokio::test]
async fn many_at_once_do_not_meet() {
    bounded(async {
        let mark = Mark::new();
        let server = TestServer::start(config(), mark.diagnostics()).await;
        let talks = (0..6).map(|_| whole_conversation(&server));
        futures_util::future::join_all(talks).await;
        mark.gone().await;
    })
    .await;
}

#[tokio::test]
async fn without_a_good_token_it_is_told_so() {
    bounded(async {
        let server = TestServer::start(config(), Behind::diagnostics()).await;
        let error = ().serve(transport(&server, "wrong")).await.err().unwrap();
        let text = format!("{error:?}").to_ascii_lowercase();
        assert!(text.contains("auth") || text.contains("401"), "{text}");
        ().serve(transport(&server, OTHER_TOKEN)).await.unwrap().cancel().await.unwrap();
    })
    .await;
}
