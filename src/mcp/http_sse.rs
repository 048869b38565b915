//! HTTP+SSE of 2024-11-05: a GET opens the stream and the session, POSTs beside it carry messages.
//!
//! The session lives as long as its stream. The endpoint is always a relative reference: the edge
//! ends TLS, and an absolute one would name the wrong scheme behind yet another proxy. It lies under
//! the path that was asked, where that is the operator's: a proxy in front may route no other here.

use bytes::Bytes;

use super::incoming::{self, Pings, Rules, Step};
use super::sse::{EventStream, StreamKind};
use super::{Ask, Mcp, Reason, Refused, Reply};
use crate::caller::Transport;
use crate::wire::jsonrpc::{Message, code};

impl Mcp {
    /// Opens the stream, and with it the session, whose messages are posted to the path `messages`.
    pub(super) async fn open_sse(&self, ask: Ask<'_>, messages: &str) -> Result<Reply, Refused> {
        self.check_open()?;
        if !ask.accept.events {
            return Err(Reason::NotAStream.into());
        }
        let most = ask.policy.limits.streams_per_ip;
        let permit = self.streams.try_take(ask.client, most).ok_or(Reason::ClientStreamsFull)?;
        let session = self.open_session(&ask, Transport::HttpSse).await?;
        let Some(reader) = session.listen() else { return Err(Reason::UnknownSession.into()) };
        let kind = StreamKind {
            ids: false,
            primed: false,
            endpoint: Some(format!("{messages}?sessionId={}", session.id().as_str())),
            ..self.long_stream(None)
        };
        let draining = self.drain.draining();
        Ok(Reply::Events(EventStream::new(reader, kind, Some(draining), Some(permit)), None))
    }

    /// Takes one message; whatever it is answered comes on the stream.
    pub(super) async fn post_message(
        &self,
        ask: Ask<'_>,
        session: Option<&str>,
        body: Bytes,
    ) -> Result<Reply, Refused> {
        let session = session.ok_or(Reason::NoSessionInQuery)?;
        let principal = ask.admitted.principal();
        let session = self.sessions.find(session, principal, Transport::HttpSse)?;
        if Message::is_batch(&body) {
            return Err(Reason::NoBatch.into());
        }
        let message = Message::parse(body)?;
        let id = message.request_id().cloned();
        let rules = Rules {
            era: Some(None),
            pings: Pings::Edge,
            weighed: self.weighed(&ask.caller.quota, true),
            draining: self.drain.is_draining(),
        };
        let refuse = |reason: Reason| reason.to(id.as_ref());
        match incoming::sort(message, rules).map_err(refuse)? {
            Step::Modern => {
                if let Some(id) = &id {
                    let refusal = Message::error(id, code::TRANSPORT, &Reason::Modern.to_string());
                    session.put(refusal.line());
                }
            }
            Step::Drop => {}
            Step::Pong(pong) => session.put(pong),
            Step::Call(request) => {
                let sender = self.sender_in(&session, ask);
                let call = sender.permit(request).map_err(refuse)?;
                // Some clients open a new stream after a lost one and go on without `initialize`.
                if call.request().method() != Some("initialize") {
                    session.initialize_if_fresh(sender.caller()).await.map_err(refuse)?;
                }
                session.post(call).await.map_err(refuse)?;
            }
            Step::Notify(message) => {
                session.notify(message, self.sender_in(&session, ask).caller()).await?;
            }
            Step::Answer(message) => {
                session.answer(message, self.sender_in(&session, ask).caller()).await?;
            }
        }
        Ok(Reply::Accepted)
    }
}
