//! An MCP server behind the edge that speaks HTTP itself.

use std::path::PathBuf;

use http::{HeaderName, HeaderValue, Uri};

use super::{Checked, Secret, UpstreamLimits};

/// Requests that may be under way at once on passed paths behind the token; as many without one, and
/// as many event streams without one.
pub(crate) const PASSED_AT_ONCE: u32 = 512;

/// Fields that no operator can let through: credentials that are for the edge (the token
/// passthrough ban of MCP 2025-06-18, "Security best practices"), what the edge says itself, and
/// what concerns one connection only (RFC 9110 section 7.6.1).
pub(crate) const NEVER: [&str; 27] = [
    "authorization",
    "cookie",
    "host",
    "origin",
    "forwarded",
    "x-real-ip",
    "x-request-id",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "expect",
    "content-length",
    "content-type",
    "content-encoding",
    "accept",
    "accept-encoding",
    "user-agent",
    "mcp-session-id",
    "mcp-protocol-version",
    "last-event-id",
    "mcp-method",
    "mcp-name",
    "via",
];
/// And every field that begins so.
const NEVER_PREFIXES: [&str; 3] = ["proxy-", "x-forwarded-", "mcp-param-"];

/// May an operator let this field through?
#[must_use]
pub fn may_go_up(name: &HeaderName) -> bool {
    !NEVER.contains(&name.as_str())
        && !NEVER_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix))
}

/// An MCP server that speaks HTTP, and what of it clients may reach.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Where its MCP endpoint is: `http` or `https`, an authority, a path; no user, no fragment.
    pub url: Uri,
    /// What it speaks there.
    pub kind: UpstreamKind,
    /// Which `Host` it is sent.
    pub host: UpstreamHost,
    /// PEM file with the CAs that its certificate must lead to; the system's where there is none.
    pub ca: Option<PathBuf>,
    /// The edge's own bearer token for it. The client's never goes up.
    pub token: Option<Secret>,
    /// Header fields of the client's that go up as they are.
    pub forward_headers: Vec<HeaderName>,
    /// Other paths of it that clients may reach.
    pub pass: Vec<PassRule>,
    /// What is kept ready for it, and how long it is waited for.
    pub limits: Checked<UpstreamLimits>,
    /// Is the log to say so if it takes no connection at the start?
    pub check_at_start: bool,
}

/// A URL as it may be shown: its query may hold a key.
pub(crate) fn shown(url: &Uri) -> String {
    let scheme = url.scheme_str().unwrap_or("http");
    let authority = url.authority();
    format!("{scheme}://{}{}", authority.map_or("", |it| it.as_str()), url.path())
}

impl Upstream {
    /// Where it is, for logs and people: without the query, which may hold a key.
    #[must_use]
    pub fn shown(&self) -> String {
        shown(&self.url)
    }

    /// How many requests without a token may be under way to it at once on passed paths, event
    /// streams included.
    #[must_use]
    pub fn open_at_once(&self) -> u32 {
        if self.pass.iter().any(|rule| rule.open) { 2 * PASSED_AT_ONCE } else { 0 }
    }

    /// The one at this URL, with the defaults of the command line.
    #[must_use]
    pub fn new(url: Uri) -> Self {
        Self {
            url,
            kind: UpstreamKind::Auto,
            host: UpstreamHost::Own,
            ca: None,
            token: None,
            forward_headers: Vec::new(),
            pass: Vec::new(),
            limits: Checked::default(),
            check_at_start: true,
        }
    }
}

/// What an upstream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamKind {
    /// Found out by asking, and remembered.
    Auto,
    /// HTTP+SSE of 2024-11-05.
    Sse,
    /// Streamable HTTP of 2025-03-26 to 2025-11-25.
    Streamable,
}

/// Which `Host` an upstream is sent. Its certificate is checked against its URL in any case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamHost {
    /// The authority of its URL.
    Own,
    /// This name, perhaps with a port.
    Named(HeaderValue),
    /// The one that the client sent. What the edge asks in its own name carries the last one of a
    /// client that was let in, and before the first the authority of the URL.
    Client,
}

/// A path of the upstream that is passed through as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassRule {
    /// The path, as requests name it.
    pub path: String,
    /// Also everything beneath it?
    pub beneath: bool,
    /// Without a token?
    pub open: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_the_query_is_not_shown() {
        let upstream = Upstream::new(Uri::from_static("https://h.example:8000/mcp?key=secret"));
        assert_eq!(upstream.shown(), "https://h.example:8000/mcp");
    }

    #[test]
    fn credentials_and_what_the_edge_says_itself_can_never_be_listed() {
        let named = |name: &str| may_go_up(&HeaderName::try_from(name).unwrap());
        for never in NEVER {
            assert!(!named(never), "{never}");
        }
        for never in ["proxy-authorization", "x-forwarded-for", "x-forwarded-user", "mcp-param-a"] {
            assert!(!named(never), "{never}");
        }
        assert!(named("x-user-role") && named("x-api-version") && named("traceparent"));
    }
}
