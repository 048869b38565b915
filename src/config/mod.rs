//! What the server was asked to be, checked once. Nothing here opens a socket or a process.

mod secret;
mod token;
mod upstream;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

pub use secret::Secret;
pub use token::{BadToken, BadTokenFile, MIN_TOKEN, parse_token, parse_token_file};
pub(crate) use upstream::{PASSED_AT_ONCE, shown};
pub use upstream::{PassRule, Upstream, UpstreamHost, UpstreamKind};

/// Everything a [`crate::Server`] needs to know. Built by the command line, or by hand:
/// `Config { tls: TlsSource::None, ..Config::default() }`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The unified path: Streamable HTTP, HTTP+SSE by GET, and bare POSTs.
    pub path: String,
    /// Where certificates come from.
    pub tls: TlsSource,
    /// What TLS clients are held to.
    pub tls_rules: TlsRules,
    /// Who may call.
    pub access: Access,
    /// Origins that browsers may call from, as `https://host[:port]`.
    pub allow_origins: Vec<String>,
    /// Further names the server may be addressed by, beside its certificate's and its address.
    pub allow_hosts: Vec<String>,
    /// Proxies in front of the edge whose word on who the client is is taken.
    pub trusted_proxies: Vec<IpNet>,
    /// Where to listen for plain HTTP only to send it to the TLS address.
    pub redirect_http: Option<SocketAddr>,
    /// Every count, size and rate.
    pub limits: Limits,
    /// Every length of time.
    pub times: Times,
}

/// Where the certificate comes from.
#[derive(Clone, Debug)]
pub enum TlsSource {
    /// Certificate chain and key, in PEM files; chosen by server name, the first is the default.
    Files(Vec<CertFiles>),
    /// A local CA and a certificate of its own making, kept in `dir`.
    SelfSigned {
        /// Where `ca.pem`, `cert.pem` and `key.pem` are kept.
        dir: PathBuf,
        /// Names beside localhost, 127.0.0.1, `::1` and the host's own.
        names: Vec<String>,
    },
    /// Plain HTTP; only sensible on a loopback address.
    None,
}

/// What TLS clients are held to, beyond what no server should allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsRules {
    /// The oldest version that is spoken.
    pub oldest: TlsVersion,
    /// Is a client that asks for a name that no certificate has refused (RFC 6066 section 3:
    /// `unrecognized_name`)? Else it gets the first certificate. One that asks for none is served.
    pub refuse_unknown_names: bool,
}

/// A version of TLS that can be spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246), with forward secrecy and AEAD only.
    #[default]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// One certificate as configured.
#[derive(Clone, Debug)]
pub struct CertFiles {
    /// PEM file with the certificate chain, leaf first.
    pub cert: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// Who may call.
#[derive(Clone, Debug)]
pub enum Access {
    /// Any of these tokens.
    Tokens(Vec<Secret>),
    /// Everybody.
    Anonymous,
}

impl Access {
    /// The tokens, if it takes any.
    pub(crate) fn secrets(&self) -> &[Secret] {
        match self {
            Self::Tokens(tokens) => tokens,
            Self::Anonymous => &[],
        }
    }
}

/// Counts, sizes and rates. What happens when one is reached stands in the README.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Requests per second of one address.
    pub requests_per_second: u32,
    /// Requests of one address that may come at once, beyond the first.
    pub burst: u32,
    /// Open connections of one address.
    pub connections_per_ip: u32,
    /// Open event streams of one address.
    pub streams_per_ip: u32,
    /// Open connections in all.
    pub max_connections: u32,
    /// Open connections without a request that may pass; one of them gives way to the next.
    pub max_unauthenticated: u32,
    /// Sessions in all.
    pub max_sessions: u32,
    /// Sessions of one address.
    pub sessions_per_ip: u32,
    /// Child processes in all.
    pub max_children: u32,
    /// Bytes of a request head.
    pub max_header_bytes: usize,
    /// Fields of a request head.
    pub max_headers: usize,
    /// Bytes of a request body.
    pub max_body_bytes: usize,
    /// Bytes of one line of a child's output.
    pub max_line_bytes: usize,
    /// Bytes of messages that are held at once: bodies, queues, event logs, answers. A quarter of
    /// them may be one client's.
    pub max_buffered_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests_per_second: 10,
            burst: 20,
            connections_per_ip: 20,
            streams_per_ip: 20,
            max_connections: 1000,
            max_unauthenticated: 256,
            max_sessions: 1000,
            sessions_per_ip: 20,
            max_children: 100,
            max_header_bytes: 32 * 1024,
            max_headers: 100,
            max_body_bytes: 10 * 1024 * 1024,
            max_line_bytes: 16 * 1024 * 1024,
            max_buffered_bytes: 256 * 1024 * 1024,
        }
    }
}

