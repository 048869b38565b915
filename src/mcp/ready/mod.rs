//! Is the backend there, and does it answer? For whoever asks, without a token.
//!
//! The edge keeps one session of its own for that, and puts a `ping` to the backend on it. Whoever
//! asks meanwhile shares the question, and what was found stands for a moment, so that no number of
//! askers costs the backend more than one ping at a time.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::call::Permitted;
use super::pool::Waiting;
use super::session::table::{Newcomer, SessionId};
use super::session::{Session, SessionTimes, Terms};
use super::{Mcp, PLACE_POLL, Reason, report};
use crate::backend::{Link, OpenError, Starter};
use crate::caller::{Caller, Principal, Transport};
use crate::limits::bytes::Quota;
use crate::wire::jsonrpc::Message;

/// How long the backend has for its answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long an asker waits at most, for a backend that is being started, too.
const WAIT: Duration = Duration::from_secs(3);
/// How long it stands that the backend answered.
const GOOD: Duration = Duration::from_secs(2);
/// How long it stands that it did not.
const BAD: Duration = Duration::from_millis(500);
/// A session that nobody asked for so long is ended.
const IDLE: Duration = Duration::from_mins(2);
/// Between two sessions that are opened for this: askers need no token, and a process costs.
const OPEN_PAUSE: Duration = Duration::from_secs(5);
/// A session whose backend kept silent for so long makes place for another.
const SILENCE: Duration = Duration::from_secs(30);

/// What is known of the backend.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    books: Mutex<Books>,
    /// A question was answered.
    answered: Notify,
}

#[derive(Debug, Default)]
struct Books {
    session: Option<Arc<Session>>,
    /// Since when a question is open.
    asking: Option<Instant>,
    /// What was found, and until when it stands.
    verdict: Option<(bool, Instant)>,
    /// Before this no session is opened.
    closed_until: Option<Instant>,
    /// Since when the session's backend does not answer.
    silent: Option<Instant>,
    /// It was logged that the backend is not ready.
    told: bool,
}

/// What to do for an asker.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// Say this.
    Known(bool),
    /// Somebody asks already: wait, until then.
    Wait(Instant),
    /// Ask; a session is there, or has to be opened.
    Ask,
}

impl Books {
    /// What to do for an asker. With [`Look::Ask`] the question is open.
    fn look(&mut self, now: Instant) -> Look {
        if let Some((good, _)) = self.verdict.filter(|(_, until)| now < *until) {
            return Look::Known(good);
        }
        if let Some(since) = self.asking {
            return Look::Wait(since + WAIT);
        }
        let open = self.session.as_ref().is_some_and(|session| !session.is_ended());
        if !open && self.closed_until.is_some_and(|until| now < until) {
            return Look::Known(false);
        }
        self.asking = Some(now);
        Look::Ask
    }

    /// A question was answered.
    fn settle(&mut self, good: bool, now: Instant) {
        self.asking = None;
        self.verdict = Some((good, now + if good { GOOD } else { BAD }));
        let since = *self.silent.get_or_insert(now);
        if good {
            (self.silent, self.told) = (None, false);
        } else if now >= since + SILENCE {
            self.end_session();
        }
    }

    fn end_session(&mut self) {
        self.silent = None;
        if let Some(session) = self.session.take() {
            session.close();
        }
    }
}

impl Readiness {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock()
    }

    /// Logs why the backend is not ready. True if as a warning: once, until it is ready again.
    fn tell(&self, reason: &Reason) -> bool {
        let first = !std::mem::replace(&mut self.books().told, true);
        if first {
            tracing::warn!(%reason, "the MCP server is not ready: /readyz answers 503");
        } else {
            tracing::debug!(%reason, "not ready");
        }
        first
    }

    /// Ends the session if no question is open, and opens none for a while. Says if there was one.
    pub(super) fn give_up(&self) -> bool {
        let mut books = self.books();
        let held = books.session.as_ref().is_some_and(|session| !session.is_ended());
        if !held || books.asking.is_some() {
            return false;
        }
        books.closed_until = Some(Instant::now() + OPEN_PAUSE);
        books.end_session();
        true
    }
}

