//! From a draft to checked settings: each value, then how they go together. Reads files, and changes
//! nothing.

mod access;
mod child;
mod upstream;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::draft::Draft;
use crate::config::options::{
    ALLOW_HOST, ALLOW_ORIGIN, CERT, CERTS_DIR, HOST, INSECURE_HTTP, KEY, LOG_FORMAT, LOG_LEVEL,
    NAME, PATH, PORT, REDIRECT_HTTP, REFUSE_UNKNOWN_NAMES, REPORT_INTERVAL, SELF_SIGNED, TLS_MIN,
    TRANSPORT, TRUSTED_PROXY, WORKERS,
};
use crate::config::{
    Access, AllowedOrigin, CertFiles, ChildCommand, ChildFault, Config, ConfigError, HostName,
    Limits, Reason, Times, TlsRules, TlsSource, TokenFault, UnifiedPath, Upstream, proxy,
};

pub use access::{TokenSource, read_token_file};

/// Everything that a process was asked to be, checked.
#[derive(Debug)]
pub struct Settings {
    /// Which side MCP is spoken on.
    pub mode: Mode,
    /// What the server is to be.
    pub config: Config,
    /// What stands behind it.
    pub behind: Background,
    /// Threads; one for each CPU if none.
    pub workers: Option<NonZeroUsize>,
    /// Where the token comes from.
    pub token_source: TokenSource,
    /// Between two reports; none are written where there is none.
    pub report: Option<Duration>,
    /// What to say once it serves: before an error that ends the start it would only be in the way.
    pub warnings: Vec<String>,
}

/// What stands behind the edge.
#[derive(Clone, Debug)]
pub enum Background {
    /// The built-in diagnostics server.
    Diagnostics,
    /// A program.
    Child(ChildCommand),
    /// A server that speaks HTTP itself.
    Upstream(Box<Upstream>),
}

/// Which side MCP is spoken on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// HTTP on a port.
    Serve,
    /// Lines on stdin and stdout.
    Stdio,
}

/// How much is logged, and how it looks.
#[derive(Clone, Copy, Debug)]
pub struct LogSettings {
    /// This level and the graver ones.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
}

/// How grave an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Error,
    Warning,
    Info,
    Debug,
    Trace,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

