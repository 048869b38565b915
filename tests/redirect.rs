//! Promise: plain HTTP is sent to the same place over TLS and nowhere else, within the limits of
//! the other address.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails, helpers of it too")]

mod support;

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mcp_edge::{Behind, Config, Limits, Server, StartError, Times, TlsSource};
use support::{EDGE, Fixture, RawAnswer, RawClient, TOKEN, TestServer, bounded, config, loopback};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

async fn redirecting(config: Config) -> TestServer {
    let redirect_http = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let config = Config { redirect_http, ..config };
    TestServer::start(config, Behind::handler(Fixture::new().0)).await
}

async fn plain(server: &TestServer) -> RawClient<TcpStream> {
    RawClient::on(TcpStream::connect(server.redirect.unwrap()).await.unwrap())
}

async fn asked(server: &TestServer, request: impl AsRef<[u8]>) -> RawAnswer {
    let mut client = plain(server).await;
    client.send(request).await;
    client.answer().await.unwrap()
}

fn field<'a>(answer: &'a RawAnswer, name: &str) -> Option<&'a str> {
    let mut lines = answer.head.lines().filter_map(|line| line.split_once(": "));
    Some(lines.find(|(other, _)| *other == name)?.1)
}

#[tokio::test]
async fn every_request_is_sent_to_the_same_path_over_tls() {
    bounded(async {
        let server = redirecting(config()).await;
        let port = server.address.port();
        for (method, status) in
            [("GET", 301), ("HEAD", 301), ("POST", 308), ("DELETE", 308), ("OPTIONS", 308)]
        {
            for path in ["/", "/mcp?a=b&c", "/livez", "/a%20b/../c"] {
                let host = format!("localhost:{}", server.redirect.unwrap().port());
                let request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
                let answer = asked(&server, request).await;
                assert_eq!(answer.status, status, "{method}");
                let place = format!("https://localhost:{port}{path}");
                assert_eq!(field(&answer, "location"), Some(&*place));
                assert_eq!(field(&answer, "connection"), Some("close"));
                assert_eq!(answer.body, "");
            }
        }
        for (host, place) in [("127.0.0.1:80", "127.0.0.1"), ("[::1]:80", "[::1]")] {
            let request = format!("GET /x HTTP/1.1\r\nhost: {host}\r\n\r\n");
            let answer = asked(&server, request).await;
            assert_eq!(field(&answer, "location"), Some(&*format!("https://{place}:{port}/x")));
        }
    })
    .await;
}

#[tokio::test]
async fn nobody_is_led_elsewhere() {
    bounded(async {
        let server = redirecting(config()).await;
        let port = server.address.port();
        for (head, status) in [
            ("GET / HTTP/1.1\r\nhost: evil.example\r\n", 403),
            ("GET / HTTP/1.1\r\nhost: localhost.evil.example\r\n", 403),
            ("GET / HTTP/1.1\r\nhost: localhost@evil.example\r\n", 400),
            ("GET / HTTP/1.1\r\nhost: evil.example@localhost\r\n", 400),
            ("GET / HTTP/1.1\r\nhost: localhost/@evil.example\r\n", 400),
            ("GET / HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n", 400),
            ("GET http://evil.example/ HTTP/1.1\r\nhost: localhost\r\n", 400),
            ("GET http://evil.example/ HTTP/1.1\r\nhost: evil.example\r\n", 403),
            ("GET / HTTP/1.1\r\n", 400),
            ("GET / HTTP/1.0\r\n", 400),
            ("GET / HTTP/1.1\r\nhost: localhost\r\nx-forwarded-host: evil.example\r\n", 301),
            ("GET //evil.example/ HTTP/1.1\r\nhost: localhost\r\n", 301),
            ("GET /\\evil.example HTTP/1.1\r\nhost: localhost\r\n", 301),
            ("GET /@evil.example HTTP/1.1\r\nhost: localhost\r\n", 301),
            ("GET http://localhost/ HTTP/1.1\r\nhost: localhost\r\n", 301),
            ("OPTIONS * HTTP/1.1\r\nhost: localhost\r\n", 308),
        ] {
            let answer = asked(&server, format!("{head}\r\n")).await;
            assert_eq!(answer.status, status, "{head}");
            match field(&answer, "location") {
                Some(place) => {
                    assert!(status < 400);
                    assert!(place.starts_with(&format!("https://localhost:{port}/")), "{place}");
                }
                None => assert!(answer.json().get("error").is_some()),
            }
        }
        // What is no HTTP is not taken for it.
        let mut client = plain(&server).await;
        client.send("CONNECT evil.example:443 HTTP/1.1\r\nhost: evil.example:443\r\n\r\n").await;
        assert_eq!(client.answer().await.unwrap().status, 403);
        let mut client = plain(&server).await;
        client.send("\x16\x03\x01 no HTTP\r\n\r\n").await;
        assert_eq!(client.answer().await.unwrap().status, 400);
    })
    .await;
}

#[tokio::test]
async fn the_answer_is_the_last_and_no_body_is_read() {
    bounded(async {
        let server = redirecting(config()).await;
        let mut client = plain(&server).await;
        client
            .send("POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000000\r\n\r\nx")
            .await;
        assert_eq!(client.answer().await.unwrap().status, 308);
        assert_eq!(client.until_closed().await, b"");
        let mut client = plain(&server).await;
        let head = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
        client.send(head.repeat(2)).await;
        assert_eq!(client.answer().await.unwrap().status, 301);
        assert_eq!(client.until_closed().await, b"");
        // Its token is for nobody here.
        let head = format!("authorization: Bearer {TOKEN}\r\n");
        let answer =
            asked(&server, format!("GET / HTTP/1.1\r\nhost: localhost\r\n{head}\r\n")).await;
        assert_eq!(answer.status, 301);
        for name in ["x-request-id", "x-content-type-options", "cache-control"] {
            assert!(field(&answer, name).is_some(), "{name}");
        }
        assert_eq!(field(&answer, "strict-transport-security"), None);
    })
    .await;
}

