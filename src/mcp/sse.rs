//! Server-sent events: how they are written, and the response body that merges a session's
//! messages with keep-alive comments, the stream's age and the drain.
#![cfg_attr(not(fuzzing), expect(unreachable_pub, reason = "the fuzz targets reach it"))]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::session::id::StreamId;
use super::session::reader::Reader;
use crate::limits::places::Permit;
use crate::wire::jsonrpc::{self, code};

/// How long a client is asked to wait before it comes back, in milliseconds, before jitter.
const RETRY_MS: u64 = 1000;

/// Data of so many bytes is copied into its event, and more is not.
const COPIED: usize = 16 * 1024;
/// Bytes of large data that are handed to the connection at a time.
const PIECE: usize = 64 * 1024;

/// A comment: it carries nothing, and shows every box on the way that the stream lives.
const COMMENT: &[u8] = b":\n\n";

/// Says which event of which stream this is; the client gives it back as `Last-Event-ID`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventId {
    pub stream: StreamId,
    pub number: u64,
}

impl EventId {
    /// Reads what a client gave back.
    pub fn parse(text: &str) -> Option<Self> {
        let (stream, number) = text.split_once('-')?;
        let id = Self { stream: StreamId(stream.parse().ok()?), number: number.parse().ok()? };
        // `parse` would take a plus sign and leading zeros, too.
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.stream.0, self.number)
    }
}

/// One event. `data` has no line breaks ([`crate::wire::jsonrpc::Message::line`]). What is large is not
/// copied, and comes in pieces: a peer that takes nothing is noticed between two.
pub fn event(id: Option<EventId>, mut data: Bytes) -> impl Iterator<Item = Bytes> {
    let small = data.len() <= COPIED;
    let mut text = Vec::with_capacity(if small { data.len() + 48 } else { 48 });
    text.extend_from_slice(b"event: message\n");
    if let Some(id) = id {
        text.extend_from_slice(format!("id: {id}\n").as_bytes());
    }
    text.extend_from_slice(b"data: ");
    if small {
        text.extend_from_slice(&data);
        text.extend_from_slice(b"\n\n");
        data.clear();
    }
    let pieces = std::iter::from_fn(move || {
        (!data.is_empty()).then(|| data.split_to(data.len().min(PIECE)))
    });
    let end = (!small).then(|| Bytes::from_static(b"\n\n"));
    std::iter::once(text.into()).chain(pieces).chain(end)
}

/// Tells why a stream ends. Clients that know no such event pass over it.
pub fn error_event(text: &str) -> Bytes {
    let error = jsonrpc::error_text(None, code::INTERNAL_ERROR, text);
    let mut event = b"event: error\ndata: ".to_vec();
    event.extend_from_slice(&error);
    event.extend_from_slice(b"\n\n");
    event.into()
}

/// What a stream is like.
#[derive(Debug)]
pub(super) struct StreamKind {
    /// Do its events have ids? Only where a client can come back for more.
    pub(super) ids: bool,
    /// An event with an id and no data comes first, so that a client can come back at once.
    pub(super) primed: bool,
    /// The path that messages are posted to (2024-11-05): its first event.
    pub(super) endpoint: Option<String>,
    /// When it is ended although nothing is wrong; none for the answer to a call.
    pub(super) age: Option<Duration>,
    /// Between two comments.
    pub(super) keep_alive: Duration,
}

/// An event stream: a response body.
pub(crate) struct EventStream {
    first: VecDeque<Bytes>,
    ids: bool,
    hints: bool,
    /// Does the session live on this stream? Then it waits for what is in flight.
    patient: bool,
    keep_alive: Duration,
    ends: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    draining: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    _permit: Option<Permit>,
    /// Dropped last: the backend says more once the reader is gone, and what it said before is to be
    /// freed by then.
    reader: Option<Reader>,
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("reader", &self.reader).finish_non_exhaustive()
    }
}

impl EventStream {
    /// Reads `reader` to its end, its age, or until `draining`.
    pub(super) fn new(
        reader: Reader,
        kind: StreamKind,
        draining: Option<WaitForCancellationFutureOwned>,
        permit: Option<Permit>,
    ) -> Self {
        let StreamKind { ids, primed, endpoint, age, keep_alive } = kind;
        let patient = endpoint.is_some();
        let mut first = VecDeque::from([Bytes::from_static(COMMENT)]);
        if let Some(path) = endpoint {
            first.push_back(format!("event: endpoint\ndata: {path}\n\n").into());
        }
        if primed {
            let id = EventId { stream: reader.stream(), number: reader.seen() };
            first.push_back(format!("id: {id}\ndata:\n\n").into());
        }
        let now = Instant::now();
        let ends = age.map(|age| now + jittered(age));
        Self {
            timer: Box::pin(sleep_until(next_tick(now, keep_alive, ends))),
            reader: Some(reader),
            first,
            ids,
            hints: primed,
            patient,
            keep_alive,
            ends,
            draining: draining.map(Box::pin),
            _permit: permit,
        }
    }

