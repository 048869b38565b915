//! The transports of MCP over HTTP, all on one port at once.
//!
//! The floor's one verb is [`Mcp::exchange`]: an admitted request in, a [`Reply`] or a [`Reason`]
//! out. What kind of session a request belongs to is decided by the request alone, never by the
//! connection it came on.

mod bare;
mod direct;
#[cfg(fuzzing)]
pub mod fuzzing;
mod legacy;
mod log;
mod reader;
mod ready;
mod rest;
mod session;
mod sse;
mod state;
pub(crate) mod stdio;
mod streamable;
mod table;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

pub(crate) use self::sse::{EventStream, error_event};
pub(crate) use self::table::SessionId;

use self::bare::WarmPool;
use self::ready::Readiness;
use self::rest::Judges;
use self::session::{Session, SessionTimes, Terms, Unknown};
use self::sse::StreamKind;
use self::table::SessionTable;
use crate::addr::ClientKey;
use crate::backend::{Backend, Link, OpenError, Starter};
use crate::budget::{Budget, Quota, Short};
use crate::caller::{Caller, Principal, Transport};
use crate::config::Config;
use crate::guard::Admitted;
use crate::jsonrpc::{Malformed, Message, RequestId, code};
use crate::limit::PerClient;
use crate::protocol::ProtocolVersion;
use crate::shutdown::Drain;
use crate::tally::{Outcome, Tally};

/// The path that HTTP+SSE clients post their messages to.
pub(crate) const MESSAGES_PATH: &str = "/messages";

/// How long a request waits for a child's place that an idle warm child was made to give up.
const GIVE_UP_WAIT: Duration = Duration::from_secs(5);

/// What a client accepts for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accept {
    /// `application/json`
    pub(crate) json: bool,
    /// `text/event-stream`
    pub(crate) events: bool,
}

/// A request as this floor sees it: admitted, and read.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
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
    /// GET on the unified path, with its `Last-Event-ID`.
    Get(Option<&'a str>),
    /// DELETE on the unified path.
    Delete,
    /// GET on the HTTP+SSE path.
    OpenSse,
    /// POST of a message, with the session id from its query.
    PostMessage(Option<&'a str>, Bytes),
    /// GET of the whole list of tools, without JSON-RPC.
    ListTools,
    /// POST of one tool call, without JSON-RPC.
    CallTool(Bytes),
}

/// What a request is answered.
#[derive(Debug)]
pub(crate) enum Reply {
    /// 202, nothing to say.
    Accepted,
    /// 204, it is gone.
    Ended,
    /// 200 and one JSON text.
    Json(Bytes, Option<SessionId>),
    /// 200 and a stream of events.
    Events(EventStream, Option<SessionId>),
}

/// Why a request is refused. Status and code of each stand in `http::reply`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Reason {
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
    /// Too many sessions in all.
    #[error("all places for sessions are taken")]
    SessionsFull,
    /// Too many sessions of one client.
    #[error("this address has too many sessions")]
    ClientSessionsFull,
    /// Too many streams of one client.
    #[error("this address has too many open streams")]
    ClientStreamsFull,
    /// Too many child processes.
    #[error("all places for MCP server processes are taken")]
    ChildrenFull,
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
    /// The arguments of a plain call do not fit its tool.
    #[error("{at}: {why}")]
    BadArguments {
        /// Where in the body: a JSON pointer.
        at: String,
        /// What is wrong there.
        why: String,
    },
    /// The backend takes no messages.
    #[error("the MCP server behind this edge is too busy to take the message")]
    BackendBusy,
    /// The edge is going down.
    #[error("the server is stopping")]
    Draining,
    /// There is no memory for what is asked.
    #[error("{0}: try again later")]
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
    fn ended(why: &str) -> Self {
        Self::Unanswered { code: code::INTERNAL_ERROR, text: why.to_owned() }
    }

    /// What a call is answered that the backend did not answer.
    fn answer(&self, id: &RequestId) -> Message {
        let code =
            if let Self::Unanswered { code, .. } = self { *code } else { code::INTERNAL_ERROR };
        Message::error(id, code, &self.to_string())
    }

    /// Refuses the request with this id.
    fn to(self, id: Option<&RequestId>) -> Refused {
        Refused { reason: self, id: id.cloned() }
    }
}

