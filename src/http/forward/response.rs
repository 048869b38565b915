//! Responses of the upstream on their way down: head, and body as it comes.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, Uri, header};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::fields::end_to_end;
use crate::client::Arriving;
use crate::http::places::ForwardPlace;
use crate::mcp::error_event;
use crate::wire::forwarded::Prefix;

/// What a response is passed down under.
#[derive(Debug)]
pub(in crate::http) struct ForwardTerms {
    /// The place that it takes until it is over.
    pub(in crate::http) place: ForwardPlace,
    /// When it has to end; none if it is no event stream.
    pub(in crate::http) events: Option<WaitForCancellationFutureOwned>,
    /// How long the body of another response may say nothing.
    pub(in crate::http) silence: Duration,
    /// What stands in front of the paths that the client knows.
    pub(in crate::http) prefix: Prefix,
    /// The name of the request.
    pub(in crate::http) request: HeaderValue,
}

/// Why a response has no end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrokenOff {
    /// The connection to the upstream broke.
    #[error("the upstream broke off: {0}")]
    Broken(Box<dyn std::error::Error + Send + Sync>),
    /// The upstream said nothing for so long.
    #[error("the upstream said nothing for {} seconds", .0.as_secs_f32())]
    Silent(Duration),
}

/// Is this the head of an event stream?
pub(in crate::http) fn is_events(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let essence = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("text/event-stream")
}

/// The response of this upstream, which was sent this `Host`, as it goes down. What it says of itself
/// and of TLS is for the edge to say.
pub(in crate::http) fn response(
    response: Response<Arriving>,
    (upstream, host): (&Uri, Option<&HeaderValue>),
    terms: ForwardTerms,
) -> Response<Forwarded> {
    let (head, body) = response.into_parts();
    let mut headers = end_to_end(&head.headers);
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        let place = headers.get(&name);
        let place = place.and_then(|place| here(place, (upstream, host), &terms.prefix));
        if let Some(place) = place {
            headers.insert(name, place);
        }
    }
    for name in [header::SERVER, header::ALT_SVC, header::STRICT_TRANSPORT_SECURITY] {
        headers.remove(name);
    }
    if terms.events.is_some() || head.headers.contains_key(header::TRANSFER_ENCODING) {
        // It may get one event more; or it says its length twice (RFC 9112 section 6.3).
        headers.remove(header::CONTENT_LENGTH);
    }
    let plain = !headers.contains_key(header::CONTENT_ENCODING);
    let mut response = Response::new(Forwarded::new(body, terms, plain));
    *response.status_mut() = head.status;
    *response.headers_mut() = headers;
    response
}

/// A place at the upstream, which clients cannot reach, as one at the edge, behind what a proxy takes
/// off. The upstream may take itself for the `host` that it was sent, and cannot know by which scheme
/// clients come. `None` if the place is elsewhere, or would lead elsewhere then.
fn here(
    place: &HeaderValue,
    (upstream, host): (&Uri, Option<&HeaderValue>),
    prefix: &Prefix,
) -> Option<HeaderValue> {
    if place.as_bytes().starts_with(b"/") {
        // Without a host it is at the upstream already.
        return if prefix.as_str().is_empty() { None } else { moved(place.as_bytes(), prefix) };
    }
    let own = format!("{}://{}", upstream.scheme_str()?, upstream.authority()?);
    let host = host.and_then(|host| host.to_str().ok());
    let host = host.filter(|host| upstream.authority().is_none_or(|own| own.as_str() != *host));
    let sent = ["http", "https"].into_iter().filter_map(|it| Some(format!("{it}://{}", host?)));
    std::iter::once(own).chain(sent).find_map(|origin| {
        let (start, rest) = place.as_bytes().split_at_checked(origin.len())?;
        start.eq_ignore_ascii_case(origin.as_bytes()).then_some(())?;
        moved(rest, prefix)
    })
}

/// What follows the origin of a place, as a place at the edge.
fn moved(rest: &[u8], prefix: &Prefix) -> Option<HeaderValue> {
    // Browsers take control characters out, and then two slashes for the begin of a host.
    let elsewhere =
        matches!(rest, [b'/', b'/' | b'\\', ..]) || rest.iter().any(u8::is_ascii_control);
    if elsewhere {
        return None;
    }
    let root: &[u8] = match rest.first() {
        Some(b'/') => b"",
        None | Some(b'?' | b'#') => b"/",
        Some(_) => return None,
    };
    HeaderValue::from_bytes(&[prefix.as_str().as_bytes(), root, rest].concat()).ok()
}

/// The body of a response of the upstream's. Dropping it ends the request there.
pub(crate) struct Forwarded<B = Arriving> {
    /// None when it is over.
    body: Option<B>,
    _place: ForwardPlace,
    events: Option<Events>,
    silence: Duration,
    /// When the silence is too long, where that is counted and it is silent.
    timer: Pin<Box<Sleep>>,
    waits: bool,
    request: HeaderValue,
}

