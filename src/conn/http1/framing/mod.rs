//! The framing of HTTP/1.1, checked before hyper sees the bytes.
//!
//! hyper and its parser are kind where two readers of the same bytes may disagree: they take bare
//! LF for a line end, several equal `Content-Length` fields, `Transfer-Encoding` beside a length,
//! extensions and white space behind a chunk size, a head without `Host`. A proxy in front that
//! reads any of these otherwise lets one request hide in another (RFC 9112 section 11.2). So the
//! bytes are followed here, and the first that break a rule end the connection.
//!
//! [`Framing`] reads no socket and keeps no more than the line that is under way.

use memchr::memchr;

use super::error::FramingError;
use super::line::{Field, RequestLine, Version, chunk_size};

/// Empty lines before a request that are passed over: some clients send one behind a body.
const EMPTY_LINES: u8 = 1;
/// Bytes of a request line beside its target: a method, a version, what stands between.
const BESIDE_TARGET: usize = 128;
/// Bytes of one chunk's extension, and of all of a body's.
const EXTENSION: usize = 256;
const EXTENSIONS: usize = 4096;
/// Bytes of a line that holds a chunk size.
const SIZE_LINE: usize = 16 + EXTENSION;

/// Where bytes break the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::conn) struct Violation {
    pub(super) error: FramingError,
    /// How many of the bytes stand before the line that does.
    pub(in crate::conn) at: usize,
    /// Is it in the body of a request that has begun?
    pub(in crate::conn) in_body: bool,
}

/// Bytes of a trailer section. Nobody needs them, and hyper breaks off at 16 KiB without a word.
const TRAILER_BYTES: usize = 8192;

/// What a head may cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadLimits {
    /// Bytes of its target and its fields.
    pub(super) bytes: usize,
    /// Fields of a trailer section. Those of a head are counted by the HTTP floor.
    pub(super) fields: usize,
}

/// Follows the framing of one connection's requests.
#[derive(Debug)]
pub(in crate::conn) struct Framing {
    limits: HeadLimits,
    part: Part,
    /// What came of a line that is not over.
    line: Vec<u8>,
    head: HeadSoFar,
    /// Heads that have ended.
    heads: u64,
}

/// Bytes of a body that have been announced by their chunk's size, and have not come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::conn) struct Announced {
    /// Which request of the connection it is, from 0.
    pub(in crate::conn) request: u64,
    pub(in crate::conn) bytes: u64,
}

/// What the next bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The first line of a head, or empty lines before it.
    RequestLine,
    Fields,
    /// So many bytes of a body.
    Body(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
}

/// What is known of the request under way.
#[derive(Debug, Default)]
struct HeadSoFar {
    empty_lines: u8,
    old: bool,
    /// What the target names, for as long as `Host` has not confirmed it.
    authority: Option<Vec<u8>>,
    host: bool,
    length: Option<u64>,
    chunked: bool,
    /// Bytes of the target and the fields.
    bytes: usize,
    extensions: usize,
    trailers: usize,
    trailer_bytes: usize,
}

impl Framing {
    /// A connection from its first byte on.
    pub(super) fn new(limits: HeadLimits) -> Self {
        Self {
            limits,
            part: Part::RequestLine,
            line: Vec::new(),
            head: HeadSoFar::default(),
            heads: 0,
        }
    }

    /// What is still to come of the chunk under way.
    pub(in crate::conn) fn announced(&self) -> Option<Announced> {
        let Part::ChunkData(bytes) = self.part else { return None };
        Some(Announced { request: self.heads.checked_sub(1)?, bytes })
    }

