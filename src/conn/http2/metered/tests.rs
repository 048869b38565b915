//! The last word, and when there is none.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::caller::Alpn;
use crate::conn::deadlines::ConnTimes;
use crate::conn::http2::frame::frame;

fn metered() -> (Metered<DuplexStream>, DuplexStream) {
    let (ours, theirs) = duplex(1024 * 1024);
    let second = Duration::from_secs(1);
    let times = ConnTimes { header: second, idle: second, write: second };
    (Metered::new(ours, Activity::new(times, Alpn::H2), 4096), theirs)
}

fn last_stream(io: &Metered<DuplexStream>) -> Option<u32> {
    let [.., a, b, c, d, _, _, _, _] = io.goaway(GoAway::Overdue)?;
    Some(u32::from_be_bytes([a, b, c, d]))
}

#[tokio::test]
async fn the_last_stream_is_the_last_that_was_handed_on() {
    let (mut io, mut peer) = metered();
    let mut buffer = vec![0; 64 * 1024];
    peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    peer.write_all(&frame(1, 5, 7, b"x")).await.unwrap();
    assert!(io.read(&mut buffer).await.unwrap() > 0);
    peer.write_all(&frame(6, 0, 0, &[0; 8])).await.unwrap();
    assert!(io.read(&mut buffer).await.unwrap() > 0);
    assert_eq!(last_stream(&io), Some(7));
    // The last straw, and a request in the same read, which nobody will have seen.
    for _ in 0..1001 {
        peer.write_all(&frame(6, 0, 0, &[0; 8])).await.unwrap();
    }
    peer.write_all(&frame(1, 5, 9, b"x")).await.unwrap();
    assert!(io.read(&mut buffer).await.is_err());
    assert_eq!((io.fault(), last_stream(&io)), (Some(GoAway::Spent(Abuse::Ping)), Some(7)));
    assert!(io.read(&mut buffer).await.is_err());
}

#[tokio::test]
async fn it_never_names_more_than_was_named_before() {
    let (mut io, mut peer) = metered();
    peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    peer.write_all(&frame(1, 5, 7, b"x")).await.unwrap();
    let mut buffer = vec![0; 1024];
    assert!(io.read(&mut buffer).await.unwrap() > 0);
    peer.write_all(&frame(6, 0, 0, &[0; 8])).await.unwrap();
    assert!(io.read(&mut buffer).await.unwrap() > 0);
    io.write_all(&frame(7, 0, 0, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0])).await.unwrap();
    assert_eq!(last_stream(&io), Some(7));
    io.write_all(&frame(7, 0, 0, &[0, 0, 0, 5, 0, 0, 0, 0])).await.unwrap();
    assert_eq!(last_stream(&io), Some(5));
}

#[tokio::test]
async fn there_is_no_last_word_in_the_middle_of_a_frame() {
    let (mut io, _peer) = metered();
    assert_eq!(last_stream(&io), Some(0));
    let data = frame(0, 1, 1, &[0; 100]);
    let (begin, end) = data.split_at(50);
    io.write_all(begin).await.unwrap();
    assert_eq!(last_stream(&io), None);
    io.write_all(end).await.unwrap();
    assert_eq!(last_stream(&io), Some(0));
}

#[tokio::test]
async fn responses_are_followed_from_their_heads_to_their_ends() {
    let (mut io, mut peer) = metered();
    let mut buffer = vec![0; 1024];
    peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    io.write_all(&frame(1, 4, 1, b"x")).await.unwrap();
    io.write_all(&frame(1, 4, 3, b"x")).await.unwrap();
    io.write_all(&frame(1, 4, 5, b"x")).await.unwrap();
    io.write_all(&frame(1, 5, 7, b"x")).await.unwrap();
    assert_eq!(io.responding, [1, 3, 5]);
    io.write_all(&frame(0, 1, 1, b"x")).await.unwrap();
    io.write_all(&frame(3, 0, 3, &[0; 4])).await.unwrap();
    assert_eq!(io.responding, [5]);
    // What was on its way when the peer's reset came does not count again.
    peer.write_all(&frame(3, 0, 5, &[0, 0, 0, 8])).await.unwrap();
    peer.write_all(&frame(3, 0, 9, &[0, 0, 0, 8])).await.unwrap();
    assert!(io.read(&mut buffer).await.unwrap() > 0);
    io.write_all(&frame(0, 0, 5, b"x")).await.unwrap();
    io.write_all(&frame(1, 4, 9, b"x")).await.unwrap();
    assert!(io.responding.is_empty());
}
