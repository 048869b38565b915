//! The bearer token: taken out of one header, compared in constant time.
//!
//! RFC 6750 section 2.1 for the form; never from the query, a cookie or a body (sections 2.2, 2.3).

use http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::caller::{Grant, Principal, TokenId};
use crate::config::{MIN_TOKEN, Secret};

/// Bytes of the longest token that is ever good.
const LONGEST: usize = 1024;
/// What every comparison hashes at least.
const LEAST_HASHED: usize = 256;

/// The tokens that are good, as digests.
#[derive(Clone)]
pub(crate) struct Tokens {
    digests: Vec<[u8; 32]>,
    /// Bytes that every comparison hashes, however long a token is: the work must not tell.
    hashed: usize,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokens({})", self.digests.len())
    }
}

/// What the `Authorization` header holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presented<'a> {
    /// No header, or another scheme than Bearer.
    Nothing,
    /// Two headers, or a bearer that is no token68.
    Malformed,
    /// A token, good or bad.
    Bearer(&'a [u8]),
}

/// How a presented token compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TokenMatch {
    /// It is good; what it grants.
    Valid(Grant),
    /// It is not.
    Wrong,
    /// There is none.
    Missing,
    /// The header is not of the form.
    Malformed,
    /// Nobody looked.
    NotCompared,
}

impl Tokens {
    /// The tokens that are good. One longer than 1024 bytes never matches.
    pub(crate) fn new(tokens: &[Secret]) -> Self {
        let texts = || tokens.iter().map(|token| token.expose().as_bytes());
        let longest = texts().map(<[u8]>::len).filter(|length| *length <= LONGEST).max();
        let hashed = longest.unwrap_or(0).next_multiple_of(LEAST_HASHED).max(LEAST_HASHED);
        Self { digests: texts().map(|token| digest(token, hashed)).collect(), hashed }
    }

    /// Compares, with the same work whatever is presented.
    pub(super) fn compare(&self, presented: Presented<'_>) -> TokenMatch {
        let token = match presented {
            Presented::Bearer(token) => token,
            Presented::Nothing | Presented::Malformed => b"",
        };
        let presented_digest = digest(token, self.hashed);
        let mut good = Choice::from(0);
        for known in &self.digests {
            good |= known.ct_eq(&presented_digest);
        }
        let fits = token.len() <= self.hashed;
        match presented {
            Presented::Nothing => TokenMatch::Missing,
            Presented::Malformed => TokenMatch::Malformed,
            Presented::Bearer(_) if bool::from(good) && fits => {
                // The same bytes as the known digest.
                let principal = Principal::Token(TokenId(presented_digest));
                TokenMatch::Valid(Grant { principal })
            }
            Presented::Bearer(_) => TokenMatch::Wrong,
        }
    }
}

impl Tokens {
    /// Does a good token stand anywhere in this text? Costs a digest for each part of it: for short
    /// texts that are seldom looked at.
    pub(super) fn stand_in(&self, text: &str) -> bool {
        let from = |start| text.as_bytes().get(start..).unwrap_or_default();
        let parts = (0..text.len())
            .map(from)
            .flat_map(|rest| (MIN_TOKEN..=rest.len()).filter_map(|length| rest.get(..length)));
        let mut digests = parts.map(|part| digest(part, self.hashed));
        digests.any(|part| self.digests.iter().any(|known| bool::from(known.ct_eq(&part))))
    }
}

/// A digest over a block of fixed size, so that a short token costs what a long one does. What the
/// copy costs is the presented token's length, which whoever sent it knows.
fn digest(token: &[u8], hashed: usize) -> [u8; 32] {
    let mut block = [0; LONGEST];
    let shown = token.len().min(LONGEST);
    if let (Some(to), Some(from)) = (block.get_mut(..shown), token.get(..shown)) {
        to.copy_from_slice(from);
    }
    let mut hash = Sha256::new();
    hash.update(token.len().to_be_bytes());
    hash.update(block.get(..hashed).unwrap_or(&block));
    hash.finalize().into()
}

