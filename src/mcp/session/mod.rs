//! One session: a backend of its own, the client that it belongs to, and the task between them.

pub(super) mod audience;
pub(super) mod eviction;
pub(super) mod id;
pub(super) mod log;
mod pump;
pub(super) mod reader;
pub(super) mod state;
pub(crate) mod table;

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use serde_json::json;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(super) use self::pump::Unknown;

use self::audience::Audience;
use self::eviction::Usage;
use self::id::{SessionId, StreamId};
use self::log::Turn;
use self::pump::Closing;
use self::reader::Reader;
use self::state::{Onto, State};
use super::Reason;
use super::call::Permitted;
use crate::backend::{Link, Told};
use crate::caller::{Caller, Principal, Transport};
use crate::drain::Drain;
use crate::limits::bytes::Quota;
use crate::observe::metrics::{Outcome, Tally};
use crate::wire::jsonrpc::{Message, RequestId, error_in};
use crate::wire::revision::ProtocolVersion;

/// The id of an `initialize` of the edge's own in a session whose client has ids of its own, which
/// count from 0 or 1. An integer, and of 32 bits: some servers know no other.
const BESIDE_A_CLIENT: u64 = 0x7fff_ffff;

/// Lengths of time that a session is held to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionTimes {
    pub(crate) call: Duration,
    pub(crate) idle: Duration,
    pub(crate) age: Duration,
    /// How long a full stream, or a full queue to the backend, may hold things up.
    pub(crate) write: Duration,
}

/// What a session is held to.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) times: SessionTimes,
    /// What lies on its streams counts against this.
    pub(crate) quota: Quota,
    pub(crate) tally: Tally,
}

