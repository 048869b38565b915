//! Paths of the upstream that are passed through as they are: how requests go up.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header, request,
};
use http_body::Body;
use tokio::select;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::head;
use super::passed::{self, Terms};
use super::refusal::Refusal;
use super::reply::ReplyBody;
use super::rules::Rules;
use super::{App, Arrived, Front};
use crate::caller::Principal;
use crate::client::{self, Arriving, Fault, Outgoing, Passable};
use crate::config::{PASSED_AT_ONCE, PassRule};
use crate::limits::addr::ClientKey;
use crate::limits::body::{self, BodyError};
use crate::limits::bytes::Quota;
use crate::limits::places::{PerClient, Permit};
use crate::mcp::Reason;
use crate::observe::metrics::Gauge;

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

/// Requests that may be under way at once, each with a connection of its own to the upstream: of
/// one client, enough for any page.
const PER_CLIENT: u32 = 64;

/// Places of requests that are passed through. Open rules have places of their own: strangers must
/// never hold one that a request with a token needs.
#[derive(Debug)]
pub(super) struct Places {
    open: Pool,
    closed: Pool,
}

/// Places of requests under open rules, or under closed ones.
#[derive(Debug)]
struct Pool {
    each: PerClient,
    all: Arc<Semaphore>,
    each_streams: PerClient,
    /// None where a token is wanted: who has one is not a stranger, and has its connections only.
    all_streams: Option<Arc<Semaphore>>,
}

impl Pool {
    fn new(streams_per_client: u32, all_streams: Option<Arc<Semaphore>>, streams: &Gauge) -> Self {
        Self {
            each: PerClient::new(PER_CLIENT, Gauge::default()),
            all: Arc::new(Semaphore::new(PASSED_AT_ONCE)),
            each_streams: PerClient::new(streams_per_client, streams.clone()),
            all_streams,
        }
    }

    fn take(&self, client: ClientKey) -> Result<Place, Unpassed> {
        let own = self.each.try_take(client).ok_or(Unpassed::ClientFull)?;
        Ok(Place { _own: own, _all: Some(one_of(&self.all)?) })
    }

    fn take_stream(&self, client: ClientKey) -> Result<Place, Refusal> {
        let own = self.each_streams.try_take(client).ok_or(Reason::ClientStreamsFull)?;
        let all = self.all_streams.as_ref().map(one_of).transpose()?;
        Ok(Place { _own: own, _all: all })
    }
}

