//! What a message is.

use super::id::RequestId;

/// What a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It wants an answer.
    Request {
        /// Under which the answer comes.
        id: RequestId,
        /// What is asked for.
        method: Box<str>,
    },
    /// It wants none.
    Notification {
        /// What happened.
        method: Box<str>,
    },
    /// It is an answer: a result or an error.
    Response {
        /// The request that it answers.
        id: RequestId,
    },
}

impl Kind {
    pub(super) fn with_id(&self, id: &RequestId) -> Self {
        match self {
            Self::Request { id: _, method } => {
                Self::Request { id: id.clone(), method: method.clone() }
            }
            Self::Notification { method } => Self::Notification { method: method.clone() },
            Self::Response { id: _ } => Self::Response { id: id.clone() },
        }
    }
}
