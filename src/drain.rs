//! Signals in, drain out: who still works, and when they must stop.
//!
//! A [`Drain`] owns every long-lived task of the server. Draining has two steps, because work
//! depends on what stands behind it: first the front stops taking work and finishes what it has
//! ([`Drain::begin`]), then what stood behind it is ended ([`Drain::stop`]).
//!
//! A panic ends its own task and is counted. A task without which the server is half dead is
//! spawned as such ([`Drain::spawn_vital`]): its panic is the server's end ([`Drain::broken`]).

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;

use crate::observe::metrics::{Metrics, Outcome};

/// Owns tasks, and tells them to finish.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drain {
    front: TaskTracker,
    back: TaskTracker,
    draining: CancellationToken,
    stopping: CancellationToken,
    broken: CancellationToken,
    metrics: Metrics,
}

impl Drain {
    /// Counts panics here.
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self { metrics, ..Self::default() }
    }

    /// Runs a task of the front: a connection.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.front.spawn(self.caught(task, false));
    }

    /// Runs a task of the back: a session, a child process.
    pub(crate) fn spawn_behind(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.back.spawn(self.caught(task, false));
    }

    /// Runs a task of the front that the server cannot do without: the accept loop.
    pub(crate) fn spawn_vital(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.front.spawn(self.caught(task, true));
    }

    /// Runs a task of the back that the server cannot do without: who sweeps what would grow.
    pub(crate) fn spawn_vital_behind(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.back.spawn(self.caught(task, true));
    }

    /// The task, whose panic is counted and ends nothing else, unless the task is vital.
    fn caught<F>(&self, task: F, vital: bool) -> impl Future<Output = ()> + use<F>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let drain = self.clone();
        async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                drain.panicked(panic);
                if vital {
                    drain.broken.cancel();
                }
            }
        }
    }

    /// Counts a panic that was caught. Where it was is for the process's panic hook to say.
    pub(crate) fn panicked(&self, panic: Box<dyn Any + Send>) {
        self.metrics.count(Outcome::Panicked);
        // A payload may panic when it is dropped: once more is enough.
        let dropped = std::panic::catch_unwind(AssertUnwindSafe(|| drop(panic)));
        tracing::error!(again = dropped.is_err(), "a task panicked: what it served has ended");
    }

    /// Has a vital task panicked?
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.is_cancelled()
    }

    /// Resolves when a vital task has panicked.
    pub(crate) fn broken(&self) -> WaitForCancellationFutureOwned {
        self.broken.clone().cancelled_owned()
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

    #[tokio::test]
    async fn a_panic_ends_its_own_task_and_is_counted() {
        let metrics = Metrics::default();
        let drain = Drain::new(metrics.clone());
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        let held = drain.clone();
        drain.spawn(async move {
            let _place = tell;
            held.draining().now_or_never().unwrap();
        });
        drain.spawn_behind(async { panic!("for the test") });
        assert!(told.await.is_err(), "what the task held is given back");
        assert!(drain.finish(Duration::from_secs(30)).await);
        assert_eq!(metrics.outcomes().get("panics"), Some(&2));
        assert!(!drain.is_broken());
    }

    #[tokio::test]
    async fn a_panic_of_a_vital_task_is_told() {
        for behind in [false, true] {
            let drain = Drain::default();
            let panics = async { panic!("for the test") };
            if behind {
                drain.spawn_vital_behind(panics);
            } else {
                drain.spawn_vital(panics);
            }
            drain.broken().await;
            assert!(drain.is_broken() && !drain.is_draining());
            assert_eq!(drain.metrics.outcomes().get("panics"), Some(&1));
        }
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
