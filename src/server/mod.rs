//! Builds every floor once, runs them, drains them.

mod control;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

pub use self::control::{Control, LoadedCertificates, ReloadError};

use self::control::{NULL_ORIGIN, Running};
use crate::backend::diagnostics::Diagnostics;
use crate::backend::embedded::{EmbeddedBackend, Handler};
use crate::backend::stdio::{CommandError, StdioBackend};
use crate::backend::upstream::UpstreamBackend;
use crate::backend::{Backend, Starter};
use crate::client::{Client, UpstreamError};
use crate::config::{self, ChildCommand, Config, TlsSource};
use crate::conn::Connection;
use crate::conn::tls::{TlsAcceptor, TlsError, Trust};
use crate::drain::Drain;
use crate::http::{App, Front};
use crate::limits::bytes::{Budget, Quota};
use crate::listener::{ConnectionPlaces, Listener};
use crate::mcp::Mcp;
use crate::mcp::stdio::{self, Ended};
use crate::observe::metrics::Metrics;
use crate::observe::report::Reporter;
use crate::policy::{CurrentPolicy, Policy};

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Pages without an origin of their own may call, and so may everybody: any page can put itself
    /// into a frame without an origin.
    #[error("{NULL_ORIGIN}")]
    NullOrigin,
    /// Plain HTTP is to be sent to TLS, and there is none.
    #[error("`redirect_http` sends clients to TLS: set `tls`, or leave `redirect_http` out")]
    RedirectWithoutTls,
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The command cannot be run.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The upstream cannot be used.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// What stands behind cannot be started.
    #[error("cannot start the MCP server: {0}")]
    Open(Box<dyn std::error::Error + Send + Sync>),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The address for plain HTTP cannot be listened on.
    #[error("cannot listen on {address} for plain HTTP")]
    BindRedirect {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What stands behind a server.
#[derive(Debug)]
pub struct Behind(BehindKind);

enum BehindKind {
    Child(ChildCommand),
    Upstream(Box<config::Upstream>),
    Embedded(Box<dyn FnOnce(Drain) -> EmbeddedBackend + Send>),
}

impl std::fmt::Debug for BehindKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Child(command) => write!(f, "Child({})", command.program),
            Self::Upstream(upstream) => write!(f, "Upstream({})", upstream.shown()),
            Self::Embedded(_) => f.write_str("Embedded"),
        }
    }
}

impl Behind {
    /// A stdio MCP server: one process for each session.
    #[must_use]
    pub fn child(command: ChildCommand) -> Self {
        Self(BehindKind::Child(command))
    }

    /// An MCP server that speaks HTTP itself.
    #[must_use]
    pub fn upstream(upstream: config::Upstream) -> Self {
        Self(BehindKind::Upstream(Box::new(upstream)))
    }

    /// An MCP server in this process.
    #[must_use]
    pub fn handler(handler: impl Handler) -> Self {
        Self(BehindKind::Embedded(Box::new(|drain| EmbeddedBackend::new(handler, drain))))
    }

    /// The built-in server that lets a client be checked with nothing else installed.
    #[must_use]
    pub fn diagnostics() -> Self {
        Self::handler(Diagnostics)
    }

    /// The backend, and what of it the HTTP floor reaches past MCP.
    fn open(
        self,
        config: &Config,
        metrics: &Metrics,
        drain: &Drain,
    ) -> Result<(Backend, Option<Front>), StartError> {
        let Config { limits, access, .. } = config;
        let backend = match self.0 {
            BehindKind::Child(command) => Backend::Stdio(StdioBackend::new(
                &command,
                access.secrets(),
                metrics.clone(),
                drain.clone(),
            )?),
            BehindKind::Embedded(open) => Backend::Embedded(open(drain.clone())),
            BehindKind::Upstream(asked) => {
                let upstream = Arc::new(Client::new(&asked)?);
                let backend = UpstreamBackend::new(
                    Arc::clone(&upstream),
                    &asked,
                    limits.max_line_bytes,
                    config.times.session_idle,
                    metrics.clone(),
                    drain.clone(),
                );
                let front = Front::new(upstream, asked.pass, config, metrics);
                return Ok((Backend::Upstream(backend), Some(front)));
            }
        };
        Ok((backend, None))
    }
}

