//! What can be known of a message that is too large to be kept: it is looked at as it comes, and
//! nothing of it is held but its id.

use super::RequestId;
use super::id::MAX_LENGTH;

/// The longest name of a member that is looked for, and one byte more.
const LONGEST_NAME: usize = 7;

/// Where in a string the next byte stands, if in one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Within {
    #[default]
    None,
    String,
    Escape,
}

/// Looks at the bytes of one message as they come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Skim {
    depth: usize,
    string: Within,
    /// What comes is the value of a member of the message itself, not its name.
    in_value: bool,
    name: Vec<u8>,
    /// The value of `id` so far.
    id: Vec<u8>,
    ids: usize,
    has_method: bool,
}

impl Skim {
    /// Takes the next bytes.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.take(*byte);
        }
    }

    /// The request that it answers, if it is an answer and says so once.
    pub(crate) fn answers(&self) -> Option<RequestId> {
        if self.has_method || self.ids != 1 {
            return None;
        }
        RequestId::parse(std::str::from_utf8(&self.id).ok()?.trim())
    }

    fn take(&mut self, byte: u8) {
        if self.string != Within::None {
            self.string = match (self.string, byte) {
                (Within::String, b'\\') => Within::Escape,
                (Within::String, b'"') => Within::None,
                (_, _) => Within::String,
            };
            return self.keep(byte);
        }
        match byte {
            b'"' => {
                self.string = Within::String;
                if self.depth == 1 && !self.in_value {
                    self.name.clear();
                }
            }
            b'{' | b'[' => self.depth = self.depth.saturating_add(1),
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            b':' if self.depth == 1 => {
                self.in_value = true;
                self.has_method |= self.name == b"method\"";
                self.ids = self.ids.saturating_add(usize::from(self.name == b"id\""));
                return;
            }
            b',' if self.depth == 1 => {
                self.in_value = false;
                return;
            }
            _ => {}
        }
        if self.in_value {
            self.keep(byte);
        }
    }

    fn keep(&mut self, byte: u8) {
        if self.depth != 1 {
            return;
        }
        if !self.in_value && self.name.len() < LONGEST_NAME {
            self.name.push(byte);
        } else if self.in_value && self.name == b"id\"" && self.id.len() <= MAX_LENGTH {
            self.id.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::jsonrpc::{Kind, Message};

    fn skimmed(text: &str, size: usize) -> Option<RequestId> {
        let mut skim = Skim::default();
        text.as_bytes().chunks(size).for_each(|piece| skim.feed(piece));
        skim.answers()
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
            (r#"{"id":7,"result":{"a":"#.to_owned(), seven),
            (r#"{"id":7,"id":8,"result":{}}"#.to_owned(), None),
            (r#"{"id":7,"method":"ping"}"#.to_owned(), None),
            (r#"{"method":"ping","id":7}"#.to_owned(), None),
            (r#"{"id":{"id":7},"result":{}}"#.to_owned(), None),
            (format!(r#"{{"id":"{long}","result":{{}}}}"#), None),
            (r#"[{"id":7,"result":{}}]"#.to_owned(), None),
            (r#"{"id_":7,"xid":7,"result":"id"}"#.to_owned(), None),
            (long.clone(), None),
        ] {
            for size in [1, 3, 10_000] {
                assert_eq!(skimmed(&text, size), id, "{text:.60}");
            }
        }
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
            let _answers = skim.answers();
            prop_assert!(skim.id.len() <= MAX_LENGTH + 1 && skim.name.len() <= LONGEST_NAME);
        }
    }
}
