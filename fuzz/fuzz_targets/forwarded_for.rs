//! Invariant: no fields panic; the client is the first from the right that is no trusted proxy's,
//! as an independent reader finds it; what a client writes on the left is never believed.
#![no_main]

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use libfuzzer_sys::fuzz_target;
use mcp_edge::fuzzing::forwarded_for;

fn address(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim_matches([' ', '\t']);
    if let Some(inner) = entry.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
        return inner.parse().ok().filter(IpAddr::is_ipv6).map(|ip: IpAddr| ip.to_canonical());
    }
    let ip = entry.parse().ok().or(entry.parse::<SocketAddr>().ok().map(|it| it.ip()))?;
    Some(ip.to_canonical())
}

fuzz_target!(|data: &[u8]| {
    let nets: Vec<IpNet> =
        ["10.0.0.0/8", "2001:db8::/32"].iter().map(|net| net.parse().expect("a net")).collect();
    let is_proxy = |ip: &IpAddr| nets.iter().any(|net| net.contains(ip));
    let mut headers = HeaderMap::new();
    let mut entries = Vec::new();
    for line in data.split(|byte| *byte == b'\n').take(80) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            let texts = line.split(|byte| *byte == b',');
            entries.extend(texts.map(|text| std::str::from_utf8(text).ok().and_then(address)));
            headers.append("x-forwarded-for", value);
        }
    }
    let mut expected = Ok(None);
    for entry in entries.iter().rev().take(64) {
        expected = entry.map(Some).ok_or(());
        if !entry.is_some_and(|ip| is_proxy(&ip)) {
            break;
        }
    }
    let found = forwarded_for(&nets, &headers);
    assert_eq!(found, expected);
    if let Ok(Some(client)) = found
        && !is_proxy(&client)
    {
        // Whatever stands left of it changes nothing.
        let mut more = HeaderMap::new();
        more.append("x-forwarded-for", HeaderValue::from_static("6.6.6.6, rubbish"));
        for value in headers.get_all("x-forwarded-for") {
            more.append("x-forwarded-for", value.clone());
        }
        assert_eq!(forwarded_for(&nets, &more), Ok(Some(client)));
    }
});
