//! The time limits of HTTP/2, and how its connections end.

use http::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::*;
use crate::conn::http2::frame::frame;
use crate::conn::linger::LINGER_BYTES;

/// An HTTP/2 client of the rig; its connection, to be driven.
async fn http2(
    rig: &Rig,
) -> (hyper::client::conn::http2::SendRequest<String>, impl Future<Output = ()> + use<>) {
    let (send, driver) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(1024)
        .handshake(TokioIo::new(rig.connect_http2().io))
        .await
        .unwrap();
    // How it ends does not matter here, only when.
    (send, async move { drop(driver.await) })
}

fn http2_post(session: &str, body: &str) -> Request<String> {
    let mut request = Request::post("https://localhost/mcp")
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream");
    if let Some((name, value)) = session.trim().split_once(": ") {
        request = request.header(name, value);
    }
    request.body(body.to_owned()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_idle_http2_connection_ends_at_75_seconds() {
    let rig = Rig::new();
    let (mut send, driver) = http2(&rig).await;
    let begun = Instant::now();
    let asking = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let answer = send.send_request(http2_post("", &call("ping"))).await.unwrap();
        assert_eq!(answer.status(), 200);
        drop(http_body_util::BodyExt::collect(answer.into_body()).await);
        send
    };
    let (_send, ()) = tokio::join!(asking, driver);
    assert_eq!(begun.elapsed().as_secs(), 80);
}

#[tokio::test(start_paused = true)]
async fn a_new_http2_connection_without_a_request_ends_at_10_seconds() {
    let rig = Rig::new();
    let (_send, driver) = http2(&rig).await;
    let begun = Instant::now();
    driver.await;
    assert_eq!(begun.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn an_http2_reader_that_takes_nothing_is_cut_at_30_seconds() {
    let rig = Rig::new();
    let session = rig.connect().initialize("2025-06-18").await;
    let (mut send, driver) = http2(&rig).await;
    let begun = Instant::now();
    let asking = async {
        let answer = send.send_request(http2_post(&session, &call("huge"))).await.unwrap();
        // Its body is there, and nobody reads it.
        (send, answer)
    };
    let (_held, ()) = tokio::join!(asking, driver);
    assert_eq!(begun.elapsed().as_secs(), 30);
}

/// A peer that writes its frames itself.
struct Frames {
    client: Client,
}

impl Frames {
    /// Opens a connection: preface, SETTINGS with this window for every stream.
    async fn connect(rig: &Rig, window: u32) -> Self {
        let mut frames = Self { client: rig.connect_http2() };
        frames.client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        let [a, b, c, d] = window.to_be_bytes();
        frames.send(4, 0, 0, &[0, 4, a, b, c, d]).await;
        frames
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let bytes = frame(kind, flags, stream, payload);
        self.client.io.write_all(&bytes).await.unwrap();
    }

    /// A POST of this message, whole.
    async fn post(&mut self, stream: u32, session: &str, body: &str) {
        let mut block = head("POST", "/mcp");
        block.extend(field("content-type", "application/json"));
        block.extend(field("accept", "application/json, text/event-stream"));
        if let Some((name, value)) = session.trim().split_once(": ") {
            block.extend(field(name, value));
        }
        self.send(1, 4, stream, &block).await;
        self.send(0, 1, stream, body.as_bytes()).await;
    }

    /// The next frame: type, flags, stream, payload.
    async fn next(&mut self) -> (u8, u8, u32, Vec<u8>) {
        loop {
            let mut head = [0; 9];
            self.client.io.read_exact(&mut head).await.unwrap();
            let [a, b, c, kind, flags, stream @ ..] = head;
            let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap();
            let mut payload = vec![0; length];
            self.client.io.read_exact(&mut payload).await.unwrap();
            if (kind, flags) != (6, 0) {
                return (kind, flags, u32::from_be_bytes(stream), payload);
            }
            // It lives.
            self.send(6, 1, 0, &payload).await;
        }
    }

    /// Last stream and code of the GOAWAY with which the connection ends; and the second.
    async fn end(&mut self) -> (Option<(u32, u32)>, u64) {
        let mut rest = Vec::new();
        drop(self.client.io.read_to_end(&mut rest).await);
        let mut goaway = None;
        let mut rest = &rest[..];
        while let [a, b, c, kind, _, _, _, _, _, behind @ ..] = rest {
            let length = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).unwrap();
            let (payload, later) = behind.split_at(length.min(behind.len()));
            if let (7, [s @ .., x, y, z, w]) = (kind, payload) {
                let last = u32::from_be_bytes(s.try_into().unwrap());
                goaway = Some((last, u32::from_be_bytes([*x, *y, *z, *w])));
            }
            rest = later;
        }
        (goaway, self.client.seconds())
    }
}

/// A header field, neither compressed nor remembered (RFC 7541 section 6.2.2).
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        assert!(text.len() < 127, "lengths of one byte");
        bytes.push(u8::try_from(text.len()).unwrap());
        bytes.extend(text.as_bytes());
    }
    bytes
}

