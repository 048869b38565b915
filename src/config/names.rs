//! Paths, origins and host names: read once into the form in which requests are compared to them.

use std::fmt::{self, Display};
use std::net::IpAddr;
use std::ops::Deref;
use std::str::FromStr;

use ipnet::IpNet;

use super::ConfigError;

/// First segments that the edge answers itself, whatever the path is.
const OURS: [&str; 4] = ["sse", "messages", "livez", "readyz"];
/// A path that the edge answers itself; beneath and above it are none.
const TOOLS: &str = "tools/list";
/// Segments that OAuth clients probe beneath any path.
const PROBED: [&str; 4] = [".well-known", "register", "authorize", "token"];

/// The one path that every HTTP transport is served at. No slash stands at its end, and nothing that
/// the edge answers itself is hidden by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnifiedPath(String);

impl Default for UnifiedPath {
    fn default() -> Self {
        Self("/mcp".to_owned())
    }
}

impl Deref for UnifiedPath {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Display for UnifiedPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for UnifiedPath {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        path(text).map_err(|reason| ConfigError::value("path", text, reason))
    }
}

/// An origin that pages may call from (RFC 6454 section 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigin {
    /// That of pages that have none of their own, which send `null`.
    Null,
    /// That of the pages of one server.
    Page(Origin),
}

/// Scheme, host and port of an origin, in lower case (RFC 6454 section 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl Origin {
    /// The scheme's own port is the same as none.
    pub(crate) fn new(scheme: &str, host: &str, port: Option<u16>) -> Self {
        let scheme = scheme.to_ascii_lowercase();
        let port = port.or(match scheme.as_str() {
            "https" => Some(443),
            "http" => Some(80),
            _ => None,
        });
        Self { scheme, host: host.to_ascii_lowercase(), port }
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }
}

impl FromStr for AllowedOrigin {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        origin(text).map_err(|why| {
            let reason = format!(
                "{why}: write scheme, host and port only, as https://app.example.com, or null for pages \
                 that have none"
            );
            ConfigError::value("allow-origin", text, reason)
        })
    }
}

/// A host name or an IP address that requests may be addressed to, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(String);

impl Deref for HostName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HostName {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(text);
        match bare.parse::<IpAddr>() {
            Ok(ip) => Ok(Self(ip.to_string())),
            Err(_) if is_name(text) => Ok(Self(text.to_ascii_lowercase())),
            Err(_) => Err(ConfigError::value(
                "allow-host",
                text,
                "is neither a host name nor an IP address: write it as mcp.example.com, without scheme, \
                 port, path or wildcard",
            )),
        }
    }
}

/// The wildcard that covers this host, if one can: its `*` stands for one label.
pub(crate) fn wildcard_of(host: &str) -> Option<String> {
    let (label, parent) = host.split_once('.')?;
    (!label.is_empty()).then(|| format!("*.{parent}"))
}

/// The unified path, without a slash at its end.
fn path(text: &str) -> Result<UnifiedPath, &'static str> {
    let path = text.strip_suffix('/').unwrap_or(text);
    let Some(inner) = path.strip_prefix('/') else {
        return match text {
            "/" => Err(
                "is the root, beneath which health checks and OAuth probes live: name a path, as /mcp",
            ),
            _ => Err("does not start with a slash: write it as /mcp"),
        };
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~@:+,=/".contains(&byte);
    if !inner.bytes().all(allowed) {
        return Err(
            "has a character that it cannot have: use letters, digits, slashes and -._~@:+,= \
             (no query, fragment, space or percent sign)",
        );
    }
    if inner.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Err("has an empty segment, or `.` or `..`, which clients rewrite: leave it out");
    }
    let ours = inner.split('/').next().is_some_and(|first| OURS.contains(&first));
    if ours || inner == TOOLS || inner.split('/').any(|segment| PROBED.contains(&segment)) {
        return Err(
            "is reserved: no path may begin with /sse, /messages, /livez or /readyz, be /tools/list, \
             or have a segment .well-known, register, authorize or token; the default is /mcp",
        );
    }
    Ok(UnifiedPath(path.to_owned()))
}

