//! The options as typed. Every one has a twin in the environment, see [`super::twin`].

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use mcp_edge::TlsVersion;

use super::value::{Bytes, Duration, Switch, count, host, listen, port, tls_version};

/// Everything `mcp-edge [OPTIONS] [-- COMMAND [ARG]...]` takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) serving: Serving,
    #[command(flatten)]
    pub(crate) certificates: Certificates,
    #[command(flatten)]
    pub(crate) access: Access,
    #[command(flatten)]
    pub(crate) child: Child,
    #[command(flatten)]
    pub(crate) upstream: Upstream,
    #[command(flatten)]
    pub(crate) limits: Limits,
    #[command(flatten)]
    pub(crate) times: Times,
    #[command(flatten)]
    pub(crate) logging: Logging,
    /// The stdio MCP server to put behind the edge, with its arguments; without it the built-in
    /// diagnostics server answers
    #[arg(last = true, value_name = "COMMAND", help_heading = "Command")]
    pub(crate) command: Vec<String>,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Serving")]
pub(crate) struct Serving {
    /// How MCP is spoken: sse, http, http-stream and streamable-http all serve every HTTP transport
    /// on one port; stdio speaks on stdin and stdout and opens no port
    #[arg(long, value_name = "KIND", default_value = "http", ignore_case = true)]
    pub(crate) transport: Transport,
    /// Address to listen on: an IP address or localhost; 0.0.0.0 is every IPv4 address
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = host)]
    pub(crate) host: IpAddr,
    /// Port to listen on; 0 lets the system choose, and the start-up text tells
    #[arg(long, value_name = "PORT", default_value = "8443", value_parser = port)]
    pub(crate) port: u16,
    /// The one path for Streamable HTTP, SSE and bare POSTs; /sse and /messages are served as well
    #[arg(long, value_name = "PATH", default_value = "/mcp")]
    pub(crate) path: String,
    /// Address and port, as 0.0.0.0:80, to listen on for plain HTTP only to redirect to https
    #[arg(long, value_name = "ADDRESS", value_parser = listen)]
    pub(crate) redirect_http: Option<SocketAddr>,
    /// Threads that serve; without it one for each CPU
    #[arg(long, value_name = "COUNT", value_parser = count::<usize>)]
    pub(crate) workers: Option<usize>,
}

/// `sse`, `http` and `http-stream` mean the same: all are served at once. So do the words of the
/// SDKs for Streamable HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transport {
    #[value(aliases = STREAMABLE, alias = "streamable")]
    Http,
    Sse,
    HttpStream,
    Stdio,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Certificates")]
