//! Counts what happens at the limits. Each outcome has a name, and a number since the start.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

/// What can happen at a limit where nobody is answered, so that no refusal tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A connection that could not be accepted: descriptors or memory ran out.
    AcceptFailed,
    /// A connection closed at accept: its address has all its places.
    ConnectionsPerIp,
    /// A connection closed at accept: all places are taken.
    MaxConnections,
    /// A connection without a good token that gave way to a newcomer.
    MaxUnauthenticated,
    /// A handshake that took too long.
    HandshakeTimeout,
    /// A handshake that failed.
    HandshakeFailed,
    /// A connection whose peer sent TLS records that carry nothing.
    TlsFlood,
    /// A connection whose request head took too long.
    HeadTimeout,
    /// A connection that broke the rules of HTTP/1.1, or had too large a head.
    Malformed,
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
    /// An idle session was ended because a newcomer needed its place.
    SessionEvicted,
    /// A task that panicked: a fault of the edge's own, or of a handler linked in.
    Panicked,
    /// Memory for messages was asked for, and all of it is taken.
    MemoryFull,
    /// The same, of the part that one client may have.
    PeerMemoryFull,
    /// A line of a child that is no message.
    LineSkipped,
    /// A line of a child that is longer than it may be.
    LineTooLong,
    /// A line of a child for which there is no memory.
    LineUnbuffered,
    /// A line of a child, or of an upstream, that was meant for an answer and cannot be read.
    AnswerUnreadable,
    /// A reader that was cut off its stream, on which it read too little.
    ReaderCut,
    /// Events that nobody read, and that a stream has no room for any more.
    EventsDropped,
    /// Events that were kept for a client that comes back, given up because memory ran short.
    EventsShed,
    /// A question of a backend's that was forgotten: too many were open.
    QuestionForgotten,
    /// A client whose rate is that of a bucket that all newcomers share: too many are known.
    RateShared,
    /// A subscription that will not be said again to an upstream that lost it: there were too many.
    SubscriptionForgotten,
    /// A tool of which it is not noted if it may be repeated: there are too many.
    ToolUnnoted,
    /// A call that was not answered in its time.
    CallTimeout,
    /// A session that ended because nobody used it.
    SessionIdle,
    /// A session that ended because of its age.
    SessionAge,
    /// A child process that did not end when it was asked to, and was killed.
    ChildKilled,
    /// A child process that was ended because it is certain to speak no MCP.
    ChildNoMcp,
    /// A program that ended as soon as it was started.
    StartFailed,
    /// The program kept failing, and further starts were held back.
    CrashLoop,
    /// Processes that outlived their keeper, found and killed together.
    OrphansKilled,
}

impl Outcome {
    /// Every outcome.
    const ALL: &'static [Self] = &[
        Self::AcceptFailed,
        Self::ConnectionsPerIp,
        Self::MaxConnections,
        Self::MaxUnauthenticated,
        Self::HandshakeTimeout,
        Self::HandshakeFailed,
        Self::TlsFlood,
        Self::HeadTimeout,
        Self::Malformed,
        Self::WriteStalled,
        Self::Http2Flood,
        Self::Http2Broken,
        Self::SpawnFailed,
        Self::IdleGivenUp,
        Self::SessionEvicted,
        Self::Panicked,
        Self::MemoryFull,
        Self::PeerMemoryFull,
        Self::LineSkipped,
        Self::LineTooLong,
        Self::LineUnbuffered,
        Self::AnswerUnreadable,
        Self::ReaderCut,
        Self::EventsDropped,
        Self::EventsShed,
        Self::QuestionForgotten,
        Self::RateShared,
        Self::SubscriptionForgotten,
        Self::ToolUnnoted,
        Self::CallTimeout,
        Self::SessionIdle,
        Self::SessionAge,
        Self::ChildKilled,
        Self::ChildNoMcp,
        Self::StartFailed,
        Self::CrashLoop,
        Self::OrphansKilled,
    ];

    /// Its name in logs and reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AcceptFailed => "accept_failed",
            Self::ConnectionsPerIp => "connections_per_ip",
            Self::MaxConnections => "max_connections",
            Self::MaxUnauthenticated => "max_unauthenticated",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::HandshakeFailed => "handshake_failed",
            Self::TlsFlood => "tls_flood",
            Self::HeadTimeout => "head_timeout",
            Self::Malformed => "malformed",
            Self::WriteStalled => "write_stalled",
            Self::Http2Flood => "http2_flood",
            Self::Http2Broken => "http2_broken",
            Self::SpawnFailed => "spawn_failed",
            Self::IdleGivenUp => "idle_given_up",
            Self::SessionEvicted => "session_evicted",
            Self::Panicked => "panics",
            Self::MemoryFull => "memory_full",
            Self::PeerMemoryFull => "peer_memory_full",
            Self::LineSkipped => "line_skipped",
            Self::LineTooLong => "line_too_long",
            Self::LineUnbuffered => "line_unbuffered",
            Self::AnswerUnreadable => "answer_unreadable",
            Self::ReaderCut => "reader_cut",
            Self::EventsDropped => "events_dropped",
            Self::EventsShed => "events_shed",
            Self::QuestionForgotten => "question_forgotten",
            Self::RateShared => "rate_shared",
            Self::SubscriptionForgotten => "subscription_forgotten",
            Self::ToolUnnoted => "tool_unnoted",
            Self::CallTimeout => "call_timeout",
            Self::SessionIdle => "session_idle",
            Self::SessionAge => "session_age",
            Self::ChildKilled => "child_killed",
            Self::ChildNoMcp => "child_no_mcp",
            Self::StartFailed => "start_failed",
            Self::CrashLoop => "crash_loop",
            Self::OrphansKilled => "orphans_killed",
        }
    }
}

/// The numbers of one server. Clones count together.
#[derive(Clone, Default)]
pub(crate) struct Tally(Arc<Counters>);

struct Counters {
    outcomes: [AtomicU64; Outcome::ALL.len()],
    /// By label: the table of refusals is their closed set.
    refusals: DashMap<&'static str, u64>,
}

impl Default for Counters {
    fn default() -> Self {
        let outcomes = std::array::from_fn(|_| AtomicU64::default());
        Self { outcomes, refusals: DashMap::default() }
    }
}

impl Tally {
    /// This happened once more.
    pub(crate) fn count(&self, outcome: Outcome) {
        self.add(outcome, 1);
    }

    fn add(&self, outcome: Outcome, times: u64) {
        let at = Outcome::ALL.iter().position(|it| *it == outcome);
        if let Some(counter) = at.and_then(|at| self.0.outcomes.get(at)) {
            counter.fetch_add(times, Ordering::Relaxed);
        }
    }

    /// This happened so many times more.
    pub(crate) fn count_many(&self, outcome: Outcome, times: usize) {
        if times > 0 {
            self.add(outcome, u64::try_from(times).unwrap_or(u64::MAX));
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
        for (times, outcome) in Outcome::ALL.iter().copied().enumerate() {
            for _ in 0..=times {
                tally.clone().count(outcome);
            }
        }
        let outcomes = tally.outcomes();
        assert_eq!(outcomes.len(), Outcome::ALL.len(), "two of one name");
        for (times, outcome) in (1_u64..).zip(Outcome::ALL) {
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