/// Where plain HTTP is sent to TLS.
#[derive(Debug)]
struct Redirect {
    listener: Listener,
    connection: Arc<Connection>,
}

/// A server that has its socket, and waits to be run.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    redirect: Option<Redirect>,
    control: Control,
    metrics: Metrics,
    address: SocketAddr,
    trust: Option<Trust>,
    drain: Drain,
}

impl Server {
    /// Checks everything, and binds the socket. Connections wait in it until [`Server::run`].
    ///
    /// # Errors
    /// [`StartError`] says what cannot be used, and what to do.
    #[expect(clippy::unused_async, reason = "it needs the runtime that will run the server")]
    pub async fn bind(config: Config, behind: Behind) -> Result<Self, StartError> {
        if config.lets_anybody_call() {
            return Err(StartError::NullOrigin);
        }
        if config.redirect_http.is_some() && matches!(config.tls, TlsSource::None) {
            return Err(StartError::RedirectWithoutTls);
        }
        let metrics = Metrics::default();
        let drain = Drain::new(metrics.clone());
        let bind = |source| StartError::Bind { address: config.listen, source };
        let policy = CurrentPolicy::new(Policy::new(&config, &[]));
        let places = ConnectionPlaces::new(metrics.clone());
        let bound = Listener::bind(config.listen, policy.clone(), places.clone(), drain.clone());
        let listener = bound.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let redirect = match config.redirect_http {
            Some(address) => {
                let bound = Listener::bind(address, policy.clone(), places, drain.clone());
                Some(bound.map_err(|source| StartError::BindRedirect { address, source })?)
            }
            None => None,
        };
        let (backend, front) = behind.open(&config, &metrics, &drain)?;
        // Last: a server that does not start makes no certificate.
        let (tls, trust) = match &config.tls {
            TlsSource::None => (None, None),
            source @ (TlsSource::Files(_) | TlsSource::SelfSigned { .. }) => {
                let (acceptor, trust) =
                    TlsAcceptor::new(source, config.tls_rules, SystemTime::now())?;
                (Some(acceptor), Some(trust))
            }
        };
        let names = trust.as_ref().map_or(&[][..], |trust| &trust.names);
        policy.replace(Policy::new(&config, names));
        let limits = &config.limits;
        let budget =
            Budget::new(limits.max_buffered_bytes, limits.largest_message(), metrics.clone());
        let mcp = Mcp::new(backend, budget.clone(), metrics.clone(), drain.clone());
        let (shared, memory) = (policy.clone(), budget.clone());
        let app = App::new(&config, shared, memory, mcp, front, metrics.clone(), drain.clone());
        let app = Arc::new(app);
        let redirect = redirect.map(|listener| {
            let app = Arc::clone(&app);
            let port = address.port();
            let connection = Connection::redirecting(app, port, metrics.clone(), drain.clone());
            Redirect { listener, connection: Arc::new(connection) }
        });
        let connection = Connection::new(Arc::clone(&app), tls, metrics.clone(), drain.clone());
        let connection = Arc::new(connection);
        let names = names.to_vec();
        let config = Mutex::new(config);
        let control = Control(Arc::new(Running { connection, app, policy, budget, names, config }));
        Ok(Self { listener, redirect, control, metrics, address, trust, drain })
    }

    /// The address that is listened on, with the port that the system chose.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The address where plain HTTP is sent to TLS.
    #[must_use]
    pub fn redirect_addr(&self) -> Option<SocketAddr> {
        self.redirect.as_ref()?.listener.local_addr().ok()
    }

    /// The CA that clients must trust, where the certificate is of the edge's own making.
    #[must_use]
    pub fn ca(&self) -> Option<PathBuf> {
        self.trust.as_ref()?.ca.clone()
    }

