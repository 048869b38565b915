//! Invariant: what policy reads of an accepted message is what the backend reads of the bytes that
//! it receives, whether it takes the first of two members, the last, or minds no case: method, id,
//! tool, resource, progress token, cancelled request, versions.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mcp_edge::fuzzing::{resource, tool};
use mcp_edge::jsonrpc::{Kind, Message, RequestId};
use mcp_edge_fuzz::json::{Json, READERS};

const VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// An id as the backend compares it.
fn id(value: Option<&Json>) -> Option<RequestId> {
    match value? {
        Json::Text(text) => Some(RequestId::Text(text.as_str().into())),
        Json::Word(word) if !word.contains(['.', 'e', 'E', 'n', 'u']) => {
            Some(RequestId::Number(word.as_str().into()))
        }
        _ => None,
    }
}

/// Does it hold half a surrogate pair, which JSON allows and no string can hold? Or an id that is
/// too long to be kept.
fn is_unreadable(value: Option<&Json>) -> bool {
    matches!(value, Some(Json::Text(text)) if text.contains('\u{fffd}') || text.len() > 300)
        || matches!(value, Some(Json::Word(word)) if word.len() > 300)
}

fuzz_target!(|data: &[u8]| {
    let Ok(message) = Message::parse(Bytes::copy_from_slice(data)) else { return };
    let root = Json::parse(message.bytes()).expect("taken for JSON");
    for reader in READERS {
        let member =
            |of: Option<&Json>, name: &str| of.and_then(|it| it.member(name, reader)).cloned();
        let root = Some(&root);
        let text = |value: Option<Json>| value.as_ref().and_then(Json::text).map(str::to_owned);
        assert_eq!(text(member(root, "jsonrpc")).as_deref(), Some("2.0"), "{reader:?}");
        assert_eq!(text(member(root, "method")).as_deref(), message.method(), "{reader:?}");
        let named = member(root, "id");
        assert_eq!(message.id().cloned(), id(named.as_ref()), "{reader:?}");
        let answers = member(root, "result").is_some() || member(root, "error").is_some();
        assert_eq!(matches!(message.kind(), Kind::Response { .. }), answers);
        if answers {
            continue;
        }
        let params = member(root, "params");
        let params = params.as_ref();
        let meta = member(params, "_meta");
        let meta = meta.as_ref();
        assert_eq!(message.params().is_empty(), params.is_none());

        // A value of another kind than is asked for is none to both.
        let compare = |what: &str, ours: Option<String>, theirs: Option<Json>| {
            if !is_unreadable(theirs.as_ref()) {
                assert_eq!(ours, text(theirs), "{what}, {reader:?}");
            }
        };
        compare("tool", tool(&message), member(params, "name"));
        compare("resource", resource(&message), member(params, "uri"));
        compare("version", message.envelope_version(), member(meta, VERSION));
        compare("protocol", message.protocol_version(), member(params, "protocolVersion"));
        let of_ids = |what: &str, ours: Option<RequestId>, theirs: Option<Json>| {
            if !is_unreadable(theirs.as_ref()) {
                assert_eq!(ours, id(theirs.as_ref()), "{what}, {reader:?}");
            }
        };
        of_ids("cancelled", message.cancelled(), member(params, "requestId"));
        let token = match message.kind() {
            Kind::Request { .. } => member(meta, "progressToken"),
            _ => member(params, "progressToken"),
        };
        of_ids("progress", message.progress_token(), token);
    }
});