/// A question that is open. Dropped without an answer, the answer is no.
struct Question(Option<Arc<Readiness>>);

impl Question {
    fn settle(mut self, good: bool) {
        self.close(good);
    }

    fn close(&mut self, good: bool) {
        if let Some(readiness) = self.0.take() {
            readiness.books().settle(good, Instant::now());
            readiness.answered.notify_waiters();
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.close(false);
    }
}

impl Mcp {
    /// Does the backend answer? Says so within 3 seconds.
    pub(crate) async fn ready(&self) -> bool {
        let mut draining = pin!(self.drain.draining());
        loop {
            let mut answered = pin!(self.readiness.answered.notified());
            // Enabled before the look, or the answer could come in between, unheard.
            answered.as_mut().enable();
            if self.drain.is_draining() || self.backend.is_held() {
                return false;
            }
            let now = Instant::now();
            let look = self.readiness.books().look(now);
            let until = match look {
                Look::Known(good) => return good,
                Look::Wait(until) => until,
                Look::Ask => {
                    let question = Question(Some(Arc::clone(&self.readiness)));
                    self.ask_backend(question, now + WAIT).await;
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
    async fn ask_backend(&self, question: Question, deadline: Instant) {
        let held = self.readiness.books().session.clone().filter(|session| !session.is_ended());
        let (session, new) = match held {
            Some(session) => (session, false),
            None => match self.open_for_readiness(deadline).await {
                Ok(session) => (session, true),
                Err(reason) => {
                    self.readiness.tell(&reason);
                    return question.settle(false);
                }
            },
        };
        let readiness = Arc::clone(&self.readiness);
        let stopping = self.drain.clone();
        self.drain.spawn_behind(async move {
            let asked = ask(&session, new).await;
            if let Err(reason) = &asked
                && !stopping.is_draining()
            {
                readiness.tell(reason);
            }
            question.settle(asked.is_ok());
        });
    }

    async fn open_for_readiness(&self, deadline: Instant) -> Result<Arc<Session>, Reason> {
        {
            let mut books = self.readiness.books();
            books.closed_until = Some(Instant::now() + OPEN_PAUSE);
            books.silent = None;
        }
        let quota = self.budget.quota();
        let link = self.open_link_for_readiness(&quota, deadline).await?;
        let times = SessionTimes { idle: IDLE, ..self.times };
        let owner = (Principal::Anonymous, Transport::Bare);
        let terms = Terms { times, ..self.terms(quota) };
        let session = Session::start(SessionId::random()?, owner, terms, link, (), &self.drain);
        self.readiness.books().session = Some(Arc::clone(&session));
        Ok(session)
    }

    /// Only a session that gives way to a newcomer as well gives way to this: an edge that is full
    /// of such sessions still serves.
    async fn open_link_for_readiness(
        &self,
        quota: &Quota,
        deadline: Instant,
    ) -> Result<Link, Reason> {
        let mut evicted = false;
        loop {
            match self.backend.open(Starter::Edge, quota) {
                Ok(link) => return Ok(link),
                Err(OpenError::Full(_)) => {
                    let nobody =
                        Newcomer { principal: &Principal::Anonymous, patience: Instant::now() };
                    evicted = evicted || self.sessions.evict(None, nobody).is_ok();
                    if !evicted || Instant::now() >= deadline {
                        return Err(Reason::ChildrenFull(None));
                    }
                }
                Err(OpenError::Held { wait, why }) => return Err(Reason::CrashLoop { wait, why }),
                Err(error @ OpenError::Spawn { .. }) => {
                    return Err(Reason::BackendFailed(report(&error)));
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
    let waiting = Waiting::new(session, id.clone());
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