struct Events {
    draining: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Can an event be added?
    plain: bool,
}

impl<B> fmt::Debug for Forwarded<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forwarded").field("request", &self.request).finish_non_exhaustive()
    }
}

impl<B> Forwarded<B> {
    fn new(body: B, terms: ForwardTerms, plain: bool) -> Self {
        let ForwardTerms { place, events, silence, prefix: _, request } = terms;
        let events = events.map(|draining| Events { draining: Box::pin(draining), plain });
        let timer = Box::pin(sleep(silence));
        Self { body: Some(body), _place: place, events, silence, timer, waits: false, request }
    }

    /// The end, because something broke. The readers of an event stream are told in an event of
    /// their own; the connections of others break as well.
    fn break_off(&mut self, why: BrokenOff) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        self.body = None;
        tracing::warn!(request = ?self.request, error = %why, "a passed response broke off");
        if self.events.as_ref().is_some_and(|events| events.plain) {
            // What came of the last event must not become a part of this one.
            let event = [b"\n\n", &*error_event("the upstream broke off")].concat();
            return Poll::Ready(Some(Ok(Frame::data(event.into()))));
        }
        Poll::Ready(Some(Err(why)))
    }

    fn is_drained(&mut self, context: &mut Context<'_>) -> bool {
        let events = self.events.as_mut();
        events.is_some_and(|events| events.draining.as_mut().poll(context).is_ready())
    }
}

