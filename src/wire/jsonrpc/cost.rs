//! What a JSON text may cost whoever reads it: how deep it nests, and what it takes as a value.

/// How deep arrays and objects may be nested. Raw payloads are skipped without recursion here,
/// but the backend that parses them may well recurse.
pub(super) const MAX_DEPTH: usize = 128;

/// What a value takes at most beside its text: the smallest map has room for eleven members, and
/// three signs that are counted.
const VALUE: usize = 256;

/// Are arrays and objects nested too deeply, strings aside?
pub(super) fn is_too_deep(text: &str) -> bool {
    let openings = text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count();
    // Nothing nests deeper than it opens, and counting is fast.
    openings > MAX_DEPTH && depth(text) > MAX_DEPTH
}

/// The deepest nesting of arrays and objects.
fn depth(text: &str) -> usize {
    let mut deepest = 0_usize;
    let mut now = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
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

/// How many bytes a JSON text takes at most as a [`serde_json::Value`]. Each value stands behind a
/// comma, a colon or an opening bracket, but for the first.
pub(crate) fn weight(text: &str) -> usize {
    let mut values = 1_usize;
    let mut in_string = false;
    let mut escaped = false;
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b',' | b':' | b'[' | b'{' if !in_string => values = values.saturating_add(1),
            _ => {}
        }
    }
    values.saturating_mul(VALUE).saturating_add(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_small_values_weigh_more_than_one_large_one() {
        let text = format!(r#"{{"a":"{}"}}"#, "[{,:\\\"".repeat(10_000));
        assert_eq!(weight(&text), 3 * VALUE + text.len());
        assert_eq!(weight("[1,2,3]"), 4 * VALUE + 7);
        // A map of its own for each: 632 bytes of node on 64 bits, and what it is called by.
        assert!(weight(&format!("[{}1]", r#"{"a":1},"#.repeat(1000))) > 1000 * 700);
    }

    #[test]
    fn only_brackets_outside_of_strings_nest_and_each_that_closes_counts() {
        assert_eq!(depth(r#"[{"a":["\"[[[[","\\",[],{}]},"]]]]\\"]"#), 4);
        assert_eq!(depth(r#"["]]]]",["]]]]",["]]]]"]]]"#), 3);
        assert!(!is_too_deep(&"[]".repeat(1000)), "many are not deep");
        let hidden = format!("{}{}", r#"["]]]]","#.repeat(129), "1".to_owned() + &"]".repeat(129));
        assert!(is_too_deep(&hidden), "nothing in a string closes anything");
    }
}
