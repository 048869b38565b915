//! What a session takes of its client: calls, notifications, answers; and its handshake.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::json;
use tokio::time::Instant;

use super::Session;
use super::id::StreamId;
use super::log::Turn;
use super::reader::Reader;
use super::state::Onto;
use crate::caller::Caller;
use crate::mcp::Reason;
use crate::mcp::call::Permitted;
use crate::wire::jsonrpc::{Message, RequestId, error_in};
use crate::wire::revision::ProtocolVersion;

/// The id of an `initialize` of the edge's own in a session whose client has ids of its own, which
/// count from 0 or 1. An integer, and of 32 bits: some servers know no other.
pub(super) const BESIDE_A_CLIENT: u64 = 0x7fff_ffff;

impl Session {
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
            self.send(request, &caller).await?;
            unsent.ids.pop_front();
        }
        Ok(())
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
        self.send(message, caller).await
    }

    /// Takes the client's answer to a request of the backend's; one that nobody waits for is dropped.
    pub(crate) async fn answer(
        &self,
        message: Message,
        caller: &Arc<Caller>,
    ) -> Result<(), Reason> {
        let asked = message.id().is_some_and(|id| self.state().take_answer(id));
        if asked { self.send(message, caller).await } else { Ok(()) }
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
        self.send(ready, caller).await
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
