//! Calls without a session, in front of a Streamable HTTP upstream: answered in the caller's own
//! task, over one upstream session for each principal.
//!
//! An upstream that keeps no sessions gets the bytes as they came. One that does gets each call
//! under an id of the edge's own, so that callers who share a session never share an id.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::channel::{Channel, Unanswered};
use super::kind::{self, Spoken};
use super::patience::Patience;
use super::shared::Shared;
use super::streamable::{ENDING, learn};
use crate::caller::{Caller, MAX_PRINCIPALS, Principal};
use crate::drain::Drain;
use crate::observe::metrics::Outcome;
use crate::wire::jsonrpc::{Message, RequestId};

/// Calls of one principal that may be under way at once.
const MAX_CALLS: usize = 256;

/// The sessions for calls without one: of every principal that made such a call lately.
#[derive(Debug)]
pub(super) struct Directs {
    shared: Arc<Shared>,
    sessions: Arc<Sessions>,
    drain: Drain,
}

#[derive(Debug)]
struct Sessions {
    by_principal: Mutex<HashMap<Principal, Arc<Direct>>>,
    /// A session that no call was made on for so long is ended.
    idle: Duration,
}

/// One principal's session for calls without one.
#[derive(Debug)]
pub(super) struct Direct {
    channel: Channel,
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
    begun: Instant,
    /// When the last call began: milliseconds since `begun`.
    used: AtomicU64,
    /// It had to make room for another principal's.
    evicted: CancellationToken,
}

/// Who holds a session that no call is made on: [`Sessions`], and the task that ends it.
const HOLDERS: usize = 2;

/// Why a call that was made without a session has no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The upstream did not answer: an error of the edge's own.
    Failed {
        /// The JSON-RPC code for it.
        code: i32,
        /// What was wrong.
        text: String,
    },
    /// So many calls of its principal are under way that it has no place.
    CallsFull,
    /// So many principals have calls under way that its principal has no place.
    PrincipalsFull,
}

impl Directs {
    /// Makes one call. `None` if this upstream takes none without a session. Dropped, it is
    /// cancelled.
    pub(super) async fn call(
        &self,
        request: &Message,
        caller: &Arc<Caller>,
    ) -> Option<Result<Message, NoAnswer>> {
        request.id()?;
        let spoken = match self.shared.known() {
            Some(spoken) => Ok(spoken),
            None => Box::pin(self.find_out(caller)).await,
        };
        match spoken {
            Ok(Spoken::Streamable) => {}
            Ok(Spoken::Sse) => return None,
            Err(text) => return Some(Err(Unanswered::from(text).into())),
        }
        let Some(direct) = self.of(&caller.principal) else {
            return Some(Err(NoAnswer::PrincipalsFull));
        };
        let Ok(place) = Arc::clone(&direct.places).try_acquire_owned() else {
            return Some(Err(NoAnswer::CallsFull));
        };
        let answer = direct.ask(request, caller, &self.drain, place).await;
        Some(answer.map_err(NoAnswer::from))
    }

    /// Finds out what the upstream speaks, whoever leaves meanwhile: what was begun for that is
    /// ended again.
    async fn find_out(&self, caller: &Arc<Caller>) -> Result<Spoken, String> {
        let shared = Arc::clone(&self.shared);
        let caller = Arc::clone(caller);
        let spoken = on_its_own(&self.drain, async move { shared.spoken(&caller).await });
        spoken.await.unwrap_or_else(|| Err("the server is stopping".to_owned()))
    }
}

impl Directs {
    pub(super) fn new(shared: Arc<Shared>, idle: Duration, drain: Drain) -> Self {
        let sessions = Arc::new(Sessions { by_principal: Mutex::default(), idle });
        Self { shared, sessions, drain }
    }

    /// The session of this principal. `None` if there are [`MAX_PRINCIPALS`] others, all in use.
    fn of(&self, principal: &Principal) -> Option<Arc<Direct>> {
        let mut sessions = self.sessions.lock();
        if let Some(direct) = sessions.get(principal) {
            direct.note_use();
            return Some(Arc::clone(direct));
        }
        if sessions.len() >= MAX_PRINCIPALS {
            let idle = sessions.iter().filter(|(_, direct)| Arc::strong_count(direct) <= HOLDERS);
            let (oldest, direct) = idle.min_by_key(|(_, direct)| direct.last_use())?;
            direct.evicted.cancel();
            let oldest = oldest.clone();
            sessions.remove(&oldest);
            self.shared.metrics.count(Outcome::IdleGivenUp);
        }
        let direct = Arc::new(Direct::new(&self.shared));
        sessions.insert(principal.clone(), Arc::clone(&direct));
        let (principal, ending) = (principal.clone(), Arc::clone(&direct));
        let (sessions, stopping) = (Arc::clone(&self.sessions), self.drain.stopping());
        self.drain.spawn_behind(async move {
            tokio::select! {
                () = stopping => {}
                () = ending.evicted.cancelled() => {}
                () = sessions.forget_when_idle(&principal, &ending) => {}
            }
            ending.channel.end(&Caller::edge(), ENDING).await;
        });
        Some(direct)
    }
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<Principal, Arc<Direct>>> {
        self.by_principal.lock()
    }

