//! How long an upstream that is down is waited for.

use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep};

/// Between two tries: at first, and at most.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(25);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long an upstream is waited for, in growing steps, from the first fault on.
#[derive(Debug)]
pub(super) struct Patience {
    wait: Duration,
    until: Option<Instant>,
    pause: Duration,
}

impl Patience {
    pub(super) fn new(wait: Duration) -> Self {
        Self { wait, until: None, pause: FIRST_PAUSE }
    }

    /// The wait begins now, if it has not begun.
    fn begin(&mut self) -> Instant {
        *self.until.get_or_insert_with(|| Instant::now() + self.wait)
    }

    /// Waits for what another has. The wait begins: callers wait side by side, not one after another.
    pub(super) async fn turn<'a, T>(&mut self, of: &'a Mutex<T>) -> MutexGuard<'a, T> {
        if let Ok(mine) = of.try_lock() {
            return mine;
        }
        self.begin();
        of.lock().await
    }

    /// Is the wait over?
    pub(super) fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// Waits a moment. False once it is enough.
    pub(super) async fn pause(&mut self) -> bool {
        let until = self.begin();
        let now = Instant::now();
        if now >= until {
            return false;
        }
        sleep(self.pause.min(until - now)).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_the_wait_is_over_and_counts_from_the_first_fault() {
        let mut patience = Patience::new(Duration::from_secs(10));
        sleep(Duration::from_mins(1)).await;
        let first = Instant::now();
        let mut tries = 0;
        while patience.pause().await {
            tries += 1;
        }
        assert_eq!(first.elapsed(), Duration::from_secs(10));
        assert_eq!(tries, 15);
    }

    #[tokio::test(start_paused = true)]
    async fn time_spent_before_the_first_pause_counts_where_it_was_begun() {
        let mut patience = Patience::new(Duration::from_secs(10));
        let began = Instant::now();
        patience.begin();
        sleep(Duration::from_millis(9999)).await;
        assert!(!patience.is_over());
        assert!(patience.pause().await);
        assert!(patience.is_over() && !patience.pause().await);
        assert_eq!(began.elapsed(), Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_wait_there_is_one_try() {
        assert!(!Patience::new(Duration::ZERO).pause().await);
    }
}