    /// One event, and the end: the answer to a call that no client can come back for.
    pub(super) fn of_one(data: Bytes) -> Self {
        let first = std::iter::once(Bytes::from_static(COMMENT)).chain(event(None, data));
        Self {
            timer: Box::pin(sleep_until(Instant::now())),
            reader: None,
            first: first.collect(),
            ids: false,
            hints: false,
            patient: false,
            keep_alive: Duration::ZERO,
            ends: None,
            draining: None,
            _permit: None,
        }
    }

    /// Ends the stream although nothing is wrong; tells the client when to come back, if it knows
    /// what that means.
    fn farewell(&mut self) {
        self.first.clear();
        self.reader = None;
        if self.hints {
            let wait = RETRY_MS + random_below(RETRY_MS);
            self.first.push_back(format!("retry: {wait}\n\n").into());
        }
    }

    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        if self.patient && self.reader.as_ref().is_some_and(Reader::is_busy) {
            return false;
        }
        self.ends.is_some_and(|ends| Instant::now() >= ends)
            || self.draining.as_mut().is_some_and(|it| it.as_mut().poll(context).is_ready())
    }
}

fn next_tick(now: Instant, keep_alive: Duration, ends: Option<Instant>) -> Instant {
    let tick = now + keep_alive;
    ends.filter(|ends| *ends > now).map_or(tick, |ends| ends.min(tick))
}

/// Up to a tenth less, so that streams that opened together do not end together.
fn jittered(age: Duration) -> Duration {
    let tenth = u64::try_from(age.as_millis() / 10).unwrap_or(u64::MAX);
    age.saturating_sub(Duration::from_millis(random_below(tenth)))
}

/// Some number below `most`: for spreading things out, not for secrets.
fn random_below(most: u64) -> u64 {
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes).checked_rem(most).unwrap_or(0),
        Err(_no_randomness) => 0,
    }
}

impl http_body::Body for EventStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        loop {
            if let Some(frame) = self.first.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(frame))));
            }
            if self.reader.is_some() && self.is_over(context) {
                self.farewell();
                continue;
            }
            let Some(reader) = &self.reader else { return Poll::Ready(None) };
            match reader.poll_handed(context) {
                Poll::Ready(Some((number, data))) => {
                    let id = EventId { stream: reader.stream(), number };
                    let pieces = event(self.ids.then_some(id), data);
                    self.first.extend(pieces);
                    let tick = next_tick(Instant::now(), self.keep_alive, self.ends);
                    self.timer.as_mut().reset(tick);
                    continue;
                }
                Poll::Ready(None) => {
                    // The answer to a call says by itself what went wrong.
                    let fault = reader.fault().filter(|_| self.ends.is_some());
                    self.reader = None;
                    self.first.extend(fault.map(|text| error_event(&text)));
                    continue;
                }
                Poll::Pending => {}
            }
            std::task::ready!(self.timer.as_mut().poll(context));
            let tick = next_tick(Instant::now(), self.keep_alive, self.ends);
            self.timer.as_mut().reset(tick);
            if !self.is_over(context) {
                self.first.push_back(Bytes::from_static(COMMENT));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_event_is_what_a_line_based_reader_expects() {
        let id = EventId { stream: StreamId(3), number: 7 };
        let written =
            |id, data: &'static [u8]| event(id, Bytes::from_static(data)).collect::<Vec<_>>();
        assert_eq!(written(Some(id), b"{}"), ["event: message\nid: 3-7\ndata: {}\n\n"]);
        assert_eq!(written(None, b"{}"), ["event: message\ndata: {}\n\n"]);
    }

    #[test]
    fn what_is_large_comes_in_pieces_and_is_not_copied() {
        for size in [COPIED, COPIED + 1, PIECE, 3 * PIECE, 3 * PIECE + 1] {
            let data = Bytes::from(vec![b'x'; size]);
            let pieces: Vec<Bytes> = event(None, data.clone()).collect();
            let whole = [&b"event: message\ndata: "[..], &data, b"\n\n"].concat();
            assert_eq!(pieces.concat(), whole);
            let within = data.as_ptr_range();
            let held = pieces.iter().filter(|piece| !within.contains(&piece.as_ptr()));
            assert!(held.map(Bytes::len).sum::<usize>() <= COPIED + 48);
            assert!(pieces.iter().all(|piece| piece.len() <= PIECE));
        }
    }

    #[tokio::test]
    async fn a_stream_of_one_event_ends_behind_it() {
        use http_body_util::BodyExt;
        let stream = EventStream::of_one(Bytes::from_static(b"{}"));
        let whole = stream.collect().await.unwrap().to_bytes();
        assert_eq!(whole, ":\n\nevent: message\ndata: {}\n\n");
    }

    #[test]
    fn ids_go_both_ways() {
        let id = EventId { stream: StreamId(3), number: 7 };
        assert_eq!(EventId::parse(&id.to_string()), Some(id));
        for text in
            ["", "3", "3-", "-7", "3-7-1", "a-b", "3-7 ", "+3-7", "3-07", "99999999999999999999-1"]
        {
            assert_eq!(EventId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn jitter_takes_a_tenth_at_most() {
        for _ in 0..1000 {
            let age = jittered(Duration::from_hours(1));
            assert!(age > Duration::from_secs(3239) && age <= Duration::from_hours(1));
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            EventId::parse(&text);
        }
    }
}
