//! What is counted: what is open or held now, and how often each outcome came to pass.
//!
//! A leaf: whoever opens something holds a [`Gauged`] with it, so that a report asks nobody.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;

/// Declares [`Outcome`], the name of each and a counter for each: one row for each outcome.
macro_rules! outcomes {
    ($($(#[$doc:meta])+ $outcome:ident => $name:ident,)+) => {
        /// What can happen at a limit where nobody is answered, so that no refusal tells of it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Outcome {
            $($(#[$doc])+ $outcome,)+
        }

        impl Outcome {
            /// Every outcome.
            const ALL: &'static [Self] = &[$(Self::$outcome),+];

            /// Its name in logs and reports.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$outcome => stringify!($name),)+
                }
            }
        }

        /// How often each outcome came to pass.
        #[derive(Default)]
        struct Outcomes {
            $($name: AtomicU64,)+
        }

        impl Outcomes {
            fn of(&self, outcome: Outcome) -> &AtomicU64 {
                match outcome {
                    $(Outcome::$outcome => &self.$name,)+
                }
            }
        }
    };
}

outcomes! {
    /// A connection that could not be accepted: descriptors or memory ran out.
    AcceptFailed => accept_failed,
    /// A connection closed at accept: its address has all its places.
    ConnectionsPerIp => connections_per_ip,
    /// A connection closed at accept: all places are taken.
    MaxConnections => max_connections,
    /// A connection without a good token that gave way to a newcomer.
    MaxUnauthenticated => max_unauthenticated,
    /// A handshake that took too long.
    HandshakeTimeout => handshake_timeout,
    /// A handshake that failed.
    HandshakeFailed => handshake_failed,
    /// A connection whose peer sent TLS records that carry nothing.
    TlsFlood => tls_flood,
    /// A connection whose request head took too long.
    HeadTimeout => head_timeout,
    /// A connection that broke the rules of HTTP/1.1, or had too large a head.
    Malformed => malformed,
    /// A connection whose peer took nothing for too long.
    WriteStalled => write_stalled,
    /// An HTTP/2 connection whose peer sent too much that asks for nothing.
    Http2Flood => http2_flood,
    /// An HTTP/2 connection whose peer broke the protocol.
    Http2Broken => http2_broken,
    /// A child process that could not be started.
    SpawnFailed => spawn_failed,
    /// Idle children, or sessions for calls without one, that were ended because their places were
    /// needed.
    IdleGivenUp => idle_given_up,
    /// An idle session was ended because a newcomer needed its place.
    SessionEvicted => session_evicted,
    /// A task that panicked: a fault of the edge's own, or of a handler linked in.
    Panicked => panics,
    /// Memory for messages was asked for, and all of it is taken.
    MemoryFull => memory_full,
    /// The same, of the part that one client may have.
    PeerMemoryFull => peer_memory_full,
    /// A line of a child that is no message.
    LineSkipped => line_skipped,
    /// A line of a child that is longer than it may be.
    LineTooLong => line_too_long,
    /// A line of a child for which there is no memory.
    LineUnbuffered => line_unbuffered,
    /// A line of a child, or of an upstream, that was meant for an answer and cannot be read.
    AnswerUnreadable => answer_unreadable,
    /// A reader that was cut off its stream, on which it read too little.
    ReaderCut => reader_cut,
    /// Events that nobody read, and that a stream has no room for any more.
    EventsDropped => events_dropped,
    /// Events that were kept for a client that comes back, given up because memory ran short.
    EventsShed => events_shed,
    /// A question of a backend's that was forgotten: too many were open.
    QuestionForgotten => question_forgotten,
    /// A client whose rate is that of a bucket that all newcomers share: too many are known.
    RateShared => rate_shared,
    /// A subscription that will not be said again to an upstream that lost it: there were too many.
    SubscriptionForgotten => subscription_forgotten,
    /// A tool of which it is not noted if it may be repeated: there are too many.
    ToolUnnoted => tool_unnoted,
    /// A call that was not answered in its time.
    CallTimeout => call_timeout,
    /// A session that ended because nobody used it.
    SessionIdle => session_idle,
    /// A session that ended because of its age.
    SessionAge => session_age,
    /// A child process that did not end when it was asked to, and was killed.
    ChildKilled => child_killed,
    /// A child process that was ended because it is certain to speak no MCP.
    ChildNoMcp => child_no_mcp,
    /// A program that ended as soon as it was started.
    StartFailed => start_failed,
    /// The program kept failing, and further starts were held back.
    CrashLoop => crash_loop,
    /// Processes that outlived their keeper, found and killed together.
    OrphansKilled => orphans_killed,
}

/// How many of something there are now. Clones are one gauge; the default is one that no report reads.
#[derive(Clone, Default)]
pub(crate) struct Gauge(Arc<AtomicUsize>);

impl Gauge {
    /// Counts one more, until what this returns is dropped.
    pub(crate) fn hold(&self) -> Gauged {
        self.0.fetch_add(1, Ordering::Relaxed);
        Gauged(self.clone())
    }

    /// How many there are.
    pub(crate) fn value(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// For a limit that counts in the gauge itself.
impl Borrow<AtomicUsize> for Gauge {
    fn borrow(&self) -> &AtomicUsize {
        &self.0
    }
}

impl fmt::Debug for Gauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gauge({})", self.value())
    }
}

/// One that a gauge counts. It is a part of the permit for what is counted.
#[derive(Debug)]
#[must_use = "dropping it takes one off the gauge"]
pub(crate) struct Gauged(Gauge);

impl Drop for Gauged {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is open or held now.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    /// Open connections.
    pub(crate) connections: Gauge,
    /// Those of them that have not made a request that may pass.
    pub(crate) unauthenticated: Gauge,
    /// Open event streams, those on passed paths too.
    pub(crate) streams: Gauge,
    /// Sessions that clients know.
    pub(crate) sessions: Gauge,
    /// Child processes.
    pub(crate) children: Gauge,
    /// Bytes of messages that are held.
    pub(crate) buffered_bytes: Gauge,
    /// Does the command end as soon as it is started, so that starts are held back?
    pub(crate) crash_loop: AtomicBool,
}

/// The numbers of one server. Clones count together.
#[derive(Clone, Default)]
pub(crate) struct Metrics(Arc<Registry>);

#[derive(Default)]
struct Registry {
    gauges: Gauges,
    outcomes: Outcomes,
    /// By label: the table of refusals is their closed set.
    refusals: DashMap<&'static str, u64>,
}

impl Metrics {
    /// This happened once more.
    pub(crate) fn count(&self, outcome: Outcome) {
        self.count_many(outcome, 1);
    }

    /// This happened so many times more.
    pub(crate) fn count_many(&self, outcome: Outcome, times: usize) {
        let times = u64::try_from(times).unwrap_or(u64::MAX);
        self.0.outcomes.of(outcome).fetch_add(times, Ordering::Relaxed);
    }

    /// A request was refused under this label.
    pub(crate) fn refused(&self, label: &'static str) {
        *self.0.refusals.entry(label).or_default() += 1;
    }

    /// What is open or held now.
    pub(crate) fn gauges(&self) -> &Gauges {
        &self.0.gauges
    }

    /// How often each outcome came to pass.
    pub(crate) fn outcomes(&self) -> BTreeMap<&'static str, u64> {
        let number = |outcome| self.0.outcomes.of(outcome).load(Ordering::Relaxed);
        Outcome::ALL.iter().map(|outcome| (outcome.name(), number(*outcome))).collect()
    }

    /// How many requests were refused, by label.
    pub(crate) fn refusals(&self) -> BTreeMap<&'static str, u64> {
        self.0.refusals.iter().map(|entry| (*entry.key(), *entry.value())).collect()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("gauges", &self.0.gauges)
            .field("outcomes", &self.outcomes())
            .field("refusals", &self.refusals())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_a_name_and_a_number_of_its_own() {
        let metrics = Metrics::default();
        for (times, outcome) in Outcome::ALL.iter().copied().enumerate() {
            for _ in 0..=times {
                metrics.clone().count(outcome);
            }
        }
        let outcomes = metrics.outcomes();
        assert_eq!(outcomes.len(), Outcome::ALL.len(), "two of one name");
        for (times, outcome) in (1_u64..).zip(Outcome::ALL) {
            assert_eq!(outcomes.get(outcome.name()), Some(&times));
        }
    }

    #[test]
    fn a_gauge_counts_what_is_held_and_nothing_else() {
        let metrics = Metrics::default();
        let streams = metrics.clone().gauges().streams.clone();
        let (one, other) = (streams.hold(), streams.hold());
        assert_eq!(metrics.gauges().streams.value(), 2);
        assert_eq!(metrics.gauges().sessions.value(), 0);
        drop(one);
        assert_eq!(metrics.gauges().streams.value(), 1);
        drop(other);
        assert_eq!(metrics.gauges().streams.value(), 0);
    }

    #[test]
    fn refusals_are_counted_by_label() {
        let metrics = Metrics::default();
        for label in ["rate", "token", "rate"] {
            metrics.refused(label);
        }
        assert_eq!(metrics.refusals(), BTreeMap::from([("rate", 2), ("token", 1)]));
    }
}
