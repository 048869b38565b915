//! Calls without a session, in front of a Streamable HTTP upstream: answered in the caller's own
//! task, over one upstream session for each principal.
//!
//! An upstream that keeps no sessions gets the bytes as they came. One that does gets each call
//! under an id of the edge's own, so that callers who share a session never share an id.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
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
    sessions: Arc<DirectSessions>,
    drain: Drain,
}

#[derive(Debug)]
struct DirectSessions {
    by_principal: Mutex<HashMap<Principal, KeptSession>>,
    /// A session that was not used for so long is ended.
    idle: watch::Sender<Duration>,
}

/// A session that can be found, and who uses it.
#[derive(Debug)]
struct KeptSession {
    direct: Arc<Direct>,
    users: usize,
    /// When somebody last began to use it, or stopped.
    used: Instant,
}

/// One principal's session for calls without one.
#[derive(Debug)]
struct Direct {
    channel: Channel,
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
    /// Another principal's session takes its place.
    evicted: CancellationToken,
}

/// One user of a session, which is not ended before this is dropped.
#[derive(Debug)]
struct InUse {
    direct: Arc<Direct>,
    sessions: Arc<DirectSessions>,
    principal: Principal,
}

/// Why a call that was made without a session has no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The upstream did not answer: an error of the edge's own.
    Failed { code: i32, text: String },
    /// So many calls of its principal are under way that it has no place.
    CallsFull,
    /// So many principals have calls under way that its principal has no place.
    PrincipalsFull,
}

impl Directs {
    pub(super) fn new(shared: Arc<Shared>, idle: Duration, drain: Drain) -> Self {
        let idle = watch::Sender::new(idle);
        let sessions = Arc::new(DirectSessions { by_principal: Mutex::default(), idle });
        Self { shared, sessions, drain }
    }

    /// Ends sessions that are not used for so long from now on.
    pub(super) fn keep_to(&self, idle: Duration) {
        self.sessions.idle.send_replace(idle);
    }

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
        let Some(in_use) = self.of(&caller.principal) else {
            return Some(Err(NoAnswer::PrincipalsFull));
        };
        let Ok(place) = Arc::clone(&in_use.direct.places).try_acquire_owned() else {
            return Some(Err(NoAnswer::CallsFull));
        };
        let answer = in_use.ask(request, caller, &self.drain, place).await;
        Some(answer.map_err(NoAnswer::from))
    }

    /// Finds out what the upstream speaks, whoever leaves meanwhile: what was begun for that is
    /// ended again.
    async fn find_out(&self, caller: &Arc<Caller>) -> Result<Spoken, String> {
        let shared = Arc::clone(&self.shared);
        let caller = Arc::clone(caller);
        on_its_own(&self.drain, async move { shared.spoken(&caller).await }).await
    }

    /// The session of this principal. `None` if there are [`MAX_PRINCIPALS`] others, all in use.
    fn of(&self, principal: &Principal) -> Option<Arc<InUse>> {
        let mut sessions = self.sessions.by_principal.lock();
        let now = Instant::now();
        let in_use = |direct| {
            let sessions = Arc::clone(&self.sessions);
            Some(Arc::new(InUse { direct, sessions, principal: principal.clone() }))
        };
        if let Some(kept) = sessions.get_mut(principal) {
            kept.users += 1;
            kept.used = now;
            return in_use(Arc::clone(&kept.direct));
        }
        if sessions.len() >= MAX_PRINCIPALS {
            let idle = sessions.iter().filter(|(_, kept)| kept.users == 0);
            let (oldest, kept) = idle.min_by_key(|(_, kept)| kept.used)?;
            kept.direct.evicted.cancel();
            let oldest = oldest.clone();
            sessions.remove(&oldest);
            self.shared.metrics.count(Outcome::IdleGivenUp);
        }
        let direct = Arc::new(Direct::new(&self.shared));
        let kept = KeptSession { direct: Arc::clone(&direct), users: 1, used: now };
        sessions.insert(principal.clone(), kept);
        let (owner, ending) = (principal.clone(), Arc::clone(&direct));
        let (all, stopping) = (Arc::clone(&self.sessions), self.drain.stopping());
        self.drain.spawn_behind(async move {
            tokio::select! {
                () = stopping => {}
                () = ending.evicted.cancelled() => {}
                () = all.forget_when_idle(&owner, &ending) => {}
            }
            ending.channel.end(&Caller::edge(), ENDING).await;
        });
        in_use(direct)
    }
}

