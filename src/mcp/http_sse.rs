//! HTTP+SSE of 2024-11-05: a GET opens the stream and the session, POSTs beside it carry messages.
//!
//! The session lives as long as its stream. The endpoint is always a relative reference: the edge
//! ends TLS, and an absolute one would name the wrong scheme behind yet another proxy. It lies under
//! the path that was asked, where that is the operator's: a proxy in front may route no other here.

use std::sync::Arc;

use bytes::Bytes;

use super::exchange::{Head, Reply};
use super::incoming::{self, EntryRules, Eras, Pings, Sorted};
use super::sessions::Sessions;
use super::sse::StreamKind;
use super::streams::{self, Streams};
use super::{Reason, Refused};
use crate::caller::Transport;
use crate::wire::jsonrpc::{Message, code};

/// The transport.
#[derive(Debug)]
pub(super) struct HttpSse {
    sessions: Arc<Sessions>,
    streams: Arc<Streams>,
}

impl HttpSse {
    pub(super) fn new(sessions: Arc<Sessions>, streams: Arc<Streams>) -> Self {
        Self { sessions, streams }
    }

    /// Opens the stream, and with it the session, whose messages are posted to the path `messages`.
    pub(super) async fn open(&self, head: Head<'_>, messages: &str) -> Result<Reply, Refused> {
        self.sessions.check_open()?;
        if !head.accept.events {
            return Err(Reason::NotAStream.into());
        }
        let place = self.streams.take(head.client, head.policy)?;
        let session = self.sessions.open_session(&head, Transport::HttpSse).await?;
        let Some(reader) = session.listen() else { return Err(Reason::UnknownSession.into()) };
        let kind = StreamKind {
            ids: false,
            primed: false,
            endpoint: Some(format!("{messages}?sessionId={}", session.id().as_str())),
            ..streams::long(head.policy, None)
        };
        Ok(Reply::events(self.streams.start(reader, kind, place)))
    }

    /// Takes one message; whatever it is answered comes on the stream.
    pub(super) async fn post(
        &self,
        head: Head<'_>,
        session: Option<&str>,
        body: Bytes,
    ) -> Result<Reply, Refused> {
        let session = session.ok_or(Reason::NoSessionInQuery)?;
        let session = self.sessions.table.find(session, head.principal(), Transport::HttpSse)?;
        if Message::is_batch(&body) {
            return Err(Reason::NoBatch.into());
        }
        let message = Message::parse(body)?;
        let id = message.request_id().cloned();
        let rules = EntryRules {
            eras: Eras::Handshake(None),
            pings: Pings::Edge,
            weighed: self.sessions.weighed(&head.caller.quota, true),
            draining: self.sessions.drain.is_draining(),
        };
        let refuse = |reason: Reason| reason.to(id.as_ref());
        match incoming::sort(message, rules).map_err(refuse)? {
            Sorted::Modern => {
                if let Some(id) = &id {
                    let refusal = Message::error(id, code::TRANSPORT, &Reason::Modern.to_string());
                    session.put(refusal.line());
                }
            }
            Sorted::Drop => {}
            Sorted::Pong(pong) => session.put(pong),
            Sorted::Call(request) => {
                let sender = Sessions::sender_in(&session, head);
                let call = sender.permit(request).map_err(refuse)?;
                // Some clients open a new stream after a lost one and go on without `initialize`.
                if call.request().method() != Some("initialize") {
                    session.initialize_if_fresh(sender.caller()).await.map_err(refuse)?;
                }
                session.post(call).await.map_err(refuse)?;
            }
            Sorted::Notify(message) => {
                session.notify(message, Sessions::sender_in(&session, head).caller()).await?;
            }
            Sorted::Answer(message) => {
                session.answer(message, Sessions::sender_in(&session, head).caller()).await?;
            }
        }
        Ok(Reply::accepted())
    }
}
