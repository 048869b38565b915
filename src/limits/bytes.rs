//! How many bytes of other people's messages are held at once: in all, and of one peer.
//!
//! What is taken is a [`Share`]; dropped, it gives its bytes back. [`Share::hold`] ties it to the
//! bytes themselves, so that it follows them through queues, logs and responses: the last clone
//! that is dropped gives it back. Bytes that were cut out of a larger buffer count as all of it.

use std::borrow::Borrow;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use futures_util::future::Either;
use tokio::sync::Notify;

use crate::limits::addr::ClientKey;
use crate::observe::metrics::{Gauge, Metrics, Outcome};

/// What one message costs beside its bytes: what is known of it, and its places in queues.
pub(crate) const PER_MESSAGE: usize = 256;

/// Of the whole, so much may be one peer's.
const PARTS: usize = 4;

/// The bytes in all. Clones share them.
#[derive(Clone)]
pub(crate) struct Budget(Arc<Whole>);

struct Whole {
    /// What all may hold.
    most: AtomicUsize,
    level: Level<Gauge>,
    /// Of the whole, or of somebody's part, three quarters are taken, or somebody was refused.
    short: Notify,
    /// What one peer may hold.
    part: AtomicUsize,
    /// Of peers that hold something, or are about to.
    clients: DashMap<ClientKey, Weak<PeerPart>>,
    metrics: Metrics,
}

/// So many are taken. How many there may be is given with each question.
struct Level<N> {
    taken: N,
}

/// One peer's part of the budget. Clones share it.
#[derive(Clone)]
pub(crate) struct Quota(Option<Arc<PeerPart>>);

struct PeerPart {
    whole: Arc<Whole>,
    level: Level<AtomicUsize>,
    client: Option<ClientKey>,
}

/// Whose bytes are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Short {
    /// The peer's own.
    #[error(
        "this client's messages take up all the memory that one client may have: try again later"
    )]
    Peer,
    /// All of them.
    #[error("the memory for messages is used up: try again later")]
    All,
    /// The message takes more than the peer may ever have: it will not fit later, either.
    #[error("the message takes more memory than one client may ever have")]
    Ever,
}

impl<N: Borrow<AtomicUsize>> Level<N> {
    fn taken(&self) -> usize {
        self.taken.borrow().load(Ordering::Relaxed)
    }

    fn is_short(&self, most: usize) -> bool {
        self.taken() > most / 4 * 3
    }

    fn try_take(&self, bytes: usize, most: usize) -> bool {
        let more = |taken: usize| taken.checked_add(bytes).filter(|sum| *sum <= most);
        self.taken.borrow().fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn take_anyway(&self, bytes: usize) {
        self.taken.borrow().fetch_add(bytes, Ordering::Relaxed);
    }

    fn give_back(&self, bytes: usize) {
        self.taken.borrow().fetch_sub(bytes, Ordering::Relaxed);
    }

    fn has(&self, bytes: usize, most: usize) -> bool {
        self.taken().checked_add(bytes).is_some_and(|sum| sum <= most)
    }
}

impl Whole {
    fn has(&self, bytes: usize) -> bool {
        self.level.has(bytes, self.most.load(Ordering::Relaxed))
    }
}

impl Budget {
    /// `most` bytes in all, a quarter for one peer; a peer may always have `largest`, which is what
    /// one message may have by itself.
    pub(crate) fn new(most: usize, largest: usize, metrics: Metrics) -> Self {
        Self(Arc::new(Whole {
            most: AtomicUsize::new(most),
            level: Level { taken: metrics.gauges().buffered_bytes.clone() },
            short: Notify::new(),
            part: AtomicUsize::new(part(most, largest)),
            clients: DashMap::new(),
            metrics,
        }))
    }

    /// Sets other limits while the budget is in use. What is held stays held; while that is more than
    /// the limits allow, nobody gets more, and whoever can do without some gives it back.
    pub(crate) fn keep_to(&self, most: usize, largest: usize) {
        self.0.most.store(most, Ordering::Relaxed);
        self.0.part.store(part(most, largest), Ordering::Relaxed);
        self.0.short.notify_waiters();
    }

