//! A server that speaks HTTP itself: one upstream session for each link.
//!
//! Whatever the client speaks, the upstream is spoken to in its own way: [`streamable`] or [`sse`].
//! An upstream that dies and comes back is told again what the client said at the beginning, so that
//! the client's session outlives it.

mod channel;
mod direct;
mod kind;
mod memory;
mod patience;
mod refusal;
mod shared;
mod sse;
mod streamable;
mod tools;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

pub(crate) use self::direct::NoAnswer;

use self::direct::Directs;
use self::kind::Spoken;
use self::shared::{Shared, refuse};
use super::{FromBackend, Link, QUEUE, SAID_QUEUE, ToBackend};
use crate::caller::Caller;
use crate::client::Client;
use crate::config;
use crate::drain::Drain;
use crate::observe::metrics::Metrics;
use crate::wire::jsonrpc::{Message, code};

/// The upstream, and what is known of it.
#[derive(Debug)]
pub(crate) struct UpstreamBackend {
    shared: Arc<Shared>,
    directs: Directs,
    drain: Drain,
}

impl UpstreamBackend {
    /// `max_message` is how many bytes a message of the upstream's may have; `idle` how long a
    /// session for calls without one is kept after the last of them.
    pub(crate) fn new(
        upstream: Arc<Client>,
        config: &config::Upstream,
        max_message: usize,
        idle: Duration,
        metrics: Metrics,
        drain: Drain,
    ) -> Self {
        let shared = Arc::new(Shared::new(upstream, config, max_message, metrics));
        let directs = Directs::new(Arc::clone(&shared), idle, drain.clone());
        Self { shared, directs, drain }
    }

    /// Keeps to these limits, which [`Self::new`] explains, in what is open.
    pub(crate) fn keep_to(&self, max_message: usize, idle: Duration) {
        self.shared.wire.keep_to(max_message);
        self.directs.keep_to(idle);
    }

    /// Opens a session, with the first message.
    pub(crate) fn open(&self) -> Link {
        let (to_backend, told) = mpsc::channel(QUEUE);
        let (say, from_backend) = mpsc::channel(SAID_QUEUE);
        self.drain.spawn_behind(run(Arc::clone(&self.shared), told, say));
        Link { to_backend, from_backend }
    }

    /// Makes one call without a session of the caller's. `None` if this upstream takes none without
    /// one. Dropped, the call is cancelled.
    pub(crate) async fn call(
        &self,
        request: &Message,
        caller: &Arc<Caller>,
    ) -> Option<Result<Message, NoAnswer>> {
        self.directs.call(request, caller).await
    }
}

/// One session, from its first message on: nothing is asked of the upstream before.
async fn run(
    shared: Arc<Shared>,
    mut told: mpsc::Receiver<ToBackend>,
    say: mpsc::Sender<FromBackend>,
) {
    loop {
        let first = tokio::select! {
            first = told.recv() => first,
            () = say.closed() => None,
        };
        let Some(first) = first else { return };
        let asks = first.message.request_id().is_some();
        if !asks && shared.known().is_none() {
            // Its `initialize` failed: it would hold up the next one for nothing.
            tracing::debug!(message = ?first.message, "no session to say it in: dropped");
            continue;
        }
        let spoken = tokio::select! {
            spoken = shared.spoken(&first.caller) => spoken,
            () = say.closed() => return,
        };
        match spoken {
            Ok(Spoken::Streamable) => return streamable::run(&shared, first, told, say).await,
            Ok(Spoken::Sse) => return sse::run(&shared, first, told, say).await,
            Err(text) => refuse(&first.message, code::INTERNAL_ERROR, &text, &say).await,
        }
    }
}
