//! Doors for the fuzz targets in `fuzz/`: what is private, on plain bytes and values.
//!
//! Compiled under `--cfg fuzzing` only, which cargo-fuzz sets. A door runs the code that serves, and
//! adds nothing to it but checks of what is held inside. Each floor has its own; those of the
//! leaves are here.

use std::net::{IpAddr, SocketAddr};

use ::http::HeaderMap;
use bytes::{BufMut, Bytes};
use ipnet::IpNet;

pub use crate::conn::fuzzing as conn;
pub use crate::guard::fuzzing as guard;
pub use crate::http::fuzzing as http;
pub use crate::mcp::fuzzing as mcp;

use crate::limits::lines::{Line, Splitter};
use crate::wire::events::Decoder;
use crate::wire::jsonrpc::Message;
use crate::wire::proxy_header::{self, Header, TrustedProxies};

/// Lines out of bytes that come in these pieces. True beside the beginning of a line that was cut.
///
/// # Panics
/// Where the buffer holds more than one line of the greatest length, or has no room for a byte, or
/// where the end of a line is told that was not cut.
#[must_use]
pub fn lines(pieces: &[&[u8]], max: usize) -> Vec<(Bytes, bool)> {
    let mut splitter = Splitter::new(max);
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

/// One server-sent event, as [`events`] reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its type.
    pub kind: Option<String>,
    /// The id that it brought.
    pub id: Option<String>,
    /// Its data.
    pub data: Option<Bytes>,
    /// In milliseconds.
    pub retry: Option<u128>,
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
                Ok(Some(event)) => events.push(Event {
                    kind: event.kind.map(Into::into),
                    id: event.id.map(Into::into),
                    data: event.data,
                    retry: event.retry.map(|retry| retry.as_millis()),
                }),
                Ok(None) => break,
                Err(_too_long) => return (events, false),
            }
        }
        decoder.check_held(0);
    }
    (events, true)
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The beginning of a PROXY header, to which at least so many more bytes belong.
    Partial(usize),
    /// No PROXY header.
    Absent,
    /// One of this length, and whom it names.
    Present(usize, Option<SocketAddr>),
    /// One that is refused.
    Bad,
}

/// Reads the PROXY header that `bytes` begin with.
#[must_use]
pub fn proxy_header(bytes: &[u8]) -> Start {
    match proxy_header::read(bytes) {
        Ok(Header::Partial { needed }) => Start::Partial(needed),
        Ok(Header::Absent) => Start::Absent,
        Ok(Header::Present { length, source }) => Start::Present(length, source),
        Err(_refused) => Start::Bad,
    }
}

/// The longest PROXY header that is read.
pub const LONGEST_PROXY_HEADER: usize = proxy_header::MAX_HEADER;

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
