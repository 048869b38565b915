//! Promise: the log never holds the service up, says what it lost, and cannot be forged.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const TOKEN: &str = "0123456789abcdef";
/// Lines that are looked through for one.
const MOST_LINES: usize = 50_000;
/// A test ends by itself, whatever hangs.
const BOUND: Duration = Duration::from_mins(2);

/// A running edge that is not left behind.
struct Edge {
    process: Child,
    log: BufReader<ChildStderr>,
    port: u16,
}

impl Edge {
    fn start(argv: &[&str]) -> Self {
        Self::start_by(&["--insecure-http"], argv)
    }

    fn start_by(scheme: &[&str], argv: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_mcp-edge"))
            .args(["--port=0", "--log-format=json"])
            .args(scheme)
            .args(argv)
            .env_clear()
            .envs([("PATH", "/usr/bin:/bin"), ("MCP_AUTH_TOKEN", TOKEN)])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::with_capacity(1, process.stderr.take().unwrap());
        let mut edge = Self { process, log, port: 0 };
        let serving = edge.event(|event| event["message"] == "serving");
        edge.port = serving.get("port").and_then(Value::as_u64).unwrap().try_into().unwrap();
        edge
    }

    /// The next line of the log for which this holds.
    fn event(&mut self, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        let mut left = MOST_LINES;
        loop {
            // Reports come for ever.
            left -= 1;
            assert!(left > 0, "it was not among {MOST_LINES} lines");
            let mut line = String::new();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "it never came");
            let event = serde_json::from_str(&line).unwrap();
            if wanted(&event) {
                return event;
            }
        }
    }

    fn connect(&self) -> BufReader<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        BufReader::new(stream)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _gone_already = self.process.kill();
        let _status = self.process.wait();
    }
}

/// One answer, to its end; its status.
fn answer(from: &mut BufReader<TcpStream>) -> u16 {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap().parse().unwrap();
    let mut length = 0;
    loop {
        line.clear();
        assert!(from.read_line(&mut line).unwrap() > 2 || line == "\r\n", "{line:?}");
        if line == "\r\n" {
            break;
        }
        let field = line.to_ascii_lowercase();
        if let Some(value) = field.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    from.read_exact(&mut vec![0; length]).unwrap();
    status
}

#[test]
fn ten_thousand_requests_are_answered_whose_log_nobody_reads() {
    let rate = ["--requests-per-second=10000", "--burst=10000", "--report-interval=50ms"];
    let mut edge = Edge::start(&[&["--log-level=DEBUG"], &rate[..]].concat());
    // The longer the line, the sooner the pipe and the queue are full.
    let path = "x".repeat(600);
    let requests = format!("GET /{path} HTTP/1.1\r\nHost: localhost\r\n\r\n").repeat(50);
    let mut peer = edge.connect();
    for _ in 0..200 {
        peer.get_mut().write_all(requests.as_bytes()).unwrap();
        for _ in 0..50 {
            assert!([401, 404, 429].contains(&answer(&mut peer)));
        }
    }
    // Nobody has read a line since `serving`: what the edge says of it comes when somebody does.
    // Whether the report or the notice is first is chance.
    let (mut report, mut told) = (None, None);
    edge.event(|event| {
        if event["report"]["log_lines_dropped"].as_u64() > Some(0) {
            report = Some(event.clone());
        }
        if event["message"] == "lines of the log were dropped" {
            told = event["lines"].as_u64();
        }
        report.is_some() && told.is_some()
    });
    assert!(told > Some(0), "{told:?}");
    assert!(report.is_some_and(|it| it["report"]["outcomes"]["panics"] == 0));
    // The rest is read, so that nothing stands in the way of the end.
    let (tell, ended) = mpsc::channel();
    edge.signal(Signal::TERM);
    drop(peer);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut rest = Vec::new();
            edge.log.read_to_end(&mut rest).unwrap();
            tell.send(rest).unwrap();
        });
        let rest = ended.recv_timeout(BOUND).unwrap();
        assert!(rest.ends_with(b"\n"), "the last line is whole");
        assert!(String::from_utf8(rest).unwrap().contains("draining"), "it was flushed");
    });
    assert_eq!(edge.process.wait().unwrap().code(), Some(0));
}

