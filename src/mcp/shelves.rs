//! Warm sessions, which the edge initialised itself for calls without a session: a few for each
//! principal that makes such calls.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Reason;
use super::session::{Session, SessionTimes};
use crate::caller::{MAX_PRINCIPALS, Principal};
use crate::limits::bytes::{Budget, Quota};
use crate::observe::metrics::{Metrics, Outcome};

/// Warm sessions of one principal. Beyond that, calls share the one with the fewest.
const WARM: usize = 4;

/// The warm sessions of every principal that made such calls lately.
#[derive(Debug, Default)]
pub(super) struct Shelves {
    by_principal: Mutex<HashMap<Principal, Shelf>>,
    /// Sessions with other times serve no new call. `None` before the times change for once.
    times: Mutex<Option<SessionTimes>>,
    /// Notified when the opening of a session has ended, however it ended.
    pub(super) filled: Notify,
    metrics: Metrics,
}

/// What to do for a session.
#[derive(Debug)]
pub(super) enum Pick {
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

impl Shelves {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { metrics, ..Self::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Principal, Shelf>> {
        self.by_principal.lock()
    }

    /// Goes to this principal's shelf. If there are [`MAX_PRINCIPALS`] of others, the one that was
    /// not used for longest goes.
    ///
    /// # Errors
    /// [`Reason::SessionsFull`] if calls wait on all of those.
    pub(super) fn visit(self: &Arc<Self>, principal: &Principal) -> Result<Visitor, Reason> {
        let mut shelves = self.lock();
        if !shelves.contains_key(principal) && shelves.len() >= MAX_PRINCIPALS {
            let idle = shelves.iter().filter(|(_, shelf)| shelf.is_idle());
            let oldest = idle.min_by_key(|(_, shelf)| shelf.used).map(|(oldest, _)| oldest.clone());
            let oldest = oldest.ok_or(Reason::SessionsFull(None))?;
            if let Some(shelf) = shelves.remove(&oldest) {
                shelf.close();
            }
            self.metrics.count(Outcome::IdleGivenUp);
        }
        let warm = shelves.entry(principal.clone()).or_insert_with(|| Shelf::new(Instant::now()));
        warm.visitors += 1;
        let place = ShelfPlace { shelves: Arc::clone(self), principal: principal.clone() };
        Ok(Visitor { failures: warm.failures, shelf: place })
    }

    /// Keeps new calls to these times: a session with others ends as soon as it waits for nothing.
    pub(super) fn keep_to(&self, times: SessionTimes) {
        *self.times.lock() = Some(times);
        self.give_up();
    }

