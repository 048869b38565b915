//! Why a request is refused. What the client gets for it stands in [`super::verdict`].

use super::route::Route;
use crate::client::SendError;
use crate::guard::Deny;
use crate::limits::body::BodyError;
use crate::mcp::Refused;
use crate::wire::jsonrpc::RequestId;

/// Why a request is not answered with what it asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The guard does not let it pass.
    Denied(Deny),
    /// Nothing lives at this path; what does near it.
    NotFound(String),
    /// There is no authorization server here.
    NoOAuth,
    /// The route does not know the method.
    Method(Route),
    /// The head is wrong.
    Head(BadHead),
    /// The head has more fields or bytes than are allowed.
    HeadTooLarge,
    /// The body did not come, or not as it should.
    Body(BodyError),
    /// The transport refuses it.
    Mcp(Refused),
    /// What a proxy says of its client, or of the prefix that it removed, is malformed.
    Forwarded(String),
    /// It is for the server behind, and is not forwarded there.
    NotForwarded(ForwardError),
}

impl From<Deny> for Refusal {
    fn from(deny: Deny) -> Self {
        Self::Denied(deny)
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        Self::Mcp(refused)
    }
}

impl From<ForwardError> for Refusal {
    fn from(error: ForwardError) -> Self {
        Self::NotForwarded(error)
    }
}

impl Refusal {
    /// The JSON-RPC request that is refused, if its id is known.
    pub(super) fn id(&self) -> Option<&RequestId> {
        if let Self::Mcp(refused) = self { refused.id.as_ref() } else { None }
    }
}

/// Why the bytes of a connection are no request that could be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRequest {
    /// They are plain HTTP, on a port that speaks TLS.
    PlainHttp,
    /// The head did not arrive in time.
    HeadTimeout,
    /// They break the rule of HTTP/1.1 that this text states.
    Malformed(&'static str),
    /// The request expects what cannot be met (RFC 9110 section 10.1.1).
    Expectation,
    /// The target alone is larger than a head may be.
    TargetTooLong,
    /// The head is larger than allowed.
    HeadTooLarge,
}

/// Why a request is not forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ForwardError {
    /// The client has as many under way as it may.
    ClientFull,
    /// All clients have.
    Full,
    /// The path could be read as another one.
    Path,
    /// Another protocol is asked for.
    Upgrade,
    /// The method is for proxies themselves.
    Method,
    /// The upstream gave no response.
    Send(SendError),
}

/// What is wrong with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadHead {
    /// A body that is not `application/json`, is not in UTF-8, or is encoded.
    MediaType,
    /// A field that must be visible ASCII and come once.
    Field(&'static str),
}
