//! A POST with no session, no handshake and no `Accept`: one call, one JSON answer (or one event, for
//! a client that takes no JSON).
//!
//! The calls are served by a few warm sessions that the edge initialised itself. Each call goes
//! under an id of the edge's own, so that callers who share a session never share an id.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::session::Session;
use super::{Ask, Mcp, Reason, Reply};
use crate::caller::{Caller, Principal, Transport};
use crate::limits::bytes::{Budget, Quota};
use crate::wire::jsonrpc::{Message, RequestId};

/// Warm sessions of one principal. Beyond that, calls share the one with the fewest.
const WARM: usize = 4;

/// The warm sessions of every principal.
#[derive(Debug, Default)]
pub(super) struct WarmPool {
    shelves: Mutex<HashMap<Principal, Shelf>>,
    /// A session came onto a shelf, or will not come.
    filled: Notify,
}

/// What to do for a session.
#[derive(Debug)]
enum Pick {
    /// Use this one.
    Take(Arc<Session>),
    /// Open one; its place is kept.
    Open(Opening),
    /// Wait for one that is being opened.
    Wait,
    /// One could not be opened while this was waited for.
    Failed(Reason),
}

#[derive(Debug, Default)]
struct Shelf {
    sessions: Vec<Arc<Session>>,
    /// Sessions on their way.
    opening: usize,
    /// How many could not be opened.
    failures: u64,
    /// Why not, the last time.
    failed: Option<Reason>,
    /// What its sessions hold counts against this.
    quota: Option<Quota>,
}

impl WarmPool {
    fn shelves(&self) -> MutexGuard<'_, HashMap<Principal, Shelf>> {
        self.shelves.lock()
    }

    /// How many sessions could not be opened so far.
    fn failures(&self, principal: &Principal) -> u64 {
        self.shelves().get(principal).map_or(0, |shelf| shelf.failures)
    }

    /// Picks a session that waits for nothing; where no further one may be opened, the least busy.
    /// `seen` is how many could not be opened before this was asked for the first time: whoever
    /// waited while one failed opens none, or all would wait for their turn to fail.
    fn pick(self: &Arc<Self>, principal: &Principal, seen: u64) -> Pick {
        let mut all = self.shelves();
        let warm = all.entry(principal.clone()).or_default();
        let failed = warm.failed.clone().filter(|_| warm.failures > seen);
        warm.sessions.retain(|session| !session.is_ended());
        let full = warm.sessions.len() + warm.opening >= WARM;
        let least = warm.sessions.iter().min_by_key(|session| session.calls());
        match (least, failed) {
            (Some(session), failed) if full || failed.is_some() || session.calls() == 0 => {
                Pick::Take(Arc::clone(session))
            }
            (None, Some(reason)) => Pick::Failed(reason),
            (None, None) if full => Pick::Wait,
            (Some(_) | None, _) => {
                warm.opening += 1;
                Pick::Open(Opening { pool: Arc::clone(self), principal: principal.clone() })
            }
        }
    }

    /// What this principal's sessions hold counts against one quota.
    pub(super) fn quota(&self, principal: &Principal, budget: &Budget) -> Quota {
        let mut shelves = self.shelves();
        let quota = &mut shelves.entry(principal.clone()).or_default().quota;
        quota.get_or_insert_with(|| budget.quota()).clone()
    }

    /// The least busy session that there is.
    pub(super) fn any(&self, principal: &Principal) -> Option<Arc<Session>> {
        let shelves = self.shelves();
        let open = shelves.get(principal)?.sessions.iter().filter(|session| !session.is_ended());
        open.min_by_key(|session| session.calls()).map(Arc::clone)
    }

    /// Ends the sessions that wait for nothing, and forgets them. Says if there was one.
    pub(super) fn give_up(&self) -> bool {
        let mut given_up = false;
        for shelf in self.shelves().values_mut() {
            shelf.sessions.retain(|session| {
                let idle = session.calls() == 0;
                if idle {
                    given_up |= !session.is_ended();
                    session.close();
                }
                !idle
            });
        }
        given_up
    }
}

/// A place on the shelf for a session that is being opened.
#[derive(Debug)]
struct Opening {
    pool: Arc<WarmPool>,
    principal: Principal,
}

impl Opening {
    fn fill(self, session: &Arc<Session>) {
        let mut shelves = self.pool.shelves();
        shelves.entry(self.principal.clone()).or_default().sessions.push(Arc::clone(session));
    }

    fn fail(self, reason: &Reason) {
        let mut shelves = self.pool.shelves();
        let warm = shelves.entry(self.principal.clone()).or_default();
        warm.failures += 1;
        warm.failed = Some(reason.clone());
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(shelf) = self.pool.shelves().get_mut(&self.principal) {
            shelf.opening = shelf.opening.saturating_sub(1);
        }
        self.pool.filled.notify_waiters();
    }
}

impl Mcp {
    /// One call without a session.
    pub(super) async fn call_bare(&self, ask: Ask<'_>, message: Message) -> Result<Reply, Reason> {
        let Some(own) = message.id().cloned() else { return Ok(Reply::Accepted) };
        let accept = ask.accept;
        let answer = match self.answer_bare(&bare_caller(ask), message).await {
            Ok(answer) => answer,
            // It was asked: what came of that is the answer.
            Err(
                fault @ (Reason::CallTimeout(_)
                | Reason::NeverSpoke { .. }
                | Reason::Unanswered { .. }),
            ) => fault.answer(&own),
            Err(reason) => return Err(reason),
        };
        // JSON may have line breaks, and an event may not.
        Ok(accept.sole(if accept.json { answer.bytes().clone() } else { answer.line() }))
    }