    /// Follows the bytes that came next.
    ///
    /// # Errors
    /// [`Violation`] where a rule is broken. There is nothing to be followed behind that.
    pub(in crate::conn) fn follow(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let part = self.part;
            let followed = match part {
                Part::Body(left) => Ok(self.skip(rest, left, Part::RequestLine, Part::Body)),
                Part::ChunkData(left) => Ok(self.skip(rest, left, Part::ChunkEnd, Part::ChunkData)),
                Part::RequestLine
                | Part::Fields
                | Part::ChunkSize
                | Part::ChunkEnd
                | Part::Trailers => self.line(rest),
            };
            rest = followed.map_err(|error| Violation {
                error,
                at: bytes.len() - rest.len(),
                in_body: !matches!(part, Part::RequestLine | Part::Fields),
            })?;
        }
        Ok(())
    }

    /// Passes over content.
    fn skip<'a>(
        &mut self,
        bytes: &'a [u8],
        left: u64,
        then: Part,
        more: fn(u64) -> Part,
    ) -> &'a [u8] {
        let step = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let left = left - u64::try_from(step).unwrap_or(left);
        self.part = if left == 0 { then } else { more(left) };
        bytes.get(step..).unwrap_or_default()
    }

    /// Takes a line, or as much of it as there is; what stands behind it.
    fn line<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], FramingError> {
        let end = memchr(b'\n', bytes);
        let (piece, rest) =
            bytes.split_at_checked(end.map_or(bytes.len(), |end| end + 1)).unwrap_or((bytes, &[]));
        let (most, too_long) = self.line_limit();
        if self.line.len() + piece.len() > most {
            return Err(too_long);
        }
        if end.is_none() {
            self.line.extend_from_slice(piece);
        } else if self.line.is_empty() {
            self.take(piece)?;
        } else {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(piece);
            self.take(&line)?;
        }
        Ok(rest)
    }

    /// How long the line under way may become, with its end; what it is if it is longer.
    fn line_limit(&self) -> (usize, FramingError) {
        let most = self.limits.bytes;
        let trailers = most.min(TRAILER_BYTES);
        match self.part {
            Part::RequestLine => (most + BESIDE_TARGET, FramingError::TargetTooLong),
            // The empty line at the end costs nothing.
            Part::Fields => (most.saturating_sub(self.head.bytes) + 2, FramingError::HeadTooLarge),
            Part::Trailers => {
                (trailers.saturating_sub(self.head.trailer_bytes) + 2, FramingError::Trailer)
            }
            Part::ChunkSize => (SIZE_LINE, FramingError::ChunkSize),
            Part::ChunkEnd | Part::Body(_) | Part::ChunkData(_) => (2, FramingError::ChunkEnd),
        }
    }

    /// One whole line.
    fn take(&mut self, line: &[u8]) -> Result<(), FramingError> {
        let length = line.len();
        let [line @ .., b'\r', b'\n'] = line else {
            return Err(if self.part == Part::ChunkEnd {
                FramingError::ChunkEnd
            } else {
                FramingError::LineEnd
            });
        };
        if memchr(b'\r', line).is_some() {
            return Err(FramingError::LineEnd);
        }
        match self.part {
            Part::RequestLine if line.is_empty() => self.empty_line(),
            Part::RequestLine => self.request_line(line),
            Part::Fields if line.is_empty() => self.end_head(),
            Part::Fields => self.field(line, length),
            Part::ChunkSize => self.chunk(line),
            Part::ChunkEnd if line.is_empty() => {
                self.part = Part::ChunkSize;
                Ok(())
            }
            Part::ChunkEnd | Part::Body(_) | Part::ChunkData(_) => Err(FramingError::ChunkEnd),
            Part::Trailers if line.is_empty() => {
                self.part = Part::RequestLine;
                Ok(())
            }
            Part::Trailers => self.trailer(line, length),
        }
    }

    fn empty_line(&mut self) -> Result<(), FramingError> {
        if self.head.empty_lines >= EMPTY_LINES {
            return Err(FramingError::EmptyLines);
        }
        self.head.empty_lines += 1;
        Ok(())
    }

    fn request_line(&mut self, line: &[u8]) -> Result<(), FramingError> {
        let RequestLine { target, version, authority } = RequestLine::parse(line)?;
        if target.len() > self.limits.bytes {
            return Err(FramingError::TargetTooLong);
        }
        self.head = HeadSoFar {
            old: version == Version::Http10,
            authority: authority.map(<[u8]>::to_vec),
            bytes: target.len(),
            ..HeadSoFar::default()
        };
        self.part = Part::Fields;
        Ok(())
    }

    fn field(&mut self, line: &[u8], length: usize) -> Result<(), FramingError> {
        let head = &mut self.head;
        head.bytes += length;
        if head.bytes > self.limits.bytes {
            return Err(FramingError::HeadTooLarge);
        }
        match Field::parse(line)? {
            Field::Host(_) if head.host => Err(FramingError::Host),
            Field::Host(host) => {
                head.host = true;
                match head.authority.take() {
                    Some(named) if !named.eq_ignore_ascii_case(host) => {
                        Err(FramingError::Authority)
                    }
                    Some(_) | None => Ok(()),
                }
            }
            Field::ContentLength(_) if head.length.is_some() => Err(FramingError::ContentLength),
            Field::ContentLength(length) => {
                head.length = Some(length);
                Ok(())
            }
            Field::Chunked if head.chunked || head.old => Err(FramingError::TransferEncoding),
            Field::Chunked => {
                head.chunked = true;
                Ok(())
            }
            // HTTP/1.0 knows no expectations: they are passed over.
            Field::Expect(false) if !head.old => Err(FramingError::Expectation),
            Field::Expect(_) | Field::HeadOnly | Field::Other => Ok(()),
        }
    }

    fn end_head(&mut self) -> Result<(), FramingError> {
        let head = &self.head;
        if !head.host && !head.old {
            return Err(FramingError::Host);
        }
        self.heads += 1;
        self.part = match (head.length, head.chunked) {
            (Some(_), true) => return Err(FramingError::TwoLengths),
            (None, true) => Part::ChunkSize,
            (Some(0) | None, false) => Part::RequestLine,
            (Some(length), false) => Part::Body(length),
        };
        Ok(())
    }

    fn chunk(&mut self, line: &[u8]) -> Result<(), FramingError> {
        let (size, extension) = chunk_size(line)?;
        self.head.extensions += extension;
        if extension > EXTENSION || self.head.extensions > EXTENSIONS {
            return Err(FramingError::ChunkExtension);
        }
        self.part = if size == 0 { Part::Trailers } else { Part::ChunkData(size) };
        Ok(())
    }

    fn trailer(&mut self, line: &[u8], length: usize) -> Result<(), FramingError> {
        self.head.trailers += 1;
        self.head.trailer_bytes += length;
        let HeadLimits { bytes, fields } = self.limits;
        if self.head.trailers > fields || self.head.trailer_bytes > bytes.min(TRAILER_BYTES) {
            return Err(FramingError::Trailer);
        }
        match Field::parse(line) {
            Ok(Field::Other) => Ok(()),
            Ok(
                Field::Host(_)
                | Field::ContentLength(_)
                | Field::Chunked
                | Field::Expect(_)
                | Field::HeadOnly,
            )
            | Err(_) => Err(FramingError::Trailer),
        }
    }
}

#[cfg(test)]
mod tests;
