//! Which lines of the log are written that others may cause: one of a kind in a while.
//!
//! Time comes in as an argument. No more than [`MOST`] kinds are known at once, so that nobody can
//! make the books grow.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Between two lines of one kind, where anybody may cause them.
pub(crate) const EVERY: Duration = Duration::from_secs(10);
/// Kinds that are told apart. Lines of further ones are left out until one has had its time.
const MOST: usize = 8;

/// What was written lately, by kind.
#[derive(Debug)]
pub(crate) struct Samples {
    every: Duration,
    books: Mutex<SampleBooks>,
}

#[derive(Debug, Default)]
struct SampleBooks {
    kinds: BTreeMap<String, Written>,
    /// Lines that were left out, of kinds that are not among these.
    left_out: u64,
}

#[derive(Debug)]
struct Written {
    at: Instant,
    /// Lines that were not written since then.
    left_out: u64,
}

impl Samples {
    /// One line of a kind in this time.
    pub(crate) fn every(every: Duration) -> Self {
        Self { every, books: Mutex::default() }
    }

    /// May a line of this kind be written now? Then it is to say how many were left out since the
    /// last one; the first of a kind, how many of kinds that are not known any more.
    pub(crate) fn take(&self, kind: &str, now: Instant) -> Option<u64> {
        let is_over = |written: &Written| now.saturating_duration_since(written.at) >= self.every;
        let mut books = self.books.lock();
        let SampleBooks { kinds, left_out } = &mut *books;
        if let Some(last) = kinds.get_mut(kind) {
            if !is_over(last) {
                last.left_out = last.left_out.saturating_add(1);
                return None;
            }
            return Some(std::mem::replace(last, Written { at: now, left_out: 0 }).left_out);
        }
        if kinds.len() >= MOST {
            kinds.retain(|_, written| {
                let stays = !is_over(written);
                *left_out = left_out.saturating_add(if stays { 0 } else { written.left_out });
                stays
            });
        }
        if kinds.len() >= MOST {
            *left_out = left_out.saturating_add(1);
            return None;
        }
        kinds.insert(kind.to_owned(), Written { at: now, left_out: 0 });
        Some(std::mem::take(left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_of_a_kind_in_ten_seconds_and_the_next_says_how_many_were_left_out() {
        let samples = Samples::every(EVERY);
        let begun = Instant::now();
        let mut written = Vec::new();
        for tenth in 0..250_u32 {
            let now = begun + Duration::from_millis(100) * tenth;
            written.extend(samples.take("a", now).map(|left_out| (tenth, left_out)));
        }
        assert_eq!(written, [(0, 0), (100, 99), (200, 99)]);
        // Kinds do not know each other; time that stands still or goes back writes nothing.
        assert_eq!(samples.take("b", begun), Some(0));
        assert_eq!(samples.take("b", begun), None);
        assert_eq!(samples.take("a", begun), None);
        assert_eq!(samples.take("b", begun + EVERY), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn eight_kinds_are_told_apart_and_no_line_that_is_left_out_is_forgotten() {
        let minute = Duration::from_mins(1);
        let samples = Samples::every(minute);
        let begun = Instant::now();
        let second = |n| begun + Duration::from_secs(1) * n;
        assert_eq!(samples.take("a", begun), Some(0));
        assert_eq!((samples.take("a", begun), samples.take("b", begun)), (None, Some(0)));
        assert_eq!(samples.take("a", second(59)), None);
        let others = (0..20).filter(|n| samples.take(&n.to_string(), second(59)).is_some()).count();
        assert_eq!(others, 6);
        // Two of `a`, which gives its place up, and the fourteen that found none.
        assert_eq!(samples.take("new", second(60)), Some(16));
        assert_eq!(samples.take("a", second(60)), Some(0));
        assert_eq!(samples.take("b", second(60)), None);
        // One of `b`, and none twice.
        assert_eq!(samples.take("newer", second(119)), Some(1));
    }
}
