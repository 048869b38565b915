//! The socket as the HTTP floor sees it: it reports what it reads and writes, lets no bytes through
//! that break the framing of HTTP/1.1, and gives the bare refusals that hyper writes by itself a
//! body.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;
use super::http1::{Framing, Violation};
use crate::http::NoRequest;

/// A socket that reports to the connection's [`Activity`].
#[derive(Debug)]
pub(super) struct Watched<I> {
    io: I,
    activity: Arc<Activity>,
    /// What the bytes of HTTP/1.1 must keep to.
    framing: Option<Framing>,
    /// What they did not keep to. Nothing is read behind that.
    violation: Option<Violation>,
    /// What still has to be written in place of a bare refusal.
    instead: Bytes,
}

impl<I> Watched<I> {
    /// Without a `framing` the bytes are not looked at.
    pub(super) fn new(io: I, activity: Arc<Activity>, framing: Option<Framing>) -> Self {
        Self { io, activity, framing, violation: None, instead: Bytes::new() }
    }

    /// The socket without what watches it.
    pub(super) fn into_inner(self) -> I {
        self.io
    }
}

/// What to write instead, if this is a refusal that hyper made by itself: of a head that it could
/// not parse there is no request that the service could answer.
fn bare_refusal(written: &[u8]) -> Option<Bytes> {
    // Every response passes here: what is no refusal must be seen at once.
    let status = written.strip_prefix(b"HTTP/1.1 4")?.get(..2)?;
    let refusal = match status {
        b"00" => NoRequest::Malformed("this is not valid HTTP/1.1"),
        b"14" => NoRequest::TargetTooLong,
        b"31" => NoRequest::HeadTooLarge,
        _ => return None,
    };
    let has = |part: &[u8]| written.windows(part.len()).any(|it| it.eq_ignore_ascii_case(part));
    // What the service answered has its name, even if there is no more in it.
    let is_bare = has(b"content-length: 0\r\n") && !has(b"\nx-request-id: ");
    is_bare.then(|| refusal.bytes())
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.violation.is_some() {
            return self.poll_fail(context);
        }
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.io).poll_read(context, buffer));
        read.inspect_err(|error| self.activity.ending.failed(error))?;
        let came = buffer.filled().get(before..).unwrap_or_default();
        if came.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.activity.deadlines.bytes_came();
        let Some(framing) = self.framing.as_mut() else { return Poll::Ready(Ok(())) };
        let followed = framing.follow(came);
        let announced = framing.announced();
        self.activity.announce(announced);
        let Err(violation) = followed else { return Poll::Ready(Ok(())) };
        self.violation = Some(violation);
        buffer.set_filled(before + violation.at);
        // Nothing read would say that the peer is done.
        if violation.at == 0 { self.poll_fail(context) } else { Poll::Ready(Ok(())) }
    }
}

impl<I> Watched<I> {
    /// Reading fails, as soon as what came before the violation is answered.
    fn poll_fail(&self, context: &Context<'_>) -> Poll<io::Result<()>> {
        if let Some(violation) = self.violation {
            // What is wrong behind whole requests has time until they are answered.
            if !violation.in_body {
                ready!(self.activity.deadlines.poll_answered(context));
            }
            self.activity.ending.violate(violation);
        }
        Poll::Ready(Err(io::ErrorKind::InvalidData.into()))
    }
}

impl<I: AsyncWrite + Unpin> Watched<I> {
    fn poll_instead(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.instead.has_remaining() {
            let instead = self.instead.clone();
            let written = ready!(self.report(|io| Pin::new(io).poll_write(context, &instead)))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.instead.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    fn report<T>(
        &mut self,
        write: impl FnOnce(&mut I) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let written = write(&mut self.io);
        self.activity.deadlines.wrote(written.is_ready());
        written
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_instead(context))?;
        if self.activity.deadlines.awaits_head()
            && let Some(instead) = bare_refusal(bytes)
        {
            self.instead = instead;
            return Poll::Ready(Ok(bytes.len()));
        }
        self.report(|io| Pin::new(io).poll_write(context, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(context))?;
        self.report(|io| Pin::new(io).poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(context))?;
        self.report(|io| Pin::new(io).poll_shutdown(context))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bare_refusals_are_replaced() {
        let bare = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\n\r\n";
        let instead = bare_refusal(bare).unwrap();
        assert!(instead.starts_with(b"HTTP/1.1 431 "));
        assert!(instead.ends_with(b"}"));
        for other in [
            &b"HTTP/1.1 400 Bad Request\r\ncontent-length: 20\r\n\r\n{}"[..],
            b"HTTP/1.1 400 Bad Request\r\nx-request-id: 0\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n",
            b"data: HTTP/1.1 400\r\ncontent-length: 0\r\n",
            b"HTTP/1.1 4",
            b"",
        ] {
            assert_eq!(bare_refusal(other), None);
        }
    }
}
