//! The one table of what a refusal becomes: its status, JSON-RPC code, label and text.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::refusal::{BadHead, ForwardError, NoRequest, Refusal};
use super::reply::{self, ReplyBody};
use super::route;
use crate::client::SendError;
use crate::guard::Deny;
use crate::limits::body::BodyError;
use crate::limits::bytes::Short;
use crate::mcp::Reason;
use crate::wire::jsonrpc::{self, RequestId, code};

/// How long a client is asked to stay away when a place is missing.
const PLACE_RETRY: Duration = Duration::from_secs(5);

/// What a refusal becomes.
#[derive(Debug)]
pub(super) struct Verdict {
    status: StatusCode,
    speech: Speech,
    /// Its name in logs and metrics.
    pub(super) label: &'static str,
    text: Cow<'static, str>,
    header: Option<Extra>,
}

/// How the body speaks.
#[derive(Debug)]
enum Speech {
    /// Plain JSON: a JSON-RPC error beside 401 or 403 would be read as a server of another era.
    Plain,
    /// A JSON-RPC error with this code.
    JsonRpc(i32),
}

/// A header field that explains the status.
#[derive(Debug)]
enum Extra {
    /// When to come back (RFC 9110 section 10.2.3).
    RetryAfter(Duration),
    /// What credential is needed (RFC 6750 section 3).
    Challenge(&'static str),
    /// Which methods there are (RFC 9110 section 10.2.1).
    Allow(&'static str),
}

impl Extra {
    fn field(self) -> (header::HeaderName, HeaderValue) {
        match self {
            Self::RetryAfter(wait) => {
                // Whole seconds; rounded up, or the client comes too soon.
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                (header::RETRY_AFTER, seconds.max(1).into())
            }
            Self::Challenge(text) => (header::WWW_AUTHENTICATE, HeaderValue::from_static(text)),
            Self::Allow(text) => (header::ALLOW, HeaderValue::from_static(text)),
        }
    }
}

fn plain(status: StatusCode, label: &'static str, text: impl Into<Cow<'static, str>>) -> Verdict {
    Verdict { status, speech: Speech::Plain, label, text: text.into(), header: None }
}

fn rpc(
    status: StatusCode,
    code: i32,
    label: &'static str,
    text: impl Into<Cow<'static, str>>,
) -> Verdict {
    Verdict { status, speech: Speech::JsonRpc(code), label, text: text.into(), header: None }
}

impl Verdict {
    fn with(self, header: Extra) -> Self {
        Self { header: Some(header), ..self }
    }

    fn later(self) -> Self {
        self.place_in(None)
    }

    /// A place can be free after this time. Unless that is known, anybody may leave at any moment.
    fn place_in(self, wait: Option<Duration>) -> Self {
        self.with(Extra::RetryAfter(wait.unwrap_or(PLACE_RETRY)))
    }

    /// The response to the request with this JSON-RPC id; `plain` for a client that speaks no
    /// JSON-RPC.
    pub(super) fn response(self, id: Option<&RequestId>, plain: bool) -> Response<ReplyBody> {
        let Self { status, speech, label, text, header } = self;
        let body = match speech {
            Speech::JsonRpc(code) if !plain => jsonrpc::error_text(id, code, &text),
            Speech::Plain | Speech::JsonRpc(_) => error_body(label, &text),
        };
        let mut response = reply::json(status, body);
        if let Some((name, value)) = header.map(Extra::field) {
            response.headers_mut().insert(name, value);
        }
        response
    }

    /// What this refusal becomes.
    pub(super) fn of(refusal: &Refusal) -> Self {
        use StatusCode as S;
        match refusal {
            Refusal::Denied(deny) => denied(*deny),
            Refusal::NotFound(whereabouts) => plain(S::NOT_FOUND, "not_found", whereabouts.clone()),
            Refusal::NoOAuth => plain(
                S::NOT_FOUND,
                "not_found",
                "this server has no authorization server: it takes a bearer token",
            ),
            Refusal::Method(route) => {
                let text = format!("this path answers {}", route.allow());
                plain(S::METHOD_NOT_ALLOWED, "method_not_allowed", text)
                    .with(Extra::Allow(route.allow()))
            }
            Refusal::Head(BadHead::MediaType) => rpc(
                S::UNSUPPORTED_MEDIA_TYPE,
                code::TRANSPORT,
                "unsupported_media_type",
                "Content-Type must be application/json, in UTF-8, without Content-Encoding",
            ),
            Refusal::Head(BadHead::Field(name)) => {
                let text = format!("the header {name} must come once, in visible ASCII");
                rpc(S::BAD_REQUEST, code::TRANSPORT, "bad_header", text)
            }
            Refusal::HeadTooLarge => rpc(
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                code::INVALID_REQUEST,
                "head_too_large",
                "the request head is too large, or has too many fields",
            ),
            Refusal::Body(BodyError::Short(short)) => short_of_memory(*short),
            Refusal::Body(error) => {
                let (status, label) = match error {
                    BodyError::TooLarge(_) => (S::PAYLOAD_TOO_LARGE, "body_too_large"),
                    BodyError::Timeout => (S::REQUEST_TIMEOUT, "body_timeout"),
                    BodyError::Broken | BodyError::Short(_) => (S::BAD_REQUEST, "body_broken"),
                };
                rpc(status, code::INVALID_REQUEST, label, error.to_string())
            }
            Refusal::Mcp(refused) => refused_by_mcp(&refused.reason),
            Refusal::Forwarded(malformed) => {
                plain(S::BAD_REQUEST, "bad_forwarded", malformed.clone())
            }
            Refusal::NotForwarded(error) => not_forwarded(error),
        }
    }
}

/// An error for clients that speak no JSON-RPC.
fn error_body(label: &str, text: &str) -> Bytes {
    serde_json::json!({ "error": label, "message": text }).to_string().into()
}

impl NoRequest {
    /// Its row of the table: the status, the label, and the text.
    fn row(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::PlainHttp => (
                S::BAD_REQUEST,
                "plain_http",
                "This port speaks TLS. Use https:// instead of http://.",
            ),
            Self::HeadTimeout => {
                (S::REQUEST_TIMEOUT, "head_timeout", "the request head did not arrive in time")
            }
            // Also for what RFC 9110 gives a 501 or 505: no bytes of a peer's make a 5xx here.
            Self::Malformed(text) => (S::BAD_REQUEST, "bad_request", text),
            Self::Expectation => (
                S::EXPECTATION_FAILED,
                "expectation_failed",
                "`100-continue` is the only expectation that can be met",
            ),
            Self::TargetTooLong => {
                (S::URI_TOO_LONG, "uri_too_long", "the request target is too long")
            }
            Self::HeadTooLarge => (
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "head_too_large",
                "the request head is too large",
            ),
        }
    }

    /// Its name in logs and metrics.
    pub(crate) fn label(self) -> &'static str {
        self.row().1
    }

