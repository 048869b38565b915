//! How fast one client may ask: a bucket per client, as nginx `limit_req` with `nodelay`.
//!
//! The buckets stay when the rate changes: whoever takes a place says how fast a bucket fills. They
//! are swept, and there is a lid on their number: over it, clients that are not known yet share one
//! bucket, so that a million addresses cost no more than the lid.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use crate::limits::addr::ClientKey;
use crate::observe::metrics::{Metrics, Outcome};

/// Clients with a bucket of their own. At about 70 bytes each this is 14 MB.
const MAX_CLIENTS: usize = 200_000;
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

/// How fast a bucket fills, and how much is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace(Quota);

impl Pace {
    /// `per_second` requests a second, and `burst` more at once: nginx lets the burst through on top
    /// of the request that is due.
    pub(super) const fn new(per_second: NonZeroU32, burst: u32) -> Self {
        Self(Quota::per_second(per_second).allow_burst(NonZeroU32::MIN.saturating_add(burst)))
    }
}

/// The buckets of all clients: one for each up to the lid, and a shared one for newcomers beyond it.
///
/// A bucket is the moment when it is full again, in time since the start (GCRA: the theoretical
/// arrival time of ITU-T I.371).
pub(crate) struct Rate {
    own: DashMap<ClientKey, InMemoryState>,
    count: AtomicUsize,
    most: usize,
    shared: InMemoryState,
    start: Instant,
    metrics: Metrics,
}

impl std::fmt::Debug for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rate(..)")
    }
}

impl Rate {
    /// Nobody has asked yet.
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self::with_lid(MAX_CLIENTS, metrics)
    }

    fn with_lid(most: usize, metrics: Metrics) -> Self {
        Self {
            own: DashMap::new(),
            count: AtomicUsize::new(0),
            most,
            shared: InMemoryState::default(),
            start: Instant::now(),
            metrics,
        }
    }

    /// Takes a place in the client's bucket, which fills at this pace.
    pub(super) fn take(&self, client: ClientKey, pace: Pace) -> RateMatch {
        // Time is taken once the bucket is had: a request that waited for it must not judge by an
        // older time than the one before it.
        if let Some(bucket) = self.own.get(&client) {
            return take(&bucket, pace, self.now());
        }
        if self.count.load(Ordering::Relaxed) >= self.most {
            self.metrics.count(Outcome::RateShared);
            return take(&self.shared, pace, self.now());
        }
        let bucket = self.own.entry(client).or_insert_with(|| {
            self.count.fetch_add(1, Ordering::Relaxed);
            InMemoryState::default()
        });
        take(&bucket, pace, self.now())
    }

    /// Forgets, now and then and for ever, the clients whose buckets are full again.
    pub(super) async fn keep_swept(&self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            self.sweep();
        }
    }

    fn sweep(&self) {
        let now = self.now();
        self.own.retain(|_, bucket| full_at(bucket).is_some_and(|full_at| full_at > now));
        self.own.shrink_to_fit();
        self.count.store(self.own.len(), Ordering::Relaxed);
    }

    fn now(&self) -> Nanos {
        self.start.elapsed().into()
    }
}

fn take(bucket: &InMemoryState, pace: Pace, now: Nanos) -> RateMatch {
    refill(bucket, pace, now);
    let limiter: RateLimiter<(), _, _, NoOpMiddleware<Nanos>> =
        RateLimiter::new(pace.0, Since { bucket, now }, Standing);
    match limiter.check_key(&()) {
        Ok(()) => RateMatch::Within,
        Err(not_until) => RateMatch::Over(not_until.wait_time_from(Nanos::new(0))),
    }
}

/// Where the pace has changed, a bucket is full again at the moment it would have been. But it is
/// never emptier than one of the new pace can be, so that a higher rate helps a client that used up
/// a lower one.
fn refill(bucket: &InMemoryState, Pace(quota): Pace, now: Nanos) {
    let emptiest = now + Nanos::from(quota.burst_size_replenished_in());
    let clipped = |full_at: Option<Nanos>| match full_at {
        Some(full_at) if full_at > emptiest => Ok(((), emptiest)),
        Some(_) | None => Err(()),
    };
    // An error says that there was nothing to clip.
    bucket.measure_and_replace(&NotKeyed::NonKey, clipped).ok();
}

fn full_at(bucket: &InMemoryState) -> Option<Nanos> {
    let seen = bucket.measure_and_replace(&NotKeyed::NonKey, Err::<((), Nanos), _>);
    seen.err().flatten()
}

/// A bucket whose time zero is now. A limiter is made for one question, because the pace may change.
struct Since<'a> {
    bucket: &'a InMemoryState,
    now: Nanos,
}

