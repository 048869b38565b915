//! Invariant: no bytes panic; frames that go by are told as an independent reader finds them, in
//! whatever pieces they come; and a peer that sends frames that ask for nothing, as fast as it can,
//! is sent away within 1,000 of them, whichever they are and in whatever order.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use mcp_edge::fuzzing::conn::{frames, patience};
use mcp_edge_fuzz::{edge, pieces, seeded};

fuzz_target!(|data: &[u8]| {
    let (data, sizes) = seeded(data);
    let (mut expected, mut rest) = (Vec::new(), data);
    let whole = loop {
        let Some((head, after)) = rest.split_first_chunk::<9>() else { break rest.is_empty() };
        let [a, b, c, kind, flags, stream @ ..] = *head;
        let length = u32::from_be_bytes([0, a, b, c]);
        let payload = &after[..after.len().min(length as usize)];
        if payload.len() < length.min(4) as usize {
            break false;
        }
        let mut lead = [0; 4];
        let first = payload.len().min(4);
        lead[..first].copy_from_slice(&payload[..first]);
        let padding = if flags & 8 != 0 { 1 + u32::from(lead[0]) } else { 0 };
        let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
        let _ = kind;
        expected.push((stream, length, u32::from_be_bytes(lead), length.saturating_sub(padding)));
        if payload.len() < length as usize {
            break false;
        }
        rest = &after[length as usize..];
    };
    assert_eq!(frames(&pieces(data, sizes)), (expected, whole));
    edge::run(async {
        let most = patience(data, Duration::ZERO);
        assert!(most.is_some_and(|most| most <= 1000), "{most:?} frames");
    });
});
