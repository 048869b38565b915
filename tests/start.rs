//! Promise: whatever is wrong at the start is told with what happened, where, and the next step, in
//! words that fit what was typed; and what is right is said too.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail"
)]

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, Lines, Read};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{TOKEN, ca_named, terminal};

fn ended(argv: &[&str], vars: &[(&str, &str)]) -> (i32, String, String) {
    // One that serves although it should not is ended.
    let mut command = Command::new("timeout");
    command
        .args(["20", env!("CARGO_BIN_EXE_mcp-edge")])
        .args(argv)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .envs(vars.iter().copied());
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// All of stderr, without the times and places of log lines.
fn told(argv: &[&str], vars: &[(&str, &str)]) -> (i32, String) {
    let (code, stdout, stderr) = ended(argv, vars);
    assert_eq!(stdout, "", "{argv:?}");
    let line = |line: &str| match line.split_once(" WARN ") {
        Some((_, rest)) => format!("WARN {}\n", rest.split_once(": ").unwrap().1),
        None => format!("{line}\n"),
    };
    (code, stderr.lines().map(line).collect())
}

/// One line, and the exit code 78.
fn refused(argv: &[&str], line: &str) {
    assert_eq!(told(argv, &[]), (78, format!("mcp-edge: {line}\n")), "{argv:?}");
}

#[test]
fn a_command_that_is_none_is_told_what_it_is() {
    for (command, line) in [
        (
            &["npx -y some-mcp-server --key=hunter2"][..],
            "the command \"npx …\" is one word with spaces in it, and no such file exists: drop the \
             quotes around it, as in `-- npx -y some-mcp-server`",
        ),
        (
            &["API_KEY=hunter2", "npx", "-y", "some-mcp-server"],
            "the command begins with a value for API_KEY, which only a shell would set: give --env \
             API_KEY=VALUE (MCP_ENV) before `--`, or --pass-env API_KEY (MCP_PASS_ENV) where this \
             environment has it",
        ),
        (
            &["API_KEY=hunter2 npx -y some-mcp-server"],
            "the command begins with a value for API_KEY, which only a shell would set: give --env \
             API_KEY=VALUE (MCP_ENV) before `--`, or --pass-env API_KEY (MCP_PASS_ENV) where this \
             environment has it",
        ),
        (
            &["/etc"],
            "the command \"/etc\" is a directory: give the program in it, or its interpreter first, as \
             in `-- node /etc/index.js`",
        ),
        (
            &["/etc/passwd"],
            "command \"/etc/passwd\" is no executable file: make it one with `chmod +x`, or put its \
             interpreter first, as in `-- python3 server.py`",
        ),
        (
            &["no-such-program"],
            "command \"no-such-program\" is not found in PATH: check the spelling, install it, or give \
             its full path behind `--`",
        ),
    ] {
        refused(&[&["--insecure-http", "--port=0", "--"], command].concat(), line);
    }
}

#[test]
fn nothing_behind_the_dashes_is_no_command() {
    let line = "nothing stands behind `--` (is a variable empty?): give the command there, or leave \
                `--` out to have the built-in diagnostics server answer";
    refused(&["--insecure-http", "--port=0", "--"], line);
    refused(&["--insecure-http", "--port=0", "--", ""], line);
    // In front of an upstream no command is missing.
    let (code, text) = told(&["--upstream=http://127.0.0.1:1/mcp", "--"], &[]);
    assert_eq!(code, 78);
    assert!(text.starts_with("mcp-edge: no certificate: "), "{text}");
}

#[test]
fn a_directory_is_no_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let shown = dir.path().to_str().unwrap();
    let argv = ["--port=0", "--cert", shown, "--key", shown];
    let line = format!(
        "--cert, --key (MCP_CERT, MCP_KEY): `{shown}` is a directory: give the file in it, as \
         fullchain.pem for the certificate and privkey.pem for its key"
    );
    refused(&argv, &line);
}