    /// Puts one request to the backend for this caller, in the call's time. The answer, result or
    /// error, is the backend's own, under the request's id. Dropping this cancels the call.
    pub(super) async fn answer_bare(
        &self,
        caller: &Arc<Caller>,
        message: Message,
    ) -> Result<Message, Reason> {
        let deadline = Instant::now() + self.times.call;
        if let Some(answer) = self.call_directly(&message, caller, deadline).await {
            return answer;
        }
        Box::pin(self.answer_warm(caller, message, deadline)).await
    }

    /// The same over a warm session.
    async fn answer_warm(
        &self,
        caller: &Arc<Caller>,
        message: Message,
        deadline: Instant,
    ) -> Result<Message, Reason> {
        let mut again = true;
        let (session, id, reader) = loop {
            let warm = timeout_at(deadline, self.warm_session(&caller.principal, deadline)).await;
            let session = warm.map_err(|_elapsed| Reason::BackendBusy)??;
            let id = session.next_id();
            let renamed = message.with_id(&id).charged_if_large(&caller.quota);
            match session.call(vec![renamed], false, caller).await {
                Ok(reader) => break (session, id, reader),
                // It was ended in just this moment.
                Err(Reason::UnknownSession) if again => again = false,
                Err(Reason::UnknownSession) => return Err(Reason::BackendBusy),
                Err(reason) => return Err(reason),
            }
        };
        let waiting = Waiting::new(&session, id);
        let answer = reader.outcome().await;
        waiting.done();
        let answer = Message::parse(answer?).map_err(|_broken| Reason::BadAnswer("no message"))?;
        let Some(own) = message.id() else { return Ok(answer) };
        Ok(answer.with_id(own).charged_if_large(&caller.quota))
    }

    async fn warm_session(
        &self,
        principal: &Principal,
        deadline: Instant,
    ) -> Result<Arc<Session>, Reason> {
        let seen = self.warm.failures(principal);
        let opening = loop {
            let mut filled = pin!(self.warm.filled.notified());
            // Enabled before the look, or a session could come in between, unheard.
            filled.as_mut().enable();
            match self.warm.pick(principal, seen) {
                Pick::Take(session) => return Ok(session),
                Pick::Open(opening) => break opening,
                Pick::Wait => filled.await,
                Pick::Failed(reason) => return Err(reason),
            }
        };
        let reason = match self.open_warm(principal, deadline).await {
            Ok(session) => {
                opening.fill(&session);
                return Ok(session);
            }
            Err(reason) => reason,
        };
        let any = self.warm.any(principal).filter(|_| matches!(reason, Reason::ChildrenFull(_)));
        any.ok_or_else(|| {
            opening.fail(&reason);
            reason
        })
    }
}

/// Whoever calls without a session.
pub(super) fn bare_caller(ask: Ask<'_>) -> Arc<Caller> {
    let principal = ask.admitted.principal().clone();
    Arc::new(Caller { principal, transport: Transport::Bare, ..ask.caller })
}

/// A call whose client can only cancel it by going away.
pub(super) struct Waiting<'a> {
    session: &'a Session,
    id: Option<RequestId>,
}

impl<'a> Waiting<'a> {
    pub(super) fn new(session: &'a Session, id: RequestId) -> Self {
        Self { session, id: Some(id) }
    }

    pub(super) fn done(mut self) {
        self.id = None;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.session.abandon(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Link;
    use crate::drain::Drain;
    use crate::mcp::session::table::SessionId;
    use crate::mcp::session::{SessionTimes, Terms};
    use crate::observe::metrics::Tally;

    fn session() -> Arc<Session> {
        let (tell, _told) = tokio::sync::mpsc::channel(1);
        let (_say, said) = tokio::sync::mpsc::channel(1);
        let minute = std::time::Duration::from_mins(1);
        let times = SessionTimes { call: minute, idle: minute, age: minute, write: minute };
        let terms = Terms { times, quota: Quota::default(), tally: Tally::default() };
        let owner = (Principal::Anonymous, Transport::Bare);
        let link = Link { tell, said };
        Session::start(SessionId::random().unwrap(), owner, terms, link, (), &Drain::default())
    }

    fn open(pool: &Arc<WarmPool>) -> Opening {
        let seen = pool.failures(&Principal::Anonymous);
        let Pick::Open(opening) = pool.pick(&Principal::Anonymous, seen) else { unreachable!() };
        opening
    }

    #[tokio::test]
    async fn an_opening_that_fails_fails_all_who_waited_and_nobody_else() {
        let pool = Arc::<WarmPool>::default();
        let me = Principal::Anonymous;
        let mut opening: Vec<_> = (0..WARM).map(|_| open(&pool)).collect();
        let waiting = pool.failures(&me);
        assert!(matches!(pool.pick(&me, waiting), Pick::Wait));
        let down = Reason::BackendFailed("down".to_owned());
        opening.pop().unwrap().fail(&down);
        assert!(matches!(pool.pick(&me, waiting), Pick::Failed(reason) if reason == down));
        // Whoever comes now opens one, or waits for what is still on its way.
        opening.push(open(&pool));
        let later = pool.failures(&me);
        assert!(matches!(pool.pick(&me, later), Pick::Wait));
        // A caller that went away is no failure.
        drop(opening.pop());
        assert!(matches!(pool.pick(&me, later), Pick::Open(_)));
        // A session that came nevertheless is for all.
        opening.pop().unwrap().fill(&session());
        assert!(matches!(pool.pick(&me, waiting), Pick::Take(_)));
    }
}
