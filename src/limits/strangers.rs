//! Connections that have not shown a good token yet: so many at once, and one gives way to the next.
//!
//! A limit that refuses newcomers can be used up by whoever comes first and stays. Here a newcomer
//! always gets in, at the cost of a stranger: of those who have sent nothing, if there are any, else
//! of all; of the network with the most of them; the one that came first. Who means well speaks at
//! once and needs a moment to become known, wherever it comes from. Who means to hold places needs
//! many, and has the addresses for them in few networks. (`MaxStartups` of OpenSSH answers the same
//! question by dropping newcomers at random.)

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::limits::addr::{ClientKey, Network};
use crate::observe::metrics::{Gauge, Gauged};

/// One in so many strangers, the newest of them, is not judged yet: its first bytes may be on their
/// way. They go when nobody else is left. At 3,000 newcomers a second and 256 places that is 43 ms.
const NEW_ONE_IN: usize = 2;
/// Networks are told apart by how many there are of each in steps of one in so many of all that there
/// may be: a few clients of one network are no crowd, beside a flood that has one in each.
const CROWD_ONE_IN: usize = 16;

/// The strangers of one server, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Strangers(Arc<Hall>);

#[derive(Debug, Default)]
struct Hall {
    waiting: Gauge,
    queue: Mutex<StrangerQueue>,
}

/// Who is there, and who of them goes next. Takes logarithmic time for each change.
#[derive(Debug, Default)]
struct StrangerQueue {
    /// What the crowds are sorted for.
    most: usize,
    came: u64,
    all: BTreeMap<u64, QueuedStranger>,
    /// The newest, the first of them at the front. Those who left meanwhile are still here.
    new: VecDeque<u64>,
    silent: Crowd,
    spoke: Crowd,
}

#[derive(Debug)]
struct QueuedStranger {
    network: Network,
    spoke: bool,
    /// Is it among the newest?
    new: bool,
    leaving: CancellationToken,
    _waits: Gauged,
}

/// Strangers by the networks that they come from.
#[derive(Debug)]
struct Crowd {
    step: usize,
    networks: BTreeMap<Network, BTreeSet<u64>>,
    /// The networks by how many steps there are of each, then by who came first.
    order: BTreeSet<(usize, Reverse<u64>, Network)>,
}

