//! Observation: what is counted, how that is reported, and which of many equal log lines are written.

pub(crate) mod metrics;
pub(crate) mod report;
pub(crate) mod sample;

use std::error::Error;
use std::iter;

/// An error and what caused it, in one line.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
