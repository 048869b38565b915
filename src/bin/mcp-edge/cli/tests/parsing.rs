//! What is typed, what the environment says, and what of both is understood.

use std::time::Duration;

use clap::ArgAction;
use mcp_edge::{Access, Background, Config, LogFormat, LogLevel, Mode, TlsSource, TokenSource};

use super::*;

#[test]
fn every_option_has_help_a_heading_and_a_twin() {
    let twin = |long: &str| mcp_edge::settings().find(|it| it.name == long).unwrap().variable();
    let top = command();
    top.clone().debug_assert();
    let health = top.find_subcommand("health").unwrap();
    let mut seen = 0;
    for arg in top.get_arguments().chain(health.get_arguments()) {
        let Some(long) = arg.get_long() else {
            assert_eq!(arg.get_id(), "command");
            continue;
        };
        seen += 1;
        let help = arg.get_help().unwrap().to_string();
        let told = format!("\n[env: {}]", twin(long));
        let help = help.strip_suffix(&told).unwrap_or_else(|| panic!("{help}"));
        assert!(arg.get_help_heading().is_some(), "{long}");
        assert!(!help.contains('\n'), "{long}");
        let without = [
            "auth-token-file",
            "child-memory",
            "redirect-http",
            "upstream",
            "upstream-ca",
            "upstream-host",
            "upstream-token-file",
            "workers",
        ];
        let optional = matches!(arg.get_action(), ArgAction::Append) || without.contains(&long);
        assert_eq!(arg.get_default_values().is_empty(), optional, "{long} shows its default");
    }
    assert!(seen > 50);
    assert_eq!(twin("path"), "MCP_SSE_PATH");
    assert_eq!(twin("tls-handshake-timeout"), "MCP_TLS_HANDSHAKE_TIMEOUT");
}

#[test]
fn help_is_told_in_groups() {
    let error =
        parse_with(&["--help"], &[("MCP_PORT", "9"), ("MCP_AUTH_TOKEN", TOKEN)]).unwrap_err();
    let help = error.to_string();
    contains(&help, &["Serving:", "Certificates:", "Access:", "Child:", "Limits:", "Time limits:"]);
    contains(&help, &["Logging:", "[env: MCP_PORT] [default: 8443]", "mcp-edge health [OPTIONS]"]);
    assert!(!help.contains(TOKEN));
    assert!(!error.use_stderr());
}

#[test]
fn the_defaults_are_the_library_s() {
    let Settings { mode, config, behind, workers, token_source, report, warnings } =
        settings(&[], &[]);
    assert_eq!((report, warnings), (None, Vec::new()));
    assert_eq!(mode, Mode::Serve);
    let config = Config { access: Access::Tokens(Vec::new()), ..config };
    assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    assert!(matches!(behind, Background::Diagnostics) && workers.is_none());
    assert_eq!(token_source, TokenSource::Environment);
}

#[test]
fn the_command_line_wins_over_the_environment() {
    let vars = [("MCP_PORT", "9000"), ("MCP_SSE_PATH", "/env/"), ("MCP_NAME", "a.test, b.test,")];
    let from_env = settings(&[], &vars);
    assert_eq!(from_env.config.listen.port(), 9000);
    assert_eq!(&*from_env.config.path, "/env");
    assert!(
        matches!(from_env.config.tls, TlsSource::SelfSigned { names, .. } if names == ["a.test", "b.test"])
    );
    let typed = settings(&["--port=9001", "--name", "c.test"], &vars);
    assert_eq!(typed.config.listen.port(), 9001);
    assert!(matches!(typed.config.tls, TlsSource::SelfSigned { names, .. } if names == ["c.test"]));
}

#[test]
fn an_empty_variable_is_no_variable() {
    let vars = [("MCP_PORT", ""), ("MCP_NAME", ""), ("MCP_INSECURE_HTTP", ""), ("MCP_WORKERS", "")];
    assert_eq!(settings(&[], &vars).config.listen.port(), 8443);
    let text = refused(&["--self-signed", "--host=0.0.0.0"], &[("MCP_AUTH_TOKEN", "")]);
    contains(&text, &["--host (MCP_HOST) 0.0.0.0"]);
}

#[test]
fn switches_take_the_usual_words() {
    for (word, plain) in [("1", true), ("YES", true), ("true", true), ("0", false), ("no", false)] {
        let given = check(
            &[],
            &[
                ("MCP_INSECURE_HTTP", word),
                ("MCP_CERT", "c"),
                ("MCP_KEY", "k"),
                ("MCP_AUTH_TOKEN", TOKEN),
            ],
        );
        assert_eq!(given.is_err(), plain, "{word}");
    }
    let text = misread(&[], &[("MCP_SELF_SIGNED", "maybe")]);
    contains(&text, &["maybe", "--self-signed", "(MCP_SELF_SIGNED)"]);
    let off =
        check(&["--self-signed=false", "--insecure-http"], &[("MCP_SELF_SIGNED", "1")]).unwrap();
    assert!(matches!(off.config.tls, TlsSource::None));
}

#[test]
fn a_value_that_cannot_be_read_names_option_variable_and_value() {
    for (name, value, option) in [
        ("MCP_PORT", "65536", "--port"),
        ("MCP_HOST", "example.com", "--host"),
        ("MCP_TRANSPORT", "quic", "--transport"),
        ("MCP_CALL_TIMEOUT", "soon", "--call-timeout"),
        ("MCP_MAX_BODY_BYTES", "10MB", "--max-body-bytes"),
        ("MCP_LOG_LEVEL", "loud", "--log-level"),
        ("MCP_BURST", "-1", "--burst"),
    ] {
        let typed = format!("{option}={value}");
        for text in [misread(&[], &[(name, value)]), misread(&[&typed], &[])] {
            contains(&text, &[&format!("'{value}'"), option, &format!("({name})")]);
        }
    }
}

