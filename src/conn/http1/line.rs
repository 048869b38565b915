//! The lines of HTTP/1.1 without their CR LF, each parsed by itself.

use super::error::FramingError;

/// Bytes of a method that still may be one.
const LONGEST_METHOD: usize = 64;
/// Digits of a `Content-Length` that no arithmetic can overflow.
const MOST_DIGITS: usize = 18;
/// Hexadecimal digits of a chunk size: 4 GiB are far above any body limit.
const MOST_HEX_DIGITS: usize = 8;

/// Which bytes a token has (RFC 9110 section 5.6.2).
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte: u8 = 0;
    while byte < 128 {
        let is = matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'%'
            | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
        #[expect(
            clippy::as_conversions,
            clippy::indexing_slicing,
            reason = "there is no `From` in \
            constants; the compiler runs it"
        )]
        {
            table[byte as usize] = is;
        }
        byte += 1;
    }
    table
};

fn is_token_byte(byte: u8) -> bool {
    TOKEN.get(usize::from(byte)).is_some_and(|is| *is)
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is_token_byte(*byte))
}

/// No control characters but the tab.
#[expect(clippy::needless_bitwise_bool, reason = "without branches it becomes vector code")]
pub(super) fn is_field_content(text: &[u8]) -> bool {
    !text
        .iter()
        .fold(false, |bad, byte| bad | ((*byte < 0x20) & (*byte != b'\t')) | (*byte == 0x7f))
}

fn trimmed(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// The version of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Http10,
    Http11,
}

/// A request line, as far as framing goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestLine<'a> {
    pub(super) target: &'a [u8],
    pub(super) version: Version,
    /// The host and port that the target names, if it does.
    pub(super) authority: Option<&'a [u8]>,
}

impl<'a> RequestLine<'a> {
    /// `METHOD SP target SP HTTP/1.x`, with these two spaces and no more.
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, FramingError> {
        let mut parts = line.splitn(3, |byte| *byte == b' ');
        let (Some(method), Some(target), Some(version)) =
            (parts.next(), parts.next(), parts.next())
        else {
            return Err(FramingError::RequestLine);
        };
        if !is_token(method) || method.len() > LONGEST_METHOD || target.is_empty() {
            return Err(FramingError::RequestLine);
        }
        let version = match version {
            b"HTTP/1.1" => Version::Http11,
            b"HTTP/1.0" => Version::Http10,
            _ if version.contains(&b' ') => return Err(FramingError::RequestLine),
            _ => return Err(FramingError::Version),
        };
        let authority = authority(method, target)?;
        Ok(Self { target, version, authority })
    }
}

/// The authority of a target, which must be of a form that the method allows.
fn authority<'a>(method: &[u8], target: &'a [u8]) -> Result<Option<&'a [u8]>, FramingError> {
    // A fragment would be dropped without a word by the URI type of the HTTP floor.
    let visible = target.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#');
    if !visible {
        return Err(FramingError::Target);
    }
    if method == b"CONNECT" {
        return if is_authority(target) { Ok(Some(target)) } else { Err(FramingError::Target) };
    }
    match target {
        [b'/', ..] => Ok(None),
        b"*" if method == b"OPTIONS" => Ok(None),
        _ => {
            let after = [&b"http://"[..], b"https://"].into_iter().find_map(|scheme| {
                let (start, rest) = target.split_at_checked(scheme.len())?;
                start.eq_ignore_ascii_case(scheme).then_some(rest)
            });
            let authority = after.and_then(|rest| rest.split(|byte| b"/?".contains(byte)).next());
            authority.filter(|it| is_authority(it)).map(Some).ok_or(FramingError::Target)
        }
    }
}

/// May this be a host, with a port or without? Who it is, is not asked here.
fn is_authority(text: &[u8]) -> bool {
    let is = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+;=".contains(byte);
    !text.is_empty() && text.iter().all(is)
}

/// A field line that framing looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field<'a> {
    Host(&'a [u8]),
    ContentLength(u64),
    Chunked,
    /// An expectation that can be met, or not.
    Expect(bool),
    /// Another that says what only a head may say.
    HeadOnly,
    Other,
}

impl<'a> Field<'a> {
    /// `name: value`, with nothing before the colon.
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, FramingError> {
        if let [b' ' | b'\t', ..] = line {
            return Err(FramingError::Folded);
        }
        let end =
            line.iter().position(|byte| !is_token_byte(*byte)).ok_or(FramingError::FieldName)?;
        let (name, rest) = line.split_at_checked(end).ok_or(FramingError::FieldName)?;
        let (false, [b':', value @ ..]) = (name.is_empty(), rest) else {
            return Err(FramingError::FieldName);
        };
        if !is_field_content(value) {
            return Err(FramingError::FieldValue);
        }
        Self::known(name, value)
    }

