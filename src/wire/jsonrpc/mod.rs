//! One JSON-RPC 2.0 message: classified once, its bytes kept as they came.
//!
//! What was checked is what is forwarded: a [`Message`] holds the original bytes, so that no second
//! serialisation can read differently. Whatever could be read in two ways (a member that the edge
//! looks at twice, or by another spelling; a `method` beside a `result`) is refused.

pub mod code;
mod cost;
mod envelope;
mod id;
mod kind;
mod known;
mod malformed;
mod skim;
mod text;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;

pub(crate) use self::cost::weight;
use self::envelope::{Envelope, Members};
pub use self::id::RequestId;
pub use self::kind::Kind;
use self::known::{ENVELOPE_VERSION, KnownParams, Negotiated, string};
pub use self::malformed::Malformed;
pub(crate) use self::skim::Skim;
pub(crate) use self::text::{any_error_in, error_in};
use self::text::{as_text, blame, range_within, utf8};

/// One message: its bytes, and what they say.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    bytes: Bytes,
    kind: Kind,
    id: Range<usize>,
    params: Range<usize>,
    result: Range<usize>,
}

impl Message {
    /// Reads one message.
    ///
    /// # Errors
    /// [`Malformed`] says what is wrong, and the id where one could be read.
    pub fn parse(bytes: Bytes) -> Result<Self, Malformed> {
        as_text(&bytes)?;
        let message = Self::classify(bytes, RequestId::parse)?;
        match (message.method(), KnownParams::read(message.params())) {
            (Some(_), Err(error)) => {
                let reason = format!("`params`: {error}").into();
                Err(Malformed::Shape { reason, id: message.id().cloned() })
            }
            (_, _) => Ok(message),
        }
    }

