//! What can be known of a message that cannot be kept, or not be read: it is looked at as it comes,
//! and nothing of it is held but ids.

use super::id::{MAX_LENGTH, RequestId};

/// The longest name of a member that is looked for, with its closing quote.
const LONGEST_NAME: usize = 8;

/// Ids that are kept of one array: no session has more calls that wait.
const MAX_IDS: usize = 64;

/// Where in a string the next byte stands, if in one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Within {
    #[default]
    None,
    String,
    Escape,
}

/// What the text begins with, except white space and marks of its encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Beginning {
    #[default]
    Nothing,
    /// An object: a message.
    Object,
    /// An array: several messages.
    Array,
    /// A log line, perhaps with a message in it.
    Other,
}

/// What is known of one message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct SkimmedMessage {
    /// The value of `id` so far.
    id: Vec<u8>,
    ids: usize,
    has_method: bool,
    /// It has a `jsonrpc`, a `result`, or an `error` that is an object.
    is_rpc: bool,
}

impl SkimmedMessage {
    fn id(&self) -> Option<RequestId> {
        let text = std::str::from_utf8(&self.id).ok()?.trim();
        if self.ids != 1 {
            return None;
        }
        // Some servers keep every number as a float: 7.0 answers 7.
        let whole = text.split_once('.').filter(|(_, part)| part.bytes().all(|it| it == b'0'));
        let text = whole.map_or(text, |(whole, _)| whole);
        RequestId::parse(text)
    }

    fn answers(&self) -> Option<RequestId> {
        self.id().filter(|_| self.is_rpc && !self.has_method)
    }
}

/// Looks at the bytes of one text as they come: a message, or an array of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Skim {
    opening: Beginning,
    depth: usize,
    string: Within,
    /// What comes is the value of a member of a message, not its name.
    in_value: bool,
    name: Vec<u8>,
    /// The message that comes.
    now: SkimmedMessage,
    /// What those before it answer.
    before: Vec<RequestId>,
    is_rpc: bool,
}

impl Skim {
    /// Looks at a whole text.
    pub(crate) fn of(text: &[u8]) -> Self {
        let mut skim = Self::default();
        skim.feed(text);
        skim
    }