#[test]
fn an_edge_ends_although_its_log_is_stuck() {
    let edge = Edge::start(&["--log-level=DEBUG", "--requests-per-second=10000", "--burst=10000"]);
    let path = "x".repeat(600);
    let requests = format!("GET /{path} HTTP/1.1\r\nHost: localhost\r\n\r\n").repeat(50);
    let mut peer = edge.connect();
    for _ in 0..20 {
        peer.get_mut().write_all(requests.as_bytes()).unwrap();
        for _ in 0..50 {
            answer(&mut peer);
        }
    }
    drop(peer);
    edge.signal(Signal::TERM);
    let (tell, ended) = mpsc::channel();
    let mut edge = edge;
    std::thread::scope(|scope| {
        scope.spawn(|| tell.send(edge.process.wait().unwrap()).unwrap());
        assert_eq!(ended.recv_timeout(BOUND).unwrap().code(), Some(0));
    });
}

#[test]
fn a_log_that_nobody_can_be_given_stops_nothing() {
    let mut edge = Edge::start(&["--log-level=DEBUG"]);
    // The reader goes: every write fails from now on.
    let (ours, _theirs) = std::io::pipe().unwrap();
    drop(std::mem::replace(&mut edge.log, BufReader::new(stderr_of(ours))));
    for _ in 0..3 {
        let mut peer = edge.connect();
        peer.get_mut().write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert_eq!(answer(&mut peer), 200);
    }
    edge.signal(Signal::TERM);
    assert_eq!(edge.process.wait().unwrap().code(), Some(0));
}

fn stderr_of(pipe: std::io::PipeReader) -> ChildStderr {
    std::os::fd::OwnedFd::from(pipe).into()
}

#[test]
fn no_line_can_be_forged() {
    for format in ["text", "json"] {
        let script = r"printf 'a\r\033[2J\007 2026-01-01 ERROR forged\n' >&2; exec cat >/dev/null";
        let mut process = Command::new(env!("CARGO_BIN_EXE_mcp-edge"))
            .args(["--transport=stdio", "--log-level=DEBUG", "--log-format", format])
            .args(["--", "sh", "-c", script])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("forged") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the child was not heard");
        }
        drop(process.stdin.take());
        let line = line.strip_suffix('\n').unwrap();
        assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
        assert!(line.contains("\\r") || line.contains("\\u000d"), "{line:?}");
        process.wait().unwrap();
    }
}

#[test]
fn the_edge_dumps_no_core() {
    let mut edge = Edge::start(&[]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", edge.process.id())).unwrap();
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>(), ["0", "0", "bytes"]);
    edge.signal(Signal::ABORT);
    let status = edge.process.wait().unwrap();
    assert_eq!(status.signal(), Some(6));
    assert!(!status.core_dumped());
}

