//! The text of a message before it is parsed, and where its parts stand in it.

use std::ops::Range;

use bytes::Bytes;

use super::Malformed;

/// How deep arrays and objects may be nested. Raw payloads are skipped without recursion here,
/// but the backend that parses them may well recurse.
pub(super) const MAX_DEPTH: usize = 128;

/// The bytes as text.
pub(super) fn utf8(bytes: &Bytes) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|error| Malformed::Syntax(error.to_string()))
}

/// The bytes as text that is not nested too deeply.
pub(super) fn as_text(bytes: &Bytes) -> Result<&str, Malformed> {
    let text = utf8(bytes)?;
    if is_too_deep(text) { Err(Malformed::TooDeep) } else { Ok(text) }
}

/// Are arrays and objects nested too deeply, strings aside?
fn is_too_deep(text: &str) -> bool {
    let openings = text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count();
    // Nothing nests deeper than it opens, and counting is fast.
    openings > MAX_DEPTH && depth(text) > MAX_DEPTH
}

/// The deepest nesting of arrays and objects.
fn depth(text: &str) -> usize {
    let (mut deepest, mut now, mut in_string, mut escaped) = (0_usize, 0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                now = now.saturating_add(1);
                deepest = deepest.max(now);
            }
            b']' | b'}' if !in_string => now = now.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// What an error of the parser says of the message.
pub(super) fn blame(error: &serde_json::Error) -> Malformed {
    match error.classify() {
        serde_json::error::Category::Data => {
            Malformed::Shape { reason: error.to_string().into(), id: None }
        }
        serde_json::error::Category::Io
        | serde_json::error::Category::Syntax
        | serde_json::error::Category::Eof => Malformed::Syntax(error.to_string()),
    }
}

/// Where `part` stands in `whole`, of which it is a slice.
pub(super) fn range_within(whole: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr().saturating_sub(whole.as_ptr().addr());
    start..start + part.len()
}
