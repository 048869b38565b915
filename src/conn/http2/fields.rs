//! Follows the header fields of an HTTP/2 peer (RFC 7541) as far as it takes to see one thing that
//! the library lets pass: a pseudo-header field in a trailer section (RFC 9113 section 8.1).
//!
//! Which field an index names depends on all blocks before. Of each entry of the dynamic table three
//! numbers are kept; what is not understood is the library's to refuse, and ends the following.

use std::collections::VecDeque;

use super::frame::{Frame, FrameType};

/// Bytes that an entry of the table costs beside its name and value (RFC 7541 section 4.1).
const ENTRY: usize = 32;
/// Bytes of a block that are gathered, compressed as they are. The library takes no larger one.
const MOST: usize = 256 * 1024;
/// A gathered block's room that is kept for the next.
const KEPT: usize = 1024;
/// Static entries whose names begin with a colon (RFC 7541 appendix A).
const PSEUDO: usize = 14;
/// How long the names of the static entries are.
const NAMES: [u8; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14,
    16, 13, 12, 6, 4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10,
    25, 17, 10, 4, 3, 16,
];
/// How many symbols have a Huffman code of so many bits, from 0 (RFC 7541 appendix B).
const CODES: [u32; 31] = [
    0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19,
    29, 0, 4,
];
/// The Huffman code of the colon, which has 7 bits.
const COLON: u8 = 0x5c;

/// A name: its bytes, and whether it begins with a colon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name {
    length: usize,
    pseudo: bool,
}

/// The blocks of one peer.
#[derive(Debug)]
pub(super) struct FieldBlocks {
    /// The table: names, and what each entry costs. The newest first.
    table: VecDeque<(Name, usize)>,
    size: usize,
    most: usize,
    /// The most that the peer may make of it.
    allowed: usize,
    /// The newest request.
    newest: u32,
    block: Vec<u8>,
    /// Of the frame that comes: where it begins in the block, what is to come, and its flags.
    frame: (usize, usize, u8),
    trailers: bool,
    /// Something was not understood: nothing behind that can be.
    lost: bool,
}

impl FieldBlocks {
    /// Of a peer whose table may have so many bytes.
    pub(super) fn new(allowed: usize) -> Self {
        Self {
            table: VecDeque::new(),
            size: 0,
            most: allowed,
            allowed,
            newest: 0,
            block: Vec::new(),
            frame: (0, 0, 0),
            trailers: false,
            lost: false,
        }
    }

    /// A frame of fields begins. True if it ends here, with a pseudo-header field among trailers.
    pub(super) fn begin(&mut self, frame: Frame) -> bool {
        if frame.kind == FrameType::Headers {
            self.block.clear();
            self.trailers = frame.stream <= self.newest;
            self.newest = self.newest.max(frame.stream);
        }
        let length = usize::try_from(frame.length).unwrap_or(usize::MAX);
        // CONTINUATION has neither padding nor priority.
        let flags = if frame.kind == FrameType::Headers { frame.flags } else { frame.flags & 4 };
        self.frame = (self.block.len(), length, flags);
        length == 0 && self.end_frame()
    }

    /// Bytes of that frame. True if they end a block with a pseudo-header field among trailers.
    pub(super) fn take(&mut self, bytes: &[u8]) -> bool {
        let (_, left, _) = &mut self.frame;
        *left = left.saturating_sub(bytes.len());
        let ended = *left == 0;
        if self.block.len().saturating_add(bytes.len()) > MOST {
            self.lost = true;
        }
        if !self.lost {
            self.block.extend_from_slice(bytes);
        }
        ended && self.end_frame()
    }

    fn end_frame(&mut self) -> bool {
        if self.lost {
            self.block = Vec::new();
            return false;
        }
        let (begin, _, flags) = self.frame;
        if begin == 0 && self.strip(flags).is_none() {
            self.lost = true;
        }
        if flags & 4 == 0 {
            return false;
        }
        let block = std::mem::take(&mut self.block);
        let found = self.read(&block);
        self.lost |= found.is_none();
        self.block = block;
        self.block.clear();
        self.block.shrink_to(KEPT);
        self.trailers && found == Some(true)
    }

