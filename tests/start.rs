//! Promise: whatever is wrong at the start is told with what happened, where, and the next step, in
//! words that fit what was typed; and what is right is said too.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail")]

use std::process::{Command, Output, Stdio};

const TOKEN: &str = "0123456789abcdef";

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
    // In front of an upstream there is none to miss.
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
    // Whoever gives the port need not be told.
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
    for access in ["--allow-anonymous=false", "--allow-anonymous"] {
        let (code, text) = told(&["--insecure-http", "--port", &port, access], &[]);
        assert!(code == 69 && text.starts_with("mcp-edge: cannot listen on "), "{text}");
    }
    let (code, text) = told(&["--cert=/nowhere", "--key=/nowhere", "--name=a.test"], &[]);
    assert!(code == 78 && text.starts_with("mcp-edge: --cert, --key "), "{text}");
}

#[test]
fn a_live_edge_is_said_to_be_well() {
    use std::io::{BufRead, BufReader};
    let mut edge = Command::new(env!("CARGO_BIN_EXE_mcp-edge"));
    edge.args(["--insecure-http", "--port=0"]).env_clear().env("MCP_AUTH_TOKEN", TOKEN);
    let mut edge = edge.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(edge.stderr.take().unwrap()).lines();
    let serving = lines.map(Result::unwrap).find(|line| line.contains("\"serving\"")).unwrap();
    let serving: serde_json::Value = serde_json::from_str(&serving).unwrap();
    let port = serving["port"].to_string();
    let (code, stdout, stderr) = ended(&["health", "--insecure-http", "--port", &port], &[]);
    edge.kill().unwrap();
    edge.wait().unwrap();
    let line = format!("healthy: 127.0.0.1:{port} answered 200 to GET /livez\n");
    assert_eq!((code, stdout, stderr), (0, line, String::new()));
}
