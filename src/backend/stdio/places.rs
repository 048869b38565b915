//! Places for children: taken before one is started, and given back when its whole group is gone.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many children may be there at once.
#[derive(Debug)]
pub(super) struct Places {
    permits: Arc<Semaphore>,
    most: u32,
    /// Held once here and once by each place. Free permits do not tell how many are taken:
    /// [`Self::all_given_back`] collects them while it waits.
    taken: Arc<()>,
}

/// The place of one child. Its drop gives it back.
#[derive(Debug)]
pub(super) struct Place {
    _taken: Arc<()>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(most: u32) -> Self {
        let permits = usize::try_from(most).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { permits: Arc::new(Semaphore::new(permits)), most, taken: Arc::default() }
    }

    /// How many there are.
    pub(super) fn most(&self) -> u32 {
        self.most
    }

    /// One of them; none if all are taken.
    pub(super) fn take(&self) -> Option<Place> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        Some(Place { _taken: Arc::clone(&self.taken), _permit: permit })
    }

    /// How many are taken now.
    pub(super) fn taken(&self) -> u32 {
        let taken = Arc::strong_count(&self.taken).saturating_sub(1);
        u32::try_from(taken).unwrap_or(u32::MAX)
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
        let places = Places::new(100);
        let (one, other) = (places.take().unwrap(), places.take().unwrap());
        assert_eq!(places.taken(), 2);
        let mut all = pin!(places.all_given_back());
        assert!((&mut all).now_or_never().is_none());
        assert_eq!(places.taken(), 2);
        assert!(places.take().is_none(), "the edge is about to end");
        drop(one);
        assert!((&mut all).now_or_never().is_none());
        assert_eq!(places.taken(), 1);
        drop(other);
        assert_eq!(places.taken(), 0);
        assert!((&mut all).now_or_never().is_some());
        assert_eq!(places.taken(), 0);
        assert!(places.take().is_some());
    }
}