    fn known(name: &[u8], value: &'a [u8]) -> Result<Self, FramingError> {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        // By length first: most names are none of these.
        match name.len() {
            4 if is("host") => {
                let host = trimmed(value);
                // An empty one is what a client without an authority must send.
                if host.is_empty() || is_authority(host) {
                    Ok(Self::Host(host))
                } else {
                    Err(FramingError::Host)
                }
            }
            6 if is("expect") => {
                Ok(Self::Expect(trimmed(value).eq_ignore_ascii_case(b"100-continue")))
            }
            14 if is("content-length") => content_length(trimmed(value)).map(Self::ContentLength),
            17 if is("transfer-encoding") => {
                let chunked = trimmed(value).eq_ignore_ascii_case(b"chunked");
                if chunked { Ok(Self::Chunked) } else { Err(FramingError::TransferEncoding) }
            }
            7 if is("trailer") => Ok(Self::HeadOnly),
            12 if is("content-type") => Ok(Self::HeadOnly),
            13 if is("authorization") || is("content-range") => Ok(Self::HeadOnly),
            16 if is("content-encoding") => Ok(Self::HeadOnly),
            _ => Ok(Self::Other),
        }
    }
}

fn content_length(digits: &[u8]) -> Result<u64, FramingError> {
    if digits.is_empty() || digits.len() > MOST_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return Err(FramingError::ContentLength);
    }
    Ok(digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// A chunk's size, and how many bytes its extension has.
pub(super) fn chunk_size(line: &[u8]) -> Result<(u64, usize), FramingError> {
    let end = line.iter().position(|byte| *byte == b';').unwrap_or(line.len());
    let (digits, extension) = line.split_at_checked(end).ok_or(FramingError::ChunkSize)?;
    if digits.is_empty()
        || digits.len() > MOST_HEX_DIGITS
        || !digits.iter().all(u8::is_ascii_hexdigit)
    {
        return Err(FramingError::ChunkSize);
    }
    if !is_field_content(extension) {
        return Err(FramingError::ChunkExtension);
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    };
    let size = digits.iter().fold(0, |size, digit| size * 16 + u64::from(value(*digit)));
    Ok((size, extension.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_line_has_one_form() {
        let of = |line: &'static str| RequestLine::parse(line.as_bytes());
        let plain = RequestLine { target: b"/mcp?x=1", version: Version::Http11, authority: None };
        assert_eq!(of("POST /mcp?x=1 HTTP/1.1"), Ok(plain));
        assert_eq!(of("GET /mcp?x=1 HTTP/1.0").unwrap().version, Version::Http10);
        for (line, authority) in [
            ("GET http://a:1/x HTTP/1.1", &b"a:1"[..]),
            ("GET HTTPS://a?x HTTP/1.1", b"a"),
            ("CONNECT a:443 HTTP/1.1", b"a:443"),
            ("GET http://[::1]/ HTTP/1.1", b"[::1]"),
        ] {
            assert_eq!(of(line).unwrap().authority, Some(authority), "{line}");
        }
        assert_eq!(of("OPTIONS * HTTP/1.1").unwrap().authority, None);
        for (line, fault) in [
            ("GET", FramingError::RequestLine),
            ("GET /", FramingError::RequestLine),
            ("GET  / HTTP/1.1", FramingError::RequestLine),
            ("GET /  HTTP/1.1", FramingError::RequestLine),
            ("GET / HTTP/1.1 ", FramingError::RequestLine),
            (" GET / HTTP/1.1", FramingError::RequestLine),
            ("G(T / HTTP/1.1", FramingError::RequestLine),
            ("GET\t/\tHTTP/1.1", FramingError::RequestLine),
            ("GET / http/1.1", FramingError::Version),
            ("GET / HTTP/1.2", FramingError::Version),
            ("GET / HTTP/2.0", FramingError::Version),
            ("GET / HTTP/01.1", FramingError::Version),
            ("GET * HTTP/1.1", FramingError::Target),
            ("GET mcp HTTP/1.1", FramingError::Target),
            ("GET /#x HTTP/1.1", FramingError::Target),
            ("GET /\u{e9} HTTP/1.1", FramingError::Target),
            ("GET http:///x HTTP/1.1", FramingError::Target),
            ("GET http://u@h/x HTTP/1.1", FramingError::Target),
            ("GET ftp://h/x HTTP/1.1", FramingError::Target),
            ("CONNECT /x HTTP/1.1", FramingError::Target),
        ] {
            assert_eq!(of(line), Err(fault), "{line}");
        }
    }

    #[test]
    fn a_field_line_is_read_as_it_stands() {
        let of = |line: &'static [u8]| Field::parse(line);
        assert_eq!(of(b"HOST:  a:1\t"), Ok(Field::Host(b"a:1")));
        assert_eq!(of(b"content-length: 007"), Ok(Field::ContentLength(7)));
        assert_eq!(of(b"Transfer-Encoding: Chunked"), Ok(Field::Chunked));
        assert_eq!(of(b"expect: 100-Continue"), Ok(Field::Expect(true)));
        assert_eq!(of(b"expect: 200-ok"), Ok(Field::Expect(false)));
        assert_eq!(of(b"authorization:x"), Ok(Field::HeadOnly));
        assert_eq!(of(b"x-a_b: caf\xe9 \t \xff"), Ok(Field::Other));
        assert_eq!(of(b"x:"), Ok(Field::Other));
        for (line, fault) in [
            (&b" x: y"[..], FramingError::Folded),
            (b"\tx: y", FramingError::Folded),
            (b"no colon", FramingError::FieldName),
            (b"nocolon", FramingError::FieldName),
            (b": y", FramingError::FieldName),
            (b"x : y", FramingError::FieldName),
            (b"caf\xe9: y", FramingError::FieldName),
            (b"x: a\0b", FramingError::FieldValue),
            (b"x: a\x0bb", FramingError::FieldValue),
            (b"x: a\x7fb", FramingError::FieldValue),
            (b"host: a b", FramingError::Host),
            (b"host: a,b", FramingError::Host),
            (b"host: u@a", FramingError::Host),
            (b"host: a/b", FramingError::Host),
            (b"content-length:", FramingError::ContentLength),
            (b"content-length: +1", FramingError::ContentLength),
            (b"content-length: 1, 1", FramingError::ContentLength),
            (b"content-length: 0x1", FramingError::ContentLength),
            (b"content-length: 1234567890123456789", FramingError::ContentLength),
            (b"transfer-encoding: gzip, chunked", FramingError::TransferEncoding),
            (b"transfer-encoding:", FramingError::TransferEncoding),
            (b"transfer-encoding: chunked;q=1", FramingError::TransferEncoding),
        ] {
            assert_eq!(of(line), Err(fault), "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn a_chunk_size_is_hexadecimal() {
        assert_eq!(chunk_size(b"0"), Ok((0, 0)));
        assert_eq!(chunk_size(b"fFfFfFfF"), Ok((0xffff_ffff, 0)));
        assert_eq!(chunk_size(b"00a;x=\"y\""), Ok((10, 6)));
        for line in
            [&b""[..], b"000000001", b"0x1", b"+1", b"-1", b" 1", b"1 ", b"1 ;x", b"g", b";x"]
        {
            assert_eq!(chunk_size(line), Err(FramingError::ChunkSize), "{line:?}");
        }
        assert_eq!(chunk_size(b"1;x\0"), Err(FramingError::ChunkExtension));
    }

    #[test]
    fn a_request_line_has_a_method_of_64_bytes_at_most_and_a_target() {
        let with = |length| format!("{} / HTTP/1.1", "A".repeat(length)).into_bytes();
        assert!(RequestLine::parse(&with(64)).is_ok());
        assert_eq!(RequestLine::parse(&with(65)), Err(FramingError::RequestLine));
        assert_eq!(RequestLine::parse(b"GET  HTTP/1.1"), Err(FramingError::RequestLine));
        assert_eq!(RequestLine::parse(b" / HTTP/1.1"), Err(FramingError::RequestLine));
    }

    #[test]
    fn two_control_characters_are_as_bad_as_one() {
        assert!(is_field_content(b"a\tb c\xff"));
        for bad in [&b"\0"[..], b"\0\0", b"\x7f\x7f", b"\0\x7f", b"\x1f", b"a\rb", b"a\nb"] {
            assert!(!is_field_content(bad), "{bad:?}");
        }
    }

    #[test]
    fn fields_that_only_a_head_may_have_are_known_by_their_whole_names() {
        for name in
            ["Trailer", "Content-Type", "Authorization", "Content-Range", "Content-Encoding"]
        {
            assert_eq!(
                Field::parse(format!("{name}: x").as_bytes()),
                Ok(Field::HeadOnly),
                "{name}"
            );
        }
        for length in 1..20 {
            let name = "x".repeat(length);
            assert_eq!(Field::parse(format!("{name}: x").as_bytes()), Ok(Field::Other), "{length}");
        }
    }

    #[test]
    fn a_length_has_18_digits_at_most() {
        assert_eq!(content_length(b"123456789012345678"), Ok(123_456_789_012_345_678));
        assert_eq!(content_length(b"0000000000000000120"), Err(FramingError::ContentLength));
    }
}
