//! Invariant: whatever bytes come on a connection, in whatever pieces, it ends by its time limits;
//! all that the edge writes are valid HTTP/1.1 responses, every 4xx of them with a JSON body and no
//! 5xx among them; and the handler sees no call without the token, and none that was not whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_edge_fuzz::edge::{TOKEN, serve};
use mcp_edge_fuzz::{h1, json::Json, pieces, seeded_twice};
use tokio::io::AsyncWriteExt;

fn count(bytes: &[u8], part: &[u8]) -> usize {
    bytes.windows(part.len()).filter(|it| it.eq_ignore_ascii_case(part)).count()
}

fuzz_target!(|data: &[u8]| {
    let (data, sizes, flags) = seeded_twice(data);
    let outcome = serve(false, |mut half| async move {
        for piece in pieces(data, sizes) {
            if half.write_all(piece).await.is_err() {
                return None;
            }
            if flags & 2 != 0 {
                tokio::task::yield_now().await;
            }
        }
        // Some close when they have said everything, others wait to be closed.
        (flags & 1 != 0).then_some(half)
    });
    for response in h1::responses(&outcome.written, flags & 1 != 0) {
        assert!(response.status < 500, "{response:?}");
        if response.status >= 400 && !response.body.is_empty() {
            assert_eq!(response.field("content-type"), Some("application/json"), "{response:?}");
            assert!(Json::parse(&response.body).is_some(), "{response:?}");
        }
        if response.status >= 400 {
            let length = response.field("content-length").and_then(|it| it.parse().ok());
            assert!(length.is_some_and(|length: usize| length > 0), "{response:?}");
        }
    }
    let bearer = format!("Bearer {TOKEN}");
    let tokens = count(data, bearer.as_bytes()).max(count(data, TOKEN.as_bytes()));
    assert!(outcome.calls == 0 || tokens > 0, "a call without a token");
});
