//! The id of a request, which survives exactly as it came.

use std::fmt;

use serde_json::Value;

/// Bytes of an id: it is kept, and repeated in every answer and error.
pub(super) const MAX_LENGTH: usize = 1024;

/// The id of a request: a string or an integer, kept as exactly as it came.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RequestId {
    /// An integer, as its digits: ids beyond 64 bits survive.
    Number(Box<str>),
    /// A string, unescaped.
    Text(Box<str>),
}

impl RequestId {
    /// Reads an id from its JSON; none for anything but a string or an integer, or if it is long.
    pub(crate) fn parse(raw: &str) -> Option<Self> {
        if raw.len() > MAX_LENGTH { None } else { Self::of_any_length(raw) }
    }

    /// The same, however long it is.
    pub(super) fn of_any_length(raw: &str) -> Option<Self> {
        match raw.as_bytes().first()? {
            b'"' => serde_json::from_str::<String>(raw).ok().map(|text| Self::Text(text.into())),
            b'-' | b'0'..=b'9' if !raw.contains(['.', 'e', 'E']) => Some(Self::Number(raw.into())),
            _ => None,
        }
    }
}

impl From<u64> for RequestId {
    fn from(number: u64) -> Self {
        Self::Number(number.to_string().into())
    }
}

impl fmt::Display for RequestId {
    /// Writes the id as JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(digits) => f.write_str(digits),
            Self::Text(text) => Value::from(&**text).fmt(f),
        }
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