/// What clap says of a value, up to its hint at the help.
fn misread(option: &str, name: &str, value: &str, reason: &str) {
    let text = format!(
        "error: invalid value '{value}' for '{name}': {reason}\n\nFor more information, try '--help'.\n"
    );
    assert_eq!(told(&[option, value], &[]), (64, text), "{option} {value}");
}

#[test]
fn values_are_told_how_they_are_written() {
    let time = "--call-timeout <TIME> (MCP_CALL_TIMEOUT)";
    misread("--call-timeout", time, "30", "it has no unit: write 30s, or 30ms, 30m or 30h");
    let units = "give a number and its unit, as 500ms, 30s, 10m or 1h";
    misread("--call-timeout", time, "30x", units);
    misread("--call-timeout", time, "soon", units);
    let redirect = "--redirect-http <ADDRESS> (MCP_REDIRECT_HTTP)";
    let whole = "give address and port, as 0.0.0.0:8080 for every IPv4 address";
    misread("--redirect-http", redirect, "8080", whole);
    let whole = "give address and port, as 192.0.2.7:80";
    misread("--redirect-http", redirect, "192.0.2.7", whole);
    let whole = "give address and port, as [::1]:80";
    misread("--redirect-http", redirect, "::1", whole);
    let whole = "give address and port, as 0.0.0.0:80 for every IPv4 address";
    misread("--redirect-http", redirect, "example.com", whole);
    let versions = "give 1.2 or 1.3; older versions are broken, and not spoken (RFC 8996)";
    misread("--tls-min", "--tls-min <VERSION> (MCP_TLS_MIN)", "1.1", versions);
}

#[test]
fn an_option_that_is_none_is_told_the_one_that_is() {
    let usage = "\n\nUsage: mcp-edge [OPTIONS] [-- COMMAND [ARG]...]\n       mcp-edge health \
                 [OPTIONS]\n\nFor more information, try '--help'.\n";
    let behind = "Options of the command stand behind it, and it behind `--`: mcp-edge --self-signed -- \
                  npx -y some-mcp-server\n";
    for (option, tip, line) in [
        (
            "--token",
            "",
            "The token has no option, for options show in `ps`: set MCP_AUTH_TOKEN, or give \
             --auth-token-file\n",
        ),
        (
            "--ssl-cert",
            "",
            "The certificate is given by --cert, its key by --key (MCP_CERT, MCP_KEY)\n",
        ),
        (
            "--listen",
            "",
            "The address is given by --host, its port by --port (MCP_HOST, MCP_PORT)\n",
        ),
        ("--prot", "\n\n  tip: a similar argument exists: '--port'", behind),
        ("-y", "", behind),
    ] {
        let text = format!("error: unexpected argument '{option}' found{tip}{usage}{line}");
        assert_eq!(told(&["--self-signed", option, "x"], &[]), (64, text), "{option}");
    }
    let text = format!(
        "error: unexpected argument 'npx' found{usage}The command to run stands behind `--`: mcp-edge \
         --self-signed -- npx -y some-mcp-server\n"
    );
    assert_eq!(told(&["--self-signed", "npx", "-y"], &[]), (64, text));
}

#[test]
fn words_of_the_sdks_are_understood() {
    for word in
        ["streamable-http", "streamable_http", "streamableHttp", "STREAMABLE", "http_stream"]
    {
        let (code, text) = told(&[], &[("MCP_TRANSPORT", word)]);
        assert!(code == 78 && text.starts_with("mcp-edge: no certificate: "), "{word}: {text}");
        let vars = [("MCP_UPSTREAM_KIND", word), ("MCP_UPSTREAM", "http://127.0.0.1:1/mcp")];
        let (code, text) = told(&[], &vars);
        assert!(code == 78 && text.starts_with("mcp-edge: no certificate: "), "{word}: {text}");
    }
}

