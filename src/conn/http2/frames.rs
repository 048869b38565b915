//! Follows HTTP/2 frames through bytes as they go by (RFC 9113 section 4.1), in pieces of any size.
//! Keeps the head of one frame and four bytes of what follows, and judges nothing.

use super::fields::FieldBlocks;
use super::frame::{Frame, FrameType};

/// Bytes of a frame's head.
const HEAD: usize = 9;
/// Bytes that a client says before its first frame (RFC 9113 section 3.4).
const PREFACE: u32 = 24;

/// Where in a run of frames one is.
#[derive(Debug)]
pub(super) struct FrameReader {
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

impl FrameReader {
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
        fields: &mut FieldBlocks,
        found: &mut bool,
    ) {
        let fields = std::cell::RefCell::new((fields, found));
        let begin = |frame: Frame| {
            let (fields, found) = &mut *fields.borrow_mut();
            if matches!(frame.kind, FrameType::Headers | FrameType::Continuation) {
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
                self.data = frame.kind == FrameType::Data;
                self.fields = matches!(frame.kind, FrameType::Headers | FrameType::Continuation);
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
        Some(Frame { kind: FrameType::of(kind), flags, stream, length, lead })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::frame::frame;
    use super::*;

    fn seen(frames: &mut FrameReader, bytes: &[u8]) -> Vec<Frame> {
        let mut seen = Vec::new();
        frames.pass(bytes, |frame| seen.push(frame));
        seen
    }

    #[test]
    fn frames_are_told_with_how_they_begin() {
        let mut frames = FrameReader::of_server();
        let mut bytes = frame(8, 0, 0x8000_0003, &[0, 0, 1, 0]);
        bytes.extend(frame(0, 1, 1, &[7]));
        bytes.extend(frame(0, 8, 1, &[2, 7, 0, 0]));
        bytes.extend(frame(4, 1, 0, &[]));
        let told = seen(&mut frames, &bytes);
        let [update, data, padded, settings] = told[..] else { panic!("{told:?}") };
        assert_eq!((update.kind, update.stream, update.lead), (FrameType::WindowUpdate, 3, 256));
        assert_eq!((data.ends_stream(), data.data(), data.lead), (true, 1, 7 << 24));
        assert_eq!((padded.ends_stream(), padded.data()), (false, 1));
        assert_eq!((settings.kind, settings.length, settings.lead), (FrameType::Settings, 0, 0));
        assert!(frames.at_boundary());
        assert_eq!(frames.unfinished(), None);
    }

    #[test]
    fn lengths_that_cannot_be_are_told() {
        for (kind, flags, fits) in
            [(2, 0, 5), (3, 0, 4), (4, 0, 12), (4, 1, 0), (6, 0, 8), (7, 0, 8), (8, 0, 4)]
        {
            let of = |length: usize| {
                seen(&mut FrameReader::of_server(), &frame(kind, flags, 0, &vec![0; length]))[0]
            };
            assert!(!of(fits).is_misfit(), "{kind}");
            assert!(of(fits + 1).is_misfit() || kind == 7, "{kind}");
            assert!(fits == 0 || of(fits - 1).is_misfit(), "{kind}");
        }
    }

    #[test]
    fn what_is_not_complete_has_a_number() {
        let mut frames = FrameReader::of_client();
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
            let mut whole = FrameReader::of_server();
            let at_once = seen(&mut whole, &bytes);
            prop_assert_eq!(at_once.len(), parts.len());
            prop_assert!(whole.at_boundary());
            let (mut pieces, mut told, mut rest) = (FrameReader::of_server(), Vec::new(), &bytes[..]);
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
            let mut frames = FrameReader::of_client();
            let told = seen(&mut frames, &bytes).len();
            prop_assert!(told <= bytes.len() / HEAD);
        }
    }
}
