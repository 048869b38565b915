//! The door of HTTP/1.1's framing for the fuzz targets.

use super::framing::{Framing, HeadLimits};

/// Follows bytes that come in these pieces. Where the line stands that breaks a rule, if one does.
#[must_use]
pub fn violation(pieces: &[&[u8]], bytes: usize, fields: usize) -> Option<usize> {
    let mut framing = Framing::new(HeadLimits { bytes, fields });
    let mut before = 0;
    for piece in pieces {
        if let Err(violation) = framing.follow(piece) {
            assert!(violation.at <= piece.len(), "beyond what came");
            return Some(before + violation.at);
        }
        before += piece.len();
    }
    None
}