/// Takes the bearer token out of the headers.
pub(super) fn presented(headers: &HeaderMap) -> Presented<'_> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = all.next() else { return Presented::Nothing };
    if all.next().is_some() {
        return Presented::Malformed;
    }
    let value = value.as_bytes();
    let (scheme, rest) = match value.iter().position(|byte| *byte == b' ') {
        Some(at) => value.split_at(at),
        None => (value, &b""[..]),
    };
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Presented::Nothing;
    }
    let token = rest.trim_ascii();
    if is_token68(token) { Presented::Bearer(token) } else { Presented::Malformed }
}

/// RFC 9110 section 11.2: letters, digits and `-._~+/`, then any number of `=`.
fn is_token68(token: &[u8]) -> bool {
    let body = token.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    let allowed = |byte: &u8| {
        byte.is_ascii_alphanumeric() | matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/')
    };
    // Never shorter for what it finds, and many bytes at once: a long token costs what a short one does.
    body > 0 && token.iter().take(body).fold(true, |good, byte| good & allowed(byte))
}

#[cfg(test)]
mod timing;

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "correct-horse-battery-staple";

    fn compare(headers: &[(&'static str, &str)]) -> TokenMatch {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        Tokens::new(&[Secret::new("another-good-token"), Secret::new(GOOD)])
            .compare(presented(&map))
    }

    #[test]
    fn a_token_is_found_wherever_it_stands_in_a_text() {
        let tokens = Tokens::new(&[Secret::new("another-good-token"), Secret::new(GOOD)]);
        for text in [GOOD, &format!("https://{GOOD}:443"), "x.another-good-token.example.com"] {
            assert!(tokens.stand_in(text), "{text}");
        }
        for text in ["", "mcp.example.com", "another-good-toke.n", "correct-horse-battery-stapl"] {
            assert!(!tokens.stand_in(text), "{text}");
        }
    }

    #[test]
    fn a_good_token_is_valid_in_any_case_of_the_scheme() {
        for scheme in ["Bearer", "bearer", "BEARER", "Bearer "] {
            let header = format!("{scheme} {GOOD}");
            assert!(
                matches!(compare(&[("authorization", &header)]), TokenMatch::Valid(_)),
                "{header}"
            );
        }
    }

    #[test]
    fn two_tokens_are_two_principals() {
        let other = compare(&[("authorization", "Bearer another-good-token")]);
        assert!(matches!(other, TokenMatch::Valid(_)));
        assert_ne!(other, compare(&[("authorization", &format!("Bearer {GOOD}"))]));
    }

    #[test]
    fn everything_else_is_not_valid() {
        let long = format!("Bearer {}", "x".repeat(5000));
        for (header, expected) in [
            ("Bearer correct-horse-battery-stapl", TokenMatch::Wrong),
            ("Bearer correct-horse-battery-staple1", TokenMatch::Wrong),
            ("Bearer Correct-horse-battery-staple", TokenMatch::Wrong),
            ("Bearer x", TokenMatch::Wrong),
            (long.as_str(), TokenMatch::Wrong),
            ("Bearer", TokenMatch::Malformed),
            ("Bearer two words", TokenMatch::Malformed),
            ("Bearer a,b", TokenMatch::Malformed),
            ("Bearer ===", TokenMatch::Malformed),
            ("Basic dXNlcjpwYXNz", TokenMatch::Missing),
            (GOOD, TokenMatch::Missing),
        ] {
            assert_eq!(compare(&[("authorization", header)]), expected, "{header}");
        }
        assert_eq!(compare(&[]), TokenMatch::Missing);
        let good = format!("Bearer {GOOD}");
        let twice = [("authorization", good.as_str()), ("authorization", good.as_str())];
        assert_eq!(compare(&twice), TokenMatch::Malformed);
    }

    #[test]
    fn padding_does_not_make_tokens_equal() {
        let tokens = Tokens::new(&[Secret::new("abcdefghijklmnop")]);
        assert_eq!(tokens.compare(Presented::Bearer(b"abcdefghijklmnop\0")), TokenMatch::Wrong);
    }

    #[test]
    fn no_tokens_match_nothing() {
        assert_eq!(Tokens::new(&[]).compare(Presented::Bearer(b"")), TokenMatch::Wrong);
    }

    #[test]
    fn of_tokens_only_their_number_is_shown() {
        let tokens = Tokens::new(&[Secret::new("another-good-token"), Secret::new(GOOD)]);
        assert_eq!(format!("{tokens:?}"), "Tokens(2)");
    }
}
