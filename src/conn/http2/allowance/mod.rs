//! What an HTTP/2 peer may send that asks for nothing: a number of points for each connection.
//!
//! Most floods of HTTP/2 are made of frames that are each allowed, cost their sender nothing, and
//! are never an end in themselves. Each costs points here; work that was done for the peer earns
//! some, and so does time. Whoever has none left is sent away. Pure: time is an argument.

use std::time::Duration;

use tokio::time::Instant;

use super::frame::{Frame, FrameType};
use super::ledger::Work;

/// Points of a new connection, and the most that one can have. The cheapest frame costs one, so that
/// no flood is longer than this, but for what time and work earn it.
const FULL: u32 = 1000;
/// A point comes back in this time: keep-alive PINGs, and a cancelled call now and then, are free.
const ONE_MORE: Duration = Duration::from_millis(100);
/// Earned by a request that was answered with what it asked for: its own head, and a few frames of
/// flow control around it.
const ANSWERED: u32 = 4;
/// Earned by one that was refused: its own head. A flood of refused requests is the rate limiter's.
const REFUSED: u32 = 1;
/// Earned by a piece that a response had to say: a `WINDOW_UPDATE` of its stream and of the connection,
/// and a PING that measures the way (gRPC).
const PIECE: u32 = 3;
/// Bytes of responses, and of request bodies, that earn a point. The first is what a client has to
/// take for each `WINDOW_UPDATE`; a reader that asks for less at a time spends more than it earns. The
/// second is large: a frame of data must not pay for the error that it provokes.
const SENT_BYTES: u64 = 256;
const TAKEN_BYTES: u64 = 4096;
/// Data frames of fewer bytes than these are hardly more than their heads.
const SMALL_DATA: u32 = 64;

/// What points are spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abuse {
    /// `RST_STREAM` of the peer's.
    Reset,
    /// `RST_STREAM` of ours, for an error that the peer made.
    Provoked,
    /// Data frames with hardly any data.
    EmptyData,
    /// Header blocks.
    Headers,
    /// CONTINUATION.
    Continuation,
    /// SETTINGS, or an acknowledgement of some.
    Settings,
    /// PING, or an answer to one.
    Ping,
    /// PRIORITY.
    Priority,
    /// `WINDOW_UPDATE`.
    WindowUpdate,
    /// Frames of types that are not known, or not for a server.
    Unknown,
}

/// Every kind, in the order of `spent`.
const KINDS: [Abuse; 10] = [
    Abuse::Reset,
    Abuse::Provoked,
    Abuse::EmptyData,
    Abuse::Headers,
    Abuse::Continuation,
    Abuse::Settings,
    Abuse::Ping,
    Abuse::Priority,
    Abuse::WindowUpdate,
    Abuse::Unknown,
];

/// The points of one connection.
#[derive(Debug)]
pub(super) struct Allowance {
    left: u32,
    /// When time last earned a point.
    filled: Instant,
    /// Bytes that have not earned a point yet.
    sent: u64,
    taken: u64,
    /// What the points went to, since the start.
    spent: [u32; KINDS.len()],
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: FULL, filled: now, sent: 0, taken: 0, spent: [0; KINDS.len()] }
    }

    /// A frame of the peer's. False if there are no points left for it.
    #[must_use]
    pub(super) fn received(&mut self, frame: Frame, now: Instant) -> bool {
        if frame.kind == FrameType::Data {
            self.taken += u64::from(frame.data());
            let points = self.taken / TAKEN_BYTES;
            self.taken %= TAKEN_BYTES;
            self.earn(points);
        }
        match price(frame) {
            Some((abuse, points)) => self.charge(abuse, points, now),
            None => true,
        }
    }

    /// A frame of ours. False if its peer has no points left for the error that it made.
    #[must_use]
    pub(super) fn wrote(&mut self, frame: Frame, now: Instant) -> bool {
        if frame.kind == FrameType::Data {
            self.sent += u64::from(frame.data());
            let points = self.sent / SENT_BYTES;
            self.sent %= SENT_BYTES;
            self.earn(points);
        }
        // What the peer is not to blame for: NO_ERROR (0) ends an upload whose answer is there,
        // INTERNAL_ERROR (2) and CANCEL (8) a response that broke off behind us.
        if frame.kind == FrameType::Reset && !matches!(frame.lead, 0 | 2 | 8) {
            return self.charge(Abuse::Provoked, RESET, now);
        }
        true
    }

    /// This was done for the peer.
    pub(super) fn worked(&mut self, work: Work) {
        let Work { answered, refused, pieces } = work;
        let points = [(answered, ANSWERED), (refused, REFUSED), (pieces, PIECE)];
        self.earn(points.into_iter().map(|(times, each)| u64::from(times) * u64::from(each)).sum());
    }

    /// What most points were spent on.
    pub(super) fn worst(&self) -> Abuse {
        let most = KINDS.into_iter().zip(self.spent).max_by_key(|(_, spent)| *spent);
        most.map_or(Abuse::Unknown, |(abuse, _)| abuse)
    }

    fn earn(&mut self, points: u64) {
        let points = u32::try_from(points).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(points).min(FULL);
    }

    fn charge(&mut self, abuse: Abuse, points: u32, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled).as_nanos() / ONE_MORE.as_nanos();
        if let Ok(passed @ 1..) = u32::try_from(passed) {
            self.filled += ONE_MORE.saturating_mul(passed);
            self.earn(u64::from(passed));
        }
        let at = KINDS.iter().position(|kind| *kind == abuse);
        if let Some(spent) = at.and_then(|at| self.spent.get_mut(at)) {
            *spent = spent.saturating_add(points);
        }
        let left = self.left.checked_sub(points);
        self.left = left.unwrap_or(0);
        left.is_some()
    }
}

/// A stream that was begun for nothing. A hundred of them at once, which is all that there may be,
/// leave points; and with its answer, which may have been quicker, it still costs more than it earned.
const RESET: u32 = 6;

/// What a frame of a peer's costs.
fn price(frame: Frame) -> Option<(Abuse, u32)> {
    match frame.kind {
        FrameType::Data if frame.ends_stream() || frame.data() >= SMALL_DATA => None,
        FrameType::Data => Some((Abuse::EmptyData, if frame.data() == 0 { 2 } else { 1 })),
        FrameType::Headers => Some((Abuse::Headers, 1 + frame.length / 2048)),
        // A head of up to 16 KiB needs none.
        FrameType::Continuation => Some((Abuse::Continuation, 10 + frame.length / 2048)),
        FrameType::Reset => Some((Abuse::Reset, RESET)),
        // A client sends one at the start, and few ever again; each entry is work.
        FrameType::Settings => Some((Abuse::Settings, 10 + frame.length / 64)),
        FrameType::Ping => Some((Abuse::Ping, 1)),
        FrameType::Priority => Some((Abuse::Priority, 1)),
        FrameType::WindowUpdate => Some((Abuse::WindowUpdate, 1)),
        FrameType::PushPromise | FrameType::GoAway => Some((Abuse::Unknown, 10)),
        FrameType::Unknown => Some((Abuse::Unknown, 1 + frame.length / 1024)),
    }
}

#[cfg(test)]
mod tests;
