//! Follows HTTP/2 frames through bytes as they go by (RFC 9113 section 4.1), in pieces of any size.
//! Keeps the head of one frame and four bytes of what follows, and judges nothing.

use super::fields::Fields;

/// Bytes of a frame's head.
const HEAD: usize = 9;
/// Bytes that a client says before its first frame (RFC 9113 section 3.4).
const PREFACE: u32 = 24;

/// Types of frames (RFC 9113 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    Priority,
    Reset,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    Unknown,
}

impl Kind {
    fn of(code: u8) -> Self {
        match code {
            0 => Self::Data,
            1 => Self::Headers,
            2 => Self::Priority,
            3 => Self::Reset,
            4 => Self::Settings,
            5 => Self::PushPromise,
            6 => Self::Ping,
            7 => Self::GoAway,
            8 => Self::WindowUpdate,
            9 => Self::Continuation,
            _ => Self::Unknown,
        }
    }
}

/// One frame: its head, and how its payload begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    flags: u8,
    /// Whom it is for; 0 is the connection.
    pub(super) stream: u32,
    /// Bytes of its payload.
    pub(super) length: u32,
    /// The first four bytes of its payload as a number; zeros stand for what it does not have.
    pub(super) lead: u32,
}

impl Frame {
    /// What its type makes of them.
    pub(super) fn flags(self) -> u8 {
        self.flags
    }

    /// The last of its stream. Only of frames of data and headers.
    pub(super) fn ends_stream(self) -> bool {
        self.flags & 1 != 0
    }

    /// The last of a header block.
    pub(super) fn ends_headers(self) -> bool {
        matches!(self.kind, Kind::Headers | Kind::Continuation) && self.flags & 4 != 0
    }

    /// Has it a length that its type cannot have (RFC 9113 section 6)?
    pub(super) fn is_misfit(self) -> bool {
        match self.kind {
            Kind::Priority => self.length != 5,
            Kind::Reset | Kind::WindowUpdate => self.length != 4,
            Kind::Settings if self.flags & 1 != 0 => self.length != 0,
            Kind::Settings => !self.length.is_multiple_of(6),
            Kind::Ping => self.length != 8,
            Kind::GoAway => self.length < 8,
            Kind::Data | Kind::Headers | Kind::PushPromise | Kind::Continuation | Kind::Unknown => {
                false
            }
        }
    }

    /// Bytes of data, without padding (RFC 9113 section 6.1).
    pub(super) fn data(self) -> u32 {
        let padded = self.flags & 8 != 0;
        let padding = if padded { 1 + (self.lead >> 24) } else { 0 };
        self.length.saturating_sub(padding)
    }
}

/// Where in a run of frames one is.
#[derive(Debug)]
pub(super) struct Frames {
    /// The frame that comes; how much of it there is, up to the lead.
    head: [u8; HEAD + 4],
    have: usize,
    /// Bytes of payload, or of the preface, that follow what was looked at.
    skip: u32,
    /// Is what is skipped data? Is it fields?
    data: bool,
    fields: bool,
    /// A header block has begun, and its last frame was not there yet.
    block: bool,
    /// Frames and header blocks that have begun; names the one that is not complete.
    begun: u64,
}

impl Frames {
    /// What a client says.
    pub(super) fn of_client() -> Self {
        Self { skip: PREFACE, ..Self::of_server() }
    }

    /// What a server says.
    pub(super) fn of_server() -> Self {
        Self {
            head: [0; HEAD + 4],
            have: 0,
            skip: 0,
            data: false,
            fields: false,
            block: false,
            begun: 0,
        }
    }

    /// Is a frame complete, so that another may follow?
    pub(super) fn at_boundary(&self) -> bool {
        self.have == 0 && self.skip == 0
    }

    /// A frame or header block that has begun and is not complete; each has another number. Data
    /// may take its time.
    pub(super) fn unfinished(&self) -> Option<u64> {
        let midway = self.have > 0 || (self.skip > 0 && !self.data);
        (self.block || midway).then_some(self.begun)
    }

