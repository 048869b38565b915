//! Counts open things per client. Never awaits; a permit frees its place on drop.

use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::limits::addr::ClientKey;
use crate::observe::metrics::{Gauge, Gauged};

/// So many places for each client. The map holds only clients that have something open, so that
/// it is bounded by what is open in all.
#[derive(Clone, Debug)]
pub(crate) struct PerClient {
    most: u32,
    taken: Arc<DashMap<ClientKey, u32>>,
    open: Gauge,
}

impl PerClient {
    /// `most` places for each client; `open` counts those that are taken, of all clients.
    pub(crate) fn new(most: u32, open: Gauge) -> Self {
        Self { most, taken: Arc::default(), open }
    }

    /// Takes a place, if the client has one left.
    pub(crate) fn try_take(&self, key: ClientKey) -> Option<Permit> {
        match self.taken.entry(key) {
            Entry::Occupied(mut entry) if *entry.get() < self.most => *entry.get_mut() += 1,
            Entry::Vacant(entry) if self.most > 0 => drop(entry.insert(1)),
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
        let places = PerClient::new(2, open.clone());
        let first = places.try_take(key(1)).unwrap();
        let _second = places.try_take(key(1)).unwrap();
        assert!(places.try_take(key(1)).is_none());
        assert!(places.try_take(key(2)).is_some());
        assert_eq!(open.value(), 2);
        drop(first);
        assert_eq!(open.value(), 1);
        assert!(places.try_take(key(1)).is_some());
    }

    #[test]
    fn a_client_that_left_leaves_nothing_behind() {
        let places = PerClient::new(2, Gauge::default());
        for last in 0..=255 {
            drop(places.try_take(key(last)));
        }
        assert!(places.taken.is_empty());
    }

    #[test]
    fn no_places_means_nobody() {
        assert!(PerClient::new(0, Gauge::default()).try_take(key(1)).is_none());
    }

    #[test]
    fn what_is_open_is_counted_over_all_clients() {
        let places = PerClient::new(2);
        let held = [1, 1, 2].map(|last| places.try_take(key(last)).unwrap());
        assert_eq!(places.open(), 3);
        drop(held);
        assert_eq!(places.open(), 0);
    }
}
