//! What keeps the edge from starting: which option and variable, which value, and what to do.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use mcp_edge::{BadToken, BadTokenFile};

/// Settings that are wrong, or contradict each other. No text holds a secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// Two sources of tokens.
    #[error(
        "MCP_AUTH_TOKEN and --auth-token-file (MCP_AUTH_TOKEN_FILE) {file} are both given: keep one \
         of them; a file can hold several tokens, one a line"
    )]
    TwoTokens { file: PathBuf },
    /// A token that is none.
    #[error("MCP_AUTH_TOKEN {0}")]
    Token(BadToken),
    /// The token file is not there, or not ours to read.
    #[error(
        "--auth-token-file (MCP_AUTH_TOKEN_FILE) {file} cannot be read: give a file that this user \
         may read, with one token a line"
    )]
    TokenFileUnread {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The token file holds something else.
    #[error("--auth-token-file (MCP_AUTH_TOKEN_FILE) {file}: {fault}")]
    TokenFile { file: PathBuf, fault: BadTokenFile },
    /// A token for nobody.
    #[error(
        "--allow-anonymous (MCP_ALLOW_ANONYMOUS) lets everybody call, yet {token} is given: drop \
         one of them"
    )]
    AnonymousWithToken { token: &'static str },
    /// Open to the network.
    #[error(
        "--host (MCP_HOST) {host} can be reached from other machines and no token is set: set \
         MCP_AUTH_TOKEN (make one with `openssl rand -hex 32`) or --auth-token-file \
         (MCP_AUTH_TOKEN_FILE), or let everybody in with --allow-anonymous (MCP_ALLOW_ANONYMOUS)"
    )]
    NoToken { host: IpAddr },
    /// The generated token of an earlier start is damaged.
    #[error(
        "the token kept in {file} for --self-signed (MCP_SELF_SIGNED) is unusable, {fault}; delete \
         the file to have a new one made, or set MCP_AUTH_TOKEN"
    )]
    KeptToken { file: PathBuf, fault: BadTokenFile },
    /// No place for a generated token.
    #[error(
        "no token is set, and one for --self-signed (MCP_SELF_SIGNED) cannot be kept in {file}: make \
         --certs-dir (MCP_CERTS_DIR) writable, or set MCP_AUTH_TOKEN"
    )]
    TokenNotKept {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The system gave no random bytes.
    #[error("no token is set and the system gives no randomness to make one: set MCP_AUTH_TOKEN")]
    NoRandomness(#[source] getrandom::Error),

    /// Nothing says how to serve.
    #[error(
        "no certificate: give --cert FILE and --key FILE (MCP_CERT, MCP_KEY), or --self-signed \
         (MCP_SELF_SIGNED=1) for a local CA, or --insecure-http (MCP_INSECURE_HTTP=1) for plain \
         HTTP on a loopback address"
    )]
    NoCertificate,
    /// Certificates and keys do not pair up.
    #[error(
        "--cert (MCP_CERT) names {certs} file(s) and --key (MCP_KEY) {keys}: give one key for each \
         certificate, in the same order"
    )]
    UnpairedKeys { certs: usize, keys: usize },
    /// Two sources of certificates, or TLS and no TLS.
    #[error("{one} and {other} contradict each other: keep one of them")]
    Contradiction { one: &'static str, other: &'static str },
    /// Plain HTTP for all to read.
    #[error(
        "--insecure-http (MCP_INSECURE_HTTP) is refused on --host (MCP_HOST) {host}, which other \
         machines can reach: use 127.0.0.1 or ::1, or serve TLS with --cert and --key or \
         --self-signed"
    )]
    InsecureOnNetwork { host: IpAddr },
    /// A name that cannot stand in a certificate or a Host header.
    #[error("{option} {value:?} is neither a host name nor an IP address: write it as {example}")]
    Name { option: &'static str, value: String, example: &'static str },

    /// A path that cannot be served.
    #[error("--path (MCP_SSE_PATH) {path:?} {reason}")]
    Path { path: String, reason: &'static str },
    /// An origin that no browser sends.
    #[error(
        "--allow-origin (MCP_ALLOW_ORIGIN) {value:?} {reason}: write scheme, host and port only, as \
         https://app.example.com, or null for pages that have none"
    )]
    Origin { value: String, reason: &'static str },
    /// Every web page could call.
    #[error(
        "--allow-origin (MCP_ALLOW_ORIGIN) null lets any web page call, and no token is set: set \
         MCP_AUTH_TOKEN or --auth-token-file (MCP_AUTH_TOKEN_FILE), or leave null out"
    )]
    NullWithoutToken,
    /// A number, size or time that cannot work.
    #[error("{option} is {value}: give {least} to {most}")]
    OutOfRange { option: String, value: String, least: String, most: String },

    /// A setting with a reason of its own.
    #[error("{option} {value:?} {reason}")]
    Setting { option: &'static str, value: String, reason: &'static str },
    /// Something about an upstream, and there is none.
    #[error("{option} needs an --upstream (MCP_UPSTREAM) that speaks HTTP: give its URL")]
    NeedsUpstream { option: &'static str },
    /// The file with the upstream's token is not there, or not ours to read.
    #[error(
        "--upstream-token-file (MCP_UPSTREAM_TOKEN_FILE) {file} cannot be read: give a file that \
         this user may read, with the token alone in it"
    )]
    UpstreamTokenUnread {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The file with the upstream's token holds something else.
    #[error(
        "--upstream-token-file (MCP_UPSTREAM_TOKEN_FILE) {file} holds no token: write the token \
         alone in it, in visible ASCII"
    )]
    UpstreamToken { file: PathBuf },

    /// A variable for the child without a value.
    #[error(
        "value {place} of --env (MCP_ENV) is not NAME=VALUE: give the name, `=`, and the value; to \
         hand on a variable of this environment use --pass-env NAME (MCP_PASS_ENV)"
    )]
    EnvForm { place: usize },
    /// A variable name that cannot be one.
    #[error(
        "--pass-env (MCP_PASS_ENV) takes names only and value {place} is none: give NAME; to set a \
         variable use --env NAME=VALUE (MCP_ENV)"
    )]
    PassEnvForm { place: usize },
    /// The one variable that no child gets.
    #[error(
        "{option} names MCP_AUTH_TOKEN, which the child never gets: give its own secrets other names"
    )]
    TokenToChild { option: &'static str },
    /// `--`, and no program.
    #[error(
        "nothing stands behind `--` (is a variable empty?): give the command there, or leave `--` out \
         to have the built-in diagnostics server answer"
    )]
    EmptyCommand,
    /// A command line in quotes. What follows its first word may be secret.
    #[error(
        "the command \"{word} …\" is one word with spaces in it, and no such file exists: drop the \
         quotes around it, as in `-- npx -y some-mcp-server`"
    )]
    QuotedCommand { word: String },
    /// `NAME=value program`, as shells have it. The value may be secret.
    #[error(
        "the command begins with a value for {name}, which only a shell would set: give --env \
         {name}=VALUE (MCP_ENV) before `--`, or --pass-env {name} (MCP_PASS_ENV) where this \
         environment has it"
    )]
    VariableBeforeCommand { name: String },
    /// A directory in place of a program.
    #[error(
        "the command {program:?} is a directory: give the program in it, or its interpreter first, as \
         in `-- node {program}/index.js`"
    )]
    CommandIsDirectory { program: String },
    /// The program is not there.
    #[error(
        "command {program:?} is not found{place}: check the spelling, install it, or give its full \
         path behind `--`"
    )]
    CommandMissing { program: String, place: &'static str },
    /// The program is there and cannot run.
    #[error(
        "command {program:?} is no executable file: make it one with `chmod +x`, or put its \
         interpreter first, as in `-- python3 server.py`"
    )]
    CommandNotExecutable { program: String },
}

