//! Server-sent events by the words of the standard (WHATWG HTML 9.2.6), all bytes at hand.

use std::time::Duration;

use mcp_edge::fuzzing::Event;

const NOTHING: Event = Event { kind: None, id: None, data: None, retry: None };

/// Every block that says something.
#[must_use]
pub fn decode(bytes: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    let (mut now, mut said) = (NOTHING, false);
    for line in lines(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)) {
        if line.is_empty() {
            let event = std::mem::replace(&mut now, NOTHING);
            if std::mem::take(&mut said) {
                events.push(event);
            }
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let text = String::from_utf8_lossy(value).into_owned();
        match &line[..colon] {
            b"event" => now.kind = (!text.is_empty()).then(|| text.into()),
            b"id" if !value.contains(&0) => now.id = Some(text.into()),
            b"data" => {
                let all = now.data.take().map(|before| [&before[..], b"\n"].concat());
                now.data = Some([&all.unwrap_or_default(), value].concat().into());
            }
            b"retry" if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                match text.parse::<u64>() {
                    Ok(number) => now.retry = Some(Duration::from_millis(number)),
                    Err(_) => continue,
                }
            }
            _ => continue,
        }
        said = true;
    }
    events
}

/// Lines that are complete: they end in LF, CR, or both.
fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    let (mut lines, mut rest) = (Vec::new(), bytes);
    while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
        lines.push(&rest[..end]);
        let both = rest[end..].starts_with(b"\r\n");
        rest = &rest[end + 1 + usize::from(both)..];
    }
    lines
}
