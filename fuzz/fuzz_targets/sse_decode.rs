//! Invariant: no bytes panic; they give the same events in whatever pieces they come, the events
//! that the standard's words give; no more is held than one event of the greatest length and the
//! last piece; too long is too long in any pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_edge::fuzzing::events;
use mcp_edge::fuzzing::mcp::EventId;
use mcp_edge_fuzz::{pieces, seeded_twice, sse};

fuzz_target!(|data: &[u8]| {
    let (data, sizes, max) = seeded_twice(data);
    let (all, whole) = events(&pieces(data, sizes), usize::MAX / 2);
    assert!(whole);
    assert_eq!(all, sse::decode(data));
    let max = usize::from(max);
    let (some, whole) = events(&pieces(data, sizes), max);
    assert_eq!((some.clone(), whole), events(&[data], max));
    assert_eq!(&all[..some.len()], some);
    assert!(!whole || some.len() == all.len());
    if let Ok(text) = std::str::from_utf8(data) {
        let read = EventId::parse(text);
        assert!(read.is_none() || text.split_once('-').is_some());
    }
});
