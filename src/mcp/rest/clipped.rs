//! How much of somebody else's text an error repeats.

/// Characters.
const MAX_QUOTED: usize = 1000;

pub(super) fn clipped(text: &str) -> String {
    text.chars().take(MAX_QUOTED).collect()
}
