//! Invariant: whatever frames come on an HTTP/2 connection, in whatever order, it ends by its time
//! limits and leaves nothing open; all that the edge writes are whole frames; and the handler sees
//! no call without the token.
#![no_main]

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use mcp_edge_fuzz::edge::{TOKEN, serve};
use mcp_edge_fuzz::h2::{PREFACE, Step, frame, frames};
use mcp_edge_fuzz::{pieces, seeded_twice};
use tokio::io::AsyncWriteExt;

fuzz_target!(|data: &[u8]| {
    let (data, sizes, flags) = seeded_twice(data);
    let mut next = 1;
    let steps: Vec<(Vec<u8>, u64)> = if flags & 2 == 0 {
        // Frames as they were recorded, or what has become of them.
        vec![(data.to_vec(), 0)]
    } else {
        let mut input = Unstructured::new(data);
        let steps: Vec<Step> = Vec::arbitrary(&mut input).unwrap_or_default();
        let settings = frame(4, 0, 0, b"");
        let first = (settings, 0);
        let wait = |step: &Step| match step {
            Step::Wait { seconds } => u64::from(*seconds % 16),
            _ => 0,
        };
        let rest = steps.iter().take(100).map(|step| (step.bytes(&mut next, TOKEN), wait(step)));
        std::iter::once(first).chain(rest).collect()
    };
    let outcome = serve(true, |mut half| async move {
        half.write_all(PREFACE).await.ok()?;
        for (bytes, wait) in &steps {
            for piece in pieces(bytes, sizes) {
                half.write_all(piece).await.ok()?;
            }
            if *wait > 0 {
                tokio::time::sleep(Duration::from_secs(*wait)).await;
            }
        }
        // Some close when they have said everything, others wait to be closed.
        (flags & 1 != 0).then_some(half)
    });
    let all = frames(&outcome.written);
    // SETTINGS come first (RFC 9113 section 3.4).
    assert!(all.first().is_none_or(|(kind, ..)| *kind == 4), "{all:?}");
    let token = data.windows(TOKEN.len()).any(|it| it == TOKEN.as_bytes());
    assert!(outcome.calls == 0 || token || flags & 2 != 0, "a call without a token");
});
