//! What all sessions with one upstream share, and what was found out about it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::kind::{self, Spoken, Unclear};
use super::patience::Patience;
use super::tools::Tools;
use super::wire::Wire;
use crate::backend::FromBackend;
use crate::caller::Caller;
use crate::client::{Client, PAUSE};
use crate::config::{self, UpstreamKind, shown};
use crate::observe::metrics::Metrics;
use crate::observe::sample::Samples;
use crate::wire::jsonrpc::Message;

/// What all sessions with the upstream share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) wire: Wire,
    pub(super) tools: Tools,
    pub(super) metrics: Metrics,
    /// How long a call waits for an upstream that is down.
    pub(super) wait: Duration,
    asked: UpstreamKind,
    spoken: Mutex<Option<Spoken>>,
    /// The faults that the operator was told.
    told: Samples,
    /// Held while it is found out what the upstream speaks. Why it could not be, the last time.
    probing: tokio::sync::Mutex<Option<String>>,
}

impl Shared {
    pub(super) fn new(
        upstream: Arc<Client>,
        config: &config::Upstream,
        max_message: usize,
        metrics: Metrics,
    ) -> Self {
        Self {
            wire: Wire::new(upstream, max_message),
            tools: Tools::counting(metrics.clone()),
            metrics,
            wait: config.limits.wait,
            asked: config.kind,
            spoken: Mutex::default(),
            told: Samples::every(PAUSE),
            probing: tokio::sync::Mutex::default(),
        }
    }

    /// Tells the operator what is wrong with the upstream, unless that was told lately.
    pub(super) fn warn(&self, text: &str) {
        if let Some(left_out) = self.told.take(text, Instant::now()) {
            let upstream = shown(self.wire.url());
            tracing::warn!(upstream, text, left_out, "the upstream does not serve");
        }
    }

    /// The same, with what to do where the fault may be that it speaks something else than it was
    /// said to.
    pub(super) fn explained(&self, text: String) -> String {
        let told = match self.asked {
            UpstreamKind::Auto => return text,
            UpstreamKind::Sse => "it may speak Streamable HTTP",
            UpstreamKind::Streamable => "it may speak HTTP+SSE",
        };
        format!("{text}; {told}: leave --upstream-kind (MCP_UPSTREAM_KIND) out to find out")
    }

    /// What the upstream speaks, if that was said or found out.
    pub(super) fn known(&self) -> Option<Spoken> {
        match self.asked {
            UpstreamKind::Sse => Some(Spoken::Sse),
            UpstreamKind::Streamable => Some(Spoken::Streamable),
            UpstreamKind::Auto => *self.spoken.lock(),
        }
    }

    /// What the upstream speaks. One that is down is waited for.
    pub(super) async fn spoken(&self, caller: &Caller) -> Result<Spoken, String> {
        if let Some(spoken) = self.known() {
            return Ok(spoken);
        }
        let mut patience = Patience::new(self.wait);
        let mut probing = patience.turn(&self.probing).await;
        if let Some(spoken) = self.known() {
            return Ok(spoken);
        }
        if let Some(text) = probing.clone().filter(|_| patience.is_over()) {
            return Err(text);
        }
        loop {
            let unclear = match kind::probe(&self.wire, caller).await {
                Ok(spoken) => {
                    tracing::info!(
                        upstream = shown(self.wire.url()),
                        ?spoken,
                        "found out what it speaks"
                    );
                    *self.spoken.lock() = Some(spoken);
                    return Ok(spoken);
                }
                Err(unclear) => unclear,
            };
            let waits = matches!(unclear, Unclear::Down(_)) && patience.pause().await;
            if !waits {
                let (Unclear::Down(text) | Unclear::NotMcp(text)) = unclear;
                self.warn(&text);
                *probing = Some(text.clone());
                return Err(text);
            }
        }
    }

    /// What the upstream answered does not go with what it is believed to speak: the next session
    /// asks again.
    pub(super) fn doubt(&self) {
        *self.spoken.lock() = None;
    }
}

/// Answers a request with an error of the edge's own.
pub(super) async fn refuse(
    message: &Message,
    code: i32,
    text: &str,
    say: &mpsc::Sender<FromBackend>,
) {
    if let Some(id) = message.request_id() {
        let unanswered = FromBackend::Unanswered { id: id.clone(), code, text: text.to_owned() };
        // A session that is over hears no more.
        drop(say.send(unanswered).await);
    }
}