impl<B> Body for Forwarded<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let this = self.get_mut();
        if this.is_drained(context) {
            this.body = None;
        }
        let Some(body) = this.body.as_mut() else { return Poll::Ready(None) };
        match Pin::new(body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                this.waits = false;
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => this.break_off(BrokenOff::Broken(error.into())),
            Poll::Ready(None) => {
                this.body = None;
                Poll::Ready(None)
            }
            Poll::Pending if this.events.is_some() => Poll::Pending,
            Poll::Pending => {
                if !std::mem::replace(&mut this.waits, true) {
                    this.timer.as_mut().reset(Instant::now() + this.silence);
                }
                ready!(this.timer.as_mut().poll(context));
                let silence = this.silence;
                this.break_off(BrokenOff::Silent(silence))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            None => true,
            // One event may still come.
            Some(_) if self.events.is_some() => false,
            Some(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Some(body) if self.events.is_none() => body.size_hint(),
            Some(_) => SizeHint::default(),
            None => SizeHint::with_exact(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use futures_util::{StreamExt, stream};
    use http_body_util::{BodyExt, StreamBody};

    use super::*;
    use crate::config::PassRule;
    use crate::drain::Drain;
    use crate::http::places::ForwardPlaces;
    use crate::limits::addr::ClientKey;
    use crate::observe::metrics::Gauge;

    const SILENCE: Duration = Duration::from_mins(1);

    type Frames = Pin<Box<dyn stream::Stream<Item = io::Result<Frame<Bytes>>> + Send>>;

    /// A body of these pieces, each after so many seconds, that breaks off.
    fn breaking(pieces: &'static [(u64, &'static str)]) -> Forwarded<StreamBody<Frames>> {
        passed(pieces, None)
    }

    fn passed(
        pieces: &'static [(u64, &'static str)],
        events: Option<&Drain>,
    ) -> Forwarded<StreamBody<Frames>> {
        let pieces = stream::iter(pieces).then(|(seconds, text)| async move {
            sleep(Duration::from_secs(*seconds)).await;
            Ok(Frame::data(Bytes::from_static(text.as_bytes())))
        });
        let broken = stream::once(async { Err(io::ErrorKind::ConnectionReset.into()) });
        let frames: Frames = Box::pin(pieces.chain(broken));
        let local = ClientKey::from(std::net::IpAddr::from([127, 0, 0, 1]));
        let rule = PassRule { path: String::new(), beneath: false, open: false };
        let places = ForwardPlaces::new(&Gauge::default());
        let terms = ForwardTerms {
            place: places.under(&rule).take(local).unwrap(),
            events: events.map(Drain::draining),
            silence: SILENCE,
            prefix: Prefix::default(),
            request: HeaderValue::from_static("0"),
        };
        Forwarded::new(StreamBody::new(frames), terms, true)
    }

    async fn next<B>(body: &mut Forwarded<B>) -> Option<Result<String, String>>
    where
        Forwarded<B>: Body<Data = Bytes, Error = BrokenOff> + Unpin,
    {
        let frame = body.frame().await?;
        let text = |frame: Frame<Bytes>| String::from_utf8(frame.into_data().unwrap().to_vec());
        Some(frame.map(|frame| text(frame).unwrap()).map_err(|error| error.to_string()))
    }

    #[tokio::test(start_paused = true)]
    async fn an_ordinary_body_that_breaks_off_is_an_error() {
        let mut body = breaking(&[(1, "a"), (59, "b")]);
        assert_eq!(next(&mut body).await, Some(Ok("a".into())));
        assert_eq!(next(&mut body).await, Some(Ok("b".into())));
        let broken = next(&mut body).await.unwrap().unwrap_err();
        assert!(broken.starts_with("the upstream broke off: "), "{broken}");
        assert_eq!(next(&mut body).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_ordinary_body_may_be_silent_for_a_while() {
        let mut body = breaking(&[(1, "a"), (61, "b")]);
        assert_eq!(next(&mut body).await, Some(Ok("a".into())));
        // Slow readers do not count as silence.
        sleep(Duration::from_mins(10)).await;
        let begun = Instant::now();
        let broken = next(&mut body).await.unwrap().unwrap_err();
        assert_eq!(broken, "the upstream said nothing for 60 seconds");
        assert_eq!(begun.elapsed(), SILENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_stream_may_be_silent_and_says_that_it_broke_off() {
        let drain = Drain::default();
        let mut body = passed(&[(1, "data: 1\n\n"), (7200, "data: 2")], Some(&drain));
        assert_eq!(next(&mut body).await, Some(Ok("data: 1\n\n".into())));
        assert_eq!(next(&mut body).await, Some(Ok("data: 2".into())));
        let last = "\n\nevent: error\ndata: {\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32603,\
                    \"message\":\"the upstream broke off\"}}\n\n";
        assert_eq!(next(&mut body).await, Some(Ok(last.into())));
        assert_eq!(next(&mut body).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_stream_ends_with_the_drain() {
        let drain = Drain::default();
        let mut body = passed(&[(1, "data: 1\n\n"), (7200, "data: 2\n\n")], Some(&drain));
        assert_eq!(next(&mut body).await, Some(Ok("data: 1\n\n".into())));
        let begun = Instant::now();
        let stop = async {
            sleep(Duration::from_secs(5)).await;
            drain.begin();
        };
        let (ended, ()) = tokio::join!(next(&mut body), stop);
        assert_eq!((ended, begun.elapsed()), (None, Duration::from_secs(5)));
    }

    #[test]
    fn places_at_the_upstream_are_places_here() {
        let upstream = Uri::from_static("http://Inner:8000/mcp");
        let mut headers = HeaderMap::new();
        let sent = HeaderValue::from_static("mcp.example.com");
        let behind = |place: &str, prefix: &Prefix| {
            let place = HeaderValue::from_str(place).unwrap();
            let place = here(&place, (&upstream, Some(&sent)), prefix)?;
            Some(place.to_str().unwrap().to_owned())
        };
        let of = |place: &str| behind(place, &Prefix::default());
        for (place, found) in [
            ("http://inner:8000/a/b?c#d", Some("/a/b?c#d")),
            ("HTTP://INNER:8000", Some("/")),
            ("http://inner:8000?a", Some("/?a")),
            ("http://inner:8000#a", Some("/#a")),
            ("http://mcp.example.com/a", Some("/a")),
            ("https://mcp.example.com/a?b", Some("/a?b")),
            ("https://mcp.example.com:8443/a", None),
            ("https://mcp.example.com.evil.example/", None),
            ("ftp://mcp.example.com/a", None),
            ("/a", None),
            ("http://inner:80001/a", None),
            ("http://inner:8000.evil.example/", None),
            ("http://inner:8000@evil.example/", None),
            ("http://inner:8000//evil.example/", None),
            ("http://inner:8000/\\evil.example/", None),
            ("http://inner:8000/\t/evil.example/", None),
            ("https://inner:8000/a", None),
            ("http://inner/a", None),
            ("", None),
        ] {
            assert_eq!(of(place).as_deref(), found, "{place}");
        }
        headers.insert("x-forwarded-prefix", HeaderValue::from_static("/edge/1/"));
        let prefix = Prefix::of(&headers).unwrap();
        for (place, found) in [
            ("http://inner:8000/a", Some("/edge/1/a")),
            ("http://inner:8000?a", Some("/edge/1/?a")),
            ("/a?b#c", Some("/edge/1/a?b#c")),
            ("/", Some("/edge/1/")),
            ("//evil.example/", None),
            ("/\\evil.example/", None),
            ("/\t/evil.example/", None),
            ("a/b", None),
            ("https://elsewhere.example/a", None),
        ] {
            assert_eq!(behind(place, &prefix).as_deref(), found, "{place}");
        }
    }

    #[test]
    fn event_streams_are_known_by_their_type() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("content-type", value.parse().unwrap());
            is_events(&headers)
        };
        assert!(of("text/event-stream") && of("Text/Event-Stream; charset=utf-8"));
        assert!(!of("text/plain") && !of("text/event-streams") && !is_events(&HeaderMap::new()));
    }
}
