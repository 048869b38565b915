//! The binary as scripts see it: exit codes, what is said where, and the facts for machines.

#![expect(clippy::unwrap_used, clippy::string_slice, reason = "a test ends where it fails")]

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const TOKEN: &str = "0123456789abcdef";

fn edge(argv: &[&str], vars: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-edge"));
    command.args(argv).env_clear().env("PATH", "/usr/bin:/bin").envs(vars.iter().copied());
    command
}

fn ended(argv: &[&str], vars: &[(&str, &str)]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = edge(argv, vars).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// A running edge that is not left behind.
struct Running(Child);

impl Running {
    fn start(argv: &[&str], vars: &[(&str, &str)]) -> Self {
        let mut command = edge(argv, vars);
        Self(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Tells it to stop; gives its exit code and the rest of stdout and stderr.
    fn stop(mut self, signal: Signal) -> (i32, String, String) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.0.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        self.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (self.0.wait().unwrap().code().unwrap(), stdout, stderr)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _status = self.0.wait();
    }
}

/// Lines up to and including the first that holds `text`.
fn until(reader: impl Read, text: &str) -> String {
    let mut reader = BufReader::with_capacity(1, reader);
    let mut seen = String::new();
    loop {
        let before = seen.len();
        assert!(reader.read_line(&mut seen).unwrap() > 0, "{text:?} never came: {seen}");
        if seen[before..].contains(text) {
            return seen;
        }
    }
}

#[test]
fn help_and_version_are_no_failure() {
    for (option, text) in [("--help", "MCP_TLS_HANDSHAKE_TIMEOUT"), ("--version", "mcp-edge ")] {
        let (code, stdout, stderr) = ended(&[option], &[("MCP_PORT", "not a port")]);
        assert_eq!((code, &*stderr), (0, ""), "{option}");
        assert!(stdout.contains(text), "{stdout}");
    }
    assert!(ended(&["health", "--help"], &[]).1.contains("MCP_CERTS_DIR"));
}

#[test]
fn usage_ends_with_64() {
    for argv in [&["--nope"][..], &["npx", "-y"], &["--port", "x"], &["--port=1", "health"]] {
        let (code, stdout, stderr) = ended(argv, &[]);
        assert_eq!((code, &*stdout), (64, ""), "{argv:?}: {stderr}");
        assert!(stderr.starts_with("error: "), "{stderr}");
    }
    assert!(ended(&["npx"], &[]).2.contains("behind `--`"));
    let (code, _, stderr) = ended(&[], &[("MCP_CALL_TIMEOUT", "soon")]);
    assert_eq!(code, 64);
    assert!(stderr.contains("'soon' for '--call-timeout <TIME> (MCP_CALL_TIMEOUT)'"), "{stderr}");
}

#[test]
fn configuration_ends_with_78_and_one_line() {
    let (code, stdout, stderr) = ended(&[], &[]);
    assert_eq!((code, &*stdout), (78, ""));
    assert!(stderr.starts_with("mcp-edge: no certificate: "), "{stderr}");
    assert_eq!(stderr.lines().count(), 1);

    let vars = [("MCP_AUTH_TOKEN", "hunter2"), ("MCP_INSECURE_HTTP", "1")];
    let (code, _, stderr) = ended(&["--log-format=json"], &vars);
    assert_eq!(code, 78);
    let event: Value = serde_json::from_str(&stderr).unwrap();
    assert_eq!(event["level"], "ERROR");
    let told = event["message"].as_str().unwrap();
    assert!(told.starts_with("MCP_AUTH_TOKEN is shorter") && !told.contains("hunter2"), "{told}");
}

#[test]
fn an_address_that_cannot_be_had_ends_with_69() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, stdout, stderr) = ended(&["--insecure-http", "--port", &port], &[]);
    assert_eq!((code, &*stdout), (69, ""));
    let line = format!(
        "mcp-edge: cannot listen on --host 127.0.0.1 --port {port} (MCP_HOST, MCP_PORT): the port is taken"
    );
    assert!(stderr.contains(&line), "{stderr}");

    let dir = tempfile::tempdir().unwrap();
    let vars = [("MCP_AUTH_TOKEN", TOKEN), ("MCP_CERTS_DIR", dir.path().to_str().unwrap())];
    let (code, _, stderr) = ended(&["--self-signed", "--host=192.0.2.1"], &vars);
    assert_eq!(code, 69, "{stderr}");
    assert!(
        stderr.contains("--host 192.0.2.1") && stderr.contains("none of this machine's"),
        "{stderr}"
    );
}

