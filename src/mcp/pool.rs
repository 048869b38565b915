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

use super::call::{Permitted, Sender};
use super::session::Session;
use super::{Ask, Mcp, Reason, Reply};
use crate::caller::{Caller, MAX_PRINCIPALS, Principal, Transport};
use crate::limits::bytes::{Budget, Quota};
use crate::observe::metrics::{Outcome, Tally};
use crate::wire::jsonrpc::{Message, RequestId};

/// Warm sessions of one principal. Beyond that, calls share the one with the fewest.
const WARM: usize = 4;

/// The warm sessions of every principal that made such calls lately.
#[derive(Debug, Default)]
pub(super) struct WarmPool {
    shelves: Mutex<HashMap<Principal, Shelf>>,
    /// A session came onto a shelf, or will not come.
    filled: Notify,
    tally: Tally,
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

/// The warm sessions of one principal. It goes with the last of them, unless somebody looks for one.
#[derive(Debug)]
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
    /// Calls that look for a session.
    visitors: usize,
    /// When the last of them left.
    used: Instant,
}

impl Shelf {
    fn new(now: Instant) -> Self {
        Self {
            sessions: Vec::new(),
            opening: 0,
            failures: 0,
            failed: None,
            quota: None,
            visitors: 0,
            used: now,
        }
    }

    fn is_idle(&self) -> bool {
        let waits = self.sessions.iter().any(|session| session.calls() > 0);
        self.visitors == 0 && self.opening == 0 && !waits
    }

    fn close(&self) {
        self.sessions.iter().for_each(|session| session.close());
    }
}

impl WarmPool {
    pub(super) fn new(tally: Tally) -> Self {
        Self { tally, ..Self::default() }
    }

    fn shelves(&self) -> MutexGuard<'_, HashMap<Principal, Shelf>> {
        self.shelves.lock()
    }

    /// Goes to this principal's shelf. If there are [`MAX_PRINCIPALS`] of others, the one that was
    /// not used for longest goes.
    ///
    /// # Errors
    /// [`Reason::SessionsFull`] if calls wait on all of those.
    fn visit(self: &Arc<Self>, principal: &Principal) -> Result<Visitor, Reason> {
        let mut shelves = self.shelves();
        if !shelves.contains_key(principal) && shelves.len() >= MAX_PRINCIPALS {
            let idle = shelves.iter().filter(|(_, shelf)| shelf.is_idle());
            let oldest = idle.min_by_key(|(_, shelf)| shelf.used).map(|(oldest, _)| oldest.clone());
            let oldest = oldest.ok_or(Reason::SessionsFull(None))?;
            if let Some(shelf) = shelves.remove(&oldest) {
                shelf.close();
            }
            self.tally.count(Outcome::IdleGivenUp);
        }
        let shelf = shelves.entry(principal.clone()).or_insert_with(|| Shelf::new(Instant::now()));
        shelf.visitors += 1;
        let (pool, principal) = (Arc::clone(self), principal.clone());
        Ok(Visitor { failures: shelf.failures, shelf: Place { pool, principal } })
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

/// Where one principal's shelf is.
#[derive(Clone, Debug)]
struct Place {
    pool: Arc<WarmPool>,
    principal: Principal,
}

impl Place {
    /// Does something at the shelf; nothing if it is gone. An empty shelf goes.
    fn at<T>(&self, work: impl FnOnce(&mut Shelf) -> T) -> Option<T> {
        let mut shelves = self.pool.shelves();
        let shelf = shelves.get_mut(&self.principal)?;
        let done = work(shelf);
        if shelf.visitors == 0 && shelf.opening == 0 {
            shelf.sessions.retain(|session| !session.is_ended());
            if shelf.sessions.is_empty() {
                shelves.remove(&self.principal);
            }
        }
        Some(done)
    }
}

/// A call that looks for a session: its principal's shelf stays meanwhile.
#[derive(Debug)]
pub(super) struct Visitor {
    shelf: Place,
    /// How many sessions could not be opened before it came: whoever waited while one failed opens
    /// none, or all would wait for their turn to fail.
    failures: u64,
}

impl Visitor {
    pub(super) fn principal(&self) -> &Principal {
        &self.shelf.principal
    }

    /// Picks a session that waits for nothing; where no further one may be opened, the least busy.
    fn pick(&self) -> Pick {
        let pick = self.shelf.at(|warm| {
            let failed = warm.failed.clone().filter(|_| warm.failures > self.failures);
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
                    Pick::Open(Opening(self.shelf.clone()))
                }
            }
        });
        // A shelf that is visited is there.
        pick.unwrap_or(Pick::Failed(Reason::BackendBusy))
    }

    /// What this principal's sessions hold counts against one quota.
    pub(super) fn quota(&self, budget: &Budget) -> Quota {
        let quota = self.shelf.at(|warm| warm.quota.get_or_insert_with(|| budget.quota()).clone());
        quota.unwrap_or_else(|| budget.quota())
    }

    /// The least busy session that there is.
    pub(super) fn any(&self) -> Option<Arc<Session>> {
        self.shelf.at(|warm| {
            let open = warm.sessions.iter().filter(|session| !session.is_ended());
            open.min_by_key(|session| session.calls()).map(Arc::clone)
        })?
    }

    /// What a session holds that is to be on this shelf.
    pub(super) fn on_shelf(&self) -> OnShelf {
        OnShelf(self.shelf.clone())
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.shelf.at(|warm| {
            warm.visitors = warm.visitors.saturating_sub(1);
            warm.used = Instant::now();
        });
    }
}

