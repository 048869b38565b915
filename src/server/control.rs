//! A running server, in the hands of whoever runs it: another configuration, new certificates.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use crate::backend::stdio::CommandError;
use crate::config::{Config, TlsSource};
use crate::conn::Connection;
use crate::conn::tls::{TlsError, Trust};
use crate::http::App;
use crate::limits::bytes::Budget;
use crate::policy::{CurrentPolicy, Policy};

/// Why the origin `null` is refused if no token is set.
pub(super) const NULL_ORIGIN: &str = "the origin null is allowed and no token is set: any web page can call as \
                           null, and start the MCP server; set a token, or leave null out";

/// Gives a running server another configuration. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Control(pub(super) Arc<Running>);

#[derive(Debug)]
pub(super) struct Running {
    pub(super) connection: Arc<Connection>,
    pub(super) app: Arc<App>,
    pub(super) policy: CurrentPolicy,
    pub(super) budget: Budget,
    /// Of the certificates at the start. Connections that were opened under one of them go on.
    pub(super) names: Vec<String>,
    /// The configuration in force. It is locked during a reload, so that only one runs at a time.
    pub(super) config: Mutex<Config>,
}

/// Why a configuration is refused. The old one stays in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// A field that the server cannot change while it runs.
    #[error("`{key}` differs from what the server was started with: it needs a restart")]
    NeedsRestart {
        /// The field of [`Config`].
        key: &'static str,
    },
    /// Pages without an origin of their own may call, and so may everybody. See
    /// [`crate::StartError::NullOrigin`].
    #[error("{NULL_ORIGIN}")]
    NullOrigin,
    /// One of the tokens is handed to the child process.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What was read: see [`Control::reload`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LoadedCertificates {
    /// The files of certificates and keys, in the order in which they were read.
    pub files: Vec<PathBuf>,
    /// The names that the certificates are for, lower case; wildcards as `*.example.com`.
    pub names: Vec<String>,
    /// When the first of the certificates expires.
    pub not_after: SystemTime,
}

impl Control {
    /// Puts another configuration in force, and reads its certificates again. Returns `None` if the
    /// server runs without TLS. Blocks while it reads files.
    ///
    /// Either all of it takes effect or nothing does. The new configuration is for new requests,
    /// connections, sessions and event streams; a token that it does not have is refused. What has
    /// begun keeps the old one, except for `max_buffered_bytes`, the largest message of an upstream,
    /// and `session_idle` for the upstream sessions that calls share: these change for everything at
    /// once. A lower limit ends nothing that is in use. Certificates are replaced as by
    /// [`Control::reload_certificates`].
    ///
    /// # Errors
    /// [`ReloadError`] says what cannot be changed or used. The old configuration stays in force.
    pub fn reload(&self, config: Config) -> Result<Option<LoadedCertificates>, ReloadError> {
        let mut current = self.0.config.lock();
        check_changes(&current, &config)?;
        if config.lets_anybody_call() {
            return Err(ReloadError::NullOrigin);
        }
        self.0.app.mcp().check_secrets(config.access.secrets())?;
        let loaded = self.0.take_up(&config)?;
        *current = config;
        Ok(loaded)
    }

    /// Reads every certificate and key again, from the files that [`Config::tls`] names. Returns
    /// `None` if the server runs without TLS. Certificates of [`TlsSource::SelfSigned`] are made or
    /// renewed first if that is due. Blocks while it reads files.
    ///
    /// Either all certificates are replaced or none is. New connections get the new ones, and
    /// requests may be addressed to their names. Open connections, and handshakes that have begun,
    /// keep the old ones. Older session tickets are refused (RFC 8446 section 4.6.1), so that clients
    /// that come back make a full handshake.
    ///
    /// # Errors
    /// [`TlsError`] names the file that cannot be used. The old certificates stay in use.
    pub fn reload_certificates(&self) -> Result<Option<LoadedCertificates>, TlsError> {
        let current = self.0.config.lock();
        self.0.take_up(&current)
    }
}

impl Running {
    /// What can fail comes first, and replaces nothing.
    fn take_up(&self, config: &Config) -> Result<Option<LoadedCertificates>, TlsError> {
        let Some(tls) = self.connection.tls() else {
            self.hold_to(config, &[]);
            return Ok(None);
        };
        // Requests may be addressed to a name before a certificate shows it, never after.
        let allow = |trust: &Trust| self.hold_to(config, &trust.names);
        let trust = tls.replace(&config.tls, config.tls_rules, SystemTime::now(), allow)?;
        let Trust { ca: _, names, files, not_after } = trust;
        Ok(Some(LoadedCertificates { files, names, not_after }))
    }

    fn hold_to(&self, config: &Config, names: &[String]) {
        let before = self.policy.replace(Policy::new(config, &[names, &self.names].concat()));
        self.budget.keep_to(config.limits.max_buffered_bytes, config.limits.largest_message());
        self.app.mcp().keep_to(&self.policy.now(), &before);
    }
}

/// Refuses what the running server cannot change.
fn check_changes(old: &Config, new: &Config) -> Result<(), ReloadError> {
    let Config {
        listen,
        path,
        tls,
        redirect_http,
        tls_rules: _,
        access: _,
        allow_origins: _,
        allow_hosts: _,
        trusted_proxies: _,
        limits: _,
        times: _,
    } = new;
    let fixed = [
        ("listen", *listen == old.listen),
        ("path", *path == old.path),
        ("tls", is_of_one_kind(tls, &old.tls)),
        ("redirect_http", *redirect_http == old.redirect_http),
    ];
    match fixed.into_iter().find(|(_, same)| !same) {
        Some((key, _)) => Err(ReloadError::NeedsRestart { key }),
        None => Ok(()),
    }
}

/// Clients that trusted the certificates of before can trust these: TLS stays, and a CA of the edge's
/// own is the same.
fn is_of_one_kind(one: &TlsSource, other: &TlsSource) -> bool {
    match (one, other) {
        (TlsSource::Files(_), TlsSource::Files(_)) | (TlsSource::None, TlsSource::None) => true,
        (TlsSource::SelfSigned { dir, .. }, TlsSource::SelfSigned { dir: old, .. }) => dir == old,
        (TlsSource::Files(_) | TlsSource::SelfSigned { .. } | TlsSource::None, _) => false,
    }
}
