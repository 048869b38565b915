//! Can wrong tokens be told apart by the time that their comparison takes? Run by hand, on a machine
//! that does nothing else: `cargo test --release --lib the_time_of -- --ignored --nocapture`.
#![expect(clippy::as_conversions, reason = "it prints a table")]
#![expect(clippy::cast_precision_loss, reason = "statistics")]

use std::hint::black_box;

use tokio::time::Instant;

use self::welch::{MOST, crop, drawn, welch, worst};
use super::{Presented, Tokens};
use crate::config::Secret;

#[path = "../../../tests/support/welch.rs"]
mod welch;

/// Samples of each kind.
const SAMPLES: usize = 20_000;
/// Comparisons in one sample: a clock that ticks coarsely must see something.
const REPEATS: usize = 4;

/// A token as good ones are made: 64 characters.
const GOOD: &str = "3f1c5e9a7b2d4860c1e3f5a7092b4d6e8f0a1c3e5b7d9f1a2c4e6b8d0f2a4c6e";

fn wrong_at(at: usize) -> String {
    let mut token = GOOD.as_bytes().to_vec();
    *token.get_mut(at).unwrap() = b'x';
    String::from_utf8(token).unwrap()
}

#[test]
#[ignore = "measures time: run it by hand, on a machine that does nothing else"]
fn the_time_of_a_comparison_tells_nothing() {
    let tokens = Tokens::new(&[Secret::new(GOOD)]);
    let (first, middle, last) = (wrong_at(0), wrong_at(31), wrong_at(63));
    let short = GOOD.get(..16).unwrap();
    let long = format!("{GOOD}{GOOD}");
    // Shown, not judged: absent and good tokens are told by their answers anyway, and the copy of a
    // short or long one takes some nanoseconds less or more, which tells its sender its own length.
    let names = ["first byte", "middle byte", "last byte", "short", "long", "absent", "good"];
    let judged = 3;
    // Taking a token out of its header costs what its length costs, and that is the sender's own.
    let kinds: Vec<_> = [&*first, &*middle, &*last, short, &*long]
        .into_iter()
        .map(|token| Presented::Bearer(token.as_bytes()))
        .chain([Presented::Nothing, Presented::Bearer(GOOD.as_bytes())])
        .collect();
    let mut samples = vec![Vec::with_capacity(SAMPLES); kinds.len()];
    for kind in drawn(kinds.len()).take(SAMPLES * kinds.len()) {
        let token = *kinds.get(kind).unwrap();
        let begun = Instant::now();
        for _ in 0..REPEATS {
            black_box(tokens.compare(black_box(token)));
        }
        samples.get_mut(kind).unwrap().push(begun.elapsed().as_nanos() as f64);
    }
    crop(&mut samples);
    println!("\nall kinds:");
    worst(&names, &samples);
    println!("\nwrong tokens:");
    let worst = worst(names.get(..judged).unwrap(), samples.get(..judged).unwrap());
    println!("\nlargest |t| {worst:.2}, to stay below {MOST}");
    assert!(worst < MOST, "wrong tokens can be told apart");
}

#[test]
fn a_leak_would_be_seen() {
    let even: Vec<f64> = (0..1000).map(|n| f64::from(n % 10)).collect();
    let slower: Vec<f64> = even.iter().map(|n| n + 1.0).collect();
    assert!(welch(&even, &even).abs() < f64::EPSILON);
    // Means 4.5 and 5.5, both with a variance of 8.258 over 1000 samples.
    assert!((welch(&even, &slower) + 7.78).abs() < 0.01, "{}", welch(&even, &slower));
}
