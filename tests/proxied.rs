//! Promise: a trusted proxy says for whom it speaks, and everything that counts clients counts
//! those; nobody else is believed.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails, helpers of it too")]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mcp_edge::{Config, Limits, Times};
use rustls::ClientConfig;
use support::{Answer, Client, RawClient, TOKEN, TestServer, Upside, bounded, config, loopback};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep};
use tokio_rustls::client::TlsStream;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
/// Where the proxy is; everybody else is a stranger.
const PROXY: u8 = 9;
const STRANGER: u8 = 1;

/// An edge behind a proxy at 127.0.0.9, in front of an upstream that is told of the client.
async fn behind_a_proxy(config: Config) -> (TestServer, Upside) {
    let upside = Upside::new().await;
    let proxy = format!("127.0.0.{PROXY}/32").parse().unwrap();
    let config = Config { trusted_proxies: vec![proxy], ..config };
    (TestServer::start(config, upside.behind(&["/a"])).await, upside)
}

async fn tcp(server: &TestServer, from: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(loopback(from), 0)).unwrap();
    socket.connect(server.address).await.unwrap()
}

fn v1(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 192.0.2.1 5000 443\r\n").into_bytes()
}

fn v2(client: Ipv4Addr) -> Vec<u8> {
    let addresses = [client.octets(), [192, 0, 2, 1], [19, 136, 1, 187]].concat();
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c"[..], &addresses].concat()
}

/// TLS behind these bytes.
async fn announced(
    server: &TestServer,
    from: u8,
    header: &[u8],
) -> std::io::Result<RawClient<TlsStream<TcpStream>>> {
    let mut tcp = tcp(server, from).await;
    tcp.write_all(header).await?;
    RawClient::over(tcp, ClientConfig::clone(&server.tls)).await
}

fn get(path: &str, fields: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n{fields}\r\n"
    )
}

/// Whom the upstream is told of.
async fn told(
    upside: &Upside,
    client: &mut RawClient<TlsStream<TcpStream>>,
    fields: &str,
) -> (String, String) {
    client.send(get("/a", fields)).await;
    let seen = upside.answer(OK).await;
    assert_eq!(client.answer().await.unwrap().status, 200);
    let of = |name: &str| {
        let mut lines = seen.lines().filter_map(|line| line.split_once(": "));
        let (_, value) = lines.find(|(other, _)| *other == name).unwrap();
        assert_eq!(seen.matches(&format!("\r\n{name}: ")).count(), 1, "{seen}");
        value.to_owned()
    };
    (of("x-real-ip"), of("x-forwarded-for"))
}

fn both(ip: &str) -> (String, String) {
    (ip.to_owned(), ip.to_owned())
}

#[tokio::test]
async fn a_proxy_header_names_the_client() {
    bounded(async {
        let (server, upside) = behind_a_proxy(config()).await;
        for header in [v1("192.0.2.7"), v2(Ipv4Addr::new(192, 0, 2, 7))] {
            let mut client = announced(&server, PROXY, &header).await.unwrap();
            for _ in 0..2 {
                assert_eq!(told(&upside, &mut client, "").await, both("192.0.2.7"));
            }
            // It has the last word: what its client writes is worth nothing.
            let spoofed = "x-forwarded-for: 198.51.100.66\r\nx-real-ip: 198.51.100.66\r\n";
            assert_eq!(told(&upside, &mut client, spoofed).await, both("192.0.2.7"));
        }
        // Bit by bit, and TLS right behind it.
        let mut tcp = tcp(&server, PROXY).await;
        tcp.set_nodelay(true).unwrap();
        for byte in v1("192.0.2.8") {
            tcp.write_all(&[byte]).await.unwrap();
            sleep(Duration::from_millis(1)).await;
        }
        let mut client = RawClient::over(tcp, ClientConfig::clone(&server.tls)).await.unwrap();
        assert_eq!(told(&upside, &mut client, "").await, both("192.0.2.8"));
    })
    .await;
}

