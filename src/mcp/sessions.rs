//! Opens sessions in front of the backend, and ends idle ones for them.
//!
//! What every transport shares is here. A session holds places that are scarce: in the table, and of
//! the backend, if that is a process.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::Reason;
use super::call::Sender;
use super::exchange::Head;
use super::incoming::Weighed;
use super::ready::readiness::Readiness;
use super::session::id::SessionId;
use super::session::table::{Newcomer, NoPlace, SessionPlace, SessionTable};
use super::session::{Session, SessionTimes, Terms, Unknown};
use super::shelves::{Shelves, Visitor};
use crate::backend::{Backend, Link, OpenError, Starter};
use crate::caller::{Caller, Principal, Transport};
use crate::drain::Drain;
use crate::guard::Admitted;
use crate::limits::addr::ClientKey;
use crate::limits::bytes::{Budget, Quota};
use crate::observe::chain;
use crate::observe::metrics::{Metrics, Outcome};
use crate::policy::Policy;

/// How long a request waits for a place that something idle is about to give up: a process that is
/// ended takes up to twice [`crate::backend::CHILD_STEP`].
const PLACE_WAIT: Duration = Duration::from_secs(5);

/// How often a process's place that is about to be free is asked for.
pub(super) const PLACE_POLL: Duration = Duration::from_millis(20);

/// All sessions, and what opens them.
#[derive(Debug)]
pub(super) struct Sessions {
    pub(super) backend: Backend,
    /// Those that clients know by an id.
    pub(super) table: SessionTable,
    /// Those that serve calls without one.
    pub(super) shelves: Arc<Shelves>,
    /// Whether the backend answers, and the session that asks it.
    pub(super) readiness: Arc<Readiness>,
    pub(super) budget: Budget,
    pub(super) drain: Drain,
    metrics: Metrics,
}

impl Sessions {
    pub(super) fn new(backend: Backend, budget: Budget, metrics: Metrics, drain: Drain) -> Self {
        Self {
            backend,
            table: SessionTable::counting(metrics.gauges().sessions.clone()),
            shelves: Arc::new(Shelves::new(metrics.clone())),
            readiness: Arc::default(),
            budget,
            drain,
            metrics,
        }
    }

    /// Keeps to this policy, which has replaced another, in what all sessions share. Sessions that
    /// are open keep the times that they started with, so warm ones with other times serve no new
    /// call.
    pub(super) fn keep_to(&self, policy: &Policy, before: &Policy) {
        self.backend.keep_to(&policy.limits, &policy.times);
        if SessionTimes::from(&policy.times) != SessionTimes::from(&before.times) {
            self.shelves.keep_to(SessionTimes::from(&policy.times));
        }
    }

    /// Refuses what would begin while the edge is going down.
    pub(super) fn check_open(&self) -> Result<(), Reason> {
        if self.drain.is_draining() { Err(Reason::Draining) } else { Ok(()) }
    }

    /// The memory that a client's messages must fit into once the backend has read them. `None` if
    /// it takes them as text.
    pub(super) fn weighed<'q>(&self, quota: &'q Quota, with_text: bool) -> Option<Weighed<'q>> {
        self.backend.reads_values().then_some(Weighed { quota, with_text })
    }

    /// The sender of what comes in one request.
    pub(super) fn sender<'a>(
        policy: &Policy,
        admitted: &'a Admitted,
        caller: Caller,
    ) -> Sender<'a> {
        Sender::new(policy.tools, admitted.grant(), caller)
    }

    /// The sender of what comes in a request that names this session.
    pub(super) fn sender_in<'a>(session: &Session, head: Head<'a>) -> Sender<'a> {
        let Head { policy, admitted, caller, .. } = head;
        let alias = Some(session.id().alias());
        let transport = session.transport();
        Self::sender(policy, admitted, Caller { transport, session: alias, ..caller })
    }

    pub(super) fn terms(&self, policy: &Policy, quota: Quota) -> Terms {
        Terms { times: SessionTimes::from(&policy.times), quota, metrics: self.metrics.clone() }
    }

    /// Opens a session that its client will know by an id.
    pub(super) async fn open_session(
        &self,
        head: &Head<'_>,
        transport: Transport,
    ) -> Result<Arc<Session>, Reason> {
        let (policy, client) = (head.policy, head.client);
        let principal = head.principal();
        let place = self.take_place(policy, client, principal).await?;
        let quota = head.caller.quota.clone();
        let link = self.open_link(policy, Starter::Client(client), &quota, Some(principal)).await?;
        let id = place.id().clone();
        let hold = place.hold();
        let owner = (principal.clone(), transport);
        let terms = self.terms(policy, quota);
        let session = Session::start(id, owner, terms, link, place, &self.drain);
        self.table.enter(&session, hold);
        Ok(session)
    }

    /// Takes a place for a session. Waits a moment for one that is about to be idle long enough.
    pub(super) async fn take_place(
        &self,
        policy: &Policy,
        client: ClientKey,
        principal: &Principal,
    ) -> Result<SessionPlace, Reason> {
        let patience = Instant::now() + PLACE_WAIT;
        loop {
            let (at, reason): (_, fn(_) -> _) =
                match self.table.take(client, Newcomer { principal, patience }, &policy.limits) {
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
    pub(super) async fn open_warm(
        &self,
        policy: &Policy,
        visitor: &Visitor,
        deadline: Instant,
    ) -> Result<Arc<Session>, Reason> {
        let (principal, quota) = (visitor.principal(), visitor.quota(&self.budget));
        // One that is there can be shared: nobody has to go for a further one.
        let needed = visitor.any().is_none();
        let needed = needed.then_some(principal);
        let link = self.open_link(policy, Starter::Edge, &quota, needed).await?;
        let owner = (principal.clone(), Transport::Bare);
        let id = SessionId::random()?;
        let terms = self.terms(policy, quota.clone());
        let place = visitor.on_shelf();
        let session = Session::start(id, owner, terms, link, place, &self.drain);
        // A caller that goes away meanwhile leaves nobody who knows of it.
        let unknown = Unknown::new(Arc::clone(&session));
        let caller = Arc::new(Caller { quota, ..Caller::edge() });
        let begun = timeout_at(deadline, session.initialize(&caller)).await;
        begun.unwrap_or_else(|_elapsed| Err(session.late(policy.times.call)))?;
        unknown.known();
        Ok(session)
    }

    /// Opens a link to the backend. If every place for a process is taken, what is only kept at
    /// hand gives its place up, else an idle session does if it is needed for a principal.
    async fn open_link(
        &self,
        policy: &Policy,
        who: Starter,
        quota: &Quota,
        needed_for: Option<&Principal>,
    ) -> Result<Link, Reason> {
        let mut patience = Instant::now() + PLACE_WAIT;
        let mut given_up = false;
        loop {
            match self.backend.open(who, quota, &policy.limits) {
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
                    tracing::error!(error = %chain(&error), "could not open the backend");
                    return Err(Reason::BackendFailed(chain(&error)));
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
        if self.shelves.give_up() {
            self.metrics.count(Outcome::IdleGivenUp);
            return Ok(());
        }
        let evicted = match needed_for {
            Some(principal) => self.table.evict(None, Newcomer { principal, patience }),
            None => Err(None),
        };
        match evicted {
            Err(at) if at.is_none_or(|at| at > patience) && self.readiness.give_up() => {
                self.metrics.count(Outcome::IdleGivenUp);
                Ok(())
            }
            evicted => evicted.map(drop),
        }
    }
}