    /// Takes the next bytes.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.take(*byte);
        }
    }

    /// The requests that it answers: those of messages that are answers, and name one once.
    pub(crate) fn answers(&self) -> Vec<RequestId> {
        self.before.iter().cloned().chain(self.now.answers()).collect()
    }

    /// The id of the request that it is, if it is one.
    pub(crate) fn asks(&self) -> Option<RequestId> {
        self.now.id().filter(|_| self.opening == Beginning::Object && self.now.has_method)
    }

    /// Is it meant for a message? What else stands on a line is a program's own affair.
    pub(crate) fn is_rpc(&self) -> bool {
        self.is_rpc
    }

    /// The depth at which members of a message stand.
    fn base(&self) -> usize {
        if self.opening == Beginning::Array { 2 } else { 1 }
    }

    fn begins(&mut self, byte: u8) {
        self.opening = match byte {
            // In front of a text may stand its encoding's mark.
            0xef | 0xbb | 0xbf | 0xfe | 0xff | b' ' | b'\t' | b'\r' | b'\n' => Beginning::Nothing,
            b'{' => Beginning::Object,
            b'[' => Beginning::Array,
            _ => Beginning::Other,
        };
    }

    fn take(&mut self, byte: u8) {
        // Of UTF-16 every second byte is zero; JSON has none.
        if byte == 0 || self.opening == Beginning::Other {
            return;
        }
        if self.opening == Beginning::Nothing {
            self.begins(byte);
        }
        if self.string != Within::None {
            self.string = match (self.string, byte) {
                (Within::String, b'\\') => Within::Escape,
                (Within::String, b'"') => Within::None,
                (_, _) => Within::String,
            };
            return self.keep(byte);
        }
        let at_members = self.depth == self.base();
        match byte {
            b'"' => {
                self.string = Within::String;
                if at_members && !self.in_value {
                    self.name.clear();
                }
                if at_members && self.in_value && self.name == b"method\"" {
                    self.now.has_method = true;
                }
            }
            b'{' | b'[' => self.open(byte == b'{' && at_members),
            b'}' | b']' => self.close(),
            b':' if at_members => {
                self.in_value = true;
                match &*self.name {
                    b"id\"" => self.now.ids = self.now.ids.saturating_add(1),
                    b"jsonrpc\"" | b"result\"" => self.note_rpc(),
                    _ => {}
                }
                return;
            }
            b',' if at_members => {
                self.in_value = false;
                return;
            }
            _ => {}
        }
        if self.in_value {
            self.keep(byte);
        }
    }

    fn open(&mut self, is_object_member: bool) {
        if is_object_member && self.in_value && self.name == b"error\"" {
            self.note_rpc();
        }
        self.depth = self.depth.saturating_add(1);
        if self.depth == self.base() {
            (self.in_value, self.now) = (false, SkimmedMessage::default());
            self.name.clear();
        }
    }

    fn close(&mut self) {
        if self.depth == self.base() && self.opening == Beginning::Array {
            self.finish();
        }
        self.depth = self.depth.saturating_sub(1);
        if self.depth == 0 && self.opening == Beginning::Object {
            // Another message may follow, without the end of a line between them.
            self.finish();
        }
    }

    fn finish(&mut self) {
        let Some(id) = self.now.answers() else { return };
        self.now = SkimmedMessage::default();
        if self.before.len() < MAX_IDS {
            self.before.push(id);
        }
    }

    fn note_rpc(&mut self) {
        (self.now.is_rpc, self.is_rpc) = (true, true);
    }

    fn keep(&mut self, byte: u8) {
        if self.depth != self.base() {
            return;
        }
        if !self.in_value && self.name.len() < LONGEST_NAME {
            self.name.push(byte);
        } else if self.in_value && self.name == b"id\"" && self.now.id.len() <= MAX_LENGTH {
            self.now.id.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::wire::jsonrpc::{Kind, Message};

    fn skimmed(text: impl AsRef<[u8]>, size: usize) -> Option<RequestId> {
        let mut skim = Skim::default();
        text.as_ref().chunks(size).for_each(|piece| skim.feed(piece));
        let mut answers = skim.answers();
        assert!(answers.len() <= 1, "{answers:?}");
        answers.pop()
    }

    #[test]
    fn the_id_is_found_wherever_it_stands() {
        let seven = Some(RequestId::from(7));
        let long = "x".repeat(5000);
        for (text, id) in [
            (r#"{"jsonrpc":"2.0","id":7,"result":{"id":8}}"#.to_owned(), seven.clone()),
            (r#" { "id" : 7 , "result" : [ "id", {"id":8} ] } "#.to_owned(), seven.clone()),
            (format!(r#"{{"result":{{"id":8,"t":"{long}\",\"id\":9"}},"id":7}}"#), seven.clone()),
            (r#"{"error":{"method":"a"},"id":"a\"}b"}"#.to_owned(), RequestId::parse(r#""a\"}b""#)),
            (r#"{"id":7,"result":{"a":"#.to_owned(), seven.clone()),
            (r#"{"id":7,"id":8,"result":{}}"#.to_owned(), None),
            (r#"{"id":7,"method":"ping"}"#.to_owned(), None),
            (r#"{"method":"ping","id":7}"#.to_owned(), None),
            (r#"{"id":{"id":7},"result":{}}"#.to_owned(), None),
            (format!(r#"{{"id":"{long}","result":{{}}}}"#), None),
            (r#"[{"id":7,"result":{}}]"#.to_owned(), seven.clone()),
            (r#"{"id_":7,"xid":7,"result":"id"}"#.to_owned(), None),
            (long.clone(), None),
        ] {
            for size in [1, 3, 10_000] {
                assert_eq!(skimmed(&text, size), id, "{text:.60}");
            }
        }
    }

    #[test]
    fn the_id_is_found_in_what_no_reader_takes() {
        let seven = Some(RequestId::from(7));
        for text in [
            &b"{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{\"t\":\"\xc7\xd1\xb1\xdb\"}}"[..],
            b"\xef\xbb\xbf{\"id\":7,\"result\":{}}",
            b"\xff\xfe{\0\"\0i\0d\0\"\0:\x007\0,\0\"\0r\0e\0s\0u\0l\0t\0\"\0:\x001\0}\0",
            br#"{"jsonrpc":"2.0","id":7,"result":NaN}"#,
            br#"{"jsonrpc":"2.0","id":7,"result":{},"error":null}"#,
            br#"{"jsonrpc":"2.0","id":7,"method":null,"params":null,"result":{},"error":null}"#,
            br#"{"jsonrpc":"2.0","id":7,"result":{},"result":{}}"#,
            br#"{"jsonrpc":"2.0","id":7,"ID":8,"result":{}}"#,
            br#"{"jsonrpc":"2.0","id":7.0,"result":{}}"#,
            br#"{"jsonrpc":"2.0","id":7}"#,
            br#"{"id":7,"error":{"code":1,"message":"m"}}"#,
        ] {
            let shown = String::from_utf8_lossy(text);
            assert!(Message::parse(bytes::Bytes::from_static(text)).is_err(), "{shown}");
            for size in [1, 3, 10_000] {
                assert_eq!(skimmed(text, size), seven, "{shown}");
            }
        }
    }

    #[test]
    fn a_log_line_answers_nothing() {
        for text in [
            r#"sending {"jsonrpc":"2.0","id":7,"result":{}}"#,
            r#"[INFO] {"jsonrpc":"2.0","id":7,"result":{}}"#,
            r#"[12:00:01] "id":7,"result":{}"#,
            r#"{"level":"info","id":7,"msg":"called"}"#,
            r#"{"level":"error","id":7,"error":"no database"}"#,
            r#"{"jsonrpc":"2.0","id":7,"method":"roots/list","result":null}"#,
            "{'jsonrpc': '2.0', 'id': 7, 'result': {}}",
        ] {
            assert_eq!(skimmed(text, 5), None, "{text}");
        }
    }

    #[test]
    fn of_several_messages_each_id_is_told_up_to_a_lid() {
        let answers = |text: &str| Skim::of(text.as_bytes()).answers();
        let three: Vec<RequestId> = [1, 2, 3].map(RequestId::from).into();
        let one = |id: u64| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"id":9}}}}"#);
        let note = r#"{"jsonrpc":"2.0","method":"note","id":5}"#;
        let list = [one(1), note.to_owned(), one(2), one(3)];
        assert_eq!(answers(&format!("[{}]", list.join(", "))), three);
        // Somebody forgot the end of a line.
        assert_eq!(answers(&list.concat()), three);
        let many: Vec<String> = (0..1000).map(one).collect();
        assert_eq!(answers(&format!("[{}]", many.join(","))).len(), MAX_IDS);
    }

    #[test]
    fn a_request_that_cannot_be_read_is_known_by_its_id() {
        let asks = |text: &str| Skim::of(text.as_bytes()).asks();
        assert_eq!(asks(r#"{"id":7,"method":"tools/call","params":NaN}"#), Some(7.into()));
        assert_eq!(asks(r#"{"id":7,"result":NaN}"#), None);
        assert_eq!(asks(r#"{"method":"note","params":NaN}"#), None);
        assert_eq!(asks("nope"), None);
    }

    #[test]
    fn what_is_meant_for_a_message_is_known_by_its_members() {
        let is_rpc = |text: &str| Skim::of(text.as_bytes()).is_rpc();
        for text in [
            r#"{"jsonrpc":"2.0","method":"note"}"#,
            r#"{"result":null"#,
            r#"{"id":7,"error":{"code":1"#,
            r#"[{"id":7,"result":{}}]"#,
        ] {
            assert!(is_rpc(text), "{text}");
        }
        for text in [
            r#"{"level":"info","id":7,"x":{}}"#,
            r#"{"id":7,"error":[{"code":1}]}"#,
            r#"{"id":7,"error":"no database"}"#,
            r#"{"error_":{},"x":{"result":1}}"#,
            "listening",
        ] {
            assert!(!is_rpc(text), "{text}");
            assert_eq!(skimmed(text, 5), None, "{text}");
        }
    }

    #[test]
    fn a_message_is_judged_when_all_of_it_has_come() {
        for text in [
            r#"{"jsonrpc":"2.0","id":7,"result":{"a":1},"method":"x"}"#,
            r#"{"jsonrpc":"2.0","id":7,"result":{"a":1},"id":8}"#,
        ] {
            assert_eq!(skimmed(text, 3), None, "{text}");
        }
        let asks = |text: &str| Skim::of(text.as_bytes()).asks();
        assert_eq!(asks(r#"[{"id":7,"method":"x"}]"#), None, "an array is no request");
    }

    #[test]
    fn a_long_name_is_kept_no_longer_than_those_that_are_looked_for() {
        let skim = Skim::of(br#"{"a very long name of a member"#);
        assert_eq!(skim.name, b"a very l");
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<i64>().prop_map(Value::from), ".{0,8}".prop_map(Value::from)];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::hash_map("id|method|.{0,3}", inner, 0..3)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_parser(result in value(), id in any::<i64>(), size in 1_usize..9) {
            let text = json!({ "jsonrpc": "2.0", "result": result, "id": id }).to_string();
            let message = Message::parse(text.clone().into()).unwrap();
            let Kind::Response { id } = message.kind() else { unreachable!() };
            let skimmed = skimmed(&text, size);
            prop_assert_eq!(skimmed.as_ref(), Some(id));
        }

        #[test]
        fn no_bytes_panic_or_are_kept(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let mut skim = Skim::default();
            skim.feed(&bytes);
            skim.answers();
            prop_assert!(skim.now.id.len() <= MAX_LENGTH + 1 && skim.name.len() <= LONGEST_NAME);
            prop_assert!(skim.before.len() <= MAX_IDS);
        }
    }
}