    /// Takes padding and priority off (RFC 9113 section 6.2).
    fn strip(&mut self, flags: u8) -> Option<()> {
        let padded = flags & 8 != 0;
        let padding = if padded { usize::from(*self.block.first()?) } else { 0 };
        let before = usize::from(padded) + if flags & 0x20 != 0 { 5 } else { 0 };
        let end = self.block.len().checked_sub(padding).filter(|end| *end >= before)?;
        self.block.truncate(end);
        self.block.drain(..before);
        Some(())
    }

    /// Reads a block: is a pseudo-header field in it? None if it cannot be read.
    fn read(&mut self, mut block: &[u8]) -> Option<bool> {
        let mut found = false;
        while let Some(&first) = block.first() {
            let bytes = &mut block;
            found |= if first & 0x80 != 0 {
                let index = integer(bytes, 7)?;
                self.name(index)?.pseudo
            } else if first & 0xe0 == 0x20 {
                self.most = Some(integer(bytes, 5)?).filter(|most| *most <= self.allowed)?;
                self.evict();
                false
            } else {
                let kept = first & 0x40 != 0;
                let index = integer(bytes, if kept { 6 } else { 4 })?;
                let name = if index == 0 { string(bytes)? } else { self.name(index)? };
                let value = string(bytes)?;
                if kept {
                    self.table.push_front((name, name.length + value.length + ENTRY));
                    self.size += name.length + value.length + ENTRY;
                    self.evict();
                }
                name.pseudo
            };
        }
        Some(found)
    }

    /// The name of this entry of both tables.
    fn name(&self, index: usize) -> Option<Name> {
        let at = index.checked_sub(1)?;
        match NAMES.get(at) {
            Some(length) => Some(Name { length: usize::from(*length), pseudo: at < PSEUDO }),
            None => self.table.get(at - NAMES.len()).map(|(name, _)| *name),
        }
    }

    fn evict(&mut self) {
        while self.size > self.most {
            let Some((_, cost)) = self.table.pop_back() else { return };
            self.size -= cost;
        }
    }
}

