//! Calls that have no session of their client. A backend that can answer them directly does; before
//! another they share a few warm sessions.
//!
//! Each call on a warm session goes under an id of the edge's own, so that callers who share a
//! session never share an id.

use std::pin::pin;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::Reason;
use super::call::{Permitted, Sender};
use super::exchange::Head;
use super::session::Session;
use super::session::reader::Reader;
use super::sessions::Sessions;
use super::shelves::Pick;
use crate::backend::NoAnswer;
use crate::caller::{Caller, Principal, Transport};
use crate::policy::Policy;
use crate::wire::jsonrpc::{Message, RequestId};

/// What serves calls that have no session.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) sessions: Arc<Sessions>,
}

/// What the backend says to one call. Dropped, it cancels the call.
#[derive(Debug)]
pub(super) enum Calling {
    /// It was answered.
    Answered(Message),
    /// It was sent in a session, and the reader waits for its answer.
    Waiting { reader: Reader, waiting: Waiting },
}

impl Calling {
    /// Waits for the answer, result or error, which is the backend's own.
    pub(super) async fn answer(self) -> Result<Message, Reason> {
        match self {
            Self::Answered(answer) => Ok(answer),
            Self::Waiting { reader, waiting } => {
                let answer = reader.outcome().await;
                waiting.done();
                Message::parse(answer?).map_err(|_broken| Reason::BadAnswer("no message"))
            }
        }
    }
}

impl Pool {
    pub(super) fn new(sessions: Arc<Sessions>) -> Self {
        Self { sessions }
    }

    /// The sender of calls without a session.
    pub(super) fn sender(head: Head<'_>) -> Sender<'_> {
        let Head { policy, admitted, caller, .. } = head;
        Sessions::sender(policy, admitted, Caller { transport: Transport::Bare, ..caller })
    }

    /// Makes one call, which has the time of a call for all. Dropping this cancels the call.
    pub(super) async fn call(&self, policy: &Policy, call: Permitted) -> Result<Calling, Reason> {
        let time = policy.times.call;
        let deadline = Instant::now() + time;
        let answering = self.sessions.backend.call(call.request(), call.caller());
        match timeout_at(deadline, answering).await {
            Ok(None) => Box::pin(self.call_warm(policy, call, deadline)).await,
            Ok(Some(Ok(answer))) => Ok(Calling::Answered(answer)),
            Ok(Some(Err(none))) => Err(none.into()),
            Err(_elapsed) => Err(Reason::CallTimeout(time)),
        }
    }

    /// Makes one call, and waits for its answer.
    pub(super) async fn answer(&self, policy: &Policy, call: Permitted) -> Result<Message, Reason> {
        self.call(policy, call).await?.answer().await
    }

    /// The same over a warm session.
    async fn call_warm(
        &self,
        policy: &Policy,
        call: Permitted,
        deadline: Instant,
    ) -> Result<Calling, Reason> {
        let principal = &call.caller().principal;
        let mut again = true;
        let (session, id, reader) = loop {
            let warm = self.warm_session(policy, principal, deadline);
            let session =
                timeout_at(deadline, warm).await.map_err(|_elapsed| Reason::BackendBusy)??;
            let id = session.next_id();
            match session.call(vec![call.under(&id)], false).await {
                Ok(reader) => break (session, id, reader),
                // It was ended in just this moment.
                Err(Reason::UnknownSession) if again => again = false,
                Err(Reason::UnknownSession) => return Err(Reason::BackendBusy),
                Err(reason) => return Err(reason),
            }
        };
        Ok(Calling::Waiting { reader, waiting: Waiting::new(session, id) })
    }

    async fn warm_session(
        &self,
        policy: &Policy,
        principal: &Principal,
        deadline: Instant,
    ) -> Result<Arc<Session>, Reason> {
        let visitor = self.sessions.shelves.visit(principal)?;
        let opening = loop {
            let mut filled = pin!(self.sessions.shelves.filled.notified());
            // Enabled before the look, or a session could come in between, unheard.
            filled.as_mut().enable();
            match visitor.pick() {
                Pick::Take(session) => return Ok(session),
                Pick::Open(opening) => break opening,
                Pick::Wait => filled.await,
                Pick::Failed(reason) => return Err(reason),
            }
        };
        let reason = match self.sessions.open_warm(policy, &visitor, deadline).await {
            Ok(session) => {
                opening.fill(&session);
                return Ok(session);
            }
            Err(reason) => reason,
        };
        let any = visitor.any().filter(|_| matches!(reason, Reason::ChildrenFull(_)));
        any.ok_or_else(|| {
            opening.fail(&reason);
            reason
        })
    }
}

impl From<NoAnswer> for Reason {
    fn from(none: NoAnswer) -> Self {
        match none {
            NoAnswer::Failed { code, text } => Self::Unanswered { code, text },
            NoAnswer::CallsFull => Self::TooManyCalls,
            NoAnswer::PrincipalsFull => Self::SessionsFull(None),
        }
    }
}

/// A call whose client can only cancel it by going away.
#[derive(Debug)]
pub(super) struct Waiting {
    session: Arc<Session>,
    id: Option<RequestId>,
}

impl Waiting {
    pub(super) fn new(session: Arc<Session>, id: RequestId) -> Self {
        Self { session, id: Some(id) }
    }

    pub(super) fn done(mut self) {
        self.id = None;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.session.abandon(&id);
        }
    }
}
