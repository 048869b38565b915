//! Names for requests: in the response, in the log, and for the upstream.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;

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
        let name = hex(self.key.hash_one(count));
        HeaderValue::from_bytes(&name).unwrap_or_else(|_| HeaderValue::from_static("0"))
    }
}

/// Quicker than the formatting machinery, which every request would pay for.
fn hex(number: u64) -> [u8; 16] {
    let mut digits = [b'0'; 16];
    for (at, digit) in (0..16_u32).rev().zip(&mut digits) {
        let nibble = (number >> (4 * at)) & 0xf;
        *digit = u8::try_from(nibble).map_or(b'0', |nibble| match nibble {
            0..=9 => b'0' + nibble,
            _ => b'a' + nibble - 10,
        });
    }
    digits
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
        assert_eq!(&hex(0x0123_4567_89ab_cdef), b"0123456789abcdef");
    }
}