impl StateStore for Since<'_> {
    type Key = ();

    fn measure_and_replace<T, F, E>(&self, _key: &(), f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.bucket.measure_and_replace(&NotKeyed::NonKey, |full_at| {
            let (taken, after) = f(full_at.map(|full_at| full_at.saturating_sub(self.now)))?;
            Ok((taken, self.now + after))
        })
    }
}

/// A clock that stands at zero.
#[derive(Clone, Debug)]
struct Standing;

impl Clock for Standing {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(0)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn rate(most: usize) -> Rate {
        Rate::with_lid(most, Metrics::default())
    }

    fn pace(per_second: u32, burst: u32) -> Pace {
        Pace::new(NonZeroU32::new(per_second).unwrap(), burst)
    }

    fn key(n: u32) -> ClientKey {
        ClientKey::from(IpAddr::V4(n.into()))
    }

    fn passed_at(rate: &Rate, pace: Pace, client: u32, tries: u32) -> usize {
        (0..tries).filter(|_| rate.take(key(client), pace) == RateMatch::Within).count()
    }

    fn passed(rate: &Rate, client: u32, tries: u32) -> usize {
        passed_at(rate, pace(10, 20), client, tries)
    }

    #[tokio::test(start_paused = true)]
    async fn sixty_at_once_are_twenty_one_as_with_nginx() {
        let rate = rate(100);
        assert_eq!(passed(&rate, 1, 60), 21);
        assert_eq!(passed(&rate, 2, 1), 1);
        let over = rate.take(key(1), pace(10, 20));
        assert_eq!(over, RateMatch::Over(Duration::from_millis(100)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(passed(&rate, 1, 60), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_million_clients_do_not_grow_it_past_the_lid() {
        let metrics = Metrics::default();
        let rate = Rate::with_lid(1000, metrics.clone());
        assert_eq!(passed(&rate, 1, 1), 1);
        for client in 2..1_000_000 {
            let _match = rate.take(key(client), pace(10, 20));
        }
        assert_eq!((rate.own.len(), metrics.outcomes()["rate_shared"]), (1000, 998_999));
        // Whoever was known keeps a bucket; newcomers share one.
        assert_eq!(passed(&rate, 1, 60), 20);
        assert_eq!(passed(&rate, 2_000_000, 60), 0);
        tokio::time::advance(Duration::from_secs(3)).await;
        rate.sweep();
        assert!(rate.own.is_empty());
        assert_eq!(passed(&rate, 2_000_000, 60), 21);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sweep_keeps_the_buckets_that_are_not_full() {
        let rate = rate(1000);
        assert_eq!(passed(&rate, 1, 60), 21);
        rate.sweep();
        assert_eq!(passed(&rate, 1, 60), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_not_seen_for_a_while_is_forgotten_without_being_asked_for() {
        let rate = rate(1000);
        assert_eq!(passed_at(&rate, pace(10, 20), 1, 60), 21);
        assert!(!rate.own.is_empty());
        let sweeping = tokio::time::timeout(SWEEP + Duration::from_secs(1), rate.keep_swept());
        assert!(sweeping.await.is_err(), "it goes on for ever");
        assert!(rate.own.is_empty());
        assert_eq!(format!("{rate:?}"), "Rate(..)", "no client is shown");
    }

    #[tokio::test(start_paused = true)]
    async fn no_rate_is_too_high_or_too_slow_to_count() {
        let rate = rate(1000);
        assert_eq!(passed_at(&rate, pace(1_000_000, 0), 1, 9), 1);
        tokio::time::advance(Duration::from_micros(1)).await;
        assert_eq!(passed_at(&rate, pace(1_000_000, 0), 1, 9), 1);
        assert_eq!(passed_at(&rate, pace(1, u32::MAX), 2, 1000), 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_pace_counts_at_once_and_forgets_nobody() {
        let rate = rate(1000);
        let (slow, fast) = (pace(1, 5), pace(100, 20));
        // What was used up stays used up.
        assert_eq!(passed_at(&rate, slow, 1, 60), 6);
        assert_eq!(passed_at(&rate, fast, 1, 60), 0);
        // A bucket of the old pace would have had nothing for another second.
        assert_eq!(rate.take(key(1), fast), RateMatch::Over(Duration::from_millis(10)));
        tokio::time::advance(Duration::from_millis(10)).await;
        assert_eq!(passed_at(&rate, fast, 1, 60), 1);
        tokio::time::advance(Duration::from_mins(1)).await;
        // 21 places that cost 210 ms, of the 6 s that all places of the slow pace cost.
        assert_eq!(passed_at(&rate, fast, 1, 60), 21);
        assert_eq!(passed_at(&rate, slow, 1, 60), 5);
        assert_eq!(passed_at(&rate, slow, 1, 60), 0);
    }
}
