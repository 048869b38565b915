//! Paths of the upstream that are passed through as they are: which, and how requests go up.

use std::cmp::Reverse;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header, request};
use http_body::Body;
use tokio::select;

use super::head::{self, Route};
use super::passed::{self, Terms};
use super::refusal::Refusal;
use super::reply::ReplyBody;
use super::{App, Arrived, Front};
use crate::body::{self, BodyError};
use crate::caller::Principal;
use crate::config::PassRule;
use crate::mcp::Reason;
use crate::upstream::{self, Arriving, Fault, Outgoing, Passable};

/// Fields that concern one connection only (RFC 9110 section 7.6.1), beside those that `Connection`
/// names.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Why a request is not passed through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unpassed {
    /// The path could be read as another one.
    Path,
    /// Another protocol is asked for.
    Upgrade,
    /// The method is for proxies themselves.
    Method,
    /// The upstream gave no response.
    Fault(Fault),
}

impl From<Unpassed> for Refusal {
    fn from(unpassed: Unpassed) -> Self {
        Self::Unpassed(unpassed)
    }
}

/// The rule that a path falls under: the one that names most of it; of two alike the closed one.
pub(super) fn rule<'a>(rules: &'a [PassRule], path: &str, route: Route) -> Option<&'a PassRule> {
    let covering = rules.iter().filter(|rule| covers(rule, path) && prevails(rule, path, route));
    covering.min_by_key(|rule| (Reverse(rule.path.len()), rule.open))
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
            path.strip_suffix('/').unwrap_or(path) == rule.path
        }
        Route::Mcp | Route::Livez | Route::Readyz => false,
    }
}

/// May this request go up under this rule?
fn check(rule: &PassRule, head: &request::Parts) -> Result<(), Unpassed> {
    if matches!(head.method, Method::TRACE | Method::CONNECT) {
        return Err(Unpassed::Method);
    }
    if rule.beneath && !is_plain(head.uri.path()) {
        return Err(Unpassed::Path);
    }
    if asks_for_another_protocol(&head.headers) { Err(Unpassed::Upgrade) } else { Ok(()) }
}

/// Will every server take the path for what it looks like? Not with dot segments, empty ones,
/// backslashes, or these in disguise: the upstream might find another path in it, which no rule
/// names.
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

/// `Upgrade`, but to HTTP/2: clients offer that to every server without TLS.
fn asks_for_another_protocol(headers: &HeaderMap) -> bool {
    let offers = headers.get_all(header::UPGRADE).iter();
    let mut offers = offers.flat_map(|offers| offers.as_bytes().split(|byte| *byte == b','));
    offers.any(|offer| !offer.trim_ascii().eq_ignore_ascii_case(b"h2c"))
}

/// The fields that are for more than one connection.
pub(super) fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    for named in headers.get_all(header::CONNECTION) {
        for name in named.to_str().unwrap_or_default().split(',') {
            if let Ok(name) = HeaderName::try_from(name.trim()) {
                drop(kept.remove(name));
            }
        }
    }
    for name in HOP_BY_HOP {
        drop(kept.remove(name));
    }
    kept
}

/// The same path and query at the upstream.
fn target(upstream: &Uri, asked: &Uri) -> Option<Uri> {
    let target = Uri::builder()
        .scheme(upstream.scheme()?.clone())
        .authority(upstream.authority()?.clone())
        .path_and_query(asked.path_and_query()?.clone());
    target.build().ok()
}

impl App {
    /// Passes a request through that falls under `rule`. The body is taken only if it is sent.
    pub(super) async fn pass<B>(
        &self,
        arrived: Arrived<'_>,
        (front, rule): (&Front, &PassRule),
        body: &mut Option<B>,
    ) -> Result<Response<ReplyBody>, Refusal>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let principal = if rule.open {
            self.guard.admit_stranger(arrived.visit)?;
            Principal::Anonymous
        } else {
            self.guard.admit(arrived.visit).await?.principal().clone()
        };
        check(rule, arrived.head)?;
        let client = arrived.conn.client.key();
        let take = || self.streams.try_take(client).ok_or(Reason::ClientStreamsFull);
        let wants_events = head::asks_for_events(&arrived.head.headers);
        let place = if wants_events { Some(take()?) } else { None };
        // Whoever waits for a stream may wait long for its begin, too.
        let patience = (!wants_events).then_some(front.upstream.patience());
        let request = self.upward(arrived, front, principal)?;
        let response = self.carry((front, arrived.tag), request, patience, body).await?;
        if response.status().is_informational() {
            return Err(failed(arrived.tag, Fault::Broken("it changes the protocol".into())));
        }
        let events = match (passed::is_events(response.headers()), place) {
            (true, Some(place)) => Some(place),
            (true, None) => Some(take()?),
            (false, _) => None,
        };
        let terms = Terms {
            events: events.map(|place| (place, self.drain.draining())),
            silence: front.upstream.patience(),
            request: arrived.tag.clone(),
        };
        Ok(passed::response(response, terms))
    }

    /// The head of the request that goes up.
    fn upward(
        &self,
        arrived: Arrived<'_>,
        front: &Front,
        principal: Principal,
    ) -> Result<Request<()>, Refusal> {
        let head = arrived.head;
        let mut request = Request::new(());
        *request.method_mut() = head.method.clone();
        // There is none for `OPTIONS *` and for what is no path.
        *request.uri_mut() = target(front.upstream.url(), &head.uri).ok_or(Unpassed::Path)?;
        let mut fields = front.upstream.fields(&self.caller(arrived, principal));
        let passable: HeaderMap = Passable::of(&end_to_end(&head.headers)).collect();
        fields.extend(passable);
        *request.headers_mut() = fields;
        Ok(request)
    }

    /// Sends head and body up. A body that is refused on the way comes back, as far as there is
    /// something left of it.
    async fn carry<B>(
        &self,
        (front, tag): (&Front, &HeaderValue),
        request: Request<()>,
        patience: Option<Duration>,
        body: &mut Option<B>,
    ) -> Result<Response<Arriving>, Refusal>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let Some(taken) = body.as_ref() else { return Err(Refusal::Body(BodyError::Broken)) };
        body::check_declared(taken, self.body).map_err(Refusal::Body)?;
        let Some(taken) = body.take() else { return Err(Refusal::Body(BodyError::Broken)) };
        let (passing, fate) = body::hand_on(taken, self.body);
        let request: Request<Outgoing> = request.map(|()| upstream::passed(passing));
        let sent = select! {
            sent = front.upstream.send(request, patience) => sent,
            () = fate.overdue() => Err(Fault::Late(self.body.total)),
        };
        sent.map_err(|fault| {
            let error = fate.error();
            *body = fate.rest();
            match error {
                Some(error) => Refusal::Body(error),
                None => failed(tag, fault),
            }
        })
    }
}