#[test]
fn variables_that_others_set_are_ignored_and_told() {
    let rest = "mcp-edge: no certificate: ";
    let (code, text) = told(&[], &[("MCP_PORT", "tcp://10.43.7.62:443")]);
    let link = "WARN MCP_PORT is \"tcp://10.43.7.62:443\", which Kubernetes sets beside a Service called \
                mcp (a service link): it is ignored, and the default port is served. Set \
                enableServiceLinks: false in the pod's spec, or give the port by --port\n";
    assert!(code == 78 && text.starts_with(&format!("{link}{rest}")), "{text}");
    // Where the port is given, there is nothing to say.
    let (_, text) = told(&["--port=9000"], &[("MCP_PORT", "tcp://10.43.7.62:443")]);
    assert!(text.starts_with(rest), "{text}");
    let (code, text) = told(&["--port=tcp://10.43.7.62:443"], &[]);
    assert!(code == 64 && text.contains("'--port <PORT> (MCP_PORT)'"), "{text}");
    let (code, text) = told(&[], &[("MCP_NAME", "/web/mcp")]);
    let link = "WARN MCP_NAME is \"/web/mcp\", which Docker sets for a container that is linked as mcp: it \
                is ignored. Use a network of your own in place of the link, or give names by --name\n";
    assert!(code == 78 && text.starts_with(&format!("{link}{rest}")), "{text}");
    // A health check in the same pod.
    let vars = [("MCP_PORT", "tcp://10.43.7.62:443"), ("MCP_INSECURE_HTTP", "1")];
    assert!(told(&["health", "--host=127.0.0.250"], &vars).1.contains("127.0.0.250:8443"));
}

#[test]
fn a_variable_that_is_misspelt_is_told_and_those_of_others_are_not() {
    let vars = [("MCP_TOKEN", "hunter2"), ("MCP_PROT", "443")];
    let (code, text) = told(&["--self-signed", "--host=192.0.2.1"], &vars);
    assert_eq!(code, 78);
    let warnings = "WARN MCP_PROT is set, and nothing here reads it: is MCP_PORT meant? If it is for the \
                    server behind, --pass-env MCP_PROT says so\nWARN MCP_TOKEN is set, and nothing here \
                    reads it: is MCP_AUTH_TOKEN meant? If it is for the server behind, --pass-env \
                    MCP_TOKEN says so\nmcp-edge: --host (MCP_HOST) 192.0.2.1 can be reached";
    assert!(text.starts_with(warnings) && !text.contains("hunter2"), "{text}");
    let passed = ["--pass-env=MCP_TOKEN", "--pass-env=MCP_PROT"];
    assert!(told(&passed, &vars).1.starts_with("mcp-edge: no certificate"));
    let of_others = "MCP_CONFIG_PATH MCP_TRANSPORT_TYPE MCP_LOG_CALLS_ENABLED MCP_LOGS_ROOT \
        MCP_CALLS_LOG MCP_SERVICE_HOST MCP_SERVICE_PORT MCP_SERVICE_PORT_HTTPS MCP_PORT_443_TCP \
        MCP_PORT_443_TCP_PROTO MCP_PORT_443_TCP_PORT MCP_PORT_443_TCP_ADDR MCP_UPSTREAM_PORT \
        MCP_UPSTREAM_SERVICE_HOST MCP_PATH_PORT MCP_SSE_PATH_PORT FASTMCP_PORT FASTMCP_HOST";
    let vars: Vec<_> = of_others.split_whitespace().map(|name| (name, "1")).collect();
    let (_, text) = told(&[], &vars);
    assert!(text.starts_with("mcp-edge: no certificate"), "{text}");
}

#[test]
fn an_error_that_ends_the_start_stands_alone() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    // The last needs more open files than there may be.
    for option in ["--allow-anonymous=false", "--allow-anonymous", "--max-connections=1000000"] {
        let (code, text) = told(&["--insecure-http", "--port", &port, option], &[]);
        assert!(code == 69 && text.starts_with("mcp-edge: cannot listen on "), "{text}");
    }
    let (code, text) = told(&["--cert=/nowhere", "--key=/nowhere", "--name=a.test"], &[]);
    assert!(code == 78 && text.starts_with("mcp-edge: --cert, --key "), "{text}");
}

