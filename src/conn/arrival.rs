//! Who a new connection is from: its peer, or whom a trusted proxy names in a PROXY header before
//! anything else.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::limits::addr::ClientAddr;
use crate::limits::strangers::Stranger;
use crate::wire::proxy_header::{self, BadHeader, Header};

/// A connection, and whom it is from.
#[derive(Debug)]
pub(crate) struct Arrival<I> {
    pub(super) io: Replayed<I>,
    /// Whom the limits and the logs speak of.
    pub(crate) client: ClientAddr,
    /// How that is known.
    pub(crate) by: KnownBy,
}

/// How it is known whom a connection is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KnownBy {
    /// It is the peer, whom nobody has to believe.
    Peer,
    /// A trusted proxy named it in a PROXY header.
    Proxy,
    /// A trusted proxy speaks for itself.
    Itself,
    /// A trusted proxy speaks, and each of its requests may say for whom.
    Requests,
}

/// Why nothing comes of a connection from a trusted proxy.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadStart {
    #[error("{0}")]
    Header(#[from] BadHeader),
    #[error("it ended: {0}")]
    Io(#[from] io::Error),
}

impl<I> Arrival<I> {
    /// From a peer that nobody has to believe.
    pub(crate) fn direct(io: I, peer: ClientAddr) -> Self {
        Self {
            io: Replayed { first: Bytes::new(), io, heard: None },
            client: peer,
            by: KnownBy::Peer,
        }
    }
}

impl<I: AsyncRead + Unpin> Arrival<I> {
    /// From a trusted proxy: reads its PROXY header, if there is one. What is none is read again.
    /// The caller limits the time.
    pub(super) async fn announced(mut io: I, proxy: ClientAddr) -> Result<Self, BadStart> {
        let mut seen = Vec::new();
        let (length, client, by) = loop {
            match proxy_header::read(&seen)? {
                Header::Absent => break (0, proxy, KnownBy::Requests),
                Header::Present { length, source: None } => {
                    break (length, proxy, KnownBy::Itself);
                }
                Header::Present { length, source: Some(source) } => {
                    break (length, ClientAddr::from_peer(source), KnownBy::Proxy);
                }
                Header::Partial { needed } => {
                    let needed = u64::try_from(needed).unwrap_or(u64::MAX);
                    if (&mut io).take(needed).read_buf(&mut seen).await? == 0 {
                        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                    }
                }
            }
        };
        let mut first = Bytes::from(seen);
        first.advance(length.min(first.len()));
        Ok(Self { io: Replayed { first, io, heard: None }, client, by })
    }
}

/// What was read ahead comes first.
#[derive(Debug)]
pub(super) struct Replayed<I> {
    first: Bytes,
    io: I,
    /// Who speaks, until it has.
    heard: Option<Arc<Stranger>>,
}

impl<I> Replayed<I> {
    /// The first bytes that are read are this stranger's.
    pub(super) fn hear(&mut self, stranger: Option<Arc<Stranger>>) {
        self.heard = stranger;
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Replayed<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if self.first.has_remaining() {
            let length = self.first.len().min(buffer.remaining());
            buffer.put_slice(&self.first.split_to(length));
        } else {
            ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        }
        if buffer.filled().len() > before
            && let Some(stranger) = self.heard.take()
        {
            stranger.speaks();
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Replayed<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    /// What comes of a connection that begins with these bytes, sent in pieces of this size: whom it
    /// is from, how that is known, and what is left to be read.
    async fn arrive(bytes: &[u8], piece: usize) -> Result<(String, KnownBy, Vec<u8>), BadStart> {
        let (ours, mut theirs) = duplex(piece);
        let proxy = ClientAddr::from_peer(SocketAddr::from(([10, 0, 0, 1], 7)));
        let sending = async {
            // It may be refused in the middle.
            drop(theirs.write_all(bytes).await);
            drop(theirs);
        };
        let reading = async {
            let mut arrival = Arrival::announced(ours, proxy).await?;
            let mut rest = Vec::new();
            arrival.io.read_to_end(&mut rest).await?;
            Ok((arrival.client.to_string(), arrival.by, rest))
        };
        tokio::join!(reading, sending).0
    }

    const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n";
    const V2: &[u8] =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x01\xbb";
    const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";

    #[tokio::test]
    async fn a_header_is_taken_and_nothing_behind_it() {
        let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and so on";
        let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        for piece in [1, 7, 4096] {
            for rest in [&hello[..], request, b"", V1] {
                for (header, client, by) in [
                    (V1, "192.0.2.7:56324", KnownBy::Proxy),
                    (V2, "192.0.2.7:56324", KnownBy::Proxy),
                    (LOCAL, "10.0.0.1:7", KnownBy::Itself),
                    (b"PROXY UNKNOWN\r\n", "10.0.0.1:7", KnownBy::Itself),
                ] {
                    let arrived = arrive(&[header, rest].concat(), piece).await.unwrap();
                    assert_eq!(arrived, (client.to_owned(), by, rest.to_vec()));
                }
            }
            for rest in [&hello[..], request, b"PR0", b"\r\n\r\nGET / HTTP/1.1\r\n"] {
                let arrived = arrive(rest, piece).await.unwrap();
                assert_eq!(arrived, ("10.0.0.1:7".to_owned(), KnownBy::Requests, rest.to_vec()));
            }
        }
    }

    #[tokio::test]
    async fn what_is_wrong_or_breaks_off_is_refused() {
        for bytes in [&b"PROXY TCP4 nobody 1.2.3.4 1 2\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x11\0\0\0"]
        {
            assert!(matches!(arrive(bytes, 4096).await, Err(BadStart::Header(_))));
        }
        for bytes in [&b""[..], b"PROXY TCP4", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\x7f"] {
            assert!(matches!(arrive(bytes, 4096).await, Err(BadStart::Io(_))));
        }
    }
}
