//! Keeps the values handed to a child out of what is told about it.

use std::ffi::OsStr;

/// A value shorter than this is no secret, and would blot out half the text.
const SHORTEST: usize = 8;

const BLOT: &str = "[redacted]";

/// Knows what must not be repeated.
#[derive(Clone, Default)]
pub(super) struct Redactor {
    /// Longest first: one value may hold another.
    values: Vec<String>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redactor({} values)", self.values.len())
    }
}

impl Redactor {
    /// Of a value with several lines (a key in PEM), each line is one to hide: text comes by lines.
    pub(super) fn new<'a>(values: impl Iterator<Item = &'a OsStr>) -> Self {
        let mut lines: Vec<String> = values
            .flat_map(|value| {
                value.to_string_lossy().lines().map(str::to_owned).collect::<Vec<_>>()
            })
            .filter(|line| line.len() >= SHORTEST)
            .collect();
        lines.sort_by_key(|line| std::cmp::Reverse(line.len()));
        lines.dedup();
        Self { values: lines }
    }

    /// The bytes as text in which no value stands. `cut` says that more bytes followed: then a
    /// value's beginning may stand at the end, and whatever could be one is left off.
    pub(super) fn text(&self, bytes: &[u8], cut: bool) -> String {
        let mut text = String::from_utf8_lossy(bytes).into_owned();
        for value in &self.values {
            if text.contains(value) {
                text = text.replace(value, BLOT);
            }
        }
        if cut {
            let doubtful = self.longest().saturating_sub(1);
            let certain = text.len().saturating_sub(doubtful);
            shorten(&mut text, certain);
        }
        text
    }

    /// The bytes of a line that has no end yet as text in which no value stands, nor begins at the
    /// end.
    pub(super) fn unfinished(&self, bytes: &[u8]) -> String {
        let mut text = self.text(bytes, false);
        let begun = |value: &String| {
            let most = value.len().min(text.len() + 1);
            (1..most).rev().find(|n| value.get(..*n).is_some_and(|head| text.ends_with(head)))
        };
        let begun = self.values.iter().filter_map(begun).max().unwrap_or_default();
        let certain = text.len().saturating_sub(begun);
        shorten(&mut text, certain);
        text
    }

    /// The beginning of the bytes as text in which no value stands.
    pub(super) fn excerpt(&self, bytes: &[u8], most: usize) -> String {
        let head = bytes.get(..most.saturating_add(self.longest()));
        let mut text = self.text(head.unwrap_or(bytes), head.is_some());
        shorten(&mut text, most);
        text
    }

    fn longest(&self) -> usize {
        self.values.first().map_or(0, String::len)
    }
}

/// Cuts the text to at most this many bytes.
pub(super) fn shorten(text: &mut String, most: usize) {
    text.truncate(text.floor_char_boundary(most));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor(values: &[&str]) -> Redactor {
        Redactor::new(values.iter().map(OsStr::new))
    }

    #[test]
    fn values_are_hidden_and_short_ones_are_not() {
        let redactor = redactor(&["hunter22", "hunter22-and-more", "short"]);
        let text = redactor.text(b"a hunter22 b hunter22-and-more c short \xff", false);
        assert_eq!(text, "a [redacted] b [redacted] c short \u{fffd}");
    }

    #[test]
    fn each_line_of_a_value_is_hidden() {
        let redactor = redactor(&["-----BEGIN KEY\nMIIEvQIBADAN\nx"]);
        assert_eq!(redactor.text(b"key: MIIEvQIBADAN x", false), "key: [redacted] x");
    }

    #[test]
    fn a_value_that_was_cut_through_does_not_show() {
        let redactor = redactor(&["0123456789"]);
        assert_eq!(redactor.text(b"the key is 012345678", true), "the key is ");
        assert_eq!(redactor.excerpt(b"ab 0123456789 c", 8), "ab [reda");
        for most in 0..20 {
            assert!(!redactor.excerpt(b"ab 0123456789 c 0123456789", most).contains('1'));
        }
    }

    #[test]
    fn a_value_that_is_being_written_does_not_show() {
        let redactor = redactor(&["0123456789", "hunter22"]);
        assert_eq!(redactor.unfinished(b"Proceed? [y/N] "), "Proceed? [y/N] ");
        assert_eq!(redactor.unfinished(b"key 0123456789 and 01234567"), "key [redacted] and ");
        let mut text = "key: ".to_owned();
        for digit in '0'..='8' {
            text.push(digit);
            assert_eq!(redactor.unfinished(text.as_bytes()), "key: ");
        }
        assert_eq!(redactor.unfinished(b"0"), "");
    }

    #[test]
    fn debug_does_not_speak() {
        assert_eq!(format!("{:?}", redactor(&["hunter22"])), "Redactor(1 values)");
    }
}
