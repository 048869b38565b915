//! What the server was asked to be, checked once. Nothing here opens a socket or a process.

mod check;
mod draft;
mod error;
mod kind;
mod limits;
mod names;
mod options;
mod read;
mod secret;
mod setting;
mod token;
mod upstream;

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;

pub use check::{
    Background, LogFormat, LogLevel, LogSettings, Mode, Settings, TokenSource, read_token_file,
};
pub use draft::Draft;
pub use error::{ChildFault, ConfigError, Reason, TokenFault};
pub use limits::{Checked, Limits, Times, UpstreamLimits};
use names::proxy;
pub(crate) use names::wildcard_of;
pub use names::{AllowedOrigin, HostName, Origin, UnifiedPath};
pub use secret::Secret;
pub use setting::{Given, Repeats, Setting, Takes};
pub use token::{BadToken, BadTokenFile, MIN_TOKEN, parse_token, parse_token_file};
#[cfg(test)]
pub(crate) use upstream::NEVER;
pub(crate) use upstream::{PASSED_AT_ONCE, shown};
pub use upstream::{PassRule, Upstream, UpstreamHost, UpstreamKind, may_go_up};

/// Every setting, in the order of the help text.
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    let limits = UpstreamLimits::SETTINGS.iter().chain(Limits::SETTINGS).chain(Times::SETTINGS);
    options::BEFORE_LIMITS
        .iter()
        .copied()
        .chain(limits)
        .chain(options::AFTER_LIMITS.iter().copied())
}

/// Everything a [`crate::Server`] needs to know. Built by the command line, or by hand:
/// `Config { tls: TlsSource::None, ..Config::default() }`. The types of the fields refuse values that
/// are not allowed; [`Limits::check`] and [`Times::check`] do so for the numbers.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The unified path: Streamable HTTP, HTTP+SSE by GET, and bare POSTs.
    pub path: UnifiedPath,
    /// Where certificates come from.
    pub tls: TlsSource,
    /// What TLS clients are held to.
    pub tls_rules: TlsRules,
    /// Who may call.
    pub access: Access,
    /// Origins that browsers may call from.
    pub allow_origins: Vec<AllowedOrigin>,
    /// Further names the server may be addressed by, beside its certificate's and its address.
    pub allow_hosts: Vec<HostName>,
    /// Proxies in front of the edge whose word on who the client is is taken.
    pub trusted_proxies: Vec<IpNet>,
    /// Where to listen for plain HTTP only to send it to the TLS address.
    pub redirect_http: Option<SocketAddr>,
    /// Every count, size and rate.
    pub limits: Checked<Limits>,
    /// Every length of time.
    pub times: Checked<Times>,
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

impl Config {
    /// May pages without an origin of their own call, and so may everybody?
    pub(crate) fn lets_anybody_call(&self) -> bool {
        matches!(self.access, Access::Anonymous)
            && self.allow_origins.contains(&AllowedOrigin::Null)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8443)),
            path: UnifiedPath::default(),
            tls: TlsSource::SelfSigned { dir: PathBuf::from("certs"), names: Vec::new() },
            tls_rules: TlsRules::default(),
            access: Access::Tokens(Vec::new()),
            allow_origins: Vec::new(),
            allow_hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            redirect_http: None,
            limits: Checked::default(),
            times: Checked::default(),
        }
    }
}