#[tokio::test]
async fn a_proxy_may_speak_for_itself_or_say_nothing() {
    bounded(async {
        let (server, upside) = behind_a_proxy(config()).await;
        let itself = loopback(PROXY).to_string();
        let local = &b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"[..];
        for header in [b"PROXY UNKNOWN\r\n", local] {
            let mut client = announced(&server, PROXY, header).await.unwrap();
            let spoofed = "x-forwarded-for: 192.0.2.7\r\n";
            assert_eq!(told(&upside, &mut client, spoofed).await, both(&itself));
        }
        let mut client = announced(&server, PROXY, b"").await.unwrap();
        assert_eq!(told(&upside, &mut client, "").await, both(&itself));
    })
    .await;
}

#[tokio::test]
async fn the_requests_of_a_proxy_name_their_clients() {
    bounded(async {
        let (server, upside) = behind_a_proxy(config()).await;
        let mut client = announced(&server, PROXY, b"").await.unwrap();
        for (fields, ip) in [
            ("x-forwarded-for: 192.0.2.7\r\n", "192.0.2.7"),
            ("x-forwarded-for: 192.0.2.8:1234\r\n", "192.0.2.8"),
            // What stands left of the client was written by itself.
            ("x-forwarded-for: 198.51.100.66, 192.0.2.9\r\n", "192.0.2.9"),
            ("x-forwarded-for: nonsense, 192.0.2.10, 127.0.0.9\r\n", "192.0.2.10"),
            ("x-forwarded-for: 198.51.100.66\r\nx-forwarded-for: 192.0.2.11\r\n", "192.0.2.11"),
            ("x-forwarded-for: 2001:db8::7\r\n", "2001:db8::7"),
            ("x-real-ip: 198.51.100.66\r\nforwarded: for=198.51.100.66\r\n", "127.0.0.9"),
        ] {
            assert_eq!(told(&upside, &mut client, fields).await, both(ip), "{fields}");
        }
        for bad in ["nonsense", "192.0.2.7, unknown", "192.0.2.7,", ""] {
            let mut client = announced(&server, PROXY, b"").await.unwrap();
            client.send(get("/a", &format!("x-forwarded-for: {bad}\r\n"))).await;
            let answer = client.answer().await.unwrap();
            assert_eq!((answer.status, &answer.json()["error"]), (400, &"bad_forwarded".into()));
        }
        assert!(upside.is_untouched().await);
    })
    .await;
}

#[tokio::test]
async fn nobody_else_is_believed() {
    bounded(async {
        let (server, upside) = behind_a_proxy(config()).await;
        let mut client = announced(&server, STRANGER, b"").await.unwrap();
        for fields in ["x-forwarded-for: 192.0.2.7\r\n", "x-forwarded-for: nonsense\r\n"] {
            assert_eq!(told(&upside, &mut client, fields).await, both("127.0.0.1"));
        }
        for header in [v1("192.0.2.7"), v2(Ipv4Addr::new(192, 0, 2, 7))] {
            assert!(announced(&server, STRANGER, &header).await.is_err());
        }
        // Without any trust, not even a proxy is.
        let server = TestServer::start(config(), upside.behind(&["/a"])).await;
        assert!(announced(&server, PROXY, &v1("192.0.2.7")).await.is_err());
        let mut client = announced(&server, PROXY, b"").await.unwrap();
        let fields = "x-forwarded-for: 192.0.2.7\r\n";
        assert_eq!(told(&upside, &mut client, fields).await, both("127.0.0.9"));
    })
    .await;
}

/// What comes back on a connection that begins so.
async fn fate(server: &TestServer, from: u8, bytes: &[u8]) -> Vec<u8> {
    let mut tcp = tcp(server, from).await;
    // It may be closed before all was sent.
    drop(tcp.write_all(bytes).await);
    let mut rest = Vec::new();
    drop(tcp.read_to_end(&mut rest).await);
    rest
}

