//! Tokens as operators write them: a variable, or a file with one a line.

use super::Secret;

/// Fewer characters can be guessed, or were typed by hand.
pub const MIN_TOKEN: usize = 16;

/// Why a text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// Fewer than [`MIN_TOKEN`] characters.
    #[error("is shorter than {MIN_TOKEN} characters; make one with `openssl rand -hex 32`")]
    Short,
    /// Not `token68` of [RFC 7235](https://www.rfc-editor.org/rfc/rfc7235#section-2.1), which is
    /// what a bearer token in a header must be.
    #[error(
        "has a character that a bearer token cannot have (letters, digits and -._~+/ are fine, \
         and = at the end); make one with `openssl rand -hex 32`"
    )]
    Characters,
}

/// Why a token file is of no use. Says where, never what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTokenFile {
    /// A line that is no token.
    #[error("line {number} {reason}")]
    Line {
        /// Counted from one.
        number: usize,
        /// What is wrong with it.
        reason: BadToken,
    },
    /// Comments and blank lines at most.
    #[error("holds no token; write one a line, made with `openssl rand -hex 32`")]
    Empty,
}

/// One token. White space around it is no part of it: secrets that come from files often end in a
/// line break.
///
/// # Errors
///
/// What is too short, or cannot stand in a header.
pub fn parse_token(text: &str) -> Result<Secret, BadToken> {
    let text = text.trim();
    let body = text.trim_end_matches('=');
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    if body.is_empty() && !text.is_empty() || !body.bytes().all(allowed) {
        return Err(BadToken::Characters);
    }
    if text.len() < MIN_TOKEN { Err(BadToken::Short) } else { Ok(Secret::new(text)) }
}

/// Every token of a file: one a line, `#` starts a comment line, blank lines are skipped.
///
/// # Errors
///
/// The first line that is no token, or that there is none at all.
pub fn parse_token_file(bytes: &[u8]) -> Result<Vec<Secret>, BadTokenFile> {
    let mut tokens = Vec::new();
    // Some editors begin a file with a byte order mark.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    for (line, number) in bytes.split(|byte| *byte == b'\n').zip(1..) {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let text = std::str::from_utf8(line).map_err(|_not_text| BadToken::Characters);
        let token = text.and_then(parse_token);
        tokens.push(token.map_err(|reason| BadTokenFile::Line { number, reason })?);
    }
    if tokens.is_empty() { Err(BadTokenFile::Empty) } else { Ok(tokens) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "0123456789abcdef";

    fn tokens(file: &[u8]) -> Result<Vec<String>, BadTokenFile> {
        let tokens = parse_token_file(file)?;
        Ok(tokens.iter().map(|token| token.expose().to_owned()).collect())
    }

    #[test]
    fn a_token_is_long_and_fits_a_header() {
        for good in [GOOD, "abc-._~+/0123456789==", " 0123456789abcdef\r\n"] {
            assert_eq!(parse_token(good).unwrap().expose(), good.trim());
        }
        for short in ["", "hunter2", "0123456789abcde"] {
            assert_eq!(parse_token(short).unwrap_err(), BadToken::Short, "{short}");
        }
        for bad in
            ["0123456789 abcdef", "0123456789abcdéf", "================", "01234=56789abcdef"]
        {
            assert_eq!(parse_token(bad).unwrap_err(), BadToken::Characters, "{bad}");
        }
    }

    #[test]
    fn a_file_has_comments_and_many_tokens() {
        let file = format!("# old\r\n{GOOD}\r\n\n  \n#new\n{GOOD}2");
        assert_eq!(tokens(file.as_bytes()).unwrap(), [GOOD.to_owned(), format!("{GOOD}2")]);
        assert_eq!(tokens(b""), Err(BadTokenFile::Empty));
        assert_eq!(tokens(b"# nothing\n\n"), Err(BadTokenFile::Empty));
    }

    #[test]
    fn a_bad_line_is_told_by_its_number_only() {
        let error = tokens(b"# one\n\nhunter2\n").unwrap_err();
        assert_eq!(error, BadTokenFile::Line { number: 3, reason: BadToken::Short });
        assert!(error.to_string().starts_with("line 3 is shorter"));
        assert!(!error.to_string().contains("hunter2"));
        let error = tokens(b"\xff\xfe").unwrap_err();
        assert_eq!(error, BadTokenFile::Line { number: 1, reason: BadToken::Characters });
    }

    proptest! {
        #[test]
        fn no_file_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _tokens = parse_token_file(&bytes);
        }

        #[test]
        fn what_is_accepted_can_stand_in_a_header(text in "\\PC{16,40}") {
            if let Ok(token) = parse_token(&text) {
                prop_assert!(token.expose().bytes().all(|byte| byte.is_ascii_graphic()));
            }
        }
    }
}
