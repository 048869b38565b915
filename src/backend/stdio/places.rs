//! Places for children: taken before one is started, and given back when its whole group is gone.

use crate::limits::places::{Total, TotalPermit};
use crate::observe::metrics::Gauge;

/// The places that are taken.
#[derive(Debug)]
pub(super) struct ChildPlaces(Total);

/// The place of one child. Its drop gives it back.
#[derive(Debug)]
pub(super) struct ChildPlace(#[expect(dead_code, reason = "held for its drop")] TotalPermit);

impl ChildPlaces {
    /// `taken` counts those that are taken.
    pub(super) fn counting(taken: Gauge) -> Self {
        Self(Total::counting(taken))
    }

    /// One of `most` places; none if all are taken.
    pub(super) fn take(&self, most: u32) -> Option<ChildPlace> {
        self.0.try_take(most).map(ChildPlace)
    }

    /// Resolves when all are free. Meanwhile none can be taken.
    pub(super) fn all_given_back(&self) -> impl Future<Output = ()> + use<> {
        let places = self.0.clone();
        // The only place there may be is free when no other is taken.
        async move { drop(places.take(1).await) }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn places_are_counted_while_somebody_waits_for_all_of_them() {
        let gauge = Gauge::default();
        let places = ChildPlaces::counting(gauge.clone());
        let (one, other) = (places.take(100).unwrap(), places.take(100).unwrap());
        assert_eq!(gauge.value(), 2);
        let mut all = pin!(places.all_given_back());
        assert!((&mut all).now_or_never().is_none());
        assert_eq!(gauge.value(), 2);
        assert!(places.take(100).is_none(), "the edge is about to end");
        drop(one);
        assert!((&mut all).now_or_never().is_none());
        assert_eq!(gauge.value(), 1);
        drop(other);
        assert_eq!(gauge.value(), 0);
        assert!((&mut all).now_or_never().is_some());
        assert_eq!(gauge.value(), 0);
        assert!(places.take(100).is_some());
    }
}
