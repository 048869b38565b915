//! What is to be done with a message of a client, whatever way it came in.
//!
//! The rules, in their order: a modern request is refused, so that its client falls back to
//! `initialize`, and a modern notification is dropped, as a modern server would do; what could never
//! be read within the client's memory is refused; nothing begins while the edge goes down; the edge
//! answers a ping itself, for a busy backend would keep the client waiting.

use bytes::Bytes;
use serde_json::json;

use super::Reason;
use super::era::{self, Era};
use crate::limits::bytes::{PER_MESSAGE, Quota, Short};
use crate::wire::jsonrpc::{self, Kind, Message};

/// What is to be done with a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sorted {
    /// Refuse it: a modern request or response.
    Modern,
    /// Drop it: a modern notification.
    Drop,
    /// Answer it by this.
    Pong(Bytes),
    /// Make it a call.
    Call(Message),
    /// Send it on.
    Notify(Message),
    /// Take it for the answer to a request of the backend.
    Answer(Message),
}

/// Who answers pings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pings {
    /// The edge.
    Edge,
    /// The edge, which refuses them while it goes down.
    EdgeUntilDrain,
    /// The backend.
    Backend,
}

/// Which eras a way in takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Eras<'a> {
    /// Only those with a handshake. The request's header may name the revision.
    Handshake(Option<&'a str>),
    /// The backend decides.
    Any,
}

/// The rules of one way in.
#[derive(Clone, Copy, Debug)]
pub(super) struct EntryRules<'a> {
    pub(super) eras: Eras<'a>,
    pub(super) pings: Pings,
    /// Whose memory a message must fit into once it is read.
    pub(super) weighed: Option<Weighed<'a>>,
    pub(super) draining: bool,
}

/// What a message is weighed against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weighed<'a> {
    pub(super) quota: &'a Quota,
    /// Does its text count against the same memory? In a session it does.
    pub(super) with_text: bool,
}

impl Weighed<'_> {
    /// Refuses a message that could never be read within the memory that its client may have.
    pub(super) fn check(self, message: &Message) -> Result<(), Reason> {
        let text = if self.with_text { message.len().saturating_add(PER_MESSAGE) } else { 0 };
        let weight = jsonrpc::weight(message.params()).saturating_add(text);
        if self.quota.could_have(weight) { Ok(()) } else { Err(Short::Ever.into()) }
    }
}

/// What is to be done with this message?
///
/// # Errors
/// Why it is refused.
pub(super) fn sort(message: Message, rules: EntryRules<'_>) -> Result<Sorted, Reason> {
    if let Eras::Handshake(named) = rules.eras {
        if Era::of(named, &message) == Era::Modern {
            let drops = matches!(message.kind(), Kind::Notification { .. });
            return Ok(if drops { Sorted::Drop } else { Sorted::Modern });
        }
        era::check_known(named)?;
    }
    if let (Pings::Edge, Some(pong)) = (rules.pings, pong(&message)) {
        return Ok(Sorted::Pong(pong));
    }
    if let Some(weighed) = rules.weighed {
        weighed.check(&message)?;
    }
    match message.kind() {
        Kind::Request { .. } if rules.draining => Err(Reason::Draining),
        Kind::Request { .. } => match (rules.pings, pong(&message)) {
            (Pings::EdgeUntilDrain, Some(pong)) => Ok(Sorted::Pong(pong)),
            (Pings::Edge | Pings::EdgeUntilDrain | Pings::Backend, _) => Ok(Sorted::Call(message)),
        },
        Kind::Notification { .. } => Ok(Sorted::Notify(message)),
        Kind::Response { .. } => Ok(Sorted::Answer(message)),
    }
}

/// The answer to a ping.
fn pong(message: &Message) -> Option<Bytes> {
    match message.kind() {
        Kind::Request { id, method } if &**method == "ping" => {
            Some(Message::result(id, &json!({})).bytes().clone())
        }
        Kind::Request { .. } | Kind::Notification { .. } | Kind::Response { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn request(method: &str) -> Message {
        Message::request(&1.into(), method, &Value::Null)
    }

    const RULES: EntryRules<'_> = EntryRules {
        eras: Eras::Handshake(None),
        pings: Pings::Edge,
        weighed: None,
        draining: false,
    };

    #[test]
    fn each_kind_of_message_takes_its_step() {
        let (call, note) = (request("tools/list"), Message::notification("x", &Value::Null));
        let answer = Message::result(&1.into(), &json!({}));
        for (message, step) in [
            (&call, Sorted::Call(call.clone())),
            (&note, Sorted::Notify(note.clone())),
            (&answer, Sorted::Answer(answer.clone())),
        ] {
            assert_eq!(sort(message.clone(), RULES), Ok(step));
        }
    }

    #[test]
    fn a_modern_message_goes_no_further_unless_the_backend_is_to_decide() {
        let params =
            json!({ "_meta": { "io.modelcontextprotocol/protocolVersion": "2026-07-28" } });
        let request = Message::request(&1.into(), "ping", &params);
        let note = Message::notification("x", &params);
        assert_eq!(sort(request.clone(), RULES), Ok(Sorted::Modern));
        assert_eq!(sort(note, RULES), Ok(Sorted::Drop));
        let backend = EntryRules { eras: Eras::Any, pings: Pings::Backend, ..RULES };
        assert_eq!(sort(request.clone(), backend), Ok(Sorted::Call(request)));
        for (named, sorted) in [
            ("2026-07-28", Ok(Sorted::Modern)),
            ("2025-06-18", Ok(Sorted::Call(self::request("x")))),
            ("2025-06-19", Err(Reason::Version)),
        ] {
            let rules = EntryRules { eras: Eras::Handshake(Some(named)), ..RULES };
            assert_eq!(sort(self::request("x"), rules), sorted, "{named}");
        }
    }

    #[test]
    fn nothing_begins_in_a_drain_and_pings_are_the_edges_own() {
        let draining = |pings| EntryRules { draining: true, pings, ..RULES };
        let ping = || request("ping");
        assert_eq!(sort(request("x"), draining(Pings::Edge)), Err(Reason::Draining));
        assert!(matches!(sort(ping(), draining(Pings::Edge)), Ok(Sorted::Pong(_))));
        assert_eq!(sort(ping(), draining(Pings::EdgeUntilDrain)), Err(Reason::Draining));
        let until = EntryRules { pings: Pings::EdgeUntilDrain, ..RULES };
        assert!(matches!(sort(ping(), until), Ok(Sorted::Pong(_))));
        let backend = EntryRules { pings: Pings::Backend, ..RULES };
        assert_eq!(sort(ping(), backend), Ok(Sorted::Call(ping())));
        let note = Message::notification("x", &Value::Null);
        assert!(matches!(sort(note, draining(Pings::Edge)), Ok(Sorted::Notify(_))));
    }
}
