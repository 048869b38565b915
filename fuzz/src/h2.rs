//! HTTP/2 frames (RFC 9113), as far as a hostile client needs them.

use arbitrary::Arbitrary;

/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One step of a client.
#[derive(Arbitrary, Debug)]
pub enum Step {
    /// A good call on a new stream, with its body.
    Call,
    /// A GET that opens an event stream.
    Listen,
    /// HEADERS with these fields, on one of the streams.
    Headers { stream: u8, fields: Vec<(String, String)>, end: bool, whole: bool },
    /// CONTINUATION with these bytes.
    Continuation { stream: u8, block: Vec<u8>, end: bool },
    /// DATA.
    Data { stream: u8, body: Vec<u8>, end: bool, padding: Option<u8> },
    /// RST_STREAM.
    Reset { stream: u8, code: u8 },
    /// SETTINGS.
    Settings { entries: Vec<(u16, u32)>, ack: bool },
    /// PING.
    Ping { ack: bool },
    /// WINDOW_UPDATE.
    Window { stream: u8, by: u32 },
    /// PRIORITY.
    Priority { stream: u8, on: u32 },
    /// GOAWAY.
    Goaway { last: u8, code: u8 },
    /// Any frame.
    Frame { kind: u8, flags: u8, stream: u32, payload: Vec<u8> },
    /// The same step, many times over.
    Many { of: u8, times: u8 },
    /// No frame at all.
    Bytes(Vec<u8>),
    /// Time goes by.
    Wait { seconds: u8 },
}

/// One frame.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A literal field, not indexed and not Huffman coded (RFC 7541 section 6.2.2).
#[must_use]
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        let length = text.len();
        if length < 127 {
            bytes.push(length as u8);
        } else {
            bytes.push(127);
            let mut rest = length - 127;
            while rest >= 128 {
                bytes.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            bytes.push(rest as u8);
        }
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

impl Step {
    /// The bytes of it. `next` is the stream that a new request takes.
    #[must_use]
    pub fn bytes(&self, next: &mut u32, token: &str) -> Vec<u8> {
        let bearer = format!("Bearer {token}");
        let of = |stream: u8| u32::from(stream % 8) * 2 + 1;
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        match self {
            Self::Call => {
                let stream = std::mem::replace(next, next.wrapping_add(2));
                let head = block(&[
                    (":method", "POST"),
                    (":scheme", "https"),
                    (":path", "/mcp"),
                    (":authority", "localhost"),
                    ("authorization", &bearer),
                    ("content-type", "application/json"),
                    ("accept", "application/json, text/event-stream"),
                ]);
                let body = br#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
                [frame(1, 4, stream, &head), frame(0, 1, stream, body)].concat()
            }
            Self::Listen => {
                let stream = std::mem::replace(next, next.wrapping_add(2));
                let head = block(&[
                    (":method", "GET"),
                    (":scheme", "https"),
                    (":path", "/sse"),
                    (":authority", "localhost"),
                    ("authorization", &bearer),
                ]);
                frame(1, 5, stream, &head)
            }
            Self::Headers { stream, fields, end, whole } => {
                let head: Vec<u8> =
                    fields.iter().flat_map(|(name, value)| field(name, value)).collect();
                frame(1, flag(*end, 1) | flag(*whole, 4), of(*stream), &head)
            }
            Self::Continuation { stream, block, end } => {
                frame(9, flag(*end, 4), of(*stream), block)
            }
            Self::Data { stream, body, end, padding } => {
                let padded: Vec<u8> = padding.iter().copied().chain(body.iter().copied()).collect();
                frame(0, flag(*end, 1) | flag(padding.is_some(), 8), of(*stream), &padded)
            }
            Self::Reset { stream, code } => {
                frame(3, 0, of(*stream), &u32::from(*code).to_be_bytes())
            }
            Self::Settings { entries, ack } => {
                let body: Vec<u8> = entries
                    .iter()
                    .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
                    .collect();
                frame(4, flag(*ack, 1), 0, &body)
            }
            Self::Ping { ack } => frame(6, flag(*ack, 1), 0, b"8 bytes."),
            Self::Window { stream, by } => {
                let stream = if *stream == 0 { 0 } else { of(*stream) };
                frame(8, 0, stream, &by.to_be_bytes())
            }
            Self::Priority { stream, on } => {
                frame(2, 0, of(*stream), &[&on.to_be_bytes()[..], &[16]].concat())
            }
            Self::Goaway { last, code } => frame(
                7,
                0,
                0,
                &[u32::from(*last).to_be_bytes(), u32::from(*code).to_be_bytes()].concat(),
            ),
            Self::Frame { kind, flags, stream, payload } => frame(*kind, *flags, *stream, payload),
            Self::Many { of, times } => {
                let one = match of % 6 {
                    0 => frame(6, 0, 0, b"8 bytes."),
                    1 => frame(4, 0, 0, b""),
                    2 => frame(0, 0, 1, b""),
                    3 => frame(8, 0, 0, &1_u32.to_be_bytes()),
                    4 => frame(9, 0, 1, b""),
                    _ => {
                        let mut all = Vec::new();
                        for _ in 0..*times {
                            let stream = *next;
                            all.extend(Self::Call.bytes(next, token));
                            all.extend(frame(3, 0, stream, &8_u32.to_be_bytes()));
                        }
                        return all;
                    }
                };
                one.repeat(usize::from(*times))
            }
            Self::Bytes(bytes) => bytes.clone(),
            Self::Wait { .. } => Vec::new(),
        }
    }
}

/// The kinds of frames that a server sent, if each is whole and within the bounds.
///
/// # Panics
/// Where one is not.
#[must_use]
pub fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, u32)> {
    let mut all = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let [a, b, c, kind, flags, stream @ ..] = *head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let stream = u32::from_be_bytes(stream);
        assert!(kind <= 9, "a frame of the kind {kind}");
        assert!(stream < 1 << 31, "a reserved bit");
        assert_eq!(matches!(kind, 4 | 6 | 7), stream == 0 && kind != 8, "{kind} on {stream}");
        let Some(rest) = rest.get(length..) else { break };
        all.push((kind, flags, stream));
        bytes = rest;
    }
    all
}
