//! The text of a message before it is parsed, and where its parts stand in it.

use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;

use super::code;
use super::cost::is_too_deep;
use super::malformed::Malformed;

/// The bytes as text.
pub(super) fn utf8(bytes: &Bytes) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|error| Malformed::Syntax(error.to_string()))
}

/// The bytes as text that is not nested too deeply.
pub(super) fn as_text(bytes: &Bytes) -> Result<&str, Malformed> {
    let text = utf8(bytes)?;
    if is_too_deep(text) { Err(Malformed::TooDeep) } else { Ok(text) }
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

/// Code and text of the error that an answer holds, whatever its id is. A code that no answer of
/// ours could repeat is an internal error.
pub(crate) fn error_in(answer: &[u8]) -> Option<(i32, String)> {
    let (code, text) = any_error_in(answer)?;
    Some((i32::try_from(code).unwrap_or(code::INTERNAL_ERROR), text))
}

/// The same, with any code.
pub(crate) fn any_error_in(answer: &[u8]) -> Option<(i64, String)> {
    #[derive(Deserialize)]
    struct ErrorAnswer {
        error: ErrorObject,
    }
    #[derive(Deserialize)]
    struct ErrorObject {
        code: i64,
        message: String,
    }
    let ErrorAnswer { error: ErrorObject { code, message } } =
        serde_json::from_slice(answer).ok()?;
    Some((code, message))
}

/// Where `part` stands in `whole`, of which it is a slice.
pub(super) fn range_within(whole: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr().saturating_sub(whole.as_ptr().addr());
    start..start + part.len()
}
