//! The first bytes of a connection: a `ClientHello`, or something else.
//!
//! rustls would answer plain HTTP with a TLS alert, which browsers and curl show as garbage;
//! that is why the first bytes are looked at before it gets them. Records are read one by one,
//! so that nothing is read that belongs to the connection itself.

use std::io;
use std::ops::RangeInclusive;
use std::time::Duration;

use rustls::server::{Accepted, Acceptor};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::error::HandshakeError;
use crate::http::NoRequest;

/// Type, version and length of a TLS record (RFC 8446, section 5.1).
const RECORD_HEADER: usize = 5;
/// Change of cipher, alert, handshake, application data: anything else rustls refuses at once.
const RECORD_TYPES: RangeInclusive<u8> = 20..=23;
/// The most that a record of a handshake may hold.
const MAX_RECORD: u16 = 1 << 14;

/// How HTTP/1 requests begin, and the preface of HTTP/2: no more than a record header is long.
const METHODS: &[&[u8]] = &[
    b"GET ", b"POST ", b"PUT ", b"HEAD ", b"DELET", b"OPTIO", b"PATCH", b"TRACE", b"CONNE",
    b"PRI *",
];

/// What is read of a plain request after it was answered, at most and for how long: closing a
/// socket with unread bytes resets the connection, and the answer would be lost with it.
const DRAIN_BYTES: u64 = 16 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// Reads a `ClientHello`. Plain HTTP gets its answer here.
pub(super) async fn read<I>(io: &mut I) -> Result<Accepted, HandshakeError>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let mut acceptor = Acceptor::default();
    let mut is_first = true;
    loop {
        let mut header = [0; RECORD_HEADER];
        io.read_exact(&mut header).await?;
        if is_first && METHODS.iter().any(|method| header.starts_with(method)) {
            refuse_plain_http(io).await;
            return Err(HandshakeError::PlainHttp);
        }
        is_first = false;
        let [kind, _, _, high, low] = header;
        let mut record = header.to_vec();
        let length = u16::from_be_bytes([high, low]);
        if length <= MAX_RECORD && RECORD_TYPES.contains(&kind) {
            (&mut *io).take(length.into()).read_to_end(&mut record).await?;
        }
        let mut unread = record.as_slice();
        while acceptor.read_tls(&mut unread)? > 0 && !unread.is_empty() {}
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(accepted),
            Ok(None) => {}
            Err((error, mut alert)) => {
                let mut bytes = Vec::new();
                alert.write_all(&mut bytes)?;
                // Why we stop matters, not whether the peer is still there to be told.
                drop(write_last(io, &bytes).await);
                return Err(HandshakeError::Tls(error));
            }
        }
    }
}

/// An alert (RFC 8446 section 6): fatal, `unrecognized_name`.
const UNRECOGNIZED_NAME: &[u8] = &[21, 3, 3, 0, 2, 2, 112];

/// Tells a client that it asks for a name that is nobody's here.
pub(super) async fn refuse_name<I>(io: &mut I, name: String) -> HandshakeError
where
    I: AsyncWrite + Unpin,
{
    // It may not stay to hear it.
    drop(write_last(io, UNRECOGNIZED_NAME).await);
    HandshakeError::UnknownName(name)
}

/// Says what is wrong in the language that the client speaks. It may not stay to hear it.
async fn refuse_plain_http<I>(io: &mut I)
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let said = async {
        write_last(io, &NoRequest::PlainHttp.bytes()).await?;
        let mut rest = (&mut *io).take(DRAIN_BYTES);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    drop(tokio::time::timeout(DRAIN_TIME, said).await);
}

async fn write_last<I>(io: &mut I, bytes: &[u8]) -> io::Result<()>
where
    I: AsyncWrite + Unpin,
{
    io.write_all(bytes).await?;
    io.shutdown().await
}

#[cfg(test)]
mod tests {
    use rustls::AlertDescription;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::super::testing::{client, edge, handshake};
    use super::*;

    /// What comes back for these bytes, and how the handshake ended.
    async fn answer(bytes: &[u8]) -> (Vec<u8>, HandshakeError) {
        let (_, acceptor) = edge();
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        let client = async {
            theirs.write_all(bytes).await.unwrap();
            theirs.shutdown().await.unwrap();
            let mut answer = Vec::new();
            theirs.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let (ended, answer) = tokio::join!(acceptor.accept(ours), client);
        (answer, ended.unwrap_err())
    }

    #[tokio::test]
    async fn plain_http_is_answered_in_kind() {
        for method in ["GET", "POST", "DELETE", "OPTIONS", "PUT", "HEAD", "PATCH", "CONNECT"] {
            let request = format!("{method} /mcp HTTP/1.1\r\nhost: a.example\r\n\r\n");
            let (answer, ended) = answer(request.as_bytes()).await;
            assert!(matches!(ended, HandshakeError::PlainHttp), "{method}: {ended:?}");
            let answer = String::from_utf8(answer).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let length = format!("\r\ncontent-length: {}\r\n", body.len());
            assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
            assert!(head.contains(&length) && head.contains("\r\nconnection: close\r\n"), "{head}");
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["error"], "plain_http");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stays_after_its_answer_is_left() {
        let (mut ours, mut theirs) = tokio::io::duplex(64 * 1024);
        theirs.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let begun = tokio::time::Instant::now();
        assert!(matches!(read(&mut ours).await, Err(HandshakeError::PlainHttp)));
        assert_eq!(begun.elapsed(), DRAIN_TIME);
    }

    #[tokio::test]
    async fn other_bytes_get_an_alert() {
        for bytes in [b"SSH-2.0-OpenSSH_9.2\r\n".as_slice(), &[22, 3, 1, 0xff, 0xff, 0], &[0; 64]] {
            let (answer, ended) = answer(bytes).await;
            assert!(matches!(ended, HandshakeError::Tls(_)), "{ended:?}");
            assert_eq!(answer[0], 21, "{ended:?}");
            let decode = u8::from(AlertDescription::DecodeError);
            let overflow = u8::from(AlertDescription::RecordOverflow);
            assert!([decode, overflow].contains(&answer[6]), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn silence_and_half_a_hello_are_a_peer_that_went_away() {
        for bytes in [b"".as_slice(), b"\x16\x03", b"\x16\x03\x01\x00\x20half", b"G"] {
            let (answer, ended) = answer(bytes).await;
            assert!(matches!(ended, HandshakeError::Closed), "{ended:?}");
            assert!(answer.is_empty());
        }
    }

    /// A `ClientHello` may come in many records, and these in many pieces.
    #[tokio::test]
    async fn a_hello_in_small_records_is_put_together() {
        let (pki, acceptor) = edge();
        let mut client = client(pki.root(), &["h2"]);
        client.max_fragment_size = Some(32);
        let (server, client) = handshake(&acceptor, client, "a.example").await;
        assert!(server.is_ok() && client.is_ok());
    }
}
