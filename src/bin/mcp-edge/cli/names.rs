//! Paths, origins and host names: read once into the form in which requests are compared to them.

use std::net::IpAddr;

use super::ConfigError;

/// First segments that the edge answers itself, whatever the path is.
const OURS: [&str; 4] = ["sse", "messages", "livez", "readyz"];
/// A path that the edge answers itself; beneath and above it are none.
const TOOLS: &str = "tools/list";
/// Segments that OAuth clients probe beneath any path.
const PROBED: [&str; 4] = [".well-known", "register", "authorize", "token"];

/// The unified path, without a slash at its end.
pub(super) fn path(text: &str) -> Result<String, ConfigError> {
    let path = text.strip_suffix('/').unwrap_or(text);
    let wrong = |reason| Err(ConfigError::Path { path: text.to_owned(), reason });
    let Some(inner) = path.strip_prefix('/') else {
        return match text {
            "/" => wrong(
                "is the root, beneath which health checks and OAuth probes live: name a path, as /mcp",
            ),
            _ => wrong("does not start with a slash: write it as /mcp"),
        };
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~@:+,=/".contains(&byte);
    if !inner.bytes().all(allowed) {
        return wrong(
            "has a character that it cannot have: use letters, digits, slashes and -._~@:+,= \
             (no query, fragment, space or percent sign)",
        );
    }
    if inner.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return wrong("has an empty segment, or `.` or `..`, which clients rewrite: leave it out");
    }
    let ours = inner.split('/').next().is_some_and(|first| OURS.contains(&first));
    if ours || inner == TOOLS || inner.split('/').any(|segment| PROBED.contains(&segment)) {
        return wrong(
            "is reserved: no path may begin with /sse, /messages, /livez or /readyz, be /tools/list, \
             or have a segment .well-known, register, authorize or token; the default is /mcp",
        );
    }
    Ok(path.to_owned())
}

/// What pages send that have no origin of their own.
pub(super) const NULL_ORIGIN: &str = "null";

/// Origins as browsers send them: lower case, nothing behind host and port; or `null`.
pub(super) fn origins(texts: &[String]) -> Result<Vec<String>, ConfigError> {
    texts.iter().map(|text| origin(text)).collect()
}

fn origin(text: &str) -> Result<String, ConfigError> {
    let wrong = |reason| Err(ConfigError::Origin { value: text.to_owned(), reason });
    if text == "*" {
        return wrong("would let every web page in");
    }
    if text == NULL_ORIGIN {
        return Ok(text.to_owned());
    }
    let Some((scheme, authority)) = text.split_once("://") else {
        return wrong("has no scheme");
    };
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    if !scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        || !scheme.bytes().all(letters)
    {
        return wrong("has no scheme");
    }
    if authority.contains(['/', '?', '#']) {
        return wrong("has a path");
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let plain = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if port.is_some_and(|port| !plain(port) || port.parse::<u16>().is_err()) {
        return wrong("has a port that is none");
    }
    if !is_host_in_url(host) {
        return wrong("has a host that is none");
    }
    Ok(text.to_ascii_lowercase())
}

fn is_host_in_url(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_name(host),
    }
}

/// Host names and IP addresses, in lower case.
pub(super) fn hosts(option: &'static str, texts: &[String]) -> Result<Vec<String>, ConfigError> {
    let host = |text: &String| {
        let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(text);
        match bare.parse::<IpAddr>() {
            Ok(ip) => Ok(ip.to_string()),
            Err(_) if is_name(text) => Ok(text.to_ascii_lowercase()),
            Err(_) => Err(ConfigError::Name {
                option,
                value: text.clone(),
                example: "mcp.example.com, without scheme, port, path or wildcard",
            }),
        }
    };
    texts.iter().map(host).collect()
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

    #[test]
    fn a_path_is_free_but_for_the_reserved() {
        for good in
            ["/mcp", "/mcp/unified", "/a-b/c.d/~e", "/mcp/sse", "/tokens", "/tools", "/tools/lists"]
        {
            assert_eq!(path(good).unwrap(), good);
            assert_eq!(path(&format!("{good}/")).unwrap(), good);
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
            let text = path(bad).unwrap_err().to_string();
            assert!(text.starts_with(&format!("--path (MCP_SSE_PATH) {bad:?} ")), "{text}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let one = |text: &str| origins(&[text.to_owned()]).map(|mut it| it.remove(0));
        assert_eq!(one("https://App.example.com").unwrap(), "https://app.example.com");
        for good in
            ["http://localhost:6274", "https://[::1]:8443", "https://[::1]", "app://x", "null"]
        {
            assert_eq!(one(good).unwrap(), good);
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
            let text = one(bad).unwrap_err().to_string();
            assert!(
                text.starts_with(&format!("--allow-origin (MCP_ALLOW_ORIGIN) {bad:?} ")),
                "{text}"
            );
            assert!(text.contains("https://app.example.com"), "{text}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address() {
        let one =
            |text: &str| hosts("--name (MCP_NAME)", &[text.to_owned()]).map(|mut it| it.remove(0));
        assert_eq!(one("MCP.example.com").unwrap(), "mcp.example.com");
        assert_eq!(one("[::1]").unwrap(), "::1");
        assert_eq!(one("192.0.2.1").unwrap(), "192.0.2.1");
        assert_eq!(one("my_service").unwrap(), "my_service");
        for bad in ["", "*.example.com", "https://a", "a:1", "a/b", "-a", "a..b", "a."] {
            let text = one(bad).unwrap_err().to_string();
            assert!(text.starts_with(&format!("--name (MCP_NAME) {bad:?} is neither")), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            let _path = path(&text);
            let _origin = origin(&text);
            is_name(&text);
        }
    }
}
