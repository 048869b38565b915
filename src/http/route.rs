//! The edge's own paths, where each leads, and which methods it answers.

use http::Method;

/// The path that HTTP+SSE clients post their messages to: by itself, and under the unified path.
pub(super) const MESSAGES_PATH: &str = "/messages";
/// The path of HTTP+SSE clients, beside the unified path.
pub(crate) const SSE_PATH: &str = "/sse";
/// Says that the process lives; open to everybody, and empty.
pub(crate) const LIVEZ_PATH: &str = "/livez";
/// Says that what stands behind answers; open to everybody, and empty.
pub(crate) const READYZ_PATH: &str = "/readyz";
/// Where platforms look for health unasked: the same as [`LIVEZ_PATH`], unless a rule of the
/// operator's passes them on.
const HEALTH_PATHS: [&str; 2] = ["/health", "/healthz"];
/// The whole list of tools for scripts, beside [`TOOLS_BENEATH`].
pub(crate) const TOOLS_PATH: &str = "/tools/list";
/// The same list, and one tool call for scripts, under the unified path.
const TOOLS_BENEATH: &str = "/tools";
const CALL_TOOL_BENEATH: &str = "/call-tool";

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
            Some(TOOLS_BENEATH) => return Self::Tools,
            Some(CALL_TOOL_BENEATH) => return Self::CallTool,
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

    /// Does a request of this method ask for health, as platforms do?
    pub(super) fn is_probe(self, method: &Method) -> bool {
        matches!(self, Self::Livez | Self::Readyz) && matches!(*method, Method::GET | Method::HEAD)
    }

    /// Do its clients speak no JSON-RPC?
    pub(super) fn is_plain(self) -> bool {
        matches!(self, Self::Tools | Self::CallTool | Self::Livez | Self::Readyz)
    }

    /// The methods that a route answers, as `Allow` names them.
    pub(super) const fn allow(self) -> &'static str {
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

/// What `Allow` says of a path that opens no stream where one was asked for by GET.
pub(super) const ALLOW_WITHOUT_STREAM: &str = "POST, OPTIONS";

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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

    proptest! {
        #[test]
        fn no_path_panics(path in ".*") {
            Route::of(&path, "/mcp");
        }
    }
}
