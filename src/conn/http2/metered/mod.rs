//! The socket of an HTTP/2 connection: follows the frames both ways, and fails when the peer's
//! allowance is used up.
//!
//! hyper ends a connection with a reason of its own choosing only, and the h2 library limits some
//! floods and not others. So hyper gets this socket by reference. When a read fails here, hyper's
//! future ends without another word, the socket is still ours, and we know whether a frame is
//! complete on it: there a GOAWAY of our own can be written.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::allowance::{Abuse, Allowance};
use super::fields::FieldBlocks;
use super::frame::{Frame, FrameType};
use super::frames::FrameReader;
use crate::conn::activity::Activity;

/// Responses that are followed at once, and resets that are remembered: more than there can be
/// streams.
const FOLLOWED: usize = 128;

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GoAway {
    /// Its time is over.
    Overdue,
    /// A frame had a length that its type cannot have. The library says `PROTOCOL_ERROR` there.
    Misfit(FrameType),
    /// Trailers had a pseudo-header field (RFC 9113 section 8.1). The library forgets it.
    Trailers,
    /// The allowance is used up, most of it by this.
    Spent(Abuse),
}

impl GoAway {
    /// The error code of its GOAWAY (RFC 9113 section 7).
    fn code(self) -> u8 {
        match self {
            Self::Overdue => 0,
            Self::Trailers => 1,
            Self::Misfit(_) => 6,
            Self::Spent(_) => 0xb,
        }
    }
}

/// A socket that its peer has a allowance on.
#[derive(Debug)]
pub(super) struct Metered<I> {
    io: I,
    activity: Arc<Activity>,
    allowance: Allowance,
    came: FrameReader,
    fields: FieldBlocks,
    went: FrameReader,
    /// Why it must end.
    fault: Option<GoAway>,
    /// The newest request whose head has begun; the newest whose head hyper was given; the newest
    /// that a GOAWAY of hyper's named.
    begun: u32,
    given: u32,
    named: Option<u32>,
    /// What has not come whole: its number, and since when.
    unfinished: Option<(u64, Instant)>,
    /// Streams whose response has begun and not ended.
    responding: Vec<u32>,
    /// Streams that the peer reset before, lately. Their heads may be on their way out still.
    gone: VecDeque<u32>,
}

impl<I> Metered<I> {
    /// A new connection's socket. `header_table` is how many bytes its peer may fill.
    pub(super) fn new(io: I, activity: Arc<Activity>, header_table: u16) -> Self {
        Self {
            io,
            activity,
            allowance: Allowance::new(Instant::now()),
            came: FrameReader::of_client(),
            fields: FieldBlocks::new(header_table.into()),
            went: FrameReader::of_server(),
            fault: None,
            begun: 0,
            given: 0,
            named: None,
            unfinished: None,
            responding: Vec::new(),
            gone: VecDeque::new(),
        }
    }

    /// Why the connection must end, if the peer is at fault.
    pub(super) fn fault(&self) -> Option<GoAway> {
        self.fault
    }

    /// A GOAWAY, where one can be written: in the middle of another frame the peer would take it
    /// for that frame's. (It stands there only if the peer did not take what was written before, and
    /// would not take this either.)
    pub(super) fn goaway(&self, reason: GoAway) -> Option<[u8; 17]> {
        // It may never name more than was named before (RFC 9113 section 6.8). What came in the
        // same read as the last straw was not given to hyper: the peer may ask for it again.
        let last = self.named.map_or(self.given, |named| named.min(self.given));
        let [a, b, c, d] = last.to_be_bytes();
        let frame = [0, 0, 8, 7, 0, 0, 0, 0, 0, a, b, c, d, 0, 0, 0, reason.code()];
        self.went.at_boundary().then_some(frame)
    }

    /// The socket itself, without a allowance.
    pub(super) fn into_inner(self) -> I {
        self.io
    }

    fn note_read(&mut self, bytes: &[u8]) {
        let now = Instant::now();
        self.allowance.worked(self.activity.ledger.take_work());
        let mut newest = self.given;
        let Self { came, fields, allowance, fault, begun, responding, gone, .. } = self;
        let mut malformed = false;
        let each = |frame: Frame| {
            if fault.is_none() && frame.is_misfit() {
                *fault = Some(GoAway::Misfit(frame.kind));
            } else if fault.is_none() && !allowance.received(frame, now) {
                *fault = Some(GoAway::Spent(allowance.worst()));
            }
            match frame.kind {
                FrameType::Headers => *begun = frame.stream,
                FrameType::Reset => {
                    responding.retain(|stream| *stream != frame.stream);
                    if gone.len() == FOLLOWED {
                        gone.pop_front();
                    }
                    gone.push_back(frame.stream);
                }
                FrameType::Data
                | FrameType::Priority
                | FrameType::Settings
                | FrameType::PushPromise
                | FrameType::Ping
                | FrameType::GoAway
                | FrameType::WindowUpdate
                | FrameType::Continuation
                | FrameType::Unknown => {}
            }
            // Streams of a client's have odd numbers.
            if frame.ends_headers() && *begun % 2 == 1 {
                newest = newest.max(*begun);
            }
        };
        came.pass_fields(bytes, each, fields, &mut malformed);
        if malformed && self.fault.is_none() {
            self.fault = Some(GoAway::Trailers);
        }
        if self.fault.is_none() {
            self.given = newest;
        }
        self.unfinished = self.came.unfinished().map(|number| match self.unfinished {
            Some((same, since)) if same == number => (same, since),
            _ => (number, now),
        });
        self.activity.deadlines.unfinished(self.unfinished.map(|(_, since)| since));
        self.activity.ledger.responding(self.responding.len(), 0);
    }

    fn note_written(&mut self, bytes: &[u8]) {
        let now = Instant::now();
        let mut sent: u64 = 0;
        let Self { went, allowance, fault, named, responding, gone, .. } = self;
        went.pass(bytes, |frame| {
            if !allowance.wrote(frame, now) && fault.is_none() {
                *fault = Some(GoAway::Spent(allowance.worst()));
            }
            match frame.kind {
                FrameType::GoAway => *named = Some(frame.lead & 0x7fff_ffff),
                FrameType::Data | FrameType::Headers | FrameType::Reset => {
                    sent += u64::from(frame.length);
                    follow(responding, gone, frame);
                }
                FrameType::Priority
                | FrameType::Settings
                | FrameType::PushPromise
                | FrameType::Ping
                | FrameType::WindowUpdate
                | FrameType::Continuation
                | FrameType::Unknown => {}
            }
        });
        self.activity.ledger.responding(self.responding.len(), sent);
    }
}

fn follow(responding: &mut Vec<u32>, gone: &VecDeque<u32>, frame: Frame) {
    let stream = frame.stream;
    if frame.kind == FrameType::Reset || frame.ends_stream() {
        responding.retain(|other| *other != stream);
    } else if frame.kind == FrameType::Headers
        && responding.len() < FOLLOWED
        && !gone.contains(&stream)
        && !responding.contains(&stream)
    {
        responding.push(stream);
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Metered<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if self.fault.is_none() {
            ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
            let came = buffer.filled().get(before..).unwrap_or_default();
            if !came.is_empty() {
                self.note_read(came);
            }
        }
        // What our answers cost may have been the last straw, too.
        if self.fault.is_some() {
            return Poll::Ready(Err(io::Error::other("the peer is sent away")));
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Metered<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let length = ready!(Pin::new(&mut self.io).poll_write(context, bytes))?;
        self.note_written(bytes.get(..length).unwrap_or_default());
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
