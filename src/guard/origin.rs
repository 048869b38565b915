//! Host and Origin against what is ours: the guard against DNS rebinding and cross-site calls.
//!
//! Only parsed parts are compared, never a prefix or suffix of raw text.

use std::collections::HashSet;
use std::net::IpAddr;

use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};

use crate::config::{AllowedOrigin, Origin, wildcard_of};

/// What a page sends that has no origin of its own: a file, or a frame in a sandbox (RFC 6454
/// section 7).
const NULL: &str = "null";
/// Where the page is that a browser sends a request for (Fetch Metadata, section 2.3).
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Bytes of a host or an origin that are shown of a request.
const SHOWN: usize = 128;

/// The names this edge is addressed by, and the origins that may call it from a browser.
#[derive(Debug)]
pub(crate) struct OriginPolicy {
    hosts: Hosts,
    /// Those that were allowed by name.
    origins: Vec<AllowedOrigin>,
    /// Is the edge bound to a loopback address? Then every loopback name is its own.
    loopback: bool,
    /// The scheme that the edge is reached by.
    scheme: &'static str,
}

/// What the edge is known by, read once.
#[derive(Clone, Debug, Default)]
struct Hosts {
    /// DNS names, lower case; wildcards as `*.example.com`.
    names: HashSet<String>,
    addresses: HashSet<IpAddr>,
}

impl Hosts {
    fn new(hosts: &[String]) -> Self {
        let mut known = Self::default();
        for host in hosts {
            match host.parse() {
                Ok(address) => known.addresses.insert(address),
                Err(_) => known.names.insert(host.to_ascii_lowercase()),
            };
        }
        known
    }
}

/// Where a request says that it is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostMatch {
    /// To us.
    Ours,
    /// To somebody else.
    Foreign,
    /// It does not say, or says it twice.
    Malformed,
}

/// Where a request comes from, as a browser says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(fuzzing), expect(unreachable_pub, reason = "the fuzz targets reach it"))]
pub enum OriginMatch {
    /// No browser, or one that does not say.
    Absent,
    /// From a page of the edge's own origin.
    Own,
    /// From an origin that was allowed by name: it gets CORS headers.
    Allowed,
    /// From anywhere else.
    Foreign,
}

/// Whether a browser says that a page of another site sends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SiteMatch {
    /// No browser, or one that does not say.
    Absent,
    /// A page of the same origin, or its user.
    Own,
    /// A page from anywhere else, a neighbour on the same domain too; or it is not clear.
    Foreign,
}

impl SiteMatch {
    /// Looks at the `Sec-Fetch-Site` of a request, which no page can write itself.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut named = headers.get_all(SITE).iter();
        match (named.next().map(HeaderValue::as_bytes), named.next()) {
            (None, _) => Self::Absent,
            (Some(b"same-origin" | b"none"), None) => Self::Own,
            (Some(_), _) => Self::Foreign,
        }
    }
}

/// The host that a request names, as `--allow-host` takes it; none if that is no host, or long.
pub(super) fn shown_host(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let named = || headers.get(header::HOST)?.to_str().ok()?.parse::<Authority>().ok();
    let authority = uri.authority().cloned().or_else(named)?;
    let host = authority.host();
    let host = host.strip_suffix('.').unwrap_or(host);
    (is_exact(&authority) && host.len() <= SHOWN).then(|| host.to_owned())
}

/// The origin that a request names, as `--allow-origin` takes it; `None` if it is not an origin, or long.
pub(super) fn shown_origin(headers: &HeaderMap) -> Option<&str> {
    let origin = headers.get(header::ORIGIN)?.to_str().ok()?;
    let is_one = origin == NULL || origin_of(origin).is_some();
    (is_one && origin.len() <= SHOWN).then_some(origin)
}

impl OriginPolicy {
    /// `hosts` are the edge's own names; `origins` those allowed beside its own.
    pub(crate) fn new(
        hosts: &[String],
        origins: Vec<AllowedOrigin>,
        loopback: bool,
        scheme: &'static str,
    ) -> Self {
        Self { hosts: Hosts::new(hosts), origins, loopback, scheme }
    }

