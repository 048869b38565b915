//! A session with a Streamable HTTP upstream: every message a POST, every answer its response.
//!
//! A fault is met where it shows. What the upstream never got is said again; what it may have got
//! only if saying it twice does no harm; and a session that it lost is begun again with what the
//! client said at its beginning.

mod listen;
mod renew;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::kind::hinted;
use super::memory::{Memory, epoch};
use super::patience::{FIRST_PAUSE, Patience};
use super::refusal::WHERE;
use super::shared::Shared;
use super::wire::{Answer, EventBody, LAST_EVENT, SESSION, VERSION};
use crate::backend::{During, FromBackend, say};
use crate::caller::Caller;
use crate::client::SendError;
use crate::observe::metrics::Outcome;
use crate::wire::jsonrpc::{Kind, Malformed, Message, RequestId, code, error_in};

/// How often one call may find its session lost. An upstream that loses it each time is broken.
const MAX_LOST: u32 = 3;
/// How often a stream that breaks off before its answer is asked for again, and brings nothing.
const MAX_RESUMED: u32 = 5;
/// How long the upstream is given to hear that a call is cancelled: one that hangs has many of them.
const CANCELLING: Duration = Duration::from_secs(5);

/// The upstream's side of one session.
#[derive(Debug)]
pub(super) struct Channel {
    shared: Arc<Shared>,
    state: Mutex<ChannelState>,
    /// Held while the session is begun again. Why it could not be, the last time.
    renewing: tokio::sync::Mutex<Option<String>>,
    /// Whoever hears what is no answer; without one, questions are refused.
    ear: Option<mpsc::Sender<FromBackend>>,
}

#[derive(Debug, Default)]
struct ChannelState {
    /// `Mcp-Session-Id` and `MCP-Protocol-Version`.
    session: Arc<HeaderMap>,
    /// How often it was begun again.
    epoch: u64,
    /// It is being begun again, or that was given up on the way: the upstream has not heard all.
    half: bool,
    memory: Memory,
}

/// What became of one try.
enum Try {
    Answered(Message),
    /// The upstream does not know the session (any more): it did nothing.
    Lost(String),
    /// It never got the request.
    Unsent(String),
    /// It may have got it.
    Broken(String),
    /// It answered, and not with an answer.
    Failed(Unanswered),
}

/// Why a request has no answer.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) code: i32,
    pub(super) text: String,
}

impl From<String> for Unanswered {
    fn from(text: String) -> Self {
        Self { code: code::INTERNAL_ERROR, text }
    }
}

impl Channel {
    pub(super) fn new(shared: Arc<Shared>, ear: Option<mpsc::Sender<FromBackend>>) -> Self {
        let memory = if ear.is_some() { Memory::beside_a_client() } else { Memory::default() };
        let state = Mutex::new(ChannelState { memory, ..ChannelState::default() });
        Self { shared, state, renewing: tokio::sync::Mutex::default(), ear }
    }

    /// The fields that name the session, how often it was begun again, and whether the upstream has
    /// heard all that it must hear first.
    fn session(&self) -> (Arc<HeaderMap>, u64, bool) {
        let state = self.state.lock();
        (Arc::clone(&state.session), state.epoch, !state.half)
    }

    /// Does the upstream tell its sessions apart?
    pub(super) fn has_session(&self) -> bool {
        self.state.lock().session.contains_key(SESSION)
    }

    /// How often the session was begun again.
    pub(super) fn epoch(&self) -> u64 {
        self.state.lock().epoch
    }

    /// Notes what the client said, for the time after a restart.
    pub(super) fn note(&self, message: &Message) {
        if self.state.lock().memory.note(message) {
            self.shared.metrics.count(Outcome::SubscriptionForgotten);
        }
    }

    /// An id for a request of the edge's own.
    pub(super) fn name(&self) -> RequestId {
        self.state.lock().memory.name()
    }

    /// Asks the upstream, as often as that is safe and the time allows.
    pub(super) async fn ask(
        &self,
        request: &Message,
        caller: &Caller,
    ) -> Result<Message, Unanswered> {
        let asked = self.ask_quietly(request, caller).await;
        if let (Err(unanswered), Some("initialize")) = (&asked, request.method()) {
            // Without it nothing works.
            self.shared.warn(&unanswered.text);
        }
        asked
    }

