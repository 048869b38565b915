//! Doors for the fuzz targets: a whole edge on any pipe, by HTTP/1.1 or HTTP/2.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

pub use super::edge::Edge;
use super::edge::peer;
pub use super::http1::fuzzing::violation;
pub use super::http2::fuzzing::{Seen, frames, patience};
pub use super::tls::fuzzing::is_hello;
use super::{Arrival, KnownBy};
use crate::backend::embedded::Handler;
use crate::config::Config;

impl Edge {
    /// In front of this handler.
    #[must_use]
    pub fn new(config: &Config, handler: impl Handler) -> Self {
        Self::with(config, handler, None)
    }

    /// Event streams that are open.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.metrics.gauges().streams.value()
    }

    /// Ends it; true if nothing was left running.
    pub async fn finish(&self) -> bool {
        self.drain.finish(Duration::from_secs(30)).await
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
