//! What the targets compare the edge with: small readers that share no code with it, written for
//! plainness and not for speed.

pub mod edge;
pub mod h1;
pub mod h2;
pub mod json;
pub mod sse;

/// Cuts `bytes` into pieces whose sizes a seed decides. Seed 0: one piece; 1: byte by byte.
#[must_use]
pub fn pieces(bytes: &[u8], seed: u8) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut rest = bytes;
    let mut state = u32::from(seed);
    while !rest.is_empty() {
        let size = match seed {
            0 => rest.len(),
            1 => 1,
            _ => {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                1 + (state >> 24) as usize % (usize::from(seed) + 1)
            }
        };
        let (piece, after) = rest.split_at(size.min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// Takes the last byte off, which decides something of its own.
#[must_use]
pub fn seeded(data: &[u8]) -> (&[u8], u8) {
    match data.split_last() {
        Some((seed, bytes)) => (bytes, *seed),
        None => (data, 0),
    }
}

/// The last two bytes, and what stands before them.
#[must_use]
pub fn seeded_twice(data: &[u8]) -> (&[u8], u8, u8) {
    let (rest, one) = seeded(data);
    let (rest, two) = seeded(rest);
    (rest, two, one)
}

/// Header fields, one a line as `name: value`; lines that cannot be one are left out.
#[must_use]
pub fn headers(text: &[u8]) -> http::HeaderMap {
    let mut map = http::HeaderMap::new();
    for line in text.split(|byte| *byte == b'\n').take(64) {
        let Some(at) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..at], line[at + 1..].trim_ascii());
        let name = http::HeaderName::from_bytes(name.trim_ascii());
        if let (Ok(name), Ok(value)) = (name, http::HeaderValue::from_bytes(value)) {
            map.append(name, value);
        }
    }
    map
}