/// A running edge, and the warnings of its start.
struct Served {
    edge: Child,
    port: String,
    warnings: Vec<String>,
    lines: Lines<BufReader<ChildStderr>>,
}

impl Served {
    fn start(argv: &[&str]) -> Self {
        let mut edge = Command::new(env!("CARGO_BIN_EXE_mcp-edge"));
        edge.args(argv).args(["--port=0", "--log-format=json"]).env_clear();
        let mut edge = edge.env("MCP_AUTH_TOKEN", TOKEN).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(edge.stderr.take().unwrap()).lines();
        let mut served = Self { edge, port: String::new(), warnings: Vec::new(), lines };
        served.warnings = served.until("serving");
        served
    }

    /// The warnings up to an event with this text.
    fn until(&mut self, text: &str) -> Vec<String> {
        let mut warnings = Vec::new();
        loop {
            let line = self.lines.next().expect("it ended").unwrap();
            let event: Value = serde_json::from_str(&line).expect(&line);
            let message = event["message"].as_str().unwrap().to_owned();
            if message.contains(text) {
                self.port = event["port"].to_string();
                return warnings;
            }
            if event["level"] == "WARN" {
                warnings.push(message);
            }
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _gone_already = self.edge.kill();
        let _status = self.edge.wait();
    }
}

#[test]
fn a_live_edge_is_said_to_be_well() {
    let edge = Served::start(&["--insecure-http"]);
    let (code, stdout, stderr) = ended(&["health", "--insecure-http", "--port", &edge.port], &[]);
    let line = format!("healthy: 127.0.0.1:{} answered 200 to GET /livez\n", edge.port);
    assert_eq!((code, stdout, stderr), (0, line, String::new()));
}

/// Certificates in a directory, as an ACME client leaves them.
struct Pki {
    dir: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let issuer = ca_named("Intermediate R11");
        Self { dir: tempfile::tempdir().unwrap(), issuer }
    }

    fn path(&self, file: &str) -> String {
        self.dir.path().join(file).to_str().unwrap().to_owned()
    }

    fn write(&self, file: &str, bytes: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(file), bytes).unwrap();
        self.path(file)
    }

    /// The leaf alone, in PEM; the key is in `privkey.pem`.
    fn leaf(&self, common_name: &str, names: &[&str]) -> String {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
        let key = KeyPair::generate().unwrap();
        self.write("privkey.pem", key.serialize_pem());
        let file = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(self.path("privkey.pem"), file).unwrap();
        params.signed_by(&key, &self.issuer).unwrap().pem()
    }

    fn start(&self, cert: &str) -> Served {
        Served::start(&["--cert", cert, "--key", &self.path("privkey.pem")])
    }
}

#[test]
fn a_leaf_without_its_issuer_is_told_with_the_file_that_has_it() {
    let pki = Pki::new();
    let leaf = pki.leaf("a.example", &["a.example"]);
    let cert = pki.write("cert.pem", &leaf);
    let known = format!(
        "the certificate in `{cert}` comes without that of its issuer, \"CN=Intermediate R11\", which is \
         no CA that this system trusts: most clients will refuse it. "
    );
    let told = format!(
        "{known}Give the file with the whole chain as --cert (MCP_CERT), which ACME clients call \
         fullchain.pem; nothing is missing only where clients were given that issuer itself"
    );
    let mut edge = pki.start(&cert);
    assert_eq!(edge.warnings, [told]);
    // One of another certificate is not named.
    pki.write("a-fullchain.pem", pki.issuer.pem());
    let full = pki.write("fullchain.pem", leaf.clone() + &pki.issuer.pem());
    let told = format!("{known}`{full}` has both: give it as --cert (MCP_CERT)");
    kill_process(Pid::from_child(&edge.edge), Signal::HUP).unwrap();
    assert_eq!(edge.until("SIGHUP: read the certificates"), std::slice::from_ref(&told));
    assert_eq!(pki.start(&cert).warnings, [told]);
    assert!(pki.start(&full).warnings.is_empty());
    // A certificate that signed itself misses no issuer.
    let alone = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
    pki.write("privkey.pem", alone.signing_key.serialize_pem());
    let cert = pki.write("alone.pem", alone.cert.pem());
    assert!(pki.start(&cert).warnings.is_empty());
}

