//! The transports of MCP over HTTP, all on one port at once.
//!
//! The floor's one verb is [`Mcp::exchange`]: an admitted request in, a [`Reply`] or a [`Reason`]
//! out. What kind of session a request belongs to is decided by the request alone, never by the
//! connection it came on.

mod call;
mod direct;
mod era;
#[cfg(fuzzing)]
pub mod fuzzing;
mod http_sse;
mod incoming;
mod pool;
mod ready;
mod reason;
mod rest;
mod session;
mod sse;
pub(crate) mod stdio;
mod streamable;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

pub(crate) use self::reason::{Reason, Refused};
pub(crate) use self::session::table::SessionId;
pub(crate) use self::sse::{EventStream, error_event};

use self::call::Sender;
use self::incoming::Weighed;
use self::pool::{Visitor, WarmPool};
use self::ready::Readiness;
use self::session::table::{Newcomer, NoPlace, SessionPlace, SessionTable};
use self::session::{Session, SessionTimes, Terms, Unknown};
use self::sse::StreamKind;
use crate::backend::{Backend, Link, OpenError, Starter};
use crate::caller::{Caller, Principal, Transport};
use crate::config::Config;
use crate::drain::Drain;
use crate::guard::{Admitted, ToolPolicy};
use crate::limits::addr::ClientKey;
use crate::limits::bytes::{Budget, Quota};
use crate::limits::places::PerClient;
use crate::observe::metrics::{Outcome, Tally};
use crate::policy::Policy;
use crate::wire::revision::ProtocolVersion;

/// How long a request waits for a place that something idle is about to give up: a process that is
/// ended takes up to twice [`crate::backend::CHILD_STEP`].
const PLACE_WAIT: Duration = Duration::from_secs(5);

