//! Streamable HTTP of 2025-03-26, 2025-06-18 and 2025-11-25: POST, GET and DELETE on one path.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::time::timeout;

use super::session::reader::Reader;
use super::session::state::StreamId;
use super::session::{Session, Unknown};
use super::sse::{EventId, EventStream, StreamKind};
use super::{Ask, Mcp, Reason, Refused, Reply};
use crate::caller::{Caller, Transport};
use crate::wire::jsonrpc::{Kind, Message};
use crate::wire::revision::{self, ProtocolVersion};

/// Messages in one array (2025-03-26).
const MAX_BATCH: usize = 64;

/// How long the head of an answer is held back: a call that is answered within this time, and says
/// nothing before, is answered as plain JSON. Later the client gets a stream, and sees that the
/// call lives.
const HOLD: Duration = Duration::from_secs(1);

impl Mcp {
    /// A POST on the unified path.
    pub(super) async fn post(&self, mut ask: Ask<'_>, body: Bytes) -> Result<Reply, Refused> {
        if !ask.accept.json && !ask.accept.events {
            return Err(Reason::NotAcceptable.into());
        }
        if Message::is_batch(&body) {
            return Box::pin(self.post_batch(ask, &body)).await;
        }
        let message = Message::parse(body)?;
        if let Some(verdict) = modern(&ask, &message) {
            return verdict;
        }
        let id = message.request_id().cloned();
        let refuse = |reason: Reason| reason.to(id.as_ref());
        check_version(&ask).map_err(refuse)?;
        let in_session = ask.session.is_some();
        self.check_weight(&message, &ask.caller.quota, in_session).map_err(refuse)?;
        if id.is_some() {
            self.check_open().map_err(refuse)?;
        }
        if message.method() == Some("initialize") && id.is_some() {
            return Box::pin(self.begin_session(ask, message)).await.map_err(refuse);
        }
        if ask.session.is_none() && id.is_some() {
            if let Some(pong) = pong(&message) {
                return Ok(ask.accept.sole(pong));
            }
            return self.call_bare(ask, message).await.map_err(refuse);
        }
        let session = match (ask.session, message.kind()) {
            (Some(_), _) => self.find_session(&ask).map_err(refuse)?,
            (None, Kind::Notification { .. }) => return Ok(Reply::Accepted),
            (None, Kind::Request { .. } | Kind::Response { .. }) => {
                return Err(refuse(Reason::NoSession));
            }
        };
        let caller = introduce(&mut ask.caller, &session);
        if let Some(pong) = pong(&message) {
            return Ok(ask.accept.sole(pong));
        }
        match message.kind() {
            Kind::Request { .. } => {
                Box::pin(self.call(&session, &ask, vec![message], &caller)).await.map_err(refuse)
            }
            Kind::Notification { .. } => {
                Box::pin(session.notify(message, &caller)).await.map_err(refuse)?;
                Ok(Reply::Accepted)
            }
            Kind::Response { .. } => {
                Box::pin(session.answer(message, &caller)).await.map_err(refuse)?;
                Ok(Reply::Accepted)
            }
        }
    }

    /// `initialize`: opens a session. A session id that is not known (any more) does not matter.
    async fn begin_session(&self, mut ask: Ask<'_>, message: Message) -> Result<Reply, Reason> {
        if ask.session.is_some() && self.find_session(&ask).is_ok() {
            return Err(Reason::SessionLive);
        }
        let session = self.open_session(&ask, Transport::StreamableHttp).await?;
        // A client that goes away meanwhile never learns its id.
        let unknown = Unknown::new(Arc::clone(&session));
        let caller = introduce(&mut ask.caller, &session);
        let reader = session.call(vec![message], ask.accept.events, &caller).await?;
        let reply = self.reply(reader, &ask, None).await;
        unknown.known();
        Ok(match reply {
            Reply::Json(body, _) if session.is_ended() => Reply::Json(body, None),
            Reply::Json(body, _) => Reply::Json(body, Some(session.id().clone())),
            Reply::Events(events, _) => Reply::Events(events, Some(session.id().clone())),
            Reply::Accepted | Reply::Ended => reply,
        })
    }

    /// An array of messages: each on its own, the answers together.
    async fn post_batch(&self, mut ask: Ask<'_>, body: &Bytes) -> Result<Reply, Refused> {
        let session = match ask.session {
            Some(_) => self.find_session(&ask)?,
            None => return Err(Reason::NoBatch.into()),
        };
        if !session.version().is_some_and(ProtocolVersion::has_batches) {
            return Err(Reason::NoBatch.into());
        }
        check_version(&ask)?;
        let messages = Message::parse_batch(body, MAX_BATCH)?;
        if messages.iter().any(|message| message.envelope_version().is_some()) {
            return Err(Reason::ModernInBatch.into());
        }
        if messages.iter().any(|message| message.method() == Some("initialize")) {
            return Err(Reason::InitializeInBatch.into());
        }
        let caller = introduce(&mut ask.caller, &session);
        let mut requests = Vec::new();
        for message in messages {
            match message.kind() {
                Kind::Request { .. } => requests.push(message),
                Kind::Notification { .. } => session.notify(message, &caller).await?,
                Kind::Response { .. } => session.answer(message, &caller).await?,
            }
        }
        if requests.is_empty() {
            return Ok(Reply::Accepted);
        }
        self.check_open()?;
        if ask.accept.json {
            let reader = session.call(requests, false, &caller).await?;
            return Ok(Reply::Json(reader.answers().await, None));
        }
        Ok(self.call(&session, &ask, requests, &caller).await?)
    }

