//! Invariant: whatever a message or a reason says, the stream that carries it is read as just that
//! many events, with these ids and this data, by the edge's own decoder and by the standard's words.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mcp_edge::fuzzing::mcp::{EventId, StreamId, error_event, event};
use mcp_edge::fuzzing::{Event, events};
use mcp_edge::jsonrpc::Message;
use mcp_edge_fuzz::{json::Json, pieces, seeded_twice, sse};

fuzz_target!(|data: &[u8]| {
    let (data, sizes, number) = seeded_twice(data);
    let (mut stream, mut expected) = (Vec::new(), Vec::new());
    // Messages stand beside each other, a blank line between them.
    for (part, at) in data.split(|byte| *byte == 0).take(8).zip(0..) {
        if let Ok(message) = Message::parse(Bytes::copy_from_slice(part)) {
            let id = EventId { stream: StreamId(at), number: u64::from(number) };
            let id = (number % 2 == 0).then_some(id);
            stream.extend(event(id, message.line()).flatten());
            if let Some(id) = id {
                assert_eq!(EventId::parse(&format!("{at}-{number}")), Some(id));
            }
            let id = id.map(|_| format!("{at}-{number}").into());
            let kind = Some("message".into());
            expected.push(Event { kind, id, data: Some(message.line()), retry: None });
        } else {
            let text = String::from_utf8_lossy(part);
            stream.extend_from_slice(&error_event(&text));
            let kind = Some("error".into());
            expected.push(Event { kind, id: None, data: None, retry: None });
        }
    }
    let (mut read, whole) = events(&pieces(&stream, sizes), 1 << 20);
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
