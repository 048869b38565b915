//! Answers as responses, and the body that every response has.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Frame, SizeHint};

use crate::mcp::{EventStream, Reply};

/// Bytes of an answer that are handed to the connection at a time: a peer that takes nothing is
/// noticed between two pieces.
const PIECE: usize = 64 * 1024;

/// What a response carries.
#[derive(Debug)]
pub(crate) enum ReplyBody {
    /// So many bytes, or none.
    Full(Bytes),
    /// Events, as they come.
    Events(Box<EventStream>),
}

impl http_body::Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => {
                let piece = bytes.split_to(bytes.len().min(PIECE));
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Self::Events(events) => Pin::new(&mut **events).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_empty(),
            Self::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => {
                SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
            }
            Self::Events(_) => SizeHint::default(),
        }
    }
}

/// The response to a request that was answered.
pub(super) fn answer(reply: Reply) -> Response<ReplyBody> {
    let (mut response, session) = match reply {
        Reply::Accepted => (empty(StatusCode::ACCEPTED), None),
        Reply::Ended => (empty(StatusCode::NO_CONTENT), None),
        Reply::Json(body, session) => (json(StatusCode::OK, body), session),
        Reply::Events(stream, session) => (events(stream), session),
    };
    let session = session.and_then(|id| HeaderValue::from_str(id.as_str()).ok());
    if let Some(session) = session {
        drop(response.headers_mut().insert("mcp-session-id", session));
    }
    response
}

/// A response without a body.
pub(super) fn empty(status: StatusCode) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::Full(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// A response with one JSON text.
pub(super) fn json(status: StatusCode, body: Bytes) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::Full(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    drop(response.headers_mut().insert(header::CONTENT_TYPE, json));
    response
}

fn events(stream: EventStream) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::Events(Box::new(stream)));
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("text/event-stream");
    drop(headers.insert(header::CONTENT_TYPE, kind));
    let cache = HeaderValue::from_static("no-cache, no-transform");
    drop(headers.insert(header::CACHE_CONTROL, cache));
    // For those who put nginx in front after all.
    drop(headers.insert("x-accel-buffering", HeaderValue::from_static("no")));
    response
}

/// Leaves the head of a response as it would be, without the body (RFC 9110 section 9.3.2). hyper
/// does so itself for HTTP/1.1 only.
pub(super) fn strip_body(response: &mut Response<ReplyBody>) {
    let length = http_body::Body::size_hint(response.body()).exact();
    *response.body_mut() = ReplyBody::Full(Bytes::new());
    if let Some(length) = length {
        drop(response.headers_mut().insert(header::CONTENT_LENGTH, length.into()));
    }
}

/// What every response carries.
pub(super) fn finish(response: &mut Response<ReplyBody>) {
    let headers = response.headers_mut();
    let no_store = HeaderValue::from_static("no-store");
    let _cache = headers.entry(header::CACHE_CONTROL).or_insert(no_store);
    let nosniff = HeaderValue::from_static("nosniff");
    drop(headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff));
}
