//! Observation: what is counted, how that is reported, and which of many equal log lines are written.

pub(crate) mod metrics;
pub(crate) mod report;
pub(crate) mod sample;
