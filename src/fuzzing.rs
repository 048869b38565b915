//! Doors for the fuzz targets in `fuzz/`: what is private, on plain bytes and values.
//!
//! Compiled under `--cfg fuzzing` only, which cargo-fuzz sets. What a target can drive by itself is
//! public in its private module, and handed on from here; where that needs much that is private, a
//! function is the door. It runs the code that serves, and adds nothing but checks of what is held
//! inside. Each floor has its own; those of the leaves are here.

use std::net::IpAddr;

use ::http::HeaderMap;
use bytes::{BufMut, Bytes};
use ipnet::IpNet;

pub use crate::conn::fuzzing as conn;
pub use crate::guard::fuzzing as guard;
pub use crate::http::fuzzing as http;
pub use crate::mcp::fuzzing as mcp;
pub use crate::wire::events::Event;
pub use crate::wire::proxy_header::{Header, MAX_HEADER, read as proxy_header};

use crate::limits::bytes::Quota;
use crate::limits::lines::{Line, Splitter};
use crate::wire::events::Decoder;
use crate::wire::forwarded::TrustedProxies;
use crate::wire::jsonrpc::Message;

/// Lines out of bytes that come in these pieces. True beside the beginning of a line that was cut.
///
/// # Panics
/// Where the buffer holds more than one line of the greatest length, or has no room for a byte, or
/// where the end of a line is told that was not cut.
#[must_use]
pub fn lines(pieces: &[&[u8]], max: usize) -> Vec<(Bytes, bool)> {
    let mut splitter = Splitter::new(max, Quota::unbounded());
    let mut lines = Vec::new();
    let mut cut = false;
    let mut seen = |line| match line {
        Line::Whole(bytes) => Some((bytes, false)),
        Line::Cut(bytes, _) => {
            cut = true;
            Some((bytes, true))
        }
        Line::Rest(skim) => {
            assert!(std::mem::take(&mut cut), "the rest of a line that was not cut");
            skim.answers();
            None
        }
    };
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let mut room = splitter.room();
            let (now, later) = rest.split_at(room.remaining_mut().min(rest.len()));
            assert!(!now.is_empty(), "no room for one byte");
            room.put_slice(now);
            rest = later;
            splitter.check();
            while let Some(line) = splitter.next() {
                lines.extend(seen(line));
            }
        }
    }
    while let Some(line) = splitter.last() {
        lines.extend(seen(line));
    }
    lines
}

/// Events out of bytes that come in these pieces; false if one was too long, after which nothing
/// is read.
///
/// # Panics
/// Where more is held than an event of the greatest length and the last piece.
#[must_use]
pub fn events(pieces: &[&[u8]], max: usize) -> (Vec<Event>, bool) {
    let mut decoder = Decoder::new(max);
    let mut events = Vec::new();
    for piece in pieces {
        decoder.feed(piece);
        decoder.check_held(piece.len());
        loop {
            match decoder.next() {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(_too_long) => return (events, false),
            }
        }
        decoder.check_held(0);
    }
    (events, true)
}

/// The client that `X-Forwarded-For` names behind these proxies; `Err` where it is refused.
///
/// # Errors
/// Where the entry that counts is no address.
pub fn forwarded_for(nets: &[IpNet], headers: &HeaderMap) -> Result<Option<IpAddr>, ()> {
    TrustedProxies::new(nets).forwarded_for(headers).map_err(drop)
}

/// The tool that a message names.
#[must_use]
pub fn tool(message: &Message) -> Option<String> {
    message.tool().map(Into::into)
}

/// The resource that a message names.
#[must_use]
pub fn resource(message: &Message) -> Option<String> {
    message.resource()
}
