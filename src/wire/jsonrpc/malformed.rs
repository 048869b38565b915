//! Why bytes are no message.

use std::borrow::Cow;

use super::code;
use super::cost::MAX_DEPTH;
use super::id::RequestId;

/// Why bytes are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not JSON at all.
    #[error("not valid JSON: {0}")]
    Syntax(String),
    /// Nested deeper than the edge lets through.
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// JSON, but not JSON-RPC.
    #[error("not a JSON-RPC 2.0 message: {reason}")]
    Shape {
        /// What is wrong with it.
        reason: Cow<'static, str>,
        /// Its id, where that could be read.
        id: Option<RequestId>,
    },
}

impl Malformed {
    /// The JSON-RPC error code for it.
    #[must_use]
    pub fn code(&self) -> i32 {
        match self {
            Self::Syntax(_) => code::PARSE_ERROR,
            Self::TooDeep | Self::Shape { .. } => code::INVALID_REQUEST,
        }
    }

    /// The id of the message, where it could be read.
    #[must_use]
    pub fn id(&self) -> Option<&RequestId> {
        match self {
            Self::Shape { id, .. } => id.as_ref(),
            Self::Syntax(_) | Self::TooDeep => None,
        }
    }
}
