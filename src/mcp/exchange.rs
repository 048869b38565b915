//! What the floor takes and gives: an admitted request, and its reply.

use bytes::Bytes;
use http::StatusCode;

use super::session::id::SessionId;
use super::sse::EventStream;
use crate::caller::{Caller, Principal};
use crate::guard::Admitted;
use crate::limits::addr::ClientKey;
use crate::policy::Policy;

/// What a client accepts for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accept {
    /// `application/json`
    pub(crate) json: bool,
    /// `text/event-stream`
    pub(crate) events: bool,
}

impl Accept {
    /// An answer that nothing comes before or behind, in the form that the client takes.
    pub(super) fn sole(self, answer: Bytes) -> Reply {
        if self.json { Reply::json(answer) } else { Reply::events(EventStream::of_one(answer)) }
    }
}

/// A request as this floor sees it: admitted, and read.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    /// What it is held to.
    pub(crate) policy: &'a Policy,
    /// Proof that it may pass.
    pub(crate) admitted: &'a Admitted,
    /// Whose limits it counts against.
    pub(crate) client: ClientKey,
    /// Who sends it; the transport is filled in here.
    pub(crate) caller: Caller,
    /// What it takes for an answer.
    pub(crate) accept: Accept,
    /// `Mcp-Session-Id`.
    pub(crate) session: Option<&'a str>,
    /// `MCP-Protocol-Version`.
    pub(crate) version: Option<&'a str>,
    /// What it wants.
    pub(crate) verb: Verb<'a>,
}

/// What a request wants.
#[derive(Debug)]
pub(crate) enum Verb<'a> {
    /// POST on the unified path.
    Post(Bytes),
    /// GET on the unified path.
    Get {
        /// `Last-Event-ID`
        last: Option<&'a str>,
        /// Where an HTTP+SSE client is to post its messages, as it reaches the edge.
        messages: String,
    },
    /// DELETE on the unified path.
    Delete,
    /// GET on the HTTP+SSE path.
    OpenSse {
        /// Where the client is to post its messages, as it reaches the edge.
        messages: String,
    },
    /// POST of a message, with the session id from its query.
    PostMessage(Option<&'a str>, Bytes),
    /// GET of the whole list of tools, without JSON-RPC.
    ListTools,
    /// POST of one tool call, without JSON-RPC.
    CallTool(Bytes),
}

/// A request without what it wants.
#[derive(Debug)]
pub(super) struct Head<'a> {
    pub(super) policy: &'a Policy,
    pub(super) admitted: &'a Admitted,
    pub(super) client: ClientKey,
    pub(super) caller: Caller,
    pub(super) accept: Accept,
    pub(super) session: Option<&'a str>,
    pub(super) version: Option<&'a str>,
}

impl Head<'_> {
    /// Whose request it is.
    pub(super) fn principal(&self) -> &Principal {
        self.admitted.principal()
    }
}

impl<'a> Ask<'a> {
    /// What it wants, apart from all else.
    pub(super) fn split(self) -> (Head<'a>, Verb<'a>) {
        let Self { policy, admitted, client, caller, accept, session, version, verb } = self;
        (Head { policy, admitted, client, caller, accept, session, version }, verb)
    }
}

/// What a request is answered.
#[derive(Debug)]
pub(crate) struct Reply {
    /// The status of HTTP.
    pub(crate) status: StatusCode,
    /// The session that it opened.
    pub(crate) session: Option<SessionId>,
    /// What it carries.
    pub(crate) body: Body,
}

/// What a reply carries.
#[derive(Debug)]
pub(crate) enum Body {
    /// Nothing.
    Empty,
    /// One JSON text.
    Json(Bytes),
    /// A stream of events.
    Events(EventStream),
}

impl Reply {
    fn new(status: StatusCode, body: Body) -> Self {
        Self { status, session: None, body }
    }

    /// 202: there is nothing to answer.
    pub(super) fn accepted() -> Self {
        Self::new(StatusCode::ACCEPTED, Body::Empty)
    }

    /// 204: what it named is gone.
    pub(super) fn ended() -> Self {
        Self::new(StatusCode::NO_CONTENT, Body::Empty)
    }

    /// 200 and one JSON text.
    pub(super) fn json(text: Bytes) -> Self {
        Self::new(StatusCode::OK, Body::Json(text))
    }

    /// 200 and a stream of events.
    pub(super) fn events(stream: EventStream) -> Self {
        Self::new(StatusCode::OK, Body::Events(stream))
    }
}