/// One session. It lives as long as its task ([`Session::start`]); readers may outlive it, to read
/// what is left.
#[derive(Debug)]
pub(crate) struct Session {
    id: SessionId,
    principal: Principal,
    transport: Transport,
    terms: Terms,
    tell: mpsc::Sender<Told>,
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
        let Link { tell, said } = link;
        let Terms { times: _, quota, tally } = terms.clone();
        let state = State::new(Audience::of(transport), Instant::now()).on_account(quota, tally);
        let session = Arc::new(Self {
            id,
            principal,
            transport,
            terms,
            tell,
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
                why = own.pump(said) => why,
                () = own.closing.cancelled() => "the session was ended".to_owned(),
                () = stopping => "the server is stopping".to_owned(),
            };
            own.state().end(&why, Instant::now());
            tracing::debug!(session = %own.id.alias(), why, "session ended");
            drop(place);
        });
        session
    }

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

    /// What it holds counts against this.
    pub(crate) fn quota(&self) -> &Quota {
        &self.terms.quota
    }

    fn count(&self, outcome: Outcome) {
        self.terms.tally.count(outcome);
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

    /// Enters calls and sends them to the backend. The reader gets the answers, and with `events`
    /// whatever else belongs to the calls.
    pub(crate) async fn call(
        self: &Arc<Self>,
        mut calls: Vec<Permitted>,
        events: bool,
    ) -> Result<Reader, Reason> {
        let (stream, turn) = self.enter(&mut calls, Onto::Own { events })?;
        let reader = Reader::new(Arc::clone(self), stream, turn);
        self.send_all(calls).await?;
        Ok(reader)
    }

    /// Enters a call whose answer comes on the standalone stream, and sends it to the backend.
    pub(crate) async fn post(&self, call: Permitted) -> Result<(), Reason> {
        let mut calls = vec![call];
        self.enter(&mut calls, Onto::Standalone)?;
        self.send_all(calls).await
    }

    fn enter(&self, calls: &mut [Permitted], onto: Onto) -> Result<(StreamId, Turn), Reason> {
        let deadline = Instant::now() + self.terms.times.call;
        let entered = self.state().begin(calls, onto, deadline)?;
        self.changed.notify_one();
        Ok(entered)
    }

    /// Sends calls to the backend that were entered. One that it does not get, for whatever reason,
    /// is answered here.
    async fn send_all(&self, calls: Vec<Permitted>) -> Result<(), Reason> {
        let ids = calls.iter().filter_map(|call| call.request().id()).cloned().collect();
        let mut unsent = Unsent { session: self, ids };
        for call in calls {
            let (request, caller) = call.into_parts();
            self.tell(request, &caller).await?;
            unsent.ids.pop_front();
        }
        Ok(())
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
            drop(self.tell.try_send(Told { message, caller }));
        }
    }

    /// An id that no other call of this session has.
    pub(crate) fn next_id(&self) -> RequestId {
        self.ids.fetch_add(1, Ordering::Relaxed).into()
    }

    /// Tells the backend something. A backend that takes nothing for the write timeout, or for as
    /// long as a call may take, is busy.
    pub(crate) async fn tell(&self, message: Message, caller: &Arc<Caller>) -> Result<(), Reason> {
        let told = Told { message, caller: Arc::clone(caller) };
        let SessionTimes { write, call, idle: _, age: _ } = self.terms.times;
        let time = write.min(call);
        match self.tell.send_timeout(told, time).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => Err(Reason::BackendBusy),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(Reason::UnknownSession),
        }
    }

    /// Takes a notification of the client's.
    pub(crate) async fn notify(
        &self,
        message: Message,
        caller: &Arc<Caller>,
    ) -> Result<(), Reason> {
        let cancelled = match message.method() {
            Some("notifications/cancelled") => message.cancelled(),
            Some(_) | None => None,
        };
        if let Some(id) = cancelled {
            let mut state = self.state();
            if state.is_initialize(&id) || !state.cancel(&id, Instant::now()) {
                return Ok(());
            }
        }
        self.settled.notify_waiters();
        self.tell(message, caller).await
    }

    /// Takes the client's answer to a request of the backend's; one that nobody waits for is dropped.
    pub(crate) async fn answer(
        &self,
        message: Message,
        caller: &Arc<Caller>,
    ) -> Result<(), Reason> {
        let asked = message.id().is_some_and(|id| self.state().answered(id));
        if asked { self.tell(message, caller).await } else { Ok(()) }
    }

    /// Initialises the backend in the edge's own name if no client did or is about to. A call
    /// that comes meanwhile waits: no call may overtake `initialized`.
    pub(crate) async fn initialize_if_fresh(
        self: &Arc<Self>,
        caller: &Arc<Caller>,
    ) -> Result<(), Reason> {
        let _beginning = self.beginning.lock().await;
        let fresh = self.version().is_none() && self.calls() == 0;
        if fresh { self.initialize(caller).await } else { Ok(()) }
    }

    /// Initialises the backend in the edge's own name, where no client did.
    pub(crate) async fn initialize(self: &Arc<Self>, caller: &Arc<Caller>) -> Result<(), Reason> {
        let params = json!({
            "protocolVersion": ProtocolVersion::LATEST.name(),
            "capabilities": {},
            "clientInfo": { "name": "mcp-edge", "version": env!("CARGO_PKG_VERSION") },
        });
        let id = if self.audience().questions { BESIDE_A_CLIENT.into() } else { self.next_id() };
        let request = Message::request(&id, "initialize", &params);
        let call = Permitted::of_edge(request, Arc::clone(caller));
        let answer = self.call(vec![call], false).await?.answer().await;
        if self.state().is_refused() || answer.is_none() {
            self.close();
            let text = answer.as_ref().and_then(|answer| Some(error_in(answer)?.1));
            return Err(Reason::BackendFailed(text.unwrap_or_else(|| "no answer".to_owned())));
        }
        let ready = Message::notification("notifications/initialized", &serde_json::Value::Null);
        self.tell(ready, caller).await
    }

    /// Reads the stream for whatever belongs to no call, in the place of whoever read it before.
    pub(crate) fn listen(self: &Arc<Self>) -> Option<Reader> {
        self.read(StreamId::STANDALONE, |log| Some(log.attach()))
    }

    /// Reads a stream from behind event `seen` on.
    pub(crate) fn resume(self: &Arc<Self>, stream: StreamId, seen: u64) -> Option<Reader> {
        self.read(stream, |log| log.resume(seen))
    }

    fn read(
        self: &Arc<Self>,
        stream: StreamId,
        attach: impl FnOnce(&mut log::EventLog) -> Option<Turn>,
    ) -> Option<Reader> {
        let turn = self.state().log(stream).and_then(attach)?;
        self.room.notify_waiters();
        Some(Reader::new(Arc::clone(self), stream, turn))
    }
}

/// Calls that were entered and that the backend did not get: dropped, or an error, on the way.
struct Unsent<'a> {
    session: &'a Session,
    ids: VecDeque<RequestId>,
}

impl Drop for Unsent<'_> {
    fn drop(&mut self) {
        for id in &self.ids {
            self.session.state().fail(id, Reason::BackendBusy, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests;
