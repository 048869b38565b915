//! The head of a request, parsed once: where it goes, how, and what it takes for an answer.

use http::{HeaderMap, HeaderName, header, request};

use crate::mcp::{Accept, MESSAGES_PATH};

/// The path of HTTP+SSE clients, beside the unified path.
pub(crate) const SSE_PATH: &str = "/sse";
/// Says that the process lives; open to everybody, and empty.
pub(crate) const LIVEZ_PATH: &str = "/livez";
/// Says that what stands behind answers; open to everybody, and empty.
pub(crate) const READYZ_PATH: &str = "/readyz";
/// Where platforms look for health unasked: the same as [`LIVEZ_PATH`], unless a rule of the
/// operator's passes them on.
const HEALTH_PATHS: [&str; 2] = ["/health", "/healthz"];
/// The whole list of tools for scripts, beside the one beneath the unified path.
pub(crate) const TOOLS_PATH: &str = "/tools/list";

static SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
static VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
static LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// The unified path.
    Mcp,
    /// The stream of HTTP+SSE.
    Sse,
    /// The messages of HTTP+SSE.
    Messages,
    /// The health of the process.
    Livez,
    /// The health of what stands behind.
    Readyz,
    /// The whole list of tools, for scripts.
    Tools,
    /// One tool call, for scripts.
    CallTool,
    /// Somebody looks for an authorization server. There is none.
    OAuthProbe,
    /// Nowhere.
    Unknown,
}

impl Route {
    /// The route of a path. A trailing slash makes no difference, and never a redirect: clients
    /// lose their token on the way.
    pub(super) fn of(path: &str, unified: &str) -> Self {
        let path = match path.strip_suffix('/') {
            Some(shorter) if !shorter.is_empty() => shorter,
            Some(_) | None => path,
        };
        let unified = unified.strip_suffix('/').unwrap_or(unified);
        match path.strip_prefix(unified) {
            Some("") => return Self::Mcp,
            Some("/tools") => return Self::Tools,
            Some("/call-tool") => return Self::CallTool,
            Some(MESSAGES_PATH) => return Self::Messages,
            Some(_) | None => {}
        }
        match path {
            SSE_PATH => Self::Sse,
            MESSAGES_PATH => Self::Messages,
            LIVEZ_PATH => Self::Livez,
            READYZ_PATH => Self::Readyz,
            TOOLS_PATH => Self::Tools,
            _ if is_oauth_probe(path, unified) => Self::OAuthProbe,
            _ => Self::Unknown,
        }
    }

    /// Do its clients speak no JSON-RPC?
    pub(super) fn is_plain(self) -> bool {
        matches!(self, Self::Tools | Self::CallTool | Self::Livez | Self::Readyz)
    }

    /// The methods that a route answers, as `Allow` names them.
    pub(super) fn allow(self) -> &'static str {
        match self {
            Self::Mcp => "POST, GET, DELETE, OPTIONS",
            Self::Sse => "GET, OPTIONS",
            Self::Messages | Self::CallTool => "POST, OPTIONS",
            Self::Livez | Self::Readyz => "GET, HEAD",
            Self::Tools => "GET, HEAD, OPTIONS",
            Self::OAuthProbe | Self::Unknown => "",
        }
    }
}

/// The positions at which clients look for OAuth, whatever the server says: metadata at the root,
/// with the path behind it, and below the path; the endpoints at the root and below the path.
fn is_oauth_probe(path: &str, unified: &str) -> bool {
    let mut segments = path.split('/').skip_while(|segment| *segment != ".well-known").skip(1);
    if let Some(document) = segments.next() {
        return document.starts_with("oauth-") || document.starts_with("openid-configuration");
    }
    let below = [unified, SSE_PATH].iter().find_map(|prefix| path.strip_prefix(prefix));
    let suffixed = [unified, SSE_PATH].iter().find_map(|suffix| path.strip_suffix(suffix));
    let endpoint = |path: &str| matches!(path, "/register" | "/authorize" | "/token");
    endpoint(path) || below.is_some_and(endpoint) || suffixed.is_some_and(endpoint)
}