#[test]
fn an_issuer_that_the_system_trusts_is_not_missed() {
    let pki = Pki::new();
    let cert = pki.write("cert.pem", pki.leaf("a.example", &["a.example"]));
    let roots = pki.write("roots.pem", pki.issuer.pem());
    let mut edge = Command::new("timeout");
    edge.args(["20", env!("CARGO_BIN_EXE_mcp-edge"), "--port=0", "--log-format=json"]);
    edge.args(["--cert", &cert, "--key", &pki.path("privkey.pem")]).env_clear();
    edge.env("PATH", "/usr/bin:/bin").env("SSL_CERT_FILE", roots).env("MCP_AUTH_TOKEN", TOKEN);
    let mut edge = edge.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(edge.stderr.take().unwrap()).lines().map(Result::unwrap);
    let first = lines.next().unwrap();
    kill_process(Pid::from_child(&edge), Signal::TERM).unwrap();
    edge.wait().unwrap();
    assert!(first.contains("\"serving\""), "{first}");
}

#[test]
fn a_certificate_that_names_no_host_is_told() {
    let pki = Pki::new();
    for (common_name, names) in [
        (
            "mcp.example.com",
            "names no host: its common name \"mcp.example.com\" is not looked at by clients any more. \
             Have it issued again with the subject alternative name DNS:mcp.example.com",
        ),
        (
            "192.0.2.7",
            "names no host: its common name \"192.0.2.7\" is not looked at by clients any more. Have it \
             issued again with the subject alternative name IP:192.0.2.7",
        ),
    ] {
        let leaf = pki.leaf(common_name, &[]) + &pki.issuer.pem();
        let cert = pki.write("fullchain.pem", leaf);
        let told = format!("the certificate in `{cert}` {names}");
        assert_eq!(pki.start(&cert).warnings, [told]);
    }
}

#[test]
fn pem_is_read_as_editors_and_shells_leave_it() {
    let pki = Pki::new();
    let leaf = pki.leaf("a.example", &["a.example"]);
    let chain = leaf.clone() + &pki.issuer.pem();
    let bom = |text: &str| format!("\u{feff}{text}").into_bytes();
    let wide = |text: &str| -> Vec<u8> {
        format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect()
    };
    let key = std::fs::read_to_string(pki.path("privkey.pem")).unwrap();
    for (cert, key) in [
        (bom(&chain), bom(&key)),
        (bom(&chain.replace('\n', "\r\n")), bom(&key.replace('\n', "\r\n"))),
        (wide(&chain), wide(&key)),
        // Of two files put together, the second has the mark in the middle, or no line of its own.
        (format!("{leaf}\u{feff}{}", pki.issuer.pem()).into_bytes(), key.clone().into_bytes()),
        (format!("{}{}", leaf.trim_end(), pki.issuer.pem()).into_bytes(), key.clone().into_bytes()),
        (format!("subject=caf\u{e9}\n\n{chain}").into_bytes(), key.into_bytes()),
    ] {
        let cert = pki.write("chain.pem", cert);
        pki.write("privkey.pem", key);
        assert!(pki.start(&cert).warnings.is_empty());
    }
}

