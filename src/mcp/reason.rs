//! Why a request is refused, and what its caller is told.
#![cfg_attr(not(fuzzing), expect(unreachable_pub, reason = "the fuzz targets reach it"))]

use std::time::Duration;

use crate::backend::catalog::BadList;
use crate::guard::Denied;
use crate::limits::bytes::Short;
use crate::wire::jsonrpc::{Malformed, Message, RequestId, code};

/// Why a request is refused. Status and code of each stand in `http::verdict`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The body is no message.
    #[error("{0}")]
    Malformed(Malformed),
    /// The request is of a revision without handshake (2026-07-28 and later).
    #[error("this server speaks MCP up to 2025-11-25: send `initialize` first")]
    Modern,
    /// The version header names a revision that nobody knows.
    #[error("unsupported MCP-Protocol-Version; this server speaks 2025-11-25 and older")]
    Version,
    /// An answer, or a stream, without a session.
    #[error("Mcp-Session-Id is missing: send `initialize` first")]
    NoSession,
    /// A message of an HTTP+SSE client that does not say of which session.
    #[error("the query has no `sessionId`: post to the path that the `endpoint` event names")]
    NoSessionInQuery,
    /// No such session: never was, ended, or somebody else's.
    #[error("no such session: send `initialize` again, without Mcp-Session-Id")]
    UnknownSession,
    /// `initialize` in a session that has begun.
    #[error("the session is initialised already")]
    SessionLive,
    /// The client takes neither JSON nor events.
    #[error("Accept must allow application/json or text/event-stream")]
    NotAcceptable,
    /// A stream is asked for by a client that does not take one.
    #[error("Accept must allow text/event-stream")]
    NotAStream,
    /// The stream that is to be resumed is over, and was read to its end.
    #[error("the stream is over: nothing follows that event")]
    NothingMore,
    /// There is no stream here for this client.
    #[error("no stream here without a session")]
    NoStream,
    /// An array of messages where the revision has none.
    #[error("arrays of messages are only part of MCP 2025-03-26")]
    NoBatch,
    /// A modern request within an array.
    #[error("arrays of messages are no part of MCP 2026-07-28 and later")]
    ModernInBatch,
    /// `initialize` within an array.
    #[error("`initialize` must not be part of an array")]
    InitializeInBatch,
    /// The id of a call that still waits.
    #[error("a request with this id is still waiting for its answer")]
    DuplicateId,
    /// `Last-Event-ID` names no event that is kept.
    #[error("Last-Event-ID names no event that is still kept")]
    UnknownEvent,
    /// Too many calls of one session at once.
    #[error("too many calls of this session are waiting for their answers")]
    TooManyCalls,
    /// Too many sessions in all. How long until the first place can be free, if that is known.
    #[error(
        "all places for sessions are taken, and no session has been idle for long enough to end it"
    )]
    SessionsFull(Option<Duration>),
    /// Too many sessions of one client, likewise.
    #[error(
        "this address has too many sessions, none of which has been idle for long enough to end it"
    )]
    ClientSessionsFull(Option<Duration>),
    /// Too many streams of one client.
    #[error("this address has too many open streams")]
    ClientStreamsFull,
    /// Too many child processes. How long until the first place can be free, if that is known.
    #[error(
        "all places for MCP server processes are taken, and no session has been idle for long \
         enough to end it"
    )]
    ChildrenFull(Option<Duration>),
    /// The backend ends as soon as it is started.
    #[error(
        "the MCP server behind this edge ends as soon as it is started, and is not started again \
         for a while: {why}"
    )]
    CrashLoop {
        /// When to come again.
        wait: Duration,
        /// What became of it the last time.
        why: String,
    },
    /// The backend could not be started, or not be initialised.
    #[error("the MCP server behind this edge could not be started: {0}")]
    BackendFailed(String),
    /// The backend did not answer a call in its time.
    #[error(
        "the MCP server did not answer within {} seconds; the call was cancelled",
        .0.as_secs()
    )]
    CallTimeout(Duration),
    /// The backend did not answer `initialize` in its time, and said something else.
    #[error("the MCP server did not answer `initialize` within {} seconds: {text}", .time.as_secs())]
    NeverSpoke {
        /// Its time.
        time: Duration,
        /// What it said, and what that looks like.
        text: String,
    },
    /// The backend, or its session, ended before it answered, or could not be reached.
    #[error("{text}")]
    Unanswered {
        /// The JSON-RPC code for it.
        code: i32,
        /// What was wrong.
        text: String,
    },
    /// The backend answered with an error, to one who speaks no JSON-RPC.
    #[error("the MCP server answered with error {code}: {text}")]
    BackendError {
        /// The JSON-RPC error code.
        code: i64,
        /// What it said.
        text: String,
    },
    /// The backend's answer cannot be what it should be.
    #[error("the MCP server's answer cannot be used: {0}")]
    BadAnswer(&'static str),
    /// The body of a plain call is not of its form.
    #[error(r#"the body must be {{"name": "a tool", "arguments": {{…}}}}: {0}"#)]
    NotACall(String),
    /// The tool that a plain call names is none.
    #[error("the MCP server has no tool of this name")]
    UnknownTool,
    /// The backend refuses the arguments of a plain call (-32602), in these words of its own.
    #[error("{0}")]
    BadArguments(String),
    /// The backend takes no messages.
    #[error("the MCP server behind this edge is too busy to take the message")]
    BackendBusy,
    /// The edge is going down.
    #[error("the server is stopping")]
    Draining,
    /// There is no memory for what is asked.
    #[error("{0}")]
    Short(Short),
    /// The operating system has no randomness to give.
    #[error("no randomness for a session id")]
    NoRandomness,
}

/// A refusal, and the request it refuses, where that is known.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Why.
    pub(crate) reason: Reason,
    /// The id of the request.
    pub(crate) id: Option<RequestId>,
}

impl Reason {
    /// The backend, or its session, ended.
    pub(super) fn ended(why: &str) -> Self {
        Self::Unanswered { code: code::INTERNAL_ERROR, text: why.to_owned() }
    }

    /// What a call is answered that the backend did not answer.
    pub(super) fn answer(&self, id: &RequestId) -> Message {
        let code =
            if let Self::Unanswered { code, .. } = self { *code } else { code::INTERNAL_ERROR };
        Message::error(id, code, &self.to_string())
    }

    /// Is it that the backend did not answer in its time?
    pub(super) fn is_late(&self) -> bool {
        matches!(self, Self::CallTimeout(_) | Self::NeverSpoke { .. })
    }

    /// Refuses the request with this id.
    pub(super) fn to(self, id: Option<&RequestId>) -> Refused {
        Refused { reason: self, id: id.cloned() }
    }
}

impl From<Short> for Reason {
    fn from(short: Short) -> Self {
        Self::Short(short)
    }
}

impl From<BadList> for Reason {
    fn from(bad: BadList) -> Self {
        Self::BadAnswer(bad.text())
    }
}

impl From<Denied> for Reason {
    fn from(denied: Denied) -> Self {
        match denied {}
    }
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Self { reason, id: None }
    }
}

impl From<Malformed> for Refused {
    fn from(malformed: Malformed) -> Self {
        Self { id: malformed.id().cloned(), reason: Reason::Malformed(malformed) }
    }
}