/// The bytes of a head as HTTP/1.1 would write it. hyper's own limit is one of its read buffer,
/// which a head that comes at once may pass.
pub(super) fn size(head: &request::Parts) -> usize {
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let field = |(name, value): (&HeaderName, &header::HeaderValue)| {
        name.as_str().len() + value.len() + ": \r\n".len()
    };
    target + head.headers.iter().map(field).sum::<usize>()
}

/// The fields of a request that the transports look at.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    pub(super) accept: Accept,
    pub(super) session: Option<&'a str>,
    pub(super) version: Option<&'a str>,
    pub(super) last_event: Option<&'a str>,
}

/// What is wrong with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadHead {
    /// A body that is not `application/json`, is not in UTF-8, or is encoded.
    MediaType,
    /// A field that must be visible ASCII and come once.
    Field(&'static str),
}

impl<'a> Fields<'a> {
    /// Reads them.
    pub(super) fn of(headers: &'a HeaderMap) -> Result<Self, BadHead> {
        Ok(Self {
            accept: accept(headers),
            session: single(headers, &SESSION)?,
            // Nothing in them is as good as not there; an empty session id is an unknown one.
            version: single(headers, &VERSION)?.filter(|text| !text.is_empty()),
            last_event: single(headers, &LAST_EVENT)?.filter(|text| !text.is_empty()),
        })
    }
}

fn single<'a>(
    headers: &'a HeaderMap,
    name: &'static HeaderName,
) -> Result<Option<&'a str>, BadHead> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match value.to_str().map(str::trim) {
            Ok(value) => Ok(Some(value)),
            Err(_not_ascii) => Err(BadHead::Field(name.as_str())),
        },
        (Some(_), Some(_)) => Err(BadHead::Field(name.as_str())),
    }
}

/// What `Accept` allows. Nothing said, nothing excluded but event streams: a bare client that does
/// not ask for events cannot read them.
fn accept(headers: &HeaderMap) -> Accept {
    let mut accept = Accept { json: false, events: false };
    let mut said = false;
    for value in headers.get_all(header::ACCEPT) {
        for range in value.to_str().unwrap_or_default().split(',') {
            said |= !range.trim().is_empty();
            let mut parts = range.split(';').map(str::trim);
            let essence = parts.next().unwrap_or_default();
            let is = |names: &[&str]| names.iter().any(|name| essence.eq_ignore_ascii_case(name));
            let refused = parts.any(|parameter| {
                let weight = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="));
                weight.and_then(|weight| weight.parse::<f32>().ok()).is_some_and(|q| q <= 0.0)
            });
            // Wildcards allow an event stream, but do not ask for one.
            accept.json |= !refused && is(&["application/json", "*/*", "application/*"]);
            accept.events |= !refused && is(&["text/event-stream", "text/*"]);
        }
    }
    if !said {
        accept.json = true;
    }
    accept
}

/// Does a GET with this `Accept` take a stream? Here a wildcard is enough: there is nothing else.
pub(super) fn takes_stream(headers: &HeaderMap) -> bool {
    accept(headers).events
        || headers
            .get_all(header::ACCEPT)
            .iter()
            .any(|value| value.to_str().is_ok_and(|text| text.contains("*/*")))
}

/// Does `Accept` ask for an event stream by name?
pub(super) fn asks_for_events(headers: &HeaderMap) -> bool {
    accept(headers).events
}

/// Do platforms look for health at this path without being told to?
pub(super) fn is_usual_for_health(path: &str) -> bool {
    HEALTH_PATHS.contains(&path.strip_suffix('/').unwrap_or(path))
}

/// Says of a path where nothing lives where MCP does, and of one with slashes too many which path
/// was meant. Nothing of the path itself is repeated.
pub(super) fn whereabouts(path: &str, unified: &str, prefix: &str) -> String {
    match merged(path, unified) {
        Some(meant) => format!("this path has too many slashes: ask for {prefix}{meant}"),
        None => format!(
            "nothing lives at this path: MCP is at {prefix}{unified} (Streamable HTTP, SSE, single \
             POSTs) and at {prefix}{SSE_PATH} (SSE)"
        ),
    }
}

/// The path with one slash where several stand, if it has a route then: proxies such as nginx merge
/// them, and people forget that.
pub(super) fn merged(path: &str, unified: &str) -> Option<String> {
    let segments = path.split('/').filter(|segment| !segment.is_empty());
    let merged = segments.fold(String::new(), |merged, segment| merged + "/" + segment);
    let doubled = path.contains("//");
    let known = || !matches!(Route::of(&merged, unified), Route::Unknown | Route::OAuthProbe);
    (doubled && known()).then_some(merged)
}