/// An integer whose first byte has so many bits of it (RFC 7541 section 5.1).
fn integer(bytes: &mut &[u8], bits: u32) -> Option<usize> {
    let full = (1_usize << bits) - 1;
    let (&first, rest) = bytes.split_first()?;
    *bytes = rest;
    let mut value = usize::from(first) & full;
    if value < full {
        return Some(value);
    }
    for shift in [0, 7, 14, 21] {
        let (&next, rest) = bytes.split_first()?;
        *bytes = rest;
        value += usize::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A string (RFC 7541 section 5.2).
fn string(bytes: &mut &[u8]) -> Option<Name> {
    let huffman = bytes.first()? & 0x80 != 0;
    let length = integer(bytes, 7)?;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    if huffman {
        let pseudo = text.first().is_some_and(|first| first >> 1 == COLON);
        return Some(Name { length: symbols(text)?, pseudo });
    }
    Some(Name { length, pseudo: text.first() == Some(&b':') })
}

/// How many symbols these bytes are in Huffman's code. Of each length the codes follow each other.
fn symbols(bytes: &[u8]) -> Option<usize> {
    let mut symbols = 0;
    let mut code = 0_u32;
    let mut first = 0_u32;
    let mut bits = 0_usize;
    for byte in bytes {
        for at in (0..8).rev() {
            code = code << 1 | u32::from(byte >> at & 1);
            first <<= 1;
            bits += 1;
            let count = *CODES.get(bits)?;
            if code - first < count {
                symbols += 1;
                (code, first, bits) = (0, 0, 0);
            } else {
                first += count;
            }
        }
    }
    Some(symbols)
}

#[cfg(test)]
mod tests {
    use super::super::frame::frame;
    use super::super::frames::FrameReader;
    use super::*;

    fn block(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        digits.chunks(2).map(|it| pair(it).unwrap()).collect()
    }

    fn sizes(fields: &FieldBlocks) -> Vec<usize> {
        fields.table.iter().map(|(_, cost)| *cost).collect()
    }

    /// RFC 7541 appendices C.3 and C.4: the same requests, without and with Huffman's code.
    #[test]
    fn the_table_is_as_in_the_examples_of_the_rfc() {
        for blocks in [
            [
                "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                "8286 84be 5808 6e6f 2d63 6163 6865",
                "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
            ],
            [
                "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
                "8286 84be 5886 a8eb 1064 9cbf",
                "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
            ],
        ] {
            let mut fields = FieldBlocks::new(4096);
            let tables = [vec![57], vec![53, 57], vec![54, 53, 57]];
            for (text, table) in blocks.into_iter().zip(tables) {
                assert_eq!(fields.read(&block(text)), Some(true));
                assert_eq!(sizes(&fields), table);
            }
            // Only the oldest, `:authority`, is a pseudo-header field.
            assert_eq!(
                [62, 63, 64].map(|at| fields.name(at).unwrap().pseudo),
                [false, false, true]
            );
            assert_eq!(fields.name(65), None);
        }
    }

    /// RFC 7541 appendix C.6: entries go when the table has 256 bytes.
    #[test]
    fn what_does_not_fit_is_evicted() {
        let mut fields = FieldBlocks::new(256);
        for (text, table) in [
            (
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 \
                 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                vec![63, 65, 52, 42],
            ),
            ("4883 640e ffc1 c0bf", vec![42, 63, 65, 52]),
        ] {
            assert_eq!(fields.read(&block(text)), Some(true), ":status");
            assert_eq!(sizes(&fields), table);
        }
        assert_eq!(fields.read(&[0x20]), Some(false));
        assert_eq!((sizes(&fields), fields.size), (vec![], 0));
        assert_eq!(fields.read(&[0x3f, 0xff, 0x01]), None, "more than is allowed");
    }

    /// What becomes of these frames of a peer, in pieces of this size.
    fn follow(frames: &[Vec<u8>], piece: usize) -> bool {
        let (mut fields, mut found) = (FieldBlocks::new(4096), false);
        let mut following = FrameReader::of_server();
        for bytes in frames.concat().chunks(piece) {
            following.pass_fields(bytes, |_| {}, &mut fields, &mut found);
        }
        found
    }

    #[test]
    fn what_just_fits_stays() {
        // Two new fields of 34 and 35 bytes (RFC 7541 section 4.1).
        let block = [0x40, 1, b'x', 1, b'y', 0x40, 1, b'x', 2, b'y', b'z'];
        for (most, table) in [(69, vec![35, 34]), (68, vec![35])] {
            let mut fields = FieldBlocks::new(most);
            assert_eq!(fields.read(&block), Some(false));
            assert_eq!(sizes(&fields), table);
        }
    }

    #[test]
    fn a_pseudo_header_field_is_found_among_trailers_only() {
        // `:path: /x` goes into the table, and so does `x: y`.
        let head = [&[0x44, 2, b'/', b'x', 0x40, 1, b'x', 1, b'y'][..], &[0x82, 0x87]].concat();
        let open = frame(1, 4, 1, &head);
        let padded = [&[3, 0, 0, 0, 0, 16][..], &head, &[0; 3]].concat();
        for open in [open, frame(1, 4 | 8 | 0x20, 1, &padded)] {
            for (trailers, is_bad) in [
                (vec![frame(1, 5, 1, &[0xbe])], false),
                (vec![frame(1, 5, 1, &[0, 1, b'z', 0])], false),
                (vec![frame(1, 5, 1, &[0xbf])], true),
                (vec![frame(1, 5, 1, &[0x82])], true),
                (vec![frame(1, 5, 1, &[0x0f, 0x30, 1, b'x'])], true),
                (vec![frame(1, 5, 1, &[0, 2, b':', b'x', 0])], true),
                (vec![frame(1, 5, 1, &[0, 0x81, 0xb9, 0])], true),
                (vec![frame(1, 1, 1, &[0xbe]), frame(9, 4, 1, &[0x82])], true),
                (vec![frame(1, 1, 1, &[0, 2, b':']), frame(9, 4, 1, b"x\0")], true),
                // Of the next request it is the head.
                (vec![frame(1, 5, 3, &head)], false),
                (vec![frame(1, 5, 1, &[0xff, 0xff]), frame(1, 5, 1, &[0x82])], false),
            ] {
                for piece in [1, 3, 1000] {
                    let frames = [&[open.clone()][..], &trailers].concat();
                    assert_eq!(follow(&frames, piece), is_bad, "{trailers:?} by {piece}");
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(0u8.., 0..400)) {
            let mut fields = FieldBlocks::new(4096);
            fields.read(&bytes);
            proptest::prop_assert!(fields.size <= fields.most);
            proptest::prop_assert_eq!(fields.size, sizes(&fields).iter().sum::<usize>());
            symbols(&bytes);
        }
    }
}