    /// Reads one message, whatever its parameters are.
    fn classify(bytes: Bytes, read_id: fn(&str) -> Option<RequestId>) -> Result<Self, Malformed> {
        let text = utf8(&bytes)?;
        let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|error| blame(&error))?;
        let id = envelope.id.and_then(|raw| read_id(raw.get()));
        let kind = match envelope.kind(id.as_ref()) {
            Ok(kind) => kind,
            Err(reason) => return Err(Malformed::Shape { reason: reason.into(), id }),
        };
        let place =
            |part: Option<&RawValue>| part.map_or(0..0, |raw| range_within(text, raw.get()));
        let (id, params, result) =
            (place(envelope.id), place(envelope.params), place(envelope.result));
        Ok(Self { bytes, kind, id, params, result })
    }

    /// Reads an array of messages (2025-03-26 only), at most `most`.
    ///
    /// # Errors
    /// As [`Message::parse`], for the whole array: a batch with one bad member is refused whole.
    pub fn parse_batch(bytes: &Bytes, most: usize) -> Result<Vec<Self>, Malformed> {
        let text = as_text(bytes)?;
        let Members { first: members, count } =
            Members::read(text, most).map_err(|error| blame(&error))?;
        let refuse = |reason: String| Err(Malformed::Shape { reason: reason.into(), id: None });
        if members.is_empty() {
            return refuse("an empty batch".to_owned());
        }
        if count > most {
            return refuse(format!("{count} messages in one batch, {most} are allowed"));
        }
        members
            .into_iter()
            .map(|member| Self::parse(bytes.slice_ref(member.get().as_bytes())))
            .collect()
    }

    /// Do these bytes open an array?
    #[must_use]
    pub fn is_batch(bytes: &[u8]) -> bool {
        bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[')
    }

    /// A request of the edge's or an embedded server's own; `params` may be [`Value::Null`] for none.
    #[must_use]
    pub fn request(id: &RequestId, method: &str, params: &Value) -> Self {
        let method = Value::from(method);
        let params = member("params", params);
        Self::made(format!(r#"{{"jsonrpc":"2.0","id":{id},"method":{method}{params}}}"#))
    }

    /// A notification; `params` may be [`Value::Null`] for none.
    #[must_use]
    pub fn notification(method: &str, params: &Value) -> Self {
        let method = Value::from(method);
        let params = member("params", params);
        Self::made(format!(r#"{{"jsonrpc":"2.0","method":{method}{params}}}"#))
    }

    /// Tells that nobody waits for the answer to a request any more. The `reason` is for people.
    #[must_use]
    pub fn cancellation(id: &RequestId, reason: Option<&str>) -> Self {
        let reason = member("reason", &Value::from(reason));
        Self::made(format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}{reason}}}}}"#
        ))
    }

    /// The answer to a request.
    #[must_use]
    pub fn result(id: &RequestId, result: &Value) -> Self {
        Self::made(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#))
    }

    /// The refusal of a request.
    #[must_use]
    pub fn error(id: &RequestId, code: i32, text: &str) -> Self {
        Self::made_from(error_text(Some(id), code, text))
    }

    /// The same, with what a program is to know of it: nothing, if that is null.
    #[must_use]
    pub fn error_with(id: &RequestId, code: i32, text: &str, data: &Value) -> Self {
        let (text, data) = (Value::from(text), member("data", data));
        Self::made(format!(
            r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{text}{data}}}}}"#
        ))
    }

    fn made(text: String) -> Self {
        Self::made_from(Bytes::from(text))
    }

    fn made_from(bytes: Bytes) -> Self {
        // What an embedded server puts into it is its own affair: clients are not to be guarded.
        Self::classify(bytes, RequestId::of_any_length)
            .unwrap_or_else(|error| unreachable!("our own message: {error}"))
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Its bytes, as they came.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Its method; none for a response.
    #[must_use]
    pub fn method(&self) -> Option<&str> {
        match &self.kind {
            Kind::Request { method, .. } | Kind::Notification { method } => Some(method),
            Kind::Response { .. } => None,
        }
    }

    /// Its id; none for a notification.
    #[must_use]
    pub fn id(&self) -> Option<&RequestId> {
        self.request_id().or(self.answers())
    }

    /// The id of a request, under which it may be refused. That of a response was chosen by the
    /// other side, and may be that of a call of its writer's as well.
    pub(crate) fn request_id(&self) -> Option<&RequestId> {
        if let Kind::Request { id, .. } = &self.kind { Some(id) } else { None }
    }

    /// The request that it answers; none if it is no response.
    pub(crate) fn answers(&self) -> Option<&RequestId> {
        if let Kind::Response { id } = &self.kind { Some(id) } else { None }
    }

    /// Its bytes on one line, without a line end. Line breaks between tokens become spaces; inside
    /// strings JSON has none, so that the value is the same.
    #[must_use]
    pub fn line(&self) -> Bytes {
        let breaks = |byte: &u8| matches!(byte, b'\n' | b'\r');
        if !self.bytes.iter().any(breaks) {
            return self.bytes.clone();
        }
        self.bytes.iter().map(|byte| if breaks(byte) { b' ' } else { *byte }).collect()
    }

    /// The same message under another id. All other bytes stay.
    #[must_use]
    pub fn with_id(&self, id: &RequestId) -> Self {
        let (Some(before), Some(after)) =
            (self.bytes.get(..self.id.start), self.bytes.get(self.id.end..))
        else {
            return self.clone();
        };
        if self.id.is_empty() {
            return self.clone();
        }
        let text = id.to_string();
        let mut bytes = Vec::with_capacity(before.len() + text.len() + after.len());
        bytes.extend_from_slice(before);
        bytes.extend_from_slice(text.as_bytes());
        bytes.extend_from_slice(after);
        let shifted = |range: &Range<usize>| {
            // Members stand before the id or behind it, and never across it.
            if range.start < self.id.end {
                return range.clone();
            }
            let shift = |at: usize| at - self.id.len() + text.len();
            shift(range.start)..shift(range.end)
        };
        Self {
            kind: self.kind.with_id(id),
            id: self.id.start..self.id.start + text.len(),
            params: shifted(&self.params),
            result: shifted(&self.result),
            bytes: bytes.into(),
        }
    }

    /// The same message in other memory: `hold` gives back the bytes that it is given.
    pub(crate) fn held_by(self, hold: impl FnOnce(Bytes) -> Bytes) -> Self {
        Self { bytes: hold(self.bytes), ..self }
    }

    /// Bytes of the whole text.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes of [`Self::line`], without a copy.
    pub(crate) fn line_parts(&self) -> impl Iterator<Item = &[u8]> {
        let parts = self.bytes.split(|byte| matches!(byte, b'\n' | b'\r'));
        parts.enumerate().flat_map(|(at, part)| [if at == 0 { &b""[..] } else { b" " }, part])
    }

    /// Its parameters as raw JSON; empty where there are none.
    #[must_use]
    pub fn params(&self) -> &str {
        self.part(&self.params)
    }

    fn part(&self, range: &Range<usize>) -> &str {
        self.bytes.get(range.clone()).and_then(|part| std::str::from_utf8(part).ok()).unwrap_or("")
    }

    fn known_params(&self) -> KnownParams<'_> {
        // What cannot be read was no message.
        KnownParams::read(self.params()).unwrap_or_default()
    }

    /// The token under which a request wants progress, or of which a progress notification speaks.
    #[must_use]
    pub fn progress_token(&self) -> Option<RequestId> {
        let params = self.known_params();
        let token = match self.kind {
            Kind::Request { .. } => params.meta.progress_token,
            Kind::Notification { .. } => params.progress_token,
            Kind::Response { .. } => None,
        };
        RequestId::parse(token?.get())
    }

    /// The request that a `notifications/cancelled` speaks of.
    #[must_use]
    pub fn cancelled(&self) -> Option<RequestId> {
        RequestId::parse(self.known_params().request_id?.get())
    }

    /// The protocol version that a modern (2026-07-28 and later) request names in its envelope.
    #[must_use]
    pub fn envelope_version(&self) -> Option<String> {
        // Only what has escapes can name it otherwise.
        if !self.params().contains(ENVELOPE_VERSION) && !self.params().contains('\\') {
            return None;
        }
        string(self.known_params().meta.version).map(Cow::into_owned)
    }

    /// The protocol version in an `initialize` request's parameters or its result.
    #[must_use]
    pub fn protocol_version(&self) -> Option<String> {
        match self.kind {
            Kind::Response { .. } => {
                let result = serde_json::from_str::<Negotiated>(self.part(&self.result));
                result.ok().map(|it| it.protocol_version)
            }
            Kind::Request { .. } | Kind::Notification { .. } => {
                string(self.known_params().protocol_version).map(Cow::into_owned)
            }
        }
    }

    /// The tool that a `tools/call` names.
    pub(crate) fn tool(&self) -> Option<Cow<'_, str>> {
        string(self.known_params().name)
    }

    /// The resource that a request names.
    pub(crate) fn resource(&self) -> Option<String> {
        string(self.known_params().uri).map(Cow::into_owned)
    }

    /// The result of a response as raw JSON; empty where there is none.
    pub(crate) fn result_text(&self) -> &str {
        self.part(&self.result)
    }

    /// Is it a response with an error?
    #[must_use]
    pub fn is_error(&self) -> bool {
        matches!(self.kind, Kind::Response { .. }) && self.result.is_empty()
    }
}

