//! Streamable HTTP of 2025-03-26, 2025-06-18 and 2025-11-25: POST, GET and DELETE on one path.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::call::{Permitted, Sender};
use super::era::{self, Era};
use super::incoming::{self, Pings, Rules, Step};
use super::session::reader::Reader;
use super::session::state::StreamId;
use super::session::{Session, Unknown};
use super::sse::{EventId, EventStream, StreamKind};
use super::{Accept, Ask, Mcp, Reason, Refused, Reply};
use crate::caller::{Caller, Transport};
use crate::wire::jsonrpc::Message;
use crate::wire::revision::ProtocolVersion;

/// Messages in one array (2025-03-26).
const MAX_BATCH: usize = 64;

/// How long the head of an answer is held back: a call that is answered within this time, and says
/// nothing before, is answered as plain JSON. Later the client gets a stream, and sees that the
/// call lives.
const HOLD: Duration = Duration::from_secs(1);

impl Mcp {
    /// A POST on the unified path.
    pub(super) async fn post(&self, ask: Ask<'_>, body: Bytes) -> Result<Reply, Refused> {
        if !ask.accept.json && !ask.accept.events {
            return Err(Reason::NotAcceptable.into());
        }
        if Message::is_batch(&body) {
            return Box::pin(self.post_batch(ask, &body)).await;
        }
        let message = Message::parse(body)?;
        let id = message.request_id().cloned();
        self.post_one(ask, message).await.map_err(|reason| reason.to(id.as_ref()))
    }

    async fn post_one(&self, ask: Ask<'_>, message: Message) -> Result<Reply, Reason> {
        let accept = ask.accept;
        let rules = Rules {
            era: Some(ask.version),
            pings: Pings::EdgeUntilDrain,
            weighed: self.weighed(&ask.caller.quota, ask.session.is_some()),
            draining: self.drain.is_draining(),
        };
        match (incoming::sort(message, rules)?, ask.session) {
            (Step::Modern, _) => Err(Reason::Modern),
            (Step::Drop, _) | (Step::Notify(_), None) => Ok(Reply::Accepted),
            (Step::Call(request), _) if request.method() == Some("initialize") => {
                Box::pin(self.begin_session(ask, request)).await
            }
            (Step::Pong(pong), None) => Ok(accept.sole(pong)),
            (Step::Call(request), None) => self.call_bare(ask, request).await,
            (Step::Answer(_), None) => Err(Reason::NoSession),
            (step, Some(_)) => {
                let session = self.find_session(&ask)?;
                Box::pin(self.post_in_session(&session, ask, step)).await
            }
        }
    }

    async fn post_in_session(
        &self,
        session: &Arc<Session>,
        ask: Ask<'_>,
        step: Step,
    ) -> Result<Reply, Reason> {
        let accept = ask.accept;
        match step {
            Step::Modern | Step::Drop => Err(Reason::Modern),
            Step::Pong(pong) => Ok(accept.sole(pong)),
            Step::Call(request) => {
                let call = self.sender_in(session, ask).permit(request)?;
                self.call(session, accept, vec![call]).await
            }
            Step::Notify(message) => {
                session.notify(message, self.sender_in(session, ask).caller()).await?;
                Ok(Reply::Accepted)
            }
            Step::Answer(message) => {
                session.answer(message, self.sender_in(session, ask).caller()).await?;
                Ok(Reply::Accepted)
            }
        }
    }

    /// `initialize`: opens a session. A session id that is not known (any more) does not matter.
    async fn begin_session(&self, ask: Ask<'_>, request: Message) -> Result<Reply, Reason> {
        if ask.session.is_some() && self.find_session(&ask).is_ok() {
            return Err(Reason::SessionLive);
        }
        let session = self.open_session(&ask, Transport::StreamableHttp).await?;
        // A client that goes away meanwhile never learns its id.
        let unknown = Unknown::new(Arc::clone(&session));
        let accept = ask.accept;
        let call = self.sender_in(&session, ask).permit(request)?;
        let reader = session.call(vec![call], accept.events).await?;
        let reply = self.reply(reader, accept, None).await;
        unknown.known();
        Ok(match reply {
            Reply::Json(body, _) if session.is_ended() => Reply::Json(body, None),
            Reply::Json(body, _) => Reply::Json(body, Some(session.id().clone())),
            Reply::Events(events, _) => Reply::Events(events, Some(session.id().clone())),
            Reply::Accepted | Reply::Ended => reply,
        })
    }