    /// Looks at the target of a request: `:authority` or absolute form, and `Host`.
    pub(super) fn host(&self, uri: &Uri, headers: &HeaderMap, local: IpAddr) -> HostMatch {
        let mut named = headers.get_all(header::HOST).iter();
        let header = match (named.next(), named.next()) {
            (_, Some(_)) => return HostMatch::Malformed,
            (None, None) => None,
            (Some(value), None) => {
                let parsed = value.to_str().ok().and_then(|text| text.parse::<Authority>().ok());
                match parsed {
                    Some(authority) => Some(authority),
                    None => return HostMatch::Malformed,
                }
            }
        };
        let authority = match (uri.authority(), &header) {
            (None, None) => return HostMatch::Malformed,
            (Some(target), Some(header)) if !same(target.as_str(), header.as_str()) => {
                return HostMatch::Malformed;
            }
            (Some(target), _) => target,
            (None, Some(header)) => header,
        };
        if !is_exact(authority) {
            return HostMatch::Malformed;
        }
        if self.is_ours(authority.host(), local) { HostMatch::Ours } else { HostMatch::Foreign }
    }

    /// Looks at the `Origin` of a request.
    pub(super) fn origin(&self, uri: &Uri, headers: &HeaderMap, local: IpAddr) -> OriginMatch {
        let mut named = headers.get_all(header::ORIGIN).iter();
        let value = match (named.next(), named.next()) {
            (None, _) => return OriginMatch::Absent,
            (Some(value), None) => value,
            (Some(_), Some(_)) => return OriginMatch::Foreign,
        };
        if value == NULL && self.origins.contains(&AllowedOrigin::Null) {
            return OriginMatch::Allowed;
        }
        let Some(origin) = value.to_str().ok().and_then(origin_of) else {
            return OriginMatch::Foreign;
        };
        let is_it =
            |allowed: &AllowedOrigin| matches!(allowed, AllowedOrigin::Page(it) if *it == origin);
        if self.origins.iter().any(is_it) {
            OriginMatch::Allowed
        } else if self.is_own(&origin, uri, headers, local) {
            OriginMatch::Own
        } else {
            OriginMatch::Foreign
        }
    }

    /// Is the page from where the request goes to (RFC 6454 section 5: scheme, host and port)? On
    /// loopback, pages of other local servers, such as the Inspector, may call as well.
    fn is_own(&self, origin: &Origin, uri: &Uri, headers: &HeaderMap, local: IpAddr) -> bool {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let target = uri.authority().map(Authority::as_str).or(host).unwrap_or_default();
        let here = origin_of(&format!("{}://{target}", self.scheme));
        let neighbour = self.loopback && is_loopback(origin.host());
        neighbour || (here.as_ref() == Some(origin) && self.is_ours(origin.host(), local))
    }

    fn is_ours(&self, host: &str, local: IpAddr) -> bool {
        let host = host.to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        if let Some(ip) = address(host) {
            // A page can make a browser look a name up again, but not send another address here.
            return ip == local.to_canonical()
                || (self.loopback && ip.is_loopback())
                || self.hosts.addresses.contains(&ip);
        }
        (self.loopback && host == "localhost")
            || self.hosts.names.contains(host)
            || wildcard_of(host).is_some_and(|wildcard| self.hosts.names.contains(&wildcard))
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || address(host).is_some_and(|ip| ip.is_loopback())
}

/// The address that a host is, if it is one. Brackets are there for IPv6, and for nothing else
/// (RFC 3986 section 3.2.2).
fn address(host: &str) -> Option<IpAddr> {
    let ip = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(bare) => IpAddr::V6(bare.parse().ok()?),
        None => IpAddr::V4(host.parse().ok()?),
    };
    Some(ip.to_canonical())
}

/// Is it a host and perhaps a port (RFC 9110 section 7.2), and nothing that a laxer reader would
/// find another host or port in? RFC 9113 section 8.3.1 has no user in it, nor has RFC 9110
/// section 4.2.4.
fn is_exact(authority: &Authority) -> bool {
    let text = authority.as_str();
    let port = text.strip_prefix(authority.host()).and_then(|rest| match rest.strip_prefix(':') {
        None => rest.is_empty().then_some("0"),
        Some(port) => Some(port),
    });
    let is_port = |port: &str| port.parse::<u16>().is_ok() && !port.starts_with('+');
    !text.contains('@') && port.is_some_and(|port| port.is_empty() || is_port(port))
}

