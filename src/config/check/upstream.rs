//! The upstream as asked for: its URL, its token, and the paths that are passed through.

use std::path::Path;

use http::uri::Authority;
use http::{HeaderName, HeaderValue, Uri};

use super::access::{read_token_file, shown};
use crate::config::draft::Draft;
use crate::config::options::{
    FORWARD_HEADER, PASS, PASS_OPEN, UPSTREAM, UPSTREAM_CA, UPSTREAM_HOST, UPSTREAM_KIND,
    UPSTREAM_TOKEN_FILE,
};
use crate::config::{
    ConfigError, PassRule, Reason, Secret, TokenFault, Upstream, UpstreamHost, UpstreamLimits,
    may_go_up,
};

/// The upstream, if one is asked for. Options that need one and have none are refused.
pub(super) fn asked(
    draft: &Draft,
    warnings: &mut Vec<String>,
) -> Result<Option<Upstream>, ConfigError> {
    let Some(text) = draft.option(&UPSTREAM)? else { return without(draft) };
    let url = draft.made(&UPSTREAM, &text, url)?;
    let ca = draft.option(&UPSTREAM_CA)?;
    if ca.is_some() && url.scheme_str() == Some("http") {
        let reason = Reason::Contradiction("an --upstream (MCP_UPSTREAM) with http");
        return Err(draft.error(UPSTREAM_CA.setting.name, None, reason));
    }
    let kind = draft.value(&UPSTREAM_KIND)?;
    let host = match draft.option(&UPSTREAM_HOST)? {
        Some(text) => draft.made(&UPSTREAM_HOST, &text, host_of)?,
        None => UpstreamHost::Own,
    };
    let token = draft.option(&UPSTREAM_TOKEN_FILE)?;
    let token = token.map(|file| token_of(draft, &file, warnings)).transpose()?;
    let forward_headers = draft.made_list(&FORWARD_HEADER, header)?;
    let mut pass = draft.made_list(&PASS, |text| rule(text, false))?;
    pass.extend(draft.made_list(&PASS_OPEN, |text| rule(text, true))?);
    let limits = UpstreamLimits::of(draft)?;
    let plain = Upstream::new(url);
    Ok(Some(Upstream { kind, host, ca, token, forward_headers, pass, limits, ..plain }))
}

fn without(draft: &Draft) -> Result<Option<Upstream>, ConfigError> {
    let need_one = [
        UPSTREAM_HOST.setting.name,
        UPSTREAM_CA.setting.name,
        UPSTREAM_TOKEN_FILE.setting.name,
        FORWARD_HEADER.setting.name,
        PASS.setting.name,
        PASS_OPEN.setting.name,
    ];
    match need_one.into_iter().find(|name| draft.texts(name).next().is_some()) {
        Some(name) => Err(draft.error(name, None, Reason::NeedsUpstream)),
        None => Ok(None),
    }
}

fn url(text: &str) -> Result<Uri, ConfigError> {
    let wrong = |why| ConfigError::value(UPSTREAM.setting.name, hidden(text), why);
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

fn host_of(text: &str) -> Result<UpstreamHost, ConfigError> {
    let wrong = |why| ConfigError::value(UPSTREAM_HOST.setting.name, text, why);
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

fn token_of(draft: &Draft, file: &Path, warnings: &mut Vec<String>) -> Result<Secret, ConfigError> {
    let wrong =
        |fault| draft.error(UPSTREAM_TOKEN_FILE.setting.name, shown(file), Reason::Token(fault));
    let bytes = read_token_file(file, warnings);
    let bytes = bytes.map_err(|source| wrong(TokenFault::UpstreamFileUnread(source)))?;
    let text = String::from_utf8(bytes).unwrap_or_default();
    let token = text.trim_start_matches('\u{feff}').trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong(TokenFault::UpstreamFile));
    }
    Ok(Secret::new(token))
}

