//! Refusals as responses. The one table of statuses, codes and names is [`Refusal::verdict`].

use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header};

use super::head::{BadHead, Route};
use super::pass::Unpassed;
use super::reply::{self, ReplyBody};
use crate::client::Fault;
use crate::guard::Deny;
use crate::limits::body::BodyError;
use crate::limits::bytes::Short;
use crate::mcp::{Reason, Refused};
use crate::wire::jsonrpc::{self, RequestId, code};
use crate::wire::proxy_header::{BadForwarded, BadPrefix};

/// How long a client is asked to stay away when a place is missing.
const PLACE_RETRY: Duration = Duration::from_secs(5);

/// Why a request is not answered with what it asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The guard does not let it pass.
    Denied(Deny),
    /// Nothing lives at this path; what does near it.
    NotFound(String),
    /// There is no authorization server here.
    NoOAuth,
    /// The route does not know the method.
    Method(Route),
    /// The head is wrong.
    Head(BadHead),
    /// The head has more fields or bytes than are allowed.
    HeadTooLarge,
    /// The body did not come, or not as it should.
    Body(BodyError),
    /// The transport refuses it.
    Mcp(Refused),
    /// A proxy does not say well whom it speaks for.
    Forwarded(BadForwarded),
    /// A proxy does not say well what it took off the path.
    ForwardedPrefix(BadPrefix),
    /// It is for the upstream, and is not passed there.
    Unpassed(Unpassed),
}

impl From<Deny> for Refusal {
    fn from(deny: Deny) -> Self {
        Self::Denied(deny)
    }
}

impl From<BadForwarded> for Refusal {
    fn from(malformed: BadForwarded) -> Self {
        Self::Forwarded(malformed)
    }
}

impl From<BadPrefix> for Refusal {
    fn from(malformed: BadPrefix) -> Self {
        Self::ForwardedPrefix(malformed)
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self::Mcp(reason.into())
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        Self::Mcp(refused)
    }
}

/// What a refusal becomes.
struct Verdict {
    status: StatusCode,
    speech: Speech,
    label: &'static str,
    text: String,
    header: Option<Extra>,
}

/// How the body speaks.
enum Speech {
    /// Plain JSON: a JSON-RPC error beside 401 or 403 would be read as a server of another era.
    Plain,
    /// A JSON-RPC error with this code.
    JsonRpc(i32),
}

/// A header field that explains the status.
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

fn plain(status: StatusCode, label: &'static str, text: impl Into<String>) -> Verdict {
    Verdict { status, speech: Speech::Plain, label, text: text.into(), header: None }
}

fn rpc(status: StatusCode, code: i32, label: &'static str, text: impl Into<String>) -> Verdict {
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
}

impl Refusal {
    /// Its name in logs.
    pub(super) fn label(&self) -> &'static str {
        self.verdict().label
    }

    /// The response; `plain` for a client that speaks no JSON-RPC.
    pub(super) fn response(&self, plain: bool) -> Response<ReplyBody> {
        let Verdict { status, speech, label, text, header } = self.verdict();
        let body = match speech {
            Speech::JsonRpc(code) if !plain => jsonrpc::error_text(self.id(), code, &text),
            Speech::Plain | Speech::JsonRpc(_) => {
                serde_json::json!({ "error": label, "message": text }).to_string().into()
            }
        };
        let mut response = reply::json(status, body);
        if let Some((name, value)) = header.map(Extra::field) {
            response.headers_mut().insert(name, value);
        }
        response
    }

    /// The request that is refused, where its id is known.
    fn id(&self) -> Option<&RequestId> {
        if let Self::Mcp(refused) = self { refused.id.as_ref() } else { None }
    }

    fn verdict(&self) -> Verdict {
        use StatusCode as S;
        match self {
            Self::Denied(deny) => denied(*deny),
            Self::NotFound(whereabouts) => plain(S::NOT_FOUND, "not_found", whereabouts.as_str()),
            Self::NoOAuth => plain(
                S::NOT_FOUND,
                "not_found",
                "this server has no authorization server: it takes a bearer token",
            ),
            Self::Method(route) => {
                let text = format!("this path answers {}", route.allow());
                plain(S::METHOD_NOT_ALLOWED, "method_not_allowed", text)
                    .with(Extra::Allow(route.allow()))
            }
            Self::Head(BadHead::MediaType) => rpc(
                S::UNSUPPORTED_MEDIA_TYPE,
                code::TRANSPORT,
                "unsupported_media_type",
                "Content-Type must be application/json, in UTF-8, without Content-Encoding",
            ),
            Self::Head(BadHead::Field(name)) => {
                let text = format!("the header {name} must come once, in visible ASCII");
                rpc(S::BAD_REQUEST, code::TRANSPORT, "bad_header", text)
            }
            Self::HeadTooLarge => rpc(
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                code::INVALID_REQUEST,
                "head_too_large",
                "the request head is too large, or has too many fields",
            ),
            Self::Body(BodyError::Short(short)) => short_of_memory(*short),
            Self::Body(error) => {
                let (status, label) = match error {
                    BodyError::TooLarge(_) => (S::PAYLOAD_TOO_LARGE, "body_too_large"),
                    BodyError::Timeout => (S::REQUEST_TIMEOUT, "body_timeout"),
                    BodyError::Broken | BodyError::Short(_) => (S::BAD_REQUEST, "body_broken"),
                };
                rpc(status, code::INVALID_REQUEST, label, error.to_string())
            }
            Self::Mcp(refused) => refused_by_mcp(&refused.reason),
            Self::Forwarded(malformed) => {
                plain(S::BAD_REQUEST, "bad_forwarded", malformed.to_string())
            }
            Self::ForwardedPrefix(malformed) => {
                plain(S::BAD_REQUEST, "bad_forwarded", malformed.to_string())
            }
            Self::Unpassed(unpassed) => not_passed(unpassed),
        }
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
fn not_passed(unpassed: &Unpassed) -> Verdict {
    use StatusCode as S;
    match unpassed {
        Unpassed::ClientFull => {
            let text = "too many requests of this address are under way";
            plain(S::TOO_MANY_REQUESTS, "too_many_requests", text).later()
        }
        Unpassed::Full => {
            let text = "too many requests to the server behind this edge are under way";
            plain(S::SERVICE_UNAVAILABLE, "requests_full", text).later()
        }
        Unpassed::Path => plain(
            S::BAD_REQUEST,
            "bad_path",
            "the path has an empty or a dot segment, a backslash, or one of them in disguise, or \
             could be read as another path",
        ),
        Unpassed::Upgrade => plain(
            S::NOT_IMPLEMENTED,
            "no_upgrade",
            "other protocols than HTTP, such as WebSocket, are not passed on",
        ),
        Unpassed::Method => {
            plain(S::NOT_IMPLEMENTED, "no_such_method", "CONNECT and TRACE are not passed on")
        }
        Unpassed::Fault(Fault::Unreachable(_)) => plain(
            S::BAD_GATEWAY,
            "upstream_unreachable",
            "the server behind this edge cannot be reached",
        ),
        Unpassed::Fault(Fault::Broken(_)) => plain(
            S::BAD_GATEWAY,
            "upstream_broken",
            "the server behind this edge broke the connection",
        ),
        Unpassed::Fault(Fault::Late(time)) => {
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
        Reason::NoStream | Reason::NothingMore => {
            transport(S::METHOD_NOT_ALLOWED, "no_stream").with(Extra::Allow("POST, OPTIONS"))
        }
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
