//! Answers as responses, and the body that every response has.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::{Frame, SizeHint};

use super::forward::{BrokenOff, Forwarded};
use crate::mcp::{self, EventStream, Reply};
use crate::wire::fields;

/// Bytes of an answer that are handed to the connection at a time: a peer that takes nothing is
/// noticed between two pieces.
const PIECE: usize = 64 * 1024;

/// Room for the fields that most responses get.
const FIELDS: usize = 12;

/// What a response carries.
#[derive(Debug)]
pub(crate) enum ReplyBody {
    /// So many bytes, or none.
    Full(Bytes),
    /// Events, as they come.
    Events(Box<EventStream>),
    /// What the upstream says, as it comes.
    Forwarded(Box<Forwarded>),
}

impl http_body::Body for ReplyBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match self.get_mut() {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => {
                let piece = bytes.split_to(bytes.len().min(PIECE));
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Self::Events(events) => {
                let frame = std::task::ready!(Pin::new(&mut **events).poll_frame(context));
                Poll::Ready(frame.map(|frame| frame.map_err(|never| match never {})))
            }
            Self::Forwarded(forwarded) => Pin::new(&mut **forwarded).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_empty(),
            Self::Events(_) => false,
            Self::Forwarded(forwarded) => forwarded.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => {
                SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
            }
            Self::Events(_) => SizeHint::default(),
            Self::Forwarded(forwarded) => forwarded.size_hint(),
        }
    }
}

/// The response to a request that was answered.
pub(super) fn answer(reply: Reply) -> Response<ReplyBody> {
    let Reply { status, session, body } = reply;
    let mut response = match body {
        mcp::Body::Empty => empty(status),
        mcp::Body::Json(text) => json(status, text),
        mcp::Body::Events(stream) => events(status, stream),
    };
    let session = session.and_then(|id| HeaderValue::from_str(id.as_str()).ok());
    if let Some(session) = session {
        response.headers_mut().insert(fields::SESSION_ID, session);
    }
    response
}

/// Well, or not: that and no more.
pub(super) fn health(well: bool) -> Response<ReplyBody> {
    empty(if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE })
}

fn response(status: StatusCode, body: ReplyBody) -> Response<ReplyBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = HeaderMap::with_capacity(FIELDS);
    response
}

/// A response without a body.
pub(super) fn empty(status: StatusCode) -> Response<ReplyBody> {
    response(status, ReplyBody::Full(Bytes::new()))
}

/// A response with one JSON text.
pub(super) fn json(status: StatusCode, body: Bytes) -> Response<ReplyBody> {
    let mut response = response(status, ReplyBody::Full(body));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn events(status: StatusCode, stream: EventStream) -> Response<ReplyBody> {
    let mut response = response(status, ReplyBody::Events(Box::new(stream)));
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("text/event-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    let cache = HeaderValue::from_static("no-cache, no-transform");
    headers.insert(header::CACHE_CONTROL, cache);
    // For those who put nginx in front after all.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Leaves the head of a response as it would be, without the body (RFC 9110 section 9.3.2). hyper
/// does so itself for HTTP/1.1 only. What is passed has no body there already.
pub(super) fn strip_body(response: &mut Response<ReplyBody>) {
    if matches!(response.body(), ReplyBody::Forwarded(_)) {
        return;
    }
    let length = http_body::Body::size_hint(response.body()).exact();
    *response.body_mut() = ReplyBody::Full(Bytes::new());
    if let Some(length) = length {
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
}

/// What every response carries that does not say otherwise: nobody shows it in a frame, guesses its
/// type, or learns where from it was reached.
pub(super) const EVERY: [(HeaderName, &str); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    // The filters that this turns off were worse than what they kept out.
    (header::X_XSS_PROTECTION, "0"),
];
/// And what the edge's own carry: no page is among them, and nothing to keep. Pages of an upstream
/// may need scripts, and know how long they are good.
pub(super) const OWN: [(HeaderName, &str); 2] = [
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::CACHE_CONTROL, "no-store"),
];
/// For a year this host is reached by TLS only.
const ONLY_TLS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Puts on what every response carries.
pub(super) fn finish(response: &mut Response<ReplyBody>, request: HeaderValue, only_tls: bool) {
    let own = if matches!(response.body(), ReplyBody::Forwarded(_)) { &[][..] } else { &OWN[..] };
    let headers = response.headers_mut();
    for (name, value) in EVERY.iter().chain(own) {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    // The one that stands in the log, and that an upstream was told.
    headers.insert(fields::REQUEST_ID, request);
    if only_tls {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, ONLY_TLS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(mut response: Response<ReplyBody>, only_tls: bool) -> Response<ReplyBody> {
        finish(&mut response, HeaderValue::from_static("abc"), only_tls);
        response
    }

    #[test]
    fn every_response_is_dressed() {
        let plain = finished(json(StatusCode::NOT_FOUND, Bytes::from_static(b"{}")), false);
        for (name, value) in [
            ("x-request-id", Some("abc")),
            ("x-frame-options", Some("DENY")),
            ("x-content-type-options", Some("nosniff")),
            ("referrer-policy", Some("no-referrer")),
            ("x-xss-protection", Some("0")),
            ("content-security-policy", Some("default-src 'none'; frame-ancestors 'none'")),
            ("cache-control", Some("no-store")),
            ("strict-transport-security", None),
            ("server", None),
        ] {
            let found = plain.headers().get(name).map(|value| value.to_str().unwrap());
            assert_eq!(found, value, "{name}");
        }
        let tls = finished(empty(StatusCode::ACCEPTED), true);
        assert_eq!(tls.headers()["strict-transport-security"], "max-age=31536000");
    }

    #[test]
    fn what_is_set_stays() {
        let mut response = empty(StatusCode::OK);
        response.headers_mut().insert("cache-control", HeaderValue::from_static("no-cache"));
        assert_eq!(finished(response, false).headers()["cache-control"], "no-cache");
    }
}