impl Draft {
    /// How to log. Known first, so that the checks can warn.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn log(&self) -> Result<LogSettings, ConfigError> {
        Ok(LogSettings { level: self.value(&LOG_LEVEL)?, format: self.value(&LOG_FORMAT)? })
    }

    /// Where an edge with these settings is reached, and the certificate that it shows, if it speaks
    /// TLS.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn whereabouts(&self) -> Result<(SocketAddr, Option<PathBuf>), ConfigError> {
        let address = SocketAddr::new(self.value(&HOST)?, self.value(&PORT)?);
        if self.value(&INSECURE_HTTP)? {
            return Ok((address, None));
        }
        let kept = self.value(&CERTS_DIR)?.join("cert.pem");
        Ok((address, Some(self.list(&CERT)?.into_iter().next().unwrap_or(kept))))
    }

    /// Checks everything. Reads the token files, and looks whether the command is there. Changes
    /// nothing: see [`TokenSource::Generated`].
    ///
    /// # Errors
    /// The first setting that is wrong or contradicts another.
    pub fn check(&self) -> Result<Settings, ConfigError> {
        let mut warnings = Vec::new();
        let workers = self.option(&WORKERS)?.and_then(NonZeroUsize::new);
        let report = Some(self.value(&REPORT_INTERVAL)?).filter(|interval| !interval.is_zero());
        // What speaking on stdin and stdout needs; serving adds the rest.
        let local = Config {
            tls: TlsSource::None,
            access: Access::Anonymous,
            limits: Limits::of(self)?,
            times: Times::of(self)?,
            ..Config::default()
        };
        let command = child::command(self)?;
        let upstream = upstream::asked(self, &mut warnings)?;
        let behind = self.behind(upstream, command)?;
        let mode = self.value(&TRANSPORT)?;
        let (config, token_source) = match mode {
            Mode::Stdio => (local, TokenSource::None),
            Mode::Serve => self.served(&local, &behind, &mut warnings)?,
        };
        Ok(Settings { mode, config, behind, workers, token_source, report, warnings })
    }

    fn behind(
        &self,
        upstream: Option<Upstream>,
        command: Option<ChildCommand>,
    ) -> Result<Background, ConfigError> {
        match (upstream, command) {
            (Some(_), Some(_)) => {
                let reason = Reason::Contradiction("a command behind `--`");
                Err(self.error("upstream", None, reason))
            }
            (Some(upstream), None) => Ok(Background::Upstream(Box::new(upstream))),
            (None, Some(command)) => Ok(Background::Child(command)),
            (None, None) if self.names_command => Err(ConfigError::command("", ChildFault::Empty)),
            (None, None) => Ok(Background::Diagnostics),
        }
    }

    fn served(
        &self,
        local: &Config,
        behind: &Background,
        warnings: &mut Vec<String>,
    ) -> Result<(Config, TokenSource), ConfigError> {
        let host = self.value(&HOST)?;
        let path: UnifiedPath = self.made(&PATH, &self.value(&PATH)?, str::parse)?;
        let tls_rules = TlsRules {
            oldest: self.value(&TLS_MIN)?,
            refuse_unknown_names: self.value(&REFUSE_UNKNOWN_NAMES)?,
        };
        let tls = self.tls(host, warnings)?;
        let redirect_http = self.option(&REDIRECT_HTTP)?;
        if redirect_http.is_some() && matches!(tls, TlsSource::None) {
            let reason = Reason::Contradiction(INSECURE_FLAG);
            return Err(self.error(REDIRECT_HTTP.setting.name, None, reason));
        }
        let allow_origins: Vec<AllowedOrigin> = self.made_list(&ALLOW_ORIGIN, str::parse)?;
        let allow_hosts = self.made_list(&ALLOW_HOST, str::parse)?;
        let trusted_proxies = self.made_list(&TRUSTED_PROXY, proxy)?;
        if let Background::Upstream(upstream) = behind {
            upstream::check_messages(self, &upstream.pass, &path)?;
        }
        let keep_in = match &tls {
            TlsSource::SelfSigned { dir, names: _ } => Some(dir.as_path()),
            TlsSource::Files(_) | TlsSource::None => None,
        };
        let (access, token_source) = access::decide(self, host, keep_in, warnings)?;
        self.check_null(&allow_origins, &access, warnings)?;
        let listen = SocketAddr::new(host, self.value(&PORT)?);
        let config = Config {
            listen,
            path,
            tls,
            tls_rules,
            access,
            allow_origins,
            allow_hosts,
            trusted_proxies,
            redirect_http,
            limits: local.limits,
            times: local.times,
        };
        Ok((config, token_source))
    }

    /// Any page can put itself into a frame that has no origin: only a token keeps those out.
    fn check_null(
        &self,
        origins: &[AllowedOrigin],
        access: &Access,
        warnings: &mut Vec<String>,
    ) -> Result<(), ConfigError> {
        if !origins.contains(&AllowedOrigin::Null) {
            return Ok(());
        }
        if matches!(access, Access::Anonymous) {
            return Err(self.error(
                ALLOW_ORIGIN.setting.name,
                None,
                Reason::Token(TokenFault::MissingForNull),
            ));
        }
        warnings.push(
            "--allow-origin (MCP_ALLOW_ORIGIN) null: files and sandboxed frames of any web page may call \
             and read the answers, if they have a token"
                .to_owned(),
        );
        Ok(())
    }

    fn tls(&self, host: IpAddr, warnings: &mut Vec<String>) -> Result<TlsSource, ConfigError> {
        let (certs, keys) = (self.list(&CERT)?, self.list(&KEY)?);
        let names: Vec<HostName> = self.made_list(&NAME, str::parse)?;
        let contradiction = |one, other| Err(self.error(one, None, Reason::Contradiction(other)));
        let (cert, insecure) = (CERT.setting.name, INSECURE_HTTP.setting.name);
        let some = !certs.is_empty() || !keys.is_empty();
        match (some, self.value(&SELF_SIGNED)?, self.value(&INSECURE_HTTP)?) {
            (true, true, _) => contradiction(cert, SELF_SIGNED_FLAG),
            (true, _, true) => contradiction(insecure, "--cert (MCP_CERT)"),
            (_, true, true) => contradiction(insecure, SELF_SIGNED_FLAG),
            (false, false, false) => Err(self.error(cert, None, Reason::NoCertificate)),
            (true, false, false) => {
                if !names.is_empty() {
                    warnings
                        .push("--name (MCP_NAME) does nothing without --self-signed".to_owned());
                }
                self.pairs(certs, keys)
            }
            (false, true, false) => {
                let names = with_address(&names, host);
                Ok(TlsSource::SelfSigned { dir: self.value(&CERTS_DIR)?, names })
            }
            (false, false, true) if host.to_canonical().is_loopback() => Ok(TlsSource::None),
            (false, false, true) => {
                Err(self.error(insecure, host.to_string(), Reason::InsecureOnNetwork))
            }
        }
    }

    fn pairs(&self, certs: Vec<PathBuf>, keys: Vec<PathBuf>) -> Result<TlsSource, ConfigError> {
        if certs.len() != keys.len() {
            let reason = Reason::UnpairedKeys { certs: certs.len(), keys: keys.len() };
            return Err(self.error(CERT.setting.name, None, reason));
        }
        let pairs = certs.into_iter().zip(keys).map(|(cert, key)| CertFiles { cert, key });
        Ok(TlsSource::Files(pairs.collect()))
    }
}

const SELF_SIGNED_FLAG: &str = "--self-signed (MCP_SELF_SIGNED)";
const INSECURE_FLAG: &str = "--insecure-http (MCP_INSECURE_HTTP)";

/// Clients reach a server that listens on one address by that address, so that it is a name too.
fn with_address(names: &[HostName], host: IpAddr) -> Vec<String> {
    let mut names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let known = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
    let address = host.to_string();
    if !host.is_unspecified() && !known.contains(&host) && !names.contains(&address) {
        names.push(address);
    }
    names
}
