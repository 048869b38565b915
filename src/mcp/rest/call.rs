//! A plain call: `{"name": …, "arguments": {…}}`, read so that it can be read in one way only.

use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::limits::bytes::Quota;
use crate::mcp::Reason;
use crate::wire::jsonrpc::Message;

/// Characters of somebody else's text that an error repeats.
const MAX_QUOTED: usize = 1000;

/// A call that was read.
#[derive(Debug)]
pub(super) struct PlainCall {
    /// The tool.
    pub(super) name: String,
    /// What is forwarded: name and arguments in the bytes that were read.
    pub(super) message: Message,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallBody<'a> {
    #[serde(borrow)]
    name: &'a RawValue,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
}

impl PlainCall {
    /// Reads the body of a request.
    pub(super) fn read(body: &Bytes, quota: &Quota) -> Result<Self, Reason> {
        let wrong = |why: &dyn fmt::Display| Reason::NotACall(clipped(&why.to_string()));
        let text = std::str::from_utf8(body).map_err(|error| wrong(&error))?;
        // An array would be read by position.
        if text.trim_ascii_start().starts_with('[') {
            return Err(wrong(&"it is an array"));
        }
        let CallBody { name, arguments } =
            serde_json::from_str(text).map_err(|error| wrong(&error))?;
        let raw_name = name.get();
        let raw = arguments.map_or("{}", RawValue::get);
        let name = serde_json::from_str(raw_name)
            .map_err(|_no_string| wrong(&"`name` must be a string"))?;
        if !raw.starts_with('{') {
            return Err(wrong(&"`arguments` must be an object"));
        }
        let message = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":{raw_name},"arguments":{raw}}}}}"#
        );
        let message = Message::parse(message.into()).map_err(|error| wrong(&error))?;
        Ok(Self { name, message: message.charged(quota) })
    }
}

pub(super) fn clipped(text: &str) -> String {
    text.chars().take(MAX_QUOTED).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(body: &str) -> Result<PlainCall, Reason> {
        PlainCall::read(&Bytes::copy_from_slice(body.as_bytes()), &Quota::unbounded())
    }

    #[test]
    fn the_bytes_that_were_read_are_forwarded() {
        let body =
            r#" { "arguments" : { "a" : [1.50, "\u0041", {"b":{}}] , "n": 1e2 }, "name":"x\n" } "#;
        let call = read(body).unwrap();
        assert_eq!(call.name, "x\n");
        let forwarded =
            r#"{"name":"x\n","arguments":{ "a" : [1.50, "\u0041", {"b":{}}] , "n": 1e2 }}"#;
        assert_eq!(call.message.params(), forwarded);
    }

    #[test]
    fn arguments_may_be_left_out() {
        for body in [r#"{"name":"x"}"#, r#"{"name":"x","arguments":null}"#] {
            let call = read(body).unwrap();
            assert_eq!(call.message.params(), r#"{"name":"x","arguments":{}}"#);
        }
    }

    #[test]
    fn what_is_not_of_the_form_or_reads_in_two_ways_is_refused() {
        let deep =
            format!(r#"{{"name":"x","arguments":{{"a":{}{}}}}}"#, "[".repeat(126), "]".repeat(126));
        for body in [
            "",
            "{",
            "7",
            "[]",
            r#"["x",{}]"#,
            "{}",
            r#"{"arguments":{}}"#,
            r#"{"name":7}"#,
            r#"{"name":null}"#,
            r#"{"name":"\ud800"}"#,
            r#"{"name":"x","arguments":[]}"#,
            r#"{"name":"x","arguments":"{}"}"#,
            r#"{"name":"x","args":{}}"#,
            r#"{"name":"x","Arguments":{}}"#,
            r#"{"name":"x","name":"y"}"#,
            r#"{"name":"x","arguments":{},"arguments":{}}"#,
            r#"{"name":"x"}{}"#,
            &deep,
        ] {
            assert!(matches!(read(body), Err(Reason::NotACall(_))), "{body}");
        }
        assert!(
            PlainCall::read(&Bytes::from_static(b"{\"name\":\"\xff\"}"), &Quota::unbounded())
                .is_err()
        );
    }

    #[test]
    fn a_refusal_repeats_no_more_than_a_bit() {
        let Err(Reason::NotACall(why)) = read(&format!(r#"{{"{}":1}}"#, "k".repeat(100_000)))
        else {
            panic!("it was taken");
        };
        assert!(why.len() <= 1000, "{}", why.len());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*", key in ".*", value in ".*") {
            let _none = read(&text);
            let body = json!({ "name": value, "arguments": { key: value } });
            let call = read(&body.to_string()).unwrap();
            let params: serde_json::Value = serde_json::from_str(call.message.params()).unwrap();
            prop_assert_eq!(params, body);
        }
    }
}
