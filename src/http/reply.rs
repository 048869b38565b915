//! Answers and refusals as responses. The one table of statuses and codes is [`Refusal::verdict`].

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Frame, SizeHint};

use super::head::{BadHead, Route};
use crate::body::BodyError;
use crate::guard::Deny;
use crate::jsonrpc::{self, RequestId, code};
use crate::mcp::{EventStream, Reason, Refused, Reply};

/// Bytes of an answer that are handed to the connection at a time: a peer that takes nothing is
/// noticed between two pieces.
const PIECE: usize = 64 * 1024;

/// How long a client is asked to stay away when a place is missing.
const PLACE_RETRY: Duration = Duration::from_secs(5);

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

/// Why a request is not answered with what it asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The guard does not let it pass.
    Denied(Deny),
    /// Nothing lives at this path.
    NotFound,
    /// There is no authorization server here.
    NoOAuth,
    /// The route does not know the method.
    Method(Route),
    /// The head is wrong.
    Head(BadHead),
    /// The head has more fields than are allowed.
    TooManyHeaders,
    /// The body did not come, or not as it should.
    Body(BodyError),
    /// The transport refuses it.
    Mcp(Refused),
}

/// What a refusal becomes.
struct Verdict {
    status: StatusCode,
    code: i32,
    label: &'static str,
    text: String,
    retry: Option<Duration>,
}

impl Verdict {
    fn new(status: StatusCode, code: i32, label: &'static str, text: impl Into<String>) -> Self {
        Self { status, code, label, text: text.into(), retry: None }
    }

    fn retry(self, after: Duration) -> Self {
        Self { retry: Some(after), ..self }
    }
}