impl fmt::Debug for Message {
    /// Says what it is and how large; never what it holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({} bytes)", self.kind, self.bytes.len())
    }
}

/// A further member of an object; nothing where its value is null.
fn member(name: &str, value: &Value) -> String {
    if value.is_null() { String::new() } else { format!(r#","{name}":{value}"#) }
}

/// A JSON-RPC error as bytes. An id that could not be read is left out, not `null`.
pub(crate) fn error_text(id: Option<&RequestId>, code: i32, text: &str) -> Bytes {
    let text = Value::from(text);
    let id = id.map_or_else(String::new, |id| format!(r#""id":{id},"#));
    format!(r#"{{"jsonrpc":"2.0",{id}"error":{{"code":{code},"message":{text}}}}}"#).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Message, Malformed> {
        Message::parse(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn shape(text: &str) -> Malformed {
        match parse(text) {
            Err(error @ Malformed::Shape { .. }) => error,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn the_four_kinds_are_told_apart() {
        let id = |n: u64| RequestId::from(n);
        let request = parse(r#"{"jsonrpc":"2.0","id":0,"method":"ping"}"#).unwrap();
        assert_eq!(*request.kind(), Kind::Request { id: id(0), method: "ping".into() });
        let escaped = parse(r#"{"jsonrpc":"\u0032.0","method":"no\u0074e"}"#).unwrap();
        assert_eq!(*escaped.kind(), Kind::Notification { method: "note".into() });
        let null = parse(r#"{"jsonrpc":"2.0","id":7,"result":null}"#).unwrap();
        assert_eq!(*null.kind(), Kind::Response { id: id(7) });
        assert!(!null.is_error());
        let error =
            parse(r#"{"jsonrpc":"2.0","id":"x","error":{"code":1,"message":"m"}}"#).unwrap();
        assert_eq!(*error.kind(), Kind::Response { id: RequestId::Text("x".into()) });
        assert!(error.is_error());
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for text in [
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"a"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"a"}"#,
            r#"{"jsonrpc":"2.0","id":1.5,"method":"a"}"#,
            r#"{"jsonrpc":"2.0","id":1e3,"method":"a"}"#,
            r#"{"jsonrpc":"2.0","id":true,"method":"a"}"#,
            r#"{"jsonrpc":"1.0","id":1,"method":"a"}"#,
            r#"{"id":1,"method":"a"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":3}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","result":{}}"#,
            "7",
            "\"text\"",
            r#"["2.0",1,"a",{}]"#,
            r#"{"jsonrpc":"2.0","id":1,"ID":2,"method":"a"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a","Method":"b"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a","param\u017f":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"name":"a","name":"b"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"name":"a","Name":"b"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"URI":"a"}}"#,
            r#"{"jsonrpc":"2.0","method":"a","params":{"requestId":1,"re\u0071uestId":2}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"_meta":{},"_meta":{}}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"_meta":{"progresstoken":1}}}"#,
        ] {
            assert_eq!(shape(text).code(), code::INVALID_REQUEST, "{text}");
        }
        assert_eq!(
            shape(r#"{"jsonrpc":"1.0","id":9,"method":"a"}"#).id(),
            Some(&RequestId::from(9))
        );
    }

    #[test]
    fn members_that_nobody_knows_are_let_through() {
        assert!(parse(r#"{"jsonrpc":"2.0","id":1,"method":"a","extra":{"id":7},"ids":1}"#).is_ok());
    }

    #[test]
    fn parameters_of_any_kind_do_not_hide_the_others() {
        let call = parse(
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"name":5,"uri":"u","_meta":{"progressToken":7}}}"#,
        )
        .unwrap();
        assert_eq!(call.progress_token(), Some(RequestId::from(7)));
        assert_eq!((call.tool(), call.resource().as_deref()), (None, Some("u")));
        for meta in ["5", "[7]", "null"] {
            let text =
                format!(r#"{{"jsonrpc":"2.0","id":1,"method":"a","params":{{"_meta":{meta}}}}}"#);
            assert_eq!(parse(&text).unwrap().progress_token(), None);
        }
        // In arguments every name is the tool's own.
        assert!(
            parse(
                r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"arguments":{"name":1,"Name":2}}}"#
            )
            .is_ok()
        );
    }

    #[test]
    fn a_version_in_the_envelope_is_found_in_any_spelling() {
        let modern = parse(
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"_m\u0065ta":{"io.modelcontextprotocol\/protocolVersion":"2026-07-28"}}}"#,
        );
        assert_eq!(modern.unwrap().envelope_version().as_deref(), Some("2026-07-28"));
    }

    #[test]
    fn an_id_has_a_length() {
        let with =
            |length| format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"a"}}"#, "x".repeat(length));
        assert!(parse(&with(1000)).is_ok());
        assert!(parse(&with(1100)).is_err());
    }

    #[test]
    fn what_is_no_json_is_a_parse_error() {
        for bytes in [&b"{"[..], b"", b"nope", b"{\"jsonrpc\":\"2.0\",", b"\xff\xfe", b"{}{}"] {
            let error = Message::parse(Bytes::copy_from_slice(bytes)).unwrap_err();
            assert_eq!(error.code(), code::PARSE_ERROR, "{bytes:?}");
        }
    }

    #[test]
    fn nesting_has_a_limit_that_strings_do_not_count_for() {
        let nested = |n: usize| {
            format!(
                r#"{{"jsonrpc":"2.0","method":"a","params":{}{}}}"#,
                "[".repeat(n),
                "]".repeat(n)
            )
        };
        assert!(parse(&nested(127)).is_ok());
        assert_eq!(parse(&nested(128)), Err(Malformed::TooDeep));
        assert_eq!(parse(&nested(1_000_000)), Err(Malformed::TooDeep));
        let quoted =
            format!(r#"{{"jsonrpc":"2.0","method":"a","params":["{}\""]}}"#, "[".repeat(500));
        assert!(parse(&quoted).is_ok());
    }

    #[test]
    fn ids_survive_exactly() {
        for id in ["0", "-7", "123456789012345678901234567890", r#""a\nb""#, r#""""#] {
            let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"a"}}"#);
            assert_eq!(parse(&text).unwrap().id().unwrap().to_string(), id);
        }
    }

    #[test]
    fn an_id_is_replaced_and_nothing_else() {
        let message =
            parse(r#"{ "params" : {"id":1}, "id" : "old" , "jsonrpc":"2.0","method":"m"}"#);
        let renamed = message.unwrap().with_id(&RequestId::from(42));
        assert_eq!(
            renamed.bytes(),
            r#"{ "params" : {"id":1}, "id" : 42 , "jsonrpc":"2.0","method":"m"}"#
        );
        assert_eq!(renamed.id(), Some(&RequestId::from(42)));
        assert_eq!(renamed.params(), r#"{"id":1}"#);
    }

    #[test]
    fn a_message_under_another_id_is_read_as_if_it_had_come_so() {
        for text in [
            r#"{"id":1,"jsonrpc":"2.0","method":"m","params":{"name":"x"}}"#,
            r#"{"jsonrpc":"2.0","method":"m","params":{"name":"x"},"id":"a\"b"}"#,
            r#"{"jsonrpc":"2.0","result":{"a":[1,2]},"id":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{"a":[1,2]}}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#,
        ] {
            for id in [RequestId::from(7), RequestId::Text("a much longer \"id\"".into())] {
                let renamed = parse(text).unwrap().with_id(&id);
                assert_eq!(renamed, Message::parse(renamed.bytes().clone()).unwrap(), "{text}");
            }
        }
    }

    #[test]
    fn a_line_has_no_breaks_and_the_same_value() {
        let message = parse("{\r\n\"jsonrpc\": \"2.0\",\n\"method\": \"a\\nb\"\n}").unwrap();
        let line = message.line();
        assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
        assert_eq!(
            serde_json::from_slice::<Value>(&line).unwrap(),
            serde_json::from_slice::<Value>(message.bytes()).unwrap()
        );
    }

    #[test]
    fn the_parts_that_routing_reads() {
        let call = parse(
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{"progressToken":"t"}}}"#,
        )
        .unwrap();
        assert_eq!(call.progress_token(), Some(RequestId::Text("t".into())));
        assert_eq!(call.envelope_version(), None);
        let progress = parse(
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":5}}"#,
        );
        assert_eq!(progress.unwrap().progress_token(), Some(RequestId::from(5)));
        let cancel = parse(
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":3}}"#,
        );
        assert_eq!(cancel.unwrap().cancelled(), Some(RequestId::from(3)));
        let modern = parse(
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#,
        );
        assert_eq!(modern.unwrap().envelope_version().as_deref(), Some("2026-07-28"));
        let result = parse(r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-06-18"}}"#);
        assert_eq!(result.unwrap().protocol_version().as_deref(), Some("2025-06-18"));
    }

    #[test]
    fn batches_are_whole_or_refused() {
        let batch = |text: &str| Message::parse_batch(&Bytes::copy_from_slice(text.as_bytes()), 3);
        let note = r#"{"jsonrpc":"2.0","method":"a"}"#;
        assert_eq!(batch(&format!("[{note}, {note}]")).unwrap().len(), 2);
        assert!(batch("[]").is_err());
        assert!(batch(&format!("[{note},7]")).is_err());
        assert!(batch(&format!("[{note},{note},{note},{note}]")).is_err());
        assert!(Message::is_batch(b" \n["));
        assert!(!Message::is_batch(b"{}"));
    }

    #[test]
    fn what_the_edge_says_itself_has_no_member_that_may_be_left_out() {
        let none = Value::Null;
        for (message, text) in [
            (Message::request(&1.into(), "ping", &none), r#""id":1,"method":"ping""#),
            (Message::notification("n", &none), r#""method":"n""#),
            (
                Message::cancellation(&1.into(), None),
                r#""method":"notifications/cancelled","params":{"requestId":1}"#,
            ),
        ] {
            let text = format!(r#"{{"jsonrpc":"2.0",{text}}}"#);
            assert_eq!(std::str::from_utf8(message.bytes()).unwrap(), text);
        }
    }

    #[test]
    fn the_error_of_an_answer_is_read_whatever_its_id_is() {
        for id in ["", r#""id":null,"#, r#""id":0,"#, r#""id":1.5,"#] {
            let text =
                format!(r#"{{"jsonrpc":"2.0",{id}"error":{{"code":-32700,"message":"m"}}}}"#);
            assert_eq!(error_in(text.as_bytes()), Some((-32_700, "m".to_owned())), "{text}");
        }
        let huge = br#"{"error":{"code":99999999999,"message":"m"}}"#;
        assert_eq!(error_in(huge), Some((code::INTERNAL_ERROR, "m".to_owned())));
        assert_eq!(error_in(br#"{"id":1,"result":{}}"#), None);
        assert_eq!(error_in(br#"{"error":"m"}"#), None);
    }

    #[test]
    fn what_a_server_makes_itself_may_hold_anything() {
        let deep = (0..400).fold(Value::Null, |inner, _| Value::from(vec![inner]));
        assert!(!Message::result(&1.into(), &deep).is_error());
        let long = RequestId::Text("x".repeat(5000).into());
        assert_eq!(Message::error(&long, -1, "m").id(), Some(&long));
        let twins = serde_json::json!({ "name": 1, "Name": 2, "_meta": { "ProgressToken": 3 } });
        let note = Message::notification("n", &twins);
        assert_eq!((note.method(), note.progress_token()), (Some("n"), None));
    }

    #[test]
    fn the_codes_are_those_of_the_specification_and_of_the_sdks() {
        let codes = [
            code::PARSE_ERROR,
            code::INVALID_REQUEST,
            code::METHOD_NOT_FOUND,
            code::INVALID_PARAMS,
            code::INTERNAL_ERROR,
        ];
        assert_eq!(codes, [-32_700, -32_600, -32_601, -32_602, -32_603]);
        assert_eq!((code::TRANSPORT, code::SESSION_NOT_FOUND), (-32_000, -32_001));
    }

    #[test]
    fn what_the_edge_makes_has_the_parameters_that_it_was_given() {
        let params = serde_json::json!({ "a": [1] });
        for message in
            [Message::request(&1.into(), "m", &params), Message::notification("m", &params)]
        {
            assert_eq!(message.params(), r#"{"a":[1]}"#);
        }
        let cancelled = Message::cancellation(&7.into(), Some("no \"reason\""));
        assert_eq!(cancelled.params(), r#"{"requestId":7,"reason":"no \"reason\""}"#);
        assert_eq!(cancelled.cancelled(), Some(7.into()));
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(shape("7").to_string().contains("expected an object"));
        let batch =
            |text: &'static str| Message::parse_batch(&Bytes::from_static(text.as_bytes()), 3);
        assert!(batch("{}").unwrap_err().to_string().contains("expected an array"));
        let error = batch("[1,2,3,4,5]").unwrap_err();
        assert!(error.to_string().contains("5 messages in one batch, 3 are allowed"), "{error}");
    }

    #[test]
    fn a_batch_may_have_as_many_as_are_allowed_and_no_more_are_kept() {
        let note = r#"{"jsonrpc":"2.0","method":"a"}"#;
        let three = Bytes::from(format!("[{note},{note},{note}]"));
        assert_eq!(Message::parse_batch(&three, 3).unwrap().len(), 3);
        let Members { first, count } = Members::read("[1,2,3,4]", 2).unwrap();
        assert_eq!((first.len(), count), (2, 4));
    }

    #[test]
    fn an_id_of_1024_bytes_is_one_and_its_quotes_count() {
        let id = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
        assert!(RequestId::parse(&id(1024)).is_some());
        assert_eq!(RequestId::parse(&id(1025)), None);
    }

    #[test]
    fn the_parts_of_a_line_are_the_line() {
        for text in
            ["{\n\"jsonrpc\":\r\n\"2.0\",\"method\":\"a\"}\n", r#"{"jsonrpc":"2.0","method":"a"}"#]
        {
            let message = parse(text).unwrap();
            assert_eq!(message.line_parts().collect::<Vec<_>>().concat(), message.line());
        }
    }

    #[test]
    fn a_message_is_shown_without_what_it_holds() {
        let call =
            parse(r#"{"jsonrpc":"2.0","id":7,"method":"m","params":{"secret":"s3cret"}}"#).unwrap();
        assert_eq!(format!("{call:?}"), r#"Request { id: 7, method: "m" } (66 bytes)"#);
        let answer = parse(r#"{"jsonrpc":"2.0","id":7,"result":{"a":[1]}}"#).unwrap();
        assert_eq!(answer.result_text(), r#"{"a":[1]}"#);
        assert_eq!((call.result_text(), call.is_error()), ("", false));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            let _parsed = Message::parse(bytes.clone());
            let _batch = Message::parse_batch(&bytes, 4);
        }

        #[test]
        fn what_is_made_parses_to_what_was_meant(id in any::<u64>(), method in ".*", text in ".*") {
            let request = Message::request(&id.into(), &method, &serde_json::json!({ "t": text }));
            let expected = Kind::Request { id: id.into(), method: method.into() };
            prop_assert_eq!(request.kind(), &expected);
            let error = Message::error(&RequestId::Text(text.into()), -1, "m");
            prop_assert!(error.is_error());
        }
    }
}
