//! Promise: an upstream that does not serve is named to caller and operator in words that say what
//! is wrong and what to do next, and one that nobody listens at is named at the start.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails, helpers of it too")]

mod support;

use std::net::Ipv4Addr;
use std::process::Stdio;

use mcp_edge::Behind;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{
    Act, EDGE, Scripted, ScriptedSse, Seen, TOKEN, TestServer, bounded, config, hello, piped,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinSet;

/// What `initialize` is answered, and what is logged, before an upstream at this URL.
async fn told(url: &str, options: &[&str]) -> (String, String) {
    let options = [&["--upstream-wait=0s", "--upstream", url], options].concat();
    let output = piped(&options, &format!("{}\n", hello("2025-06-18"))).await;
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = answer.pointer("/error/message").unwrap().as_str().unwrap().to_owned();
    (text, String::from_utf8(output.stderr).unwrap())
}

/// A server that answers every request so, and ends the connection.
async fn saying(answer: &'static [u8]) -> (String, JoinSet<()>) {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut kept = Vec::new();
        loop {
            let (mut peer, _) = socket.accept().await.unwrap();
            // Enough of the head; a peer that only looks says nothing.
            if peer.read(&mut [0; 4096]).await.unwrap_or(0) > 0 {
                drop(peer.write_all(answer).await);
            }
            if answer.ends_with(b": hello\n") {
                kept.push(peer);
            }
        }
    });
    (address, serving)
}

const NEXT: &str = "check host, port and path of --upstream (MCP_UPSTREAM): MCP servers are mostly at \
                    /mcp or /sse";

#[tokio::test]
async fn a_web_server_is_told_apart_from_an_mcp_server_and_the_next_step_is_named() {
    bounded(async {
        for (answer, says) in [
            (
                &b"HTTP/1.0 501 Unsupported method\r\ncontent-type: text/html\r\n\r\n<html>"[..],
                "no MCP server answers at /x of the upstream (POST: 501 Not Implemented (a web \
                 page); GET: 501 Not Implemented (a web page)): ",
            ),
            (
                b"HTTP/1.1 404 Not Found\r\ncontent-type: text/html\r\ncontent-length: 0\r\n\r\n",
                "no MCP server answers at /x of the upstream (POST: 404 Not Found (a web page); \
                 GET: 404 Not Found (a web page)): ",
            ),
            (
                b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n",
                "no MCP server answers at /x of the upstream (POST: 405 Method Not Allowed; GET: \
                 405 Method Not Allowed): ",
            ),
            (
                b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi",
                "no MCP server answers at /x of the upstream (POST: a web page; GET: a web page): ",
            ),
        ] {
            let (address, _serving) = saying(answer).await;
            let (text, log) = told(&format!("http://{address}/x?key=secret"), &[]).await;
            assert_eq!(text, format!("{says}{NEXT}"));
            assert_eq!(log.matches("the upstream does not serve").count(), 1, "{log}");
            assert!(!log.contains("secret") && !text.contains("secret"), "{log}");
        }
        for (answer, says) in [
            (
                &b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n"[..],
                "the upstream wants a credential (401 Unauthorized): give the edge one by \
                 --upstream-token-file (MCP_UPSTREAM_TOKEN_FILE)",
            ),
            (
                b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n",
                "the upstream wants a credential (403 Forbidden): give the edge one by \
                 --upstream-token-file (MCP_UPSTREAM_TOKEN_FILE)",
            ),
            (
                b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n",
                "the upstream answered 502 Bad Gateway: a proxy answers so whose own server is down",
            ),
        ] {
            let (address, _serving) = saying(answer).await;
            assert_eq!(told(&format!("http://{address}/x"), &[]).await.0, says);
        }
    })
    .await;
}

