//! Until when a connection may go on as it does. The socket reports what it reads and writes, the
//! service when a request begins, and the response body when it hands a piece over.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::caller::Alpn;

/// Lengths of time that a connection is held to.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnTimes {
    /// From the first byte of a head to its last; of a new connection, from its start.
    pub(super) header: Duration,
    /// Without a request.
    pub(super) idle: Duration,
    /// Without progress of a write.
    pub(super) write: Duration,
}

/// Why a connection must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// No request came.
    Idle,
    /// A request began to come, and did not.
    Head,
    /// The peer takes nothing of what it asked for.
    Stalled,
}

/// The clocks of one connection.
#[derive(Debug)]
pub(super) struct Deadlines {
    pub(super) times: ConnTimes,
    /// What is spoken.
    pub(super) protocol: Alpn,
    clocks: Mutex<Clocks>,
}

#[derive(Debug, Default)]
struct Clocks {
    /// Since when there has been no request; bytes of the next may be there.
    quiet: Option<Instant>,
    /// Since when the next head has been coming.
    head: Option<Instant>,
    /// Requests that have begun since the connection did, and those that have not ended.
    begun: u64,
    open: u32,
    /// When each response last handed a piece over that was not asked for again.
    handed: Vec<(u64, Instant)>,
    /// Since when the socket takes nothing.
    blocked: Option<Instant>,
    /// Since when an HTTP/2 frame or header block has been coming.
    unfinished: Option<Instant>,
    /// Who waits until no request is open.
    waiting: Option<Waker>,
}

impl Deadlines {
    pub(super) fn new(times: ConnTimes, protocol: Alpn) -> Self {
        let clocks = Clocks { quiet: Some(Instant::now()), ..Clocks::default() };
        Self { times, protocol, clocks: Mutex::new(clocks) }
    }

    /// Bytes came in. Between two requests of HTTP/1.1 they are the next head; of HTTP/2 they may
    /// be anything, such as the answer to a ping.
    pub(super) fn bytes_came(&self) {
        if self.protocol == Alpn::H2 {
            return;
        }
        let mut clocks = self.clocks.lock();
        if clocks.open == 0 && clocks.head.is_none() {
            // A new connection's first head is due from the connection's start.
            let start = clocks.quiet.filter(|_| clocks.begun == 0);
            clocks.head = Some(start.unwrap_or_else(Instant::now));
        }
    }

    /// The socket took something (true), or takes nothing now.
    pub(super) fn wrote(&self, progress: bool) {
        let mut clocks = self.clocks.lock();
        if progress {
            clocks.blocked = None;
        } else if clocks.blocked.is_none() {
            clocks.blocked = Some(Instant::now());
        }
    }

    /// HTTP/2: since when a frame, or a header block, has been coming. `None` if nothing that came
    /// has to be completed. Data has time limits of its own.
    pub(super) fn unfinished(&self, since: Option<Instant>) {
        self.clocks.lock().unfinished = since;
    }

    /// Has there been a request?
    pub(super) fn was_used(&self) -> bool {
        self.clocks.lock().begun > 0
    }

    /// Is this HTTP/1.1, with no request being served?
    pub(super) fn awaits_head(&self) -> bool {
        self.protocol == Alpn::Http1 && self.clocks.lock().open == 0
    }

    /// Ready when every request that has begun is answered.
    pub(super) fn poll_answered(&self, context: &Context<'_>) -> Poll<()> {
        let mut clocks = self.clocks.lock();
        if clocks.open > 0 {
            clocks.waiting = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// A request begins. Its number on this connection, from 0.
    pub(super) fn begin(&self) -> u64 {
        let mut clocks = self.clocks.lock();
        let number = clocks.begun;
        clocks.begun += 1;
        clocks.open += 1;
        clocks.quiet = None;
        clocks.head = None;
        number
    }

    /// The response to this request gave a piece away (true), or waits for more itself.
    pub(super) fn handed(&self, request: u64, piece: bool) {
        let now = piece.then(Instant::now);
        let mut clocks = self.clocks.lock();
        clocks.handed.retain(|(other, _)| *other != request);
        clocks.handed.extend(now.map(|now| (request, now)));
    }

    /// This request is over, and its response with it.
    pub(super) fn end(&self, request: u64) {
        let mut clocks = self.clocks.lock();
        clocks.handed.retain(|(other, _)| *other != request);
        clocks.open = clocks.open.saturating_sub(1);
        if clocks.open == 0 {
            clocks.quiet = Some(Instant::now());
            let waiting = clocks.waiting.take();
            drop(clocks);
            waiting.iter().for_each(Waker::wake_by_ref);
        }
    }

    /// Until when this may go on, and what it is then.
    pub(super) fn due(&self) -> Option<(Instant, Overdue)> {
        let ConnTimes { header, idle, write } = self.times;
        let clocks = self.clocks.lock();
        let is_used = clocks.begun > 0;
        let quiet = match (clocks.quiet, clocks.head) {
            (_, Some(since)) => Some((since + header, Overdue::Head)),
            (Some(since), None) if is_used => Some((since + idle, Overdue::Idle)),
            (Some(since), None) => Some((since + header, Overdue::Idle)),
            (None, None) => None,
        };
        let unfinished = clocks.unfinished.map(|since| {
            // A new connection's first head is due from the connection's start.
            let since = clocks.quiet.filter(|_| !is_used).unwrap_or(since);
            (since + header, Overdue::Head)
        });
        let handed = clocks.handed.iter().map(|(_, since)| *since).min();
        let handed = handed.map(|since| (since + write, Overdue::Stalled));
        let blocked = clocks.blocked.map(|since| (since + write, Overdue::Stalled));
        // Of two at once the first counts.
        let all = [unfinished, quiet, handed, blocked];
        all.into_iter().flatten().min_by_key(|(when, _)| *when)
    }
}