/// Held by a warm session until it ended. Dropped, it takes the session off the shelf.
#[derive(Debug)]
pub(super) struct OnShelf(Place);

impl Drop for OnShelf {
    fn drop(&mut self) {
        self.0.at(|_shelf| {});
    }
}

/// A place on the shelf for a session that is being opened.
#[derive(Debug)]
struct Opening(Place);

impl Opening {
    fn fill(self, session: &Arc<Session>) {
        self.0.at(|warm| warm.sessions.push(Arc::clone(session)));
    }

    fn fail(self, reason: &Reason) {
        self.0.at(|warm| {
            warm.failures += 1;
            warm.failed = Some(reason.clone());
        });
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.at(|warm| warm.opening = warm.opening.saturating_sub(1));
        self.0.pool.filled.notify_waiters();
    }
}

impl Mcp {
    /// One call without a session.
    pub(super) async fn call_bare(&self, ask: Ask<'_>, message: Message) -> Result<Reply, Reason> {
        let Some(own) = message.id().cloned() else { return Ok(Reply::Accepted) };
        let accept = ask.accept;
        let call = self.bare_sender(ask).permit(message)?;
        let answer = match self.answer_bare(call).await {
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

    /// Whoever calls without a session.
    pub(super) fn bare_sender<'a>(&self, ask: Ask<'a>) -> Sender<'a> {
        let Ask { admitted, caller, .. } = ask;
        self.sender(admitted, Caller { transport: Transport::Bare, ..caller })
    }

    /// Makes one call, in the time of a call. The answer, result or error, is the backend's own,
    /// under the request's id. Dropping this cancels the call.
    pub(super) async fn answer_bare(&self, call: Permitted) -> Result<Message, Reason> {
        let deadline = Instant::now() + self.times.call;
        if let Some(answer) = self.call_directly(&call, deadline).await {
            return answer;
        }
        Box::pin(self.answer_warm(call, deadline)).await
    }