fn same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// `scheme://host[:port]` and nothing behind it; `null` is no origin.
fn origin_of(text: &str) -> Option<Origin> {
    let (scheme, rest) = text.split_once("://")?;
    let authority: Authority = rest.parse().ok()?;
    if scheme.is_empty() || !is_exact(&authority) || authority.as_str() != rest {
        return None;
    }
    Some(Origin::new(scheme, authority.host(), authority.port_u16()))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn public() -> OriginPolicy {
        let hosts = ["mcp.example.com", "*.tools.example", "198.51.100.4"].map(str::to_owned);
        let origins = vec!["https://app.example.org:8443".parse().unwrap()];
        OriginPolicy::new(&hosts, origins, false, "https")
    }

    fn loopback() -> OriginPolicy {
        OriginPolicy::new(&[], Vec::new(), true, "https")
    }

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn host(policy: &OriginPolicy, values: &[&str]) -> HostMatch {
        let mut map = HeaderMap::new();
        for value in values {
            map.append("host", value.parse().unwrap());
        }
        policy.host(&Uri::from_static("/mcp"), &map, LOCAL)
    }

    #[test]
    fn hosts_that_are_ours() {
        for name in [
            "mcp.example.com",
            "MCP.Example.com:8443",
            "mcp.example.com.",
            "a.tools.example",
            "198.51.100.4:443",
            "192.0.2.1",
        ] {
            assert_eq!(host(&public(), &[name]), HostMatch::Ours, "{name}");
        }
        for name in ["localhost:8443", "127.0.0.1:1", "[::1]:8443", "127.9.9.9"] {
            assert_eq!(host(&loopback(), &[name]), HostMatch::Ours, "{name}");
        }
    }

    #[test]
    fn hosts_that_are_not() {
        for name in [
            "evil.example",
            "mcp.example.com.evil.example",
            "xmcp.example.com",
            "tools.example",
            "a.b.tools.example",
            "198.51.100.5",
            "localhost",
            "127.0.0.1",
        ] {
            assert_eq!(host(&public(), &[name]), HostMatch::Foreign, "{name}");
        }
        for name in ["evil.example:8443", "[localhost]", "[127.0.0.1]:8443", "[192.0.2.1]"] {
            assert_eq!(host(&loopback(), &[name]), HostMatch::Foreign, "{name}");
        }
        for bad in [
            &[][..],
            &["a.example", "mcp.example.com"],
            &["user@mcp.example.com"],
            &["a b"],
            &["mcp.example.com:44z"],
            &["mcp.example.com:65536"],
            &["mcp.example.com:+1"],
        ] {
            assert_eq!(host(&public(), bad), HostMatch::Malformed, "{bad:?}");
        }
    }

    #[test]
    fn a_target_that_differs_from_its_host_is_malformed() {
        let target = Uri::from_static("https://mcp.example.com/mcp");
        let policy = public();
        assert_eq!(policy.host(&target, &HeaderMap::new(), LOCAL), HostMatch::Ours);
        let named = Uri::from_static("https://user@mcp.example.com/mcp");
        assert_eq!(policy.host(&named, &HeaderMap::new(), LOCAL), HostMatch::Malformed);
        let other = headers("host", &["evil.example"]);
        assert_eq!(policy.host(&target, &other, LOCAL), HostMatch::Malformed);
    }

    #[test]
    fn origins() {
        let target = Uri::from_static("/mcp");
        let match_of = |policy: &OriginPolicy, value: &str| {
            let mut map = headers("origin", &[value]);
            map.insert("host", "mcp.example.com".parse().unwrap());
            policy.origin(&target, &map, LOCAL)
        };
        assert_eq!(public().origin(&target, &HeaderMap::new(), LOCAL), OriginMatch::Absent);
        assert_eq!(match_of(&public(), "https://mcp.example.com"), OriginMatch::Own);
        assert_eq!(match_of(&public(), "https://mcp.example.com:443"), OriginMatch::Own);
        assert_eq!(match_of(&public(), "https://app.example.org:8443"), OriginMatch::Allowed);
        for foreign in [
            "https://app.example.org",
            "http://app.example.org:8443",
            "https://evil.example",
            "https://mcp.example.com.evil.example",
            "null",
            "https://mcp.example.com:44z",
            "https://mcp.example.com/path",
            "https://user@mcp.example.com",
            "http://mcp.example.com",
            "https://mcp.example.com:8443",
            "https://a.tools.example",
            "http://localhost:3000",
        ] {
            assert_eq!(match_of(&public(), foreign), OriginMatch::Foreign, "{foreign}");
        }
        for own in ["http://127.0.0.1:9", "http://localhost:6274", "https://[::1]:8443"] {
            assert_eq!(match_of(&loopback(), own), OriginMatch::Own, "{own}");
        }
        for foreign in ["http://evil.example", "https://[localhost]", "https://[127.0.0.1]"] {
            assert_eq!(match_of(&loopback(), foreign), OriginMatch::Foreign, "{foreign}");
        }
    }

    #[test]
    fn null_is_listed_by_that_word_only() {
        let list = |origins: &[&str]| {
            let origins = origins.iter().map(|it| it.parse().unwrap()).collect();
            OriginPolicy::new(&["mcp.example.com".to_owned()], origins, false, "https")
        };
        let match_of = |policy: &OriginPolicy, value: &str| {
            policy.origin(&Uri::from_static("/mcp"), &headers("origin", &[value]), LOCAL)
        };
        let named = list(&["https://a.example", "null"]);
        assert_eq!(match_of(&named, "null"), OriginMatch::Allowed);
        assert_eq!(match_of(&named, "https://a.example"), OriginMatch::Allowed);
        for foreign in ["NULL", "null/", "file://", "https://null", ""] {
            assert_eq!(match_of(&named, foreign), OriginMatch::Foreign, "{foreign}");
        }
        for policy in [list(&["https://null"]), loopback()] {
            assert_eq!(match_of(&policy, "null"), OriginMatch::Foreign);
        }
    }

    #[test]
    fn only_the_own_page_and_its_user_are_the_own_site() {
        assert_eq!(SiteMatch::of(&HeaderMap::new()), SiteMatch::Absent);
        for own in ["same-origin", "none"] {
            assert_eq!(SiteMatch::of(&headers("sec-fetch-site", &[own])), SiteMatch::Own);
        }
        for foreign in ["cross-site", "same-site", "None", "same-origin, none", "", "new-word"] {
            let map = headers("sec-fetch-site", &[foreign]);
            assert_eq!(SiteMatch::of(&map), SiteMatch::Foreign, "{foreign}");
        }
        let mut twice = headers("sec-fetch-site", &["none"]);
        twice.append("sec-fetch-site", "none".parse().unwrap());
        assert_eq!(SiteMatch::of(&twice), SiteMatch::Foreign);
    }

    #[test]
    fn what_is_shown_is_a_host_or_an_origin() {
        let host = |value: &str| shown_host(&Uri::from_static("/"), &headers("host", &[value]));
        assert_eq!(host("MCP.example.com.:8443").as_deref(), Some("MCP.example.com"));
        assert_eq!(host("[2001:db8::1]:1").as_deref(), Some("[2001:db8::1]"));
        let target = Uri::from_static("https://a.example/");
        assert_eq!(shown_host(&target, &HeaderMap::new()).as_deref(), Some("a.example"));
        let long = "x".repeat(SHOWN + 1);
        for bad in ["me:secret@a.example", "a b", "a:99999", &long, ""] {
            assert_eq!(host(bad), None, "{bad}");
        }
        let shown = |value: &str| shown_origin(&headers("origin", &[value])).map(str::to_owned);
        for good in ["https://a.example:1", "null", "http://[::1]"] {
            assert_eq!(shown(good).as_deref(), Some(good));
        }
        let long = format!("https://{long}");
        for bad in ["https://me:secret@a.example", "https://a.example/secret", &long, "secret"] {
            assert_eq!(shown(bad), None, "{bad}");
        }
    }

    #[test]
    fn two_origins_are_foreign() {
        let mut map = headers("origin", &["https://mcp.example.com"]);
        map.append("origin", "https://mcp.example.com".parse().unwrap());
        assert_eq!(public().origin(&Uri::from_static("/mcp"), &map, LOCAL), OriginMatch::Foreign);
    }

    #[test]
    fn a_target_may_name_its_host_once_more_in_any_case() {
        let target = Uri::from_static("https://mcp.example.com:8443/mcp");
        let again = headers("host", &["MCP.example.com:8443"]);
        assert_eq!(public().host(&target, &again, LOCAL), HostMatch::Ours);
    }

    #[test]
    fn the_port_of_a_scheme_may_be_left_out() {
        let plain = OriginPolicy::new(&["mcp.example.com".to_owned()], Vec::new(), false, "http");
        for (host, origin) in [
            ("mcp.example.com", "http://mcp.example.com:80"),
            ("mcp.example.com:80", "http://mcp.example.com"),
        ] {
            let mut map = headers("origin", &[origin]);
            map.insert("host", host.parse().unwrap());
            let found = plain.origin(&Uri::from_static("/mcp"), &map, LOCAL);
            assert_eq!(found, OriginMatch::Own, "{host} {origin}");
        }
        assert_eq!(shown_origin(&headers("origin", &["://mcp.example.com"])), None);
    }
}