/// Lengths of time. What happens when one is over stands in the README.
#[derive(Clone, Debug)]
pub struct Times {
    /// How long a request over the rate may wait for its turn. Zero: refused at once.
    pub rate_wait: Duration,
    /// A TLS handshake, from accept to finish.
    pub tls_handshake: Duration,
    /// A request head, from its first byte (of a new connection: from its start) to its last.
    pub header: Duration,
    /// A request body between two pieces.
    pub body_idle: Duration,
    /// A request body in all.
    pub body: Duration,
    /// A connection without a request.
    pub idle: Duration,
    /// One call, from its arrival to the backend's answer.
    pub call: Duration,
    /// Between two comments on a silent event stream.
    pub keep_alive: Duration,
    /// An event stream, before jitter is taken off.
    pub stream_age: Duration,
    /// A session without a request or an open stream.
    pub session_idle: Duration,
    /// A session in all.
    pub session_age: Duration,
    /// A write that makes no progress.
    pub write: Duration,
    /// From the signal to the end.
    pub shutdown: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            rate_wait: Duration::ZERO,
            tls_handshake: Duration::from_secs(10),
            header: Duration::from_secs(10),
            body_idle: Duration::from_secs(10),
            body: Duration::from_mins(1),
            idle: Duration::from_secs(75),
            call: Duration::from_mins(5),
            keep_alive: Duration::from_secs(15),
            stream_age: Duration::from_hours(1),
            session_idle: Duration::from_mins(30),
            session_age: Duration::from_hours(24),
            write: Duration::from_secs(30),
            shutdown: Duration::from_secs(30),
        }
    }
}

/// A stdio MCP server to run behind the edge: one process for each session.
#[derive(Clone, Debug, Default)]
pub struct ChildCommand {
    /// The program: a path, or a name looked up in `PATH`.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Names of variables handed on from the edge's own environment.
    pub pass_env: Vec<String>,
    /// Variables set for the child.
    pub env: Vec<(String, Secret)>,
    /// The `mcp-edge` binary, run again between the edge and the program: it keeps all that the
    /// program starts, sets its limits, and ends all of it with the session or the edge. Without it
    /// the child has its own process group only, and `limits` do nothing.
    pub shim: Option<PathBuf>,
    /// What the program may have.
    pub limits: ChildLimits,
    /// Makes this process the sub-reaper of all that descends from it, and kills and reaps every
    /// child that it did not start for this command. Only for a process that has no others.
    pub adopt: bool,
}

/// What the program of a [`ChildCommand`], and each process that it starts, may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChildLimits {
    /// The soft limit of open files; without it that of this process.
    pub open_files: Option<u64>,
    /// Bytes of private memory (`RLIMIT_DATA`) of each process; without it no limit.
    pub memory: Option<u64>,
    /// May programs with the set-user-ID bit, such as sudo, gain privileges?
    pub new_privileges: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8443)),
            path: "/mcp".to_owned(),
            tls: TlsSource::SelfSigned { dir: PathBuf::from("certs"), names: Vec::new() },
            tls_rules: TlsRules::default(),
            access: Access::Tokens(Vec::new()),
            allow_origins: Vec::new(),
            allow_hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            redirect_http: None,
            limits: Limits::default(),
            times: Times::default(),
        }
    }
}