#[tokio::test]
async fn the_wrong_scheme_is_named() {
    bounded(async {
        let (address, _serving) = saying(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let (text, log) = told(&format!("https://{address}/mcp"), &[]).await;
        let says = "the upstream cannot be reached: it does not speak TLS there: if it speaks plain \
                    HTTP at that port, write http:// in --upstream (MCP_UPSTREAM)";
        assert_eq!(text, says);
        assert!(log.contains("write http:// in --upstream"), "{log}");
        let (address, _serving) = saying(b"").await;
        let (text, _) = told(&format!("https://{address}/mcp"), &[]).await;
        assert!(text.contains("broke off the TLS handshake: if it speaks plain HTTP"), "{text}");
        let write = "write https:// in --upstream (MCP_UPSTREAM)";
        let refusing =
            b"HTTP/1.1 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
        let alert = b"\x15\x03\x03\x00\x02\x02\x46";
        for answer in [&refusing[..], alert, b""] {
            let (address, _serving) = saying(answer).await;
            for kind in ["auto", "sse", "streamable"] {
                let (text, _) =
                    told(&format!("http://{address}/mcp"), &["--upstream-kind", kind]).await;
                assert!(text.contains(write), "{kind}: {text}");
            }
        }
        // An edge is such a server itself.
        let server = TestServer::start(config(), Behind::diagnostics()).await;
        let (text, _) = told(&format!("http://{}/mcp", server.address), &[]).await;
        assert!(text.contains("the upstream speaks TLS at that port") && text.contains(write));
        // And its CA is not known to anybody yet.
        let url = format!("https://localhost:{}/mcp", server.address.port());
        let (text, _) = told(&url, &[]).await;
        assert!(text.contains("give its CA by --upstream-ca (MCP_UPSTREAM_CA)"), "{text}");
    })
    .await;
}

#[tokio::test]
async fn the_wrong_kind_is_named_to_caller_and_operator() {
    bounded(async {
        let missing = r#"{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"Missing session ID"}}"#;
        let streamable = Scripted::new(move |seen: &Seen| match &*seen.method() {
            "GET" => Act::Say(400, missing.to_owned()),
            _ => Act::Well,
        })
        .await;
        let url = format!("http://{}/mcp", streamable.address);
        let (text, log) = told(&url, &["--upstream-kind=sse"]).await;
        let says = format!(
            "the upstream opens no event stream at /mcp (400 Bad Request (\"Missing session \
             ID\")): {NEXT}; it may speak Streamable HTTP: leave --upstream-kind \
             (MCP_UPSTREAM_KIND) out to find out"
        );
        assert_eq!(text, says);
        assert_eq!(log.matches("leave --upstream-kind").count(), 1, "{log}");
        // One without sessions has a stream for everybody, which never says where to post.
        let (address, _serving) = saying(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 9\r\n\r\n: hello\n",
        )
        .await;
        let options = ["--upstream-kind=sse", "--upstream-head-timeout=200ms"];
        let (text, _) = told(&format!("http://{address}/mcp"), &options).await;
        let says = "the upstream's event stream says no `endpoint` to post messages to; it may speak \
                    Streamable HTTP: leave --upstream-kind (MCP_UPSTREAM_KIND) out to find out";
        assert_eq!(text, says);
        let sse = ScriptedSse::new(|seen| match &*seen.verb {
            "POST" => support::Deed::Say(405),
            _ => support::Deed::Well,
        })
        .await;
        let url = format!("http://{}/sse", sse.address);
        let (text, log) = told(&url, &["--upstream-kind=streamable"]).await;
        let says = format!(
            "the upstream takes no POST at /sse (405 Method Not Allowed): {NEXT}; it may speak \
             HTTP+SSE: leave --upstream-kind (MCP_UPSTREAM_KIND) out to find out"
        );
        assert_eq!(text, says);
        assert_eq!(log.matches("leave --upstream-kind").count(), 1, "{log}");
    })
    .await;
}

/// An edge that serves, and its log, line by line.
fn serving(url: &str) -> (Child, Lines<BufReader<ChildStderr>>) {
    let mut edge = Command::new(EDGE)
        .args(["--insecure-http", "--port=0", "--log-format=json", "--upstream", url])
        .args(["--upstream-connect-timeout=200ms"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("MCP_AUTH_TOKEN", TOKEN)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let log = BufReader::new(edge.stderr.take().unwrap()).lines();
    (edge, log)
}

#[tokio::test]
async fn a_dead_upstream_is_named_at_the_start_which_waits_for_nothing() {
    bounded(async {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let dead = free.local_addr().unwrap();
        drop(free);
        let (_edge, mut log) = serving(&format!("http://{dead}/mcp?key=secret"));
        let (mut serves, mut warned) = (false, String::new());
        while !serves || warned.is_empty() {
            let line = log.next_line().await.unwrap().unwrap();
            assert!(!line.contains("secret"), "{line}");
            serves |= line.contains("\"serving\"");
            if line.contains("nobody serves at the upstream yet") {
                warned = line;
            }
        }
        for word in ["WARN", "--upstream (MCP_UPSTREAM)", "--upstream-wait", &dead.to_string()] {
            assert!(warned.contains(word), "{warned}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_upstream_that_is_there_is_not_spoken_of_at_the_start() {
    bounded(async {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (edge, mut log) = serving(&format!("http://{}/mcp", socket.local_addr().unwrap()));
        // It looks, and leaves again without a word.
        let (mut peer, _) = socket.accept().await.unwrap();
        assert_eq!(peer.read(&mut [0; 1]).await.unwrap(), 0);
        let mut seen = Vec::new();
        while let Some(line) = log.next_line().await.unwrap() {
            if line.contains("\"serving\"") {
                let pid = Pid::from_raw(edge.id().unwrap().try_into().unwrap()).unwrap();
                kill_process(pid, Signal::TERM).unwrap();
            }
            seen.push(line);
        }
        assert!(!seen.iter().any(|line| line.contains("nobody serves")), "{seen:?}");
    })
    .await;
}