#[test]
fn the_words_of_the_five_deployments() {
    for word in ["sse", "http", "HTTP-STREAM"] {
        assert_eq!(settings(&[], &[("MCP_TRANSPORT", word)]).mode, Mode::Serve);
    }
    for (word, level) in [
        ("DEBUG", LogLevel::Debug),
        ("info", LogLevel::Info),
        ("WARNING", LogLevel::Warning),
        ("warn", LogLevel::Warning),
        ("Error", LogLevel::Error),
        ("TRACE", LogLevel::Trace),
    ] {
        let Ok(Invocation::Run(draft, _)) = parse_with(&[], &[("MCP_LOG_LEVEL", word)]) else {
            panic!("{word}")
        };
        let log = draft.log().unwrap();
        assert_eq!((log.level, log.format), (level, LogFormat::Text));
    }
    let vars =
        [("MCP_CALL_TIMEOUT", "2m"), ("MCP_MAX_LINE_BYTES", "32k"), ("MCP_HOST", "localhost")];
    let config = settings(&[], &vars).config;
    assert_eq!(config.times.call, Duration::from_mins(2));
    assert_eq!(config.limits.max_line_bytes, 32 * 1024);
    assert!(config.listen.ip().is_loopback());
}

#[test]
fn a_command_stands_behind_the_dashes() {
    let vars = [("MCP_ENV", "A=1,2\n\nB=x y\n"), ("MCP_PASS_ENV", "HOME, LANG")];
    let child = |argv: &[&str]| match settings(argv, &vars).behind {
        Background::Child(child) => child,
        other @ (Background::Diagnostics | Background::Upstream(_)) => panic!("{other:?}"),
    };
    let typed = ["--env=C=line 1\nline 2", "--", "sh", "--port", "health"];
    let one = child(&typed);
    assert_eq!((&*one.program, one.args.join(" ")), ("sh", "--port health".to_owned()));
    assert_eq!(one.pass_env, ["HOME", "LANG"]);
    assert_eq!(one.env.len(), 1);
    assert_eq!(one.env[0].1.expose(), "line 1\nline 2");
    let child = child(&["--", "sh"]);
    let env: Vec<_> = child.env.iter().map(|(name, value)| (&**name, value.expose())).collect();
    assert_eq!(env, [("A", "1,2"), ("B", "x y")]);

    let error = parse_with(&["sh", "-c"], &[]).unwrap_err();
    assert!(hint(&error).is_some_and(|hint| hint.contains("`--`")), "{error}");
    contains(&refused(&["--", "no-such-program"], &[]), &["\"no-such-program\"", "PATH"]);
}

#[test]
fn an_upstream_takes_the_place_of_a_command() {
    let upstream = |argv: &[&str]| match settings(argv, &[]).behind {
        Background::Upstream(upstream) => upstream,
        other @ (Background::Diagnostics | Background::Child(_)) => panic!("{other:?}"),
    };
    let url = "--upstream=http://127.0.0.1:8000/sse";
    let plain = upstream(&[url]);
    let default = mcp_edge::Upstream::new(plain.url.clone());
    assert_eq!(format!("{plain:?}"), format!("{default:?}"));
    let passing = upstream(&[url, "--pass=/files/*", "--pass-open=/", "--upstream-wait=0s"]);
    assert_eq!(passing.pass.len(), 2);
    assert!(passing.limits.wait.is_zero());
    contains(&refused(&[url, "--", "sh"], &[]), &["--upstream (MCP_UPSTREAM)", "command"]);
    contains(&refused(&["--pass=/health"], &[]), &["--pass (MCP_PASS)", "--upstream"]);
    contains(&refused(&[url, "--upstream-ca=ca.pem"], &[]), &["--upstream-ca", "contradict"]);
}

#[test]
fn health_asks_where_the_edge_serves() {
    let health = |argv: &[&str], vars: &[(&str, &str)]| match parse_with(argv, vars) {
        Ok(Invocation::Health(draft)) => draft.whereabouts().unwrap(),
        other => panic!("{other:?}"),
    };
    let vars = [("MCP_PORT", "9000"), ("MCP_HOST", "0.0.0.0"), ("MCP_AUTH_TOKEN", TOKEN)];
    let (address, trust) = health(&["health"], &vars);
    assert_eq!(address.to_string(), "0.0.0.0:9000");
    assert_eq!(trust.unwrap(), std::path::Path::new("certs/cert.pem"));
    let (address, _) = health(&["health", "--port=9001", "--path=/x", "--host=::1"], &vars);
    assert_eq!(address.to_string(), "[::1]:9001");
    let (_, trust) = health(&["health", "--cert=a.pem", "--cert=b.pem", "--key=k"], &[]);
    assert_eq!(trust.unwrap(), std::path::Path::new("a.pem"));
    assert!(health(&["health"], &[("MCP_INSECURE_HTTP", "1")]).1.is_none());
    let dir = [("MCP_CERTS_DIR", "/var/lib/edge")];
    assert_eq!(
        health(&["health"], &dir).1.unwrap(),
        std::path::Path::new("/var/lib/edge/cert.pem")
    );
    assert!(parse_with(&["--port=1", "health"], &[]).is_err());
}
