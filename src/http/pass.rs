//! Paths of the upstream that are passed through as they are: which, for whom, and how many at once.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, header, request};
use http_body::Body;

use super::caller::caller;
use super::forward::{self, ForwardTerms};
use super::head;
use super::places::ForwardPlaces;
use super::refusal::{ForwardError, Refusal};
use super::reply::ReplyBody;
use super::route::Route;
use super::rules::Rules;
use crate::caller::Principal;
use crate::client::Client;
use crate::config::{Config, PassRule};
use crate::drain::Drain;
use crate::guard::Visit;
use crate::limits::bytes::Quota;
use crate::observe::metrics::Metrics;
use crate::policy::Policy;

/// What the HTTP floor reaches of an upstream past MCP.
#[derive(Debug)]
pub(crate) struct Front {
    upstream: Arc<Client>,
    /// Paths that are passed through.
    rules: Rules,
    /// Places of requests to them.
    places: ForwardPlaces,
}

impl Front {
    /// This upstream, of which the paths of `pass` are passed through beside the unified path.
    pub(crate) fn new(
        upstream: Arc<Client>,
        pass: Vec<PassRule>,
        config: &Config,
        metrics: &Metrics,
    ) -> Self {
        let rules = Rules::new(pass, &config.path, upstream.url().path());
        Self { upstream, rules, places: ForwardPlaces::new(&metrics.gauges().streams) }
    }

    /// Has idle connections to the upstream closed in time, and all of them at the end; and has the
    /// operator told if it takes no connection, for which nobody waits.
    pub(crate) fn attend(&self, drain: &Drain) {
        let upstream = Arc::clone(&self.upstream);
        let stopping = drain.stopping();
        drain.spawn_vital_behind(async move {
            tokio::select! {
                () = stopping => {}
                () = upstream.keep_swept() => {}
            }
            upstream.close_idle();
        });
        let upstream = Arc::clone(&self.upstream);
        let stopping = drain.stopping();
        drain.spawn_behind(async move {
            tokio::select! {
                () = stopping => {}
                () = upstream.look() => {}
            }
        });
    }

    /// The upstream.
    pub(super) fn upstream(&self) -> &Client {
        &self.upstream
    }

    /// The rule under which a path is passed through, if it is.
    pub(super) fn rule(&self, path: &str, route: Route) -> Option<&PassRule> {
        self.rules.find(path, route)
    }

    /// Is this path passed through, with or without a slash at its end?
    pub(super) fn has(&self, path: &str) -> bool {
        self.rules.have(path)
    }

    /// Passes a request through that falls under `rule`, and that may pass as `principal`.
    pub(super) async fn pass<B>(
        &self,
        (rule, principal): (&PassRule, Principal),
        policy: &Policy,
        visit: Visit<'_>,
        body: B,
        drain: &Drain,
    ) -> Result<Response<ReplyBody>, Refusal>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let Visit { head, tag, .. } = visit;
        check(&self.rules, rule, head)?;
        let upstream = &*self.upstream;
        let places = self.places.under(rule);
        let streams = policy.limits.streams_per_ip;
        let wants_events = head::accepted(&head.headers).events;
        let mut place = if wants_events {
            places.take_stream(visit.key(), streams)?
        } else {
            places.take(visit.key())?
        };
        // Event streams may take long to send their head.
        let patience = (!wants_events).then_some(upstream.patience());
        let caller = caller(visit, Some(upstream), principal, Quota::unbounded());
        let request = forward::head(upstream, &caller, head)?;
        let host = request.headers().get(header::HOST).cloned();
        let response = forward::send(upstream, tag, request, patience, body, policy.body()).await?;
        if let (StatusCode::MISDIRECTED_REQUEST, Some(host)) = (response.status(), &host) {
            upstream.refused_host(response.status(), host);
        }
        let events = forward::is_events(response.headers());
        if events && !wants_events {
            match places.take_stream(visit.key(), streams) {
                Ok(among_streams) => place = among_streams,
                // It is done: refused, it would be done again.
                Err(_full) if !head.method.is_safe() => {}
                Err(full) => return Err(full),
            }
        }
        let terms = ForwardTerms {
            place,
            events: events.then(|| drain.draining()),
            silence: upstream.patience(),
            prefix: visit.prefix.clone(),
            request: tag.clone(),
        };
        let response = forward::response(response, (upstream.url(), host.as_ref()), terms);
        Ok(response.map(|body| ReplyBody::Forwarded(Box::new(body))))
    }
}

/// May this request go up under this rule?
fn check(rules: &Rules, rule: &PassRule, head: &request::Parts) -> Result<(), ForwardError> {
    if matches!(head.method, Method::TRACE | Method::CONNECT) {
        return Err(ForwardError::Method);
    }
    if !rules.is_plain(rule, head.uri.path()) {
        return Err(ForwardError::Path);
    }
    if asks_for_another_protocol(&head.headers) { Err(ForwardError::Upgrade) } else { Ok(()) }
}

/// `Upgrade`, but to HTTP/2: clients offer that to every server without TLS.
fn asks_for_another_protocol(headers: &HeaderMap) -> bool {
    let offers = headers.get_all(header::UPGRADE).iter();
    let mut offers = offers.flat_map(|offers| offers.as_bytes().split(|byte| *byte == b','));
    offers.any(|offer| !offer.trim_ascii().eq_ignore_ascii_case(b"h2c"))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(method: &str, path: &str, upgrade: Option<&str>) -> request::Parts {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(upgrade) = upgrade {
            request = request.header("upgrade", upgrade);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn what_is_no_plain_request_is_not_passed() {
        let rule = PassRule { path: "/a".to_owned(), beneath: true, open: false };
        let rules = Rules::new(vec![rule.clone()], "/mcp", "/mcp");
        for (head, answer) in [
            (head("GET", "/a/b?c=/../d", None), Ok(())),
            (head("PROPFIND", "/a/b", Some("h2c")), Ok(())),
            (head("TRACE", "/a/b", None), Err(ForwardError::Method)),
            (head("CONNECT", "/a/b", None), Err(ForwardError::Method)),
            (head("GET", "/a/../b", None), Err(ForwardError::Path)),
            (head("GET", "/a/b", Some("websocket")), Err(ForwardError::Upgrade)),
            (head("GET", "/a/b", Some("h2c, WebSocket")), Err(ForwardError::Upgrade)),
        ] {
            assert_eq!(check(&rules, &rule, &head), answer, "{head:?}");
        }
    }
}