fn head(method: &str, path: &str) -> Vec<u8> {
    let fields =
        [(":method", method), (":scheme", "https"), (":path", path), (":authority", "localhost")];
    fields.into_iter().flat_map(|(name, value)| field(name, value)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_header_block_that_does_not_end_is_cut_at_10_seconds() {
    let rig = Rig::new();
    // Of a new connection from its start, whatever comes of the block meanwhile.
    let mut peer = Frames::connect(&rig, 65535).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    peer.send(1, 1, 1, &head("GET", "/livez")).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    peer.send(9, 0, 1, &field("x", "y")).await;
    assert_eq!(peer.end().await, (Some((0, 0)), 10));
    // Of one that was used, from the block's first byte.
    let mut peer = Frames::connect(&rig, 65535).await;
    peer.send(1, 5, 1, &head("GET", "/livez")).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let block = frame(1, 5, 3, &head("GET", "/livez"));
    peer.client.io.write_all(&block[..4]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(9)).await;
    peer.client.io.write_all(&block[4..12]).await.unwrap();
    assert_eq!(peer.end().await, (Some((1, 0)), 30));
}

#[tokio::test(start_paused = true)]
async fn a_header_block_beside_an_open_stream_has_no_longer() {
    let rig = Rig::new();
    let mut peer = Frames::connect(&rig, 65535).await;
    let mut block = head("GET", "/sse");
    block.extend(field("accept", "text/event-stream"));
    peer.send(1, 5, 1, &block).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    peer.send(1, 1, 3, &head("GET", "/livez")).await;
    assert_eq!(peer.end().await, (Some((1, 0)), 30));
    assert_eq!(rig.edge.metrics.gauges().streams.value(), 0);
}

#[tokio::test(start_paused = true)]
async fn heads_that_follow_each_other_each_have_their_time() {
    let rig = Rig::new();
    let mut peer = Frames::connect(&rig, 65535).await;
    peer.send(1, 5, 1, &head("GET", "/livez")).await;
    // Each piece has the end of one head and the begin of the next.
    let mut rest = Vec::new();
    for stream in 0..5 {
        let next = frame(1, 5, 3 + 2 * stream, &head("GET", "/livez"));
        let (begin, end) = next.split_at(12);
        peer.client.io.write_all(&[&rest, begin].concat()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(8)).await;
        rest = end.to_vec();
    }
    peer.client.io.write_all(&rest).await.unwrap();
    let mut answered = 0;
    while answered < 6 {
        answered += usize::from(peer.next().await.0 == 1);
    }
    assert_eq!(peer.client.seconds(), 40);
}

#[tokio::test(start_paused = true)]
async fn a_preface_that_does_not_end_is_cut_at_10_seconds() {
    let rig = Rig::new();
    let mut peer = Frames { client: rig.connect_http2() };
    peer.client.send("PRI * HTTP/2.0\r\n").await;
    assert_eq!(peer.end().await, (Some((0, 0)), 10));
    // Whoever keeps the socket open keeps no place.
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(rig.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_waits_for_a_window_is_cut_at_30_seconds() {
    let rig = Rig::new();
    let mut peer = Frames::connect(&rig, 0).await;
    peer.post(1, "", &call("ping")).await;
    let (_, seconds) = peer.end().await;
    assert_eq!(seconds, 30);
    assert_eq!(rig.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_read_in_drips_is_cut_at_30_seconds() {
    let rig = Rig::new();
    let mut peer = Frames::connect(&rig, 16).await;
    // All of it is with the library at once, and its body is over.
    peer.post(1, "", &call("some")).await;
    let begun = Instant::now();
    let update = frame(8, 0, 1, &[0, 0, 0, 100]);
    while peer.client.io.write_all(&update).await.is_ok() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // Seen at the next drip.
    assert_eq!(begun.elapsed().as_secs(), 31);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_has_its_answer_in_the_end() {
    let rig = Rig::new();
    let mut peer = Frames::connect(&rig, 16384).await;
    peer.post(1, "", &call("large")).await;
    let mut taken = 0;
    loop {
        let (kind, flags, _, payload) = peer.next().await;
        if kind == 0 {
            taken += payload.len();
            tokio::time::sleep(Duration::from_secs(5)).await;
            let [a, b, c, d] = u32::try_from(payload.len()).unwrap().to_be_bytes();
            peer.send(8, 0, 1, &[a, b, c, d]).await;
            peer.send(8, 0, 0, &[a, b, c, d]).await;
            if flags & 1 != 0 {
                break;
            }
        }
    }
    assert!(taken > 200_000, "{taken}");
    assert!(peer.client.seconds() > 60);
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_too_much_of_nothing_is_told_and_others_are_not() {
    let rig = Rig::new();
    let mut peer = Frames::connect(&rig, 65535).await;
    peer.send(1, 5, 1, &head("GET", "/livez")).await;
    while peer.next().await.0 != 1 {}
    let mut pings = 0;
    for _ in 0..2000 {
        if peer.client.io.write_all(&frame(6, 0, 0, &[0; 8])).await.is_err() {
            break;
        }
        pings += 1;
    }
    assert!(pings > 900, "{pings}");
    assert_eq!(peer.end().await.0, Some((1, 0xb)));
    let (mut send, driver) = http2(&rig).await;
    let asking = async {
        let answer = send.send_request(http2_post("", &call("ping"))).await.unwrap();
        assert_eq!(answer.status(), 200);
        drop(send);
    };
    tokio::join!(asking, driver);
}

/// A peer that begins to send so many bytes to this path, and gets its answer before it is done;
/// the answer's head is the next frame.
async fn begin_upload(rig: &Rig, method: &str, path: &str, length: &str) -> Frames {
    let mut peer = Frames::connect(rig, 65535).await;
    while peer.next().await.0 != 4 {}
    // The windows that it offers count from now on.
    peer.send(4, 1, 0, &[]).await;
    let mut block = head(method, path);
    block.extend(field("content-type", "application/json"));
    if !length.is_empty() {
        block.extend(field("content-length", length));
    }
    peer.send(1, 4, 1, &block).await;
    peer.send(0, 0, 1, &[b'x'; 16384]).await;
    while peer.next().await.0 != 1 {}
    peer
}

#[tokio::test(start_paused = true)]
async fn an_answer_before_the_body_stands_for_2_seconds_before_the_reset() {
    let rig = Rig::new();
    for (method, path, length) in [
        ("POST", "/mcp", "10600000"),
        ("POST", "/nowhere", "10600000"),
        ("POST", "/nowhere", ""),
        ("POST", "/nowhere", "20000"),
        ("POST", "/sse", "1100000"),
        ("GET", "/livez", "1100000"),
        ("OPTIONS", "/mcp", "1100000"),
    ] {
        let mut peer = begin_upload(&rig, method, path, length).await;
        let mut reset = None;
        while reset.is_none() {
            let (kind, _, stream, payload) = peer.next().await;
            reset = (kind == 3).then_some((stream, payload));
        }
        // NO_ERROR (RFC 9113 section 8.1).
        assert_eq!(reset, Some((1, vec![0; 4])), "{method} {path} {length}");
        assert_eq!(peer.client.begun.elapsed(), Duration::from_secs(2), "{method} {path} {length}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_ends_behind_its_answer_is_not_reset() {
    let rig = Rig::new();
    let mut peer = begin_upload(&rig, "POST", "/nowhere", "").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    peer.send(0, 1, 1, b"the last").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    peer.send(1, 5, 3, &head("GET", "/livez")).await;
    loop {
        let (kind, _, stream, _) = peer.next().await;
        assert_ne!(kind, 3, "reset");
        if (kind, stream) == (1, 3) {
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_goes_on_and_on_is_reset_at_16_mib() {
    let rig = Rig::new();
    let mut peer = begin_upload(&rig, "POST", "/nowhere", "").await;
    // Both windows were opened as far as they go.
    let (mut stream, mut connection) = (1024 * 1024 - 16384, 1024 * 1024 - 16384);
    let mut sent: u64 = 16384;
    loop {
        if stream >= 16384 && connection >= 16384 {
            peer.send(0, 0, 1, &[b'x'; 16384]).await;
            (stream, connection, sent) = (stream - 16384, connection - 16384, sent + 16384);
            continue;
        }
        match peer.next().await {
            (8, _, on, more) => {
                let more = u32::from_be_bytes(more.try_into().unwrap());
                if on == 0 { connection += more } else { stream += more }
            }
            (3, _, on, code) => break assert_eq!((on, code), (1, vec![0; 4])),
            _ => {}
        }
    }
    assert_eq!(peer.client.seconds(), 0);
    let taken = LINGER_BYTES..=LINGER_BYTES + 2 * 1024 * 1024;
    assert!(taken.contains(&sent), "{sent}");
}
