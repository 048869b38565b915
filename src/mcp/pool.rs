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

/// What the backend says to one call: whatever belongs to it, and last its answer. Dropped before
/// that, it cancels the call.
#[derive(Debug)]
pub(super) enum Calling {
    /// It was answered.
    Answered(Message),
    /// It was sent in a session, and the reader waits for what is said to it.
    Waiting { reader: Reader, waiting: Waiting },
    /// Its answer was read.
    Over,
}

impl Calling {
    /// The next message. The last is the answer, result or error, which is the backend's own; `None`
    /// follows it.
    pub(super) async fn next(&mut self) -> Option<Result<Message, Reason>> {
        let said = match self {
            Self::Waiting { reader, .. } => reader.next().await.map(Message::parse),
            Self::Answered(_) | Self::Over => None,
        };
        let said = match said {
            Some(Ok(message)) if message.answers().is_none() => return Some(Ok(message)),
            said => said,
        };
        match std::mem::replace(self, Self::Over) {
            Self::Answered(answer) => Some(Ok(answer)),
            Self::Waiting { reader, waiting } => {
                waiting.done();
                Some(match (reader.forget(), said) {
                    (Some(excuse), _) => Err(excuse),
                    (None, Some(Ok(answer))) => Ok(answer),
                    (None, Some(Err(_broken))) => Err(Reason::BadAnswer("no message")),
                    (None, None) => Err(Reason::BackendFailed("it ended".to_owned())),
                })
            }
            Self::Over => None,
        }
    }

    /// Waits for the answer.
    pub(super) async fn answer(mut self) -> Result<Message, Reason> {
        loop {
            match self.next().await {
                Some(Ok(message)) if message.answers().is_none() => {}
                Some(answer) => return answer,
                None => return Err(Reason::BackendFailed("it ended".to_owned())),
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::mcp::session::tests::{Rig, TIMES};

    async fn calling(rig: &mut Rig, id: u64) -> Calling {
        let request = Message::request(&id.into(), "tools/call", &json!({}));
        let call = Permitted::of_edge(request, Arc::new(Caller::stdio()));
        let reader = rig.session.call(vec![call], true).await.unwrap();
        assert_eq!(rig.told().await.id(), Some(&id.into()));
        Calling::Waiting { reader, waiting: Waiting::new(Arc::clone(&rig.session), id.into()) }
    }

    #[tokio::test(start_paused = true)]
    async fn what_belongs_to_a_call_is_said_before_its_answer_and_nothing_behind_it() {
        let mut rig = Rig::held_to(TIMES, Transport::StreamableHttp);
        let mut calling = calling(&mut rig, 1).await;
        rig.say(Message::notification("notifications/message", &json!({}))).await;
        rig.say(Message::result(&1.into(), &json!({}))).await;
        let note = calling.next().await.unwrap().unwrap();
        assert_eq!(note.method(), Some("notifications/message"));
        let answer = calling.next().await.unwrap().unwrap();
        assert_eq!(answer.answers(), Some(&1.into()));
        assert!(calling.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_cancelled_if_it_is_dropped_before_its_answer() {
        let mut rig = Rig::held_to(TIMES, Transport::StreamableHttp);
        let mut dropped = calling(&mut rig, 1).await;
        rig.say(Message::notification("notifications/message", &json!({}))).await;
        assert!(dropped.next().await.is_some());
        drop(dropped);
        assert_eq!(rig.told().await.cancelled(), Some(1.into()));
        let answered = calling(&mut rig, 2).await;
        rig.say(Message::result(&2.into(), &json!({}))).await;
        assert_eq!(answered.answer().await.unwrap().answers(), Some(&2.into()));
        let _third = calling(&mut rig, 3).await;
    }
}
