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

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::limits::bytes::Budget;
    use crate::observe::metrics::Metrics;

    #[test]
    fn a_copy_counts_if_it_is_large_or_must() {
        let budget = Budget::new(100_000, 0, Metrics::default());
        let quota = budget.quota();
        let of_length = |length: usize| {
            let beside = r#"{"jsonrpc":"2.0","method":""}"#.len();
            Message::notification(&"x".repeat(length - beside), &Value::Null)
        };
        let small = of_length(SMALL - 1).charged_if_large(&quota);
        assert_eq!((small.bytes().len(), budget.taken()), (SMALL - 1, 0));
        let large = of_length(SMALL).charged_if_large(&quota);
        assert_eq!((large.bytes().len(), budget.taken()), (SMALL, SMALL + PER_MESSAGE));
        drop(large);
        let charged = of_length(100).charged(&quota);
        assert_eq!((charged.method().map(str::len), budget.taken()), (Some(71), 100 + PER_MESSAGE));
        drop(charged);
        assert_eq!(budget.taken(), 0);
    }
}
