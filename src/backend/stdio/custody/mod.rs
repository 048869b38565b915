//! Custody: nothing that a child started outlives its session or the edge.

pub(super) mod descent;
pub(super) mod keeper;
pub(super) mod orphans;
pub(crate) mod shim;
