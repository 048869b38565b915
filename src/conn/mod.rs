//! The life of one connection: handshake, then HTTP under its time limits and the drain. The
//! floor's one verb is [`Connection::serve`].

mod activity;
mod arrival;
mod deadlines;
#[cfg(any(test, fuzzing))]
mod edge;
mod ending;
mod failures;
#[cfg(fuzzing)]
pub mod fuzzing;
mod http1;
mod http2;
mod linger;
mod service;
mod socket;
pub(crate) mod tls;
mod unread;

use std::net::IpAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

pub(crate) use self::arrival::{Arrival, KnownBy};

use self::failures::Failures;
use self::service::{ConnLimits, Job, Service};
use self::tls::TlsAcceptor;
use crate::caller::Alpn;
use crate::drain::Drain;
use crate::http::{App, ConnInfo};
use crate::limits::addr::ClientAddr;
use crate::limits::strangers::Stranger;
use crate::observe::metrics::Metrics;
use crate::policy::Policy;

/// What every connection is served with.
#[derive(Debug)]
pub(crate) struct Connection {
    service: Service,
    tls: Option<TlsAcceptor>,
}

impl Connection {
    /// Connections to this app; without `tls` they speak plain HTTP/1.1.
    pub(crate) fn new(
        app: Arc<App>,
        tls: Option<TlsAcceptor>,
        metrics: Metrics,
        drain: Drain,
    ) -> Self {
        let failures = Failures::new(metrics);
        Self { service: Service { app, job: Job::Serve, failures, drain }, tls }
    }

    /// Connections over plain HTTP whose requests are only sent to this port over TLS.
    pub(crate) fn redirecting(app: Arc<App>, port: u16, metrics: Metrics, drain: Drain) -> Self {
        let mut connection = Self::new(app, None, metrics, drain);
        connection.service.job = Job::Redirect(port);
        connection
    }

    /// Keeps the certificate fresh, for as long as the server runs.
    pub(crate) async fn keep_fresh(&self) {
        match &self.tls {
            Some(tls) => tls.keep_fresh().await,
            None => std::future::pending().await,
        }
    }

    /// What makes TLS streams of connections, if anything does.
    pub(crate) fn tls(&self) -> Option<&TlsAcceptor> {
        self.tls.as_ref()
    }

    /// Serves one connection to its end. Never longer than its peer keeps to the time limits of the
    /// policy that it was accepted under.
    pub(crate) async fn serve<I>(
        &self,
        arrival: Arrival<I>,
        local: IpAddr,
        stranger: Option<Arc<Stranger>>,
        policy: &Policy,
    ) where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Arrival { mut io, client, by } = arrival;
        io.hear(stranger.clone());
        let speaks_for = by == KnownBy::Requests;
        let service = &self.service;
        let limits = ConnLimits::from(policy);
        let Some(tls) = &self.tls else {
            let conn = ConnInfo { client, local, tls: None, speaks_for, stranger };
            return http1::serve(service, limits, io, conn).await;
        };
        // Boxed: the handshake is large, and gone when the connection becomes a long one.
        let handshake = Box::pin(timeout(policy.times.tls_handshake, tls.accept(io)));
        let (stream, facts) = match handshake.await {
            Ok(Ok(accepted)) => accepted,
            Ok(Err(error)) => return service.failures.handshake(client, &error),
            Err(_elapsed) => return service.failures.late_handshake(client),
        };
        let alpn = facts.alpn;
        let conn = ConnInfo { client, local, tls: Some(Arc::new(facts)), speaks_for, stranger };
        match alpn {
            Alpn::Http1 => http1::serve(service, limits, stream, conn).await,
            // Boxed: a task is as large as the largest of what it may do.
            Alpn::H2 => Box::pin(http2::serve(service, limits, stream, conn)).await,
        }
    }
}

/// Has a trusted proxy say whom a connection is from; nothing if it does not in time, or badly.
pub(crate) async fn announced<I>(io: I, proxy: ClientAddr, policy: &Policy) -> Option<Arrival<I>>
where
    I: AsyncRead + Unpin,
{
    match timeout(policy.times.header, Arrival::announced(io, proxy)).await {
        Ok(Ok(arrival)) => Some(arrival),
        Ok(Err(error)) => {
            tracing::debug!(%proxy, %error, "a trusted proxy's connection is closed");
            None
        }
        Err(_elapsed) => {
            tracing::debug!(%proxy, "a trusted proxy's connection said nothing in time");
            None
        }
    }
}

#[cfg(test)]
mod tests;
