//! Names of sessions and of their streams.
#![cfg_attr(not(fuzzing), expect(unreachable_pub, reason = "the fuzz targets reach it"))]

use std::fmt;

use sha2::{Digest, Sha256};

use crate::mcp::Reason;
use crate::wire::hex;

/// Names a session: 256 bits from the operating system, as 64 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct SessionId(Box<str>);

impl SessionId {
    /// A new one. Fails only where the operating system has no randomness to give.
    pub(crate) fn random() -> Result<Self, Reason> {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes).map_err(|_no_randomness| Reason::NoRandomness)?;
        Ok(Self(hex::digits(&bytes).collect()))
    }

    /// What the client sends.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// A name for logs, from which the id cannot be had.
    pub(crate) fn alias(&self) -> String {
        let digest: [u8; 32] = Sha256::digest(self.0.as_bytes()).into();
        hex::digits(digest.first_chunk::<4>().map_or(&[], |first| first)).collect()
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({}…)", self.alias())
    }
}

/// Names one stream of a session. Stream 0 is the one that a GET opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

impl StreamId {
    /// The stream for whatever belongs to no call.
    pub(crate) const STANDALONE: Self = Self(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_shown_by_an_alias_of_eight_digits_that_stays_the_same() {
        let (id, other) = (SessionId("aa".into()), SessionId("ab".into()));
        assert_eq!((id.alias(), id.as_str()), ("961b6dd3".to_owned(), "aa"));
        assert_ne!(id.alias(), other.alias());
        assert_eq!(format!("{id:?}"), "SessionId(961b6dd3…)");
    }

    #[test]
    fn ids_are_long_visible_and_new() {
        let (one, other) = (SessionId::random().unwrap(), SessionId::random().unwrap());
        assert_eq!(one.as_str().len(), 64);
        assert!(one.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
        assert_ne!(one, other);
        assert!(!format!("{one:?}").contains(one.as_str()));
    }
}
