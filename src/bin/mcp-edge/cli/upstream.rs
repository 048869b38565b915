//! The upstream as asked for: its URL, its token, and the paths that are passed through.

use std::path::Path;

use http::uri::Authority;
use http::{HeaderName, HeaderValue, Uri};
use ipnet::IpNet;
use mcp_edge::{PassRule, Secret, Upstream, UpstreamHost};

use super::access::read;
use super::args::{self, UpstreamKind};
use super::settings::Warnings;
use super::{ConfigError, ranges};

const UPSTREAM: &str = "--upstream (MCP_UPSTREAM)";
const PASS: &str = "--pass (MCP_PASS)";
const PASS_OPEN: &str = "--pass-open (MCP_PASS_OPEN)";

/// The upstream, if one is asked for. Options that need one and have none are refused.
pub(super) fn upstream(
    asked: &args::Upstream,
    warnings: &mut Warnings,
) -> Result<Option<Upstream>, ConfigError> {
    let Some(text) = &asked.upstream else { return without(asked) };
    let url = url(text)?;
    if asked.upstream_ca.is_some() && url.scheme_str() == Some("http") {
        return Err(ConfigError::Contradiction {
            one: "--upstream-ca (MCP_UPSTREAM_CA)",
            other: "an --upstream (MCP_UPSTREAM) with http",
        });
    }
    let closed = pass(PASS, &asked.pass, false);
    let open = pass(PASS_OPEN, &asked.pass_open, true);
    Ok(Some(Upstream {
        kind: match asked.upstream_kind {
            UpstreamKind::Auto => mcp_edge::UpstreamKind::Auto,
            UpstreamKind::Sse => mcp_edge::UpstreamKind::Sse,
            UpstreamKind::Streamable => mcp_edge::UpstreamKind::Streamable,
        },
        host: asked.upstream_host.as_deref().map_or(Ok(UpstreamHost::Own), host)?,
        ca: asked.upstream_ca.clone(),
        token: asked.upstream_token_file.as_deref().map(|it| token(it, warnings)).transpose()?,
        forward_headers: asked
            .forward_header
            .iter()
            .map(|it| header(it))
            .collect::<Result<_, _>>()?,
        pass: closed.chain(open).collect::<Result<_, _>>()?,
        connections: ranges::upstream_connections(asked.upstream_connections)?,
        connect: ranges::time(
            "upstream-connect-timeout",
            *asked.upstream_connect_timeout,
            ranges::MOMENT,
        )?,
        head: ranges::time("upstream-head-timeout", *asked.upstream_head_timeout, ranges::MOMENT)?,
        wait: ranges::time("upstream-wait", *asked.upstream_wait, std::time::Duration::ZERO)?,
        ..Upstream::new(url)
    }))
}

fn without(asked: &args::Upstream) -> Result<Option<Upstream>, ConfigError> {
    let given = [
        ("--upstream-host (MCP_UPSTREAM_HOST)", asked.upstream_host.is_some()),
        ("--upstream-ca (MCP_UPSTREAM_CA)", asked.upstream_ca.is_some()),
        ("--upstream-token-file (MCP_UPSTREAM_TOKEN_FILE)", asked.upstream_token_file.is_some()),
        ("--forward-header (MCP_FORWARD_HEADER)", !asked.forward_header.is_empty()),
        (PASS, !asked.pass.is_empty()),
        (PASS_OPEN, !asked.pass_open.is_empty()),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        Some((option, _)) => Err(ConfigError::NeedsUpstream { option }),
        None => Ok(None),
    }
}

fn url(text: &str) -> Result<Uri, ConfigError> {
    let wrong = |reason| ConfigError::Setting { option: UPSTREAM, value: hidden(text), reason };
    let url: Uri = text.parse().map_err(|_invalid| {
        wrong("is no URL: write it as http://127.0.0.1:8000/mcp, without spaces")
    })?;
    if !matches!(url.scheme_str(), Some("http" | "https")) {
        return Err(wrong("has no scheme http or https: write it as http://127.0.0.1:8000/mcp"));
    }
    let Some(authority) = url.authority() else {
        return Err(wrong("names no host: write it as http://127.0.0.1:8000/mcp"));
    };
    if authority.as_str().contains('@') {
        return Err(wrong(
            "holds a user or password: leave it out, and give a token by --upstream-token-file \
             (MCP_UPSTREAM_TOKEN_FILE)",
        ));
    }
    if authority.as_str() != authority.host() && authority.port().is_none() {
        return Err(wrong("has a port that is no number from 0 to 65535"));
    }
    if text.contains('#') {
        return Err(wrong("has a fragment (#…), which is never sent: leave it out"));
    }
    Ok(url)
}