    async fn call(
        &self,
        session: &Arc<Session>,
        ask: &Ask<'_>,
        requests: Vec<Message>,
        caller: &Arc<Caller>,
    ) -> Result<Reply, Reason> {
        let version = session.version();
        let reader = session.call(requests, ask.accept.events, caller).await?;
        Ok(self.reply(reader, ask, version).await)
    }

    /// Answers with JSON where the answer is all there is to say, and with events otherwise.
    async fn reply(
        &self,
        reader: Reader,
        ask: &Ask<'_>,
        version: Option<ProtocolVersion>,
    ) -> Reply {
        if !ask.accept.events {
            // Without an answer, the client cancelled the call.
            let answer = reader.answer().await;
            return answer.map_or(Reply::Accepted, |answer| Reply::Json(answer, None));
        }
        if ask.accept.json {
            // The time being over is no fault: the answer takes longer, and becomes a stream.
            drop(timeout(HOLD, reader.ready()).await);
            if let Some(answer) = reader.sole_answer() {
                return Reply::Json(answer, None);
            }
        }
        let mut kind = StreamKind { age: None, ..self.long_stream(version) };
        if reader.is_over() {
            // The client cancelled the call. With an id it would come back for an answer.
            (kind.ids, kind.primed) = (false, false);
        }
        Reply::Events(EventStream::new(reader, kind, None, None), None)
    }

    /// A GET on the unified path: the stream of a session, or of an HTTP+SSE client.
    pub(super) async fn get(
        &self,
        ask: Ask<'_>,
        last: Option<&str>,
        messages: &str,
    ) -> Result<Reply, Refused> {
        self.check_open()?;
        if ask.version.is_some_and(revision::is_modern) {
            return Err(Reason::NoStream.into());
        }
        if ask.session.is_none() {
            return match (ask.version, ask.accept.events) {
                (Some(_), _) => Err(Reason::NoSession.into()),
                (None, true) => self.open_sse(ask, messages).await,
                (None, false) => Err(Reason::NoStream.into()),
            };
        }
        check_version(&ask)?;
        let session = self.find_session(&ask)?;
        if !ask.accept.events {
            return Err(Reason::NotAStream.into());
        }
        let most = ask.policy.limits.streams_per_ip;
        let permit = self.streams.try_take(ask.client, most).ok_or(Reason::ClientStreamsFull)?;
        let reader = match last.map(EventId::parse) {
            None => session.listen(),
            Some(None) => return Err(unknown_event()),
            Some(Some(EventId { stream, number })) => match session.resume(stream, number) {
                None if stream == StreamId::STANDALONE => session.listen(),
                resumed => resumed,
            },
        };
        let Some(reader) = reader else { return Err(unknown_event()) };
        if reader.is_over() {
            // Clients come back to a stream that ended without an answer, again and again.
            return Err(Reason::NothingMore.into());
        }
        let kind = self.long_stream(session.version());
        let draining = self.drain.draining();
        Ok(Reply::Events(EventStream::new(reader, kind, Some(draining), Some(permit)), None))
    }

    /// A DELETE on the unified path: the session is over.
    pub(super) fn delete(&self, ask: &Ask<'_>) -> Result<Reply, Refused> {
        if ask.session.is_none() {
            let modern = ask.version.is_some_and(revision::is_modern);
            return Err(if modern { Reason::NoStream } else { Reason::NoSession }.into());
        }
        self.find_session(ask)?.close();
        Ok(Reply::Ended)
    }

    /// The session that a request names, if it is its principal's.
    fn find_session(&self, ask: &Ask<'_>) -> Result<Arc<Session>, Reason> {
        let id = ask.session.ok_or(Reason::NoSession)?;
        self.sessions.find(id, ask.admitted.principal(), Transport::StreamableHttp)
    }
}

/// A version that is named must be one that is known; which of them, the session has settled.
fn check_version(ask: &Ask<'_>) -> Result<(), Reason> {
    match ask.version {
        Some(version) if ProtocolVersion::parse(version).is_none() => Err(Reason::Version),
        Some(_) | None => Ok(()),
    }
}

/// The answer to a ping, which the edge gives itself: a busy backend would keep the client waiting.
pub(super) fn pong(message: &Message) -> Option<Bytes> {
    let id = message.request_id().filter(|_| message.method() == Some("ping"))?;
    Some(Message::result(id, &json!({})).bytes().clone())
}

/// Says on the caller which transport and session it uses.
fn introduce(caller: &mut Caller, session: &Session) -> Arc<Caller> {
    caller.transport = session.transport();
    caller.session = Some(session.id().alias());
    Arc::new(caller.clone())
}

fn unknown_event() -> Refused {
    Reason::UnknownEvent.into()
}

/// A modern request (2026-07-28 and later) is refused in the way that makes its client fall back
/// to `initialize`; a modern notification is dropped, as it would be by a modern server.
fn modern(ask: &Ask<'_>, message: &Message) -> Option<Result<Reply, Refused>> {
    let by_header = ask.version.is_some_and(revision::is_modern);
    if !by_header && message.envelope_version().is_none() {
        return None;
    }
    Some(match message.kind() {
        Kind::Notification { .. } => Ok(Reply::Accepted),
        Kind::Request { .. } | Kind::Response { .. } => {
            Err(Reason::Modern.to(message.request_id()))
        }
    })
}
