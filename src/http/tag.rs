//! Names for requests: in the response, in the log, and for the upstream.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;

use crate::wire::hex;

/// Gives every request a name that is its own, and that tells nobody how many there were.
#[derive(Debug, Default)]
pub(super) struct RequestTags {
    key: RandomState,
    count: AtomicU64,
}

impl RequestTags {
    /// The next name: 16 hexadecimal digits.
    pub(super) fn next(&self) -> HeaderValue {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let name: String = hex::digits(&self.key.hash_one(count).to_be_bytes()).collect();
        HeaderValue::try_from(name).unwrap_or_else(|_| HeaderValue::from_static("0"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_name_is_given_twice() {
        let tags = RequestTags::default();
        let names: HashSet<_> = (0..10_000).map(|_| tags.next()).collect();
        assert_eq!(names.len(), 10_000);
        assert!(names.iter().all(|name| name.len() == 16));
    }
}