#[tokio::test]
async fn rate_head_and_time_are_limited_as_elsewhere() {
    bounded(async {
        let limits = Limits { requests_per_second: 1, burst: 2, ..*config().limits };
        let server = redirecting(Config { limits: limits.check().unwrap(), ..config() }).await;
        let head = "GET / HTTP/1.1\r\nhost: localhost\r\n";
        let large = format!("{head}x-large: {}\r\n\r\n", "x".repeat(40_000));
        assert_eq!(asked(&server, large).await.status, 431);
        assert_eq!(asked(&server, format!("{head}\r\n")).await.status, 301);
        let mut statuses = Vec::new();
        for _ in 0..4 {
            statuses.push(asked(&server, format!("{head}\r\n")).await.status);
        }
        assert!(statuses.contains(&429), "{statuses:?}");

        let times = Times { header: Duration::from_millis(300), ..*config().times };
        let server = redirecting(Config { times: times.check().unwrap(), ..config() }).await;
        let begun = Instant::now();
        let mut slow = plain(&server).await;
        slow.send(head).await;
        assert_eq!(slow.answer().await.unwrap().status, 408);
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert_eq!(plain(&server).await.until_closed().await, b"");
    })
    .await;
}

#[tokio::test]
async fn connections_of_both_addresses_are_counted_together() {
    bounded(async {
        let limits = Limits { connections_per_ip: 2, max_connections: 3, ..*config().limits };
        let server = redirecting(Config { limits: limits.check().unwrap(), ..config() }).await;
        let _tls = server.client().connect().await;
        let one = plain(&server).await;
        assert_eq!(plain(&server).await.until_closed().await, b"");
        assert!(server.client().try_connect().await.is_err());
        let _other = server.client().from(loopback(2)).connect().await;
        let third = TcpSocket::new_v4().unwrap();
        third.bind(SocketAddr::new(loopback(3), 0)).unwrap();
        let third = third.connect(server.redirect.unwrap()).await.unwrap();
        assert_eq!(RawClient::on(third).until_closed().await, b"");
        drop(one);
        while server.client().try_connect().await.is_err() {}
    })
    .await;
}

#[tokio::test]
async fn a_server_without_tls_does_not_start_with_it() {
    let redirect_http = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let config = Config { tls: TlsSource::None, redirect_http, ..config() };
    let refused = Server::bind(config, Behind::diagnostics()).await;
    assert!(matches!(refused, Err(StartError::RedirectWithoutTls)), "{refused:?}");
}

#[tokio::test]
async fn it_ends_with_the_server() {
    bounded(async {
        let server = redirecting(config()).await;
        let address = server.redirect.unwrap();
        let idle = plain(&server).await;
        assert!(server.stop().await);
        drop(idle);
        assert!(TcpStream::connect(address).await.is_err());
    })
    .await;
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _status = self.0.wait();
    }
}

fn edge(redirect: &str, certs: &Path) -> Command {
    let mut command = Command::new(EDGE);
    command.args(["--self-signed", "--port=0", "--redirect-http", redirect, "--certs-dir"]);
    command.arg(certs).env_clear().stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[tokio::test]
async fn the_binary_says_where_it_is_or_why_it_cannot_be() {
    bounded(async {
        let certs = tempfile::tempdir().unwrap();
        let mut running = Running(edge("127.0.0.1:0", certs.path()).spawn().unwrap());
        let facts = tokio::task::spawn_blocking(move || {
            let stderr = BufReader::new(running.0.stderr.take().unwrap());
            let serving = |line: &String| line.contains("\"serving\"");
            (stderr.lines().map_while(Result::ok).find(serving).unwrap(), running)
        });
        let (facts, _running) = facts.await.unwrap();
        let facts: serde_json::Value = serde_json::from_str(&facts).unwrap();
        let address: SocketAddr = facts.get("redirect").unwrap().as_str().unwrap().parse().unwrap();
        let mut client = RawClient::on(TcpStream::connect(address).await.unwrap());
        client.send("GET /mcp HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        let answer = client.answer().await.unwrap();
        let place = format!("https://localhost:{}/mcp", facts.get("port").unwrap());
        assert_eq!(field(&answer, "location"), Some(&*place));

        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let ended = edge(&address, certs.path()).output().unwrap();
        let told = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(69), "{told}");
        assert!(told.contains(&format!("--redirect-http {address} (MCP_REDIRECT_HTTP)")), "{told}");
        assert!(told.contains("the port is taken"), "{told}");
    })
    .await;
}

#[tokio::test]
async fn a_trusted_proxys_prefix_leads_the_place() {
    bounded(async {
        let server = redirecting(Config {
            trusted_proxies: vec!["127.0.0.1/32".parse().unwrap()],
            ..config()
        })
        .await;
        let port = server.address.port();
        let request = "GET /x?y HTTP/1.1\r\nhost: localhost\r\nx-forwarded-prefix: /edge\r\n\r\n";
        let answer = asked(&server, request).await;
        let place = format!("https://localhost:{port}/edge/x?y");
        assert_eq!(field(&answer, "location"), Some(&*place));
    })
    .await;
}

#[tokio::test]
async fn a_link_on_another_page_is_sent_on_too() {
    bounded(async {
        let server = redirecting(config()).await;
        let request = "GET /x HTTP/1.1\r\nhost: localhost\r\nsec-fetch-site: cross-site\r\n\r\n";
        assert_eq!(asked(&server, request).await.status, 301);
    })
    .await;
}