    /// An array of messages: each on its own, the answers together.
    async fn post_batch(&self, ask: Ask<'_>, body: &Bytes) -> Result<Reply, Refused> {
        let accept = ask.accept;
        let session = match ask.session {
            Some(_) => self.find_session(&ask)?,
            None => return Err(Reason::NoBatch.into()),
        };
        if !session.version().is_some_and(ProtocolVersion::has_batches) {
            return Err(Reason::NoBatch.into());
        }
        era::check_known(ask.version)?;
        let messages = Message::parse_batch(body, MAX_BATCH)?;
        if messages.iter().any(|message| Era::of(None, message) == Era::Modern) {
            return Err(Reason::ModernInBatch.into());
        }
        if messages.iter().any(|message| message.method() == Some("initialize")) {
            return Err(Reason::InitializeInBatch.into());
        }
        let draining = self.drain.is_draining();
        let rules = Rules { era: None, pings: Pings::Backend, weighed: None, draining };
        let sort = |message| incoming::sort(message, rules);
        let steps: Vec<Step> = messages.into_iter().map(sort).collect::<Result<_, _>>()?;
        let sender = self.sender_in(&session, ask);
        let mut calls = Vec::new();
        for step in steps {
            match step {
                Step::Call(request) => calls.push(sender.permit(request)?),
                Step::Notify(message) => session.notify(message, sender.caller()).await?,
                Step::Answer(message) => session.answer(message, sender.caller()).await?,
                Step::Modern | Step::Drop | Step::Pong(_) => {}
            }
        }
        if calls.is_empty() {
            return Ok(Reply::Accepted);
        }
        if accept.json {
            let reader = session.call(calls, false).await?;
            return Ok(Reply::Json(reader.answers().await, None));
        }
        Ok(self.call(&session, accept, calls).await?)
    }

    async fn call(
        &self,
        session: &Arc<Session>,
        accept: Accept,
        calls: Vec<Permitted>,
    ) -> Result<Reply, Reason> {
        let version = session.version();
        let reader = session.call(calls, accept.events).await?;
        Ok(self.reply(reader, accept, version).await)
    }

    /// Answers with JSON where the answer is all there is to say, and with events otherwise.
    async fn reply(
        &self,
        reader: Reader,
        accept: Accept,
        version: Option<ProtocolVersion>,
    ) -> Reply {
        if !accept.events {
            // Without an answer, the client cancelled the call.
            let answer = reader.answer().await;
            return answer.map_or(Reply::Accepted, |answer| Reply::Json(answer, None));
        }
        if accept.json {
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
        if Era::of_revision(ask.version) == Era::Modern {
            return Err(Reason::NoStream.into());
        }
        if ask.session.is_none() {
            return match (ask.version, ask.accept.events) {
                (Some(_), _) => Err(Reason::NoSession.into()),
                (None, true) => self.open_sse(ask, messages).await,
                (None, false) => Err(Reason::NoStream.into()),
            };
        }
        era::check_known(ask.version)?;
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
            return Err(match Era::of_revision(ask.version) {
                Era::Modern => Reason::NoStream.into(),
                Era::Handshake => Reason::NoSession.into(),
            });
        }
        self.find_session(ask)?.close();
        Ok(Reply::Ended)
    }

    /// The session that a request names, if it is its principal's.
    fn find_session(&self, ask: &Ask<'_>) -> Result<Arc<Session>, Reason> {
        let id = ask.session.ok_or(Reason::NoSession)?;
        self.sessions.find(id, ask.admitted.principal(), Transport::StreamableHttp)
    }

    /// Whoever sends messages in a session.
    pub(super) fn sender_in<'a>(&self, session: &Session, ask: Ask<'a>) -> Sender<'a> {
        let Ask { admitted, caller, .. } = ask;
        let alias = Some(session.id().alias());
        let transport = session.transport();
        self.sender(admitted, Caller { transport, session: alias, ..caller })
    }
}

fn unknown_event() -> Refused {
    Reason::UnknownEvent.into()
}