/// Is the text that `Content-Type` names one of JSON's (RFC 8259 section 8.1), or a part of it?
fn is_unicode(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else { return true };
    let value = value.trim().trim_matches('"');
    !name.trim().eq_ignore_ascii_case("charset")
        || ["utf-8", "utf8", "us-ascii"].iter().any(|name| value.eq_ignore_ascii_case(name))
}

/// A body must say that it is JSON, and come as it is.
pub(super) fn check_content(headers: &HeaderMap) -> Result<(), BadHead> {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (types.next(), types.next()) else {
        return Err(BadHead::MediaType);
    };
    let mut parts = value.to_str().unwrap_or_default().split(';');
    let essence = parts.next().unwrap_or_default();
    let unicode = parts.all(is_unicode);
    let plain = headers.get_all(header::CONTENT_ENCODING).iter().all(|encoding| {
        encoding.to_str().is_ok_and(|text| text.trim().eq_ignore_ascii_case("identity"))
    });
    if plain && unicode && essence.trim().eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(BadHead::MediaType)
    }
}

/// The host that a request is addressed to.
pub(super) fn host(head: &request::Parts) -> Option<http::HeaderValue> {
    match head.uri.authority() {
        Some(authority) => http::HeaderValue::try_from(authority.as_str()).ok(),
        None => head.headers.get(header::HOST).cloned(),
    }
}

