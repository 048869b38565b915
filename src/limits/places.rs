//! Counts open things per client. Never awaits; a permit frees its place on drop.

use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::limits::addr::ClientKey;
use crate::observe::metrics::{Gauge, Gauged};

/// The places that each client has taken. The map holds only clients that have something open, so
/// that it is bounded by what is open in all.
#[derive(Clone, Debug, Default)]
pub(crate) struct PerClient {
    taken: Arc<DashMap<ClientKey, u32>>,
    open: Gauge,
}

impl PerClient {
    /// `open` counts the places that are taken, of all clients.
    pub(crate) fn counting(open: Gauge) -> Self {
        Self { open, ..Self::default() }
    }

    /// Takes a place, if the client has fewer than `most`.
    pub(crate) fn try_take(&self, key: ClientKey, most: u32) -> Option<Permit> {
        match self.taken.entry(key) {
            Entry::Occupied(mut entry) if *entry.get() < most => *entry.get_mut() += 1,
            Entry::Vacant(entry) if most > 0 => drop(entry.insert(1)),
            Entry::Occupied(_) | Entry::Vacant(_) => return None,
        }
        Some(Permit { key, taken: Arc::clone(&self.taken), _open: self.open.hold() })
    }
}

/// A place taken by one client.
#[derive(Debug)]
#[must_use = "dropping a permit gives its place back"]
pub(crate) struct Permit {
    key: ClientKey,
    taken: Arc<DashMap<ClientKey, u32>>,
    _open: Gauged,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.taken.entry(self.key) {
            match entry.get().checked_sub(1) {
                None | Some(0) => drop(entry.remove()),
                Some(left) => *entry.get_mut() = left,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn key(last: u8) -> ClientKey {
        ClientKey::from(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)))
    }

    #[test]
    fn places_are_counted_per_client_and_come_back() {
        let open = Gauge::default();
        let places = PerClient::counting(open.clone());
        let first = places.try_take(key(1), 2).unwrap();
        let _second = places.try_take(key(1), 2).unwrap();
        assert!(places.try_take(key(1), 2).is_none());
        assert!(places.try_take(key(2), 2).is_some());
        assert_eq!(open.value(), 2);
        drop(first);
        assert_eq!(open.value(), 1);
        assert!(places.try_take(key(1), 2).is_some());
    }

    #[test]
    fn a_client_that_left_leaves_nothing_behind() {
        let places = PerClient::default();
        for last in 0..=255 {
            drop(places.try_take(key(last), 2));
        }
        assert!(places.taken.is_empty());
    }

    #[test]
    fn no_places_means_nobody() {
        assert!(PerClient::default().try_take(key(1), 0).is_none());
    }

    #[test]
    fn a_new_limit_counts_from_the_next_place_on() {
        let places = PerClient::default();
        let first = places.try_take(key(1), 1).unwrap();
        assert!(places.try_take(key(1), 1).is_none());
        let second = places.try_take(key(1), 2).unwrap();
        // A lower limit takes nothing from anybody, and gives nothing either.
        assert!(places.try_take(key(1), 1).is_none());
        drop(second);
        assert!(places.try_take(key(1), 1).is_none());
        drop(first);
        assert!(places.try_take(key(1), 1).is_some());
    }

    #[test]
    fn what_is_open_is_counted_over_all_clients() {
        let open = Gauge::default();
        let places = PerClient::counting(open.clone());
        let held = [1, 1, 2].map(|last| places.try_take(key(last), 2).unwrap());
        assert_eq!(open.value(), 3);
        drop(held);
        assert_eq!(open.value(), 0);
    }
}