fn host(text: &str) -> Result<UpstreamHost, ConfigError> {
    let wrong = |reason| ConfigError::Setting {
        option: "--upstream-host (MCP_UPSTREAM_HOST)",
        value: text.to_owned(),
        reason,
    };
    let text = text.trim();
    if text.eq_ignore_ascii_case("client") {
        return Ok(UpstreamHost::Client);
    }
    let no_name = "is no host: write it as mcp.example.com or localhost:8000, or the word client";
    let authority: Authority = text.parse().map_err(|_invalid| wrong(no_name))?;
    let port = authority.as_str() == authority.host() || authority.port_u16().is_some();
    if !port || authority.host().is_empty() || text.contains('@') {
        return Err(wrong(no_name));
    }
    HeaderValue::try_from(text).map(UpstreamHost::Named).map_err(|_invalid| wrong(no_name))
}

/// A password or key in a URL must not be in the error about it.
fn hidden(text: &str) -> String {
    match (text.find('?'), text.rfind('@')) {
        // Of a password with a question mark, or a key with an at sign: nobody can say.
        (Some(query), Some(host)) if query < host => "…".to_owned(),
        (query, host) => {
            let place = text.get(..query.unwrap_or(text.len())).unwrap_or_default();
            let start = host.map_or("", |_| "…");
            let shown = place.get(host.unwrap_or(0)..).unwrap_or_default();
            format!("{start}{shown}{}", query.map_or("", |_| "?…"))
        }
    }
}

fn token(file: &Path, warnings: &mut Warnings) -> Result<Secret, ConfigError> {
    let bytes = read(file, warnings)
        .map_err(|source| ConfigError::UpstreamTokenUnread { file: file.to_owned(), source })?;
    let text = String::from_utf8(bytes).unwrap_or_default();
    let token = text.trim_start_matches('\u{feff}').trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ConfigError::UpstreamToken { file: file.to_owned() });
    }
    Ok(Secret::new(token))
}

fn header(text: &str) -> Result<HeaderName, ConfigError> {
    let wrong = |reason| ConfigError::Setting {
        option: "--forward-header (MCP_FORWARD_HEADER)",
        value: text.to_owned(),
        reason,
    };
    let name = HeaderName::try_from(text.trim())
        .map_err(|_invalid| wrong("is no header name: write it as X-User-Role, without a value"))?;
    if !mcp_edge::may_go_up(&name) {
        return Err(wrong(
            "can never go up: it is a credential for the edge, or something that the edge says \
             itself; a token for the upstream is given by --upstream-token-file",
        ));
    }
    Ok(name)
}

fn pass<'a>(
    option: &'static str,
    texts: &'a [String],
    open: bool,
) -> impl Iterator<Item = Result<PassRule, ConfigError>> + 'a {
    texts.iter().map(move |text| {
        let wrong = |reason| Err(ConfigError::Setting { option, value: text.clone(), reason });
        let (path, beneath) = match text.strip_suffix("/*") {
            Some(path) => (path, true),
            None => (text.as_str(), false),
        };
        let all = beneath && path.is_empty();
        if !all && !path.starts_with('/') {
            return wrong("does not start with a slash: write it as /health or /files/*");
        }
        let allowed =
            |byte: u8| byte.is_ascii_alphanumeric() || b"-._~@:+,=/!$&'();".contains(&byte);
        if !path.bytes().all(allowed) {
            return wrong(
                "has a character that it cannot have: give the path alone, no query, star or \
                 percent sign but a /* at its end",
            );
        }
        if path.split('/').skip(1).any(|segment| matches!(segment, "." | ".."))
            || path.contains("//")
        {
            return wrong(
                "has an empty segment, or `.` or `..`, which clients rewrite: leave it out",
            );
        }
        if matches!(path, "/livez" | "/readyz") {
            return wrong("is answered by the edge itself: give the upstream's page another path");
        }
        Ok(PassRule { path: path.to_owned(), beneath, open })
    })
}