    async fn ask_quietly(&self, request: &Message, caller: &Caller) -> Result<Message, Unanswered> {
        let mut patience = Patience::new(self.shared.wait);
        let mut lost = 0;
        loop {
            let (session, epoch, whole) = self.session();
            if !whole {
                // Nothing overtakes `initialized`.
                Box::pin(self.renew(epoch, caller, &mut patience)).await?;
                continue;
            }
            match self.attempt(request, &session, epoch, caller).await {
                Try::Answered(answer) => return Ok(answer),
                Try::Failed(why) => return Err(why),
                Try::Broken(text) if !self.shared.tools.may_repeat(request) => {
                    return Err(text.into());
                }
                Try::Unsent(text) | Try::Broken(text) => {
                    if !patience.pause().await {
                        return Err(text.into());
                    }
                }
                Try::Lost(text) => {
                    lost += 1;
                    if lost > MAX_LOST {
                        return Err(text.into());
                    }
                    Box::pin(self.renew(epoch, caller, &mut patience)).await?;
                }
            }
        }
    }

    /// Tells the upstream something that has no answer.
    pub(super) async fn send(&self, message: &Message, caller: &Caller) {
        let (session, epoch) = loop {
            let (session, epoch, whole) = self.session();
            if whole {
                break (session, epoch);
            }
            let mut patience = Patience::new(self.shared.wait);
            if let Err(why) = Box::pin(self.renew(epoch, caller, &mut patience)).await {
                return tracing::debug!(?message, text = why.text, "the upstream did not get it");
            }
        };
        let inward = match message.answers() {
            Some(_) => epoch::inward(message, epoch),
            None => Some(message.clone()),
        };
        let Some(message) = inward else {
            return tracing::debug!(?message, "an answer to an upstream that is gone: dropped");
        };
        self.say(&message, &session, caller).await;
    }

    /// The same, whatever is to be heard first.
    async fn say(&self, message: &Message, session: &HeaderMap, caller: &Caller) {
        let wire = &self.shared.wire;
        let patience = match message.method() {
            Some("notifications/cancelled") => CANCELLING.min(wire.patience()),
            Some(_) | None => wire.patience(),
        };
        match wire.post(wire.url(), message, session, caller, Some(patience)).await {
            Ok((_, Answer::Refused(refusal))) => {
                tracing::debug!(?message, text = refusal.text(), "the upstream refused it");
            }
            Ok(_) => {}
            Err(fault) => tracing::debug!(?message, %fault, "the upstream did not get it"),
        }
    }

    /// Ends the upstream's session, if it has one.
    pub(super) async fn end(&self, caller: &Caller, patience: Duration) {
        let (session, ..) = self.session();
        if session.contains_key(SESSION) {
            self.shared.wire.end(&session, caller, patience).await;
        }
    }

    /// Sends a request once, and reads until it is answered.
    async fn attempt(
        &self,
        request: &Message,
        session: &HeaderMap,
        epoch: u64,
        caller: &Caller,
    ) -> Try {
        let Some(id) = request.id() else { return Try::Broken("no id".to_owned()) };
        let wire = &self.shared.wire;
        // No time of its own: whoever calls has a deadline, and a tool may think for long.
        let (head, answer) = match wire.post(wire.url(), request, session, caller, None).await {
            Ok(answered) => answered,
            Err(fault @ SendError::Unreachable(_)) => return Try::Unsent(fault.to_string()),
            Err(fault @ (SendError::Broken(_) | SendError::Late(_))) => {
                let first = request.method() == Some("initialize");
                return Try::Broken(if first { hinted(wire, &fault) } else { fault.to_string() });
            }
        };
        let named = head.get(SESSION).cloned();
        let answer = match answer {
            Answer::Json(bytes) => self.pick(&bytes, id, epoch, caller).await,
            Answer::Events(events) => {
                Box::pin(self.follow(events, session, id, epoch, caller)).await
            }
            Answer::Accepted { page: true } => {
                let text = format!("the upstream answered with a web page: {WHERE}");
                Err(Try::Failed(self.shared.explained(text).into()))
            }
            Answer::Accepted { page: false } => {
                Err(Try::Failed("the upstream answered without an answer".to_owned().into()))
            }
            Answer::Refused(refusal) => {
                let text = refusal.text();
                return if session.contains_key(SESSION) && refusal.is_lost_session(Some(id)) {
                    Try::Lost(text)
                } else {
                    let wrong_kind = matches!(refusal.status.as_u16(), 404 | 405);
                    if wrong_kind {
                        self.shared.doubt();
                    }
                    let first = wrong_kind && request.method() == Some("initialize");
                    let text = if first { self.shared.explained(text) } else { text };
                    let code = refusal.error.map_or(code::INTERNAL_ERROR, |(code, _)| code);
                    Try::Failed(Unanswered { code, text })
                };
            }
        };
        match answer {
            Err(other) => other,
            Ok(answer) => {
                if request.method() == Some("initialize") && !answer.is_error() {
                    self.begin(named, &answer);
                }
                if request.method() == Some("tools/list") {
                    self.shared.tools.learn(&answer);
                }
                Try::Answered(answer)
            }
        }
    }

