//! How fast one client may ask: a bucket per client, as nginx `limit_req` with `nodelay`.
//!
//! The buckets are swept, and there is a lid on their number: over it, clients that are not known
//! yet share one bucket, so that a million addresses cost no more than the lid.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use crate::limits::addr::ClientKey;
use crate::observe::metrics::{Outcome, Tally};

/// Clients with a bucket of their own. At about 70 bytes each this is 14 MB.
pub(super) const MAX_CLIENTS: usize = 200_000;
/// Between two sweeps of full buckets.
const SWEEP: Duration = Duration::from_secs(15);

/// What the bucket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RateMatch {
    /// There was a place; it is taken now.
    Within,
    /// There will be one after this time.
    Over(Duration),
}

/// The rate of every client.
pub(crate) struct Rate {
    limiter: RateLimiter<ClientKey, Buckets, TokioClock, NoOpMiddleware<Duration>>,
    clock: TokioClock,
}

impl std::fmt::Debug for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rate(..)")
    }
}

impl Rate {
    /// `per_second` requests a second, and `burst` more at once; `most` clients have a bucket of
    /// their own.
    pub(super) fn new(per_second: NonZeroU32, burst: u32, most: usize, tally: Tally) -> Self {
        // nginx lets the burst through on top of the request that is due.
        let at_once = NonZeroU32::MIN.saturating_add(burst);
        let quota = Quota::per_second(per_second).allow_burst(at_once);
        let clock = TokioClock(Instant::now());
        let buckets = Buckets {
            own: DashMap::new(),
            count: AtomicUsize::new(0),
            most,
            shared: InMemoryState::default(),
            clock: clock.clone(),
            tally,
        };
        Self { limiter: RateLimiter::new(quota, buckets, clock.clone()), clock }
    }

    /// Takes a place in the client's bucket.
    pub(super) fn take(&self, client: ClientKey) -> RateMatch {
        match self.limiter.check_key(&client) {
            Ok(()) => RateMatch::Within,
            Err(not_until) => RateMatch::Over(not_until.wait_time_from(self.clock.now())),
        }
    }

    /// Forgets, now and then and for ever, the clients whose buckets are full again.
    pub(super) async fn keep_swept(&self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            self.limiter.retain_recent();
        }
    }
}

/// The buckets: one for each client up to the lid, and a shared one for newcomers beyond it.
struct Buckets {
    own: DashMap<ClientKey, InMemoryState>,
    count: AtomicUsize,
    most: usize,
    shared: InMemoryState,
    clock: TokioClock,
    tally: Tally,
}

impl StateStore for Buckets {
    type Key = ClientKey;

    fn measure_and_replace<T, F, E>(&self, key: &ClientKey, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        if let Some(bucket) = self.own.get(key) {
            return bucket.measure_and_replace(&NotKeyed::NonKey, f);
        }
        if self.count.load(Ordering::Relaxed) >= self.most {
            self.tally.count(Outcome::RateShared);
            return self.shared.measure_and_replace(&NotKeyed::NonKey, f);
        }
        let entry = self.own.entry(*key).or_insert_with(|| {
            self.count.fetch_add(1, Ordering::Relaxed);
            InMemoryState::default()
        });
        entry.measure_and_replace(&NotKeyed::NonKey, f)
    }
}

impl ShrinkableKeyedStateStore<ClientKey> for Buckets {
    fn retain_recent(&self, _drop_below: Nanos) {
        let now = Nanos::from(self.clock.now());
        // A bucket whose next place was due in the past is as full as a new one.
        let recent = |bucket: &InMemoryState| {
            let due = bucket.measure_and_replace(&NotKeyed::NonKey, Err::<((), Nanos), _>);
            matches!(due, Err(Some(due)) if due > now)
        };
        self.own.retain(|_, bucket| recent(bucket));
        self.own.shrink_to_fit();
        self.count.store(self.own.len(), Ordering::Relaxed);
    }

    fn len(&self) -> usize {
        self.own.len()
    }

    fn is_empty(&self) -> bool {
        self.own.is_empty()
    }
}

/// governor on tokio's clock, which tests can pause.
#[derive(Clone, Debug)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn rate(most: usize) -> Rate {
        counted(most, Tally::default())
    }

    fn counted(most: usize, tally: Tally) -> Rate {
        Rate::new(NonZeroU32::new(10).unwrap(), 20, most, tally)
    }

    fn key(n: u32) -> ClientKey {
        ClientKey::from(IpAddr::V4(n.into()))
    }

    fn passed(rate: &Rate, client: u32, tries: u32) -> usize {
        (0..tries).filter(|_| rate.take(key(client)) == RateMatch::Within).count()
    }

    #[tokio::test(start_paused = true)]
    async fn sixty_at_once_are_twenty_one_as_with_nginx() {
        let rate = rate(100);
        assert_eq!(passed(&rate, 1, 60), 21);
        assert_eq!(passed(&rate, 2, 1), 1);
        assert_eq!(rate.take(key(1)), RateMatch::Over(Duration::from_millis(100)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(passed(&rate, 1, 60), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_million_clients_do_not_grow_it_past_the_lid() {
        let tally = Tally::default();
        let rate = counted(1000, tally.clone());
        assert_eq!(passed(&rate, 1, 1), 1);
        for client in 2..1_000_000 {
            rate.take(key(client));
        }
        assert_eq!((rate.limiter.len(), tally.outcomes()["rate_shared"]), (1000, 998_999));
        // Whoever was known keeps a bucket; newcomers share one.
        assert_eq!(passed(&rate, 1, 60), 20);
        assert_eq!(passed(&rate, 2_000_000, 60), 0);
        tokio::time::advance(Duration::from_secs(3)).await;
        rate.limiter.retain_recent();
        assert!(rate.limiter.is_empty());
        assert_eq!(passed(&rate, 2_000_000, 60), 21);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sweep_keeps_the_buckets_that_are_not_full() {
        let rate = rate(1000);
        assert_eq!(passed(&rate, 1, 60), 21);
        rate.limiter.retain_recent();
        assert_eq!(passed(&rate, 1, 60), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_not_seen_for_a_while_is_forgotten_without_being_asked_for() {
        let rate = rate(1000);
        assert_eq!(passed(&rate, 1, 60), 21);
        assert!(!rate.limiter.is_empty());
        let sweeping = tokio::time::timeout(SWEEP + Duration::from_secs(1), rate.keep_swept());
        assert!(sweeping.await.is_err(), "it goes on for ever");
        assert!(rate.limiter.is_empty());
        assert_eq!(format!("{rate:?}"), "Rate(..)", "no client is shown");
    }
}
