//! Promise: every response says which request it answers and how a browser must not misread it, and
//! only certificates of the operator's bind clients to TLS.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use mcp_edge::{Behind, CertFiles, Config, Server, TlsSource};
use serde_json::json;
use support::{
    Answer, Client, Fixture, RawAnswer, RawClient, TestServer, bounded, call, config, hello,
    trusting,
};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const ALWAYS: [(&str, &str); 5] = [
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("x-xss-protection", "0"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
];

/// Answers of every kind.
async fn answers(client: &Client) -> Vec<Answer> {
    let bare = client.post("/mcp", &call(1, "f/echo", json!({})));
    let stranger = client.clone().stranger();
    vec![
        client.send(bare).await,
        client.send(client.post("/mcp", &hello("2025-11-25"))).await,
        client.send(client.post("/mcp", &json!([]))).await,
        client.bare(client.request("PUT", "/mcp")).await,
        client.bare(client.request("GET", "/nowhere")).await,
        client.bare(client.request("GET", "/register")).await,
        client.bare(client.request("OPTIONS", "/mcp")).await,
        client.bare(client.request("HEAD", "/nowhere")).await,
        client.bare(client.request("POST", "/mcp")).await,
        client.bare(client.request("GET", "/mcp").header("origin", "https://evil.example")).await,
        client.bare(client.request("GET", "/mcp").header("x", "x".repeat(40_000))).await,
        stranger.bare(stranger.request("GET", "/mcp")).await,
        stranger.bare(stranger.request("GET", "/livez")).await,
        stranger.bare(stranger.request("HEAD", "/readyz")).await,
    ]
}

#[tokio::test]
async fn every_answer_has_them_and_a_name_of_its_own() {
    bounded(async {
        let (server, _told) = TestServer::fixture().await;
        let mut names = BTreeSet::new();
        for client in [server.client(), server.client().h2()] {
            for answer in answers(&client).await {
                for (name, value) in ALWAYS {
                    assert_eq!(answer.header(name), value, "{name}: {answer:?}");
                }
                assert!(!answer.header("cache-control").is_empty());
                assert_eq!(answer.header("server"), "");
                assert_eq!(answer.header("strict-transport-security"), "", "self-signed");
                let name = answer.header("x-request-id");
                assert_eq!(name.len(), 16, "{answer:?}");
                assert!(names.insert(name.to_owned()), "{name} twice");
            }
        }
    })
    .await;
}

/// Has an answer that no request led to what all have?
fn is_dressed(answer: &RawAnswer) {
    for (name, value) in ALWAYS {
        let line = format!("\r\n{name}: {value}\r\n").to_ascii_lowercase();
        assert!(answer.head.contains(&line), "{name}: {}", answer.head);
    }
    assert!(answer.head.contains("\r\ncache-control: no-store\r\n"));
}

#[tokio::test]
async fn what_is_no_request_is_refused_with_them_too() {
    bounded(async {
        let (server, _told) = TestServer::fixture().await;
        let mut raw = server.raw().await;
        raw.send("this is not HTTP\r\n\r\n").await;
        let answer = raw.answer().await.unwrap();
        assert_eq!((answer.status, &answer.json()["error"]), (400, &"bad_request".into()));
        is_dressed(&answer);
    })
    .await;
}

#[tokio::test]
async fn health_says_no_more_than_that() {
    bounded(async {
        let (server, _told) = TestServer::fixture().await;
        for client in [server.client().stranger(), server.client().stranger().h2()] {
            let livez = client.bare(client.request("GET", "/livez")).await;
            let of_http = ["cache-control", "content-length", "date", "x-request-id"];
            let always = ALWAYS.map(|(name, _)| name);
            let mut names = livez.headers.keys().map(http::HeaderName::as_str);
            assert!(names.all(|name| of_http.contains(&name) || always.contains(&name)));
            assert!(livez.body.is_empty());
        }
    })
    .await;
}

#[tokio::test]
async fn plain_http_where_tls_is_spoken_is_refused_with_them_too() {
    bounded(async {
        let (server, _told) = TestServer::fixture().await;
        let mut raw = RawClient::on(TcpStream::connect(server.address).await.unwrap());
        raw.send("GET /mcp HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        let answer = raw.answer().await.unwrap();
        assert_eq!((answer.status, &answer.json()["error"]), (400, &"plain_http".into()));
        is_dressed(&answer);
    })
    .await;
}

#[tokio::test]
async fn only_the_operators_certificates_bind_clients_to_tls() {
    bounded(async {
        // The files of a self-signed one do as well as any other.
        let certs = tempfile::tempdir().unwrap();
        let dir = certs.path();
        let made = TlsSource::SelfSigned { dir: dir.to_owned(), names: Vec::new() };
        let made = Server::bind(Config { tls: made, ..config() }, Behind::diagnostics());
        let trusted = trusting(&Box::pin(made).await.unwrap().ca().unwrap());
        let files = CertFiles { cert: dir.join("cert.pem"), key: dir.join("key.pem") };
        for (tls, bound) in [(TlsSource::Files(vec![files]), true), (TlsSource::None, false)] {
            let behind = Behind::handler(Fixture::new().0);
            let server = Box::pin(Server::bind(Config { tls, ..config() }, behind)).await.unwrap();
            let address = server.local_addr();
            let mut running = JoinSet::new();
            running.spawn(server.run(std::future::pending()));
            if bound {
                for answer in answers(&Client::new(address, Arc::clone(&trusted))).await {
                    assert_eq!(answer.header("strict-transport-security"), "max-age=31536000");
                }
            } else {
                let mut raw = RawClient::on(TcpStream::connect(address).await.unwrap());
                raw.send("GET /mcp HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
                let answer = raw.answer().await.unwrap();
                assert!(answer.head.contains("x-request-id"), "{answer:?}");
                assert!(!answer.head.contains("strict-transport-security"), "{answer:?}");
            }
        }
    })
    .await;
}
