//! Invariant: no bytes panic; of what a peer sends before its ClientHello is whole no more is taken
//! than a hello may be long, and the answer is a TLS alert, or the one to plain HTTP.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_edge::fuzzing::conn::is_hello;
use mcp_edge_fuzz::{edge, h1, pieces, seeded_twice};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

/// The longest hello, in records of one byte each, and one record more.
const MOST: usize = 0x1_0000 * 6 + 0x1_0000;

fuzz_target!(|data: &[u8]| {
    let (data, sizes, times) = seeded_twice(data);
    let data = data.repeat(usize::from(times % 32).max(1));
    let (hello, answer, taken) = edge::run(async {
        let (mut ours, mut theirs) = duplex(256);
        let (mut reading, mut writing) = tokio::io::split(&mut ours);
        let mut answer = Vec::new();
        let mut sent = 0;
        let serving = async {
            let hello = is_hello(&mut theirs).await;
            drop(theirs);
            hello
        };
        let sending = async {
            for piece in pieces(&data, sizes) {
                if writing.write_all(piece).await.is_err() {
                    return;
                }
                sent += piece.len();
            }
            drop(writing.shutdown().await);
        };
        let hearing = async { drop(reading.read_to_end(&mut answer).await) };
        let (hello, (), ()) = tokio::join!(serving, sending, hearing);
        (hello, answer, sent)
    });
    assert!(taken <= MOST, "{taken} bytes were taken");
    match answer.first() {
        None => {}
        Some(21) => assert!(!hello && answer.len() >= 7),
        Some(_) => {
            let all = h1::responses(&answer, false);
            assert!(!hello && all.len() == 1 && all[0].status == 400);
            assert!(data.starts_with(&data[..3]) && data[0].is_ascii_uppercase());
        }
    }
});