/// How often a process's place that is about to be free is asked for.
const PLACE_POLL: Duration = Duration::from_millis(20);

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
    fn sole(self, answer: Bytes) -> Reply {
        if self.json {
            Reply::Json(answer, None)
        } else {
            Reply::Events(EventStream::of_one(answer), None)
        }
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

/// Every transport, and what they share.
#[derive(Debug)]
pub(crate) struct Mcp {
    backend: Backend,
    sessions: SessionTable,
    streams: PerClient,
    warm: Arc<WarmPool>,
    readiness: Arc<Readiness>,
    tools: ToolPolicy,
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
        let limits = &config.limits;
        let times = &config.times;
        let largest = limits.max_body_bytes.max(limits.max_line_bytes);
        let gauges = tally.gauges();
        Self {
            budget: Budget::new(limits.max_buffered_bytes, largest, tally.clone()),
            backend,
            sessions: SessionTable::new(
                limits.max_sessions,
                limits.sessions_per_ip,
                gauges.sessions.clone(),
            ),
            streams: PerClient::counting(gauges.streams.clone()),
            warm: Arc::new(WarmPool::new(tally.clone())),
            readiness: Arc::default(),
            tools: ToolPolicy::default(),
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
            Verb::Get { last, messages } => Box::pin(self.get(ask, last, &messages)).await,
            Verb::Delete => self.delete(&ask),
            Verb::OpenSse { messages } => Box::pin(self.open_sse(ask, &messages)).await,
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

    /// What a client's messages are weighed against: a backend that takes them as text reads none.
    fn weighed<'q>(&self, quota: &'q Quota, with_text: bool) -> Option<Weighed<'q>> {
        self.backend.reads_values().then_some(Weighed { quota, with_text })
    }

    /// Whoever sends a request's messages.
    fn sender<'a>(&self, admitted: &'a Admitted, caller: Caller) -> Sender<'a> {
        Sender::new(self.tools, admitted.grant(), caller)
    }

    /// The memory for messages.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    fn terms(&self, quota: Quota) -> Terms {
        Terms { times: self.times, quota, tally: self.tally.clone() }
    }

    /// Opens a session that its client will know by an id.
    async fn open_session(
        &self,
        ask: &Ask<'_>,
        transport: Transport,
    ) -> Result<Arc<Session>, Reason> {
        let client = ask.client;
        let principal = ask.admitted.principal();
        let place = self.take_place(client, principal).await?;
        let quota = ask.caller.quota.clone();
        let link = self.open_link(Starter::Client(client), &quota, Some(principal)).await?;
        let id = place.id().clone();
        let hold = place.hold();
        let owner = (principal.clone(), transport);
        let session = Session::start(id, owner, self.terms(quota), link, place, &self.drain);
        self.sessions.enter(&session, hold);
        Ok(session)
    }

    /// Takes a place for a session. Waits a moment for one that is about to be idle long enough.
    async fn take_place(
        &self,
        client: ClientKey,
        principal: &Principal,
    ) -> Result<SessionPlace, Reason> {
        let patience = Instant::now() + PLACE_WAIT;
        loop {
            let (at, reason): (_, fn(_) -> _) =
                match self.sessions.take(client, Newcomer { principal, patience }) {
                    Ok(place) => return Ok(place),
                    Err(NoPlace::OfClient(at)) => (at, Reason::ClientSessionsFull),
                    Err(NoPlace::AtAll(at)) => (at, Reason::SessionsFull),
                    Err(NoPlace::NoRandomness) => return Err(Reason::NoRandomness),
                };
            match at.filter(|at| *at <= patience) {
                Some(at) => sleep_until(at).await,
                None => {
                    return Err(reason(at.map(|at| at.saturating_duration_since(Instant::now()))));
                }
            }
            self.check_open()?;
        }
    }

    /// Opens a session that serves calls without one, for as long as it stays warm.
    async fn open_warm(
        &self,
        visitor: &Visitor,
        deadline: Instant,
    ) -> Result<Arc<Session>, Reason> {
        let (principal, quota) = (visitor.principal(), visitor.quota(&self.budget));
        // One that is there can be shared: nobody has to go for a further one.
        let needed = visitor.any().is_none();
        let link = self.open_link(Starter::Edge, &quota, needed.then_some(principal)).await?;
        let owner = (principal.clone(), Transport::Bare);
        let id = SessionId::random()?;
        let terms = self.terms(quota.clone());
        let place = visitor.on_shelf();
        let session = Session::start(id, owner, terms, link, place, &self.drain);
        // A caller that goes away meanwhile leaves nobody who knows of it.
        let unknown = Unknown::new(Arc::clone(&session));
        let caller = Arc::new(Caller { quota, ..Caller::edge() });
        let begun = timeout_at(deadline, session.initialize(&caller)).await;
        begun.unwrap_or_else(|_elapsed| Err(session.late(self.times.call)))?;
        unknown.known();
        Ok(session)
    }

    /// Opens a link to the backend. If every place for a process is taken, what is only kept at
    /// hand gives its place up, else an idle session does if it is needed for a principal.
    async fn open_link(
        &self,
        who: Starter,
        quota: &Quota,
        needed_for: Option<&Principal>,
    ) -> Result<Link, Reason> {
        let mut patience = Instant::now() + PLACE_WAIT;
        let mut given_up = false;
        loop {
            match self.backend.open(who, quota) {
                Ok(link) => return Ok(link),
                Err(OpenError::Full(_)) if given_up => {}
                Err(OpenError::Full(_)) => {
                    if let Err(at) = self.give_up_process(needed_for, patience) {
                        if at.is_none_or(|at| at > patience) {
                            return Err(Reason::ChildrenFull(
                                at.map(|at| at.saturating_duration_since(Instant::now())),
                            ));
                        }
                    } else {
                        given_up = true;
                        patience = Instant::now() + PLACE_WAIT;
                    }
                }
                Err(OpenError::Held { wait, why }) => return Err(Reason::CrashLoop { wait, why }),
                Err(error @ OpenError::Spawn { .. }) => {
                    tracing::error!(error = %report(&error), "could not open the backend");
                    return Err(Reason::BackendFailed(report(&error)));
                }
            }
            if Instant::now() >= patience {
                return Err(Reason::ChildrenFull(None));
            }
            self.check_open()?;
            sleep(PLACE_POLL).await;
        }
    }

    /// Ends what holds a process and can do without. The error says when something can, if that is
    /// known. The probe's session goes last: it is how a full edge shows that it still serves.
    fn give_up_process(
        &self,
        needed_for: Option<&Principal>,
        patience: Instant,
    ) -> Result<(), Option<Instant>> {
        if self.warm.give_up() {
            self.tally.count(Outcome::IdleGivenUp);
            return Ok(());
        }
        let evicted = match needed_for {
            Some(principal) => self.sessions.evict(None, Newcomer { principal, patience }),
            None => Err(None),
        };
        match evicted {
            Err(at) if at.is_none_or(|at| at > patience) && self.readiness.give_up() => {
                self.tally.count(Outcome::IdleGivenUp);
                Ok(())
            }
            evicted => evicted.map(drop),
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