#[test]
fn a_token_file_and_an_upstream_ca_may_have_a_mark_too() {
    let pki = Pki::new();
    let tokens = pki.write("tokens", format!("\u{feff}{TOKEN}\r\n"));
    let ca = pki.write("ca.pem", format!("\u{feff}{}", pki.issuer.pem()));
    for file in [&tokens, &ca] {
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(file, mode).unwrap();
    }
    let options = [
        "--insecure-http",
        "--upstream=https://127.0.0.1:1/mcp",
        "--upstream-ca",
        &ca,
        "--upstream-token-file",
        &tokens,
    ];
    assert!(Served::start(&options).warnings.is_empty());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let argv = ["--insecure-http", "--port", &port, "--auth-token-file", &tokens];
    let (code, text) = told(&argv, &[]);
    assert!(code == 69 && !text.contains("--auth-token-file"), "{text}");
}

/// What an edge with a local CA tells people on stdout.
fn banner(argv: &[&str]) -> String {
    let certs = tempfile::tempdir().unwrap();
    let mut edge = Command::new(env!("CARGO_BIN_EXE_mcp-edge"));
    edge.args(["--self-signed", "--port=0", "--certs-dir"]).arg(certs.path()).args(argv);
    edge.env_clear().env("MCP_AUTH_TOKEN", TOKEN).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut edge = edge.spawn().unwrap();
    let log = BufReader::new(edge.stderr.take().unwrap()).lines();
    let served = log.map(Result::unwrap).any(|line| line.contains("\"serving\""));
    edge.kill().unwrap();
    edge.wait().unwrap();
    let mut told = String::new();
    edge.stdout.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(served, "{told}");
    told
}

#[test]
fn claude_code_is_given_a_name_that_it_can_check() {
    let told = banner(&["--host=127.0.0.2"]);
    let (_, claude) = told.split_once("\nAdd it to Claude Code:\n").unwrap();
    let wanted = "  it cannot check an address under a local CA (UNSUPPORTED_CONSTRAINT_TYPE): start again with\n  \
                  --name NAME, a host name that leads clients to 127.0.0.2, and trust the new ca.pem\n";
    assert_eq!(claude, wanted);
    for argv in [
        &["--host=127.0.0.2", "--name=192.0.2.9", "--name=edge.test"][..],
        &["--host=0.0.0.0", "--name=192.0.2.9", "--name=edge.test"],
    ] {
        let told = banner(argv);
        let line = told.lines().find(|line| line.contains("claude mcp add")).unwrap();
        assert!(
            line.contains(" claude mcp add --transport http edge https://edge.test:"),
            "{line}"
        );
    }
    let told = banner(&[]);
    let line = told.lines().find(|line| line.contains("claude mcp add")).unwrap();
    assert!(line.contains(" edge https://localhost:"), "{line}");
}

/// All that an edge says on a terminal.
fn on_terminal(argv: &[&str]) -> String {
    let (master, side) = terminal();
    let mut edge = Command::new(env!("CARGO_BIN_EXE_mcp-edge"));
    edge.args(["--insecure-http", "--port=0"]).args(argv).env_clear().env("MCP_AUTH_TOKEN", TOKEN);
    edge.stdout(side.try_clone().unwrap()).stderr(side);
    let mut child = edge.spawn().unwrap();
    // The terminal has an end once nobody but the edge has it.
    drop(edge);
    let mut lines = BufReader::new(File::from(master));
    let mut told = String::new();
    while lines.read_line(&mut told).is_ok_and(|read| read > 0) {
        if told.contains("claude mcp add") || told.contains("\"serving\"") {
            break;
        }
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    // Its end is an error.
    while lines.read_line(&mut told).is_ok_and(|read| read > 0) {}
    child.wait().unwrap();
    told
}

#[test]
fn the_line_for_machines_is_not_for_people_at_a_terminal() {
    let told = on_terminal(&[]);
    assert!(told.contains("claude mcp add") && told.contains("SIGTERM"), "{told}");
    assert!(!told.contains("\"serving\""), "{told}");
    let told = on_terminal(&["--log-format=json"]);
    assert!(told.contains("\"serving\"") && !told.contains("claude mcp add"), "{told}");
}