#[tokio::test]
async fn a_malformed_header_closes_the_connection() {
    bounded(async {
        let (server, _upside) = behind_a_proxy(config()).await;
        for bytes in [
            &b"PROXY TCP4 nobody 192.0.2.1 5000 443\r\n"[..],
            b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 443\n",
            b"PROXY TCP9 192.0.2.7 192.0.2.1 5000 443\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x11\x11\x00\x0c0123456789ab",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
            &[b'P'; 200],
        ] {
            let begun = Instant::now();
            let told = fate(&server, PROXY, bytes).await;
            assert!(begun.elapsed() < Duration::from_secs(5));
            // What is no PROXY header at all is for TLS to refuse.
            assert!(told.is_empty() || bytes.starts_with(b"PP"), "{told:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_header_has_its_time() {
    bounded(async {
        let times = Times { header: Duration::from_millis(300), ..*config().times };
        let (server, _upside) =
            behind_a_proxy(Config { times: times.check().unwrap(), ..config() }).await;
        for bytes in [&b""[..], b"PROXY TCP4 192.0", b"\r\n\r\n\0\r\nQUIT"] {
            let begun = Instant::now();
            assert_eq!(fate(&server, PROXY, bytes).await, b"");
            let took = begun.elapsed();
            assert!(
                took >= Duration::from_millis(300) && took < Duration::from_secs(5),
                "{took:?}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn two_clients_behind_one_proxy_have_a_rate_each() {
    bounded(async {
        let limits = Limits { requests_per_second: 1, burst: 2, ..*config().limits };
        let (server, _upside) =
            behind_a_proxy(Config { limits: limits.check().unwrap(), ..config() }).await;
        let mut conns = Vec::new();
        for ip in ["192.0.2.7", "192.0.2.8"] {
            let named = format!("x-forwarded-for: 198.51.100.{}, {ip}\r\n", conns.len());
            conns.push((announced(&server, PROXY, b"").await.unwrap(), named));
        }
        for ip in ["192.0.2.9", "192.0.2.10"] {
            conns.push((announced(&server, PROXY, &v1(ip)).await.unwrap(), String::new()));
        }
        for (conn, fields) in &mut conns {
            let mut statuses = Vec::new();
            for _ in 0..4 {
                conn.send(get("/nowhere", fields)).await;
                statuses.push(conn.answer().await.unwrap().status);
            }
            assert_eq!(statuses, [404, 404, 404, 429]);
        }
        // A client is the same however it is named.
        let mut other = announced(&server, PROXY, &v1("192.0.2.7")).await.unwrap();
        other.send(get("/nowhere", "")).await;
        assert_eq!(other.answer().await.unwrap().status, 429);
        // What names nobody is charged to the proxy.
        let mut statuses = Vec::new();
        for _ in 0..4 {
            let mut bad = announced(&server, PROXY, b"").await.unwrap();
            bad.send(get("/nowhere", "x-forwarded-for: nonsense\r\n")).await;
            statuses.push(bad.answer().await.unwrap().status);
        }
        assert_eq!(statuses, [400, 400, 400, 429]);
    })
    .await;
}

#[tokio::test]
async fn connections_are_counted_for_whom_the_header_names() {
    bounded(async {
        let limits = Limits { connections_per_ip: 2, max_connections: 12, ..*config().limits };
        let (server, _upside) =
            behind_a_proxy(Config { limits: limits.check().unwrap(), ..config() }).await;
        let mut open = Vec::new();
        for ip in ["192.0.2.7", "192.0.2.8"] {
            for _ in 0..2 {
                open.push(announced(&server, PROXY, &v1(ip)).await.unwrap());
            }
            assert!(announced(&server, PROXY, &v1(ip)).await.is_err());
        }
        // The proxy itself may have more of them, silent ones too, but not without end.
        for _ in 0..4 {
            open.push(announced(&server, PROXY, b"").await.unwrap());
        }
        let mut silent = Vec::new();
        for _ in 0..4 {
            silent.push(tcp(&server, PROXY).await);
        }
        sleep(Duration::from_millis(50)).await;
        // All places are taken: those whom the proxy named, and who have shown no token, give theirs up.
        for _ in 0..4 {
            open.push(announced(&server, PROXY, b"").await.unwrap());
        }
        assert_eq!(server.report().outcomes["max_unauthenticated"], 4);
        assert!(announced(&server, PROXY, b"").await.is_err());
        drop(silent);
        drop(open.remove(0));
        while announced(&server, PROXY, &v1("192.0.2.7")).await.is_err() {}
    })
    .await;
}

async fn opened(conn: &mut RawClient<TlsStream<TcpStream>>, session: &str, ip: &str) -> u16 {
    let fields = format!(
        "x-forwarded-for: {ip}\r\naccept: text/event-stream\r\nmcp-session-id: {session}\r\n"
    );
    conn.send(get("/mcp", &fields)).await;
    let head = conn.until("\r\n\r\n").await;
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

/// A POST that opens a session.
async fn session(client: &Client, ip: &str) -> Answer {
    let mut request = client.post("/mcp", &support::hello("2025-11-25"));
    request.headers_mut().insert("x-forwarded-for", ip.parse().unwrap());
    client.send(request).await
}

#[tokio::test]
async fn sessions_and_streams_are_counted_for_whom_the_requests_name() {
    bounded(async {
        let limits = Limits { sessions_per_ip: 1, streams_per_ip: 1, ..*config().limits };
        let proxy = format!("127.0.0.{PROXY}/32").parse().unwrap();
        let config =
            Config { limits: limits.check().unwrap(), trusted_proxies: vec![proxy], ..config() };
        let fixture = mcp_edge::Behind::handler(support::Fixture::new().0);
        let server = TestServer::start(config, fixture).await;
        let client = server.client().from(loopback(PROXY));
        let mut conns = Vec::new();
        for ip in ["192.0.2.7", "192.0.2.8"] {
            let answer = session(&client, ip).await;
            assert_eq!(answer.status, 200);
            let id = answer.header("mcp-session-id");
            let mut conn = announced(&server, PROXY, b"").await.unwrap();
            assert_eq!(opened(&mut conn, id, ip).await, 200);
            let mut more = announced(&server, PROXY, b"").await.unwrap();
            assert_eq!(opened(&mut more, id, ip).await, 429);
            // Its stream keeps the session from giving way.
            assert_eq!(session(&client, ip).await.status, 429);
            conns.push(conn);
        }
    })
    .await;
}

#[tokio::test]
async fn the_address_for_plain_http_believes_the_same() {
    bounded(async {
        let limits = Limits { requests_per_second: 1, burst: 1, ..*config().limits };
        let redirect_http = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let (server, _upside) =
            behind_a_proxy(Config { limits: limits.check().unwrap(), redirect_http, ..config() })
                .await;
        for ip in ["192.0.2.7", "192.0.2.8"] {
            let mut statuses = Vec::new();
            for header in [v1(ip), Vec::new(), v1(ip)] {
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind(SocketAddr::new(loopback(PROXY), 0)).unwrap();
                let tcp = socket.connect(server.redirect.unwrap()).await.unwrap();
                let mut client = RawClient::on(tcp);
                let named = if header.is_empty() {
                    format!("x-forwarded-for: {ip}\r\n")
                } else {
                    String::new()
                };
                client.send(header).await;
                client.send(format!("GET / HTTP/1.1\r\nhost: localhost\r\n{named}\r\n")).await;
                statuses.push(client.answer().await.unwrap().status);
            }
            assert_eq!(statuses, [301, 301, 429]);
        }
    })
    .await;
}

/// The endpoint that an HTTP+SSE client is given.
async fn endpoint(
    server: &TestServer,
    from: u8,
    header: &[u8],
    path: &str,
    fields: &str,
) -> String {
    let mut client = announced(server, from, header).await.unwrap();
    client.send(get(path, &format!("accept: text/event-stream\r\n{fields}"))).await;
    let seen = client.until("?sessionId=").await;
    let (_, event) = seen.split_once("event: endpoint\ndata: ").unwrap();
    event.split_once('?').unwrap().0.to_owned()
}

#[tokio::test]
async fn every_link_begins_with_the_prefix_that_a_proxy_names() {
    bounded(async {
        let (server, upside) = behind_a_proxy(config()).await;
        let upside = std::sync::Arc::new(upside);
        for (prefix, shown) in [("/tools/one", "/tools/one"), ("/a/", "/a"), ("/", "")] {
            let fields = format!("x-forwarded-prefix: {prefix}\r\n");
            let mut client = announced(&server, PROXY, b"").await.unwrap();
            client.send(get("/a", &fields)).await;
            let address = upside.address;
            let elsewhere = format!(
                "HTTP/1.1 302 Found\r\ncontent-length: 0\r\nlocation: http://{address}/x?y\r\n\
                 content-location: /z\r\nconnection: close\r\n\r\n"
            );
            let seen = upside.answer(&elsewhere).await;
            assert!(!seen.contains("prefix"), "{seen}");
            let answer = client.answer().await.unwrap();
            let links = format!("\r\nlocation: {shown}/x?y\r\ncontent-location: {shown}/z\r\n");
            assert!(answer.head.contains(&links), "{answer:?}");
            client.send(get("/nope", &fields)).await;
            let lost = client.answer().await.unwrap();
            assert!(lost.body.contains(&format!(" {shown}/mcp ")), "{lost:?}");
        }
        // The client of a proxy that knows only TCP, and strangers, name none.
        let fields = "x-forwarded-prefix: /evil\r\nx-forwarded-prefix: nonsense\r\n";
        for (from, header) in [(PROXY, v1("192.0.2.7")), (STRANGER, Vec::new())] {
            let mut client = announced(&server, from, &header).await.unwrap();
            client.send(get("/nope", fields)).await;
            let lost = client.answer().await.unwrap();
            assert!(lost.status == 404 && !lost.body.contains("evil"), "{lost:?}");
        }
        for bad in [
            "evil",
            "//evil.example",
            "/a//b",
            "/..",
            "/a/./b",
            "/a?b",
            "/a#b",
            "/\\b",
            "/a b",
            "/%2e%2e",
            "/a, /b",
            "/é",
            "http://evil.example/",
            &"/x".repeat(200),
        ] {
            let mut client = announced(&server, PROXY, b"").await.unwrap();
            client.send(get("/nope", &format!("x-forwarded-prefix: {bad}\r\n"))).await;
            let answer = client.answer().await.unwrap();
            assert_eq!((answer.status, &answer.json()["error"]), (400, &"bad_forwarded".into()));
        }
        let mut client = announced(&server, PROXY, b"").await.unwrap();
        let twice = "x-forwarded-prefix: /a\r\nx-forwarded-prefix: /b\r\n";
        client.send(get("/nope", twice)).await;
        assert_eq!(client.answer().await.unwrap().status, 400);
    })
    .await;
}

#[tokio::test]
async fn an_sse_client_behind_a_prefix_posts_beneath_it() {
    bounded(async {
        let proxy = format!("127.0.0.{PROXY}/32").parse().unwrap();
        let path = "/api/v1/mcp".to_owned();
        let config =
            Config { trusted_proxies: vec![proxy], path: path.parse().unwrap(), ..config() };
        let server = TestServer::start(config, mcp_edge::Behind::diagnostics()).await;
        for (path, beneath) in [("/api/v1/mcp", "/api/v1/mcp/messages"), ("/sse", "/messages")] {
            let prefix = "x-forwarded-prefix: /edge-1\r\n";
            let named = endpoint(&server, PROXY, b"", path, prefix).await;
            assert_eq!(named, format!("/edge-1{beneath}"));
            assert_eq!(endpoint(&server, PROXY, b"", path, "").await, beneath);
            assert_eq!(endpoint(&server, STRANGER, b"", path, prefix).await, beneath);
            assert_eq!(endpoint(&server, PROXY, &v1("192.0.2.7"), path, prefix).await, beneath);
        }
    })
    .await;
}
