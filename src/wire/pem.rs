//! PEM (RFC 7468) as people hand it over: what editors, shells and other systems leave in a file.

use std::fmt::Write as _;

/// The same text in UTF-8, with every boundary alone on its line. What is no text is given back as
/// something in which nothing is found.
pub(crate) fn tidied(bytes: &[u8]) -> Vec<u8> {
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    };
    // Files that were put together where the first did not end its last line.
    let text = text.replace("----------BEGIN ", "-----\n-----BEGIN ");
    let is_blank = |c: char| c.is_whitespace() || c == MARK;
    let lines = text.split(['\n', '\r']).map(|line| line.trim_matches(is_blank));
    let mut tidied = String::with_capacity(text.len());
    for line in lines {
        // A string takes all that it is given.
        let _written = writeln!(tidied, "{line}");
    }
    tidied.into_bytes()
}

/// The byte order mark. Of files that were put together, it may stand anywhere.
const MARK: char = '\u{feff}';

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> String {
    let units = bytes.chunks_exact(2).filter_map(|pair| <[u8; 2]>::try_from(pair).ok()).map(unit);
    char::decode_utf16(units).map(|it| it.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: &str = "-----BEGIN X-----\nMAA=\n-----END X-----\n";

    #[test]
    fn marks_line_ends_and_blanks_are_tidied() {
        let wide = |unit: fn(u16) -> [u8; 2]| -> Vec<u8> {
            format!("\u{feff}{PLAIN}").encode_utf16().flat_map(unit).collect()
        };
        let joined = format!("{PLAIN}{PLAIN}").replace("-----\n-----BEGIN", "----------BEGIN");
        for (bytes, text) in [
            (PLAIN.as_bytes().to_vec(), PLAIN.to_owned()),
            (format!("\u{feff}{PLAIN}").into_bytes(), PLAIN.to_owned()),
            (wide(u16::to_le_bytes), PLAIN.to_owned()),
            (wide(u16::to_be_bytes), PLAIN.to_owned()),
            (PLAIN.replace('\n', " \n  ").into_bytes(), PLAIN.to_owned()),
            (format!("{PLAIN}\u{feff}{PLAIN}").into_bytes(), format!("{PLAIN}{PLAIN}")),
            (joined.into_bytes(), format!("{PLAIN}{PLAIN}")),
            (PLAIN.replace('\n', "\r\n").into_bytes(), PLAIN.replace('\n', "\n\n")),
        ] {
            let tidied = String::from_utf8(tidied(&bytes)).unwrap();
            assert_eq!(tidied.trim_end(), text.trim_end());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let once = tidied(&bytes);
            prop_assert!(std::str::from_utf8(&once).is_ok());
        }
    }
}