/// Why the address could not be taken, with what to do.
pub(crate) fn bind_text(address: SocketAddr, source: &io::Error) -> String {
    let ip = address.ip();
    let port = address.port();
    unbound(&format!("cannot listen on --host {ip} --port {port} (MCP_HOST, MCP_PORT)"), source)
}

/// The same of the address for plain HTTP.
pub(crate) fn bind_redirect_text(address: SocketAddr, source: &io::Error) -> String {
    let place = format!("cannot listen on --redirect-http {address} (MCP_REDIRECT_HTTP)");
    unbound(&place, source)
}

fn unbound(place: &str, source: &io::Error) -> String {
    let kind = source.kind();
    let advice = if kind == io::ErrorKind::AddrInUse {
        "the port is taken: stop the other program (`ss -ltnp` shows it) or choose another port; 0 \
         lets the system choose"
    } else if kind == io::ErrorKind::AddrNotAvailable {
        "the address is none of this machine's: use one that `ip address` shows, or 0.0.0.0 for all"
    } else if kind == io::ErrorKind::PermissionDenied {
        "ports below 1024 need a privilege: choose another port, or grant CAP_NET_BIND_SERVICE \
         (systemd: AmbientCapabilities)"
    } else {
        return format!("{place}: {source}");
    };
    format!("{place}: {advice}")
}
