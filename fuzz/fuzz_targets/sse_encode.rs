//! Invariant: whatever a message or a reason says, the stream that carries it is read as just that
//! many events, with these ids and this data, by the edge's own decoder and by the standard's words.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mcp_edge::fuzzing::{self, Event, mcp};
use mcp_edge::jsonrpc::Message;
use mcp_edge_fuzz::{json::Json, pieces, seeded_twice, sse};

fuzz_target!(|data: &[u8]| {
    let (data, sizes, number) = seeded_twice(data);
    let (mut stream, mut expected) = (Vec::new(), Vec::new());
    // Messages stand beside each other, a blank line between them.
    for (part, at) in data.split(|byte| *byte == 0).take(8).zip(0..) {
        if let Ok(message) = Message::parse(Bytes::copy_from_slice(part)) {
            let id = (number % 2 == 0).then_some((at, u64::from(number)));
            stream.extend_from_slice(&mcp::event(id, &message));
            let id = id.map(|(stream, number)| format!("{stream}-{number}"));
            if let Some(id) = &id {
                assert_eq!(mcp::event_id(id), Some((at, u64::from(number))));
            }
            let kind = Some("message".to_owned());
            expected.push(Event { kind, id, data: Some(message.line()), retry: None });
        } else {
            let text = String::from_utf8_lossy(part);
            stream.extend_from_slice(&mcp::farewell(&text));
            let kind = Some("error".to_owned());
            expected.push(Event { kind, id: None, data: None, retry: None });
        }
    }
    let (mut read, whole) = fuzzing::events(&pieces(&stream, sizes), 1 << 20);
    assert!(whole);
    assert_eq!(read, sse::decode(&stream));
    assert_eq!(read.len(), expected.len());
    for (event, expected) in read.iter_mut().zip(&expected) {
        if expected.data.is_none() {
            let data = event.data.take().expect("a reason");
            assert!(Json::parse(&data).is_some());
        }
        assert_eq!(event, expected);
    }
});
