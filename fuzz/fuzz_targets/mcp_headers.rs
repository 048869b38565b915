//! Invariant: no fields panic; `Mcp-Session-Id`, `MCP-Protocol-Version` and `Last-Event-ID` are read
//! as they stand, visible and once, or refused; a `Last-Event-ID` that is understood names one event,
//! and is written as it was read.
#![no_main]

use http::HeaderMap;
use libfuzzer_sys::fuzz_target;
use mcp_edge::fuzzing::http as doors;
use mcp_edge::fuzzing::mcp::{EventId, StreamId};
use mcp_edge_fuzz::headers;

fn once<'a>(map: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, ()> {
    let all: Vec<_> = map.get_all(name).iter().collect();
    match all.as_slice() {
        [] => Ok(None),
        [only] => {
            let visible = |byte: &u8| matches!(byte, 9 | 0x20..0x7f);
            let bytes = only.as_bytes();
            let text = std::str::from_utf8(bytes).ok().filter(|_| bytes.iter().all(visible));
            text.map(|text| Some(text.trim())).ok_or(())
        }
        _ => Err(()),
    }
}

fuzz_target!(|data: &[u8]| {
    let map = headers(data);
    let names = ["mcp-session-id", "mcp-protocol-version", "last-event-id"];
    let expected = names.map(|name| once(&map, name));
    match doors::fields(&map) {
        None => assert!(expected.iter().any(Result::is_err)),
        Some(read) => {
            let [session, version, last] = expected.map(|it| it.expect("it was read"));
            assert_eq!(read.session, session);
            assert_eq!(read.version, version.filter(|it| !it.is_empty()));
            assert_eq!(read.last_event, last.filter(|it| !it.is_empty()));
            if let Some(text) = read.last_event
                && let Some(EventId { stream: StreamId(stream), number }) = EventId::parse(text)
            {
                let (one, other) = text.split_once('-').expect("two numbers");
                assert_eq!(one.parse(), Ok(stream));
                assert_eq!(other.parse(), Ok(number));
                assert_eq!(format!("{stream}-{number}"), text, "two spellings of one event");
            }
        }
    }
});
