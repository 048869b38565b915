//! One stream's events: a bounded log with one reader, who may leave and come back.
//!
//! Delivery and resumption are the same thing here: a reader is a cursor into the log, and resuming
//! sets the cursor back. Nothing that the reader in charge has not read is ever thrown away; a log
//! that is full of such makes the writer wait ([`EventLog::is_full`]).
#![cfg_attr(not(fuzzing), expect(unreachable_pub, reason = "the fuzz targets reach it"))]

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::mcp::Reason;

/// Events that one stream keeps, read or not.
const MAX_EVENTS: usize = 256;
/// Bytes that one stream keeps. One event may be larger than that by itself. A reader that never
/// reads costs this, what waits in queues before it (no more than one message of those that are
/// larger), and the buffers of its connection.
pub(super) const MAX_BYTES: usize = 192 * 1024;

/// Which reader is in charge: a later one replaces an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn(u64);

/// The events of one stream, numbered from 1.
#[derive(Debug, Default)]
pub struct EventLog {
    events: VecDeque<Bytes>,
    /// How many were dropped from the front.
    dropped: u64,
    /// How many the reader has taken, of those still here.
    read: usize,
    bytes: usize,
    unread_bytes: usize,
    /// Bytes of the event that the reader is still passing on to its peer.
    in_hand: usize,
    finished: bool,
    /// Why the edge itself answered, where the backend did not.
    excuse: Option<Reason>,
    turn: u64,
    attached: bool,
    waker: Option<Waker>,
}

impl EventLog {
    /// Adds an event, and drops old ones that nobody in charge still has to read. Says how many of
    /// these nobody had read.
    pub(crate) fn push(&mut self, event: Bytes) -> usize {
        self.bytes += event.len();
        self.unread_bytes += event.len();
        self.events.push_back(event);
        let mut unread = 0;
        while self.is_over() && (self.read > 0 || !self.attached) && self.events.len() > 1 {
            unread += usize::from(self.drop_oldest());
        }
        self.wake();
        unread
    }

    /// Says whether nobody had read it.
    fn drop_oldest(&mut self) -> bool {
        let Some(oldest) = self.events.pop_front() else { return false };
        self.bytes -= oldest.len();
        self.dropped += 1;
        if let Some(read) = self.read.checked_sub(1) {
            self.read = read;
            return false;
        }
        self.unread_bytes -= oldest.len();
        true
    }

    /// Gives up what is only kept for a reader that comes back: with one in charge what that has
    /// read, else the older half. Says how many events that were.
    pub(crate) fn shed(&mut self) -> usize {
        let shed = if self.attached { self.read } else { self.events.len().div_ceil(2) };
        for _ in 0..shed {
            self.drop_oldest();
        }
        if self.events.is_empty() {
            self.events.shrink_to_fit();
        }
        shed
    }

    fn is_over(&self) -> bool {
        self.events.len() > MAX_EVENTS || self.bytes > MAX_BYTES
    }

    /// Must a writer wait for the reader?
    pub(crate) fn is_full(&self) -> bool {
        let unread = self.events.len() - self.read;
        let bytes = self.unread_bytes.saturating_add(self.in_hand);
        self.attached && (unread >= MAX_EVENTS || bytes >= MAX_BYTES)
    }

