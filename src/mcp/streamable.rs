//! Streamable HTTP of 2025-03-26, 2025-06-18 and 2025-11-25: POST, GET and DELETE on one path.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::call::Permitted;
use super::era::{self, Era};
use super::exchange::{Accept, Body, Head, Reply};
use super::incoming::{self, EntryRules, Eras, Pings, Sorted};
use super::plain::Plain;
use super::session::id::StreamId;
use super::session::reader::Reader;
use super::session::{Session, Unknown};
use super::sessions::Sessions;
use super::sse::{EventId, EventStream, StreamKind};
use super::streams::{self, Streams};
use super::{Reason, Refused};
use crate::caller::{Caller, Transport};
use crate::policy::Policy;
use crate::wire::jsonrpc::Message;
use crate::wire::revision::ProtocolVersion;

/// Messages in one array (2025-03-26).
const MAX_BATCH: usize = 64;

/// How long the head of an answer is held back: a call that is answered within this time, and says
/// nothing before, is answered as plain JSON. Later the client gets a stream, and sees that the
/// call lives.
const HOLD: Duration = Duration::from_secs(1);

/// The transport.
#[derive(Debug)]
pub(super) struct Streamable {
    sessions: Arc<Sessions>,
    streams: Arc<Streams>,
    /// For requests without a session.
    plain: Plain,
}

impl Streamable {
    pub(super) fn new(sessions: Arc<Sessions>, streams: Arc<Streams>, plain: Plain) -> Self {
        Self { sessions, streams, plain }
    }

    /// A POST on the unified path.
    pub(super) async fn post(&self, head: Head<'_>, body: Bytes) -> Result<Reply, Refused> {
        if !head.accept.json && !head.accept.events {
            return Err(Reason::NotAcceptable.into());
        }
        if Message::is_batch(&body) {
            return Box::pin(self.post_batch(head, &body)).await;
        }
        let message = Message::parse(body)?;
        let id = message.request_id().cloned();
        self.post_one(head, message).await.map_err(|reason| reason.to(id.as_ref()))
    }

    async fn post_one(&self, head: Head<'_>, message: Message) -> Result<Reply, Reason> {
        let accept = head.accept;
        let rules = EntryRules {
            eras: Eras::Handshake(head.version),
            pings: Pings::EdgeUntilDrain,
            weighed: self.sessions.weighed(&head.caller.quota, head.session.is_some()),
            draining: self.sessions.drain.is_draining(),
        };
        match (incoming::sort(message, rules)?, head.session) {
            (Sorted::Modern, _) => Err(Reason::Modern),
            (Sorted::Drop, _) | (Sorted::Notify(_), None) => Ok(Reply::accepted()),
            (Sorted::Call(request), _) if request.method() == Some("initialize") => {
                Box::pin(self.begin_session(head, request)).await
            }
            (Sorted::Pong(pong), None) => Ok(accept.sole(pong)),
            (Sorted::Call(request), None) => self.plain.call(head, request).await,
            (Sorted::Answer(_), None) => Err(Reason::NoSession),
            (step, Some(_)) => {
                let session = self.find_session(&head)?;
                Box::pin(self.post_in_session(&session, head, step)).await
            }
        }
    }

    async fn post_in_session(
        &self,
        session: &Arc<Session>,
        head: Head<'_>,
        step: Sorted,
    ) -> Result<Reply, Reason> {
        let (policy, accept) = (head.policy, head.accept);
        match step {
            Sorted::Modern | Sorted::Drop => Err(Reason::Modern),
            Sorted::Pong(pong) => Ok(accept.sole(pong)),
            Sorted::Call(request) => {
                let call = Sessions::sender_in(session, head).permit(request)?;
                call_in(session, policy, accept, vec![call]).await
            }
            Sorted::Notify(message) => {
                session.notify(message, Sessions::sender_in(session, head).caller()).await?;
                Ok(Reply::accepted())
            }
            Sorted::Answer(message) => {
                session.answer(message, Sessions::sender_in(session, head).caller()).await?;
                Ok(Reply::accepted())
            }
        }
    }

    /// `initialize`: opens a session. A session id that is not known (any more) does not matter.
    async fn begin_session(&self, head: Head<'_>, request: Message) -> Result<Reply, Reason> {
        if head.session.is_some() && self.find_session(&head).is_ok() {
            return Err(Reason::SessionLive);
        }
        let transport = Transport::StreamableHttp;
        let caller = Caller { transport, ..head.caller.clone() };
        let call = Sessions::sender(head.policy, head.admitted, caller).permit(request)?;
        let session = self.sessions.open_session(&head, transport).await?;
        // A client that goes away meanwhile never learns its id.
        let unknown = Unknown::new(Arc::clone(&session));
        let (policy, accept) = (head.policy, head.accept);
        let call = call.in_session(session.id());
        let reader = session.call(vec![call], accept.events).await?;
        let reply = reply(reader, policy, accept, None).await;
        unknown.known();
        let is_json = matches!(reply.body, Body::Json(_));
        // What a session that has ended already is answered names no session.
        let ended = is_json && session.is_ended();
        Ok(if ended { reply } else { Reply { session: Some(session.id().clone()), ..reply } })
    }