    /// The same over a warm session.
    async fn answer_warm(&self, call: Permitted, deadline: Instant) -> Result<Message, Reason> {
        let principal = &call.caller().principal;
        let mut again = true;
        let (session, id, reader) = loop {
            let warm = timeout_at(deadline, self.warm_session(principal, deadline)).await;
            let session = warm.map_err(|_elapsed| Reason::BackendBusy)??;
            let id = session.next_id();
            match session.call(vec![call.under(&id)], false).await {
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
        Message::parse(answer?).map_err(|_broken| Reason::BadAnswer("no message"))
    }

    async fn warm_session(
        &self,
        principal: &Principal,
        deadline: Instant,
    ) -> Result<Arc<Session>, Reason> {
        let visitor = self.warm.visit(principal)?;
        let opening = loop {
            let mut filled = pin!(self.warm.filled.notified());
            // Enabled before the look, or a session could come in between, unheard.
            filled.as_mut().enable();
            match visitor.pick() {
                Pick::Take(session) => return Ok(session),
                Pick::Open(opening) => break opening,
                Pick::Wait => filled.await,
                Pick::Failed(reason) => return Err(reason),
            }
        };
        let reason = match self.open_warm(&visitor, deadline).await {
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

    fn session(place: OnShelf) -> Arc<Session> {
        let (tell, _told) = tokio::sync::mpsc::channel(1);
        let (_say, said) = tokio::sync::mpsc::channel(1);
        let minute = std::time::Duration::from_mins(1);
        let times = SessionTimes { call: minute, idle: minute, age: minute, write: minute };
        let terms = Terms { times, quota: Quota::default(), tally: Tally::default() };
        let owner = (Principal::Anonymous, Transport::Bare);
        let link = Link { tell, said };
        Session::start(SessionId::random().unwrap(), owner, terms, link, place, &Drain::default())
    }

    fn visit(pool: &Arc<WarmPool>) -> Visitor {
        pool.visit(&Principal::Anonymous).unwrap()
    }

    fn open(pool: &Arc<WarmPool>) -> Opening {
        let Pick::Open(opening) = visit(pool).pick() else { unreachable!() };
        opening
    }

    #[tokio::test]
    async fn an_opening_that_fails_fails_all_who_waited_and_nobody_else() {
        let pool = Arc::<WarmPool>::default();
        let mut opening: Vec<_> = (0..WARM).map(|_| open(&pool)).collect();
        let waiting = visit(&pool);
        assert!(matches!(waiting.pick(), Pick::Wait));
        let down = Reason::BackendFailed("down".to_owned());
        opening.pop().unwrap().fail(&down);
        assert!(matches!(waiting.pick(), Pick::Failed(reason) if reason == down));
        // Whoever comes now opens one, or waits for what is still on its way.
        opening.push(open(&pool));
        let later = visit(&pool);
        assert!(matches!(later.pick(), Pick::Wait));
        // A caller that went away is no failure.
        drop(opening.pop());
        assert!(matches!(later.pick(), Pick::Open(_)));
        // A session that came nevertheless is for all.
        opening.pop().unwrap().fill(&session(later.on_shelf()));
        assert!(matches!(waiting.pick(), Pick::Take(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_shelf_goes_with_its_last_session_and_with_whoever_looked_in_vain() {
        let pool = Arc::<WarmPool>::default();
        let visitor = visit(&pool);
        let Pick::Open(opening) = visitor.pick() else { unreachable!() };
        let warm = session(visitor.on_shelf());
        opening.fill(&warm);
        drop(visitor);
        assert_eq!(pool.shelves().len(), 1);
        warm.close();
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        assert!(pool.shelves().is_empty(), "its session ended");
        open(&pool).fail(&Reason::BackendBusy);
        assert!(pool.shelves().is_empty(), "nothing was opened");
    }

    #[tokio::test]
    async fn principals_have_a_lid_and_an_idle_one_gives_way() {
        let principal = |number: usize| {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&number.to_be_bytes());
            Principal::Token(crate::caller::TokenId(digest))
        };
        let pool = Arc::new(WarmPool::new(Tally::default()));
        let mut visitors: Vec<_> =
            (0..MAX_PRINCIPALS).map(|number| pool.visit(&principal(number)).unwrap()).collect();
        assert_eq!(pool.visit(&principal(9999)).unwrap_err(), Reason::SessionsFull(None));
        assert!(pool.visit(&principal(7)).is_ok(), "it is there");
        let idle = visitors.remove(7);
        let Pick::Open(opening) = idle.pick() else { unreachable!() };
        let warm = session(idle.on_shelf());
        opening.fill(&warm);
        drop(idle);
        assert!(pool.visit(&principal(9999)).is_ok());
        assert!(warm.is_ended());
        assert_eq!(pool.shelves().len(), MAX_PRINCIPALS - 1);
        assert_eq!(pool.tally.outcomes()["idle_given_up"], 1);
    }
}
