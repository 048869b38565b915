//! Counts open things, per client and in all. A permit frees its place on drop.
//!
//! Nothing here knows how many there may be: whoever takes a place says so, and a new limit counts from
//! the next place on.

use std::collections::VecDeque;
use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use parking_lot::Mutex;
use tokio::sync::oneshot;

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

    /// Places that this client has taken.
    pub(crate) fn taken(&self, key: ClientKey) -> u32 {
        self.taken.get(&key).map_or(0, |taken| *taken)
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

/// The places that are taken in all. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Total {
    queue: Arc<Mutex<Queue>>,
    open: Gauge,
}

#[derive(Debug, Default)]
struct Queue {
    taken: u32,
    /// Who came first is served first.
    waiting: VecDeque<Waiter>,
}

/// Somebody who waits until fewer than `most` places are taken.
#[derive(Debug)]
struct Waiter {
    most: u32,
    turn: oneshot::Sender<TakenPlace>,
}

impl Queue {
    /// Takes a place, unless there are `most`.
    fn try_take(&mut self, most: u32) -> bool {
        let free = self.taken < most;
        self.taken += u32::from(free);
        free
    }

    /// Does anybody wait?
    fn is_waited_for(&mut self) -> bool {
        while self.waiting.pop_front_if(|first| first.turn.is_closed()).is_some() {}
        !self.waiting.is_empty()
    }

    /// Gives a place back. The first of those who wait that may have it takes it again. Whoever waits
    /// for fewer to be taken than the others do is passed by; it gives up by itself, or nobody else
    /// waits.
    fn give_back(&mut self) -> Option<Waiter> {
        self.taken = self.taken.saturating_sub(1);
        let fits = |it: &Waiter| self.taken < it.most && !it.turn.is_closed();
        let next = self.waiting.iter().position(fits);
        let next = next.and_then(|at| self.waiting.remove(at))?;
        self.taken += 1;
        Some(next)
    }
}

impl Total {
    /// `open` counts the places that are taken.
    pub(crate) fn counting(open: Gauge) -> Self {
        Self { open, ..Self::default() }
    }

    fn permit(&self, turn: TakenPlace) -> TotalPermit {
        TotalPermit { _turn: turn, _open: self.open.hold() }
    }

    /// Takes a place, unless `most` are taken, or somebody waits for one.
    pub(crate) fn try_take(&self, most: u32) -> Option<TotalPermit> {
        let mut queue = self.queue.lock();
        let taken = !queue.is_waited_for() && queue.try_take(most);
        drop(queue);
        taken.then(|| self.permit(TakenPlace(self.clone())))
    }

    /// Takes a place as soon as fewer than `most` are taken, and those have one who waited before for
    /// no fewer. Nobody gets a place meanwhile without waiting.
    pub(crate) async fn take(&self, most: u32) -> TotalPermit {
        loop {
            let (turn, mine) = oneshot::channel();
            {
                let mut queue = self.queue.lock();
                // Those who wait do so for one of fewer places: the others were served.
                if queue.try_take(most) {
                    return self.permit(TakenPlace(self.clone()));
                }
                queue.waiting.push_back(Waiter { most, turn });
            }
            // Only a queue that is gone leaves a turn out, and this holds it.
            if let Ok(turn) = mine.await {
                return self.permit(turn);
            }
        }
    }

    /// Places that are taken.
    pub(crate) fn taken(&self) -> u32 {
        self.queue.lock().taken
    }
}

/// One of all places.
#[derive(Debug)]
#[must_use = "dropping a permit gives its place back"]
pub(crate) struct TotalPermit {
    _turn: TakenPlace,
    _open: Gauged,
}

/// A place that is taken, perhaps for somebody who waits. Its drop gives it back.
#[derive(Debug)]
struct TakenPlace(Total);

impl Drop for TakenPlace {
    fn drop(&mut self) {
        let next = self.0.queue.lock().give_back();
        if let Some(Waiter { turn, .. }) = next {
            // Whoever has left meanwhile drops it, for the next one.
            drop(turn.send(Self(self.0.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::pin::pin;

    use futures_util::FutureExt;

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

    #[test]
    fn places_in_all_are_counted_and_come_back() {
        let places = Total::default();
        let first = places.try_take(2).unwrap();
        let _second = places.try_take(2).unwrap();
        assert!(places.try_take(2).is_none() && places.try_take(0).is_none());
        assert_eq!(places.taken(), 2);
        let _third = places.try_take(3).unwrap();
        drop(first);
        // A lower limit takes nothing from anybody.
        assert!(places.try_take(2).is_none());
        assert_eq!(places.taken(), 2);
    }

    #[test]
    fn who_waits_is_served_in_turn_and_before_who_does_not() {
        let places = Total::default();
        let (one, other) = (places.try_take(2).unwrap(), places.try_take(2).unwrap());
        let (mut first, mut second) = (pin!(places.take(2)), pin!(places.take(2)));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        drop(one);
        assert!(places.try_take(2).is_none());
        assert!((&mut second).now_or_never().is_none());
        let first = first.now_or_never().unwrap();
        drop((other, first));
        let _second = second.now_or_never().unwrap();
        assert_eq!(places.taken(), 1);
        assert!(places.try_take(2).is_some());
    }

    #[test]
    fn who_waits_for_fewer_to_be_taken_keeps_up_nobody_and_is_served_when_they_are() {
        let places = Total::default();
        let mut taken: Vec<_> = (0..4).map(|_| places.try_take(4).unwrap()).collect();
        let mut few = pin!(places.take(2));
        let (mut first, mut second) = (pin!(places.take(4)), pin!(places.take(4)));
        assert!((&mut few).now_or_never().is_none());
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        taken.pop();
        assert!((&mut second).now_or_never().is_none());
        taken.extend((&mut first).now_or_never());
        taken.pop();
        taken.extend((&mut second).now_or_never());
        assert_eq!((taken.len(), places.taken()), (4, 4));
        // Who comes now waits for nobody, if there is a place that who waits may not have.
        taken.pop();
        assert!(places.try_take(4).is_none(), "it does not wait");
        taken.extend(places.take(4).now_or_never());
        assert_eq!((taken.len(), places.taken()), (4, 4));
        taken.truncate(2);
        assert!((&mut few).now_or_never().is_none());
        taken.pop();
        assert!(few.now_or_never().is_some());
    }

    #[test]
    fn who_stopped_waiting_takes_nothing() {
        let places = Total::default();
        let taken = places.try_take(1).unwrap();
        let mut never_asks = Box::pin(places.take(1));
        let mut left = Box::pin(places.take(1));
        let mut stays = pin!(places.take(1));
        for waiting in [&mut never_asks, &mut left] {
            assert!(waiting.now_or_never().is_none());
        }
        assert!((&mut stays).now_or_never().is_none());
        drop(left);
        drop(taken);
        // It was its turn, and it leaves without a word.
        assert_eq!(places.taken(), 1);
        drop(never_asks);
        let stays = stays.now_or_never().unwrap();
        assert_eq!(places.taken(), 1);
        drop(stays);
        assert_eq!(places.taken(), 0);
        let alone = Box::pin(places.take(0));
        assert!(alone.now_or_never().is_none());
        assert!(places.try_take(1).is_some(), "nobody waits any more");
    }
}
