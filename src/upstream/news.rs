//! Faults that are told to the operator once a minute, however often they are met.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Between two lines about the same fault.
const PAUSE: Duration = Duration::from_mins(1);
/// Faults that are told apart. Further ones wait for their minute.
const MOST: usize = 8;

/// What was told in the last minute.
#[derive(Debug, Default)]
pub(crate) struct News(Mutex<Vec<(String, Instant)>>);

impl News {
    /// Is this to be told now?
    pub(crate) fn is_new(&self, fault: &str) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|(_, at)| at.elapsed() < PAUSE);
        let new = told.len() < MOST && told.iter().all(|(known, _)| known != fault);
        if new {
            told.push((fault.to_owned(), Instant::now()));
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_fault_is_told_once_a_minute_and_eight_of_them() {
        let news = News::default();
        assert!(news.is_new("a") && !news.is_new("a") && news.is_new("b"));
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(!news.is_new("a"));
        let others = (0..20).filter(|n| news.is_new(&n.to_string())).count();
        assert_eq!(others, 6);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(news.is_new("a"));
    }
}
