//! Settings that are refused, and why.

use std::time::Duration;

use mcp_edge::{Access, AllowedOrigin, Background, Mode, TlsSource, TokenSource};

use super::*;

#[test]
fn certificates_come_from_one_source() {
    contains(
        &refused(&[], &[]),
        &[
            "--cert FILE",
            "--self-signed",
            "--insecure-http",
            "MCP_CERT",
            "MCP_SELF_SIGNED",
            "MCP_INSECURE_HTTP",
        ],
    );
    let files = ["--cert=a", "--cert=b", "--key=k"];
    contains(&refused(&files, &[]), &["--cert (MCP_CERT)", "2", "--key (MCP_KEY)", "1"]);
    contains(&refused(&["--key=k"], &[]), &["0 file(s)"]);
}

#[test]
fn certificates_do_not_contradict_each_other() {
    let text = refused(&["--cert=a", "--key=k", "--self-signed"], &[]);
    contains(&text, &["--cert (MCP_CERT)", "--self-signed (MCP_SELF_SIGNED)", "contradict"]);
    let text = refused(&["--cert=a", "--key=k", "--insecure-http"], &[]);
    contains(&text, &["--cert (MCP_CERT)", "--insecure-http (MCP_INSECURE_HTTP)", "contradict"]);
    let text = refused(&["--self-signed", "--insecure-http"], &[]);
    contains(&text, &["--self-signed (MCP_SELF_SIGNED)", "--insecure-http (MCP_INSECURE_HTTP)"]);
    let text = refused(&["--insecure-http", "--host=0.0.0.0"], &[("MCP_AUTH_TOKEN", TOKEN)]);
    contains(&text, &["--insecure-http (MCP_INSECURE_HTTP)", "--host (MCP_HOST) 0.0.0.0"]);
    let pair = check(&["--cert=a", "--key=k", "--cert=b", "--key=l"], &[]).unwrap().config.tls;
    assert!(
        matches!(pair, TlsSource::Files(files) if files.len() == 2 && files[1].key.ends_with("l"))
    );
    let named = settings(&["--host=192.0.2.7"], &[]).config.tls;
    assert!(matches!(named, TlsSource::SelfSigned { names, .. } if names == ["192.0.2.7"]));
}

#[test]
fn access_is_decided_with_the_options() {
    let dir = tempfile::tempdir().unwrap();
    let certs = format!("--certs-dir={}", dir.path().display());
    let made = check(&["--self-signed", &certs], &[]).unwrap();
    assert_eq!(made.token_source, TokenSource::Generated(dir.path().join("token")));
    let open = check(&["--self-signed", "--allow-anonymous", "--host=::"], &[]).unwrap();
    assert!(matches!(open.config.access, Access::Anonymous));
}

#[test]
fn numbers_that_cannot_work_are_refused() {
    for (option, name) in [
        ("--requests-per-second", "MCP_REQUESTS_PER_SECOND"),
        ("--connections-per-ip", "MCP_CONNECTIONS_PER_IP"),
        ("--streams-per-ip", "MCP_STREAMS_PER_IP"),
        ("--max-connections", "MCP_MAX_CONNECTIONS"),
        ("--max-sessions", "MCP_MAX_SESSIONS"),
        ("--sessions-per-ip", "MCP_SESSIONS_PER_IP"),
        ("--max-children", "MCP_MAX_CHILDREN"),
        ("--max-headers", "MCP_MAX_HEADERS"),
        ("--workers", "MCP_WORKERS"),
        ("--max-header-bytes", "MCP_MAX_HEADER_BYTES"),
        ("--max-body-bytes", "MCP_MAX_BODY_BYTES"),
        ("--max-line-bytes", "MCP_MAX_LINE_BYTES"),
    ] {
        let text = refused(&[option, "0"], &[]);
        contains(&text, &[&format!("{option} ({name}) is 0"), ": give "]);
    }
    let text = refused(&["--call-timeout=0s"], &[]);
    contains(&text, &["--call-timeout (MCP_CALL_TIMEOUT) is 0s: give 1ms to 1year"]);
    contains(&refused(&[], &[("MCP_SESSION_AGE", "1000y")]), &["--session-age (MCP_SESSION_AGE)"]);
    contains(&refused(&["--max-header-bytes=4k"], &[]), &["is 4KiB: give 8KiB to 1GiB"]);
    contains(&refused(&["--report-interval=2y"], &[]), &["--report-interval", "give 0s to 1year"]);
    let upstream = "--upstream=http://127.0.0.1:8000/mcp";
    for (option, range) in [
        ("--upstream-connections=10001", "0 to 10000"),
        ("--upstream-connect-timeout=0s", "1ms to 1year"),
        ("--upstream-head-timeout=0s", "1ms to 1year"),
        ("--upstream-wait=2y", "0s to 1year"),
    ] {
        contains(&refused(&[upstream, option], &[]), &[&format!("give {range}")]);
    }
    assert!(check(&["--insecure-http", "--burst=0", "--rate-wait=0s"], &[]).is_ok());
}

#[test]
fn stdio_ignores_what_is_for_serving() {
    let vars = [("MCP_TRANSPORT", "stdio"), ("MCP_AUTH_TOKEN", "short"), ("MCP_HOST", "0.0.0.0")];
    let stdio = check(&["--call-timeout=7s", "--cert=a", "--", "sh"], &vars).unwrap();
    assert_eq!(stdio.mode, Mode::Stdio);
    assert_eq!(stdio.config.times.call, Duration::from_secs(7));
    assert_eq!(stdio.token_source, TokenSource::None);
    assert!(matches!(stdio.behind, Background::Child(child) if child.program == "sh"));
}

#[test]
fn pages_without_an_origin_need_a_word_and_a_token() {
    let null = "--allow-origin=null";
    let token = [("MCP_AUTH_TOKEN", TOKEN)];
    let settings = check(&["--insecure-http", null], &token).unwrap();
    assert_eq!(settings.config.allow_origins, [AllowedOrigin::Null]);
    for argv in [&["--insecure-http", null][..], &["--self-signed", "--allow-anonymous", null]] {
        let text = refused(argv, &[]);
        contains(&text, &["--allow-origin (MCP_ALLOW_ORIGIN) null", "MCP_AUTH_TOKEN"]);
    }
    let text = refused(
        &["--self-signed", "--allow-anonymous"],
        &[("MCP_ALLOW_ORIGIN", "https://a.example,null")],
    );
    contains(&text, &["--allow-origin (MCP_ALLOW_ORIGIN) null"]);
}

#[test]
fn a_pass_does_not_take_where_messages_are_posted() {
    let upstream = "--upstream=http://127.0.0.1:8000/mcp";
    let start = ["--insecure-http", upstream, "--path=/api/mcp"];
    for option in ["--pass=/api/mcp/messages", "--pass-open=/api/mcp/messages/*"] {
        let text = refused(&[&start[..], &[option]].concat(), &[]);
        contains(&text, &["(MCP_PASS", "/api/mcp/messages", "--path (MCP_SSE_PATH)"]);
    }
    for option in ["--pass=/api/*", "--pass=/messages", "--pass=/api/mcp/messages/x"] {
        assert!(check(&[&start[..], &[option]].concat(), &[]).is_ok(), "{option}");
    }
}
