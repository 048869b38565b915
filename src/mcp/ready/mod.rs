//! Is the backend there, and does it answer? For whoever asks, without a token.
//!
//! The edge keeps one session of its own for that, and puts a `ping` to the backend on it. Whoever
//! asks meanwhile shares the question, and what was found stands for a moment, so that no number of
//! askers costs the backend more than one ping at a time.

pub(super) mod readiness;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use self::readiness::{Look, OPEN_PAUSE, Question, SILENCE, WAIT};
use super::Reason;
use super::call::Permitted;
use super::pool::Waiting;
use super::session::id::SessionId;
use super::session::table::Newcomer;
use super::session::{Session, SessionTimes, Terms};
use super::sessions::{PLACE_POLL, Sessions};
use crate::backend::{Link, OpenError, Starter};
use crate::caller::{Caller, Principal, Transport};
use crate::limits::bytes::Quota;
use crate::observe::chain;
use crate::policy::Policy;
use crate::wire::jsonrpc::Message;

/// How long the backend has for its answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// A session that nobody asked for so long is ended.
const IDLE: Duration = Duration::from_mins(2);

/// The question, and what answers it.
#[derive(Debug)]
pub(super) struct Ready {
    sessions: Arc<Sessions>,
}

impl Ready {
    pub(super) fn new(sessions: Arc<Sessions>) -> Self {
        Self { sessions }
    }

    /// Does the backend answer? Says so within 3 seconds.
    pub(super) async fn ask(&self, policy: &Policy) -> bool {
        let Sessions { readiness, drain, backend, .. } = &*self.sessions;
        let mut draining = pin!(drain.draining());
        loop {
            let mut answered = pin!(readiness.answered.notified());
            // Enabled before the look, or the answer could come in between, unheard.
            answered.as_mut().enable();
            if drain.is_draining() || backend.is_held() {
                return false;
            }
            let now = Instant::now();
            let look = readiness.books().look(now);
            let until = match look {
                Look::Known(good) => return good,
                Look::Wait(until) => until,
                Look::Ask => {
                    let question = Question::to(readiness);
                    self.ask_backend(policy, question, now + WAIT).await;
                    now + WAIT
                }
            };
            tokio::select! {
                answered = timeout_at(until, answered) => if answered.is_err() {
                    return false;
                },
                () = &mut draining => return false,
            }
        }
    }

    /// Has the question answered, on a task of its own: the asker may leave. A place for a
    /// process may take until `deadline`.
    async fn ask_backend(&self, policy: &Policy, question: Question, deadline: Instant) {
        let held =
            self.sessions.readiness.books().session.clone().filter(|session| !session.is_ended());
        let (session, new) = match held {
            Some(session) => (session, false),
            None => match self.open_for_readiness(policy, deadline).await {
                Ok(session) => (session, true),
                Err(reason) => {
                    self.sessions.readiness.warn(&reason);
                    return question.settle(false);
                }
            },
        };
        let readiness = Arc::clone(&self.sessions.readiness);
        let stopping = self.sessions.drain.clone();
        self.sessions.drain.spawn_behind(async move {
            let asked = ask(&session, new).await;
            if let Err(reason) = &asked
                && !stopping.is_draining()
            {
                readiness.warn(reason);
            }
            question.settle(asked.is_ok());
        });
    }

    async fn open_for_readiness(
        &self,
        policy: &Policy,
        deadline: Instant,
    ) -> Result<Arc<Session>, Reason> {
        {
            let mut books = self.sessions.readiness.books();
            books.closed_until = Some(Instant::now() + OPEN_PAUSE);
            books.silent = None;
        }
        let quota = self.sessions.budget.quota();
        let link = self.open_link_for_readiness(policy, &quota, deadline).await?;
        let times = SessionTimes { idle: IDLE, ..SessionTimes::from(&policy.times) };
        let owner = (Principal::Anonymous, Transport::Edge);
        let terms = Terms { times, ..self.sessions.terms(policy, quota) };
        let session =
            Session::start(SessionId::random()?, owner, terms, link, (), &self.sessions.drain);
        self.sessions.readiness.books().session = Some(Arc::clone(&session));
        Ok(session)
    }

    /// Only a session that gives way to a newcomer as well gives way to this: an edge that is full
    /// of such sessions still serves.
    async fn open_link_for_readiness(
        &self,
        policy: &Policy,
        quota: &Quota,
        deadline: Instant,
    ) -> Result<Link, Reason> {
        let mut evicted = false;
        loop {
            match self.sessions.backend.open(Starter::Edge, quota, &policy.limits) {
                Ok(link) => return Ok(link),
                Err(OpenError::Full(_)) => {
                    let nobody =
                        Newcomer { principal: &Principal::Anonymous, patience: Instant::now() };
                    evicted = evicted || self.sessions.table.evict(None, nobody).is_ok();
                    if !evicted || Instant::now() >= deadline {
                        return Err(Reason::ChildrenFull(None));
                    }
                }
                Err(OpenError::Held { wait, why }) => return Err(Reason::CrashLoop { wait, why }),
                Err(error @ OpenError::Spawn { .. }) => {
                    return Err(Reason::BackendFailed(chain(&error)));
                }
            }
            sleep(PLACE_POLL).await;
        }
    }
}

async fn ask(session: &Arc<Session>, new: bool) -> Result<(), Reason> {
    let caller = Arc::new(Caller::edge());
    if new {
        let begun = timeout(SILENCE, session.initialize(&caller)).await;
        let begun = begun.unwrap_or_else(|_elapsed| Err(session.late(SILENCE)));
        begun.inspect_err(|_failed| session.close())?;
    }
    let id = session.next_id();
    let waiting = Waiting::new(Arc::clone(session), id.clone());
    let ping = Message::request(&id, "ping", &Value::Null);
    let ping = Permitted::of_edge(ping, caller);
    let asking = async { session.call(vec![ping], false).await?.outcome().await };
    let answer = timeout(PATIENCE, asking).await.map_err(|_late| Reason::CallTimeout(PATIENCE))?;
    waiting.done();
    // Whatever it says: it speaks.
    answer.map(drop)
}

#[cfg(test)]
mod tests;
