//! Doors for the fuzz targets: a whole edge on any pipe, by HTTP/1.1 or HTTP/2.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

pub use super::http1::fuzzing::violation;
pub use super::http2::fuzzing::{Seen, frames, patience};
use super::service::ConnLimits;
pub use super::tls::fuzzing::is_hello;
use super::{Arrival, ConnInfo, Connection, KnownBy, http2};
use crate::backend::Backend;
use crate::backend::embedded::{EmbeddedBackend, Handler};
use crate::caller::{Alpn, TlsFacts};
use crate::config::Config;
use crate::drain::Drain;
use crate::http::App;
use crate::limits::addr::ClientAddr;
use crate::limits::bytes::Budget;
use crate::mcp::Mcp;
use crate::observe::metrics::Metrics;
use crate::policy::{CurrentPolicy, Policy};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn peer() -> ClientAddr {
    ClientAddr::from_peer(SocketAddr::new(LOCAL, 9))
}

/// An edge without a socket, in front of a handler.
#[derive(Debug)]
pub struct Edge {
    connection: Connection,
    policy: CurrentPolicy,
    metrics: Metrics,
    drain: Drain,
}

impl Edge {
    /// In front of this handler.
    #[must_use]
    pub fn new(config: &Config, handler: impl Handler) -> Self {
        let drain = Drain::default();
        let backend = Backend::Embedded(EmbeddedBackend::new(handler, drain.clone()));
        let metrics = Metrics::default();
        let limits = &config.limits;
        let budget =
            Budget::new(limits.max_buffered_bytes, limits.largest_message(), metrics.clone());
        let mcp = Mcp::new(backend, budget.clone(), metrics.clone(), drain.clone());
        let policy = CurrentPolicy::new(Policy::new(config, &[]));
        let app =
            App::new(config, policy.clone(), budget, mcp, None, metrics.clone(), drain.clone());
        let connection = Connection::new(Arc::new(app), None, metrics.clone(), drain.clone());
        Self { connection, policy, metrics, drain }
    }

    /// Serves a connection without TLS to its end.
    pub async fn http1<I>(&self, io: I)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let arrival = Arrival::direct(io, peer());
        self.connection.serve(arrival, LOCAL, None, &self.policy.now()).await;
    }

    /// Serves a connection to its end, as if TLS had settled on HTTP/2.
    pub async fn http2<I>(&self, io: I)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let facts = TlsFacts {
            alpn: Alpn::H2,
            version: "TLSv1.3",
            key_exchange: String::new(),
            cipher: String::new(),
            server_name: None,
        };
        let conn = ConnInfo {
            client: peer(),
            local: LOCAL,
            tls: Some(Arc::new(facts)),
            speaks_for: false,
            stranger: None,
        };
        let limits = ConnLimits::from(&*self.policy.now());
        http2::serve(&self.connection.service, limits, io, conn).await;
    }

    /// Event streams that are open.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.metrics.gauges().streams.value()
    }

    /// Ends it; true if nothing was left running.
    pub async fn finish(&self) -> bool {
        self.drain.finish(std::time::Duration::from_secs(30)).await
    }
}

/// Whom a trusted proxy's connection is from, and what is read behind the PROXY header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Whom a header names; none where it names nobody, or there is none.
    pub client: Option<SocketAddr>,
    /// Everything behind the header.
    pub rest: Vec<u8>,
}

/// Has a proxy announce a connection; none where that is refused.
pub async fn announced<I: AsyncRead + Unpin>(io: I) -> Option<Announced> {
    let mut arrival = Arrival::announced(io, peer()).await.ok()?;
    let mut rest = Vec::new();
    arrival.io.read_to_end(&mut rest).await.ok()?;
    let named = arrival.by == KnownBy::Proxy;
    let client = named.then(|| arrival.client.to_string().parse().ok()).flatten();
    Some(Announced { client, rest })
}
