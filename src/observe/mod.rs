//! Observation: what is counted, and which of many equal log lines are written.

pub(crate) mod metrics;
pub(crate) mod sample;