impl Refusal {
    /// Its name in logs.
    pub(super) fn label(&self) -> &'static str {
        self.verdict().label
    }

    fn verdict(&self) -> Verdict {
        use StatusCode as S;
        let request = code::INVALID_REQUEST;
        let transport = code::TRANSPORT;
        match self {
            Self::Denied(deny) => denied(*deny),
            Self::NotFound => {
                Verdict::new(S::NOT_FOUND, transport, "not_found", "nothing lives at this path")
            }
            Self::NoOAuth => Verdict::new(
                S::NOT_FOUND,
                transport,
                "not_found",
                "this server has no authorization server: it takes a bearer token",
            ),
            Self::Method(route) => Verdict::new(
                S::METHOD_NOT_ALLOWED,
                transport,
                "method_not_allowed",
                format!("this path answers {}", route.allow()),
            ),
            Self::Head(BadHead::MediaType) => Verdict::new(
                S::UNSUPPORTED_MEDIA_TYPE,
                transport,
                "unsupported_media_type",
                "Content-Type must be application/json, without Content-Encoding",
            ),
            Self::Head(BadHead::Field(name)) => Verdict::new(
                S::BAD_REQUEST,
                transport,
                "bad_header",
                format!("the header {name} must come once, in visible ASCII"),
            ),
            Self::TooManyHeaders => Verdict::new(
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                request,
                "head_too_large",
                "too many header fields",
            ),
            Self::Body(error) => {
                let (status, label) = match error {
                    BodyError::TooLarge(_) => (S::PAYLOAD_TOO_LARGE, "body_too_large"),
                    BodyError::Timeout => (S::REQUEST_TIMEOUT, "body_timeout"),
                    BodyError::Broken => (S::BAD_REQUEST, "body_broken"),
                };
                Verdict::new(status, request, label, error.to_string())
            }
            Self::Mcp(refused) => refused_by_mcp(&refused.reason),
        }
    }

    fn id(&self) -> Option<&RequestId> {
        match self {
            Self::Mcp(refused) => refused.id.as_ref(),
            Self::Denied(_)
            | Self::NotFound
            | Self::NoOAuth
            | Self::Method(_)
            | Self::Head(_)
            | Self::TooManyHeaders
            | Self::Body(_) => None,
        }
    }

    /// Before anybody speaks JSON-RPC, the body is plain JSON: a JSON-RPC error beside 401 or 403
    /// would be read as a server of another era.
    fn speaks_jsonrpc(&self) -> bool {
        match self {
            Self::Denied(Deny::Rate(_)) | Self::TooManyHeaders | Self::Body(_) | Self::Mcp(_) => {
                true
            }
            Self::Head(_) => true,
            Self::Denied(_) | Self::NotFound | Self::NoOAuth | Self::Method(_) => false,
        }
    }

    /// The response.
    pub(super) fn response(&self) -> Response<ReplyBody> {
        let Verdict { status, code, label, text, retry } = self.verdict();
        let body = if self.speaks_jsonrpc() {
            jsonrpc::error_text(self.id(), code, &text)
        } else {
            serde_json::json!({ "error": label, "message": text }).to_string().into()
        };
        let mut response = json(status, body);
        let headers = response.headers_mut();
        if let Some(after) = retry {
            // RFC 9110 section 10.2.3: whole seconds; rounded up, or the client comes too soon.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            drop(headers.insert(header::RETRY_AFTER, seconds.max(1).into()));
        }
        let challenge = match self {
            Self::Denied(Deny::TokenMissing) => Some(r#"Bearer realm="mcp""#),
            Self::Denied(Deny::TokenWrong) => Some(r#"Bearer realm="mcp", error="invalid_token""#),
            Self::Denied(Deny::TokenMalformed) => {
                Some(r#"Bearer realm="mcp", error="invalid_request""#)
            }
            _ => None,
        };
        if let Some(challenge) = challenge {
            let challenge = HeaderValue::from_static(challenge);
            drop(headers.insert(header::WWW_AUTHENTICATE, challenge));
        }
        if let Some(route) = self.allow() {
            drop(headers.insert(header::ALLOW, HeaderValue::from_static(route.allow())));
        }
        response
    }

    fn allow(&self) -> Option<Route> {
        match self {
            Self::Method(route) => Some(*route),
            Self::Mcp(Refused { reason: Reason::NoStream, .. }) => Some(Route::Messages),
            _ => None,
        }
    }
}

fn denied(deny: Deny) -> Verdict {
    use StatusCode as S;
    let code = code::TRANSPORT;
    match deny {
        Deny::HostMalformed => {
            let text = "exactly one Host is needed, and the same as in the request target";
            Verdict::new(S::BAD_REQUEST, code, "bad_host", text)
        }
        Deny::Host => Verdict::new(
            S::FORBIDDEN,
            code,
            "foreign_host",
            "this server is not known by that Host; its operator can add it with --allow-host",
        ),
        Deny::Origin => Verdict::new(
            S::FORBIDDEN,
            code,
            "foreign_origin",
            "pages of that Origin may not call; its operator can add it with --allow-origin",
        ),
        Deny::Rate(wait) => {
            let text = "too many requests from this address";
            Verdict::new(S::TOO_MANY_REQUESTS, code, "rate_limited", text).retry(wait)
        }
        Deny::TokenMissing => {
            let text = "a token is needed: send `Authorization: Bearer <token>`";
            Verdict::new(S::UNAUTHORIZED, code, "unauthorized", text)
        }
        Deny::TokenWrong => {
            Verdict::new(S::UNAUTHORIZED, code, "unauthorized", "the token is not valid")
        }
        Deny::TokenMalformed => Verdict::new(
            S::BAD_REQUEST,
            code,
            "bad_authorization",
            "exactly one header of the form `Authorization: Bearer <token>` is needed",
        ),
    }
}

fn refused_by_mcp(reason: &Reason) -> Verdict {
    use StatusCode as S;
    let text = reason.to_string();
    let request = code::INVALID_REQUEST;
    let transport = code::TRANSPORT;
    let internal = code::INTERNAL_ERROR;
    let make = |status, code, label| Verdict::new(status, code, label, text.clone());
    match reason {
        Reason::Malformed(malformed) => make(S::BAD_REQUEST, malformed.code(), "malformed"),
        Reason::Modern => make(S::BAD_REQUEST, transport, "modern"),
        Reason::Version => make(S::BAD_REQUEST, transport, "version"),
        Reason::NoSession | Reason::NoSessionInQuery => {
            make(S::BAD_REQUEST, transport, "no_session")
        }
        Reason::UnknownSession => make(S::NOT_FOUND, code::SESSION_NOT_FOUND, "unknown_session"),
        Reason::UnknownEvent => make(S::BAD_REQUEST, transport, "unknown_event"),
        Reason::SessionLive => make(S::BAD_REQUEST, request, "session_live"),
        Reason::NotAcceptable | Reason::NotAStream => {
            make(S::NOT_ACCEPTABLE, transport, "not_acceptable")
        }
        Reason::NoStream => make(S::METHOD_NOT_ALLOWED, transport, "no_stream"),
        Reason::NoBatch | Reason::InitializeInBatch => make(S::BAD_REQUEST, request, "batch"),
        Reason::DuplicateId => make(S::BAD_REQUEST, request, "duplicate_id"),
        Reason::TooManyCalls => {
            make(S::TOO_MANY_REQUESTS, transport, "too_many_calls").retry(PLACE_RETRY)
        }
        Reason::ClientSessionsFull => {
            make(S::TOO_MANY_REQUESTS, transport, "too_many_sessions").retry(PLACE_RETRY)
        }
        Reason::ClientStreamsFull => {
            make(S::TOO_MANY_REQUESTS, transport, "too_many_streams").retry(PLACE_RETRY)
        }
        Reason::SessionsFull => {
            make(S::SERVICE_UNAVAILABLE, transport, "sessions_full").retry(PLACE_RETRY)
        }
        Reason::ChildrenFull => {
            make(S::SERVICE_UNAVAILABLE, transport, "children_full").retry(PLACE_RETRY)
        }
        Reason::BackendBusy => {
            make(S::SERVICE_UNAVAILABLE, internal, "backend_busy").retry(PLACE_RETRY)
        }
        Reason::Draining => make(S::SERVICE_UNAVAILABLE, transport, "draining").retry(PLACE_RETRY),
        Reason::BackendFailed(_) => make(S::BAD_GATEWAY, internal, "backend_failed"),
        Reason::NoRandomness => make(S::INTERNAL_SERVER_ERROR, internal, "no_randomness"),
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

fn json(status: StatusCode, body: Bytes) -> Response<ReplyBody> {
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
