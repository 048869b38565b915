//! Connections that have not shown a good token yet: so many at once, and the oldest gives way.
//!
//! A limit that refuses newcomers can be used up by whoever comes first and stays. Here a newcomer
//! always gets in, at the cost of the stranger who has had the longest time to become known: who
//! means well needs a moment, who means to hold a place needs more. (`MaxStartups` of OpenSSH
//! answers the same question by dropping newcomers at random.)

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// The strangers of one server, in the order in which they came.
#[derive(Clone, Debug)]
pub(crate) struct Strangers(Arc<Hall>);

#[derive(Debug)]
struct Hall {
    most: usize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    came: u64,
    waiting: BTreeMap<u64, CancellationToken>,
}

impl Hall {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Has the oldest go. False if there is nobody.
    fn give_way(&mut self) -> bool {
        let oldest = self.waiting.pop_first();
        oldest.map(|(_, leaving)| leaving.cancel()).is_some()
    }
}

impl Strangers {
    /// At most `most` at once; at least one.
    pub(crate) fn new(most: usize) -> Self {
        Self(Arc::new(Hall { most: most.max(1), queue: Mutex::default() }))
    }

    /// Takes a newcomer in. If that is one too many, the oldest goes, which the second value says.
    pub(crate) fn enter(&self) -> (Stranger, bool) {
        let leaving = CancellationToken::new();
        let mut queue = self.0.queue();
        let number = queue.came;
        queue.came += 1;
        drop(queue.waiting.insert(number, leaving.clone()));
        let full = queue.waiting.len() > self.0.most && queue.give_way();
        drop(queue);
        let known = AtomicBool::new(false);
        (Stranger { number, hall: Arc::clone(&self.0), leaving, known }, full)
    }

    /// Has the oldest go, for somebody who needs what it holds. False if there is nobody.
    pub(crate) fn give_way(&self) -> bool {
        self.0.queue().give_way()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.queue().waiting.len()
    }
}

/// One of the strangers, until it is known or dropped.
#[derive(Debug)]
#[must_use = "dropping it forgets the stranger"]
pub(crate) struct Stranger {
    number: u64,
    hall: Arc<Hall>,
    leaving: CancellationToken,
    known: AtomicBool,
}

impl Stranger {
    /// It is none any more, and gives way to nobody.
    pub(crate) fn is_known(&self) {
        if !self.known.swap(true, Ordering::Relaxed) {
            drop(self.hall.queue().waiting.remove(&self.number));
        }
    }

    /// Resolves when it has to go.
    pub(crate) async fn must_go(&self) {
        self.leaving.cancelled().await;
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.is_known();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goes(stranger: &Stranger) -> bool {
        stranger.leaving.is_cancelled()
    }

    #[test]
    fn the_oldest_gives_way_to_a_newcomer() {
        let strangers = Strangers::new(2);
        let ((first, early), (second, _)) = (strangers.enter(), strangers.enter());
        assert!(!early && !goes(&first));
        let (third, full) = strangers.enter();
        assert!(full && goes(&first) && !goes(&second));
        assert_eq!(strangers.len(), 2);
        assert!(strangers.give_way() && goes(&second) && !goes(&third));
        assert!(strangers.give_way() && goes(&third));
        assert!(!strangers.give_way());
    }

    #[test]
    fn who_is_known_or_gone_gives_way_to_nobody() {
        let strangers = Strangers::new(2);
        let (first, _) = strangers.enter();
        first.is_known();
        drop(strangers.enter());
        assert_eq!(strangers.len(), 0);
        let (_second, _third) = (strangers.enter(), strangers.enter());
        assert!(strangers.enter().1);
        assert!(!goes(&first));
        drop(first);
        // The third has left by itself.
        assert_eq!(strangers.len(), 1);
    }
}
