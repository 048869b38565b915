//! One session in front of an HTTP+SSE upstream (2024-11-05): a stream that everything comes down,
//! and POSTs beside it.
//!
//! When the stream breaks, calls that may be repeated are held until the upstream is back and has
//! been told again what the client said at the beginning; the others fail at once.

mod connect;
mod learn;
mod posts;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use self::connect::{Connected, connect};
use self::posts::{Posts, Taken};
use super::memory::{Memory, epoch};
use super::patience::{FIRST_PAUSE, LONGEST_PAUSE};
use super::shared::{Shared, refuse};
use super::streamable::follows;
use super::wire::Answer;
use crate::backend::catalog::Walk;
use crate::backend::{self, During, FromBackend, ToBackend};
use crate::caller::Caller;
use crate::client::SendError;
use crate::observe::metrics::Outcome;
use crate::wire::jsonrpc::{Kind, Malformed, Message, RequestId, Skim, code};

/// Messages that wait for the POST before them. The link's own queue holds the rest.
const OUTBOX: usize = 4;

/// Carries one session until its client is gone.
pub(super) async fn run(
    shared: &Arc<Shared>,
    first: ToBackend,
    told: mpsc::Receiver<ToBackend>,
    say: mpsc::Sender<FromBackend>,
) {
    let mut session = SseSession {
        caller: Arc::clone(&first.caller),
        shared: Arc::clone(shared),
        told,
        say,
        memory: Memory::beside_a_client(),
        epoch: 0,
        down: None,
        pause: FIRST_PAUSE,
        brief: 0,
        quiet: None,
        held: Vec::new(),
        outbox: VecDeque::new(),
        flying: HashMap::new(),
        hello: None,
        posts: Posts::default(),
        own: HashSet::new(),
        learning: None,
    };
    session.hold(first.into());
    while let Some(connected) = session.reach().await {
        let Some(why) = session.serve(connected).await else { return };
        session.fell(&why).await;
    }
}

/// A message on its way up.
struct Sending {
    told: ToBackend,
    /// Of a call: until when it is sent again. From the first fault that it met, never renewed.
    until: Option<Instant>,
    /// How often the stream ended while it was under way.
    fallen: u32,
}

impl From<ToBackend> for Sending {
    fn from(told: ToBackend) -> Self {
        Self { told, until: None, fallen: 0 }
    }
}

/// A page of the list of tools that was asked for.
struct Learning {
    id: RequestId,
    walk: Walk,
    until: Instant,
}

struct SseSession {
    shared: Arc<Shared>,
    told: mpsc::Receiver<ToBackend>,
    say: mpsc::Sender<FromBackend>,
    /// Whoever opened the session.
    caller: Arc<Caller>,
    memory: Memory,
    /// How often the stream was connected again.
    epoch: u64,
    /// Why the stream is down; none before the first fault, and while there is a stream.
    down: Option<String>,
    /// Before the stream is opened again. It grows with each try that fails, with each time that the
    /// same call ends the stream, and while streams end at once.
    pause: Duration,
    /// How many streams in a row ended at once, without an answer.
    brief: u32,
    /// Since when there is a stream on which nothing was answered.
    quiet: Option<Instant>,
    /// Calls that wait for the upstream to be there.
    held: Vec<Sending>,
    /// Messages that wait for the POST before them.
    outbox: VecDeque<Sending>,
    /// Calls that were posted and are not answered.
    flying: HashMap<RequestId, Sending>,
    /// The `initialize` among them: what came behind it waits for its answer.
    hello: Option<RequestId>,
    posts: Posts,
    /// Requests of the edge's own that are not answered.
    own: HashSet<RequestId>,
    /// The one of them that asks for the tools.
    learning: Option<Learning>,
}

impl SseSession {
    /// Connects, however long that takes; calls wait for it as long as they may. None once the
    /// client is gone.
    async fn reach(&mut self) -> Option<Connected> {
        let fallen = self.held.iter().map(|held| held.fallen).chain([self.brief]).max();
        self.pause = (1..fallen.unwrap_or_default())
            .fold(FIRST_PAUSE, |pause, _| (pause * 2).min(LONGEST_PAUSE));
        let mut rest = self.down.is_some().then(|| self.rest());
        loop {
            let again = self.memory.initialize().map(|hello| (hello, self.memory.rest()));
            let shared = Arc::clone(&self.shared);
            let caller = Arc::clone(&self.caller);
            let mut trying = Box::pin(connect(shared, caller, again));
            loop {
                let due = self.held.iter().filter_map(|held| held.until).min();
                let now = Instant::now();
                let resting = rest.is_some();
                tokio::select! {
                    tried = &mut trying, if !resting => match tried {
                        Ok(connected) => {
                            self.down = None;
                            return Some(connected);
                        }
                        Err(text) => {
                            self.shared.warn(&text);
                            self.is_down(&text).await;
                            rest = Some(self.rest());
                            break;
                        }
                    },
                    told = self.told.recv() => self.hold(told?.into()),
                    () = sleep_until(due.unwrap_or(now)), if due.is_some() => self.give_up().await,
                    () = sleep_until(rest.unwrap_or(now)), if resting => {
                        rest = None;
                        // What was said meanwhile is to be said again, too.
                        break;
                    }
                    () = self.say.closed() => return None,
                }
            }
        }
    }

