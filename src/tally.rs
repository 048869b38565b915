//! Counts what happens at the limits. Each outcome has a name, and a number since the start.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

/// What can happen at a limit where nobody is answered, so that no refusal tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A connection closed at accept: its address has all its places.
    ConnectionsPerIp,
    /// A connection closed at accept: all places are taken.
    MaxConnections,
    /// A handshake that took too long.
    HandshakeTimeout,
    /// A handshake that failed.
    HandshakeFailed,
    /// A connection whose request head took too long.
    HeadTimeout,
    /// A connection whose peer took nothing for too long.
    WriteStalled,
    /// An HTTP/2 connection whose peer sent too much that asks for nothing.
    Http2Flood,
    /// An HTTP/2 connection whose peer broke the protocol.
    Http2Broken,
    /// A child process that could not be started.
    SpawnFailed,
    /// Idle children that were ended because their places were needed.
    IdleGivenUp,
}

impl Outcome {
    /// Every outcome.
    const ALL: [Self; 10] = [
        Self::ConnectionsPerIp,
        Self::MaxConnections,
        Self::HandshakeTimeout,
        Self::HandshakeFailed,
        Self::HeadTimeout,
        Self::WriteStalled,
        Self::Http2Flood,
        Self::Http2Broken,
        Self::SpawnFailed,
        Self::IdleGivenUp,
    ];

    /// Its name in logs and reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ConnectionsPerIp => "connections_per_ip",
            Self::MaxConnections => "max_connections",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::HandshakeFailed => "handshake_failed",
            Self::HeadTimeout => "head_timeout",
            Self::WriteStalled => "write_stalled",
            Self::Http2Flood => "http2_flood",
            Self::Http2Broken => "http2_broken",
            Self::SpawnFailed => "spawn_failed",
            Self::IdleGivenUp => "idle_given_up",
        }
    }
}

/// The numbers of one server. Clones count together.
#[derive(Clone, Default)]
pub(crate) struct Tally(Arc<Counters>);

#[derive(Default)]
struct Counters {
    outcomes: [AtomicU64; Outcome::ALL.len()],
    /// By label: the table of refusals is their closed set.
    refusals: DashMap<&'static str, u64>,
}

impl Tally {
    /// This happened once more.
    pub(crate) fn count(&self, outcome: Outcome) {
        let at = Outcome::ALL.iter().position(|it| *it == outcome);
        if let Some(counter) = at.and_then(|at| self.0.outcomes.get(at)) {
            let _before = counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A request was refused under this label.
    pub(crate) fn refused(&self, label: &'static str) {
        *self.0.refusals.entry(label).or_default() += 1;
    }

    /// How often each outcome came to pass.
    pub(crate) fn outcomes(&self) -> BTreeMap<&'static str, u64> {
        let numbers = self.0.outcomes.iter().map(|counter| counter.load(Ordering::Relaxed));
        Outcome::ALL.iter().map(|outcome| outcome.name()).zip(numbers).collect()
    }

    /// How many requests were refused, by label.
    pub(crate) fn refusals(&self) -> BTreeMap<&'static str, u64> {
        self.0.refusals.iter().map(|entry| (*entry.key(), *entry.value())).collect()
    }
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.outcomes()).entries(self.refusals()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_a_name_and_a_number_of_its_own() {
        let tally = Tally::default();
        for (times, outcome) in Outcome::ALL.into_iter().enumerate() {
            for _ in 0..=times {
                tally.clone().count(outcome);
            }
        }
        let outcomes = tally.outcomes();
        assert_eq!(outcomes.len(), Outcome::ALL.len(), "two of one name");
        for (times, outcome) in (1..).zip(Outcome::ALL) {
            assert_eq!(outcomes.get(outcome.name()), Some(&times));
        }
    }

    #[test]
    fn refusals_are_counted_by_label() {
        let tally = Tally::default();
        for label in ["rate", "token", "rate"] {
            tally.refused(label);
        }
        assert_eq!(tally.refusals(), BTreeMap::from([("rate", 2), ("token", 1)]));
    }
}
