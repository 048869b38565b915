//! Bytes as no HTTP library would send them, over TLS or without.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A connection without a protocol on it.
pub(crate) struct RawClient<I = TlsStream<TcpStream>> {
    pub(crate) io: I,
    read: Vec<u8>,
}

/// An answer over HTTP/1.1, read without a library.
#[derive(Debug)]
pub(crate) struct RawAnswer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl RawAnswer {
    /// The body, which must be JSON and say so.
    pub(crate) fn json(&self) -> Value {
        assert!(self.head.contains("content-type: application/json"), "{self:?}");
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl RawClient {
    pub(super) async fn connect(
        address: SocketAddr,
        tls: &Arc<ClientConfig>,
        alpn: &[&str],
    ) -> Self {
        let mut tls = ClientConfig::clone(tls);
        tls.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let tcp = TcpStream::connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        Self::over(tcp, tls).await.unwrap()
    }

    /// TLS over a connection that is there.
    pub(crate) async fn over(tcp: TcpStream, tls: ClientConfig) -> std::io::Result<Self> {
        let name = ServerName::try_from("localhost").unwrap();
        let io = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await?;
        Ok(Self::on(io))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> RawClient<I> {
    pub(crate) fn on(io: I) -> Self {
        Self { io, read: Vec::new() }
    }

    /// Reads until the text was seen; all that was read.
    pub(crate) async fn until(&mut self, text: &str) -> String {
        while !self.read.windows(text.len()).any(|part| part == text.as_bytes()) {
            assert!(self.more().await, "{text:?} never came: {:?}", self.text());
        }
        let seen = self.text();
        self.read.clear();
        seen
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.read).into_owned()
    }

    /// Sends what it can: a server that has refused already may have closed.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        if self.io.write_all(bytes.as_ref()).await.is_ok() {
            drop(self.io.flush().await);
        }
    }

    async fn more(&mut self) -> bool {
        let mut piece = [0; 4096];
        // A connection that is cut ends with an error.
        let length = self.io.read(&mut piece).await.unwrap_or(0);
        self.read.extend_from_slice(&piece[..length]);
        length > 0
    }

    /// One answer; none if the connection ends without one.
    pub(crate) async fn answer(&mut self) -> Option<RawAnswer> {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|part| part == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more().await {
                assert!(self.read.is_empty(), "{}", String::from_utf8_lossy(&self.read));
                return None;
            }
        };
        let head = String::from_utf8(self.read[..end].to_vec()).unwrap().to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let whole = end + length.map_or(0, |length| length.trim().parse().unwrap());
        while self.read.len() < whole {
            assert!(self.more().await, "the body broke off: {head}");
        }
        let body = String::from_utf8(self.read[end..whole].to_vec()).unwrap();
        self.read.drain(..whole);
        Some(RawAnswer { status, head, body })
    }

    /// Everything up to the end of the connection.
    pub(crate) async fn until_closed(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.read)
    }
}
