//! From options to checked settings: each value, then how they go together.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use mcp_edge::{
    Access, CertFiles, ChildCommand, Config, HealthCheck, TlsRules, TlsSource, Upstream,
};

use super::args::{self, Certificates, Logging, Options, Serving, Transport};
use super::value::Bytes;
use super::{
    Args, ConfigError, Health, LogFormat, LogLevel, access, child, names, ranges, upstream,
};

/// Everything the process needs to know, checked.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) mode: Mode,
    pub(crate) config: Config,
    pub(crate) behind: Background,
    /// Threads; one for each CPU if none.
    pub(crate) workers: Option<NonZeroUsize>,
    pub(crate) token_source: TokenSource,
    /// Between two reports; none are written where there is none.
    pub(crate) report: Option<Duration>,
    /// What to say once it serves: before an error that ends the start it would only be in the way.
    pub(crate) warnings: Warnings,
}

/// Lines for the log.
pub(super) type Warnings = Vec<String>;

/// What stands behind the edge.
#[derive(Clone, Debug)]
pub(crate) enum Background {
    /// The built-in diagnostics server.
    Diagnostics,
    /// A program.
    Child(ChildCommand),
    /// A server that speaks HTTP itself.
    Upstream(Box<Upstream>),
}

/// Which side MCP is spoken on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// HTTP on a port.
    Serve,
    /// Lines on stdin and stdout.
    Stdio,
}

/// How much is logged, and how it looks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogSettings {
    pub(crate) level: LogLevel,
    pub(crate) format: LogFormat,
}

/// Where the token came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenSource {
    /// `MCP_AUTH_TOKEN`.
    Environment,
    /// `--auth-token-file`.
    File(PathBuf),
    /// Made at this start or an earlier one, and kept there.
    Generated(PathBuf),
    /// There is none.
    None,
}

impl Args {
    /// How to log. Told first, so that the checks can warn.
    pub(crate) fn log(&self) -> LogSettings {
        let Logging { log_level, log_format, report_interval: _ } = self.options.logging;
        LogSettings { level: log_level, format: log_format }
    }

    /// Checks everything, reads the token file, and makes a token where one is missed.
    ///
    /// # Errors
    ///
    /// The first setting that is wrong or contradicts another.
    pub(crate) fn check(self) -> Result<Settings, ConfigError> {
        let Self { options, auth_token, dashes, notices } = self;
        // At once: they may well be the reason of an error.
        for notice in notices {
            tracing::warn!("{notice}");
        }
        let mut warnings = Warnings::new();
        let Options {
            serving,
            certificates,
            access,
            child,
            upstream,
            limits,
            times,
            logging,
            command,
        } = options;
        let Serving { transport, host, port, path, redirect_http, workers } = serving;
        let workers = ranges::workers(workers)?;
        let report = ranges::report_interval(logging.report_interval)?;
        let local = local(&limits, child.max_line_bytes, &times)?;
        let command = child::command(command, &child)?;
        let upstream = upstream::upstream(&upstream, &mut warnings)?;
        let behind = behind(upstream, command, dashes)?;
        if transport == Transport::Stdio {
            return Ok(Settings {
                mode: Mode::Stdio,
                config: local,
                behind,
                workers,
                token_source: TokenSource::None,
                report,
                warnings,
            });
        }
        let path = names::path(&path)?;
        let tls_rules = tls_rules(&certificates);
        let tls = tls(certificates, host, &mut warnings)?;
        if redirect_http.is_some() && matches!(tls, TlsSource::None) {
            return Err(ConfigError::Contradiction { one: REDIRECT, other: INSECURE });
        }
        let config = Config {
            listen: SocketAddr::new(host, port),
            path,
            allow_origins: names::origins(&access.allow_origin)?,
            allow_hosts: names::hosts("--allow-host (MCP_ALLOW_HOST)", &access.allow_host)?,
            trusted_proxies: upstream::proxies(&access.trusted_proxy)?,
            redirect_http,
            ..local
        };
        if let Background::Upstream(upstream) = &behind {
            upstream::check_messages(&upstream.pass, &config.path)?;
        }
        let (access, token_source) = allowed(access, auth_token, host, &tls, &mut warnings)?;
        check_null(&config.allow_origins, &access, &mut warnings)?;
        let config = Config { tls, tls_rules, access, ..config };
        let mode = Mode::Serve;
        Ok(Settings { mode, config, behind, workers, token_source, report, warnings })
    }
}

fn behind(
    upstream: Option<Upstream>,
    command: Option<ChildCommand>,
    dashes: bool,
) -> Result<Background, ConfigError> {
    match (upstream, command) {
        (Some(_), Some(_)) => Err(ConfigError::Contradiction { one: UPSTREAM, other: COMMAND }),
        (Some(upstream), None) => Ok(Background::Upstream(Box::new(upstream))),
        (None, Some(command)) => Ok(Background::Child(command)),
        (None, None) if dashes => Err(ConfigError::EmptyCommand),
        (None, None) => Ok(Background::Diagnostics),
    }
}