    /// These bytes go by; each frame is told when its head and lead are there.
    pub(super) fn pass(&mut self, bytes: &[u8], each: impl FnMut(Frame)) {
        self.follow(bytes, each, |_fields| {});
    }

    /// The same; header fields are followed, and pseudo-header fields among trailers are found.
    pub(super) fn pass_fields(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(Frame),
        fields: &mut Fields,
        found: &mut bool,
    ) {
        let fields = std::cell::RefCell::new((fields, found));
        let begin = |frame: Frame| {
            let (fields, found) = &mut *fields.borrow_mut();
            if matches!(frame.kind, Kind::Headers | Kind::Continuation) {
                **found |= fields.begin(frame);
            }
            each(frame);
        };
        self.follow(bytes, begin, |piece| {
            let (fields, found) = &mut *fields.borrow_mut();
            **found |= fields.take(piece);
        });
    }

    fn follow(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(Frame),
        mut fields: impl FnMut(&[u8]),
    ) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let length = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
                if self.fields {
                    fields(bytes.get(..length).unwrap_or_default());
                }
                bytes = bytes.get(length..).unwrap_or_default();
                self.skip = self.skip.saturating_sub(u32::try_from(length).unwrap_or(u32::MAX));
                continue;
            }
            if self.have == 0 && !self.block {
                self.begun += 1;
            }
            self.take(&mut bytes);
            if let Some(frame) = self.frame() {
                self.have = 0;
                self.data = frame.kind == Kind::Data;
                self.fields = matches!(frame.kind, Kind::Headers | Kind::Continuation);
                self.skip = frame.length.saturating_sub(4);
                each(frame);
                if self.fields {
                    self.block = !frame.ends_headers();
                    let lead = self.head.get(HEAD..self.whole()).unwrap_or_default();
                    if !lead.is_empty() {
                        fields(lead);
                    }
                }
            }
        }
    }

    /// Takes what the frame's head, or its lead, still lacks.
    fn take(&mut self, bytes: &mut &[u8]) {
        let lacks = self.wanted().saturating_sub(self.have).min(bytes.len());
        let (now, later) = bytes.split_at(lacks);
        if let Some(room) = self.head.get_mut(self.have..self.have + lacks) {
            room.copy_from_slice(now);
        }
        self.have += lacks;
        *bytes = later;
    }

    fn length(&self) -> u32 {
        let [a, b, c, ..] = self.head;
        u32::from_be_bytes([0, a, b, c])
    }

    fn wanted(&self) -> usize {
        if self.have < HEAD { HEAD } else { self.whole() }
    }

    /// Bytes of the head and the lead.
    fn whole(&self) -> usize {
        HEAD + usize::try_from(self.length().min(4)).unwrap_or(4)
    }

    fn frame(&self) -> Option<Frame> {
        if self.have < HEAD || self.have < self.wanted() {
            return None;
        }
        let length = self.length();
        let [_, _, _, kind, flags, s0, s1, s2, s3, lead @ ..] = self.head;
        let mut lead = u32::from_be_bytes(lead);
        if length < 4 {
            // What stands behind is of an earlier frame.
            lead &= u32::MAX.checked_shl(32 - 8 * length).unwrap_or(0);
        }
        // The highest bit is reserved, and means nothing.
        let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
        Some(Frame { kind: Kind::of(kind), flags, stream, length, lead })
    }
}

