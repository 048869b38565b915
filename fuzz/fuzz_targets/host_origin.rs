//! Invariant: a request is never for us, and a page never of us or allowed, unless its host, taken
//! apart by an independent reader, is one that is listed.
#![no_main]

use std::net::IpAddr;

use http::Uri;
use libfuzzer_sys::fuzz_target;
use mcp_edge::AllowedOrigin;
use mcp_edge::fuzzing::guard::{Names, Origin};
use mcp_edge_fuzz::headers;

const LOCAL: [u8; 4] = [192, 0, 2, 1];

/// Host and port, if that is all there is.
fn apart(authority: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = if authority.starts_with('[') {
        let end = authority.find(']')?;
        (&authority[..=end], &authority[end + 1..])
    } else {
        authority.split_at(authority.find(':').unwrap_or(authority.len()))
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        None => return None,
        Some("") => None,
        Some(digits) => Some(digits.parse().ok()?),
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%[]:".contains(&byte);
    (!host.is_empty() && host.bytes().all(allowed)).then(|| (host.to_ascii_lowercase(), port))
}

fn is_listed(host: &str, loopback: bool) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    // Only an IPv6 address stands in brackets, and it never stands without.
    let ip = match host.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
        Some(bare) => bare.parse().map(IpAddr::V6),
        None => host.parse().map(IpAddr::V4),
    };
    if let Ok(ip) = ip {
        let ip = ip.to_canonical();
        return ip == IpAddr::from(LOCAL)
            || ip == IpAddr::from([198, 51, 100, 4])
            || loopback && ip.is_loopback();
    }
    let wild = host.split_once('.');
    host == "mcp.example.com"
        || wild.is_some_and(|(label, rest)| !label.is_empty() && rest == "tools.example")
        || loopback && host == "localhost"
}

fuzz_target!(|data: &[u8]| {
    let (target, fields) = match data.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &b""[..]),
    };
    let Ok(uri) = Uri::try_from(target) else { return };
    let map = headers(fields);
    let hosts = ["MCP.example.com", "*.tools.example", "198.51.100.4"].map(str::to_owned);
    let allowed: AllowedOrigin = "https://app.example.org:8443".parse().unwrap();
    for loopback in [false, true] {
        for https in [false, true] {
            let names = Names::new(&hosts, vec![allowed.clone()], loopback, https);
            let named: Vec<&str> =
                map.get_all("host").iter().filter_map(|it| it.to_str().ok()).collect();
            if names.is_ours(&uri, &map, LOCAL.into()) {
                assert!(map.get_all("host").iter().count() <= 1);
                let of_uri = uri.authority().map(|it| it.as_str());
                let all: Vec<&str> = of_uri.into_iter().chain(named.iter().copied()).collect();
                assert!(!all.is_empty());
                for text in all {
                    // What stands before an `@` in a target is no part of its host.
                    let text = text.rsplit('@').next().unwrap_or_default();
                    let (host, _) = apart(text).unwrap_or_else(|| panic!("{text:?} is ours"));
                    assert!(is_listed(&host, loopback), "{text:?} is ours");
                }
            }
            let origins: Vec<&str> =
                map.get_all("origin").iter().filter_map(|it| it.to_str().ok()).collect();
            let verdict = names.origin(&uri, &map, LOCAL.into());
            match (verdict, origins.as_slice()) {
                (Origin::Foreign, _) => {}
                (Origin::Absent, given) => {
                    assert!(given.is_empty() && !map.contains_key("origin"));
                }
                (Origin::Allowed | Origin::Own, [only]) => {
                    let (scheme, rest) = only.split_once("://").expect("a scheme");
                    let (host, port) = apart(rest).unwrap_or_else(|| panic!("{only:?} passes"));
                    let scheme = scheme.to_ascii_lowercase();
                    if verdict == Origin::Allowed {
                        assert_eq!(
                            (scheme.as_str(), host.as_str(), port),
                            ("https", "app.example.org", Some(8443))
                        );
                    } else if !loopback {
                        assert!(is_listed(&host, false), "{only:?} is our own");
                        assert_eq!(scheme, if https { "https" } else { "http" });
                    } else {
                        assert!(is_listed(&host, true), "{only:?} is our own");
                    }
                }
                (verdict, given) => panic!("{verdict:?} with {given:?}"),
            }
        }
    }
});