    /// Notes what `initialize` settled.
    fn begin(&self, named: Option<HeaderValue>, answer: &Message) {
        let version = answer.protocol_version().and_then(|it| HeaderValue::try_from(it).ok());
        let mut session = HeaderMap::new();
        for (name, value) in [(SESSION, named), (VERSION, version)] {
            if let Some(value) = value {
                session.insert(name, value);
            }
        }
        self.state.lock().session = Arc::new(session);
    }

    /// Finds the answer in a JSON text: one message, or an array of them (2025-03-26).
    async fn pick(
        &self,
        bytes: &bytes::Bytes,
        id: &RequestId,
        epoch: u64,
        caller: &Caller,
    ) -> Result<Message, Try> {
        let messages = if Message::is_batch(bytes) {
            Message::parse_batch(bytes, 64)
        } else {
            Message::parse(bytes.clone()).map(|message| vec![message])
        };
        let messages = messages.map_err(|error| self.misread(bytes, &error))?;
        let mut answer = None;
        for message in messages {
            match message.answers() {
                Some(of) if of == id => answer = Some(message),
                Some(_) => {}
                None => {
                    Box::pin(self.receive(message, During::Call(id.clone()), epoch, caller)).await;
                }
            }
        }
        answer.ok_or_else(|| rubbish("its answer has another id"))
    }

    /// Reads a stream to the answer, and asks for the rest of it where it breaks off before.
    async fn follow(
        &self,
        mut events: Box<EventBody>,
        session: &HeaderMap,
        id: &RequestId,
        epoch: u64,
        caller: &Caller,
    ) -> Result<Message, Try> {
        let mut last = None;
        let mut retry = FIRST_PAUSE;
        let mut in_vain = 0;
        loop {
            let (broken, pause) = loop {
                match events.next().await {
                    // Ended on purpose, to be asked for again when it said (2025-11-25, polling).
                    Ok(None) => break ("the stream ended without an answer".to_owned(), retry),
                    Err(text) => break (text, FIRST_PAUSE),
                    Ok(Some(event)) => {
                        in_vain = 0;
                        if let Some(seen) = event.id {
                            last = HeaderValue::try_from(&*seen).ok();
                        }
                        retry = event.retry.unwrap_or(retry);
                        let Some(data) = event.data else { continue };
                        let message = Message::parse(data.clone());
                        let message = message.map_err(|error| self.misread(&data, &error))?;
                        if message.answers() == Some(id) {
                            events.finish().await;
                            return Ok(message);
                        }
                        self.receive(message, During::Call(id.clone()), epoch, caller).await;
                    }
                }
            };
            in_vain += 1;
            if in_vain > MAX_RESUMED {
                return Err(Try::Broken("the upstream breaks off again and again".to_owned()));
            }
            let Some(last) = last.clone() else {
                return Err(Try::Broken(format!("the upstream broke off: {broken}")));
            };
            // However long that is, the call has its deadline.
            sleep(pause).await;
            let mut fields = session.clone();
            fields.insert(LAST_EVENT, last);
            match self.shared.wire.listen(&fields, caller).await {
                Ok(Answer::Events(more)) => events = more,
                Ok(_) | Err(_) => {
                    return Err(Try::Broken(format!("the upstream broke off: {broken}")));
                }
            }
        }
    }

    /// What a call comes to whose answer cannot be read. An error without an id says what it means.
    fn misread(&self, answer: &[u8], error: &Malformed) -> Try {
        self.shared.metrics.count(Outcome::AnswerUnreadable);
        match error_in(answer) {
            Some((code, text)) => Try::Failed(Unanswered { code, text }),
            None => rubbish(&error.to_string()),
        }
    }

    /// Hands on what is no answer. Nobody to hand it to: questions are refused.
    async fn receive(&self, message: Message, during: During, epoch: u64, caller: &Caller) {
        if let Some(ear) = &self.ear {
            let message = epoch::outward(message, epoch, &caller.quota);
            // A session that is over hears no more.
            drop(say(ear, FromBackend::Message { message, during }).await);
            return;
        }
        if let Kind::Request { id, method } = message.kind() {
            let refusal = match &**method {
                "ping" => Message::result(id, &serde_json::json!({})),
                _ => Message::error(
                    id,
                    code::METHOD_NOT_FOUND,
                    "this call has no client that could answer",
                ),
            };
            let (session, ..) = self.session();
            self.say(&refusal, &session, caller).await;
        }
    }
}

fn rubbish(text: &str) -> Try {
    Try::Failed(format!("the upstream answered with rubbish: {text}").into())
}
