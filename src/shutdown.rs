//! Signals in, drain out: who still works, and when they must stop.
//!
//! A [`Drain`] owns every long-lived task of the server. Draining has two steps, because work
//! depends on what stands behind it: first the front stops taking work and finishes what it has
//! ([`Drain::begin`]), then what stood behind it is ended ([`Drain::stop`]).

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;

/// Owns tasks, and tells them to finish.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drain {
    front: TaskTracker,
    back: TaskTracker,
    draining: CancellationToken,
    stopping: CancellationToken,
}

impl Drain {
    /// Runs a task of the front: a connection, the accept loop.
    pub(crate) fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        drop(self.front.spawn(task));
    }

    /// Runs a task of the back: a session, a child process.
    pub(crate) fn spawn_behind<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        drop(self.back.spawn(task));
    }

    /// Is the front finishing?
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Resolves when the front has to finish: no new work, end streams, answer what is in flight.
    pub(crate) fn draining(&self) -> WaitForCancellationFutureOwned {
        self.draining.clone().cancelled_owned()
    }

    /// Resolves when what stands behind has to end: sessions close, children are stopped.
    pub(crate) fn stopping(&self) -> WaitForCancellationFutureOwned {
        self.stopping.clone().cancelled_owned()
    }

    /// Tasks of the front that still run.
    #[cfg(test)]
    pub(crate) fn front_tasks(&self) -> usize {
        self.front.len()
    }

    /// Tells the front to finish.
    pub(crate) fn begin(&self) {
        self.draining.cancel();
        self.front.close();
    }

    /// Tells the back to end too.
    pub(crate) fn stop(&self) {
        self.begin();
        self.stopping.cancel();
        self.back.close();
    }

    /// Finishes the front, then the back, within `grace` in all.
    ///
    /// Returns false if something was still running when the grace was over.
    pub(crate) async fn finish(&self, grace: Duration) -> bool {
        // What stands behind needs a share of the grace of its own: a child gets TERM, then KILL.
        let for_the_back = (grace / 3).min(Duration::from_secs(5));
        self.begin();
        let front =
            tokio::time::timeout(grace.saturating_sub(for_the_back), self.front.wait()).await;
        self.stop();
        let back = tokio::time::timeout(for_the_back, self.back.wait()).await;
        front.is_ok() && back.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_back_is_told_only_when_the_front_is_done() {
        let drain = Drain::default();
        let (front, back) = (drain.clone(), drain.clone());
        drain.spawn(async move {
            front.draining().await;
            tokio::time::sleep(Duration::from_secs(7)).await;
            assert!(!front.stopping.is_cancelled());
        });
        drain.spawn_behind(async move { back.stopping().await });
        let begun = tokio::time::Instant::now();
        assert!(drain.finish(Duration::from_secs(30)).await);
        assert_eq!(begun.elapsed(), Duration::from_secs(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_front_that_never_ends_costs_the_grace_and_no_more() {
        let drain = Drain::default();
        drain.spawn(std::future::pending());
        let begun = tokio::time::Instant::now();
        assert!(!drain.finish(Duration::from_secs(30)).await);
        assert_eq!(begun.elapsed(), Duration::from_secs(25));
    }
}
