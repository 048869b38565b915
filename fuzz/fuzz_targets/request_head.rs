//! Invariant: no head panics; a path that is passed on under a rule with `/*` is under no other rule
//! and no path of the edge's, however often it is decoded, in lower case, and without parameters;
//! and a slash at its end does not make an open one of a closed one;
//! media types are read as an independent reader reads them.
#![no_main]

use http::Request;
use libfuzzer_sys::fuzz_target;
use mcp_edge::PassRule;
use mcp_edge::fuzzing::http as doors;
use mcp_edge_fuzz::headers;

const RULES: [(&str, bool, bool); 6] = [
    ("/open/closed", false, false),
    ("/open", true, true),
    ("/open/private", true, false),
    ("/exact", false, true),
    ("", true, false),
    ("/Docs", true, true),
];

/// One decoding of a path.
fn decoded(path: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::new(), 0);
    while at < path.len() {
        let digits = path.get(at + 1..at + 3).and_then(|it| std::str::from_utf8(it).ok());
        match digits.filter(|it| it.bytes().all(|byte| byte.is_ascii_hexdigit())) {
            Some(digits) if path[at] == b'%' => {
                out.push(u8::from_str_radix(digits, 16).expect("two digits"));
                at += 3;
            }
            _ => {
                out.push(path[at]);
                at += 1;
            }
        }
    }
    out
}

/// Where a lenient server finds a path: dot segments and empty ones resolved, without parameters.
fn resolved(path: &str) -> String {
    let lower = path.to_lowercase().replace('\\', "/");
    let mut segments: Vec<&str> = Vec::new();
    for segment in lower.split('/') {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    format!("/{}", segments.join("/"))
}

fn is_within(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fuzz_target!(|data: &[u8]| {
    let (target, fields) = match data.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &b""[..]),
    };
    let map = headers(fields);
    let Ok(mut request) = Request::builder().uri(target).body(()) else { return };
    *request.headers_mut() = map;
    let (head, ()) = request.into_parts();
    assert!(doors::read(&head) >= head.uri.path_and_query().map_or(0, |it| it.as_str().len()));

    if let Some(read) = doors::fields(&head.headers) {
        let plain = |text: &str| text.bytes().all(|byte| (0x20..0x7f).contains(&byte) || byte == 9);
        let all = [read.session, read.version, read.last_event];
        assert!(all.into_iter().flatten().all(plain));
        let accepts = head.headers.get_all("accept");
        let says = |word: &str| {
            accepts.iter().any(|it| {
                String::from_utf8_lossy(it.as_bytes()).to_ascii_lowercase().contains(word)
            })
        };
        assert!(!read.events || says("text/event-stream") || says("text/*"));
        let by_get = doors::takes_events(&head.headers);
        assert!(!read.events || by_get, "whoever asks for events by name has them by GET");
        assert!(!by_get || read.events || says("*/*"));
    }
    if doors::is_json(&head.headers) {
        assert_eq!(head.headers.get_all("content-type").iter().count(), 1);
        let kind = head.headers["content-type"].to_str().expect("text").to_ascii_lowercase();
        assert!(kind.trim_start().starts_with("application/json"));
        assert!(
            head.headers.get_all("content-encoding").iter().all(|it| {
                it.to_str().is_ok_and(|it| it.trim().eq_ignore_ascii_case("identity"))
            })
        );
    }

    let path = head.uri.path();
    let rules = RULES.map(|(path, beneath, open)| PassRule { path: path.into(), beneath, open });
    let passing = doors::Passing::new(rules.to_vec(), "/mcp", "/up/mcp");
    let Some(rule) = passing.of(path) else { return };
    if !rule.beneath {
        return assert_eq!(path, rule.path);
    }
    let mut reading = path.as_bytes().to_vec();
    for _ in 0..6 {
        let place = resolved(&String::from_utf8_lossy(&reading));
        assert!(is_within(&place, &rule.path.to_lowercase()), "{path} is read as {place}");
        assert!(!is_within(&place, "/mcp") || place.len() > 4, "{path} is read as {place}");
        for edges in ["/mcp/tools", "/mcp/call-tool", "/livez", "/readyz", "/sse", "/up/mcp"] {
            assert_ne!(place, edges, "{path}");
        }
        let last = reading.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let slashed = last.is_empty() || last.starts_with(b";");
        for (other, beneath, open) in RULES {
            if other.len() <= rule.path.len() {
                continue;
            }
            let other = other.to_lowercase();
            let theirs = place == other || beneath && is_within(&place, &other);
            let harmless = slashed && !beneath && (open || !rule.open);
            assert!(!theirs || harmless, "{path} is read as {place}");
        }
        reading = decoded(&reading);
    }
});