fn origin(text: &str) -> Result<AllowedOrigin, &'static str> {
    if text == "*" {
        return Err("would let every web page in");
    }
    if text == "null" {
        return Ok(AllowedOrigin::Null);
    }
    let Some((scheme, authority)) = text.split_once("://") else {
        return Err("has no scheme");
    };
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    if !scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        || !scheme.bytes().all(letters)
    {
        return Err("has no scheme");
    }
    if authority.contains(['/', '?', '#']) {
        return Err("has a path");
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let plain = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    let port = match port.map(str::parse::<u16>) {
        None => None,
        Some(Ok(number)) if port.is_some_and(plain) => Some(number),
        Some(_) => return Err("has a port that is none"),
    };
    if !is_host_in_url(host) {
        return Err("has a host that is none");
    }
    Ok(AllowedOrigin::Page(Origin::new(scheme, host, port)))
}

fn is_host_in_url(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_name(host),
    }
}

/// Networks of proxies that are trusted.
pub(super) fn proxy(text: &str) -> Result<IpNet, ConfigError> {
    let text = text.trim();
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse::<IpNet>().or_else(|_no_network| address()).map_err(|_neither| {
        let why = "is neither a network, as 10.0.0.0/8 or fd00::/8, nor an IP address";
        ConfigError::value("trusted-proxy", text, why)
    })
}

/// A host name; underscores are taken because container networks have them.
fn is_name(text: &str) -> bool {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(letters)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Given;

    #[test]
    fn a_path_is_free_but_for_the_reserved() {
        for good in
            ["/mcp", "/mcp/unified", "/a-b/c.d/~e", "/mcp/sse", "/tokens", "/tools", "/tools/lists"]
        {
            assert_eq!(path(good).unwrap().to_string(), good);
            assert_eq!(path(&format!("{good}/")).unwrap().to_string(), good);
        }
        for bad in [
            "",
            "mcp",
            "/",
            "//",
            "/a//b",
            "/a/../b",
            "/a?b",
            "/a#b",
            "/a b",
            "/a%20b",
            "/é",
            "/sse",
            "/sse/",
            "/messages/x",
            "/livez",
            "/readyz",
            "/tools/list",
            "/tools/list/",
            "/.well-known/mcp",
            "/mcp/token",
            "/mcp//",
        ] {
            let text = bad.parse::<UnifiedPath>().unwrap_err().of("path", Given::Flag).to_string();
            assert!(text.starts_with(&format!("--path (MCP_SSE_PATH) {bad:?} ")), "{text}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let page = |scheme, host, port| AllowedOrigin::Page(Origin::new(scheme, host, port));
        for (text, origin) in [
            ("https://App.example.com", page("https", "app.example.com", None)),
            ("http://localhost:6274", page("http", "localhost", Some(6274))),
            ("https://[::1]:8443", page("https", "[::1]", Some(8443))),
            ("https://[::1]", page("https", "[::1]", Some(443))),
            ("app://x", page("app", "x", None)),
            ("null", AllowedOrigin::Null),
        ] {
            assert_eq!(text.parse::<AllowedOrigin>().unwrap(), origin);
        }
        for bad in [
            "",
            "*",
            "Null",
            "app.example.com",
            "https://",
            "https://a/",
            "https://a/b",
            "https://a:x",
            "https://a:+1",
            "https://a:99999",
            "https://u@a",
            "https://a b",
            "://a",
            "https://[::1",
            "https://a:",
            "https://a?b",
        ] {
            let text = bad.parse::<AllowedOrigin>().unwrap_err();
            let text = text.of("allow-origin", Given::Flag).to_string();
            assert!(
                text.starts_with(&format!("--allow-origin (MCP_ALLOW_ORIGIN) {bad:?} ")),
                "{text}"
            );
            assert!(text.contains("https://app.example.com"), "{text}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address() {
        let one = |text: &str| text.parse::<HostName>().map(|name| name.to_string());
        assert_eq!(one("MCP.example.com").unwrap(), "mcp.example.com");
        assert_eq!(one("[::1]").unwrap(), "::1");
        assert_eq!(one("192.0.2.1").unwrap(), "192.0.2.1");
        assert_eq!(one("my_service").unwrap(), "my_service");
        for bad in ["", "*.example.com", "https://a", "a:1", "a/b", "-a", "a..b", "a."] {
            let text = one(bad).unwrap_err().of("name", Given::Flag).to_string();
            assert!(text.starts_with(&format!("--name (MCP_NAME) {bad:?} is neither")), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            let _path = path(&text);
            let _origin = origin(&text);
            let _name = is_name(&text);
        }
    }
}