    /// The part of this client. All who ask for it share one.
    pub(crate) fn of(&self, client: ClientKey) -> Quota {
        let part = match self.0.clients.entry(client) {
            Entry::Occupied(mut entry) => entry.get().upgrade().unwrap_or_else(|| {
                let part = self.part(Some(client));
                entry.insert(Arc::downgrade(&part));
                part
            }),
            Entry::Vacant(entry) => {
                let part = self.part(Some(client));
                entry.insert(Arc::downgrade(&part));
                part
            }
        };
        Quota(Some(part))
    }

    /// A part for whatever has no client.
    pub(crate) fn quota(&self) -> Quota {
        Quota(Some(self.part(None)))
    }

    fn part(&self, client: Option<ClientKey>) -> Arc<PeerPart> {
        let level = Level { taken: AtomicUsize::new(0) };
        Arc::new(PeerPart { whole: Arc::clone(&self.0), level, client })
    }

    /// Bytes that are taken now.
    pub(crate) fn taken(&self) -> usize {
        self.0.level.taken()
    }
}

/// Of so many bytes, what one peer may hold: one message by itself always fits.
fn part(most: usize, largest: usize) -> usize {
    (most / PARTS).max(largest.saturating_add(PER_MESSAGE)).min(most)
}

impl PeerPart {
    /// What it may hold.
    fn most(&self) -> usize {
        self.whole.part.load(Ordering::Relaxed)
    }

    fn try_take(&self, bytes: usize) -> Result<(), Short> {
        if !self.level.try_take(bytes, self.most()) {
            return Err(self.refuse(self.short_of(bytes)));
        }
        if !self.whole.level.try_take(bytes, self.whole.most.load(Ordering::Relaxed)) {
            self.level.give_back(bytes);
            return Err(self.refuse(Short::All));
        }
        self.tell_if_short();
        Ok(())
    }

    fn is_short(&self) -> bool {
        let most = self.whole.most.load(Ordering::Relaxed);
        self.level.is_short(self.most()) || self.whole.level.is_short(most)
    }

    fn tell_if_short(&self) {
        if self.is_short() {
            self.whole.short.notify_waiters();
        }
    }

    /// Why so many bytes are not there.
    fn short_of(&self, bytes: usize) -> Short {
        if bytes > self.most() { Short::Ever } else { Short::Peer }
    }

    fn refuse(&self, short: Short) -> Short {
        self.whole.short.notify_waiters();
        self.whole.metrics.count(match short {
            Short::Peer | Short::Ever => Outcome::PeerMemoryFull,
            Short::All => Outcome::MemoryFull,
        });
        short
    }

    fn give_back(&self, bytes: usize) {
        self.level.give_back(bytes);
        self.whole.level.give_back(bytes);
    }
}

impl Drop for PeerPart {
    fn drop(&mut self) {
        if let Some(client) = self.client {
            // Somebody may have asked for it anew meanwhile.
            let gone = |_: &ClientKey, part: &Weak<Self>| part.strong_count() == 0;
            self.whole.clients.remove_if(&client, gone);
        }
    }
}

impl Quota {
    /// Nobody's: there is always memory, and nothing is counted.
    pub(crate) fn unbounded() -> Self {
        Self(None)
    }

    /// Takes so many bytes, if they are there.
    pub(crate) fn try_take(&self, bytes: usize) -> Result<Share, Short> {
        if let Some(part) = &self.0 {
            part.try_take(bytes)?;
        }
        Ok(Share { part: self.0.clone(), bytes })
    }

    /// Takes so many bytes, whether or not they are there: they are held already.
    pub(crate) fn take_anyway(&self, bytes: usize) -> Share {
        if let Some(part) = &self.0 {
            part.level.take_anyway(bytes);
            part.whole.level.take_anyway(bytes);
            part.tell_if_short();
        }
        Share { part: self.0.clone(), bytes }
    }

    /// Are so many bytes there now? Nothing is taken.
    pub(crate) fn check(&self, bytes: usize) -> Result<(), Short> {
        match &self.0 {
            Some(part) if !part.level.has(bytes, part.most()) => {
                Err(part.refuse(part.short_of(bytes)))
            }
            Some(part) if !part.whole.has(bytes) => Err(part.refuse(Short::All)),
            Some(_) | None => Ok(()),
        }
    }