    /// An array of messages: each on its own, the answers together.
    async fn post_batch(&self, head: Head<'_>, body: &Bytes) -> Result<Reply, Refused> {
        let (policy, accept) = (head.policy, head.accept);
        let session = match head.session {
            Some(_) => self.find_session(&head)?,
            None => return Err(Reason::NoBatch.into()),
        };
        if !session.version().is_some_and(ProtocolVersion::has_batches) {
            return Err(Reason::NoBatch.into());
        }
        era::check_known(head.version)?;
        let messages = Message::parse_batch(body, MAX_BATCH)?;
        if messages.iter().any(|message| Era::of(None, message) == Era::Modern) {
            return Err(Reason::ModernInBatch.into());
        }
        if messages.iter().any(|message| message.method() == Some("initialize")) {
            return Err(Reason::InitializeInBatch.into());
        }
        let draining = self.sessions.drain.is_draining();
        let rules = EntryRules { eras: Eras::Any, pings: Pings::Backend, weighed: None, draining };
        let sort = |message| incoming::sort(message, rules);
        let steps: Vec<Sorted> = messages.into_iter().map(sort).collect::<Result<_, _>>()?;
        let sender = Sessions::sender_in(&session, head);
        // Nothing is sent of an array with a request that is denied.
        let (mut calls, mut others) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Sorted::Call(request) => calls.push(sender.permit(request)?),
                Sorted::Notify(message) | Sorted::Answer(message) => others.push(message),
                Sorted::Modern | Sorted::Drop | Sorted::Pong(_) => {}
            }
        }
        for message in others {
            if message.answers().is_some() {
                session.answer(message, sender.caller()).await?;
            } else {
                session.notify(message, sender.caller()).await?;
            }
        }
        if calls.is_empty() {
            return Ok(Reply::accepted());
        }
        if accept.json {
            let reader = session.call(calls, false).await?;
            return Ok(Reply::json(reader.answers().await));
        }
        Ok(call_in(&session, policy, accept, calls).await?)
    }

    /// A GET in a session: its stream, or one that is to be resumed behind event `last`.
    pub(super) fn listen(&self, head: &Head<'_>, last: Option<&str>) -> Result<Reply, Refused> {
        era::check_known(head.version)?;
        let session = self.find_session(head)?;
        if !head.accept.events {
            return Err(Reason::NotAStream.into());
        }
        let place = self.streams.take(head.client, head.policy)?;
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
        let kind = streams::long(head.policy, session.version());
        Ok(Reply::events(self.streams.start(reader, kind, place)))
    }

    /// A DELETE on the unified path: the session is over.
    pub(super) fn delete(&self, head: &Head<'_>) -> Result<Reply, Refused> {
        if head.session.is_none() {
            return Err(match Era::of_revision(head.version) {
                Era::Modern => Reason::NoStream.into(),
                Era::Handshake => Reason::NoSession.into(),
            });
        }
        self.find_session(head)?.close();
        Ok(Reply::ended())
    }

    /// The session that a request names, if it is its principal's.
    fn find_session(&self, head: &Head<'_>) -> Result<Arc<Session>, Reason> {
        let id = head.session.ok_or(Reason::NoSession)?;
        self.sessions.table.find(id, head.principal(), Transport::StreamableHttp)
    }
}

async fn call_in(
    session: &Arc<Session>,
    policy: &Policy,
    accept: Accept,
    calls: Vec<Permitted>,
) -> Result<Reply, Reason> {
    let version = session.version();
    let reader = session.call(calls, accept.events).await?;
    Ok(reply(reader, policy, accept, version).await)
}

/// Answers with JSON where the answer is all there is to say, and with events otherwise.
async fn reply(
    reader: Reader,
    policy: &Policy,
    accept: Accept,
    version: Option<ProtocolVersion>,
) -> Reply {
    if !accept.events {
        // Without an answer, the client cancelled the call.
        let answer = reader.answer().await;
        return answer.map_or_else(Reply::accepted, Reply::json);
    }
    if accept.json {
        // The time being over is no fault: the answer takes longer, and becomes a stream.
        drop(timeout(HOLD, reader.ready()).await);
        if let Some(answer) = reader.sole_answer() {
            return Reply::json(answer);
        }
    }
    let mut kind = StreamKind { age: None, ..streams::long(policy, version) };
    if reader.is_over() {
        // The client cancelled the call. With an id it would come back for an answer.
        (kind.ids, kind.primed) = (false, false);
    }
    Reply::events(EventStream::new(reader, kind, None, None))
}

fn unknown_event() -> Refused {
    Reason::UnknownEvent.into()
}
