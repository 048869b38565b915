//! Invariant: a batch is an array of messages that each parse alone, in their order, of which none
//! is lost or made; anything else is refused whole, and so is one of more than was allowed.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mcp_edge::jsonrpc::Message;
use mcp_edge_fuzz::json::Json;
use mcp_edge_fuzz::seeded;

fuzz_target!(|data: &[u8]| {
    let (data, most) = seeded(data);
    let most = usize::from(most % 8);
    let read = Json::parse(data);
    let batch = Message::parse_batch(&Bytes::copy_from_slice(data), most);
    if let (Ok(_), Some(Json::Array(_))) = (&batch, &read) {
        assert!(Message::is_batch(data));
    }
    let Ok(messages) = batch else { return };
    let Some(Json::Array(members)) = read else { panic!("no array") };
    assert!((1..=most).contains(&messages.len()));
    assert_eq!(messages.len(), members.len());
    for (message, member) in messages.iter().zip(&members) {
        assert_eq!(Json::parse(message.bytes()).as_ref(), Some(member));
        assert_eq!(Message::parse(message.bytes().clone()).as_ref(), Ok(message));
    }
});