#[test]
fn people_are_told_on_stdout_and_a_signal_ends_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let vars = [("MCP_AUTH_TOKEN", TOKEN), ("MCP_INSECURE_HTTP", "yes"), ("MCP_PORT", "0")];
        let mut running = Running::start(&["--path=/mcp/unified"], &vars);
        let told =
            until(running.0.stdout.as_mut().unwrap(), "claude mcp add --transport http edge");
        assert!(told.contains("  url       http://localhost:"), "{told}");
        assert!(!told.contains("localhost:0/") && told.contains("/mcp/unified"), "{told}");
        assert!(told.contains("-H \"Authorization: Bearer $MCP_AUTH_TOKEN\""), "{told}");
        let logged = until(running.0.stderr.as_mut().unwrap(), "serving");
        let (code, _, rest) = running.stop(signal);
        assert_eq!(code, 0, "{rest}");
        assert!(!format!("{told}{logged}{rest}").contains(TOKEN));
        assert!(!logged.contains('\u{1b}'), "no colours for a pipe");
    }
}

#[test]
fn machines_are_told_in_one_event() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens");
    std::fs::write(&file, format!("# new\n{TOKEN}\n")).unwrap();
    let argv =
        ["--log-format=json", "--insecure-http", "--port=0", "--", "cat", "--secret=hunter2"];
    let mut running = Running::start(&argv, &[("MCP_AUTH_TOKEN_FILE", file.to_str().unwrap())]);
    let logged = until(running.0.stderr.as_mut().unwrap(), "\"serving\"");
    let (code, stdout, rest) = running.stop(Signal::TERM);
    assert_eq!((code, &*stdout), (0, ""));
    let event = logged.lines().last().unwrap();
    let event: Value = serde_json::from_str(event).unwrap();
    let port = event["port"].as_u64().unwrap();
    assert_ne!(port, 0);
    assert_eq!(event["url"], format!("http://localhost:{port}/mcp"));
    assert_eq!(event["sse_url"], format!("http://localhost:{port}/sse"));
    assert_eq!(event["address"], "127.0.0.1");
    assert_eq!(event["path"], "/mcp");
    assert_eq!(event["transport"], "http");
    assert_eq!(event["behind"], "cat …, one process for each session");
    assert_eq!(event["tls"], false);
    assert_eq!(event["token_source"], "file");
    assert_eq!(event["token_file"], file.to_str().unwrap());
    for line in logged.lines().chain(rest.lines()) {
        serde_json::from_str::<Value>(line).unwrap();
        assert!(!line.contains(TOKEN) && !line.contains("hunter2"), "{line}");
    }
}

#[test]
fn nothing_to_ask_is_unhealthy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    drop(taken);
    let vars = [("MCP_PORT", &*port), ("MCP_INSECURE_HTTP", "1"), ("MCP_HOST", "0.0.0.0")];
    let (code, stdout, stderr) = ended(&["health"], &vars);
    assert_eq!((code, &*stdout), (1, ""));
    assert!(
        stderr.starts_with(&format!("unhealthy: cannot connect to 127.0.0.1:{port}")),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 1);
}

#[test]
fn a_report_is_one_json_line_in_a_log_of_any_format() {
    for format in ["text", "json"] {
        let log = format!("--log-format={format}");
        let argv =
            ["--insecure-http", "--port=0", "--report-interval=10ms", "--log-level=ERROR", &log];
        let mut running = Running::start(&argv, &[]);
        let told = until(running.0.stderr.as_mut().unwrap(), "\"report\"");
        let line: Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
        let report = &line["report"];
        for gauge in ["connections", "streams", "sessions", "children"] {
            assert_eq!(report[gauge], 0, "{gauge}: {line}");
        }
        assert!(report["memory_bytes"].as_u64().unwrap() > 1_000_000, "{line}");
        assert!(report["descriptors"].as_u64().unwrap() > 3, "{line}");
        assert_eq!(report["outcomes"]["max_connections"], 0, "{line}");
        assert_eq!(report["refusals"].as_object().unwrap().len(), 0, "{line}");
        assert_eq!(running.stop(Signal::TERM).0, 0);
    }
}