pub(crate) struct Certificates {
    /// PEM file with a certificate chain, leaf first; repeatable, chosen by server name, the first
    /// is the default
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: Vec<PathBuf>,
    /// PEM file with the private key of the --cert at the same place in the order
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Vec<PathBuf>,
    /// Make a small local CA and a certificate, keep both in --certs-dir, and renew the certificate
    /// in its last 30 days
    #[arg(long, value_name = "BOOL", default_value = "false", num_args = 0..=1,
          require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub(crate) self_signed: Switch,
    /// Where --self-signed keeps its files (ca.pem is for the clients) and a generated token
    #[arg(long, value_name = "DIR", default_value = "certs")]
    pub(crate) certs_dir: PathBuf,
    /// A further host name or IP address for the certificate of --self-signed; repeatable
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Vec<String>,
    /// The oldest version of TLS that is spoken: 1.2 or 1.3
    #[arg(long, value_name = "VERSION", default_value = "1.2", value_parser = tls_version)]
    pub(crate) tls_min: TlsVersion,
    /// Refuse clients that ask for a name that no certificate has; else they get the first one
    #[arg(long, value_name = "BOOL", default_value = "false", num_args = 0..=1,
          require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub(crate) refuse_unknown_names: Switch,
    /// Serve plain HTTP; refused on an address that is not loopback
    #[arg(long, value_name = "BOOL", default_value = "false", num_args = 0..=1,
          require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub(crate) insecure_http: Switch,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Access")]
#[expect(clippy::doc_markdown, reason = "help text for a terminal")]
pub(crate) struct Access {
    /// File with one token a line (`#` starts a comment); any of them is accepted, so that old and
    /// new overlap. A single token fits in the variable MCP_AUTH_TOKEN, which has no option because
    /// options show in `ps`
    #[arg(long, value_name = "FILE")]
    pub(crate) auth_token_file: Option<PathBuf>,
    /// Let everybody call without a token; warns at start
    #[arg(long, value_name = "BOOL", default_value = "false", num_args = 0..=1,
          require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub(crate) allow_anonymous: Switch,
    /// Origin that a browser may call from, as https://app.example.com; repeatable; others get 403.
    /// `null` is for pages that have none, as files; it needs a token
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) allow_origin: Vec<String>,
    /// Name that requests may be addressed to, beside the certificate's names and --host;
    /// repeatable; others are refused
    #[arg(long, value_name = "NAME")]
    pub(crate) allow_host: Vec<String>,
    /// Network, as 10.0.0.0/8, or address of proxies in front of the edge; repeatable; from there
    /// a PROXY header (v1, v2) or X-Forwarded-For names the client, and X-Forwarded-Prefix the path
    /// that the proxy takes off; from elsewhere they are ignored
    #[arg(long, value_name = "CIDR")]
    pub(crate) trusted_proxy: Vec<String>,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Child")]
#[expect(clippy::struct_field_names, reason = "the options are called so")]
pub(crate) struct Child {
    /// Variable of the edge's own environment that COMMAND gets too; repeatable; all others but a
    /// few harmless ones are withheld
    #[arg(long, value_name = "NAME")]
    pub(crate) pass_env: Vec<String>,
    /// Variable set for COMMAND; repeatable (in the environment: one a line). Secrets are better
    /// passed by --pass-env, options show in `ps`
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Private memory that each process of COMMAND may have; what asks for more is refused it by
    /// the system; without it no limit
    #[arg(long, value_name = "SIZE")]
    pub(crate) child_memory: Option<Bytes>,
    /// Let programs of COMMAND with the set-user-ID bit, such as sudo, gain privileges; the edge
    /// may then be unable to end them
    #[arg(long, value_name = "BOOL", default_value = "false", num_args = 0..=1,
          require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub(crate) new_privileges: Switch,
    /// Bytes in one line that COMMAND writes; a longer one is skipped and logged, and the call that
    /// it answers gets an error
    #[arg(long, value_name = "SIZE", default_value = "16MiB")]
    pub(crate) max_line_bytes: Bytes,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Upstream")]
#[expect(clippy::doc_markdown, reason = "help text for a terminal")]
#[expect(clippy::struct_field_names, reason = "the options are called so")]
pub(crate) struct Upstream {
    /// URL of an MCP server that speaks HTTP itself, as http://127.0.0.1:8000/sse, to put behind
    /// the edge instead of COMMAND; one that is not up yet is waited for
    #[arg(long, value_name = "URL")]
    pub(crate) upstream: Option<String>,
    /// What it speaks: sse (HTTP+SSE), streamable (Streamable HTTP), or auto to find out
    #[arg(long, value_name = "KIND", default_value = "auto", ignore_case = true)]
    pub(crate) upstream_kind: UpstreamKind,
    /// Host that the upstream is sent: a name that it takes, perhaps with a port, or client for the
    /// one that each client sent; without it that of the URL
    #[arg(long, value_name = "NAME")]
    pub(crate) upstream_host: Option<String>,
    /// PEM file with the CAs for an https upstream; without it the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) upstream_ca: Option<PathBuf>,
    /// File with the edge's own bearer token for the upstream; the client's never goes up
    #[arg(long, value_name = "FILE")]
    pub(crate) upstream_token_file: Option<PathBuf>,
    /// Header field of the client's that goes up as it is; repeatable; no other does
    #[arg(long, value_name = "NAME")]
    pub(crate) forward_header: Vec<String>,
    /// Path of the upstream that is passed through as it is, behind the token; repeatable; with
    /// /* at its end everything beneath
    #[arg(long, value_name = "PATH")]
    pub(crate) pass: Vec<String>,
    /// The same without a token, for health pages
    #[arg(long, value_name = "PATH")]
    pub(crate) pass_open: Vec<String>,
    /// Idle connections to the upstream that are kept
    #[arg(long, value_name = "COUNT", default_value = "32", value_parser = count::<usize>)]
    pub(crate) upstream_connections: usize,
    /// Until the upstream takes a connection; then it counts as down
    #[arg(long, value_name = "TIME", default_value = "5s")]
    pub(crate) upstream_connect_timeout: Duration,
    /// Until the head of a response on a passed path that is no event stream; then 504
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub(crate) upstream_head_timeout: Duration,
    /// How long a call waits for an upstream that is down or restarting; then a JSON-RPC error
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub(crate) upstream_wait: Duration,
}

/// What the upstream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum UpstreamKind {
    Auto,
    Sse,
    #[value(aliases = STREAMABLE, aliases = ["http", "http-stream"])]
    Streamable,
}

/// What SDKs and clients call Streamable HTTP, in any case.
const STREAMABLE: [&str; 7] = [
    "streamable-http",
    "streamable_http",
    "streamablehttp",
    "http-streamable",
    "httpstreamable",
    "http_stream",
    "httpstream",
];

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Limits")]
pub(crate) struct Limits {
    /// Requests per second from one address; more are answered 429 with Retry-After
    #[arg(long, value_name = "COUNT", default_value = "10", value_parser = count::<u32>)]
    pub(crate) requests_per_second: u32,
    /// Requests from one address that may come at once beyond the rate; more are answered 429
    #[arg(long, value_name = "COUNT", default_value = "20", value_parser = count::<u32>)]
    pub(crate) burst: u32,
    /// Connections from one address; more are closed before any TLS work
    #[arg(long, value_name = "COUNT", default_value = "20", value_parser = count::<u32>)]
    pub(crate) connections_per_ip: u32,
    /// Open event streams of one address; more are answered 429
    #[arg(long, value_name = "COUNT", default_value = "20", value_parser = count::<u32>)]
    pub(crate) streams_per_ip: u32,
    /// Connections in all; one that has shown no token is closed for the next; if there is no such one,
    /// the next is closed before any TLS work
    #[arg(long, value_name = "COUNT", default_value = "1000", value_parser = count::<u32>)]
    pub(crate) max_connections: u32,
    /// Connections without a request with a good token yet, their handshakes included; one is closed
    /// for a newcomer: one that is silent, or of the network with the most of them
    #[arg(long, value_name = "COUNT", default_value = "256", value_parser = count::<u32>)]
    pub(crate) max_unauthenticated: u32,
    /// Sessions in all; an idle one gives its place to the next; if none is idle, 503 with Retry-After
    #[arg(long, value_name = "COUNT", default_value = "1000", value_parser = count::<u32>)]
    pub(crate) max_sessions: u32,
    /// Sessions of one address; an idle one gives its place to the next; if none is idle, 429 with
    /// Retry-After
    #[arg(long, value_name = "COUNT", default_value = "20", value_parser = count::<u32>)]
    pub(crate) sessions_per_ip: u32,
    /// Processes of COMMAND in all; idle warm ones are ended for the next, then an idle session; else
    /// 503 with Retry-After
    #[arg(long, value_name = "COUNT", default_value = "100", value_parser = count::<u32>)]
    pub(crate) max_children: u32,
    /// Bytes of a request head; more are answered 431
    #[arg(long, value_name = "SIZE", default_value = "32KiB")]
    pub(crate) max_header_bytes: Bytes,
    /// Fields of a request head; more are answered 431
    #[arg(long, value_name = "COUNT", default_value = "100", value_parser = count::<usize>)]
    pub(crate) max_headers: usize,
    /// Bytes of a request body; more are answered 413
    #[arg(long, value_name = "SIZE", default_value = "10MiB")]
    pub(crate) max_body_bytes: Bytes,
    /// Bytes of messages that are held at once: bodies, queues, streams, answers; a quarter is the
    /// most for one address, which is answered 429 then, others 503 when all is used up
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    pub(crate) max_buffered_bytes: Bytes,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Time limits")]
pub(crate) struct Times {
    /// How long a request over the rate waits for its turn before its 429, if it brings a token
    #[arg(long, value_name = "TIME", default_value = "0s")]
    pub(crate) rate_wait: Duration,
    /// A TLS handshake; then the connection is closed
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub(crate) tls_handshake_timeout: Duration,
    /// A request head; then 408 and the connection is closed
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub(crate) header_timeout: Duration,
    /// Between two pieces of a request body; then 408
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub(crate) body_idle_timeout: Duration,
    /// A whole request body; then 408
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub(crate) body_timeout: Duration,
    /// A connection without a request; then it is closed
    #[arg(long, value_name = "TIME", default_value = "75s")]
    pub(crate) idle_timeout: Duration,
    /// One call; then a JSON-RPC error, and the server is told to cancel
    #[arg(long, value_name = "TIME", default_value = "300s")]
    pub(crate) call_timeout: Duration,
    /// Silence on an event stream; then a comment is sent so that nothing between cuts it
    #[arg(long, value_name = "TIME", default_value = "15s")]
    pub(crate) keep_alive_interval: Duration,
    /// An event stream; then it is ended cleanly (a little earlier at random) and may be resumed
    #[arg(long, value_name = "TIME", default_value = "1h")]
    pub(crate) stream_age: Duration,
    /// A session without a request or an open stream; then it and its process are ended
    #[arg(long, value_name = "TIME", default_value = "30m")]
    pub(crate) session_idle_timeout: Duration,
    /// A session in all; then it and its process are ended
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub(crate) session_age: Duration,
    /// A write that makes no progress; then the connection is closed
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub(crate) write_timeout: Duration,
    /// From SIGTERM, SIGINT or SIGQUIT until everything is closed; a second signal does it at once
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub(crate) shutdown_timeout: Duration,
}

#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Logging")]
pub(crate) struct Logging {
    /// What is written to stderr: this level and the graver ones
    #[arg(long, value_name = "LEVEL", default_value = "INFO", ignore_case = true)]
    pub(crate) log_level: LogLevel,
    /// text, with start-up help on stdout; or json, one object a line and nothing else
    #[arg(long, value_name = "FORMAT", default_value = "text", ignore_case = true)]
    pub(crate) log_format: LogFormat,
    /// How often the edge writes what it holds to stderr, as one JSON line; 0s is never
    #[arg(long, value_name = "TIME", default_value = "0s")]
    pub(crate) report_interval: Duration,
}

/// The words that operators use, in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub(crate) enum LogLevel {
    Error,
    #[value(alias = "WARN")]
    Warning,
    Info,
    Debug,
    Trace,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}
