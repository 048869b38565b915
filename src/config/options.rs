//! Every setting that is no part of the [limits](super::limits), declared once, in the order of the
//! help text.

use std::ffi::OsStr;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::kind::{LENGTH, SIZE, TIME, within};
use super::limits::ANY_TIME;
use super::limits::units::{GiB, MiB};
use super::setting::{PLAIN, Repeats, Setting, Takes, Typed, settings};
use super::{LogFormat, LogLevel, Mode, TlsVersion, UpstreamKind, read};

/// Private memory of a process. Below the least hardly anything starts.
const CHILD_MEMORY_RANGE: RangeInclusive<usize> = 16 * MiB..=1024 * GiB;

const SERVING: Setting = Setting { group: "Serving", ..PLAIN };
const CERTIFICATES: Setting = Setting { group: "Certificates", ..PLAIN };
const ACCESS: Setting = Setting { group: "Access", ..PLAIN };
const CHILD: Setting = Setting { group: "Child", ..PLAIN };
const UPSTREAM_GROUP: Setting = Setting { group: "Upstream", ..PLAIN };
const LOGGING: Setting = Setting { group: "Logging", ..PLAIN };

const fn switch(setting: Setting) -> Setting {
    Setting { value: "BOOL", default: Some("false"), takes: Takes::Switch, ..setting }
}

const fn file(setting: Setting) -> Setting {
    Setting { value: "FILE", takes: Takes::File, ..setting }
}

/// The words for each value. The first of them is the one that is shown.
type Words<T> = &'static [(T, &'static [&'static str])];

/// These words, and those that the SDKs have for Streamable HTTP.
macro_rules! streamable {
    ($($word:literal),+) => {
        &[
            $($word,)+
            "streamable-http",
            "streamable_http",
            "streamablehttp",
            "http-streamable",
            "httpstreamable",
            "http_stream",
            "httpstream",
        ]
    };
}

/// Three of them mean the same: every HTTP transport is served at once.
const TRANSPORTS: Words<Mode> = &[
    (Mode::Serve, streamable!["http", "streamable"]),
    (Mode::Serve, &["sse"]),
    (Mode::Serve, &["http-stream"]),
    (Mode::Stdio, &["stdio"]),
];
const UPSTREAM_KINDS: Words<UpstreamKind> = &[
    (UpstreamKind::Auto, &["auto"]),
    (UpstreamKind::Sse, &["sse"]),
    (UpstreamKind::Streamable, streamable!["streamable", "http", "http-stream"]),
];
const LEVELS: Words<LogLevel> = &[
    (LogLevel::Error, &["ERROR"]),
    (LogLevel::Warning, &["WARNING", "WARN"]),
    (LogLevel::Info, &["INFO"]),
    (LogLevel::Debug, &["DEBUG"]),
    (LogLevel::Trace, &["TRACE"]),
];
const FORMATS: Words<LogFormat> = &[(LogFormat::Text, &["text"]), (LogFormat::Json, &["json"])];

/// What one of the words means.
fn meaning<T: Copy>(text: &OsStr, all: Words<T>) -> Result<T, String> {
    let text = text.to_str().unwrap_or_default();
    let is_it = |word: &&str| word.eq_ignore_ascii_case(text);
    let known = all.iter().find(|(_, words)| words.iter().any(is_it));
    known.map(|(value, _)| *value).ok_or_else(|| {
        let shown = all.iter().filter_map(|(_, words)| words.first().copied());
        format!("give one of {}", shown.collect::<Vec<_>>().join(", "))
    })
}

fn words<T>(all: Words<T>) -> Vec<&'static [&'static str]> {
    all.iter().map(|(_, words)| *words).collect()
}

