//! A TLS stream that ends when its peer sends records that carry nothing.
//!
//! Each record costs a decryption, a key update two derivations more, and a `ClientHello` may come
//! in as many records as it has bytes. rustls bounds each kind of empty record that follows its own
//! kind; one that alternates is bounded here, below TLS, where records are counted whatever they
//! are. Every byte of data pays for one.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

/// Records that a peer may send beyond the bytes of data that it has sent.
const MOST_IDLE: usize = 1024;
/// Type, version and length of a record (RFC 8446 section 5.1).
const HEADER: u16 = 5;

/// The peer sends records, and no data.
#[derive(Debug, thiserror::Error)]
#[error("the client sent {MOST_IDLE} TLS records more than bytes of data")]
pub(crate) struct RecordFlood;

/// The socket below TLS. It fails with [`RecordFlood`] when too many records came.
#[derive(Debug)]
pub(super) struct Records<I> {
    io: I,
    /// Records that came, less the bytes of data that did.
    idle: usize,
    position: Position,
}

/// Where in the stream of records the next byte belongs.
#[derive(Clone, Copy, Debug)]
enum Position {
    /// In a header, of which so much came, with this length so far.
    Header { came: u16, length: u16 },
    /// In a record's content, of which this is still to come.
    Content(u16),
}

impl<I> Records<I> {
    pub(super) fn new(io: I) -> Self {
        Self { io, idle: 0, position: Position::Header { came: 0, length: 0 } }
    }

    fn follow(&mut self, mut bytes: &[u8]) {
        while let Some((&first, rest)) = bytes.split_first() {
            (self.position, bytes) = match self.position {
                Position::Header { came, length } => {
                    let length = if came < 3 { 0 } else { length << 8 | u16::from(first) };
                    let came = came + 1;
                    if came < HEADER {
                        (Position::Header { came, length }, rest)
                    } else {
                        self.idle = self.idle.saturating_add(1);
                        (Position::content(length), rest)
                    }
                }
                Position::Content(left) => {
                    let here = bytes.len().min(left.into());
                    let left = left.saturating_sub(u16::try_from(here).unwrap_or(left));
                    (Position::content(left), bytes.get(here..).unwrap_or_default())
                }
            };
        }
    }

    fn paid_by(&mut self, data: usize) {
        self.idle = self.idle.saturating_sub(data);
    }
}