/// Refuses a rule that names where HTTP+SSE clients of the unified path post their messages: they
/// would reach the upstream, which knows nothing of their sessions.
pub(super) fn check_messages(rules: &[PassRule], unified: &str) -> Result<(), ConfigError> {
    let messages = |rule: &&PassRule| rule.path.strip_prefix(unified) == Some("/messages");
    let Some(rule) = rules.iter().find(messages) else { return Ok(()) };
    Err(ConfigError::Setting {
        option: if rule.open { PASS_OPEN } else { PASS },
        value: rule.path.clone(),
        reason: "is where SSE clients of --path (MCP_SSE_PATH) post their messages: give the \
                 upstream's page another path",
    })
}

/// Networks of proxies that are trusted.
pub(super) fn proxies(texts: &[String]) -> Result<Vec<IpNet>, ConfigError> {
    let network = |text: &String| {
        let text = text.trim();
        let address = || text.parse::<std::net::IpAddr>().map(IpNet::from);
        text.parse::<IpNet>().or_else(|_no_network| address()).map_err(|_neither| {
            ConfigError::Setting {
                option: "--trusted-proxy (MCP_TRUSTED_PROXY)",
                value: text.to_owned(),
                reason: "is neither a network, as 10.0.0.0/8 or fd00::/8, nor an IP address",
            }
        })
    };
    texts.iter().map(network).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_url_is_scheme_host_and_path() {
        for good in ["http://127.0.0.1:8000/sse", "https://mcp.example.com/mcp/unified?x=1"] {
            assert_eq!(url(good).unwrap().to_string(), good);
        }
        for bad in
            ["", "127.0.0.1:8000", "/sse", "ftp://a/b", "http:///sse", "http://a b", "http://a/#x"]
        {
            let text = url(bad).unwrap_err().to_string();
            assert!(text.starts_with("--upstream (MCP_UPSTREAM) "), "{text}");
        }
        for secret in [
            "http://me:secret@127.0.0.1/",
            "http://me:se?secret@127.0.0.1/",
            "ftp://127.0.0.1/mcp?key=secret",
            "ftp://127.0.0.1/mcp?key=s@secret",
            "127.0.0.1/ mcp?key=secret",
        ] {
            let text = url(secret).unwrap_err().to_string();
            assert!(!text.contains("secret"), "{text}");
        }
        let text = url("ftp://127.0.0.1/mcp?key=1").unwrap_err().to_string();
        assert!(text.contains("\"ftp://127.0.0.1/mcp?…\""), "{text}");
    }

    #[test]
    fn a_host_is_a_name_or_the_clients() {
        let named = |text: &str| match host(text) {
            Ok(UpstreamHost::Named(name)) => Some(name.to_str().unwrap().to_owned()),
            Ok(UpstreamHost::Client) => Some("the client's".to_owned()),
            Ok(UpstreamHost::Own) | Err(_) => None,
        };
        for good in ["mcp.example.com", "localhost:8000", "[::1]:8000", "client:80"] {
            assert_eq!(named(good).as_deref(), Some(good));
        }
        assert_eq!(named(" Client ").as_deref(), Some("the client's"));
        for bad in ["", " ", "http://a.example", "a.example/b", "me@a.example", "a b", "a:b", ":80"]
        {
            assert_eq!(named(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_pass_is_a_path_or_all_beneath_it() {
        let one = |text: &str| pass("--pass (MCP_PASS)", &[text.to_owned()], true).next().unwrap();
        let rule = |path: &str, beneath| PassRule { path: path.to_owned(), beneath, open: true };
        assert_eq!(one("/").unwrap(), rule("/", false));
        assert_eq!(one("/health").unwrap(), rule("/health", false));
        assert_eq!(one("/files/*").unwrap(), rule("/files", true));
        assert_eq!(one("/*").unwrap(), rule("", true));
        for bad in
            ["", "health", "/a/../b", "/a//b", "/a?b", "/%2e", "/a*", "/livez", "/readyz", "*"]
        {
            assert!(one(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_credential_is_forwarded() {
        assert_eq!(header("X-User-Role").unwrap(), "x-user-role");
        for bad in ["Authorization", "cookie", "X-Forwarded-For", "a b", ""] {
            assert!(header(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_proxy_is_a_network_or_an_address() {
        let one = |text: &str| proxies(&[text.to_owned()]).map(|mut it| it.remove(0).to_string());
        assert_eq!(one("10.0.0.0/8").unwrap(), "10.0.0.0/8");
        assert_eq!(one("::1").unwrap(), "::1/128");
        assert!(one("10.0.0.0/33").is_err() && one("all").is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            let _url = url(&text);
            pass("", std::slice::from_ref(&text), false).next();
            let _header = header(&text);
        }
    }
}