    /// Resolves when the session is idle, and nobody finds it any more.
    async fn forget_when_idle(&self, principal: &Principal, direct: &Arc<Direct>) {
        let mut due = pin!(sleep_until(direct.last_use() + self.idle));
        loop {
            due.as_mut().await;
            let next = {
                let mut sessions = self.lock();
                // Whoever makes a call holds it, and nobody else finds it meanwhile.
                let in_use = Arc::strong_count(direct) > HOLDERS;
                let since = if in_use { Instant::now() } else { direct.last_use() };
                if since + self.idle <= Instant::now() {
                    sessions.remove(principal);
                    return;
                }
                since + self.idle
            };
            due.as_mut().reset(next);
        }
    }
}

impl Direct {
    fn note_use(&self) {
        let elapsed = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.used.store(elapsed, Ordering::Relaxed);
    }

    fn last_use(&self) -> Instant {
        self.begun + Duration::from_millis(self.used.load(Ordering::Relaxed))
    }

    fn new(shared: &Arc<Shared>) -> Self {
        let channel = Channel::new(Arc::clone(shared), None);
        channel.note(&kind::initialize(&channel.name()));
        channel.note(&Message::notification("notifications/initialized", &serde_json::Value::Null));
        Self {
            channel,
            shared: Arc::clone(shared),
            places: Arc::new(Semaphore::new(MAX_CALLS)),
            begun: Instant::now(),
            used: AtomicU64::new(0),
            evicted: CancellationToken::new(),
        }
    }

    async fn ask(
        self: &Arc<Self>,
        request: &Message,
        caller: &Arc<Caller>,
        drain: &Drain,
        place: OwnedSemaphorePermit,
    ) -> Result<Message, Unanswered> {
        let _place = if self.channel.epoch() == 0 {
            let beginning = Arc::clone(self).begin(Arc::clone(caller), place);
            let begun = Box::pin(on_its_own(drain, beginning)).await;
            let begun = begun.unwrap_or_else(|| Err("the server is stopping".to_owned().into()));
            self.learn_once(caller, drain);
            begun?
        } else {
            place
        };
        let Some(own) = request.id().filter(|_| self.channel.has_session()) else {
            return self.channel.ask(request, caller).await;
        };
        let id = self.channel.name();
        let waiting = Waiting { direct: self, caller, drain, id: Some(id.clone()) };
        let renamed = request.with_id(&id).charged_if_large(&caller.quota);
        let answer = self.channel.ask(&renamed, caller).await;
        waiting.done();
        Ok(answer?.with_id(own).charged_if_large(&caller.quota))
    }
}

impl Direct {
    /// Begins the session. The caller's place is taken meanwhile, even if the caller leaves.
    async fn begin(
        self: Arc<Self>,
        caller: Arc<Caller>,
        place: OwnedSemaphorePermit,
    ) -> Result<OwnedSemaphorePermit, Unanswered> {
        let mut patience = Patience::new(self.shared.wait);
        Box::pin(self.channel.renew(0, &caller, &mut patience)).await?;
        Ok(place)
    }

    fn learn_once(self: &Arc<Self>, caller: &Arc<Caller>, drain: &Drain) {
        if self.channel.epoch() > 0 && self.shared.tools.must_be_learnt() {
            let direct = Arc::clone(self);
            let caller = Arc::clone(caller);
            drain.spawn_behind(async move {
                learn(&direct.channel, &direct.shared, &caller).await;
            });
        }
    }
}

/// Does something to its end, whether or not somebody waits for it. None if the edge ends first.
async fn on_its_own<T: Send + 'static>(
    drain: &Drain,
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let (tell, told) = oneshot::channel();
    let stopping = drain.stopping();
    drain.spawn_behind(async move {
        tokio::select! {
            // Nobody may be there any more.
            done = work => drop(tell.send(done)),
            () = stopping => {}
        }
    });
    told.await.ok()
}

impl From<Unanswered> for NoAnswer {
    fn from(Unanswered { code, text }: Unanswered) -> Self {
        Self::Failed { code, text }
    }
}

/// A call whose client can only cancel it by going away.
struct Waiting<'a> {
    direct: &'a Arc<Direct>,
    caller: &'a Arc<Caller>,
    drain: &'a Drain,
    id: Option<RequestId>,
}

impl Waiting<'_> {
    fn done(mut self) {
        self.id = None;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let direct = Arc::clone(self.direct);
        let caller = Arc::clone(self.caller);
        self.drain.spawn_behind(async move {
            let message = Message::cancellation(&id, None);
            direct.channel.send(&message, &caller).await;
        });
    }
}