fn one_of(all: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Unpassed> {
    // Closed it never is.
    Arc::clone(all).try_acquire_owned().map_err(|_none_left| Unpassed::Full)
}

impl Places {
    /// `streams_per_client` is how many event streams one client may have open; `streams` counts
    /// them all.
    pub(super) fn new(streams_per_client: u32, streams: &Gauge) -> Self {
        let all_streams = Arc::new(Semaphore::new(PASSED_AT_ONCE));
        Self {
            open: Pool::new(streams_per_client, Some(all_streams), streams),
            closed: Pool::new(streams_per_client, None, streams),
        }
    }

    fn under(&self, rule: &PassRule) -> &Pool {
        if rule.open { &self.open } else { &self.closed }
    }
}

/// The place of a request that is passed through, or of an event stream.
#[derive(Debug)]
pub(super) struct Place {
    _own: Permit,
    _all: Option<OwnedSemaphorePermit>,
}

#[cfg(test)]
impl Place {
    pub(super) fn of_stream(place: Permit) -> Self {
        Self { _own: place, _all: None }
    }
}

/// Why a request is not passed through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unpassed {
    /// The client has as many under way as it may.
    ClientFull,
    /// All clients have.
    Full,
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

/// May this request go up under this rule?
fn check(rules: &Rules, rule: &PassRule, head: &request::Parts) -> Result<(), Unpassed> {
    if matches!(head.method, Method::TRACE | Method::CONNECT) {
        return Err(Unpassed::Method);
    }
    if !rules.is_plain(rule, head.uri.path()) {
        return Err(Unpassed::Path);
    }
    if asks_for_another_protocol(&head.headers) { Err(Unpassed::Upgrade) } else { Ok(()) }
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
                kept.remove(name);
            }
        }
    }
    for name in HOP_BY_HOP {
        kept.remove(name);
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
            let admitted = self.guard.admit(arrived.visit).await?;
            arrived.conn.is_known();
            admitted.principal().clone()
        };
        check(&front.rules, rule, arrived.head)?;
        let client = arrived.conn.client.key();
        let places = front.places.under(rule);
        let wants_events = head::asks_for_events(&arrived.head.headers);
        let mut place =
            if wants_events { places.take_stream(client)? } else { places.take(client)? };
        // Whoever waits for a stream may wait long for its begin, too.
        let patience = (!wants_events).then_some(front.upstream.patience());
        let request = self.upward(arrived, front, principal)?;
        let host = request.headers().get(header::HOST).cloned();
        let response = self.carry((front, arrived.tag), request, patience, body).await?;
        if let (StatusCode::MISDIRECTED_REQUEST, Some(host)) = (response.status(), &host) {
            front.upstream.refused_host(response.status(), host);
        }
        if response.status().is_informational() {
            return Err(failed(arrived.tag, Fault::Broken("it changes the protocol".into())));
        }
        let events = passed::is_events(response.headers());
        if events && !wants_events {
            match places.take_stream(client) {
                Ok(among_streams) => place = among_streams,
                // It is done: refused, it would be done again.
                Err(_full) if !arrived.head.method.is_safe() => {}
                Err(full) => return Err(full),
            }
        }
        let terms = Terms {
            place,
            events: events.then(|| self.drain.draining()),
            silence: front.upstream.patience(),
            prefix: arrived.prefix.clone(),
            request: arrived.tag.clone(),
        };
        Ok(passed::response(response, (front.upstream.url(), host.as_ref()), terms))
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
        let mut fields = front.upstream.fields(&self.caller(arrived, principal, Quota::default()));
        let passable: HeaderMap = Passable::of(&end_to_end(&head.headers)).collect();
        fields.extend(passable);
        *request.headers_mut() = fields;
        Ok(request)
    }

    /// Sends head and body up.
    async fn carry<B>(
        &self,
        (front, tag): (&Front, &HeaderValue),
        mut request: Request<()>,
        patience: Option<Duration>,
        body: &mut Option<B>,
    ) -> Result<Response<Arriving>, Refusal>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let Some(taken) = body.as_ref() else { return Err(Refusal::Body(BodyError::Broken)) };
        body::check_declared(taken, self.body).map_err(Refusal::Body)?;
        let Some(taken) = body.take() else { return Err(Refusal::Body(BodyError::Broken)) };
        if !taken.is_end_stream() && taken.size_hint().exact().is_none() {
            // Unasked, hyper sends no body of such a length with methods that seldom have one.
            let chunked = HeaderValue::from_static("chunked");
            request.headers_mut().insert(header::TRANSFER_ENCODING, chunked);
        }
        let (passing, fate) = body::hand_on(taken, self.body);
        let request: Request<Outgoing> = request.map(|()| client::passed(passing));
        let sent = select! {
            sent = front.upstream.send(request, patience) => sent,
            () = fate.overdue() => Err(Fault::Late(self.body.total)),
        };
        sent.map_err(|fault| match fate.error() {
            Some(error) => Refusal::Body(error),
            None => failed(tag, fault),
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
            (head("TRACE", "/a/b", None), Err(Unpassed::Method)),
            (head("CONNECT", "/a/b", None), Err(Unpassed::Method)),
            (head("GET", "/a/../b", None), Err(Unpassed::Path)),
            (head("GET", "/a/b", Some("websocket")), Err(Unpassed::Upgrade)),
            (head("GET", "/a/b", Some("h2c, WebSocket")), Err(Unpassed::Upgrade)),
        ] {
            assert_eq!(check(&rules, &rule, &head), answer, "{head:?}");
        }
    }

    fn key(last: u8) -> ClientKey {
        ClientKey::from(std::net::IpAddr::from([192, 0, 2, last]))
    }

    #[test]
    fn strangers_never_take_a_place_that_a_token_holder_needs() {
        let gauge = Gauge::default();
        let places = Places::new(64, &gauge);
        let rule = |open| PassRule { path: String::new(), beneath: true, open };
        let (open, closed) = (places.under(&rule(true)), places.under(&rule(false)));
        let strangers = || (0..8).flat_map(|last| (0..64).map(move |_| key(last)));
        let taken: Vec<_> = strangers().map(|client| open.take(client).unwrap()).collect();
        let streams: Vec<_> = strangers().map(|client| open.take_stream(client).unwrap()).collect();
        assert_eq!(open.take(key(9)).unwrap_err(), Unpassed::Full);
        let full = open.take_stream(key(9)).unwrap_err();
        assert!(matches!(full, Refusal::Unpassed(Unpassed::Full)), "{full:?}");
        // Neither in all, nor of an address that strangers have as well.
        for last in [0, 9] {
            assert!(closed.take(key(last)).is_ok() && closed.take_stream(key(last)).is_ok());
        }
        assert_eq!(gauge.value(), 512);
        drop((taken, streams));
        assert!(open.take(key(9)).is_ok() && open.take_stream(key(9)).is_ok());
    }

    #[test]
    fn places_are_of_one_client_and_in_all() {
        let places = Places::new(1, &Gauge::default());
        let of = |last: u8| places.closed.take(key(last));
        let mut taken: Vec<_> =
            (0..8).flat_map(|last| (0..64).map(move |_| last)).map(of).collect();
        assert!(taken.iter().all(Result::is_ok));
        assert_eq!(of(0).unwrap_err(), Unpassed::ClientFull);
        assert_eq!(of(9).unwrap_err(), Unpassed::Full);
        drop(taken.pop());
        assert!(of(9).is_ok() && of(7).is_ok());
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
}
