//! Which session gives its place to a newcomer if no place is left. Pure: time is an argument.
//!
//! Hosted clients open a session for each call and never end one. Without eviction such sessions
//! hold every place until their idle time is over, and the clients that work are refused.

use std::time::Duration;

use tokio::time::Instant;

/// A pause of this length ends a client's burst of messages.
pub(crate) const BURST_PAUSE: Duration = Duration::from_millis(1500);
/// Who reads the standalone stream this long without a message is a client that stays.
const STREAM_HELD: Duration = Duration::from_mins(1);
/// A client that sent messages after its first burst keeps its idle session for this long.
pub(crate) const RETURNED_IDLE: Duration = Duration::from_mins(5);

/// When a session was used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Used {
    last: Instant,
    /// Did its client send anything after `initialize`?
    began: bool,
    returned: bool,
}

impl Used {
    pub(crate) fn new(now: Instant) -> Self {
        Self { last: now, began: false, returned: false }
    }

    /// Something happened in it.
    pub(crate) fn now(&mut self, now: Instant) {
        self.last = now;
    }

    /// Its client sent something. The first message behind `initialize` belongs to the handshake,
    /// however late it is.
    pub(crate) fn by_client(&mut self, now: Instant) {
        self.returned |= self.began && now >= self.last + BURST_PAUSE;
        self.began = true;
        self.last = now;
    }

    /// The reader of its standalone stream left.
    pub(crate) fn by_reader(&mut self, now: Instant) {
        self.returned |= now >= self.last + STREAM_HELD;
        self.last = now;
    }

    pub(crate) fn last(&self) -> Instant {
        self.last
    }

    /// Did its client send messages after its first burst?
    pub(crate) fn returned(&self) -> bool {
        self.returned
    }
}

/// How a session is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Since when nothing happens; `None` while a call waits or a stream is read.
    pub(crate) idle_since: Option<Instant>,
    /// Does somebody read its standalone stream?
    pub(crate) streams: bool,
    /// Did its client send messages after its first burst?
    pub(crate) returned: bool,
}

impl Usage {
    /// From when on a newcomer may take its place; `None` if that cannot be told.
    pub(crate) fn evictable_at(&self, now: Instant) -> Option<Instant> {
        let kept = if self.returned { RETURNED_IDLE } else { BURST_PAUSE };
        match self.idle_since {
            Some(since) => Some(since + kept),
            // Its only calls may be answered at any moment, and it may never be used again.
            None if !self.streams && !self.returned => Some(now + kept),
            None => None,
        }
    }

    fn is_evictable(&self, now: Instant) -> bool {
        self.idle_since.is_some() && self.evictable_at(now).is_some_and(|at| at <= now)
    }
}

/// A session whose place would serve the newcomer.
#[derive(Debug)]
pub(crate) struct Candidate<T> {
    pub(crate) session: T,
    /// Does it belong to the newcomer's principal?
    pub(crate) own: bool,
    pub(crate) usage: Usage,
}

/// What is done for a newcomer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Choice<T> {
    /// This session goes.
    Evict(T),
    /// No session may go now; the first may at this time.
    Wait(Instant),
    /// Every session is in use.
    InUse,
}