/// The `sessionId` of a query.
pub(super) fn session_in_query(head: &request::Parts) -> Option<&str> {
    let pairs = head.uri.query()?.split('&');
    let mut named = pairs.filter_map(|pair| match pair.split_once('=') {
        Some(("sessionId" | "session_id", value)) => Some(value),
        Some(_) | None => None,
    });
    match (named.next(), named.next()) {
        (Some(value), None) if !value.is_empty() => Some(value),
        (_, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for value in values {
            map.append(name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn a_trailing_slash_makes_no_difference() {
        for (path, route) in [
            ("/mcp/unified", Route::Mcp),
            ("/mcp/unified/", Route::Mcp),
            ("/sse", Route::Sse),
            ("/sse/", Route::Sse),
            ("/messages/", Route::Messages),
            ("/mcp/unified/messages", Route::Messages),
            ("/mcp/unified/messages/", Route::Messages),
            ("/mcp/unified/messages/x", Route::Unknown),
            ("/health", Route::Unknown),
            ("/livez", Route::Livez),
            ("/readyz/", Route::Readyz),
            ("/mcp/unified/tools/", Route::Tools),
            ("/mcp/unified/call-tool", Route::CallTool),
            ("/tools/list/", Route::Tools),
            ("/tools", Route::Unknown),
            ("/call-tool", Route::Unknown),
            ("/mcp/unifiedtools", Route::Unknown),
            ("/", Route::Unknown),
            ("/mcp", Route::Unknown),
            ("/mcp/unified/x", Route::Unknown),
            ("/MCP/unified", Route::Unknown),
        ] {
            assert_eq!(Route::of(path, "/mcp/unified"), route, "{path}");
        }
        assert_eq!(Route::of("/mcp", "/mcp/"), Route::Mcp);
        for (path, route) in [
            ("/tools", Route::Mcp),
            ("/tools/tools", Route::Tools),
            ("/tools/list", Route::Tools),
            ("/tools/call-tool", Route::CallTool),
        ] {
            assert_eq!(Route::of(path, "/tools"), route, "{path}");
        }
    }

    #[test]
    fn slashes_too_many_are_taken_for_what_was_meant() {
        for (path, meant) in [
            ("//a/mcp", Some("/a/mcp")),
            ("/a//mcp//", Some("/a/mcp")),
            ("///sse", Some("/sse")),
            ("//messages", Some("/messages")),
            ("/a/mcp//tools", Some("/a/mcp/tools")),
            ("//", None),
            ("//nope", None),
            ("/a/mcp", None),
            ("//token", None),
        ] {
            assert_eq!(merged(path, "/a/mcp").as_deref(), meant, "{path}");
        }
        let told = whereabouts("//a//mcp", "/a/mcp", "/edge");
        assert_eq!(told, "this path has too many slashes: ask for /edge/a/mcp");
        let told = whereabouts("/nope", "/a/mcp", "/edge");
        assert!(told.contains(" /edge/a/mcp (") && told.contains(" /edge/sse ("), "{told}");
        for (path, usual) in [("/health", true), ("/healthz/", true), ("/health/x", false)] {
            assert_eq!(is_usual_for_health(path), usual, "{path}");
        }
    }

    #[test]
    fn oauth_is_looked_for_in_many_places() {
        for path in [
            "/.well-known/oauth-authorization-server",
            "/.well-known/oauth-authorization-server/mcp",
            "/.well-known/oauth-protected-resource/mcp/",
            "/.well-known/openid-configuration",
            "/mcp/.well-known/openid-configuration",
            "/register",
            "/authorize",
            "/token",
            "/mcp/register",
            "/register/mcp",
            "/sse/token",
            "/authorize/sse",
        ] {
            assert_eq!(Route::of(path, "/mcp"), Route::OAuthProbe, "{path}");
        }
        for path in ["/.well-known/security.txt", "/x/register", "/registers", "/.well-known"] {
            assert_eq!(Route::of(path, "/mcp"), Route::Unknown, "{path}");
        }
    }

    #[test]
    fn accept_is_read_kindly() {
        let read = |values: &[&str]| {
            let Accept { json, events } = accept(&headers("accept", values));
            (json, events)
        };
        assert_eq!(read(&[]), (true, false));
        assert_eq!(read(&[""]), (true, false));
        assert_eq!(read(&["application/json, text/event-stream"]), (true, true));
        assert_eq!(read(&["application/json", "text/event-stream"]), (true, true));
        assert_eq!(read(&["text/event-stream"]), (false, true));
        assert_eq!(read(&["*/*"]), (true, false));
        assert_eq!(read(&["Application/JSON; charset=utf-8"]), (true, false));
        assert_eq!(read(&["application/json;q=0, text/event-stream;q=0.5"]), (false, true));
        assert_eq!(read(&["text/html"]), (false, false));
    }

    #[test]
    fn a_body_must_be_plain_json() {
        for good in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
            "application/json; charset=utf8; v=1",
            "application/json; CharSet=US-ASCII",
            "application/json;",
        ] {
            assert_eq!(check_content(&headers("content-type", &[good])), Ok(()), "{good}");
        }
        for charset in ["utf-16", "\"utf-16\"", "utf-8; charset=utf-16", "", "utf-8x", "latin1"] {
            let text = format!("application/json; charset={charset}");
            let checked = check_content(&headers("content-type", &[&text]));
            assert_eq!(checked, Err(BadHead::MediaType), "{charset}");
        }
        for bad in [&[][..], &["text/plain"], &["application/jsonx"], &["application/json"; 2]] {
            assert_eq!(check_content(&headers("content-type", bad)), Err(BadHead::MediaType));
        }
        let mut zipped = headers("content-type", &["application/json"]);
        zipped.insert("content-encoding", "gzip".parse().unwrap());
        assert_eq!(check_content(&zipped), Err(BadHead::MediaType));
    }

    #[test]
    fn a_field_comes_once_and_in_ascii() {
        let twice = headers("mcp-session-id", &["a", "b"]);
        assert_eq!(single(&twice, &SESSION), Err(BadHead::Field("mcp-session-id")));
        let strange = headers("mcp-session-id", &["caf\u{e9}"]);
        assert!(single(&strange, &SESSION).is_err());
    }

    #[test]
    fn the_session_of_a_query() {
        let of = |target: &str| {
            let request = http::Request::builder().uri(target).body(()).unwrap();
            session_in_query(&request.into_parts().0).map(str::to_owned)
        };
        assert_eq!(of("/messages?sessionId=abc"), Some("abc".into()));
        assert_eq!(of("/messages?x=1&session_id=abc"), Some("abc".into()));
        for none in ["/messages", "/messages?sessionId=", "/messages?sessionId=a&sessionId=b"] {
            assert_eq!(of(none), None);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(path in ".*", value in "[ -~]*") {
            Route::of(&path, "/mcp");
            accept(&headers("accept", &[&value]));
            let _content = check_content(&headers("content-type", &[&value]));
        }
    }
}
