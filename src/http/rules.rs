//! Which paths of the upstream are passed through, under which rule, and which of them could be
//! read as others.

use std::borrow::Cow;
use std::cmp::Reverse;

use percent_encoding::percent_decode;

use super::route::{MESSAGES_PATH, Route};
use crate::config::PassRule;

/// How often a path may be percent-encoded over again. Nobody means well by more.
const LAYERS: usize = 4;

/// The rules of `--pass` and `--pass-open`.
#[derive(Debug)]
pub(super) struct Rules {
    /// As they were given.
    given: Map,
    /// As an upstream may read them that minds neither case nor parameters.
    folded: Map,
}

impl Rules {
    /// These, beside the unified path, in front of an upstream whose MCP endpoint is at `endpoint`.
    pub(super) fn new(rules: Vec<PassRule>, unified: &str, endpoint: &str) -> Self {
        let endpoint = decoded(endpoint).unwrap_or_else(|| endpoint.to_owned());
        let folded =
            Map::new(rules.iter().map(folded).collect(), &plainest(unified), &plainest(&endpoint));
        Self { given: Map::new(rules, unified, &endpoint), folded }
    }

    /// The rule that a path falls under: the one that names most of it; of two alike the closed
    /// one.
    pub(super) fn find(&self, path: &str, route: Route) -> Option<&PassRule> {
        self.given.find(path, route)
    }

    /// Does a rule have this path, with or without a slash at its end?
    pub(super) fn have(&self, path: &str) -> bool {
        let bare = unslashed(path);
        let has = |path: &str| self.find(path, Route::Unknown).is_some();
        has(bare) || has(&format!("{bare}/"))
    }

    /// Will every server take the path, which falls under this rule, for what it looks like? A
    /// path that the rule names itself is the operator's own word.
    pub(super) fn is_plain(&self, rule: &PassRule, path: &str) -> bool {
        !rule.beneath || is_plain(path) && self.reads_alike(rule, path)
    }

    /// Does it fall under the same rule, and be no path of the edge's, however it is read?
    fn reads_alike(&self, rule: &PassRule, path: &str) -> bool {
        let Some(read) = decoded(path).as_deref().map(plainest) else { return false };
        // Without its parameters a segment may be empty, or of dots.
        if !is_plain(&read) {
            return false;
        }
        let found = |path: &str| self.folded.find(path, Route::of(path, &self.folded.unified));
        // A slash at the end, which many servers do not mind, must not open what is closed.
        let closed = rule.open && found(unslashed(&read)).is_some_and(|other| !other.open);
        !closed && found(&read) == Some(&folded(rule))
    }
}

/// Rules beside a unified path and an upstream's MCP endpoint, in one spelling.
#[derive(Debug)]
struct Map {
    rules: Vec<PassRule>,
    unified: String,
    /// Without a slash at its end.
    endpoint: String,
    /// Where else messages of MCP may be posted: what an SSE upstream announces is not known here.
    messages: [String; 2],
}

impl Map {
    fn new(rules: Vec<PassRule>, unified: &str, endpoint: &str) -> Self {
        let endpoint = unslashed(endpoint).to_owned();
        let above = endpoint.rsplit_once('/').map_or("", |(above, _)| above);
        let messages = [MESSAGES_PATH.to_owned(), format!("{above}{MESSAGES_PATH}")];
        Self { rules, unified: unified.to_owned(), endpoint, messages }
    }

    fn find(&self, path: &str, route: Route) -> Option<&PassRule> {
        let covering = self.rules.iter().filter(|rule| {
            covers(rule, path) && prevails(rule, path, route) && !self.is_kept(rule, path)
        });
        covering.min_by_key(|rule| (Reverse(rule.path.len()), rule.open))
    }

    /// Does the upstream speak MCP there? A rule that did not name the place does not open it: the
    /// endpoint under no rule, and under open ones nothing beneath it, nor where messages go.
    fn is_kept(&self, rule: &PassRule, path: &str) -> bool {
        if unslashed(path) == self.endpoint {
            return !names(rule, path);
        }
        // Everything is beneath the root, which says nothing.
        let endpoint = Some(&self.endpoint).filter(|endpoint| !endpoint.is_empty());
        let mut places = self.messages.iter().chain(endpoint);
        rule.open && places.any(|place| is_within(path, place) && !is_within(&rule.path, place))
    }
}

