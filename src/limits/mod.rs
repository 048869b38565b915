//! Limits: what is taken is a value, and dropping it gives it back.

pub(crate) mod addr;
pub(crate) mod body;
pub(crate) mod bytes;
mod charge;
pub(crate) mod lines;
pub(crate) mod places;
pub(crate) mod strangers;