    /// Says that no event will follow.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
        self.wake();
    }

    /// Notes that the answer to come is the edge's own.
    pub(crate) fn excuse(&mut self, reason: Reason) {
        self.excuse = Some(reason);
    }

    /// Why the edge itself answered; none where the backend did.
    pub(crate) fn excused(&self) -> Option<&Reason> {
        self.excuse.as_ref()
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Is somebody reading?
    pub(crate) fn is_attached(&self) -> bool {
        self.attached
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Puts a new reader in charge, who goes on where the last one was.
    pub fn attach(&mut self) -> Turn {
        self.turn += 1;
        self.attached = true;
        self.in_hand = 0;
        self.wake();
        Turn(self.turn)
    }

    /// The turn of the reader in charge.
    pub(crate) fn turn(&self) -> Turn {
        Turn(self.turn)
    }

    /// Puts a new reader in charge, who has seen everything up to event `seen`. None where what
    /// follows is gone, or where there never was such an event.
    pub fn resume(&mut self, seen: u64) -> Option<Turn> {
        let read = usize::try_from(seen.checked_sub(self.dropped)?).ok()?;
        let unread = self.events.range(..).skip(read).map(Bytes::len).sum();
        if read > self.events.len() {
            return None;
        }
        self.read = read;
        self.unread_bytes = unread;
        Some(self.attach())
    }

    /// The reader with this turn leaves. Nothing happens if it was replaced.
    pub fn detach(&mut self, turn: Turn) {
        if turn.0 == self.turn {
            self.attached = false;
            self.in_hand = 0;
            self.waker = None;
        }
    }

    /// The next event and its number; none at the end, or once the reader was replaced.
    pub fn poll_next(&mut self, turn: Turn, context: &Context<'_>) -> Poll<Option<(u64, Bytes)>> {
        if turn.0 != self.turn {
            return Poll::Ready(None);
        }
        if let Some(event) = self.events.get(self.read).cloned() {
            self.read += 1;
            self.unread_bytes -= event.len();
            return Poll::Ready(Some((self.seen(), event)));
        }
        if self.finished {
            return Poll::Ready(None);
        }
        self.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// The same, for a reader that passes it on piece by piece, and asks for the next when its peer
    /// has taken all of it.
    pub(crate) fn poll_handed(
        &mut self,
        turn: Turn,
        context: &Context<'_>,
    ) -> Poll<Option<(u64, Bytes)>> {
        let next = self.poll_next(turn, context);
        if turn.0 == self.turn {
            self.in_hand = match &next {
                Poll::Ready(Some((_, event))) => event.len(),
                Poll::Ready(None) | Poll::Pending => 0,
            };
        }
        next
    }

    /// Resolves when there is something to read, or nothing will come.
    pub(crate) fn poll_ready(&mut self, turn: Turn, context: &Context<'_>) -> Poll<()> {
        if turn.0 != self.turn || self.finished || self.read < self.events.len() {
            return Poll::Ready(());
        }
        self.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// The number of the last event that was read; 0 before the first.
    pub(crate) fn seen(&self) -> u64 {
        self.dropped + u64::try_from(self.read).unwrap_or(u64::MAX)
    }

    /// Its bytes, if its sums are right and it is within its bounds.
    #[cfg(fuzzing)]
    pub(crate) fn checked(&self) -> usize {
        let held: usize = self.events.iter().map(Bytes::len).sum();
        let unread: usize = self.events.iter().skip(self.read).map(Bytes::len).sum();
        assert_eq!((self.bytes, self.unread_bytes), (held, unread));
        assert!(self.read <= self.events.len());
        // What a reader lets pile up ends at the bounds, but for the last event and for the edge's
        // own words to each of 64 calls.
        let longest = self.events.iter().map(Bytes::len).max().unwrap_or(0);
        assert!(self.events.len() <= MAX_EVENTS + 65, "more events than it may hold");
        assert!(held <= MAX_BYTES + longest + 64 * 1024, "more bytes than it may hold");
        held
    }

    /// How many events wait for the reader.
    pub(crate) fn unread(&self) -> usize {
        self.events.len() - self.read
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn next(log: &mut EventLog, turn: Turn) -> Poll<Option<(u64, Bytes)>> {
        log.poll_next(turn, &Context::from_waker(Waker::noop()))
    }

    #[test]
    fn what_its_reader_has_in_hand_counts_until_the_next_is_asked_for() {
        let context = Context::from_waker(Waker::noop());
        let mut log = EventLog::default();
        let turn = log.attach();
        log.push(Bytes::from(vec![b'x'; MAX_BYTES + 1]));
        assert!(log.is_full());
        assert!(log.poll_handed(turn, &context).is_ready());
        assert!(log.is_full(), "its peer has not taken it yet");
        assert!(log.poll_handed(turn, &context).is_pending());
        assert!(!log.is_full());
        // One that leaves holds nothing; an answer that is taken whole is nobody's any more.
        log.push(Bytes::from(vec![b'x'; MAX_BYTES + 1]));
        assert!(log.poll_handed(turn, &context).is_ready() && log.is_full());
        log.detach(turn);
        let turn = log.attach();
        assert!(!log.is_full());
        log.push(Bytes::from(vec![b'x'; MAX_BYTES + 1]));
        assert!(log.poll_next(turn, &context).is_ready() && !log.is_full());
    }

    #[test]
    fn a_reader_gets_each_event_once_and_then_the_end() {
        let mut log = EventLog::default();
        let turn = log.attach();
        assert_eq!(next(&mut log, turn), Poll::Pending);
        log.push(event("a"));
        log.push(event("b"));
        log.finish();
        assert_eq!(next(&mut log, turn), Poll::Ready(Some((1, event("a")))));
        assert_eq!(next(&mut log, turn), Poll::Ready(Some((2, event("b")))));
        assert_eq!(next(&mut log, turn), Poll::Ready(None));
    }

    #[test]
    fn a_second_reader_replaces_the_first_and_goes_on() {
        let mut log = EventLog::default();
        let first = log.attach();
        log.push(event("a"));
        assert!(next(&mut log, first).is_ready());
        log.push(event("b"));
        let second = log.attach();
        assert_eq!(next(&mut log, first), Poll::Ready(None));
        log.detach(first);
        assert!(log.is_attached());
        assert_eq!(next(&mut log, second), Poll::Ready(Some((2, event("b")))));
    }

    #[test]
    fn a_reader_that_comes_back_gets_what_it_has_not_seen() {
        let mut log = EventLog::default();
        let turn = log.attach();
        for text in ["a", "b", "c"] {
            log.push(event(text));
            assert!(next(&mut log, turn).is_ready());
        }
        let again = log.resume(1).unwrap();
        assert_eq!(next(&mut log, again), Poll::Ready(Some((2, event("b")))));
        assert!(log.resume(3).is_some());
        assert!(log.resume(4).is_none());
        assert!(log.resume(u64::MAX).is_none());
    }

    #[test]
    fn what_the_reader_has_not_read_is_kept_and_the_writer_waits() {
        let mut log = EventLog::default();
        let turn = log.attach();
        for _ in 0..MAX_EVENTS {
            assert!(!log.is_full());
            log.push(event("x"));
        }
        assert!(log.is_full());
        log.push(event("x"));
        assert_eq!(log.unread(), MAX_EVENTS + 1);
        assert!(next(&mut log, turn).is_ready());
        assert!(next(&mut log, turn).is_ready());
        assert!(!log.is_full());
    }

    #[test]
    fn it_keeps_256_events_or_192_kib() {
        for (size, kept) in [(1, 256), (1024, 192), (300 * 1024, 1)] {
            let mut log = EventLog::default();
            for _ in 0..300 {
                log.push(Bytes::from(vec![0; size]));
            }
            assert_eq!(log.events.len(), kept, "of {size} bytes each");
        }
    }

    #[test]
    fn where_memory_is_short_it_gives_up_what_nobody_waits_for() {
        let mut log = EventLog::default();
        let turn = log.attach();
        for text in ["a", "b", "c", "d"] {
            assert_eq!(log.push(event(text)), 0);
        }
        assert!(next(&mut log, turn).is_ready());
        assert_eq!((log.shed(), log.shed()), (1, 0));
        assert_eq!(next(&mut log, turn), Poll::Ready(Some((2, event("b")))));
        log.detach(turn);
        assert_eq!((log.shed(), log.shed(), log.shed()), (2, 1, 0));
        assert_eq!(log.bytes(), 0);
        assert!(log.resume(3).is_none() && log.resume(4).is_some());
    }

    #[test]
    fn without_a_reader_the_oldest_events_go() {
        let mut log = EventLog::default();
        let mut dropped = 0;
        for _ in 0..3 * MAX_EVENTS {
            dropped += log.push(event("x"));
        }
        assert_eq!((log.events.len(), dropped), (MAX_EVENTS, 2 * MAX_EVENTS));
        assert!(log.resume(0).is_none());
        log.push(Bytes::from(vec![0; 2 * MAX_BYTES]));
        assert_eq!(log.events.len(), 1);
    }

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Woken(std::sync::atomic::AtomicUsize);

    impl std::task::Wake for Woken {
        fn wake(self: std::sync::Arc<Self>) {
            let _before = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    #[test]
    fn a_reader_that_waits_is_woken_by_an_event_the_end_and_its_successor() {
        let woken = std::sync::Arc::new(Woken::default());
        let waker = Waker::from(std::sync::Arc::clone(&woken));
        let count = || woken.0.load(std::sync::atomic::Ordering::Relaxed);
        let context = Context::from_waker(&waker);
        let mut log = EventLog::default();
        let turn = log.attach();
        assert!(log.poll_next(turn, &context).is_pending());
        let _unread = log.push(event("a"));
        assert_eq!(count(), 1);
        assert!(
            log.poll_next(turn, &context).is_ready() && log.poll_ready(turn, &context).is_pending()
        );
        let next = log.attach();
        assert_eq!((count(), log.turn()), (2, next));
        assert!(log.poll_ready(next, &context).is_pending());
        log.finish();
        assert_eq!(count(), 3);
    }

    #[test]
    fn it_is_ready_while_there_is_something_to_read_or_nothing_will_come() {
        let context = Context::from_waker(Waker::noop());
        let mut log = EventLog::default();
        let turn = log.attach();
        assert!(log.poll_ready(turn, &context).is_pending());
        let _unread = log.push(event("a"));
        assert!(log.poll_ready(turn, &context).is_ready());
        assert!(next(&mut log, turn).is_ready());
        assert!(log.poll_ready(turn, &context).is_pending());
        let other = log.attach();
        assert!(log.poll_ready(turn, &context).is_ready(), "it was replaced");
        assert!(log.poll_ready(other, &context).is_pending());
        log.finish();
        assert!(log.poll_ready(other, &context).is_ready());
    }

    #[test]
    fn it_is_full_of_bytes_as_well_and_full_for_nobody_without_a_reader() {
        let mut log = EventLog::default();
        let turn = log.attach();
        let _unread = log.push(Bytes::from(vec![0; 192 * 1024 - 1]));
        assert!(!log.is_full());
        let _unread = log.push(event("x"));
        assert!(log.is_full());
        log.detach(turn);
        assert!(!log.is_full());
    }

    proptest! {
        #[test]
        fn the_books_balance(steps in proptest::collection::vec((0u8..6, 0usize..100_000), 0..60)) {
            let mut log = EventLog::default();
            let mut turn = log.attach();
            for (step, size) in steps {
                match step {
                    0 | 1 => drop(log.push(Bytes::from(vec![0; size]))),
                    2 => drop(next(&mut log, turn)),
                    3 => log.detach(turn),
                    4 => drop(log.shed()),
                    _ => turn = log.resume(log.dropped).unwrap(),
                }
                let held: usize = log.events.iter().map(Bytes::len).sum();
                let unread: usize = log.events.iter().skip(log.read).map(Bytes::len).sum();
                prop_assert_eq!(log.bytes, held);
                prop_assert_eq!(log.unread_bytes, unread);
                prop_assert!(log.read <= log.events.len());
            }
        }
    }
}