impl DirectSessions {
    /// Resolves when the session is idle, and nobody finds it any more.
    async fn forget_when_idle(&self, principal: &Principal, direct: &Arc<Direct>) {
        let mut idle = self.idle.subscribe();
        loop {
            let time = *idle.borrow_and_update();
            let due = {
                let mut sessions = self.by_principal.lock();
                let kept = sessions.get(principal);
                // After an eviction, another session may be in its place.
                let Some(kept) = kept.filter(|kept| Arc::ptr_eq(&kept.direct, direct)) else {
                    return;
                };
                let (in_use, now) = (kept.users > 0, Instant::now());
                let due = if in_use { now } else { kept.used } + time;
                if !in_use && due <= now {
                    sessions.remove(principal);
                    return;
                }
                due
            };
            tokio::select! {
                () = sleep_until(due) => {}
                _changed = idle.changed() => {}
            }
        }
    }
}

impl Direct {
    fn new(shared: &Arc<Shared>) -> Self {
        let channel = Channel::new(Arc::clone(shared), None);
        channel.note(&kind::initialize(&channel.name()));
        channel.note(&Message::notification("notifications/initialized", &serde_json::Value::Null));
        Self {
            channel,
            shared: Arc::clone(shared),
            places: Arc::new(Semaphore::new(MAX_CALLS)),
            evicted: CancellationToken::new(),
        }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        // One that is in use is not taken out of the map.
        if let Some(kept) = self.sessions.by_principal.lock().get_mut(&self.principal) {
            kept.users = kept.users.saturating_sub(1);
            kept.used = Instant::now();
        }
    }
}

impl InUse {
    async fn ask(
        self: &Arc<Self>,
        request: &Message,
        caller: &Arc<Caller>,
        drain: &Drain,
        place: OwnedSemaphorePermit,
    ) -> Result<Message, Unanswered> {
        let _place = if self.direct.channel.epoch() == 0 {
            let beginning = Arc::clone(self).begin(Arc::clone(caller), place);
            let begun = Box::pin(on_its_own(drain, beginning)).await;
            self.learn_once(caller, drain);
            begun?
        } else {
            place
        };
        let Some(own) = request.id().filter(|_| self.direct.channel.has_session()) else {
            return self.direct.channel.ask(request, caller).await;
        };
        let id = self.direct.channel.name();
        let waiting = DirectCall { in_use: self, caller, drain, id: Some(id.clone()) };
        let renamed = request.with_id(&id).charged_if_large(&caller.quota);
        let answer = self.direct.channel.ask(&renamed, caller).await;
        waiting.done();
        Ok(answer?.with_id(own).charged_if_large(&caller.quota))
    }

    /// Begins the session. The caller's place is taken meanwhile, even if the caller leaves.
    async fn begin(
        self: Arc<Self>,
        caller: Arc<Caller>,
        place: OwnedSemaphorePermit,
    ) -> Result<OwnedSemaphorePermit, Unanswered> {
        let mut patience = Patience::new(self.direct.shared.wait);
        Box::pin(self.direct.channel.renew(0, &caller, &mut patience)).await?;
        Ok(place)
    }