/// What went wrong in particular is for the log only.
fn failed(tag: &HeaderValue, fault: Fault) -> Refusal {
    tracing::warn!(request = ?tag, error = %fault, "a passed request has no response");
    Unpassed::Fault(fault).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules(texts: &[&str]) -> Vec<PassRule> {
        let rule = |text: &&str| {
            let (open, text) = text.strip_prefix("open:").map_or((false, *text), |it| (true, it));
            let (path, beneath) = text.strip_suffix("/*").map_or((text, false), |it| (it, true));
            PassRule { path: path.to_owned(), beneath, open }
        };
        texts.iter().map(rule).collect()
    }

    fn found(rules: &[PassRule], path: &str) -> Option<String> {
        let rule = rule(rules, path, Route::of(path, "/mcp"))?;
        let (open, all) = (rule.open, rule.beneath);
        Some(format!(
            "{}{}{}",
            if open { "open:" } else { "" },
            rule.path,
            if all { "/*" } else { "" }
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

    fn head(method: &str, path: &str, upgrade: Option<&str>) -> request::Parts {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(upgrade) = upgrade {
            request = request.header("upgrade", upgrade);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn what_is_no_plain_request_is_not_passed() {
        let rules = rules(&["/a/*"]);
        let rule = &rules[0];
        for (head, answer) in [
            (head("GET", "/a/b?c=/../d", None), Ok(())),
            (head("PROPFIND", "/a/b", Some("h2c")), Ok(())),
            (head("TRACE", "/a/b", None), Err(Unpassed::Method)),
            (head("CONNECT", "/a/b", None), Err(Unpassed::Method)),
            (head("GET", "/a/../b", None), Err(Unpassed::Path)),
            (head("GET", "/a/b", Some("websocket")), Err(Unpassed::Upgrade)),
            (head("GET", "/a/b", Some("h2c, WebSocket")), Err(Unpassed::Upgrade)),
        ] {
            assert_eq!(check(rule, &head), answer, "{head:?}");
        }
    }

    #[test]
    fn what_is_for_one_connection_stays_on_it() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Mine"),
            ("connection", "x-more,, bad name"),
            ("x-mine", "1"),
            ("x-more", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("content-type", "text/plain"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        let kept = end_to_end(&headers);
        assert_eq!(kept.len(), 3, "{kept:?}");
        assert_eq!(kept.get_all("set-cookie").iter().count(), 2);
        assert!(kept.contains_key("content-type"));
    }

    #[test]
    fn only_the_path_and_the_query_are_the_clients() {
        let upstream = Uri::from_static("http://127.0.0.1:8000/mcp?key=1");
        let of = |asked: &str| target(&upstream, &asked.parse().unwrap()).map(|it| it.to_string());
        assert_eq!(of("/a/b?c=d").as_deref(), Some("http://127.0.0.1:8000/a/b?c=d"));
        assert_eq!(of("https://x.test/a").as_deref(), Some("http://127.0.0.1:8000/a"));
        assert_eq!(of("x.test:443"), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(path in ".*") {
            let rules = rules(&["/*", "/a", "open:/a/*"]);
            let _rule = found(&rules, &path);
            let _plain = is_plain(&path);
        }

        #[test]
        fn nothing_outside_is_covered(path in "/[a-c/.%2]{0,12}") {
            let rules = rules(&["/a/*"]);
            if let Some(rule) = rule(&rules, &path, Route::Unknown) {
                prop_assert!(path == "/a" || path.starts_with("/a/"));
                prop_assert!(rule.beneath);
            }
        }
    }
}