fn header(text: &str) -> Result<HeaderName, ConfigError> {
    let wrong = |shown: &str, why| ConfigError::value(FORWARD_HEADER.setting.name, shown, why);
    let name = HeaderName::try_from(text.trim()).map_err(|_invalid| {
        // The value in `Name: value` may be a secret.
        let named = text.split_once(':').filter(|(name, _)| HeaderName::try_from(*name).is_ok());
        let shown = named.map_or_else(|| "…".to_owned(), |(name, _)| format!("{name}: …"));
        wrong(&shown, "is no header name: write it as X-User-Role, without a value")
    })?;
    if !may_go_up(&name) {
        return Err(wrong(
            text,
            "can never go up: it is a credential for the edge, or something that the edge says \
             itself; a token for the upstream is given by --upstream-token-file",
        ));
    }
    Ok(name)
}

fn rule(text: &str, open: bool) -> Result<PassRule, ConfigError> {
    let wrong = |why| Err(ConfigError::value(PASS.setting.name, text, why));
    let (path, beneath) = match text.strip_suffix("/*") {
        Some(path) => (path, true),
        None => (text, false),
    };
    let all = beneath && path.is_empty();
    if !all && !path.starts_with('/') {
        return wrong("does not start with a slash: write it as /health or /files/*");
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~@:+,=/!$&'();".contains(&byte);
    if !path.bytes().all(allowed) {
        return wrong(
            "has a character that it cannot have: give the path alone, no query, star or percent sign \
             but a /* at its end",
        );
    }
    if path.split('/').skip(1).any(|segment| matches!(segment, "." | "..")) || path.contains("//") {
        return wrong("has an empty segment, or `.` or `..`, which clients rewrite: leave it out");
    }
    if matches!(path, "/livez" | "/readyz") {
        return wrong("is answered by the edge itself: give the upstream's page another path");
    }
    Ok(PassRule { path: path.to_owned(), beneath, open })
}

/// Refuses a rule that names where HTTP+SSE clients of the unified path post their messages: they
/// would reach the upstream, which knows nothing of their sessions.
pub(super) fn check_messages(
    draft: &Draft,
    rules: &[PassRule],
    unified: &str,
) -> Result<(), ConfigError> {
    let messages = |rule: &&PassRule| rule.path.strip_prefix(unified) == Some("/messages");
    let Some(rule) = rules.iter().find(messages) else { return Ok(()) };
    let name = if rule.open { PASS_OPEN.setting.name } else { PASS.setting.name };
    let why = "is where SSE clients of --path (MCP_SSE_PATH) post their messages: give the upstream's \
               page another path";
    draft.placed(Err(ConfigError::value(name, rule.path.as_str(), why)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Given, proxy};

    /// As on the command line.
    fn url(text: &str) -> Result<Uri, ConfigError> {
        super::url(text).map_err(|error| error.of("upstream", Given::Flag))
    }

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
        let named = |text: &str| match host_of(text) {
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
        let one = |text: &str| rule(text, true);
        let open = |path: &str, beneath| PassRule { path: path.to_owned(), beneath, open: true };
        assert_eq!(one("/").unwrap(), open("/", false));
        assert_eq!(one("/health").unwrap(), open("/health", false));
        assert_eq!(one("/files/*").unwrap(), open("/files", true));
        assert_eq!(one("/*").unwrap(), open("", true));
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
    fn a_value_behind_a_header_name_is_not_in_the_error_about_it() {
        for (given, shown) in [
            ("X-Key: hunter2", "\"X-Key: …\" is no header name"),
            ("X-Key:hunter2", "\"X-Key: …\" is no header name"),
            ("X Key: hunter2", "\"…\" is no header name"),
            ("hunter2 hunter2", "\"…\" is no header name"),
        ] {
            let error = header(given).unwrap_err();
            assert!(error.to_string().contains(shown), "{error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn a_proxy_is_a_network_or_an_address() {
        let one = |text: &str| proxy(text).map(|network| network.to_string());
        assert_eq!(one("10.0.0.0/8").unwrap(), "10.0.0.0/8");
        assert_eq!(one("::1").unwrap(), "::1/128");
        assert!(one("10.0.0.0/33").is_err() && one("all").is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            let _url = url(&text);
            let _pass = rule(&text, false);
            let _header = header(&text);
        }
    }
}