    /// Until when nothing is tried. The next time is later.
    fn rest(&mut self) -> Instant {
        let until = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        until
    }

    /// A fault: from the first one on, the time of each call runs.
    async fn is_down(&mut self, why: &str) {
        self.down = Some(why.to_owned());
        for call in std::mem::take(&mut self.held) {
            self.hold(call);
        }
        self.give_up().await;
    }

    /// Keeps a call until the upstream is there. What is no call is lost with it, but for what has
    /// to be said again.
    fn hold(&mut self, sending: Sending) {
        let message = &sending.told.message;
        let waits = match message.kind() {
            Kind::Request { .. } => true,
            Kind::Notification { .. } => {
                self.note(message);
                self.forget_cancelled(message);
                // Its `initialize` waits before it, and nothing of it is said again.
                let begins = message.method() == Some("notifications/initialized");
                begins && !self.memory.is_initialized()
            }
            Kind::Response { .. } => false,
        };
        if waits {
            let begun = self.down.is_some().then(|| Instant::now() + self.shared.wait);
            self.held.push(Sending { until: sending.until.or(begun), ..sending });
        }
    }

    /// A call that is cancelled gets no answer: kept, it would stay, and be sent again.
    fn forget_cancelled(&mut self, message: &Message) {
        if message.method() != Some("notifications/cancelled") {
            return;
        }
        if let Some(id) = message.cancelled() {
            self.held.retain(|held| held.told.message.id() != Some(&id));
            self.over(&id);
        }
    }

    /// A call is answered, or needs no answer.
    fn over(&mut self, id: &RequestId) -> Option<Sending> {
        self.hello.take_if(|hello| hello == id);
        self.posts.over(id);
        self.flying.remove(id)
    }

    /// Notes what is to be said again. `initialize` is, once it was answered.
    fn note(&mut self, message: &Message) {
        if message.method() != Some("initialize") && self.memory.note(message) {
            self.shared.metrics.count(Outcome::SubscriptionForgotten);
        }
    }

    /// Fails the calls whose time is over.
    async fn give_up(&mut self) {
        let why = self.down.clone().unwrap_or_default();
        let now = Instant::now();
        let over = |call: &mut Sending| call.until.is_some_and(|until| until <= now);
        for call in self.held.extract_if(.., over) {
            refuse(&call.told.message, code::INTERNAL_ERROR, &why, &self.say).await;
        }
    }

    /// Carries messages until the stream ends. Says why it did; nothing once the client is gone.
    async fn serve(&mut self, connected: Connected) -> Option<String> {
        let Connected { mut events, post, early, own } = connected;
        if self.memory.initialize().is_some() {
            self.epoch += 1;
            tracing::info!(epoch = self.epoch, "the upstream lost the session: begun again");
        }
        self.own = own;
        self.quiet = Some(Instant::now());
        for message in early {
            self.receive(message).await;
        }
        if self.memory.is_begun() {
            // Whoever asked before heard no answer.
            self.learn();
        }
        self.outbox.extend(self.held.drain(..));
        loop {
            while let Some(next) = self.next_to_post() {
                self.post(next, &post);
            }
            let learnt = self.learning.as_ref().map(|learning| learning.until);
            tokio::select! {
                event = events.next() => match event {
                    Ok(Some(event)) => if let Some(data) = event.data { self.take(data).await },
                    Ok(None) => return Some("it ended the stream".to_owned()),
                    Err(text) => return Some(text),
                },
                taken = self.posts.next(), if !self.posts.is_empty() => {
                    let Some(Taken { message, answer, .. }) = taken else { continue };
                    if let Some(why) = self.settle(&message, answer).await {
                        return Some(why);
                    }
                }
                told = self.told.recv(), if self.outbox.len() < OUTBOX => {
                    self.outbox.push_back(told?.into());
                }
                () = sleep_until(learnt.unwrap_or_else(Instant::now)), if learnt.is_some() => {
                    self.stop_learning();
                }
                () = self.say.closed() => return None,
            }
        }
    }

    fn next_to_post(&mut self) -> Option<Sending> {
        if !self.posts.is_free() {
            return None;
        }
        let Some(hello) = &self.hello else { return self.outbox.pop_front() };
        let next = self.outbox.iter().position(|next| !follows(&next.told.message, hello));
        self.outbox.remove(next?)
    }

    /// Begins to post a message.
    fn post(&mut self, sending: Sending, to: &Uri) {
        let Sending { told: ToBackend { message, caller }, until, fallen } = sending;
        let message = match message.answers() {
            Some(_) => epoch::inward(&message, self.epoch),
            None => Some(message),
        };
        let Some(message) = message else { return };
        self.note(&message);
        self.forget_cancelled(&message);
        if let Some(id) = message.request_id() {
            if message.method() == Some("initialize") {
                self.hello = Some(id.clone());
            }
            let told = ToBackend { message: message.clone(), caller: Arc::clone(&caller) };
            self.flying.insert(id.clone(), Sending { told, until, fallen });
        }
        self.posts.begin(&self.shared, ToBackend { message, caller }, to);
    }