    /// The response as HTTP/1.1 writes it: there is no request that a library could answer.
    pub(crate) fn bytes(self) -> Bytes {
        let (status, label, text) = self.row();
        let body = error_body(label, text);
        let mut written = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             connection: close\r\n",
            body.len()
        )
        .into_bytes();
        for (name, value) in reply::EVERY.iter().chain(&reply::OWN) {
            for part in [name.as_str(), ": ", value, "\r\n"] {
                written.extend_from_slice(part.as_bytes());
            }
        }
        written.extend_from_slice(b"\r\n");
        written.extend_from_slice(&body);
        written.into()
    }
}

/// There is no memory for a message of the client's.
fn short_of_memory(short: Short) -> Verdict {
    use StatusCode as S;
    let verdict = |status, label| rpc(status, code::TRANSPORT, label, short.to_string());
    match short {
        Short::Peer => verdict(S::TOO_MANY_REQUESTS, "too_many_bytes").later(),
        Short::All => verdict(S::SERVICE_UNAVAILABLE, "bytes_full").later(),
        Short::Ever => verdict(S::PAYLOAD_TOO_LARGE, "message_too_large"),
    }
}

fn denied(deny: Deny) -> Verdict {
    use StatusCode as S;
    match deny {
        Deny::HostMalformed => {
            let text = "exactly one Host is needed, and the same as in the request target";
            plain(S::BAD_REQUEST, "bad_host", text)
        }
        Deny::Host => plain(
            S::FORBIDDEN,
            "foreign_host",
            "this server is not known by that Host; its operator can add it with --allow-host",
        ),
        Deny::Origin => plain(
            S::FORBIDDEN,
            "foreign_origin",
            "pages of that Origin may not call; its operator can add it with --allow-origin",
        ),
        Deny::Site => plain(
            S::FORBIDDEN,
            "cross_site",
            "pages of other sites may lead no browser here; a page may call from an Origin that \
             the operator adds with --allow-origin",
        ),
        Deny::Rate(wait) => {
            let text = "too many requests from this address";
            rpc(S::TOO_MANY_REQUESTS, code::TRANSPORT, "rate_limited", text)
                .with(Extra::RetryAfter(wait))
        }
        Deny::TokenMissing => {
            let text = "a token is needed: send `Authorization: Bearer <token>`";
            plain(S::UNAUTHORIZED, "unauthorized", text)
                .with(Extra::Challenge(r#"Bearer realm="mcp""#))
        }
        Deny::TokenWrong => plain(S::UNAUTHORIZED, "unauthorized", "the token is not valid")
            .with(Extra::Challenge(r#"Bearer realm="mcp", error="invalid_token""#)),
        Deny::TokenMalformed => plain(
            S::BAD_REQUEST,
            "bad_authorization",
            "exactly one header of the form `Authorization: Bearer <token>` is needed",
        )
        .with(Extra::Challenge(r#"Bearer realm="mcp", error="invalid_request""#)),
    }
}

/// What is wrong with the upstream in particular is for the log: strangers may read this.
fn not_forwarded(error: &ForwardError) -> Verdict {
    use StatusCode as S;
    match error {
        ForwardError::ClientFull => {
            let text = "too many requests of this address are under way";
            plain(S::TOO_MANY_REQUESTS, "too_many_requests", text).later()
        }
        ForwardError::Full => {
            let text = "too many requests to the server behind this edge are under way";
            plain(S::SERVICE_UNAVAILABLE, "requests_full", text).later()
        }
        ForwardError::Path => plain(
            S::BAD_REQUEST,
            "bad_path",
            "the path has an empty or a dot segment, a backslash, or one of them in disguise, or \
             could be read as another path",
        ),
        ForwardError::Upgrade => plain(
            S::NOT_IMPLEMENTED,
            "no_upgrade",
            "other protocols than HTTP, such as WebSocket, are not passed on",
        ),
        ForwardError::Method => {
            plain(S::NOT_IMPLEMENTED, "no_such_method", "CONNECT and TRACE are not passed on")
        }
        ForwardError::Send(SendError::Unreachable(_)) => plain(
            S::BAD_GATEWAY,
            "upstream_unreachable",
            "the server behind this edge cannot be reached",
        ),
        ForwardError::Send(SendError::Broken(_)) => plain(
            S::BAD_GATEWAY,
            "upstream_broken",
            "the server behind this edge broke the connection",
        ),
        ForwardError::Send(SendError::Late(time)) => {
            let text = format!(
                "the server behind this edge did not answer within {} seconds",
                time.as_secs_f32()
            );
            plain(S::GATEWAY_TIMEOUT, "upstream_late", text)
        }
    }
}

fn refused_by_mcp(reason: &Reason) -> Verdict {
    use StatusCode as S;
    let text = reason.to_string();
    let transport = |status, label| rpc(status, code::TRANSPORT, label, text.clone());
    let invalid = |label| rpc(S::BAD_REQUEST, code::INVALID_REQUEST, label, text.clone());
    let broken = |status, label| rpc(status, code::INTERNAL_ERROR, label, text.clone());
    match reason {
        Reason::Malformed(malformed) => {
            rpc(S::BAD_REQUEST, malformed.code(), "malformed", text.clone())
        }
        Reason::Modern => transport(S::BAD_REQUEST, "modern"),
        Reason::Version => transport(S::BAD_REQUEST, "version"),
        Reason::NoSession | Reason::NoSessionInQuery => transport(S::BAD_REQUEST, "no_session"),
        Reason::UnknownSession => {
            rpc(S::NOT_FOUND, code::SESSION_NOT_FOUND, "unknown_session", text.clone())
        }
        Reason::UnknownEvent => transport(S::BAD_REQUEST, "unknown_event"),
        Reason::SessionLive => invalid("session_live"),
        Reason::NotAcceptable | Reason::NotAStream => {
            transport(S::NOT_ACCEPTABLE, "not_acceptable")
        }
        Reason::NoStream | Reason::NothingMore => transport(S::METHOD_NOT_ALLOWED, "no_stream")
            .with(Extra::Allow(route::ALLOW_WITHOUT_STREAM)),
        Reason::NoBatch | Reason::InitializeInBatch | Reason::ModernInBatch => invalid("batch"),
        Reason::DuplicateId => invalid("duplicate_id"),
        Reason::TooManyCalls => transport(S::TOO_MANY_REQUESTS, "too_many_calls").later(),
        Reason::ClientSessionsFull(wait) => {
            transport(S::TOO_MANY_REQUESTS, "too_many_sessions").place_in(*wait)
        }
        Reason::ClientStreamsFull => transport(S::TOO_MANY_REQUESTS, "too_many_streams").later(),
        Reason::SessionsFull(wait) => {
            transport(S::SERVICE_UNAVAILABLE, "sessions_full").place_in(*wait)
        }
        Reason::ChildrenFull(wait) => {
            transport(S::SERVICE_UNAVAILABLE, "children_full").place_in(*wait)
        }
        Reason::Draining => transport(S::SERVICE_UNAVAILABLE, "draining").later(),
        Reason::BackendBusy => broken(S::SERVICE_UNAVAILABLE, "backend_busy").later(),
        Reason::CrashLoop { wait, why: _ } => {
            broken(S::SERVICE_UNAVAILABLE, "crash_loop").with(Extra::RetryAfter(*wait))
        }
        Reason::BackendFailed(_) | Reason::Unanswered { .. } => {
            broken(S::BAD_GATEWAY, "backend_failed")
        }
        Reason::BackendError { .. } | Reason::BadAnswer(_) => {
            broken(S::BAD_GATEWAY, "backend_error")
        }
        Reason::CallTimeout(_) | Reason::NeverSpoke { .. } => {
            broken(S::GATEWAY_TIMEOUT, "call_timeout")
        }
        Reason::NotACall(_) => plain(S::BAD_REQUEST, "not_a_call", text),
        Reason::UnknownTool => plain(S::NOT_FOUND, "unknown_tool", text),
        Reason::BadArguments(_) => plain(S::UNPROCESSABLE_ENTITY, "bad_arguments", text),
        Reason::Short(short) => short_of_memory(*short),
        Reason::NoRandomness => broken(S::INTERNAL_SERVER_ERROR, "no_randomness"),
    }
}
