//! What is done for an HTTP/2 peer, and what it owes in return: it must take the responses that it
//! asked for.

use parking_lot::Mutex;
use tokio::time::Instant;

/// What a peer must take, in each `write`, of responses that wait for nothing but its window.
const LEAST_TAKEN: u64 = 4096;

/// The account of one connection.
#[derive(Debug, Default)]
pub(in crate::conn) struct Ledger(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    /// Responses that have begun on the wire and not ended; those of all responses whose bodies are
    /// still being made.
    begun: usize,
    made: usize,
    /// Since when the peer has owed it to take [`LEAST_TAKEN`], and what it took.
    owes: Option<(Instant, u64)>,
    /// What was done for the peer and not reported yet.
    work: Work,
}

/// What a connection does for its peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Work {
    /// Requests that got what they asked for.
    pub(super) answered: u32,
    /// Requests that were refused.
    pub(super) refused: u32,
    /// Pieces of responses, as they were made.
    pub(super) pieces: u32,
}

impl Entries {
    /// What the peer owes, after it took so many bytes more.
    fn settle(&mut self, taken: u64) {
        self.owes = match self.owes {
            _ if self.begun <= self.made => None,
            Some((since, before)) if before + taken < LEAST_TAKEN => Some((since, before + taken)),
            Some(_) | None => Some((Instant::now(), 0)),
        };
    }
}

impl Ledger {
    /// So many responses have begun on the wire and not ended, and so many bytes of them were taken
    /// just now. Those whose bodies are made, and that wait in the library for the peer's window,
    /// are watched by nobody else.
    pub(super) fn responding(&self, begun: usize, taken: u64) {
        let mut entries = self.0.lock();
        entries.begun = begun;
        entries.settle(taken);
    }

    /// A request is answered, and its response is being made.
    pub(in crate::conn) fn answered(&self, refused: bool) {
        let mut entries = self.0.lock();
        let work = &mut entries.work;
        let done = if refused { &mut work.refused } else { &mut work.answered };
        *done = done.saturating_add(1);
        entries.made += 1;
    }

    /// A response that was asked for has a piece to send.
    pub(in crate::conn) fn piece(&self) {
        let pieces = &mut self.0.lock().work.pieces;
        *pieces = pieces.saturating_add(1);
    }

    /// A request is over; its response was being made, or never was.
    pub(in crate::conn) fn end(&self, was_made: bool) {
        let mut entries = self.0.lock();
        entries.made = entries.made.saturating_sub(usize::from(was_made));
        entries.settle(0);
    }

    /// What was done for the peer since this was last asked.
    pub(super) fn take_work(&self) -> Work {
        std::mem::take(&mut self.0.lock().work)
    }

    /// Since when the peer has owed it to take something, if it does.
    pub(in crate::conn) fn owes_since(&self) -> Option<Instant> {
        self.0.lock().owes.map(|(since, _)| since)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_little_by_little_owes_from_the_beginning_of_4_kib() {
        let ledger = Ledger::default();
        let begun = Instant::now();
        ledger.responding(1, 0);
        assert_eq!(ledger.owes_since(), Some(begun));
        for _ in 0..4 {
            advance(Duration::from_secs(1)).await;
            ledger.responding(1, LEAST_TAKEN / 4 - 1);
            assert_eq!(ledger.owes_since(), Some(begun));
        }
        ledger.responding(1, 4);
        let paid = begun + Duration::from_secs(4);
        assert_eq!(ledger.owes_since(), Some(paid));
        ledger.answered(false);
        ledger.responding(1, 0);
        assert_eq!(ledger.owes_since(), None, "its responses are being made");
        ledger.end(true);
        assert_eq!(ledger.owes_since(), Some(paid));
    }
}