    /// Ends the sessions that wait for nothing, and forgets them. Says if there was one.
    pub(super) fn give_up(&self) -> bool {
        let mut given_up = false;
        for shelf in self.lock().values_mut() {
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
struct ShelfPlace {
    shelves: Arc<Shelves>,
    principal: Principal,
}

impl ShelfPlace {
    /// Does something at the shelf; nothing if it is gone. An empty shelf goes.
    fn at<T>(&self, work: impl FnOnce(&mut Shelf) -> T) -> Option<T> {
        let mut shelves = self.shelves.lock();
        let warm = shelves.get_mut(&self.principal)?;
        let done = work(warm);
        if warm.visitors == 0 && warm.opening == 0 {
            warm.sessions.retain(|session| !session.is_ended());
            if warm.sessions.is_empty() {
                shelves.remove(&self.principal);
            }
        }
        Some(done)
    }
}

/// A call that looks for a session: its principal's shelf stays meanwhile.
#[derive(Debug)]
pub(super) struct Visitor {
    shelf: ShelfPlace,
    /// How many sessions could not be opened before it came: whoever waited while one failed opens
    /// none, or all would wait for their turn to fail.
    failures: u64,
}

impl Visitor {
    pub(super) fn principal(&self) -> &Principal {
        &self.shelf.principal
    }

    /// Picks a session that waits for nothing; where no further one may be opened, the least busy.
    pub(super) fn pick(&self) -> Pick {
        let times = *self.shelf.shelves.times.lock();
        let is_stale = |session: &Session| times.is_some_and(|times| times != session.times());
        let pick = self.shelf.at(|warm| {
            let failed = warm.failed.clone().filter(|_| warm.failures > self.failures);
            warm.sessions.retain(|session| {
                if is_stale(session) && session.calls() == 0 {
                    session.close();
                }
                !session.is_ended()
            });
            let fresh = warm.sessions.iter().filter(|session| !is_stale(session));
            let full = fresh.clone().count() + warm.opening >= WARM;
            let least = fresh.min_by_key(|session| session.calls());
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
pub(super) struct OnShelf(ShelfPlace);

impl Drop for OnShelf {
    fn drop(&mut self) {
        self.0.at(|_shelf| {});
    }
}

/// A place on the shelf for a session that is being opened.
#[derive(Debug)]
pub(super) struct Opening(ShelfPlace);

impl Opening {
    pub(super) fn fill(self, session: &Arc<Session>) {
        self.0.at(|warm| warm.sessions.push(Arc::clone(session)));
    }

    pub(super) fn fail(self, reason: &Reason) {
        self.0.at(|warm| {
            warm.failures += 1;
            warm.failed = Some(reason.clone());
        });
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.at(|warm| warm.opening = warm.opening.saturating_sub(1));
        self.0.shelves.filled.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::backend::Link;
    use crate::caller::{Caller, Transport};
    use crate::drain::Drain;
    use crate::mcp::call::Permitted;
    use crate::mcp::session::Terms;
    use crate::mcp::session::id::SessionId;
    use crate::mcp::session::state::Onto;
    use crate::mcp::session::tests::TIMES;
    use crate::wire::jsonrpc::Message;

    fn session(place: OnShelf) -> Arc<Session> {
        session_with(TIMES, place)
    }

    fn session_with(times: SessionTimes, place: OnShelf) -> Arc<Session> {
        let (to_backend, _told) = tokio::sync::mpsc::channel(1);
        let (_say, from_backend) = tokio::sync::mpsc::channel(1);
        let terms = Terms { times, quota: Quota::unbounded(), metrics: Metrics::default() };
        let owner = (Principal::Anonymous, Transport::Bare);
        let link = Link { to_backend, from_backend };
        Session::start(SessionId::random().unwrap(), owner, terms, link, place, &Drain::default())
    }

    fn visit(pool: &Arc<Shelves>) -> Visitor {
        pool.visit(&Principal::Anonymous).unwrap()
    }

    fn open(pool: &Arc<Shelves>) -> Opening {
        let Pick::Open(opening) = visit(pool).pick() else { unreachable!() };
        opening
    }

    #[tokio::test]
    async fn an_opening_that_fails_fails_all_who_waited_and_nobody_else() {
        let pool = Arc::<Shelves>::default();
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
        let pool = Arc::<Shelves>::default();
        let visitor = visit(&pool);
        let Pick::Open(opening) = visitor.pick() else { unreachable!() };
        let warm = session(visitor.on_shelf());
        opening.fill(&warm);
        drop(visitor);
        assert_eq!(pool.lock().len(), 1);
        warm.close();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(pool.lock().is_empty(), "its session ended");
        open(&pool).fail(&Reason::BackendBusy);
        assert!(pool.lock().is_empty(), "nothing was opened");
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_with_the_times_of_before_serves_no_new_call() {
        let pool = Arc::<Shelves>::default();
        let visitor = visit(&pool);
        let open = || {
            let Pick::Open(opening) = visitor.pick() else { panic!("no place on the shelf") };
            opening
        };
        let busy = |times| {
            let session = session_with(times, visitor.on_shelf());
            open().fill(&session);
            let request = Message::request(&1.into(), "tools/list", &json!({}));
            let calls = &mut [Permitted::of_edge(request, Arc::new(Caller::stdio()))];
            let onto = Onto::Own { events: false };
            session.state().begin(calls, onto, Instant::now() + TIMES.call).unwrap();
            session
        };
        let before: Vec<_> = (1..WARM).map(|_| busy(TIMES)).collect();
        let late = open();
        let now = SessionTimes { idle: TIMES.idle * 2, ..TIMES };
        pool.keep_to(now);
        let old = session(visitor.on_shelf());
        late.fill(&old);
        let fresh: Vec<_> = (0..WARM).map(|_| busy(now)).collect();
        assert!(old.is_ended(), "it came too late");
        let Pick::Take(taken) = visitor.pick() else { panic!("no session is taken") };
        assert!(fresh.iter().any(|session| Arc::ptr_eq(session, &taken)));
        before[0].state().cancel(&1.into(), Instant::now());
        let _taken = visitor.pick();
        assert!(before[0].is_ended(), "its call is over");
        assert!(!before[1].is_ended(), "its call goes on");
    }

    #[tokio::test]
    async fn principals_have_a_lid_and_an_idle_one_gives_way() {
        let principal = |number: usize| {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&number.to_be_bytes());
            Principal::Token(crate::caller::TokenId(digest))
        };
        let pool = Arc::new(Shelves::new(Metrics::default()));
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
        assert_eq!(pool.lock().len(), MAX_PRINCIPALS - 1);
        assert_eq!(pool.metrics.outcomes()["idle_given_up"], 1);
    }
}
