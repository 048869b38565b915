//! A session's task: it carries messages from the backend to their streams, and keeps the time. And
//! what ends a session where it is dropped.

use std::pin::pin;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::audience::Audience;
use super::id::SessionId;
use super::id::StreamId;
use super::state::Routed;
use super::state::State;
use super::{Session, Terms};
use crate::backend::{During, FromBackend, LARGE, Link, ToBackend};
use crate::caller::{Caller, Principal, Transport};
use crate::drain::Drain;
use crate::mcp::Reason;
use crate::observe::metrics::Outcome;
use crate::wire::jsonrpc::{Message, code};

/// How much longer a large message is waited for than a write may take.
const BEYOND_WRITE: Duration = Duration::from_secs(1);

/// Between two times that a session gives up what it only keeps for a client that comes back.
const SHED_PAUSE: Duration = Duration::from_millis(100);

impl Session {
    /// Starts a session on `link`. `place` is what it holds of the edge's limits: it is dropped
    /// when the session has ended.
    pub(crate) fn start<P: Send + 'static>(
        id: SessionId,
        (principal, transport): (Principal, Transport),
        terms: Terms,
        link: Link,
        place: P,
        drain: &Drain,
    ) -> Arc<Self> {
        let Link { to_backend, from_backend } = link;
        let Terms { times: _, quota, metrics } = terms.clone();
        let state = State::new(Audience::of(transport), Instant::now(), quota, metrics);
        let session = Arc::new(Self {
            id,
            principal,
            transport,
            terms,
            to_backend,
            state: Mutex::new(state),
            room: Notify::new(),
            changed: Notify::new(),
            settled: Notify::new(),
            closing: CancellationToken::new(),
            ids: AtomicU64::new(1),
            suspicion: OnceLock::new(),
            beginning: tokio::sync::Mutex::default(),
        });
        let own = Arc::clone(&session);
        let stopping = drain.stopping();
        drain.spawn_behind(async move {
            let _closing = Closing(Arc::clone(&own));
            let why = tokio::select! {
                why = own.pump(from_backend) => why,
                () = own.closing.cancelled() => "the session was ended".to_owned(),
                () = stopping => "the server is stopping".to_owned(),
            };
            own.state().end(&why, Instant::now());
            tracing::debug!(session = %own.id.alias(), why, "session ended");
            drop(place);
        });
        session
    }

    /// Carries messages from the backend to their streams, and keeps the time. Says why it ended.
    pub(crate) async fn pump(&self, mut from_backend: mpsc::Receiver<FromBackend>) -> String {
        let age = Instant::now() + self.terms.times.age;
        let mut short = pin!(self.quota().told_short());
        let mut shed = None;
        loop {
            let next = self.next_look(age).min(shed.unwrap_or(age));
            tokio::select! {
                () = &mut short, if shed.is_none() => {
                    if self.quota().is_short() {
                        self.state().shed();
                    }
                    // Whoever fills memory is not to keep the others busy with that.
                    shed = Some(Instant::now() + SHED_PAUSE);
                    short.set(self.quota().told_short());
                }
                from_backend = from_backend.recv() => match from_backend {
                    Some(FromBackend::Message { message, during }) => {
                        self.carry(&message, &during).await;
                        self.settled.notify_waiters();
                        if self.state().is_refused() {
                            return "the backend refused to be initialised".to_owned();
                        }
                    }
                    Some(FromBackend::Unanswered { id, code, text }) => {
                        let fault = Reason::Unanswered { code, text };
                        let waited = self.state().fail(&id, fault, Instant::now());
                        tracing::debug!(session = %self.id.alias(), waited, "unanswered");
                        self.settled.notify_waiters();
                        if self.state().is_refused() {
                            return "the backend could not be initialised".to_owned();
                        }
                    }
                    Some(FromBackend::Suspect(text)) => drop(self.suspicion.set(text)),
                    Some(FromBackend::Taken(until_taken)) => drop(until_taken),
                    Some(FromBackend::Gone(why)) => {
                        tracing::warn!(session = %self.id.alias(), why, "the backend is gone");
                        let why = format!("the MCP server ended: {why}");
                        self.state().blame(&why);
                        return why;
                    }
                    None => return "the server is stopping".to_owned(),
                },
                () = sleep_until(next) => {
                    shed = shed.filter(|until| Instant::now() < *until);
                    let end = self.look(age);
                    self.settled.notify_waiters();
                    if let Some(why) = end {
                        return why;
                    }
                }
                () = self.changed.notified() => {}
            }
        }
    }

    async fn carry(&self, message: &Message, during: &During) {
        self.wait_for_room(message, during).await;
        // Only a large one is waited for: all others are to cost no second look.
        let large = message.bytes().len() > LARGE;
        let stream = if large { self.state().place(message, during) } else { None };
        let routed = self.state().route(message, during, Instant::now());
        match routed {
            Routed::Delivered => {}
            Routed::Dropped => {
                tracing::debug!(session = %self.id.alias(), ?message, "nobody waits for this");
            }
            Routed::Unanswerable(id) => {
                let refusal = match message.method() {
                    Some("ping") => Message::result(&id, &json!({})),
                    Some(_) | None => Message::error(
                        &id,
                        code::METHOD_NOT_FOUND,
                        "this call has no client that could answer",
                    ),
                };
                let caller = Arc::new(Caller::edge());
                // Waiting here could wait for the backend that waits for us.
                drop(self.to_backend.try_send(ToBackend { message: refusal, caller }));
            }
        }
        if let Some(stream) = stream {
            self.wait_for_reader(stream).await;
        }
    }

    /// Waits until a large message is read, or nobody reads it: the next one is not taken from the
    /// backend before. Somewhat longer than a write may take, so that a reader that takes nothing is
    /// gone; one that is slow is not waited for any longer.
    async fn wait_for_reader(&self, stream: StreamId) {
        let taken = async {
            loop {
                let mut room = pin!(self.room.notified());
                room.as_mut().enable();
                if !self.state().is_full(stream) {
                    return;
                }
                room.await;
            }
        };
        drop(timeout(self.terms.times.write + BEYOND_WRITE, taken).await);
    }

    /// Waits while the reader of the message's stream is behind, as long as a write may take.
    async fn wait_for_room(&self, message: &Message, during: &During) {
        let deadline = Instant::now() + self.terms.times.write;
        loop {
            let mut room = pin!(self.room.notified());
            // Enabled before the look, or a reader could make room in between, unheard.
            room.as_mut().enable();
            let full = {
                let state = self.state();
                state.place(message, during).is_some_and(|stream| state.is_full(stream))
            };
            if !full {
                return;
            }
            tokio::select! {
                () = room => {}
                () = sleep_until(deadline) => {
                    tracing::info!(session = %self.id.alias(), "a reader is too slow: cut off");
                    self.count(Outcome::ReaderCut);
                    let mut state = self.state();
                    let stream = state.place(message, during);
                    if let Some(log) = stream.and_then(|stream| state.log(stream)) {
                        // The next turn belongs to nobody: the slow reader is cut off.
                        let turn = log.attach();
                        log.detach(turn);
                    }
                    return;
                }
            }
        }
    }

    /// When the session's task has to look at its deadlines next.
    fn next_look(&self, age: Instant) -> Instant {
        let state = self.state();
        let idle = state.idle_since().map(|since| since + self.terms.times.idle);
        [Some(age), idle, state.next_deadline()].into_iter().flatten().min().unwrap_or(age)
    }

    /// Does what is due now. Says why, if that is the session's end.
    fn look(&self, age: Instant) -> Option<String> {
        let now = Instant::now();
        let mut state = self.state();
        for id in state.overdue(now) {
            let initialize = state.is_initialize(&id);
            let time = self.terms.times.call;
            let fault = if initialize { self.late(time) } else { Reason::CallTimeout(time) };
            state.fail(&id, fault.clone(), now);
            if initialize {
                return Some(fault.to_string());
            }
            let message = Message::cancellation(&id, None);
            let caller = Arc::new(Caller::edge());
            // A backend whose queue is full will hear of its end soon enough.
            drop(self.to_backend.try_send(ToBackend { message, caller }));
        }
        if now >= age {
            self.count(Outcome::SessionAge);
            return Some("the session reached its age".to_owned());
        }
        let idle = state.idle_since().is_some_and(|since| now >= since + self.terms.times.idle);
        idle.then(|| {
            self.count(Outcome::SessionIdle);
            "the session was idle".to_owned()
        })
    }

    /// What the caller of an `initialize` is told that was not answered within `time`.
    pub(in crate::mcp) fn late(&self, time: Duration) -> Reason {
        match self.suspicion.get() {
            Some(text) => Reason::NeverSpoke { time, text: text.clone() },
            None => Reason::CallTimeout(time),
        }
    }
}

/// A session that its client does not know yet. Dropped before it does, it is closed.
#[derive(Debug)]
pub(in crate::mcp) struct Unknown(Option<Arc<Session>>);

impl Unknown {
    pub(in crate::mcp) fn new(session: Arc<Session>) -> Self {
        Self(Some(session))
    }

    /// The client knows it, or will.
    pub(in crate::mcp) fn known(mut self) {
        self.0 = None;
    }
}

impl Drop for Unknown {
    fn drop(&mut self) {
        if let Some(session) = self.0.take() {
            session.close();
        }
    }
}

/// Sees to it that a session's books are closed when its task ends, however it ends.
struct Closing(Arc<Session>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.state().end("the session ended", Instant::now());
        self.0.settled.notify_waiters();
    }
}
