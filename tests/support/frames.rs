//! HTTP/2 frames as no library would send them, over TLS.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use super::TestServer;
use super::raw::RawClient;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// Flags (RFC 9113 section 6). The first is ACK, too.
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const WITH_PRIORITY: u8 = 0x20;
/// A head that is a whole request.
pub(crate) const WHOLE: u8 = END_STREAM | END_HEADERS;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame, as bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header field, neither compressed nor remembered (RFC 7541 section 6.2.2).
pub(crate) fn field(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name.as_ref(), value.as_ref()] {
        if text.len() < 127 {
            bytes.push(u8::try_from(text.len()).unwrap());
        } else {
            bytes.push(127);
            let mut rest = text.len() - 127;
            while rest >= 128 {
                bytes.push(u8::try_from(rest % 128).unwrap() | 128);
                rest /= 128;
            }
            bytes.push(u8::try_from(rest).unwrap());
        }
        bytes.extend(text);
    }
    bytes
}

/// Fields one behind the other.
pub(crate) fn fields<N: AsRef<[u8]>, V: AsRef<[u8]>>(
    fields: impl IntoIterator<Item = (N, V)>,
) -> Vec<u8> {
    fields.into_iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// The head of a request without a body.
pub(crate) fn get(path: &str) -> Vec<u8> {
    request("GET", path)
}

pub(crate) fn request(method: &str, path: &str) -> Vec<u8> {
    fields([
        (":method", method),
        (":scheme", "https"),
        (":path", path),
        (":authority", "localhost"),
    ])
}

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Came {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Came {
    fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// The status of a response's head, if it is the first of its connection.
    fn status(&self) -> u16 {
        let block = &self.payload;
        match *block.first().unwrap() {
            0x88 => 200,
            0x89 => 204,
            0x8c => 400,
            0x8d => 404,
            0x8e => 500,
            // A value of its own for a name of the static table, as h2 writes it.
            0x48 if block[1] & 128 != 0 => digits(&block[2..2 + usize::from(block[1] & 127)]),
            0x48 => std::str::from_utf8(&block[2..5]).unwrap().parse().unwrap(),
            other => panic!("no status that is understood here: {other:#x}"),
        }
    }
}

/// Three digits of Huffman's code (RFC 7541 appendix B).
fn digits(bytes: &[u8]) -> u16 {
    let mut bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1));
    let mut take =
        |count: usize| bits.by_ref().take(count).fold(0, |sum, bit| sum * 2 + u16::from(bit));
    let mut number = 0;
    for _ in 0..3 {
        let short = take(5);
        number = number * 10 + if short < 3 { short } else { short * 2 + take(1) - 0x19 + 3 };
    }
    number
}

/// What a connection came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A GOAWAY with this code.
    GoAway(u32),
    /// The stream was reset with this code.
    Reset(u32),
    /// The request was answered with this status.
    Status(u16),
    /// The connection lives on.
    Alive,
    /// It ended without a word.
    Closed,
}

/// A connection of frames. What comes is read all the time.
pub(crate) struct Frames {
    writer: WriteHalf<TlsStream<TcpStream>>,
    came: mpsc::UnboundedReceiver<Came>,
    _reader: JoinSet<()>,
    pings: u64,
}

impl Frames {
    /// A connection that said its preface, and SETTINGS without any.
    pub(crate) async fn connect(server: &TestServer, from: IpAddr) -> Self {
        let mut frames = Self::silent(server, from).await;
        assert!(frames.send(PREFACE).await && frames.send(&frame(SETTINGS, 0, 0, b"")).await);
        frames
    }

    /// A connection that said nothing.
    pub(crate) async fn silent(server: &TestServer, from: IpAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let tcp = socket.connect(server.address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let mut tls = ClientConfig::clone(&Arc::clone(&server.tls));
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let (reader, writer) = split(RawClient::over(tcp, tls).await.unwrap().io);
        let (told, came) = mpsc::unbounded_channel();
        let mut reading = JoinSet::new();
        reading.spawn(async move { read(reader, told).await });
        Self { writer, came, _reader: reading, pings: 0 }
    }

    /// False if the server takes no more.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> bool {
        self.writer.write_all(bytes).await.is_ok() && self.writer.flush().await.is_ok()
    }

    /// The next frame; none at the connection's end.
    pub(crate) async fn next(&mut self) -> Option<Came> {
        self.came.recv().await
    }

    /// Has a GOAWAY come, as far as is known now?
    pub(crate) fn is_over(&mut self) -> bool {
        loop {
            match self.came.try_recv() {
                Ok(came) if came.kind == GOAWAY => return true,
                Ok(_) => {}
                Err(mpsc::error::TryRecvError::Empty) => return false,
                Err(mpsc::error::TryRecvError::Disconnected) => return true,
            }
        }
    }

    /// Waits until the server has seen all that was sent, twice: what it says to it may come behind
    /// its answer to the first PING.
    pub(crate) async fn verdict(&mut self, stream: u32) -> Verdict {
        for _ in 0..2 {
            self.pings += 1;
            let ping = self.pings.to_be_bytes();
            // One that has ended may still have said why.
            self.send(&frame(PING, 0, 0, &ping)).await;
            loop {
                let Some(came) = self.next().await else { return Verdict::Closed };
                match came.kind {
                    GOAWAY => return Verdict::GoAway(came.word(4)),
                    RST_STREAM if came.stream == stream => return Verdict::Reset(came.word(0)),
                    PING if came.flags & ACK != 0 && came.payload == ping => break,
                    _ => {}
                }
            }
        }
        Verdict::Alive
    }

    /// Waits for the answer of a request that is the first of its connection.
    pub(crate) async fn answer(&mut self, stream: u32) -> Verdict {
        loop {
            let Some(came) = self.next().await else { return Verdict::Closed };
            match came.kind {
                GOAWAY => return Verdict::GoAway(came.word(4)),
                RST_STREAM if came.stream == stream => return Verdict::Reset(came.word(0)),
                HEADERS if came.stream == stream => return Verdict::Status(came.status()),
                _ => {}
            }
        }
    }

    /// The last stream and code of the GOAWAY that ends the connection; none without one.
    pub(crate) async fn goaway(&mut self) -> Option<(u32, u32)> {
        let mut said = None;
        while let Some(came) = self.next().await {
            if came.kind == GOAWAY {
                said = Some((came.word(0), came.word(4)));
            }
        }
        said
    }
}

async fn read(mut reader: ReadHalf<TlsStream<TcpStream>>, told: mpsc::UnboundedSender<Came>) {
    let mut head = [0; 9];
    while reader.read_exact(&mut head).await.is_ok() {
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap()];
        if reader.read_exact(&mut payload).await.is_err() {
            return;
        }
        let came = Came { kind, flags, stream: u32::from_be_bytes(stream), payload };
        if told.send(came).is_err() {
            return;
        }
    }
}