fn unslashed(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

fn is_within(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Does the rule name this very path? `/*` names none.
fn names(rule: &PassRule, path: &str) -> bool {
    rule.path == path || !rule.path.is_empty() && rule.path == unslashed(path)
}

fn covers(rule: &PassRule, path: &str) -> bool {
    match path.strip_prefix(rule.path.as_str()) {
        Some("") => !path.is_empty(),
        Some(rest) => rule.beneath && rest.starts_with('/'),
        None => false,
    }
}

/// Does the rule count where the edge has a route of its own? Only if it names the path itself.
fn prevails(rule: &PassRule, path: &str, route: Route) -> bool {
    match route {
        Route::Unknown => true,
        Route::Sse | Route::Messages | Route::Tools | Route::CallTool | Route::OAuthProbe => {
            names(rule, path)
        }
        Route::Mcp | Route::Livez | Route::Readyz => false,
    }
}

fn folded(rule: &PassRule) -> PassRule {
    PassRule { path: plainest(&rule.path), ..*rule }
}

/// A decoded path as the most lenient server reads it: in lower case, its segments without
/// parameters.
fn plainest(path: &str) -> String {
    let path = path.to_lowercase();
    let segments = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
    segments.collect::<Vec<_>>().join("/")
}

/// The path without its percent-encoding; none where that has no end.
fn decoded(path: &str) -> Option<String> {
    let mut bytes = path.as_bytes().to_vec();
    for _ in 0..=LAYERS {
        let Cow::Owned(next) = Cow::from(percent_decode(&bytes)) else {
            return Some(String::from_utf8_lossy(&bytes).into_owned());
        };
        bytes = next;
    }
    None
}

/// Not with dot segments, empty ones, backslashes, or these in disguise: the upstream might find
/// another path in it, which no rule names.
fn is_plain(path: &str) -> bool {
    let mut text = path.to_ascii_lowercase();
    // A percent sign may be disguised itself, but nobody means well by doing so again and again.
    for _ in 0..3 {
        text = text.replace("%25", "%");
    }
    let dots = |segment: &str| matches!(segment.split(';').next().unwrap_or_default(), "." | "..");
    let disguised = ["%2e", "%2f", "%5c", "%00", "%25", "\\", "//"];
    !disguised.iter().any(|it| text.contains(it)) && !text.split('/').any(dots)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules(texts: &[&str]) -> Rules {
        before("/mcp", texts)
    }

    /// Rules in front of an upstream whose endpoint is there.
    fn before(endpoint: &str, texts: &[&str]) -> Rules {
        let rule = |text: &&str| {
            let (open, text) = text.strip_prefix("open:").map_or((false, *text), |it| (true, it));
            let (path, beneath) = text.strip_suffix("/*").map_or((text, false), |it| (it, true));
            PassRule { path: path.to_owned(), beneath, open }
        };
        Rules::new(texts.iter().map(rule).collect(), "/mcp", endpoint)
    }

    fn found(rules: &Rules, path: &str) -> Option<String> {
        let rule = rules.find(path, Route::of(path, "/mcp"))?;
        Some(format!(
            "{}{}{}",
            if rule.open { "open:" } else { "" },
            rule.path,
            if rule.beneath { "/*" } else { "" }
        ))
    }

    #[test]
    fn a_rule_covers_its_path_and_whole_segments_beneath() {
        let rules = rules(&["/health", "/files/*"]);
        for (path, rule) in [
            ("/health", Some("/health")),
            ("/health/", None),
            ("/health/x", None),
            ("/healthy", None),
            ("/HEALTH", None),
            ("/%68ealth", None),
            ("/files", Some("/files/*")),
            ("/files/", Some("/files/*")),
            ("/files/a/b", Some("/files/*")),
            ("/filesystem", None),
            ("/x/files/a", None),
            ("/", None),
            ("", None),
            ("*", None),
        ] {
            assert_eq!(found(&rules, path).as_deref(), rule, "{path}");
        }
    }

    #[test]
    fn the_longest_rule_counts_and_of_two_alike_the_closed_one() {
        let all =
            rules(&["open:/*", "/admin/*", "open:/admin/ping", "open:/a", "/a", "/b", "open:/b/*"]);
        for (path, rule) in [
            ("/x", "open:/*"),
            ("/admin", "/admin/*"),
            ("/admin/x", "/admin/*"),
            ("/admin/ping", "open:/admin/ping"),
            ("/admin/ping/x", "/admin/*"),
            ("/a", "/a"),
            ("/b", "/b"),
            ("/b/x", "open:/b/*"),
        ] {
            assert_eq!(found(&all, path).as_deref(), Some(rule), "{path}");
        }
    }

    #[test]
    fn the_edges_own_paths_yield_to_a_rule_that_names_them_or_not_at_all() {
        let named =
            rules(&["/mcp", "/livez", "/sse", "/messages/*", "/register", "/tools/list", "/*"]);
        for (path, rule) in [
            ("/mcp", None),
            ("/mcp/", None),
            ("/livez", None),
            ("/sse", Some("/sse")),
            ("/messages", Some("/messages/*")),
            ("/messages/", Some("/messages/*")),
            ("/register", Some("/register")),
            ("/tools/list", Some("/tools/list")),
            ("/mcp/tools", None),
            ("/readyz", None),
            ("/token", None),
            ("/.well-known/oauth-protected-resource", None),
            ("/mcp/x", Some("/*")),
        ] {
            assert_eq!(found(&named, path).as_deref(), rule, "{path}");
        }
        let all = rules(&["/*"]);
        for path in ["/sse", "/messages", "/messages/", "/mcp"] {
            assert_eq!(found(&all, path), None, "{path}");
        }
    }

    #[test]
    fn where_messages_are_posted_is_not_given_away() {
        let all = rules(&["open:/*", "/mcp/*"]);
        for path in ["/mcp/messages", "/mcp/messages/", "/messages"] {
            assert_eq!(found(&all, path), None, "{path}");
        }
        assert_eq!(found(&all, "/mcp/messages/x").as_deref(), Some("/mcp/*"));
        let rule = all.find("/MCP/messages", Route::Unknown).unwrap();
        for path in ["/MCP/messages", "/mcp/%6dessages", "/mcp/messages;a"] {
            assert!(!all.is_plain(rule, path), "{path}");
        }
    }

    #[test]
    fn a_rule_has_a_path_with_or_without_a_slash_at_its_end() {
        for (rule, path, has) in [
            ("/health", "/health", true),
            ("/health", "/health/", true),
            ("/health/", "/health", true),
            ("open:/*", "/healthz", true),
            ("/health/*", "/healthz", false),
            ("/health/x", "/health", false),
        ] {
            assert_eq!(rules(&[rule]).have(path), has, "{rule} {path}");
        }
    }

    #[test]
    fn paths_that_could_be_read_as_others_are_not_plain() {
        for plain in ["/files", "/files/a.b/..c/c../...", "/files/100%25/%20;v=1", "/files/"] {
            assert!(is_plain(plain), "{plain}");
        }
        for other in [
            "/files/../mcp",
            "/files/..",
            "/files/./a",
            "/files//a",
            "//files",
            "/files/%2e%2E/mcp",
            "/files/.%2e/mcp",
            "/files/%2Fetc",
            "/files/a%5Cb",
            "/files/a\\..\\b",
            "/files/..;x=1/mcp",
            "/files/%252e%252e/mcp",
            "/files/%2525252525252e/mcp",
            "/files/%00",
        ] {
            assert!(!is_plain(other), "{other}");
        }
    }

    #[test]
    fn a_path_that_reads_as_one_of_another_rule_is_not_plain() {
        let rules = before("/up", &["open:/o/*", "/o/private/*", "open:/*", "/Named"]);
        let of = |path: &str| {
            let rule = rules.find(path, Route::of(path, "/mcp")).unwrap();
            rules.is_plain(rule, path)
        };
        for plain in ["/o/a%20b", "/o/A", "/o/%61", "/o/caf%C3%A9;v=1/x", "/Named", "/o/100%", "/%"]
        {
            assert!(of(plain), "{plain}");
        }
        for other in [
            "/o/%70rivate/x",
            "/o/p%72ivate",
            "/o/%2570rivate/x",
            "/o/%%37%30rivate/x",
            "/o/Private/x",
            "/o/private;a=b/x",
            "/o/private%3Ba/x",
            "/%6dcp",
            "/MCP",
            "/mcp;a",
            "/mcp/t%6fols",
            "/%6Civez",
            "/s%73e",
            "/messages%3b",
            "/%4eamed",
            "/named",
            "/%72egister",
            "/;c/mcp",
            "/%3bc/Named",
            "/o/..%3bx/private/x",
            "/o/.;/private/x",
        ] {
            assert!(!of(other), "{other}");
        }
    }

    #[test]
    fn a_slash_at_the_end_does_not_open_what_is_closed() {
        let of = |all: &[&str], path: &str| {
            let rules = rules(all);
            rules.find(path, Route::Unknown).is_some_and(|rule| rules.is_plain(rule, path))
        };
        for path in ["/admin/", "/Admin/", "/%61dmin/", "/admin/;x"] {
            assert!(!of(&["open:/*", "/admin"], path), "{path}");
        }
        assert!(of(&["open:/*", "/admin"], "/admin"));
        assert!(of(&["open:/*", "/admin"], "/admin/x"));
        assert!(of(&["/*", "open:/docs"], "/docs/"));
        assert!(of(&["/*", "/docs"], "/docs/"));
    }

    #[test]
    fn the_upstreams_own_endpoint_yields_to_a_rule_that_names_it() {
        for (endpoint, rules, path, rule) in [
            ("/api/mcp", &["/*"][..], "/api/mcp", None),
            ("/api/mcp", &["open:/*"], "/api/mcp/", None),
            ("/api/mcp/", &["open:/api/*"], "/api/mcp", None),
            ("/api/m%63p", &["open:/*"], "/api/mcp", None),
            ("/api/mcp", &["/api/mcp", "open:/*"], "/api/mcp", Some("/api/mcp")),
            ("/api/mcp", &["open:/api/mcp/*"], "/api/mcp/x", Some("open:/api/mcp/*")),
            ("/api/mcp", &["/*"], "/api/mcp/x", Some("/*")),
            ("/api/mcp", &["open:/*"], "/api/mcp/x", None),
            ("/api/mcp", &["open:/*"], "/api/mcpx", Some("open:/*")),
            ("/api/mcp", &["open:/*"], "/api/messages/x", None),
            ("/api/mcp", &["open:/*", "/api/*"], "/api/messages/x", Some("/api/*")),
            ("/api/mcp", &["open:/*"], "/messages/x", None),
            ("/api/mcp", &["open:/*"], "/x/messages", Some("open:/*")),
            ("/", &["open:/*"], "/", None),
            ("/", &["open:/*"], "/x", Some("open:/*")),
            ("/", &["open:/", "/*"], "/", Some("open:/")),
        ] {
            let rules = before(endpoint, rules);
            assert_eq!(found(&rules, path).as_deref(), rule, "{endpoint} {path}");
        }
        let rules = before("/api/mcp", &["open:/*", "/*"]);
        for path in ["/API/mcp", "/api/%6dcp", "/api/mcp;a=b"] {
            let rule = rules.find(path, Route::Unknown).unwrap();
            assert!(!rules.is_plain(rule, path), "{path}");
        }
    }

    #[test]
    fn decoding_ends() {
        for (path, read) in [
            ("/a%2", Some("/a%2")),
            ("/%+1%zz%", Some("/%+1%zz%")),
            ("/%2561", Some("/a")),
            ("/%C3%A9", Some("/\u{e9}")),
            ("/%ff", Some("/\u{fffd}")),
            ("/%2525252525252561", None),
        ] {
            assert_eq!(decoded(path).as_deref(), read, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(path in ".*") {
            let rules = rules(&["/*", "/a", "open:/a/*"]);
            found(&rules, &path);
            is_plain(&path);
            decoded(&path).as_deref().map(plainest);
        }

        #[test]
        fn nothing_outside_is_covered(path in "/[a-c/.%2]{0,12}") {
            let rules = rules(&["/a/*"]);
            if let Some(rule) = rules.find(&path, Route::Unknown) {
                prop_assert!(path == "/a" || path.starts_with("/a/"));
                prop_assert!(rule.beneath);
            }
        }
    }
}
