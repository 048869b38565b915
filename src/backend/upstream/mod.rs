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
mod sse;
mod streamable;
mod tools;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;

pub(crate) use self::direct::NoAnswer;

use self::direct::Directs;
use self::kind::{Spoken, Unclear};
use self::patience::Patience;
use self::tools::Tools;
use self::wire::Wire;
use super::{Link, QUEUE, SAID_QUEUE, Said, Told};
use crate::caller::Caller;
use crate::client::{Client, PAUSE};
use crate::config::UpstreamKind;
use crate::config::{self, shown};
use crate::drain::Drain;
use crate::observe::metrics::{Outcome, Tally};
use crate::observe::sample::Samples;
use crate::wire::jsonrpc::{Message, code};

/// The upstream, and what is known of it.
#[derive(Debug)]
pub(crate) struct UpstreamBackend {
    shared: Arc<Shared>,
    directs: Directs,
    drain: Drain,
}

/// What all sessions with the upstream share.
#[derive(Debug)]
struct Shared {
    wire: Wire,
    tools: Tools,
    tally: Tally,
    /// How long a call waits for an upstream that is down.
    wait: Duration,
    asked: UpstreamKind,
    spoken: Mutex<Option<Spoken>>,
    /// The faults that the operator was told.
    told: Samples,
    /// Held while it is found out what the upstream speaks. Why it could not be, the last time.
    probing: tokio::sync::Mutex<Option<String>>,
}

impl UpstreamBackend {
    /// `max_message` is how many bytes a message of the upstream's may have; `idle` how long a
    /// session for calls without one is kept after the last of them began.
    pub(crate) fn new(
        upstream: Arc<Client>,
        config: &config::Upstream,
        max_message: usize,
        idle: Duration,
        tally: Tally,
        drain: Drain,
    ) -> Self {
        let shared = Shared {
            wire: Wire::new(upstream, max_message),
            tools: Tools::counting(tally.clone()),
            tally,
            wait: config.wait,
            asked: config.kind,
            spoken: Mutex::default(),
            told: Samples::every(PAUSE),
            probing: tokio::sync::Mutex::default(),
        };
        let shared = Arc::new(shared);
        let directs = Directs::new(Arc::clone(&shared), idle, drain.clone());
        Self { shared, directs, drain }
    }

    /// Opens a session, with the first message.
    pub(crate) fn open(&self) -> Link {
        let (tell, told) = mpsc::channel(QUEUE);
        let (say, said) = mpsc::channel(SAID_QUEUE);
        self.drain.spawn_behind(run(Arc::clone(&self.shared), told, say));
        Link { tell, said }
    }
}

/// One session, from its first message on: nothing is asked of the upstream before.
async fn run(shared: Arc<Shared>, mut told: mpsc::Receiver<Told>, say: mpsc::Sender<Said>) {
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

/// Answers a request with an error of the edge's own.
async fn refuse(message: &Message, code: i32, text: &str, say: &mpsc::Sender<Said>) {
    if let Some(id) = message.request_id() {
        let unanswered = Said::Unanswered { id: id.clone(), code, text: text.to_owned() };
        // A session that is over hears no more.
        drop(say.send(unanswered).await);
    }
}

impl Shared {
    /// Tells the operator what is wrong with the upstream, unless that was told lately.
    fn warn(&self, text: &str) {
        if let Some(left_out) = self.told.take(text, Instant::now()) {
            let upstream = shown(self.wire.url());
            tracing::warn!(upstream, text, left_out, "the upstream does not serve");
        }
    }

    /// The same, with what to do where the fault may be that it speaks something else than it was
    /// said to.
    fn explained(&self, text: String) -> String {
        let told = match self.asked {
            UpstreamKind::Auto => return text,
            UpstreamKind::Sse => "it may speak Streamable HTTP",
            UpstreamKind::Streamable => "it may speak HTTP+SSE",
        };
        format!("{text}; {told}: leave --upstream-kind (MCP_UPSTREAM_KIND) out to find out")
    }

    /// A subscription had to be forgotten, or not.
    fn count_if(&self, forgot: bool) {
        if forgot {
            self.tally.count(Outcome::SubscriptionForgotten);
        }
    }

    /// What the upstream speaks, if that was said or found out.
    fn known(&self) -> Option<Spoken> {
        match self.asked {
            UpstreamKind::Sse => Some(Spoken::Sse),
            UpstreamKind::Streamable => Some(Spoken::Streamable),
            UpstreamKind::Auto => *self.spoken.lock(),
        }
    }

    /// What the upstream speaks. One that is down is waited for.
    async fn spoken(&self, caller: &Caller) -> Result<Spoken, String> {
        if let Some(spoken) = self.known() {
            return Ok(spoken);
        }
        let mut patience = Patience::new(self.wait);
        let mut probing = match self.probing.try_lock() {
            Ok(probing) => probing,
            Err(_another_does) => {
                // Callers wait side by side, not one after another.
                patience.begin();
                self.probing.lock().await
            }
        };
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
                let text = unclear.text();
                self.warn(&text);
                *probing = Some(text.clone());
                return Err(text);
            }
        }
    }

    /// What the upstream answered does not go with what it is believed to speak: the next session
    /// asks again.
    fn doubt(&self) {
        *self.spoken.lock() = None;
    }
}