    /// The names that the certificates are for; none without TLS.
    #[must_use]
    pub fn names(&self) -> &[String] {
        self.trust.as_ref().map_or(&[], |trust| &trust.names)
    }

    /// Gives the server another configuration while it runs.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Tells how the server stands, for as long as somebody asks.
    #[must_use]
    pub fn reporter(&self) -> Reporter {
        Reporter::new(self.metrics.clone())
    }

    /// Serves until `shutdown` resolves, then finishes what is in flight within the grace.
    ///
    /// Returns false if something was still running when the grace was over.
    ///
    /// # Panics
    /// If an accept loop or a sweeper panicked, once what was in flight is finished: a server that
    /// accepts nobody, or grows without end, is better started anew.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> bool {
        let Self { listener, redirect, control, metrics, address: _, trust: _, drain } = self;
        let Running { connection, app, policy, .. } = &*control.0;
        if let Some(front) = app.front() {
            front.attend(&drain);
        }
        drain.spawn_vital(listener.run(Arc::clone(connection)));
        if let Some(Redirect { listener, connection }) = redirect {
            drain.spawn_vital(listener.run(connection));
        }
        tokio::select! {
            () = shutdown => {}
            () = drain.broken() => {}
            () = app.guard().keep_swept() => {}
            () = connection.keep_fresh() => {}
        }
        let gauges = metrics.gauges();
        let (sessions, children) = (gauges.sessions.value(), gauges.children.value());
        tracing::info!(sessions, children, "draining");
        let finished = drain.finish(policy.now().times.shutdown).await;
        if !finished {
            tracing::warn!("the shutdown grace is over: cutting what is left");
        }
        if drain.is_broken() {
            resume_unwind(Box::new("a task that the server cannot do without panicked"));
        }
        finished
    }
}

/// Speaks MCP on standard input and output to what stands behind, with no socket, until the input
/// ends or `shutdown` resolves.
///
/// Returns false if what stands behind ended by itself.
///
/// # Errors
/// [`StartError::Command`] or [`StartError::Open`] where the command cannot be run.
pub async fn serve_stdio(
    config: &Config,
    behind: Behind,
    shutdown: impl Future<Output = ()>,
) -> Result<bool, StartError> {
    let Config { limits, times, .. } = config;
    let metrics = Metrics::default();
    let drain = Drain::new(metrics.clone());
    let (backend, front) = behind.open(config, &metrics, &drain)?;
    let link = backend
        .open(Starter::Edge, &Quota::unbounded(), limits)
        .map_err(|error| StartError::Open(error.into()))?;
    if let Some(front) = front {
        front.attend(&drain);
    }
    let streams = (tokio::io::stdin(), tokio::io::stdout());
    let broken = drain.broken();
    let shutdown = async {
        tokio::select! {
            () = shutdown => {}
            () = broken => {}
        }
    };
    let carrying = stdio::carry(link, times, limits.max_line_bytes, streams, shutdown, &drain);
    let ended = carrying.await.map_err(|error| StartError::Open(error.into()))?;
    drain.finish(Duration::from_secs(5)).await;
    Ok(ended == Ended::Finished && !drain.is_broken())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[tokio::test]
    async fn a_server_that_lost_a_vital_task_ends() {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let config = Config { listen, ..Config::default() };
        let server = Box::pin(Server::bind(config, Behind::diagnostics())).await.unwrap();
        let (drain, reporter, address) =
            (server.drain.clone(), server.reporter(), server.local_addr());
        drain.spawn_vital(async { panic!("for the test") });
        let mut running = tokio::task::JoinSet::new();
        running.spawn(server.run(std::future::pending()));
        let ended = running.join_next().await.unwrap();
        assert!(ended.unwrap_err().is_panic());
        assert_eq!(reporter.now().outcomes.get("panics"), Some(&1));
        assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody is let in");
    }
}