settings! { BEFORE_LIMITS:
    TRANSPORT: Mode = |text| meaning(text, TRANSPORTS), {
        name: "transport",
        value: "KIND",
        default: Some("http"),
        takes: Takes::Words(|| words(TRANSPORTS)),
        help: "How MCP is spoken: sse, http, http-stream and streamable-http all serve every HTTP \
               transport on one port; stdio speaks on stdin and stdout and opens no port",
        row: "`http`, `sse`, `http-stream` and `streamable-http` (in any case and spelling of the SDKs) \
              mean the same: all is served at once. `stdio` speaks on stdin and stdout instead; options \
              of the network do nothing then",
        ..SERVING
    }
    HOST: IpAddr = read::host, {
        name: "host",
        value: "ADDRESS",
        default: Some("127.0.0.1"),
        help: "Address to listen on: an IP address or localhost; 0.0.0.0 is every IPv4 address",
        row: "address to listen on; `0.0.0.0` is every IPv4 address. One that is not loopback needs a \
              token",
        ..SERVING
    }
    PORT: u16 = read::port, {
        name: "port",
        value: "PORT",
        default: Some("8443"),
        help: "Port to listen on; 0 lets the system choose, and the start-up text tells",
        row: "0 lets the system choose; the start tells. `MCP_PORT=tcp://…`, which Kubernetes sets \
              beside a Service called `mcp`, is ignored with a warning",
        ..SERVING
    }
    PATH: String = read::text, {
        name: "path",
        value: "PATH",
        default: Some("/mcp"),
        help: "The one path for Streamable HTTP, SSE and bare POSTs; /sse and /messages are served as \
               well",
        row: "the unified path; `/sse`, `/messages`, `/livez`, `/readyz` and `/tools/list` are taken. SSE \
              clients that come there post to `messages` under it",
        ..SERVING
    }
    REDIRECT_HTTP: SocketAddr = read::listen, {
        name: "redirect-http",
        value: "ADDRESS",
        help: "Address and port, as 0.0.0.0:80, to listen on for plain HTTP only to redirect to https",
        row: "address and port, as `0.0.0.0:80`, where plain HTTP is sent to https: 301 for GET and \
              HEAD, 308 for all else. Only for hosts that the edge is known by",
        ..SERVING
    }
    WORKERS: usize = read::count, within LENGTH 1..=1024, {
        name: "workers",
        value: "COUNT",
        without: "one for each CPU",
        help: "Threads that serve; without it one for each CPU",
        row: "threads",
        ..SERVING
    }
    CERT: PathBuf = read::file, {
        name: "cert",
        repeats: Repeats::ByCommas,
        help: "PEM file with a certificate chain, leaf first; repeatable, chosen by server name, the \
               first is the default",
        row: "PEM file, leaf first, with the intermediate certificates behind it (`fullchain.pem`, not \
              `cert.pem`): where the leaf's issuer is missing, or a leaf names no host, the start warns. \
              Repeatable (in the variable: commas), chosen by server name; the first is the default",
        ..file(CERTIFICATES)
    }
    KEY: PathBuf = read::file, {
        name: "key",
        repeats: Repeats::ByCommas,
        help: "PEM file with the private key of the --cert at the same place in the order",
        row: "PEM file with the key of the `--cert` at the same place",
        ..file(CERTIFICATES)
    }
    SELF_SIGNED: bool = read::switch, {
        name: "self-signed",
        help: "Make a small local CA and a certificate, keep both in --certs-dir, and renew the \
               certificate in its last 30 days",
        row: "makes a local CA and a certificate, keeps them, and renews the certificate in its last \
              30 days",
        ..switch(CERTIFICATES)
    }
    CERTS_DIR: PathBuf = read::file, {
        name: "certs-dir",
        value: "DIR",
        default: Some("certs"),
        help: "Where --self-signed keeps its files (ca.pem is for the clients) and a generated token",
        row: "where `--self-signed` keeps its files",
        ..file(CERTIFICATES)
    }
    NAME: String = read::text, {
        name: "name",
        value: "NAME",
        repeats: Repeats::ByCommas,
        help: "A further host name or IP address for the certificate of --self-signed; repeatable",
        row: "a further name or address in the certificate of `--self-signed`; repeatable. A new one \
              means a new CA",
        ..CERTIFICATES
    }
    TLS_MIN: TlsVersion = read::tls_version, {
        name: "tls-min",
        value: "VERSION",
        default: Some("1.2"),
        help: "The oldest version of TLS that is spoken: 1.2 or 1.3",
        row: "the oldest version of TLS that is spoken: `1.2` or `1.3`",
        ..CERTIFICATES
    }
    REFUSE_UNKNOWN_NAMES: bool = read::switch, {
        name: "refuse-unknown-names",
        help: "Refuse clients that ask for a name that no certificate has; else they get the first one",
        row: "a client that asks (SNI) for a name that no certificate has is refused with the alert \
              `unrecognized_name`; else it gets the first certificate. A client that asks for no name is \
              served",
        ..switch(CERTIFICATES)
    }
    INSECURE_HTTP: bool = read::switch, {
        name: "insecure-http",
        help: "Serve plain HTTP; refused on an address that is not loopback",
        row: "plain HTTP; on a loopback address only",
        ..switch(CERTIFICATES)
    }
    AUTH_TOKEN_FILE: PathBuf = read::file, {
        name: "auth-token-file",
        help: "File with one token a line (`#` starts a comment); any of them is accepted, so that old \
               and new overlap. A single token fits in the variable MCP_AUTH_TOKEN, which has no option \
               because options show in `ps`",
        row: "one token a line, any of them is good: old and new overlap. Read at the start",
        ..file(ACCESS)
    }
    ALLOW_ANONYMOUS: bool = read::switch, {
        name: "allow-anonymous",
        help: "Let everybody call without a token; warns at start",
        row: "everybody may call; warns",
        ..switch(ACCESS)
    }
    ALLOW_ORIGIN: String = read::text, {
        name: "allow-origin",
        value: "ORIGIN",
        repeats: Repeats::ByCommas,
        help: "Origin that a browser may call from, as https://app.example.com; repeatable; others get \
               403. `null` is for pages that have none, as files; it needs a token",
        row: "origin whose pages may call, as `https://app.example.com`; repeatable. Gets CORS headers. \
              `null` is for pages that have none, as files (`file://`) and sandboxed frames: any web page \
              can make such a frame, so that it needs a token, and warns",
        ..ACCESS
    }
    ALLOW_HOST: String = read::text, {
        name: "allow-host",
        value: "NAME",
        repeats: Repeats::ByCommas,
        help: "Name that requests may be addressed to, beside the certificate's names and --host; \
               repeatable; others are refused",
        row: "a further name that requests may be addressed to, beside those of the certificates and the \
              address they came in on; repeatable",
        ..ACCESS
    }
    TRUSTED_PROXY: String = read::text, {
        name: "trusted-proxy",
        value: "CIDR",
        repeats: Repeats::ByCommas,
        help: "Network, as 10.0.0.0/8, or address of proxies in front of the edge; repeatable; from \
               there a PROXY header (v1, v2) or X-Forwarded-For names the client, and X-Forwarded-Prefix \
               the path that the proxy takes off; from elsewhere they are ignored",
        row: "network or address of proxies in front of the edge; repeatable. From there a PROXY header \
              (v1, v2) or `X-Forwarded-For` names the client that is limited and logged, and \
              `X-Forwarded-Prefix` the path that the proxy takes off, with which all links begin then; \
              from elsewhere they are worth nothing",
        ..ACCESS
    }
    PASS_ENV: String = read::text, {
        name: "pass-env",
        value: "NAME",
        repeats: Repeats::ByCommas,
        help: "Variable of the edge's own environment that COMMAND gets too; repeatable; all others but \
               a few harmless ones are withheld",
        row: "variable of the edge's environment that COMMAND gets too; repeatable",
        ..CHILD
    }
    ENV: String = read::text, {
        name: "env",
        value: "NAME=VALUE",
        repeats: Repeats::ByLines,
        help: "Variable set for COMMAND; repeatable (in the environment: one a line). Secrets are better \
               passed by --pass-env, options show in `ps`",
        row: "`NAME=VALUE` for COMMAND; repeatable (in the variable: one a line)",
        ..CHILD
    }
    CHILD_MEMORY: usize = read::size, within SIZE CHILD_MEMORY_RANGE, {
        name: "child-memory",
        value: "SIZE",
        is_limit: true,
        help: "Private memory that each process of COMMAND may have; what asks for more is refused it \
               by the system; without it no limit",
        row: "private memory (`RLIMIT_DATA`) of each process of COMMAND: the system refuses it more, and \
              most programs end then",
        ..CHILD
    }
    NEW_PRIVILEGES: bool = read::switch, {
        name: "new-privileges",
        help: "Let programs of COMMAND with the set-user-ID bit, such as sudo, gain privileges; the edge \
               may then be unable to end them",
        row: "lets set-user-ID programs of COMMAND (sudo, ping) gain privileges; the edge may then be \
              unable to end them",
        ..switch(CHILD)
    }
    UPSTREAM: String = read::text, {
        name: "upstream",
        value: "URL",
        help: "URL of an MCP server that speaks HTTP itself, as http://127.0.0.1:8000/sse, to put behind \
               the edge instead of COMMAND; one that is not up yet is waited for",
        row: "URL of an MCP server that speaks HTTP itself, as `http://127.0.0.1:8000/sse`, instead of a \
              COMMAND",
        ..UPSTREAM_GROUP
    }
    UPSTREAM_KIND: UpstreamKind = |text| meaning(text, UPSTREAM_KINDS), {
        name: "upstream-kind",
        value: "KIND",
        default: Some("auto"),
        takes: Takes::Words(|| words(UPSTREAM_KINDS)),
        help: "What it speaks: sse (HTTP+SSE), streamable (Streamable HTTP), or auto to find out",
        row: "`sse`, `streamable` (or a word of the SDKs for it, as `streamable-http`), or `auto`: found \
              out by asking, and remembered",
        ..UPSTREAM_GROUP
    }
    UPSTREAM_HOST: String = read::text, {
        name: "upstream-host",
        value: "NAME",
        help: "Host that the upstream is sent: a name that it takes, perhaps with a port, or client for \
               the one that each client sent; without it that of the URL",
        row: "`Host` that the upstream is sent: a name that it takes, perhaps with a port; or `client`, \
              the one that each client sent (nginx `proxy_set_header Host $host`). Without it that of \
              the URL",
        ..UPSTREAM_GROUP
    }
    UPSTREAM_CA: PathBuf = read::file, {
        name: "upstream-ca",
        help: "PEM file with the CAs for an https upstream; without it the system's",
        row: "PEM file with the CAs for an https upstream; without it the system's",
        ..file(UPSTREAM_GROUP)
    }
    UPSTREAM_TOKEN_FILE: PathBuf = read::file, {
        name: "upstream-token-file",
        help: "File with the edge's own bearer token for the upstream; the client's never goes up",
        row: "file with the edge's own bearer token for the upstream. The client's never goes up",
        ..file(UPSTREAM_GROUP)
    }
    FORWARD_HEADER: String = read::text, {
        name: "forward-header",
        value: "NAME",
        repeats: Repeats::ByCommas,
        help: "Header field of the client's that goes up as it is; repeatable; no other does",
        row: "header field of the client's that goes up as it is; repeatable. No other does. Pages of an \
              allowed origin may send it",
        ..UPSTREAM_GROUP
    }
    PASS: String = read::text, {
        name: "pass",
        value: "PATH",
        repeats: Repeats::ByCommas,
        help: "Path of the upstream that is passed through as it is, behind the token; repeatable; with \
               /* at its end everything beneath",
        row: "path of the upstream that is passed through as it is, behind the token; repeatable. With \
              `/*` at its end everything beneath",
        ..UPSTREAM_GROUP
    }
    PASS_OPEN: String = read::text, {
        name: "pass-open",
        value: "PATH",
        repeats: Repeats::ByCommas,
        help: "The same without a token, for health pages",
        row: "the same without a token, for health pages",
        ..UPSTREAM_GROUP
    }
}

