//! Places for children: taken before one is started, and given back when its whole group is gone.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::observe::metrics::{Gauge, Gauged};

/// So many children may be there at once.
#[derive(Debug)]
pub(super) struct Places {
    permits: Arc<Semaphore>,
    most: u32,
    /// Free permits do not tell how many are taken: [`Self::all_given_back`] collects them while
    /// it waits.
    taken: Gauge,
}

/// The place of one child. Its drop gives it back.
#[derive(Debug)]
pub(super) struct Place {
    _taken: Gauged,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    /// `most` places; `taken` counts those that are taken.
    pub(super) fn new(most: u32, taken: Gauge) -> Self {
        let permits = usize::try_from(most).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { permits: Arc::new(Semaphore::new(permits)), most, taken }
    }

    /// How many there are.
    pub(super) fn most(&self) -> u32 {
        self.most
    }

    /// One of them; none if all are taken.
    pub(super) fn take(&self) -> Option<Place> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        Some(Place { _taken: self.taken.hold(), _permit: permit })
    }

    /// Resolves when all are free. Meanwhile none can be taken.
    pub(super) fn all_given_back(&self) -> impl Future<Output = ()> + use<> {
        let permits = Arc::clone(&self.permits);
        let most = self.most;
        async move { drop(permits.acquire_many(most).await) }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn places_are_counted_while_somebody_waits_for_all_of_them() {
        let places = Places::new(100, Gauge::default());
        let (one, other) = (places.take().unwrap(), places.take().unwrap());
        assert_eq!(places.taken.value(), 2);
        let mut all = pin!(places.all_given_back());
        assert!((&mut all).now_or_never().is_none());
        assert_eq!(places.taken.value(), 2);
        assert!(places.take().is_none(), "the edge is about to end");
        drop(one);
        assert!((&mut all).now_or_never().is_none());
        assert_eq!(places.taken.value(), 1);
        drop(other);
        assert_eq!(places.taken.value(), 0);
        assert!((&mut all).now_or_never().is_some());
        assert_eq!(places.taken.value(), 0);
        assert!(places.take().is_some());
    }
}