    /// Looks at how a POST was taken. Says why, where nothing more goes this way.
    async fn settle(
        &mut self,
        message: &Message,
        answer: Result<Answer, SendError>,
    ) -> Option<String> {
        let call = message.request_id();
        if call.is_some_and(|id| !self.flying.contains_key(id)) {
            // It was answered on the stream, or cancelled.
            return None;
        }
        match answer {
            Ok(Answer::Accepted { .. } | Answer::Json(_) | Answer::Events(_)) => {
                if message.method() == Some("notifications/initialized") {
                    self.learn();
                }
                None
            }
            Ok(Answer::Refused(refusal)) if refusal.is_lost_session(None) => {
                self.unsend(message);
                Some(refusal.text())
            }
            Ok(Answer::Refused(_)) if call.is_some_and(|id| self.own.remove(id)) => {
                self.stop_learning();
                None
            }
            Ok(Answer::Refused(refusal)) => {
                if call.is_some_and(|id| self.over(id).is_some()) {
                    let code = refusal.error.as_ref().map_or(code::INTERNAL_ERROR, |it| it.0);
                    refuse(message, code, &refusal.text(), &self.say).await;
                }
                None
            }
            Err(fault @ SendError::Unreachable(_)) => {
                self.unsend(message);
                Some(fault.to_string())
            }
            // Its answer comes on the stream, whenever that is.
            Err(SendError::Late(_)) if call.is_some() => None,
            Err(fault @ (SendError::Broken(_) | SendError::Late(_))) => Some(fault.to_string()),
        }
    }

    /// The upstream never got it.
    fn unsend(&mut self, message: &Message) {
        if let Some(call) = message.id().and_then(|id| self.over(id)) {
            self.hold(call);
        }
    }

    async fn take(&mut self, data: Bytes) {
        match Message::parse(data.clone()) {
            Ok(message) => self.receive(message).await,
            Err(error) => {
                tracing::warn!(%error, "the upstream said something that is no message");
                self.misread(&data, &error).await;
            }
        }
    }

    /// Fails the calls whose answers cannot be read: no others come.
    async fn misread(&mut self, data: &[u8], error: &Malformed) {
        let text = format!("the upstream's answer cannot be read: {error}");
        for id in Skim::of(data).answers() {
            let Some(call) = self.over(&id) else { continue };
            self.shared.metrics.count(Outcome::AnswerUnreadable);
            if self.own.remove(&id) {
                self.stop_learning();
            } else {
                refuse(&call.told.message, code::INTERNAL_ERROR, &text, &self.say).await;
            }
        }
    }

    /// Hands on what the upstream says.
    async fn receive(&mut self, message: Message) {
        if let Some(id) = message.answers() {
            if self.own.remove(id) {
                self.over(id);
                return self.learnt(&message, id);
            }
            let asked = self.over(id).map(|call| call.told.message);
            if asked.is_some() {
                self.quiet = None;
            }
            match asked.as_ref().and_then(Message::method) {
                Some("initialize") if !message.is_error() => {
                    if let Some(asked) = &asked {
                        self.memory.note(asked);
                    }
                }
                Some("tools/list") => self.shared.tools.learn(&message),
                Some(_) | None => {}
            }
        }
        let message = epoch::outward(message, self.epoch, &self.caller.quota);
        // A session that is over hears no more.
        let said = FromBackend::Message { message, during: During::Unknown };
        drop(backend::say(&self.say, said).await);
    }

    /// Sorts the calls that were under way: what may be repeated waits, and so does what was not
    /// posted yet; the rest fails now.
    async fn fell(&mut self, why: &str) {
        tracing::warn!(why, "the upstream's stream is down");
        let why = format!("the upstream broke off: {why}");
        let at_once = self.quiet.is_some_and(|since| since.elapsed() < LONGEST_PAUSE);
        self.brief = if at_once { self.brief.saturating_add(1) } else { 0 };
        (self.posts, self.hello) = (Posts::default(), None);
        let mut own = std::mem::take(&mut self.own);
        for (id, call) in std::mem::take(&mut self.flying) {
            if own.remove(&id) {
                continue;
            }
            if self.shared.tools.may_repeat(&call.told.message) {
                self.hold(Sending { fallen: call.fallen.saturating_add(1), ..call });
            } else {
                refuse(&call.told.message, code::INTERNAL_ERROR, &why, &self.say).await;
            }
        }
        for sending in std::mem::take(&mut self.outbox) {
            self.hold(sending);
        }
        self.held.retain(|held| held.told.message.id().is_none_or(|id| !own.contains(id)));
        self.stop_learning();
        self.is_down(&why).await;
    }
}

impl Drop for SseSession {
    fn drop(&mut self) {
        self.stop_learning();
    }
}