/// A frame's bytes (RFC 9113 section 4.1), for tests.
#[cfg(test)]
pub(in crate::conn) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn seen(frames: &mut Frames, bytes: &[u8]) -> Vec<Frame> {
        let mut seen = Vec::new();
        frames.pass(bytes, |frame| seen.push(frame));
        seen
    }

    #[test]
    fn frames_are_told_with_how_they_begin() {
        let mut frames = Frames::of_server();
        let mut bytes = frame(8, 0, 0x8000_0003, &[0, 0, 1, 0]);
        bytes.extend(frame(0, 1, 1, &[7]));
        bytes.extend(frame(0, 8, 1, &[2, 7, 0, 0]));
        bytes.extend(frame(4, 1, 0, &[]));
        let told = seen(&mut frames, &bytes);
        let [update, data, padded, settings] = told[..] else { panic!("{told:?}") };
        assert_eq!((update.kind, update.stream, update.lead), (Kind::WindowUpdate, 3, 256));
        assert_eq!((data.ends_stream(), data.data(), data.lead), (true, 1, 7 << 24));
        assert_eq!((padded.ends_stream(), padded.data()), (false, 1));
        assert_eq!((settings.kind, settings.length, settings.lead), (Kind::Settings, 0, 0));
        assert!(frames.at_boundary());
        assert_eq!(frames.unfinished(), None);
    }

    #[test]
    fn lengths_that_cannot_be_are_told() {
        for (kind, flags, fits) in
            [(2, 0, 5), (3, 0, 4), (4, 0, 12), (4, 1, 0), (6, 0, 8), (7, 0, 8), (8, 0, 4)]
        {
            let of = |length: usize| {
                seen(&mut Frames::of_server(), &frame(kind, flags, 0, &vec![0; length]))[0]
            };
            assert!(!of(fits).is_misfit(), "{kind}");
            assert!(of(fits + 1).is_misfit() || kind == 7, "{kind}");
            assert!(fits == 0 || of(fits - 1).is_misfit(), "{kind}");
        }
    }

    #[test]
    fn what_is_not_complete_has_a_number() {
        let mut frames = Frames::of_client();
        assert_eq!(seen(&mut frames, b"PRI * HTTP/2.0\r\n"), []);
        assert_eq!(frames.unfinished(), Some(0));
        assert_eq!(seen(&mut frames, b"\r\nSM\r\n\r\n"), []);
        assert_eq!(frames.unfinished(), None);
        // A block is one thing, from its first byte to its last, however many frames it has.
        let headers = frame(1, 0, 1, b"abcdef");
        assert_eq!(seen(&mut frames, &headers[..1]), []);
        assert_eq!(frames.unfinished(), Some(1));
        assert_eq!(seen(&mut frames, &headers[1..]).len(), 1);
        assert_eq!(frames.unfinished(), Some(1));
        assert_eq!(seen(&mut frames, &frame(9, 0, 1, b"x")).len(), 1);
        assert_eq!(frames.unfinished(), Some(1));
        assert_eq!(seen(&mut frames, &frame(9, 4, 1, b"")).len(), 1);
        assert_eq!(frames.unfinished(), None);
        // The next is another; of data only the head is waited for.
        let data = frame(0, 0, 1, b"abcdef");
        assert_eq!(seen(&mut frames, &data[..8]), []);
        assert_eq!(frames.unfinished(), Some(2));
        assert_eq!(seen(&mut frames, &data[8..14]).len(), 1);
        assert_eq!(frames.unfinished(), None);
        assert!(!frames.at_boundary());
    }

    proptest! {
        #[test]
        fn a_split_changes_nothing(
            parts in vec((0u8..12, any::<u8>(), any::<u32>(), vec(any::<u8>(), 0..40)), 0..20),
            cuts in vec(1usize..30, 1..20),
        ) {
            let bytes: Vec<u8> =
                parts.iter().flat_map(|(k, f, s, p)| frame(*k, *f, *s, p)).collect();
            let mut whole = Frames::of_server();
            let at_once = seen(&mut whole, &bytes);
            prop_assert_eq!(at_once.len(), parts.len());
            prop_assert!(whole.at_boundary());
            let mut pieces = Frames::of_server();
            let mut told = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                told.extend(seen(&mut pieces, now));
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(told, at_once);
            prop_assert_eq!(pieces.unfinished(), whole.unfinished());
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in vec(any::<u8>(), 0..2000)) {
            let mut frames = Frames::of_client();
            let told = seen(&mut frames, &bytes).len();
            prop_assert!(told <= bytes.len() / HEAD);
        }
    }
}
