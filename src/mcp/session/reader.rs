//! Reads one stream of a session: as events, as one answer, or as all answers at once.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::Session;
use super::id::StreamId;
use super::log::{EventLog, Turn};
use crate::mcp::Reason;

/// Reads one stream of a session. Dropping it leaves the stream for somebody who comes back; of a
/// session that lives on one stream (HTTP+SSE), it is the end.
#[derive(Debug)]
pub(crate) struct Reader {
    session: Arc<Session>,
    stream: StreamId,
    turn: Turn,
}

impl Session {
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
        attach: impl FnOnce(&mut EventLog) -> Option<Turn>,
    ) -> Option<Reader> {
        let turn = self.state().log(stream).and_then(attach)?;
        self.room.notify_waiters();
        Some(Reader::new(Arc::clone(self), stream, turn))
    }
}

impl Reader {
    pub(crate) fn new(session: Arc<Session>, stream: StreamId, turn: Turn) -> Self {
        Self { session, stream, turn }
    }

    pub(crate) fn stream(&self) -> StreamId {
        self.stream
    }

    /// The next event and its number; none at the end.
    pub(crate) fn poll_next(&self, context: &Context<'_>) -> Poll<Option<(u64, Bytes)>> {
        let next = match self.session.state().log(self.stream) {
            Some(log) => log.poll_next(self.turn, context),
            None => Poll::Ready(None),
        };
        if next.is_ready() {
            self.session.made_room();
        }
        next
    }

    /// The same, for an event stream: it asks for the next event when its peer has taken this one.
    pub(crate) fn poll_handed(&self, context: &Context<'_>) -> Poll<Option<(u64, Bytes)>> {
        let next = match self.session.state().log(self.stream) {
            Some(log) => log.poll_handed(self.turn, context),
            None => Poll::Ready(None),
        };
        self.session.made_room();
        next
    }

    /// What became of the backend, where the stream ended by that.
    pub(crate) fn fault(&self) -> Option<String> {
        self.session.state().fault().map(str::to_owned)
    }

    /// The number of the last event that was read.
    pub(crate) fn seen(&self) -> u64 {
        self.session.state().log(self.stream).map_or(0, |log| log.seen())
    }

    pub(crate) async fn next(&self) -> Option<Bytes> {
        let next = std::future::poll_fn(|context| self.poll_next(context)).await;
        next.map(|(_, event)| event)
    }

    /// Resolves when there is something to read, or nothing will come.
    pub(crate) async fn ready(&self) {
        std::future::poll_fn(|context| match self.session.state().log(self.stream) {
            Some(log) => log.poll_ready(self.turn, context),
            None => Poll::Ready(()),
        })
        .await;
    }

    /// Is there something to read, or will there be?
    pub(crate) fn is_busy(&self) -> bool {
        let mut state = self.session.state();
        state.calls() > 0 || state.log(self.stream).is_some_and(|log| log.unread() > 0)
    }

    /// Has everything been read that will ever come?
    pub(crate) fn is_over(&self) -> bool {
        let mut state = self.session.state();
        state.log(self.stream).is_none_or(|log| log.is_finished() && log.unread() == 0)
    }

    /// The answer, if there is nothing on the stream but that.
    pub(crate) fn sole_answer(&self) -> Option<Bytes> {
        let mut state = self.session.state();
        let log = state.log(self.stream)?;
        if !log.is_finished() || log.unread() != 1 {
            return None;
        }
        let Poll::Ready(Some((_, answer))) =
            log.poll_next(self.turn, &Context::from_waker(Waker::noop()))
        else {
            return None;
        };
        // Its client never heard of this stream, and will not come back for it.
        state.forget(self.stream);
        Some(answer)
    }

    /// Waits for the only answer on the stream.
    pub(crate) async fn answer(self) -> Option<Bytes> {
        let answer = self.next().await;
        self.session.state().forget(self.stream);
        answer
    }

    /// Forgets the stream. Says why the edge itself answered, if it did.
    pub(crate) fn forget(self) -> Option<Reason> {
        let mut state = self.session.state();
        let excuse = state.log(self.stream).and_then(|log| log.excused().cloned());
        state.forget(self.stream);
        excuse
    }

    /// Waits for the only answer on the stream, which must be the backend's own.
    pub(crate) async fn outcome(self) -> Result<Bytes, Reason> {
        let answer = self.next().await;
        match (self.forget(), answer) {
            (Some(excuse), _) => Err(excuse),
            (None, Some(answer)) => Ok(answer),
            (None, None) => Err(Reason::BackendFailed("it ended".to_owned())),
        }
    }

    /// Waits for all answers on the stream, and gives them as one array.
    pub(crate) async fn answers(self) -> Bytes {
        let mut all = vec![b'['];
        let quota = self.session.quota();
        let mut share = quota.take_anyway(0);
        while let Some(answer) = self.next().await {
            // They are held already, one by one; together they are held twice for a moment.
            share = quota.take_anyway(all.len().saturating_add(answer.len()));
            if all.len() > 1 {
                all.push(b',');
            }
            all.extend_from_slice(&answer);
        }
        self.session.state().forget(self.stream);
        all.push(b']');
        share.hold(all)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.session.left(self.stream, self.turn);
    }
}
