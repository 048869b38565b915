//! Can wrong tokens be told apart by the time of their refusal, over TLS? Run by hand, on a machine
//! that does nothing else: `cargo test --release --test timing -- --ignored --nocapture`.
#![expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "statistics")]

mod support;
#[path = "support/welch.rs"]
mod welch;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use mcp_edge::{Access, Behind, Config, Secret};
use tokio::time::Instant;

use support::{TestServer, config};
use welch::{MOST, crop, drawn, welch, worst};

/// Samples of each kind.
const SAMPLES: usize = 15_000;
/// A token as good ones are made: 64 characters.
const GOOD: &str = "3f1c5e9a7b2d4860c1e3f5a7092b4d6e8f0a1c3e5b7d9f1a2c4e6b8d0f2a4c6e";

fn wrong_at(at: usize) -> String {
    GOOD.char_indices().map(|(index, c)| if index == at { 'x' } else { c }).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures time: run it by hand, on a machine that does nothing else"]
async fn the_time_of_a_refusal_tells_nothing() {
    let access = Access::Tokens(vec![Secret::new(GOOD)]);
    let server = TestServer::start(Config { access, ..config() }, Behind::diagnostics()).await;
    let tokens =
        [wrong_at(0), wrong_at(31), wrong_at(63), GOOD.chars().take(16).collect(), GOOD.repeat(2)];
    let names = ["first byte", "middle byte", "last byte", "short", "long"];
    let mut conn = server.client().connect().await;
    let mut samples = vec![Vec::with_capacity(SAMPLES); names.len()];
    let requests: Vec<Request<Full<Bytes>>> = tokens
        .iter()
        .map(|token| {
            // The same number of bytes on the line: those alone tell no more than their sender knows.
            let padding = "x".repeat(160 - token.len());
            server.client().token(token).request("GET", "/mcp").header("x-padding", padding)
        })
        .map(|request| request.body(Full::default()).unwrap())
        .collect();
    for kind in drawn(names.len()).take(SAMPLES * names.len()) {
        let request = requests.get(kind).unwrap().clone();
        let begun = Instant::now();
        let answer = conn.send(request).await;
        samples.get_mut(kind).unwrap().push(begun.elapsed().as_nanos() as f64);
        assert_eq!(answer.status, 401, "{answer:?}");
    }
    crop(&mut samples);
    let worst = worst(&names, &samples);
    println!("\nlargest |t| {worst:.2}, to stay below {MOST}");
    assert!(worst < MOST, "wrong tokens can be told apart");
    assert!(welch(&[0.0, 1.0], &[8.0, 9.0]) < -MOST);
}
