//! A whole edge without a socket, on any pipe: for the tests of this floor and for the fuzz targets.

#![cfg_attr(not(fuzzing), expect(unreachable_pub, reason = "the fuzz targets reach it"))]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use super::service::ConnLimits;
use super::tls::TlsAcceptor;
use super::{Arrival, ConnInfo, Connection, http2};
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

pub(super) fn peer() -> ClientAddr {
    ClientAddr::from_peer(SocketAddr::new(LOCAL, 9))
}

/// An edge without a socket, in front of a handler.
#[derive(Debug)]
pub struct Edge {
    connection: Arc<Connection>,
    pub(super) policy: CurrentPolicy,
    pub(super) metrics: Metrics,
    pub(super) drain: Drain,
}

impl Edge {
    pub(super) fn with(config: &Config, handler: impl Handler, tls: Option<TlsAcceptor>) -> Self {
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
        let connection = Connection::new(Arc::new(app), tls, metrics.clone(), drain.clone());
        Self { connection: Arc::new(connection), policy, metrics, drain }
    }

    /// Serves a connection to its end, under the policy of this moment.
    pub fn http1<I>(&self, io: I) -> impl Future<Output = ()> + Send + use<I>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = Arc::clone(&self.connection);
        let policy = self.policy.now();
        async move { connection.serve(Arrival::direct(io, peer()), LOCAL, None, &policy).await }
    }

    /// The same, as if TLS had settled on HTTP/2.
    pub fn http2<I>(&self, io: I) -> impl Future<Output = ()> + Send + use<I>
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
        let connection = Arc::clone(&self.connection);
        let limits = ConnLimits::from(&*self.policy.now());
        async move { http2::serve(&connection.service, limits, io, conn).await }
    }
}