impl Default for Crowd {
    fn default() -> Self {
        Self { step: 1, networks: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl Crowd {
    /// Sorts it for at most so many strangers.
    fn sort_for(&mut self, most: usize) {
        let step = (most / CROWD_ONE_IN).max(1);
        let place = |(network, numbers): (&Network, &BTreeSet<u64>)| {
            Some((numbers.len() / step, Reverse(*numbers.first()?), *network))
        };
        self.order = self.networks.iter().filter_map(place).collect();
        self.step = step;
    }

    fn add(&mut self, network: Network, number: u64) {
        self.change(network, |numbers| numbers.insert(number));
    }

    fn remove(&mut self, network: Network, number: u64) {
        self.change(network, |numbers| numbers.remove(&number));
    }

    fn change(&mut self, network: Network, change: impl FnOnce(&mut BTreeSet<u64>) -> bool) {
        let step = self.step;
        let numbers = self.networks.entry(network).or_default();
        if let Some(first) = numbers.first() {
            self.order.remove(&(numbers.len() / step, Reverse(*first), network));
        }
        change(numbers);
        match numbers.first() {
            Some(first) => {
                self.order.insert((numbers.len() / step, Reverse(*first), network));
            }
            None => drop(self.networks.remove(&network)),
        }
    }

    /// The first who came of the network with the most; of two such the one who came first of all.
    fn next(&self) -> Option<u64> {
        self.order.last().map(|(_, Reverse(first), _)| *first)
    }
}

impl StrangerQueue {
    /// Sorts the crowds for this limit, if it is another than before.
    fn sort_for(&mut self, most: usize) {
        if std::mem::replace(&mut self.most, most) != most {
            self.silent.sort_for(most);
            self.spoke.sort_for(most);
        }
    }

    fn crowd(&mut self, spoke: bool) -> &mut Crowd {
        if spoke { &mut self.spoke } else { &mut self.silent }
    }

    fn enter(&mut self, network: Network, leaving: CancellationToken, waits: Gauged) -> u64 {
        let number = self.came;
        self.came += 1;
        let waiting = QueuedStranger { network, spoke: false, new: true, leaving, _waits: waits };
        self.all.insert(number, waiting);
        self.new.push_back(number);
        self.settle();
        number
    }

    /// A stranger that no longer belongs to the newest is judged like all others.
    fn settle(&mut self) {
        while self.new.len() > self.all.len() / NEW_ONE_IN {
            let Some(number) = self.new.pop_front() else { return };
            let Some(waiting) = self.all.get_mut(&number) else { continue };
            waiting.new = false;
            let network = waiting.network;
            let spoke = waiting.spoke;
            self.crowd(spoke).add(network, number);
        }
    }

    fn speaks(&mut self, number: u64) {
        let Some(waiting) = self.all.get_mut(&number) else { return };
        let network = waiting.network;
        let new = waiting.new;
        if !std::mem::replace(&mut waiting.spoke, true) && !new {
            self.silent.remove(network, number);
            self.spoke.add(network, number);
        }
    }

    fn leave(&mut self, number: u64) -> Option<QueuedStranger> {
        let waiting = self.all.remove(&number)?;
        if !waiting.new {
            self.crowd(waiting.spoke).remove(waiting.network, number);
        }
        Some(waiting)
    }

    /// Who goes next.
    fn next(&self) -> Option<u64> {
        let new = || self.all.first_key_value().map(|(number, _)| *number);
        self.silent.next().or_else(|| self.spoke.next()).or_else(new)
    }

    /// Has the next one go. False if there is nobody.
    fn give_way(&mut self) -> bool {
        self.settle();
        let next = self.next().and_then(|number| self.leave(number));
        next.map(|waiting| waiting.leaving.cancel()).is_some()
    }
}

impl Strangers {
    /// `waiting` counts them.
    pub(crate) fn counting(waiting: Gauge) -> Self {
        Self(Arc::new(Hall { waiting, queue: Mutex::default() }))
    }

    /// Takes a newcomer in. If `most` are there already, one goes for it; if more are there, because
    /// the limit was lowered, two go. The second value says how many went.
    pub(crate) fn enter(&self, client: ClientKey, most: usize) -> (Stranger, usize) {
        let most = most.max(1);
        let leaving = CancellationToken::new();
        let mut queue = self.0.queue.lock();
        queue.sort_for(most);
        // Before it is there itself: it has not had the time to say anything.
        let went = (0..2).take_while(|_| queue.all.len() >= most && queue.give_way()).count();
        let number = queue.enter(client.network(), leaving.clone(), self.0.waiting.hold());
        drop(queue);
        let stranger = Stranger {
            number,
            hall: Arc::clone(&self.0),
            leaving,
            spoke: AtomicBool::new(false),
            known: AtomicBool::new(false),
        };
        (stranger, went)
    }

    /// Makes one stranger leave, to free the place that it holds. False if there is none.
    pub(crate) fn give_way(&self) -> bool {
        self.0.queue.lock().give_way()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.queue.lock().all.len()
    }
}

/// One of the strangers, until it is known or dropped.
#[derive(Debug)]
#[must_use = "dropping it forgets the stranger"]
pub(crate) struct Stranger {
    number: u64,
    hall: Arc<Hall>,
    leaving: CancellationToken,
    spoke: AtomicBool,
    known: AtomicBool,
}

impl Stranger {
    /// It has sent something: those who did not go before it.
    pub(crate) fn speaks(&self) {
        if !self.spoke.swap(true, Ordering::Relaxed) {
            self.hall.queue.lock().speaks(self.number);
        }
    }

    /// Marks the connection as authenticated: it can no longer be evicted.
    pub(crate) fn mark_authenticated(&self) {
        if !self.known.swap(true, Ordering::Relaxed) {
            self.hall.queue.lock().leave(self.number);
        }
    }

    /// Resolves when it has to go.
    pub(crate) async fn must_go(&self) {
        self.leaving.cancelled().await;
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.mark_authenticated();
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn goes(stranger: &Stranger) -> bool {
        stranger.leaving.is_cancelled()
    }

    /// The client at 10.`net`.0.`last`.
    fn at(net: u8, last: u8) -> ClientKey {
        ClientKey::from(IpAddr::from([10, net, 0, last]))
    }

    #[test]
    fn the_oldest_gives_way_to_a_newcomer() {
        let strangers = Strangers::default();
        let ((first, early), (second, _)) =
            (strangers.enter(at(1, 1), 2), strangers.enter(at(2, 1), 2));
        assert!(early == 0 && !goes(&first));
        let (third, full) = strangers.enter(at(3, 1), 2);
        assert!(full == 1 && goes(&first) && !goes(&second));
        assert_eq!(strangers.len(), 2);
        assert!(strangers.give_way() && goes(&second) && !goes(&third));
        assert!(strangers.give_way() && goes(&third));
        assert!(!strangers.give_way());
    }

    #[test]
    fn who_has_sent_something_stays_while_somebody_has_not() {
        let strangers = Strangers::default();
        let [first, second, third] = [1, 2, 3].map(|net| strangers.enter(at(net, 1), 3).0);
        first.speaks();
        third.speaks();
        let (fourth, _) = strangers.enter(at(4, 1), 3);
        assert!(goes(&second) && !goes(&first));
        fourth.speaks();
        // Now all of them have: the oldest goes.
        let (fifth, full) = strangers.enter(at(5, 1), 3);
        assert!(full == 1 && goes(&first) && !goes(&third) && !goes(&fourth) && !goes(&fifth));
    }

    #[test]
    fn of_the_network_with_the_most_one_goes_first() {
        for spoke in [false, true] {
            let strangers = Strangers::default();
            let all =
                [at(1, 1), at(2, 1), at(3, 1), at(2, 250)].map(|key| strangers.enter(key, 8).0);
            // As many again, which are not judged yet.
            let new = [5, 6, 7, 8].map(|net| strangers.enter(at(net, 1), 8).0);
            if spoke {
                all.iter().chain(&new).for_each(Stranger::speaks);
            }
            let gone = || [0, 1, 2, 3].map(|n| goes(&all[n]));
            assert!(strangers.give_way());
            assert_eq!(gone(), [false, true, false, false]);
            // Now there is one of each: the oldest.
            assert!(strangers.give_way());
            assert_eq!(gone(), [true, true, false, false]);
        }
    }

    #[test]
    fn the_newest_are_judged_last() {
        let strangers = Strangers::default();
        let spoke: Vec<_> = (0..16).map(|last| strangers.enter(at(1, last), 16).0).collect();
        spoke.iter().for_each(Stranger::speaks);
        // A newcomer has the time of eight others to say something.
        let (newcomer, _) = strangers.enter(at(1, 100), 16);
        let mut others: Vec<_> = (0..8).map(|last| strangers.enter(at(2, last), 16).0).collect();
        assert!(!goes(&newcomer) && spoke.iter().take(8).all(goes));
        others.push(strangers.enter(at(2, 8), 16).0);
        assert!(goes(&newcomer) && !others.iter().any(goes));
    }

    #[test]
    fn who_speaks_at_once_outlasts_a_flood_of_silent_ones() {
        let strangers = Strangers::default();
        let mut flood: VecDeque<Stranger> = VecDeque::new();
        let mut good = Vec::new();
        for round in 0..3000_u16 {
            let [high, low] = round.to_be_bytes();
            // From 250 networks, which are more than there are good clients in one.
            flood.push_back(strangers.enter(at(low % 250, high), 256).0);
            while flood.front().is_some_and(goes) {
                drop(flood.pop_front());
            }
            if round % 150 == 0 {
                good.push(strangers.enter(at(251, 7), 256).0);
            }
            // The bytes of a client come some accepts later.
            if round % 150 == 100 {
                good.iter().for_each(Stranger::speaks);
            }
        }
        assert_eq!(good.iter().filter(|it| goes(it)).count(), 0);
        assert_eq!(strangers.len(), 256);
    }

    #[test]
    fn a_few_of_one_network_are_no_crowd() {
        let strangers = Strangers::default();
        let old = strangers.enter(at(1, 1), 256).0;
        let few: Vec<_> = (0..15).map(|last| strangers.enter(at(2, last), 256).0).collect();
        let many: Vec<_> = (0..16).map(|last| strangers.enter(at(3, last), 256).0).collect();
        let new: Vec<_> = (0..32).map(|net| strangers.enter(at(100 + net, 1), 256).0).collect();
        for all in [&few, &many, &new] {
            all.iter().for_each(Stranger::speaks);
        }
        old.speaks();
        assert!(strangers.give_way() && goes(&many[0]));
        assert!(strangers.give_way() && goes(&old) && !goes(&many[1]));
        assert!(strangers.give_way() && goes(&few[0]) && !goes(&many[1]));
    }

    #[test]
    fn who_is_known_or_gone_gives_way_to_nobody() {
        let strangers = Strangers::default();
        let (first, _) = strangers.enter(at(1, 1), 2);
        first.mark_authenticated();
        drop(strangers.enter(at(1, 1), 2));
        assert_eq!(strangers.len(), 0);
        let (_second, _third) = (strangers.enter(at(1, 1), 2), strangers.enter(at(1, 1), 2));
        assert_eq!(strangers.enter(at(1, 1), 2).1, 1);
        assert!(!goes(&first));
        drop(first);
        // The third has left by itself.
        assert_eq!(strangers.len(), 1);
    }

    #[test]
    fn a_new_limit_counts_from_the_next_newcomer_on() {
        let strangers = Strangers::default();
        let first: Vec<_> = (0..8).map(|net| strangers.enter(at(net, 1), 16)).collect();
        assert!(first.iter().all(|(_, went)| *went == 0));
        let _two = [1, 2].map(|last| strangers.enter(at(9, last), 64).0);
        let newcomers: Vec<_> = (0..6)
            .map(|last| {
                let (newcomer, went) = strangers.enter(at(10, last), 4);
                assert_eq!((went, strangers.len()), (2, 9 - usize::from(last)));
                newcomer
            })
            .collect();
        assert!(newcomers.iter().rev().take(4).all(|newcomer| !goes(newcomer)));
        let (_more, went) = strangers.enter(at(11, 1), 5);
        assert_eq!((went, strangers.len()), (0, 5));
        assert_eq!(strangers.0.queue.lock().silent.step, 1);
        let (_last, went) = strangers.enter(at(12, 1), 0);
        assert_eq!((went, strangers.len()), (2, 4));
    }

    proptest! {
        /// Whatever they do: no more than there may be, and the books are as if made from scratch.
        #[test]
        fn the_books_are_right(steps in vec((0u8..5, 0u8..5, 0usize..40), 0..200)) {
            let strangers = Strangers::default();
            let mut there: Vec<Stranger> = Vec::new();
            for (step, net, which) in steps {
                let one = which % there.len().max(1);
                match (step, there.get(one)) {
                    (0 | 1, _) | (_, None) => there.push(strangers.enter(at(net, 1), 20).0),
                    (2, Some(one)) => one.speaks(),
                    (3, Some(_)) => drop(there.swap_remove(one)),
                    (_, Some(_)) => drop(strangers.give_way()),
                }
                let queue = strangers.0.queue.lock();
                prop_assert!(queue.all.len() <= 20);
                let waiting = there.iter().filter(|it| !goes(it)).count();
                prop_assert_eq!(queue.all.len(), waiting);
                for (spoke, crowd) in [(false, &queue.silent), (true, &queue.spoke)] {
                    let mut right = Crowd::default();
                    right.sort_for(20);
                    for (number, it) in queue.all.iter().filter(|(_, it)| !it.new && it.spoke == spoke) {
                        right.add(it.network, *number);
                    }
                    prop_assert_eq!(&right.networks, &crowd.networks);
                    prop_assert_eq!(&right.order, &crowd.order);
                }
            }
        }
    }
}
