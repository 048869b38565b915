//! One session: a backend of its own, the client that it belongs to, and the task between them.

pub(super) mod audience;
pub(super) mod eviction;
pub(super) mod id;
pub(super) mod log;
mod pump;
pub(super) mod reader;
mod requests;
pub(super) mod state;
pub(crate) mod table;

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(super) use self::pump::Unknown;

use self::audience::Audience;
use self::eviction::Usage;
use self::id::{SessionId, StreamId};
use self::log::Turn;
use self::state::State;
use super::Reason;
use crate::backend::ToBackend;
use crate::caller::{Caller, Principal, Transport};
use crate::config::Times;
use crate::limits::bytes::Quota;
use crate::observe::metrics::{Metrics, Outcome};
use crate::wire::jsonrpc::{Message, RequestId};
use crate::wire::revision::ProtocolVersion;

/// Lengths of time that a session is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SessionTimes {
    pub(crate) call: Duration,
    pub(crate) idle: Duration,
    pub(crate) age: Duration,
    /// How long a full stream, or a full queue to the backend, may hold things up.
    pub(crate) write: Duration,
}

impl From<&Times> for SessionTimes {
    fn from(times: &Times) -> Self {
        let (call, write) = (times.call, times.write);
        Self { call, idle: times.session_idle, age: times.session_age, write }
    }
}

/// What a session is held to.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) times: SessionTimes,
    /// What lies on its streams counts against this.
    pub(crate) quota: Quota,
    pub(crate) metrics: Metrics,
}

/// One session. It lives as long as its task ([`Session::start`]); readers may outlive it, to read
/// what is left.
#[derive(Debug)]
pub(crate) struct Session {
    id: SessionId,
    principal: Principal,
    transport: Transport,
    terms: Terms,
    to_backend: mpsc::Sender<ToBackend>,
    state: Mutex<State>,
    /// A reader took something, or left.
    room: Notify,
    /// The session's task has to look at its deadlines again.
    changed: Notify,
    /// A call has its answer.
    settled: Notify,
    closing: CancellationToken,
    /// For calls that go under an id of the edge's own.
    ids: AtomicU64,
    /// What the backend says instead of an answer to `initialize`.
    suspicion: OnceLock<String>,
    /// Held while the edge initialises the backend.
    beginning: tokio::sync::Mutex<()>,
}

impl Session {
    /// The session's books. Never held across an await.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// A reader took something: the session's task may go on where a stream was full.
    pub(crate) fn made_room(&self) {
        self.room.notify_waiters();
    }

    /// A reader left. Of a session that lives on one stream (HTTP+SSE), that was all.
    pub(crate) fn left(&self, stream: StreamId, turn: Turn) {
        {
            let mut state = self.state();
            if let Some(log) = state.log(stream) {
                log.detach(turn);
            }
            state.forget_finished();
            if stream == StreamId::STANDALONE {
                state.used.by_reader(Instant::now());
            } else {
                state.used.now(Instant::now());
            }
        }
        self.room.notify_waiters();
        self.changed.notify_one();
        if self.audience().lives_on_stream && stream == StreamId::STANDALONE {
            self.close();
        }
    }

    /// What it is held to, from its start to its end.
    pub(crate) fn times(&self) -> SessionTimes {
        self.terms.times
    }

    /// What it holds counts against this.
    pub(crate) fn quota(&self) -> &Quota {
        &self.terms.quota
    }

    fn count(&self, outcome: Outcome) {
        self.terms.metrics.count(outcome);
    }

    pub(crate) fn id(&self) -> &SessionId {
        &self.id
    }

    pub(crate) fn transport(&self) -> Transport {
        self.transport
    }

    fn audience(&self) -> Audience {
        Audience::of(self.transport)
    }

    /// Does it belong to this principal?
    pub(crate) fn is_of(&self, principal: &Principal) -> bool {
        self.principal == *principal
    }

    /// May this principal use it? An ended session is nobody's.
    pub(crate) fn is_open_to(&self, principal: &Principal) -> bool {
        self.is_of(principal) && !self.state().is_ended()
    }

    pub(crate) fn version(&self) -> Option<ProtocolVersion> {
        self.state().version()
    }

    /// Calls that wait for the backend now.
    pub(crate) fn calls(&self) -> usize {
        self.state().calls()
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.state().is_ended()
    }

    /// Resolves when no call waits for the backend (any more).
    pub(crate) async fn settled(&self) {
        loop {
            let mut settled = pin!(self.settled.notified());
            // Enabled before the look, or the last call could end in between, unheard.
            settled.as_mut().enable();
            if self.calls() == 0 {
                return;
            }
            settled.await;
        }
    }

    /// Notes that the client sent something.
    pub(crate) fn used_by_client(&self) {
        self.state().used.by_client(Instant::now());
    }

    /// How it is used. `None` if it has ended.
    pub(crate) fn usage(&self) -> Option<Usage> {
        self.state().usage()
    }

    /// Ends the session for a newcomer, unless its client has come back since it was chosen.
    pub(crate) fn evict(&self, chosen_for: Usage) -> bool {
        let unchanged = {
            let mut state = self.state();
            let unchanged = state.usage() == Some(chosen_for);
            if unchanged {
                state.close();
            }
            unchanged
        };
        if unchanged {
            tracing::debug!(session = %self.id.alias(), "evicted: a newcomer needs its place");
            self.count(Outcome::SessionEvicted);
            self.closing.cancel();
        }
        unchanged
    }

    /// Ends the session: from now on it is unknown, and its backend is ended.
    pub(crate) fn close(&self) {
        self.state().close();
        self.closing.cancel();
    }

    /// Puts an answer of the edge's own on the standalone stream.
    pub(crate) fn put(&self, answer: Bytes) {
        let full = {
            let mut state = self.state();
            let full = state.is_full(StreamId::STANDALONE);
            if !full {
                state.put(answer);
            }
            full
        };
        if full {
            // A client that asks and does not read what it is answered.
            self.close();
        }
    }

    /// Puts an answer of the edge's own on the standalone stream once there is room for it: for a
    /// client whose next message waits for that.
    pub(crate) async fn put_in_turn(&self, answer: Bytes) {
        loop {
            let mut room = pin!(self.room.notified());
            // Enabled before the look, or the reader could make room in between, unheard.
            room.as_mut().enable();
            if !self.state().is_full(StreamId::STANDALONE) {
                return self.put(answer);
            }
            room.await;
        }
    }

    /// Forgets a call whose client is gone, and tells the backend to.
    pub(crate) fn abandon(&self, id: &RequestId) {
        if self.state().cancel(id, Instant::now()) {
            let message = Message::cancellation(id, None);
            let caller = Arc::new(Caller::edge());
            // A backend whose queue is full works for nobody; its answer is dropped when it comes.
            drop(self.to_backend.try_send(ToBackend { message, caller }));
        }
    }

    /// An id that no other call of this session has.
    pub(crate) fn next_id(&self) -> RequestId {
        self.ids.fetch_add(1, Ordering::Relaxed).into()
    }

    /// Tells the backend something. A backend that takes nothing for the write timeout, or for as
    /// long as a call may take, is busy.
    pub(crate) async fn send(&self, message: Message, caller: &Arc<Caller>) -> Result<(), Reason> {
        let told = ToBackend { message, caller: Arc::clone(caller) };
        let SessionTimes { write, call, idle: _, age: _ } = self.terms.times;
        let time = write.min(call);
        match self.to_backend.send_timeout(told, time).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => Err(Reason::BackendBusy),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(Reason::UnknownSession),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
