//! Invariant: no bytes panic; what is taken for a message is JSON of at most 128 levels by an
//! independent reader too, and keeps its bytes; its line has no line break and the same value; under
//! another id it is the same message but for the id.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mcp_edge::jsonrpc::{Message, RequestId};
use mcp_edge_fuzz::json::Json;

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    let message = match Message::parse(bytes.clone()) {
        Ok(message) => message,
        Err(malformed) => {
            return assert!(malformed.code() < 0 && !malformed.to_string().is_empty());
        }
    };
    assert_eq!(message.bytes(), &bytes);
    let value = Json::parse(data).expect("taken for JSON");
    assert!(value.depth() <= 128, "{} levels", value.depth());

    let line = message.line();
    assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
    assert_eq!(Json::parse(&line).as_ref(), Some(&value));
    assert_eq!(Message::parse(line.clone()).as_ref().map(Message::kind), Ok(message.kind()));

    for id in [RequestId::from(7), RequestId::Text("another \"id\"\n".into())] {
        let renamed = message.with_id(&id);
        if message.id().is_none() {
            assert_eq!(renamed, message);
            continue;
        }
        assert_eq!(renamed.id(), Some(&id));
        let read = Message::parse(renamed.bytes().clone()).expect("is a message still");
        assert_eq!(read, renamed);
        let (Json::Object(before), Some(Json::Object(after))) =
            (&value, Json::parse(renamed.bytes()))
        else {
            panic!("no object")
        };
        assert_eq!(before.len(), after.len());
        for (one, other) in before.iter().zip(&after) {
            assert!(one == other || one.0 == "id" && other.0 == "id", "{one:?} became {other:?}");
        }
        let back = message.id().map(|id| renamed.with_id(id));
        assert_eq!(back.as_ref().map(Message::kind), Some(message.kind()));
    }
});