settings! { AFTER_LIMITS:
    LOG_LEVEL: LogLevel = |text| meaning(text, LEVELS), {
        name: "log-level",
        value: "LEVEL",
        default: Some("INFO"),
        takes: Takes::Words(|| words(LEVELS)),
        help: "What is written to stderr: this level and the graver ones",
        row: "`ERROR`, `WARNING` (`WARN`), `INFO`, `DEBUG`, `TRACE`; written to stderr, never waited for: \
              up to 1 MiB is queued, what does not fit is dropped and counted (`log_lines_dropped` in \
              the report)",
        ..LOGGING
    }
    LOG_FORMAT: LogFormat = |text| meaning(text, FORMATS), {
        name: "log-format",
        value: "FORMAT",
        default: Some("text"),
        takes: Takes::Words(|| words(FORMATS)),
        help: "text, with start-up help on stdout; or json, one object a line and nothing else",
        row: "`json`: one object a line and nothing on stdout",
        ..LOGGING
    }
    REPORT_INTERVAL: Duration = read::time, within TIME ANY_TIME, {
        name: "report-interval",
        value: "TIME",
        default: Some("0s"),
        help: "How often the edge writes what it holds to stderr, as one JSON line; 0s is never",
        row: "how often what the edge holds (connections, streams, sessions, children, memory, \
              descriptors) and what happened at its limits is written to stderr as one JSON line \
              `{\"timestamp\":…,\"report\":{…}}`; `0s` is never",
        ..LOGGING
    }
}