/// Chooses the session that gives its place to a newcomer who waits until `patience` at most.
///
/// Sessions of the newcomer's own principal go first, and no other's while one of its own can go.
/// Among them those go first that were not used after their first burst of messages, and of these
/// the one that was idle longest.
pub(crate) fn choose<T>(
    candidates: impl IntoIterator<Item = Candidate<T>>,
    now: Instant,
    patience: Instant,
) -> Choice<T> {
    let mut own = None;
    let mut other = None;
    let mut own_at = None::<Instant>;
    let mut other_at = None::<Instant>;
    for Candidate { session, own: is_own, usage } in candidates {
        let (best, first) =
            if is_own { (&mut own, &mut own_at) } else { (&mut other, &mut other_at) };
        if usage.is_evictable(now) {
            let rank = (usage.returned, usage.idle_since);
            if best.as_ref().is_none_or(|(of_best, _)| rank < *of_best) {
                *best = Some((rank, session));
            }
        } else if let Some(at) = usage.evictable_at(now) {
            *first = Some(first.map_or(at, |first| first.min(at)));
        }
    }
    if let Some((_, session)) = own {
        return Choice::Evict(session);
    }
    if let Some(at) = own_at.filter(|at| *at <= patience) {
        return Choice::Wait(at);
    }
    if let Some((_, session)) = other {
        return Choice::Evict(session);
    }
    own_at.into_iter().chain(other_at).min().map_or(Choice::InUse, Choice::Wait)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A session that was idle for so many seconds at `now`.
    fn idle(now: Instant, name: u32, own: bool, seconds: u32, returned: bool) -> Candidate<u32> {
        let idle_since = Some(now - SECOND * seconds);
        Candidate { session: name, own, usage: Usage { idle_since, streams: false, returned } }
    }

    fn in_use(name: u32, streams: bool, returned: bool) -> Candidate<u32> {
        let usage = Usage { idle_since: None, streams, returned };
        Candidate { session: name, own: true, usage }
    }

    /// Some time after the start, so that instants before it exist.
    fn now() -> Instant {
        Instant::now() + SECOND * 100_000
    }

    #[test]
    fn the_session_that_was_never_used_again_and_is_idle_longest_goes_first() {
        let now = now();
        let all = [
            idle(now, 1, true, 2, false),
            idle(now, 2, true, 9, false),
            idle(now, 3, true, 5, false),
            idle(now, 4, true, 5000, true),
        ];
        assert_eq!(choose(all, now, now), Choice::Evict(2));
    }

    #[test]
    fn a_client_that_came_back_keeps_its_session_for_five_idle_minutes() {
        let now = now();
        let paused = || [idle(now, 1, true, 60, true), idle(now, 2, true, 299, true)];
        assert_eq!(choose(paused(), now, now + SECOND), Choice::Wait(now + SECOND));
        let later = now + SECOND;
        assert_eq!(choose(paused(), later, later), Choice::Evict(2));
    }

    #[test]
    fn nobody_is_evicted_in_the_middle_of_a_burst() {
        let now = now();
        let fresh = idle(now, 1, true, 0, false);
        assert_eq!(choose([fresh], now, now), Choice::Wait(now + BURST_PAUSE));
    }

    #[test]
    fn open_streams_and_waiting_calls_are_never_evicted() {
        let now = now();
        for (streams, returned) in [(true, false), (true, true), (false, true)] {
            assert_eq!(choose([in_use(1, streams, returned)], now, now), Choice::InUse);
        }
        // A first call may be the last one.
        let calling = choose([in_use(1, false, false)], now, now);
        assert_eq!(calling, Choice::Wait(now + BURST_PAUSE));
        assert_eq!(choose::<u32>([], now, now), Choice::InUse);
    }

    #[test]
    fn another_principals_session_goes_only_if_none_of_ones_own_can() {
        let now = now();
        let other = || idle(now, 1, false, 900, false);
        let own_returned = || idle(now, 2, true, 600, true);
        assert_eq!(choose([other(), own_returned()], now, now), Choice::Evict(2));
        let own_paused = || idle(now, 3, true, 60, true);
        assert_eq!(choose([other(), own_paused()], now, now), Choice::Evict(1));
        // One of its own can go while the newcomer waits.
        let soon = choose([other(), idle(now, 4, true, 0, false)], now, now + 5 * SECOND);
        assert_eq!(soon, Choice::Wait(now + BURST_PAUSE));
    }

    #[test]
    fn a_message_after_a_pause_is_a_return_and_a_late_handshake_is_none() {
        let begun = now();
        let mut used = Used::new(begun);
        used.by_client(begun + 9 * SECOND);
        assert!(!used.returned(), "`initialized` may be late");
        used.by_client(begun + 9 * SECOND + BURST_PAUSE - Duration::from_millis(1));
        assert!(!used.returned(), "the burst goes on");
        used.by_client(begun + 9 * SECOND + 2 * BURST_PAUSE);
        assert!(used.returned());
    }

    #[test]
    fn a_reader_that_stayed_for_a_minute_is_a_return() {
        let begun = now();
        let (mut short, mut long) = (Used::new(begun), Used::new(begun));
        short.by_reader(begun + 59 * SECOND);
        long.by_reader(begun + 60 * SECOND);
        assert!(!short.returned() && long.returned());
    }

    #[test]
    fn whatever_happens_in_a_session_is_its_last_use_and_a_return_is_never_forgotten() {
        let begun = now();
        let mut used = Used::new(begun);
        used.now(begun + SECOND);
        assert_eq!((used.last(), used.returned()), (begun + SECOND, false));
        used.by_reader(begun + 90 * SECOND);
        used.by_client(begun + 90 * SECOND);
        used.by_client(begun + 90 * SECOND);
        used.by_reader(begun + 91 * SECOND);
        assert_eq!((used.last(), used.returned()), (begun + 91 * SECOND, true));
    }

    proptest! {
        #[test]
        fn whoever_goes_may_go_and_nobody_better_stays(
            all in proptest::collection::vec((any::<bool>(), 0_u32..700, any::<bool>(), 0_u8..4), 0..40),
        ) {
            let now = now();
            let candidates = || all.iter().enumerate().map(|(at, (own, seconds, returned, used))| {
                let mut one = idle(now, u32::try_from(at).unwrap(), *own, *seconds, *returned);
                if *used == 0 {
                    one.usage.idle_since = None;
                }
                one
            });
            let rank = |one: &Candidate<u32>| {
                (!one.own, one.usage.returned, one.usage.idle_since)
            };
            let best = candidates().filter(|one| one.usage.is_evictable(now)).min_by_key(rank);
            match (choose(candidates(), now, now), best) {
                (Choice::Evict(gone), Some(best)) => {
                    let gone = candidates().find(|one| one.session == gone).unwrap();
                    prop_assert_eq!(rank(&gone), rank(&best));
                }
                (Choice::Wait(at), None) => prop_assert!(at > now),
                (Choice::InUse, None) => {}
                (choice, best) => prop_assert!(false, "{choice:?} {best:?}"),
            }
        }
    }
}