impl Position {
    /// With so much of a record's content to come: at the next header, if that is nothing.
    const fn content(left: u16) -> Self {
        if left == 0 { Self::Header { came: 0, length: 0 } } else { Self::Content(left) }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Records<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Not behind the read: the data that came with these records has yet to pay for them.
        if self.idle > MOST_IDLE {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, RecordFlood)));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        self.follow(buffer.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Records<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// A stream after its handshake: plain bytes above TLS.
#[derive(Debug)]
pub(crate) struct Secured<I>(TlsStream<Records<I>>);

impl<I> Secured<I> {
    pub(super) const fn new(tls: TlsStream<Records<I>>) -> Self {
        Self(tls)
    }

    /// What the handshake came to.
    #[cfg(test)]
    pub(super) fn connection(&self) -> &rustls::ServerConnection {
        self.0.get_ref().1
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Secured<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.0).poll_read(context, buffer))?;
        let data = buffer.filled().len().saturating_sub(before);
        self.0.get_mut().0.paid_by(data);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Secured<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use rustls::SupportedProtocolVersion;
    use rustls::version::{TLS12, TLS13};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio_rustls::client;

    use super::super::HandshakeError;
    use super::super::testing::{client_of, edge, handshake, hello};
    use super::*;

    /// Nobody may wait for room that the other side never makes.
    async fn bounded<T>(what: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(30), what).await.unwrap()
    }

    /// Both ends of a connection.
    async fn connected(
        version: &'static SupportedProtocolVersion,
    ) -> (Secured<DuplexStream>, client::TlsStream<DuplexStream>) {
        let (pki, acceptor) = edge();
        let config = client_of(pki.root(), &[], &[version]);
        let (server, client) = handshake(&acceptor, config, "a.example").await;
        (server.unwrap().0, client.unwrap())
    }

    fn is_flood(error: &io::Error) -> bool {
        error.get_ref().and_then(|it| it.downcast_ref::<RecordFlood>()).is_some()
    }

    #[tokio::test]
    async fn key_updates_without_data_are_bounded() {
        let (mut server, mut client) = connected(&TLS13).await;
        let updating = async {
            for _ in 0..1000 {
                client.get_mut().1.refresh_traffic_keys().unwrap();
                // The server may have had enough.
                if client.flush().await.is_err() {
                    break;
                }
            }
            client
        };
        let (read, _client) = bounded(async { tokio::join!(server.read_u8(), updating) }).await;
        let error = read.unwrap_err().downcast::<rustls::Error>().unwrap();
        let limit = rustls::PeerMisbehaved::TooManyKeyUpdateRequests;
        assert_eq!(error, rustls::Error::PeerMisbehaved(limit));
    }

    /// A byte between them starts rustls' own count anew.
    #[tokio::test]
    async fn records_that_outnumber_the_data_end_the_connection() {
        let (mut server, mut client) = connected(&TLS13).await;
        let updating = async {
            for _ in 0..1000 {
                for _ in 0..16 {
                    client.get_mut().1.refresh_traffic_keys().unwrap();
                }
                if client.write_all(b"x").await.is_err() || client.flush().await.is_err() {
                    break;
                }
            }
            client
        };
        // The server's end goes with it: the client must not wait for room.
        let reading = async move {
            let mut data = 0;
            loop {
                match server.read_u8().await {
                    Ok(_) => data += 1,
                    Err(error) => break (data, error),
                }
            }
        };
        let ((data, error), _client) = bounded(async { tokio::join!(reading, updating) }).await;
        assert!(is_flood(&error), "{error}");
        // Each has 16 records beside its own; 4 KiB are read at once, and what is in them is still had.
        assert!((60..76).contains(&data), "{data}");
    }

    #[tokio::test]
    async fn a_byte_for_each_record_is_no_flood() {
        const BYTES: usize = 5000;
        for version in [&TLS12, &TLS13] {
            let (mut server, mut client) = connected(version).await;
            let writing = async {
                for _ in 0..BYTES {
                    client.write_all(b"x").await.unwrap();
                    client.flush().await.unwrap();
                }
            };
            let mut read = vec![0; BYTES];
            let read = server.read_exact(&mut read);
            let (all, ()) = bounded(async { tokio::join!(read, writing) }).await;
            assert_eq!(all.unwrap(), BYTES);
        }
    }

    /// How a handshake ends whose hello comes in records of this size.
    async fn hello_in_records_of(size: usize) -> HandshakeError {
        let (pki, acceptor) = edge();
        let hello = hello(&pki);
        let hello = hello.get(usize::from(HEADER)..).unwrap();
        assert!((MOST_IDLE + 1..2 * MOST_IDLE).contains(&hello.len()), "{}", hello.len());
        let records = hello.chunks(size).flat_map(|part| {
            let length = u16::try_from(part.len()).unwrap().to_be_bytes();
            [&[22, 3, 1], length.as_slice(), part].concat()
        });
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        theirs.write_all(&records.collect::<Vec<_>>()).await.unwrap();
        theirs.shutdown().await.unwrap();
        acceptor.accept(ours).await.unwrap_err()
    }

    #[tokio::test]
    async fn a_hello_in_too_many_records_is_refused() {
        assert!(matches!(hello_in_records_of(1).await, HandshakeError::Flood(_)));
        // It was understood: who sent it left with our certificate.
        assert!(matches!(hello_in_records_of(2).await, HandshakeError::Left));
    }

    proptest! {
        #[test]
        fn records_are_counted_however_they_are_cut(
            lengths in prop::collection::vec(0_u16..2000, 0..20),
            cuts in prop::collection::vec(1_usize..700, 1..8),
        ) {
            let bytes: Vec<u8> = lengths
                .iter()
                .flat_map(|&length| {
                    let [high, low] = length.to_be_bytes();
                    [vec![23, 3, 3, high, low], vec![0xff; length.into()]].concat()
                })
                .collect();
            let mut records = Records::new(());
            let mut left = bytes.as_slice();
            let mut cuts = cuts.iter().cycle();
            while !left.is_empty() {
                let (now, later) = left.split_at(left.len().min(*cuts.next().unwrap()));
                records.follow(now);
                left = later;
            }
            prop_assert_eq!(records.idle, lengths.len());
        }
    }
}