    fn learn_once(self: &Arc<Self>, caller: &Arc<Caller>, drain: &Drain) {
        if self.direct.channel.epoch() > 0 && self.direct.shared.tools.must_be_learnt() {
            let in_use = Arc::clone(self);
            let caller = Arc::clone(caller);
            drain.spawn_behind(async move {
                let Direct { channel, shared, .. } = &*in_use.direct;
                learn(channel, shared, &caller).await;
            });
        }
    }
}

/// Does something to its end, whether or not somebody waits for it, unless the edge ends first.
async fn on_its_own<T: Send + 'static, E: From<String> + Send + 'static>(
    drain: &Drain,
    work: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E> {
    let (tell, told) = oneshot::channel();
    let stopping = drain.stopping();
    drain.spawn_behind(async move {
        tokio::select! {
            // Nobody may be there any more.
            done = work => drop(tell.send(done)),
            () = stopping => {}
        }
    });
    told.await.unwrap_or_else(|_ended| Err("the server is stopping".to_owned().into()))
}

impl From<Unanswered> for NoAnswer {
    fn from(Unanswered { code, text }: Unanswered) -> Self {
        Self::Failed { code, text }
    }
}

/// A call whose client can only cancel it by going away.
struct DirectCall<'a> {
    in_use: &'a Arc<InUse>,
    caller: &'a Arc<Caller>,
    drain: &'a Drain,
    id: Option<RequestId>,
}

impl DirectCall<'_> {
    fn done(mut self) {
        self.id = None;
    }
}

impl Drop for DirectCall<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let in_use = Arc::clone(self.in_use);
        let caller = Arc::clone(self.caller);
        self.drain.spawn_behind(async move {
            let message = Message::cancellation(&id, None);
            in_use.direct.channel.send(&message, &caller).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;
    use crate::caller::TokenId;
    use crate::client::Client;
    use crate::config;
    use crate::observe::metrics::Metrics;

    const MINUTE: Duration = Duration::from_mins(1);
    const HOUR: Duration = Duration::from_hours(1);

    fn directs(metrics: Metrics) -> Directs {
        let config = config::Upstream::new("http://127.0.0.1:1/mcp".parse().unwrap());
        let client = Arc::new(Client::new(&config).unwrap());
        let shared = Arc::new(Shared::new(client, &config, 1000, metrics));
        Directs::new(shared, HOUR, Drain::default())
    }

    fn open(directs: &Directs) -> usize {
        directs.sessions.by_principal.lock().len()
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_that_was_not_used_for_the_idle_time_of_now() {
        let directs = directs(Metrics::default());
        let in_use = directs.of(&Principal::Anonymous).unwrap();
        sleep(MINUTE * 150).await;
        assert_eq!(open(&directs), 1, "it is in use");
        drop(in_use);
        sleep(MINUTE * 45).await;
        assert_eq!(open(&directs), 1, "it was in use within the hour");
        directs.keep_to(MINUTE);
        sleep(Duration::from_millis(1)).await;
        assert_eq!(open(&directs), 0, "it was idle for longer");
        drop(directs.of(&Principal::Anonymous).unwrap());
        directs.keep_to(HOUR);
        sleep(MINUTE * 2).await;
        assert_eq!(open(&directs), 1);
        sleep(HOUR).await;
        assert_eq!(open(&directs), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn principals_have_a_lid_and_a_session_that_nobody_uses_gives_way() {
        let principal = |number: usize| {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&number.to_be_bytes());
            Principal::Token(TokenId(digest))
        };
        let metrics = Metrics::default();
        let directs = directs(metrics.clone());
        let mut users: Vec<_> =
            (0..MAX_PRINCIPALS).map(|number| directs.of(&principal(number)).unwrap()).collect();
        let twice = directs.of(&principal(7)).unwrap();
        users.remove(7);
        assert!(directs.of(&principal(9999)).is_none(), "each is in use");
        drop(twice);
        assert!(directs.of(&principal(9999)).is_some());
        assert!(!directs.sessions.by_principal.lock().contains_key(&principal(7)));
        assert_eq!(metrics.outcomes()["idle_given_up"], 1);
    }
}
