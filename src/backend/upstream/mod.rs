//! A server that speaks HTTP itself: one upstream session for each link.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{Link, QUEUE};
use crate::config;
use crate::shutdown::Drain;
use crate::upstream::Upstream;

/// The upstream, and what is known of it.
#[derive(Debug)]
pub(crate) struct UpstreamBackend {
    upstream: Arc<Upstream>,
}

impl UpstreamBackend {
    pub(crate) fn new(
        upstream: Arc<Upstream>,
        _config: &config::Upstream,
        _max_message: usize,
        _drain: Drain,
    ) -> Self {
        Self { upstream }
    }

    pub(crate) fn open(&self) -> Link {
        tracing::trace!(upstream = %self.upstream.url(), "open");
        let (tell, _told) = mpsc::channel(QUEUE);
        let (_say, said) = mpsc::channel(QUEUE);
        Link { tell, said }
    }
}