impl From<Short> for Reason {
    fn from(short: Short) -> Self {
        Self::Short(short)
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

/// Every transport, and what they share.
#[derive(Debug)]
pub(crate) struct Mcp {
    backend: Backend,
    sessions: SessionTable,
    streams: PerClient,
    warm: Arc<WarmPool>,
    readiness: Arc<Readiness>,
    judges: Judges,
    times: SessionTimes,
    keep_alive: Duration,
    stream_age: Duration,
    tally: Tally,
    budget: Budget,
    drain: Drain,
}

impl Mcp {
    /// The transports in front of `backend`.
    pub(crate) fn new(backend: Backend, config: &Config, tally: Tally, drain: Drain) -> Self {
        let (limits, times) = (&config.limits, &config.times);
        let largest = limits.max_body_bytes.max(limits.max_line_bytes);
        Self {
            budget: Budget::new(limits.max_buffered_bytes, largest, tally.clone()),
            backend,
            sessions: SessionTable::new(limits.max_sessions, limits.sessions_per_ip),
            streams: PerClient::new(limits.streams_per_ip),
            warm: Arc::default(),
            readiness: Arc::default(),
            judges: Judges::new(tally.clone()),
            times: SessionTimes {
                call: times.call,
                idle: times.session_idle,
                age: times.session_age,
                write: times.write,
            },
            keep_alive: times.keep_alive,
            stream_age: times.stream_age,
            tally,
            drain,
        }
    }

    /// Answers an admitted request.
    pub(crate) async fn exchange(&self, mut ask: Ask<'_>) -> Result<Reply, Refused> {
        match std::mem::replace(&mut ask.verb, Verb::Delete) {
            Verb::Post(body) => self.post(ask, body).await,
            // Boxed: what is rare must not make every request's future large.
            Verb::Get(last) => Box::pin(self.get(ask, last)).await,
            Verb::Delete => self.delete(&ask),
            Verb::OpenSse => Box::pin(self.open_sse(ask)).await,
            Verb::PostMessage(session, body) => {
                Box::pin(self.post_message(ask, session, body)).await
            }
            Verb::ListTools => Ok(Box::pin(self.list_tools(ask)).await?),
            Verb::CallTool(body) => Ok(Box::pin(self.call_tool(ask, body)).await?),
        }
    }

    /// Refuses what would begin while the edge is going down.
    fn check_open(&self) -> Result<(), Reason> {
        if self.drain.is_draining() { Err(Reason::Draining) } else { Ok(()) }
    }

    /// The memory for messages.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    fn terms(&self, quota: Quota) -> Terms {
        Terms { times: self.times, quota, tally: self.tally.clone() }
    }

    /// How many sessions there are.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// How many event streams are open.
    pub(crate) fn streams(&self) -> u64 {
        self.streams.open()
    }

    /// How many child processes there are.
    pub(crate) fn children(&self) -> u32 {
        self.backend.children()
    }

    /// Does the backend end as soon as it is started, again and again?
    pub(crate) fn is_crash_loop(&self) -> bool {
        self.backend.is_crash_loop()
    }

    /// Opens a session that its client will know by an id.
    async fn open_session(
        &self,
        ask: &Ask<'_>,
        transport: Transport,
    ) -> Result<Arc<Session>, Reason> {
        let place = self.sessions.take(ask.client)?;
        let quota = ask.caller.quota.clone();
        let link = self.open_link(Starter::Client(ask.client), &quota).await?;
        let owner = (ask.admitted.principal().clone(), transport);
        let (id, terms) = (place.id().clone(), self.terms(quota));
        let session = Session::start(id, owner, terms, link, place, &self.drain);
        self.sessions.enter(&session);
        Ok(session)
    }

    /// Opens a session that serves calls without one, for as long as it stays warm.
    async fn open_warm(&self, principal: &Principal) -> Result<Arc<Session>, Reason> {
        let quota = self.warm.quota(principal, &self.budget);
        let link = self.open_link(Starter::Edge, &quota).await?;
        let owner = (principal.clone(), Transport::Bare);
        let (id, terms) = (SessionId::random()?, self.terms(quota.clone()));
        let session = Session::start(id, owner, terms, link, (), &self.drain);
        // A caller that goes away meanwhile leaves nobody who knows of it.
        let unknown = Unknown::new(Arc::clone(&session));
        session.initialize(&Arc::new(Caller { quota, ..Caller::stdio() })).await?;
        unknown.known();
        Ok(session)
    }

    /// Opens a link to the backend; what is only kept at hand gives up
    /// its place if there is none.
    async fn open_link(&self, who: Starter, quota: &Quota) -> Result<Link, Reason> {
        let deadline = Instant::now() + GIVE_UP_WAIT;
        let mut given_up = false;
        loop {
            match self.backend.open(who, quota) {
                Ok(link) => return Ok(link),
                Err(OpenError::Full(_)) => {
                    if self.warm.give_up() | self.readiness.give_up() {
                        self.tally.count(Outcome::IdleGivenUp);
                        given_up = true;
                    }
                    if !given_up || Instant::now() >= deadline {
                        return Err(Reason::ChildrenFull);
                    }
                    sleep(Duration::from_millis(20)).await;
                }
                Err(OpenError::Held { wait, why }) => return Err(Reason::CrashLoop { wait, why }),
                Err(error @ OpenError::Spawn { .. }) => {
                    tracing::error!(error = %report(&error), "could not open the backend");
                    return Err(Reason::BackendFailed(report(&error)));
                }
            }
        }
    }

    /// What a long stream of this session is like.
    fn long_stream(&self, version: Option<ProtocolVersion>) -> StreamKind {
        StreamKind {
            ids: true,
            primed: version.is_some_and(ProtocolVersion::has_priming),
            endpoint: None,
            age: Some(self.stream_age),
            keep_alive: self.keep_alive,
        }
    }
}

/// An error and what it came from, on one line.
fn report(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