/// What speaking on stdin and stdout needs; serving adds the rest.
fn local(
    limits: &args::Limits,
    max_line_bytes: Bytes,
    times: &args::Times,
) -> Result<Config, ConfigError> {
    Ok(Config {
        tls: TlsSource::None,
        access: Access::Anonymous,
        limits: ranges::limits(limits, max_line_bytes)?,
        times: ranges::times(times)?,
        ..Config::default()
    })
}

fn allowed(
    access: args::Access,
    variable: Option<OsString>,
    host: IpAddr,
    tls: &TlsSource,
    warnings: &mut Warnings,
) -> Result<(Access, TokenSource), ConfigError> {
    let args::Access {
        auth_token_file,
        allow_anonymous,
        allow_origin: _,
        allow_host: _,
        trusted_proxy: _,
    } = access;
    let keep_in = match tls {
        TlsSource::SelfSigned { dir, names: _ } => Some(dir.clone()),
        TlsSource::Files(_) | TlsSource::None => None,
    };
    let anonymous = allow_anonymous.0;
    let file = auth_token_file;
    access::decide(access::Asked { variable, file, anonymous, host, keep_in }, warnings)
}

/// Any page can put itself into a frame that has no origin: only a token keeps those out.
fn check_null(
    origins: &[String],
    access: &Access,
    warnings: &mut Warnings,
) -> Result<(), ConfigError> {
    if !origins.iter().any(|origin| origin == names::NULL_ORIGIN) {
        return Ok(());
    }
    if matches!(access, Access::Anonymous) {
        return Err(ConfigError::NullWithoutToken);
    }
    warnings.push(
        "--allow-origin (MCP_ALLOW_ORIGIN) null: files and sandboxed frames of any web page may call \
         and read the answers, if they have a token"
            .to_owned(),
    );
    Ok(())
}

impl Health {
    /// What to ask, and what it must show.
    pub(crate) fn check(&self) -> HealthCheck {
        let Certificates {
            cert,
            key: _,
            self_signed: _,
            certs_dir,
            name: _,
            tls_min: _,
            refuse_unknown_names: _,
            insecure_http,
        } = &self.certificates;
        let shown = cert.first().cloned().unwrap_or_else(|| certs_dir.join("cert.pem"));
        let trust = (!insecure_http.0).then_some(shown);
        HealthCheck { address: SocketAddr::new(self.serving.host, self.serving.port), trust }
    }
}

const CERT: &str = "--cert (MCP_CERT)";
const SELF_SIGNED: &str = "--self-signed (MCP_SELF_SIGNED)";
const UPSTREAM: &str = "--upstream (MCP_UPSTREAM)";
const COMMAND: &str = "a command behind `--`";
const REDIRECT: &str = "--redirect-http (MCP_REDIRECT_HTTP)";
const INSECURE: &str = "--insecure-http (MCP_INSECURE_HTTP)";

fn tls_rules(certificates: &Certificates) -> TlsRules {
    let Certificates { tls_min: oldest, refuse_unknown_names, .. } = certificates;
    TlsRules { oldest: *oldest, refuse_unknown_names: refuse_unknown_names.0 }
}

fn tls(
    certificates: Certificates,
    host: IpAddr,
    warnings: &mut Warnings,
) -> Result<TlsSource, ConfigError> {
    let Certificates {
        cert,
        key,
        self_signed,
        certs_dir,
        name,
        tls_min: _,
        refuse_unknown_names: _,
        insecure_http,
    } = certificates;
    let names = names::hosts("--name (MCP_NAME)", &name)?;
    let contradiction = |one, other| Err(ConfigError::Contradiction { one, other });
    match (!cert.is_empty() || !key.is_empty(), self_signed.0, insecure_http.0) {
        (true, true, _) => contradiction(CERT, SELF_SIGNED),
        (true, _, true) => contradiction(INSECURE, CERT),
        (_, true, true) => contradiction(INSECURE, SELF_SIGNED),
        (false, false, false) => Err(ConfigError::NoCertificate),
        (true, false, false) => {
            if !names.is_empty() {
                warnings.push("--name (MCP_NAME) does nothing without --self-signed".to_owned());
            }
            pairs(cert, key)
        }
        (false, true, false) => {
            Ok(TlsSource::SelfSigned { dir: certs_dir, names: with_address(names, host) })
        }
        (false, false, true) if host.to_canonical().is_loopback() => Ok(TlsSource::None),
        (false, false, true) => Err(ConfigError::InsecureOnNetwork { host }),
    }
}

fn pairs(certs: Vec<PathBuf>, keys: Vec<PathBuf>) -> Result<TlsSource, ConfigError> {
    if certs.len() != keys.len() {
        return Err(ConfigError::UnpairedKeys { certs: certs.len(), keys: keys.len() });
    }
    let pairs = certs.into_iter().zip(keys).map(|(cert, key)| CertFiles { cert, key });
    Ok(TlsSource::Files(pairs.collect()))
}

/// Clients reach a server that listens on one address by that address, so that it is a name too.
fn with_address(mut names: Vec<String>, host: IpAddr) -> Vec<String> {
    let known = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
    let address = host.to_string();
    if !host.is_unspecified() && !known.contains(&host) && !names.contains(&address) {
        names.push(address);
    }
    names
}
