//! The transports of MCP over HTTP, all on one port at once.
//!
//! The floor's one verb is [`Mcp::exchange`]: an admitted request in, a [`Reply`] or a [`Reason`]
//! out. What kind of session a request belongs to is decided by the request alone, never by the
//! connection it came on. Each transport is a type of its own over [`Sessions`], which opens
//! sessions, and [`Pool`], which serves calls without one.

mod call;
mod era;
mod exchange;
#[cfg(fuzzing)]
pub mod fuzzing;
mod http_sse;
mod incoming;
mod plain;
mod pool;
mod ready;
mod reason;
mod rest;
mod session;
mod sessions;
mod shelves;
mod sse;
pub(crate) mod stdio;
mod streamable;
mod streams;

use std::sync::Arc;

pub(crate) use self::exchange::{Accept, Ask, Body, Reply, Verb};
pub(crate) use self::reason::{Reason, Refused};
pub(crate) use self::sse::{EventStream, error_event};

use self::era::Era;
use self::exchange::Head;
use self::http_sse::HttpSse;
use self::plain::Plain;
use self::pool::Pool;
use self::ready::Ready;
use self::rest::Rest;
use self::sessions::Sessions;
use self::streamable::Streamable;
use self::streams::Streams;
use crate::backend::Backend;
use crate::backend::stdio::CommandError;
use crate::config::Secret;
use crate::drain::Drain;
use crate::limits::bytes::Budget;
use crate::observe::metrics::Metrics;
use crate::policy::Policy;

/// Every transport.
#[derive(Debug)]
pub(crate) struct Mcp {
    sessions: Arc<Sessions>,
    streamable: Streamable,
    sse: HttpSse,
    rest: Rest,
    ready: Ready,
}

impl Mcp {
    /// The transports in front of `backend`.
    pub(crate) fn new(backend: Backend, budget: Budget, metrics: Metrics, drain: Drain) -> Self {
        let gauges = metrics.gauges();
        let streams = Arc::new(Streams::new(gauges.streams.clone(), drain.clone()));
        let sessions = Arc::new(Sessions::new(backend, budget, metrics, drain));
        let pool = Arc::new(Pool::new(Arc::clone(&sessions)));
        let plain = Plain::new(Arc::clone(&pool));
        Self {
            streamable: Streamable::new(Arc::clone(&sessions), Arc::clone(&streams), plain),
            sse: HttpSse::new(Arc::clone(&sessions), streams),
            rest: Rest::new(pool),
            ready: Ready::new(Arc::clone(&sessions)),
            sessions,
        }
    }

    /// Answers an admitted request.
    pub(crate) async fn exchange(&self, ask: Ask<'_>) -> Result<Reply, Refused> {
        let (head, verb) = ask.split();
        match verb {
            Verb::Post(body) => self.streamable.post(head, body).await,
            // Boxed: what is rare must not make every request's future large.
            Verb::Get { last, messages } => Box::pin(self.get(head, last, &messages)).await,
            Verb::Delete => self.streamable.delete(&head),
            Verb::OpenSse { messages } => Box::pin(self.sse.open(head, &messages)).await,
            Verb::PostMessage(session, body) => Box::pin(self.sse.post(head, session, body)).await,
            Verb::ListTools => Ok(Box::pin(self.rest.list_tools(head)).await?),
            Verb::CallTool(body) => Ok(Box::pin(self.rest.call_tool(head, body)).await?),
        }
    }

    /// A GET on the unified path: the stream of a session, or of an HTTP+SSE client.
    async fn get(
        &self,
        head: Head<'_>,
        last: Option<&str>,
        messages: &str,
    ) -> Result<Reply, Refused> {
        self.sessions.check_open()?;
        match (Era::of_revision(head.version), head.session, head.version) {
            (Era::Handshake, Some(_), _) => self.streamable.listen(&head, last),
            (Era::Handshake, None, Some(_)) => Err(Reason::NoSession.into()),
            (Era::Handshake, None, None) if head.accept.events => {
                self.sse.open(head, messages).await
            }
            (Era::Handshake | Era::Modern, _, _) => Err(Reason::NoStream.into()),
        }
    }

    /// Does the backend answer? Says so within 3 seconds.
    pub(crate) async fn ready(&self, policy: &Policy) -> bool {
        self.ready.ask(policy).await
    }

    /// Keeps to this policy, which has taken the place of another, in what all share.
    pub(crate) fn keep_to(&self, policy: &Policy, before: &Policy) {
        self.sessions.keep_to(policy, before);
    }

    /// Checks that none of these secrets is handed to what stands behind.
    ///
    /// # Errors
    /// See [`Backend::check_secrets`].
    pub(crate) fn check_secrets(&self, secrets: &[Secret]) -> Result<(), CommandError> {
        self.sessions.backend.check_secrets(secrets)
    }
}
