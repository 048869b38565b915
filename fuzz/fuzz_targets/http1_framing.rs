//! Invariant: no bytes panic; what breaks a rule does so in whatever pieces it comes; and what is let
//! through is, to a strict reader of its own, nothing but requests with one framing each, the last
//! of which may not be whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_edge::fuzzing::conn::violation;
use mcp_edge_fuzz::{pieces, seeded};

/// What a strict reader says.
enum Read<'a> {
    /// It is whole; what follows.
    Whole(&'a [u8]),
    /// More has to come.
    Partial,
    Bad(&'static str),
}

fn is_token(text: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(allowed)
}

/// A line without its CR LF, and what follows.
fn line(bytes: &[u8]) -> Result<Option<(&[u8], &[u8])>, &'static str> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    match bytes[..end].split_last() {
        Some((b'\r', line)) if !line.contains(&b'\r') => Ok(Some((line, &bytes[end + 1..]))),
        _ => Err("a bare LF or CR"),
    }
}

fn field(line: &[u8]) -> Result<(String, &[u8]), &'static str> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or("no colon")?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let plain = |byte: &u8| *byte == b'\t' || *byte >= b' ' && *byte != 0x7f;
    if !is_token(name) || !value.iter().all(plain) {
        return Err("no field");
    }
    Ok((String::from_utf8_lossy(name).to_ascii_lowercase(), value.trim_ascii()))
}

macro_rules! next {
    ($bytes:expr) => {
        match line($bytes) {
            Ok(Some(next)) => next,
            Ok(None) => return Read::Partial,
            Err(why) => return Read::Bad(why),
        }
    };
}

fn request(bytes: &[u8]) -> Read<'_> {
    let (mut first, mut rest) = next!(bytes);
    if first.is_empty() {
        (first, rest) = next!(rest);
    }
    let parts: Vec<&[u8]> = first.split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts.as_slice() else { return Read::Bad("no request line") };
    if !is_token(method) || target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
        return Read::Bad("no request line");
    }
    let old = match *version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => return Read::Bad("no version"),
    };
    let (mut hosts, mut lengths, mut codings) = (0, Vec::new(), Vec::new());
    loop {
        let (line, after) = next!(rest);
        rest = after;
        if line.is_empty() {
            break;
        }
        match field(line) {
            Err(why) => return Read::Bad(why),
            Ok((name, value)) => match name.as_str() {
                "host" => hosts += 1,
                "content-length" => lengths.push(value),
                "transfer-encoding" => codings.push(value),
                _ => {}
            },
        }
    }
    if hosts > 1 || hosts == 0 && !old {
        return Read::Bad("not one Host");
    }
    match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => Read::Whole(rest),
        ([digits], []) => {
            let number = std::str::from_utf8(digits).ok().and_then(|it| it.parse::<u64>().ok());
            if !digits.iter().all(u8::is_ascii_digit) {
                return Read::Bad("no length");
            }
            match number {
                Some(number) if number <= rest.len() as u64 => {
                    Read::Whole(&rest[number as usize..])
                }
                Some(_) => Read::Partial,
                None => Read::Bad("no length"),
            }
        }
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && !old => chunks(rest),
        _ => Read::Bad("two framings, or another one"),
    }
}

fn chunks(mut rest: &[u8]) -> Read<'_> {
    loop {
        let (size, after) = next!(rest);
        let digits = size.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let number = std::str::from_utf8(&size[..digits]).unwrap_or_default();
        let Ok(number) = u64::from_str_radix(number, 16) else { return Read::Bad("no chunk size") };
        if !matches!(size.get(digits), None | Some(b';' | b' ' | b'\t')) {
            return Read::Bad("no chunk size");
        }
        rest = after;
        if number == 0 {
            break;
        }
        if number > rest.len() as u64 {
            return Read::Partial;
        }
        rest = &rest[number as usize..];
        match rest {
            [b'\r', b'\n', after @ ..] => rest = after,
            // A line is judged at its end, or when it is too long.
            [] | [_] => return Read::Partial,
            [one, other] if *one != b'\n' && *other != b'\n' => return Read::Partial,
            _ => return Read::Bad("no end of a chunk"),
        }
    }
    loop {
        let (line, after) = next!(rest);
        rest = after;
        if line.is_empty() {
            return Read::Whole(rest);
        }
        match field(line) {
            Err(why) => return Read::Bad(why),
            Ok((name, _))
                if matches!(name.as_str(), "host" | "content-length" | "transfer-encoding") =>
            {
                return Read::Bad("framing in a trailer");
            }
            Ok(_) => {}
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let (data, sizes) = seeded(data);
    let found = violation(&pieces(data, sizes), 2048, 20);
    assert_eq!(found.is_some(), violation(&[data], 2048, 20).is_some());
    if found.is_some() {
        return;
    }
    let mut rest = data;
    while !rest.is_empty() {
        match request(rest) {
            Read::Whole(after) => rest = after,
            Read::Partial => return,
            Read::Bad(why) => panic!("{why} in {:?}", String::from_utf8_lossy(rest)),
        }
    }
});