/// Asks for `path` with these fields; the status of the answer.
fn asked(edge: &Edge, path: &str, fields: &str) -> u16 {
    let mut peer = edge.connect();
    let head = format!("GET {path} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
    peer.get_mut().write_all(head.as_bytes()).unwrap();
    answer(&mut peer)
}

/// The fields of a request to the edge itself, with a good token and these.
fn good(more: &str) -> String {
    format!("Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\n{more}")
}

/// A kind, the status, the fields that lead to it, what is told to have been asked, and what would
/// allow it.
type Expected = (&'static str, u16, String, &'static str, &'static str);

fn kinds() -> [Expected; 6] {
    let wrong = "Host: localhost\r\nAuthorization: Bearer hunter2-hunter2-hunter2\r\n";
    let (host, page) = ("mcp.example.com", "https://app.example:8443");
    let site = good("Sec-Fetch-Site: cross-site\r\n");
    let twice = good(&format!("Authorization: Bearer {TOKEN}\r\n"));
    [
        (
            "foreign_host",
            403,
            format!("Host: {host}:443\r\nAuthorization: Bearer {TOKEN}\r\n"),
            host,
            "--allow-host mcp.example.com (",
        ),
        (
            "foreign_origin",
            403,
            good(&format!("Origin: {page}\r\n")),
            page,
            "--allow-origin https://app.example:8443 (",
        ),
        ("cross_site", 403, site, "", "--allow-origin ORIGIN ("),
        ("wrong_token", 401, wrong.to_owned(), "", "MCP_AUTH_TOKEN or --auth-token-file"),
        ("no_token", 401, "Host: localhost\r\n".to_owned(), "", "`Authorization: Bearer TOKEN`"),
        ("bad_authorization", 400, twice, "", "`Authorization: Bearer TOKEN`"),
    ]
}

#[test]
fn a_refusal_that_an_operator_can_mend_is_told_with_what_would_allow_it() {
    let mut edge = Edge::start(&["--burst=1000"]);
    // What looks for weak spots at random is no news.
    assert_eq!(asked(&edge, "/wp-login.php", "Host: localhost\r\n"), 401);
    for (kind, status, fields, asked_for, option) in kinds() {
        for _ in 0..3 {
            assert_eq!(asked(&edge, "/mcp", &fields), status, "{kind}");
        }
        let event = edge.event(|event| event["refusal"] == kind);
        assert_eq!((&event["level"], &event["left_out"]), (&"INFO".into(), &0.into()), "{event}");
        assert_eq!(event["asked"].as_str().unwrap_or_default(), asked_for, "{event}");
        assert!(event["message"].as_str().unwrap().contains(option), "{event}");
        assert!(event["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{event}");
        assert_eq!(event["request"].as_str().unwrap().len(), 16, "{event}");
        let text = event.to_string();
        assert!(!text.contains("hunter2") && !text.contains(TOKEN), "{text}");
    }
}

/// Begins a handshake with the edge, whose certificate it does not trust, and says so.
fn distrusted(edge: &Edge) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = "localhost".try_into().unwrap();
    let mut tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut peer = TcpStream::connect(("127.0.0.1", edge.port)).unwrap();
    let refused = tls.complete_io(&mut peer).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidData, "{refused}");
    // The edge closes it when it has read the alert.
    drop(peer.read_to_end(&mut Vec::new()));
}

#[test]
fn failed_handshakes_are_told_one_of_a_kind_in_ten_seconds() {
    let certs = tempfile::tempdir().unwrap();
    let tls = ["--self-signed", "--certs-dir", certs.path().to_str().unwrap()];
    let mut edge = Edge::start_by(&tls, &[]);
    for _ in 0..5 {
        assert_eq!(asked(&edge, "/livez", ""), 400, "plain HTTP to the TLS port");
        distrusted(&edge);
    }
    edge.signal(Signal::TERM);
    let mut told = Vec::new();
    edge.event(|event| {
        if event["message"] == "the TLS handshake failed" {
            assert_eq!(
                (&event["level"], &event["left_out"]),
                (&"INFO".into(), &0.into()),
                "{event}"
            );
            told.push(event["error"].as_str().unwrap().to_owned());
        }
        event["message"] == "draining"
    });
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().any(|error| error.contains("plain HTTP")), "{told:?}");
    assert!(told.iter().any(|error| error.contains("alert UnknownCA")), "{told:?}");
}

#[test]
fn what_is_no_host_or_origin_is_not_shown() {
    let host = format!("Host: {}.example\r\n", "x".repeat(5000));
    for (kind, fields) in [
        ("foreign_host", host),
        ("foreign_origin", good(&format!("Origin: https://a.example/{TOKEN}\r\n"))),
        // A client whose settings have the token in the wrong place.
        ("foreign_origin", good(&format!("Origin: https://{TOKEN}\r\n"))),
        ("foreign_host", format!("Host: {TOKEN}\r\n")),
        ("foreign_host", format!("Host: {TOKEN}.example.com\r\n")),
    ] {
        let mut edge = Edge::start(&[]);
        assert_eq!(asked(&edge, "/mcp", &fields), 403, "{kind}");
        let event = edge.event(|event| event["refusal"] == kind);
        assert_eq!(event.get("asked"), None, "{event}");
        let text = event.to_string();
        assert!(text.len() < 600 && !text.contains(TOKEN), "{text}");
    }
}
