//! Calls without a session, in front of a Streamable HTTP upstream: answered in the caller's own
//! task, over one upstream session for each principal.
//!
//! An upstream that keeps no sessions gets the bytes as they came. One that does gets each call
//! under an id of the edge's own, so that callers who share a session never share an id.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::channel::{Channel, Unanswered};
use super::kind::{self, Spoken};
use super::patience::Patience;
use super::streamable::{ENDING, learn};
use super::{Shared, UpstreamBackend};
use crate::caller::{Caller, Principal};
use crate::drain::Drain;
use crate::wire::jsonrpc::{Message, RequestId};

/// Calls of one principal that may be under way at once.
const MAX_CALLS: usize = 256;

/// One principal's session for calls without one.
#[derive(Debug)]
pub(super) struct Direct {
    channel: Channel,
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
}

/// What came of a call that was made directly.
#[derive(Debug)]
pub(crate) enum Directly {
    /// Its answer.
    Answered(Message),
    /// The upstream did not answer: an error of the edge's own.
    Unanswered {
        /// The JSON-RPC code for it.
        code: i32,
        /// What was wrong.
        text: String,
    },
    /// So many are under way that this one has no place.
    Full,
    /// This upstream has no direct way: a session is needed.
    NoWay,
}

impl UpstreamBackend {
    /// Makes one call. Dropped, it is cancelled.
    pub(crate) async fn call(
        &self,
        principal: &Principal,
        request: &Message,
        caller: &Arc<Caller>,
    ) -> Directly {
        if request.id().is_none() {
            return Directly::NoWay;
        }
        let spoken = match self.shared.known() {
            Some(spoken) => Ok(spoken),
            None => Box::pin(self.find_out(caller)).await,
        };
        match spoken {
            Ok(Spoken::Streamable) => {}
            Ok(Spoken::Sse) => return Directly::NoWay,
            Err(text) => return Unanswered::from(text).into(),
        }
        let direct = self.direct(principal);
        let Ok(place) = Arc::clone(&direct.places).try_acquire_owned() else {
            return Directly::Full;
        };
        let answer = direct.ask(request, caller, &self.drain, place).await;
        answer.map_or_else(Directly::from, Directly::Answered)
    }

    /// Finds out what the upstream speaks, whoever leaves meanwhile: what was begun for that is
    /// ended again.
    async fn find_out(&self, caller: &Arc<Caller>) -> Result<Spoken, String> {
        let shared = Arc::clone(&self.shared);
        let caller = Arc::clone(caller);
        let spoken = on_its_own(&self.drain, async move { shared.spoken(&caller).await });
        spoken.await.unwrap_or_else(|| Err("the server is stopping".to_owned()))
    }

    fn direct(&self, principal: &Principal) -> Arc<Direct> {
        if let Some(direct) = self.directs.get(principal) {
            return Arc::clone(&direct);
        }
        let begun = self.directs.entry(principal.clone()).or_insert_with(|| {
            let direct = Arc::new(Direct::new(&self.shared));
            let stopping = self.drain.stopping();
            let ending = Arc::clone(&direct);
            self.drain.spawn_behind(async move {
                stopping.await;
                ending.channel.end(&Caller::stdio(), ENDING).await;
            });
            direct
        });
        Arc::clone(&begun)
    }
}

impl Direct {
    fn new(shared: &Arc<Shared>) -> Self {
        let channel = Channel::new(Arc::clone(shared), None);
        channel.note(&kind::initialize(&channel.name()));
        channel.note(&Message::notification("notifications/initialized", &serde_json::Value::Null));
        Self { channel, shared: Arc::clone(shared), places: Arc::new(Semaphore::new(MAX_CALLS)) }
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

impl From<Unanswered> for Directly {
    fn from(Unanswered { code, text }: Unanswered) -> Self {
        Self::Unanswered { code, text }
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
            direct.channel.tell(&message, &caller).await;
        });
    }
}
