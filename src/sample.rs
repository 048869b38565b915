//! Which lines of the log are written that anybody may cause: one of a kind in a while.
//!
//! Pure books: time comes in as an argument, and kinds are words of the source, so that nobody can
//! make them grow.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// Between two lines of one kind.
pub(crate) const EVERY: Duration = Duration::from_secs(10);

/// What was written lately, by kind.
#[derive(Debug, Default)]
pub(crate) struct Samples(BTreeMap<&'static str, Written>);

#[derive(Debug)]
struct Written {
    at: Instant,
    /// Lines that were not written since then.
    left_out: u64,
}

impl Samples {
    /// May a line of this kind be written now? Then it is to say how many were left out since the
    /// last one.
    pub(crate) fn take(&mut self, kind: &'static str, now: Instant) -> Option<u64> {
        let Some(last) = self.0.get_mut(kind) else {
            let _none_before = self.0.insert(kind, Written { at: now, left_out: 0 });
            return Some(0);
        };
        if now.saturating_duration_since(last.at) < EVERY {
            last.left_out = last.left_out.saturating_add(1);
            return None;
        }
        let left_out = last.left_out;
        *last = Written { at: now, left_out: 0 };
        Some(left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_of_a_kind_in_ten_seconds_and_the_next_says_how_many_were_left_out() {
        let (mut samples, begun) = (Samples::default(), Instant::now());
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
        assert_eq!(samples.0.len(), 2);
    }
}