    /// Could so many bytes be there, if nothing else were held?
    pub(crate) fn could_have(&self, bytes: usize) -> bool {
        self.0.as_ref().is_none_or(|part| bytes <= part.most())
    }

    /// Resolves when memory runs short for somebody. Whom that concerns ([`Self::is_short`]) and who
    /// can do without some gives it back.
    pub(crate) fn told_short(&self) -> impl Future<Output = ()> + Send + use<> {
        match self.0.clone() {
            None => Either::Left(std::future::pending()),
            Some(part) => Either::Right(async move { part.whole.short.notified().await }),
        }
    }

    /// Is little left of this part, or of the whole?
    pub(crate) fn is_short(&self) -> bool {
        self.0.as_ref().is_some_and(|part| part.is_short())
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Budget({} of {:?})", self.taken(), self.0.most)
    }
}

impl fmt::Debug for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let taken = self.0.as_ref().map(|part| part.level.taken());
        f.debug_tuple("Quota").field(&taken).finish()
    }
}

/// Bytes that are taken. The default is none.
#[derive(Default)]
#[must_use = "dropping a share gives its bytes back"]
pub(crate) struct Share {
    part: Option<Arc<PeerPart>>,
    bytes: usize,
}

impl Share {
    /// Makes it so many bytes; fewer always, more if they are there.
    pub(crate) fn set(&mut self, bytes: usize) -> Result<(), Short> {
        match (&self.part, bytes.checked_sub(self.bytes)) {
            (Some(part), Some(more)) if more > 0 => {
                if bytes > part.most() {
                    return Err(part.refuse(Short::Ever));
                }
                part.try_take(more)?;
            }
            (Some(part), None) => part.give_back(self.bytes - bytes),
            (Some(_), Some(_)) | (None, _) => {}
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Ties it to these bytes, and to whatever is cloned or cut out of them.
    pub(crate) fn hold(self, bytes: impl Into<Bytes>) -> Bytes {
        let bytes = bytes.into();
        if self.part.is_none() {
            return bytes;
        }
        Bytes::from_owner(HeldBytes { bytes, _share: self })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(part) = &self.part {
            part.give_back(self.bytes);
        }
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Share({})", self.bytes)
    }
}

struct HeldBytes {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Bytes that come in pieces, and the share for the room that they have.
#[derive(Debug)]
pub(crate) struct Gathered {
    bytes: Vec<u8>,
    share: Share,
    /// More is never asked for.
    most: usize,
}

impl Gathered {
    /// Nothing yet, of at most `most` bytes.
    pub(crate) fn new(quota: &Quota, most: usize) -> Result<Self, Short> {
        let share = quota.try_take(PER_MESSAGE)?;
        let whole = quota.0.as_ref().map_or(most, |part| part.most());
        Ok(Self { bytes: Vec::new(), share, most: most.min(whole.saturating_sub(PER_MESSAGE)) })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a piece. The room doubles, so that small pieces cost little.
    pub(crate) fn add(&mut self, piece: &[u8]) -> Result<(), Short> {
        let held = self.bytes.len();
        let needed = self.bytes.len().saturating_add(piece.len());
        if needed > self.bytes.capacity() {
            let aim = self.bytes.capacity().saturating_mul(2).min(self.most).max(needed);
            self.share.set(aim.saturating_add(PER_MESSAGE))?;
            self.bytes.reserve_exact(aim - held);
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    /// All of it.
    pub(crate) fn whole(mut self) -> Bytes {
        self.bytes.shrink_to_fit();
        // Never more than before.
        let _fewer = self.share.set(self.bytes.len().saturating_add(PER_MESSAGE));
        self.share.hold(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    fn key(last: u8) -> ClientKey {
        ClientKey::from(IpAddr::from([192, 0, 2, last]))
    }

    fn budget(most: usize) -> (Budget, Metrics) {
        let metrics = Metrics::default();
        (Budget::new(most, 0, metrics.clone()), metrics)
    }

    #[test]
    fn one_peer_gets_a_quarter_and_four_get_all() {
        let (budget, metrics) = budget(4000);
        let peers: Vec<_> = (1..=5).map(|last| budget.of(key(last))).collect();
        let mut held = Vec::new();
        for peer in &peers[..3] {
            held.push(peer.try_take(600).unwrap());
            assert_eq!(peer.try_take(401).unwrap_err(), Short::Peer);
            held.push(peer.try_take(400).unwrap());
        }
        assert_eq!(budget.of(key(1)).try_take(1).unwrap_err(), Short::Peer);
        held.push(peers[3].try_take(900).unwrap());
        assert_eq!(peers[4].check(101), Err(Short::All));
        assert_eq!(peers[4].try_take(101).unwrap_err(), Short::All);
        held.push(peers[4].try_take(100).unwrap());
        assert_eq!(budget.taken(), 4000);
        drop(held);
        assert_eq!(budget.taken(), 0);
        assert!(peers[4].try_take(1000).is_ok());
        let outcomes = metrics.outcomes();
        assert_eq!((outcomes["peer_memory_full"], outcomes["memory_full"]), (4, 2));
    }

    #[test]
    fn other_limits_count_from_the_next_byte_on_for_whoever_holds_some() {
        let (budget, _metrics) = budget(4000);
        let peer = budget.of(key(1));
        let mut held = peer.try_take(1000).unwrap();
        let mut told = std::pin::pin!(peer.told_short());
        assert!((&mut told).now_or_never().is_none());
        budget.keep_to(8000, 0);
        assert!(told.now_or_never().is_some(), "whoever can do without some looks again");
        assert!(held.set(2000).is_ok() && !peer.could_have(2001));
        budget.keep_to(2000, 0);
        assert!(peer.is_short() && !peer.could_have(501));
        assert_eq!(peer.try_take(1).unwrap_err(), Short::Peer);
        assert_eq!(budget.of(key(2)).try_take(1).unwrap_err(), Short::All);
        assert_eq!(held.set(2001).unwrap_err(), Short::Ever);
        // Less is always possible.
        assert!(held.set(1).is_ok());
        assert!(budget.of(key(2)).try_take(1).is_ok());
        budget.keep_to(8000, 5000);
        assert!(peer.could_have(5000 + PER_MESSAGE));
    }

    #[test]
    fn a_peer_may_always_have_one_message_of_the_largest_size() {
        let budget = Budget::new(10_000, 5000, Metrics::default());
        let share = budget.of(key(1)).try_take(5000 + PER_MESSAGE);
        assert!(share.is_ok());
        assert!(Budget::new(10, 5000, Metrics::default()).quota().try_take(11).is_err());
    }

    #[test]
    fn what_could_never_fit_is_told_apart_from_what_does_not_fit_now() {
        let (budget, metrics) = budget(4000);
        let quota = budget.of(key(1));
        let held = quota.try_take(900).unwrap();
        assert_eq!(quota.try_take(1000).unwrap_err(), Short::Peer);
        assert_eq!(quota.try_take(1001).unwrap_err(), Short::Ever);
        assert_eq!((quota.check(101), quota.check(1001)), (Err(Short::Peer), Err(Short::Ever)));
        assert!(quota.could_have(1000) && !quota.could_have(1001));
        assert!(Quota::unbounded().could_have(usize::MAX));
        drop(held);
        assert_eq!(metrics.outcomes()["peer_memory_full"], 4);
        // The room doubles up to what can be had, and no further.
        let mut gathered = Gathered::new(&quota, 8000).unwrap();
        gathered.add(&[1; 500]).unwrap();
        gathered.add(&[1; 244]).unwrap();
        assert_eq!(gathered.add(&[1; 1]), Err(Short::Ever));
    }

    #[test]
    fn a_share_follows_its_bytes_to_the_last_slice() {
        let (budget, _) = budget(4000);
        let quota = budget.of(key(1));
        let held = quota.try_take(500).unwrap().hold(vec![7; 500]);
        drop(quota);
        let (clone, slice) = (held.clone(), held.slice(3..4));
        drop((held, clone));
        assert_eq!((budget.taken(), &*slice), (500, &[7][..]));
        drop(slice);
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn a_peer_that_holds_nothing_is_forgotten() {
        let (budget, _) = budget(4000);
        for last in 0..=255 {
            drop(budget.of(key(last)).try_take(1));
        }
        assert!(budget.0.clients.is_empty());
        let held = budget.of(key(1)).try_take(1).unwrap();
        assert_eq!(budget.0.clients.len(), 1);
        drop(held);
        assert!(budget.0.clients.is_empty());
    }

    #[test]
    fn what_is_gathered_counts_with_the_room_it_has() {
        let (budget, _) = budget(40_000);
        let quota = budget.of(key(1));
        let mut gathered = Gathered::new(&quota, 8000).unwrap();
        for _ in 0..50 {
            gathered.add(&[1; 100]).unwrap();
            assert_eq!(budget.taken(), gathered.bytes.capacity() + PER_MESSAGE);
        }
        assert_eq!(gathered.add(&[1; 6000]), Err(Short::Ever));
        let whole = gathered.whole();
        assert_eq!((whole.len(), budget.taken()), (5000, 5000 + PER_MESSAGE));
        drop(whole);
        assert_eq!(budget.taken(), 0);
    }

    #[tokio::test]
    async fn memory_that_runs_short_is_told_of() {
        let (budget, _) = budget(4000);
        let quota = budget.of(key(1));
        let other = budget.of(key(2));
        let mut told = Box::pin(other.told_short());
        assert!(told.as_mut().now_or_never().is_none());
        let some = quota.try_take(750).unwrap();
        assert!(told.as_mut().now_or_never().is_none());
        let _more = quota.try_take(1).unwrap();
        assert!(told.as_mut().now_or_never().is_some());
        // Whose bytes they are not hears of it, and is not concerned.
        assert!(quota.is_short() && !other.is_short());
        drop(some);
        assert!(!quota.is_short());
        let _anyway = budget.quota().take_anyway(3000);
        assert!(other.is_short());
    }

    #[test]
    fn a_share_may_stay_as_large_as_it_is_and_become_as_large_as_a_part() {
        let (budget, metrics) = budget(4000);
        let quota = budget.of(key(1));
        let mut share = quota.try_take(1).unwrap();
        assert_eq!((share.set(1000), budget.taken()), (Ok(()), 1000));
        assert_eq!((share.set(1001), budget.taken()), (Err(Short::Ever), 1000));
        drop(share);
        // Bytes that are there already may be more than a part: they ask for nothing by staying.
        let mut held = quota.take_anyway(1500);
        assert_eq!((held.set(1500), budget.taken()), (Ok(()), 1500));
        assert_eq!((held.set(1200), budget.taken()), (Ok(()), 1200));
        assert_eq!(metrics.outcomes()["peer_memory_full"], 1);
    }

    #[test]
    fn room_that_is_full_to_the_last_byte_does_not_grow() {
        let (budget, _) = budget(40_000);
        let mut gathered = Gathered::new(&budget.of(key(1)), 8000).unwrap();
        for (piece, room) in [(100, 100), (50, 200), (50, 200), (1, 400)] {
            gathered.add(&vec![1; piece]).unwrap();
            assert_eq!(budget.taken(), room + PER_MESSAGE);
        }
    }

    #[test]
    fn how_much_is_taken_is_shown_and_never_what() {
        let (budget, _) = budget(4000);
        let quota = budget.of(key(1));
        let share = quota.try_take(5).unwrap();
        let shown = format!("{budget:?} {quota:?} {share:?}");
        assert_eq!(shown, "Budget(5 of 4000) Quota(Some(5)) Share(5)");
    }

    proptest! {
        #[test]
        fn the_books_balance(steps in proptest::collection::vec((0u8..4, 0u8..3, 0usize..700), 0..60)) {
            let (budget, _) = budget(4000);
            let mut held: Vec<Share> = Vec::new();
            for (step, who, bytes) in steps {
                match step {
                    0 => held.extend(budget.of(key(who)).try_take(bytes)),
                    1 => held.push(budget.of(key(who)).take_anyway(bytes)),
                    2 => drop(held.pop()),
                    _ => if let Some(share) = held.last_mut() { let _set = share.set(bytes); },
                }
                prop_assert_eq!(budget.taken(), held.iter().map(|it| it.bytes).sum::<usize>());
            }
            drop(held);
            prop_assert_eq!(budget.taken(), 0);
            prop_assert!(budget.0.clients.is_empty());
        }
    }
}
