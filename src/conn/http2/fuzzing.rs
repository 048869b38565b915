//! The doors of HTTP/2 for the fuzz targets: frames as they go by, and what they cost.

use std::time::Duration;

use tokio::time::Instant;

use super::allowance::Allowance;
use super::frame::{Frame, FrameType};
use super::frames::FrameReader;

/// One frame: stream, bytes of payload, the first four of them, bytes of data without padding.
pub type Seen = (u32, u32, u32, u32);

/// The frames in bytes that come in these pieces, and whether the last of them is whole.
#[must_use]
pub fn frames(pieces: &[&[u8]]) -> (Vec<Seen>, bool) {
    let (mut seen, mut frames) = (Vec::new(), FrameReader::of_server());
    for piece in pieces {
        frames.pass(piece, |frame| {
            seen.push((frame.stream, frame.length, frame.lead, frame.data()));
        });
    }
    (seen, frames.at_boundary())
}

/// How many of these frames, over and over for so long, a peer may send that gets nothing done. Data
/// does not count, for it may be a request's body; none if that has no end.
#[must_use]
pub fn patience(bytes: &[u8], pause: Duration) -> Option<usize> {
    let (mut all, mut now) = (Vec::<Frame>::new(), Instant::now());
    FrameReader::of_server().pass(bytes, |frame| {
        if frame.kind != FrameType::Data {
            all.push(frame);
        }
    });
    let mut allowance = Allowance::new(now);
    let most = 100_000;
    let refused = all.iter().cycle().take(most).position(|frame| {
        now += pause;
        !allowance.received(*frame, now)
    });
    if all.is_empty() { Some(0) } else { refused }
}
