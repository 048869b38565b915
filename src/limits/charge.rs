//! Messages that count against a quota.

use super::bytes::{PER_MESSAGE, Quota};
use crate::wire::jsonrpc::Message;

/// Copies of fewer bytes are not charged.
const SMALL: usize = 4096;

impl Message {
    /// The same message, counted against `quota` until its bytes are dropped. For bytes that the
    /// edge copied or made.
    pub(crate) fn charged(self, quota: &Quota) -> Self {
        let share = quota.take_anyway(self.len().saturating_add(PER_MESSAGE));
        self.held_by(|bytes| share.hold(bytes))
    }

    /// The same, for a copy under another id. A small copy is not charged: the original already is.
    pub(crate) fn charged_if_large(self, quota: &Quota) -> Self {
        if self.len() < SMALL { self } else { self.charged(quota) }
    }
}
