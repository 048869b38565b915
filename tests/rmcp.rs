//! Promise: the reference client of the Rust SDK works over TLS, as it comes.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails, helpers of it too")]

mod support;

use mcp_edge::Behind;
use rmcp::ServiceExt;
use rmcp::model::CallToolRequestParams;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use support::{Mark, TOKEN, TestServer, bounded, config};

async fn whole_conversation(server: &TestServer) {
    let ca = std::fs::read(&server.ca).unwrap();
    let http = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&ca).unwrap()])
        .build()
        .unwrap();
    let url = format!("https://localhost:{}/mcp", server.address.port());
    let config = StreamableHttpClientTransportConfig::with_uri(url).auth_header(TOKEN);
    let transport = StreamableHttpClientTransport::with_client(http, config);
    let client = ().serve(transport).await.unwrap();
    let info = client.peer_info().unwrap();
    assert_eq!(info.server_info.name, "mcp-edge-diagnostics");
    let tools = client.list_all_tools().await.unwrap();
    let mut names: Vec<_> = tools.iter().map(|tool| tool.name.to_string()).collect();
    names.sort_unstable();
    assert_eq!(names, ["count", "echo", "fail", "whoami"]);
    client.cancel().await.unwrap();
}

#[tokio::test]
async fn rmcp_talks_to_a_handler() {
    bounded(async {
        let server = TestServer::start(config(), Behind::diagnostics()).await;
        whole_conversation(&server).await;
        assert!(server.stop().await);
    })
    .await;
}
