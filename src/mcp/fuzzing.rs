//! The transports' doors for the fuzz targets: events as they are written, and a session's books.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::call::Permitted;
use super::session::log::Turn;
use super::session::state::{Onto, Routed, State, StreamId};
use super::sse::{self, EventId};
use super::{Reason, error_event};
use crate::backend::During;
use crate::caller::{Caller, Transport};
use crate::wire::jsonrpc::{Message, RequestId};

/// One event as it is written, with the id of stream and number.
#[must_use]
pub fn event(id: Option<(u64, u64)>, message: &Message) -> Bytes {
    let id = id.map(|(stream, number)| EventId { stream: StreamId(stream), number });
    sse::event(id, message.line()).collect::<Vec<_>>().concat().into()
}

/// The event that says why a stream ends.
#[must_use]
pub fn farewell(text: &str) -> Bytes {
    error_event(text)
}

/// Reads a `Last-Event-ID`: stream and number.
#[must_use]
pub fn event_id(text: &str) -> Option<(u64, u64)> {
    EventId::parse(text).map(|id| (id.stream.0, id.number))
}

/// One reader of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Its stream.
    pub stream: u64,
    turn: Turn,
}

/// What became of a message of the backend's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It is on this stream.
    On(u64),
    /// It is nobody's.
    Nobodys,
    /// The edge has to answer it.
    Ours,
}

/// What a session holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Calls that wait.
    pub calls: usize,
    /// Questions of the backend that wait.
    pub asked: usize,
    /// Streams.
    pub streams: usize,
    /// Bytes of events.
    pub bytes: usize,
}

/// The books of one session.
#[derive(Debug)]
pub struct Books(State);

impl Books {
    /// Those of a Streamable HTTP session, or of one for bare calls.
    #[must_use]
    pub fn new(bare: bool) -> Self {
        let transport = if bare { Transport::Bare } else { Transport::StreamableHttp };
        Self(State::new(transport, Instant::now()))
    }

    /// Enters calls; with a stream of their own, or else for the standalone stream.
    pub fn begin(&mut self, calls: &[Message], own: bool, events: bool) -> Option<Reading> {
        let onto = if own { Onto::Own { events } } else { Onto::Standalone };
        let deadline = Instant::now() + Duration::from_secs(10);
        let caller = Arc::new(Caller::stdio());
        let permitted = |call: &Message| Permitted::of_edge(call.clone(), Arc::clone(&caller));
        let mut calls: Vec<_> = calls.iter().map(permitted).collect();
        let (stream, turn) = self.0.begin(&mut calls, onto, deadline).ok()?;
        Some(Reading { stream: stream.0, turn })
    }

    /// Is there no room for a message? Then its writer would wait.
    #[must_use]
    pub fn is_full(&self, message: &Message, during: Option<&RequestId>) -> bool {
        let place = self.0.place(message, &said_during(during));
        place.is_some_and(|stream| self.0.is_full(stream))
    }

    /// A message from the backend, during this call, if it says so.
    pub fn route(&mut self, message: &Message, during: Option<&RequestId>) -> Placed {
        let during = said_during(during);
        let place = self.0.place(message, &during);
        match (self.0.route(message, &during, Instant::now()), place) {
            (Routed::Delivered, Some(stream)) => Placed::On(stream.0),
            (Routed::Delivered, None) | (Routed::Dropped, _) => Placed::Nobodys,
            (Routed::Unanswerable(_), _) => Placed::Ours,
        }
    }

    /// The client cancels a call. True where it waited.
    pub fn cancel(&mut self, id: &RequestId) -> bool {
        self.0.cancel(id, Instant::now())
    }

    /// The backend never will answer a call. True where it waited.
    pub fn fail(&mut self, id: &RequestId) -> bool {
        self.0.fail(id, Reason::BackendBusy, Instant::now())
    }

    /// The client answers a question of the backend's. True where it was put.
    pub fn answered(&mut self, id: &RequestId) -> bool {
        self.0.answered(id)
    }

    /// Somebody reads a stream from where the last reader was.
    pub fn attach(&mut self, stream: u64) -> Option<Reading> {
        let turn = self.0.log(StreamId(stream))?.attach();
        Some(Reading { stream, turn })
    }

    /// Somebody comes back who has seen a stream up to an event.
    pub fn resume(&mut self, stream: u64, seen: u64) -> Option<Reading> {
        let turn = self.0.log(StreamId(stream))?.resume(seen)?;
        Some(Reading { stream, turn })
    }

    /// A reader leaves.
    pub fn leave(&mut self, reading: Reading) {
        if let Some(log) = self.0.log(StreamId(reading.stream)) {
            log.detach(reading.turn);
        }
        self.0.forget_finished();
    }

    /// The next event of a reader and its number; at the end `Some(None)`.
    pub fn next(&mut self, reading: Reading) -> Option<Option<(u64, Bytes)>> {
        let context = Context::from_waker(Waker::noop());
        match self.0.log(StreamId(reading.stream)) {
            None => Some(None),
            Some(log) => match log.poll_next(reading.turn, &context) {
                Poll::Ready(next) => Some(next),
                Poll::Pending => None,
            },
        }
    }

    /// Ends the session.
    pub fn end(&mut self) {
        self.0.end("over", Instant::now());
    }

    /// Is it over?
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.0.is_ended()
    }

    /// What it holds.
    ///
    /// # Panics
    /// Where its own sums are wrong.
    #[must_use]
    pub fn held(&self) -> Held {
        let (calls, asked, streams, bytes) = self.0.held();
        Held { calls, asked, streams, bytes }
    }
}

fn said_during(call: Option<&RequestId>) -> During {
    call.map_or(During::Unsaid, |id| During::Call(id.clone()))
}
