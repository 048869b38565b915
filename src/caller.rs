//! What the edge knows of whoever sends a message.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::limits::addr::ClientAddr;
use crate::limits::bytes::Quota;

/// How a message came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// POST, GET and DELETE on one path, with a session.
    StreamableHttp,
    /// An event stream, and POSTs beside it (2024-11-05).
    HttpSse,
    /// One POST without session or handshake.
    Bare,
    /// Standard input and output.
    Stdio,
}

impl Transport {
    /// Its name in logs and answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::StreamableHttp => "streamable-http",
            Self::HttpSse => "http+sse",
            Self::Bare => "bare",
            Self::Stdio => "stdio",
        }
    }
}

/// The protocol inside TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/1.1, also for clients that name no protocol.
    Http1,
    /// HTTP/2.
    H2,
}

/// What a TLS handshake settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFacts {
    /// The protocol inside.
    pub alpn: Alpn,
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// The key exchange, such as `X25519MLKEM768`; `none` in a resumed TLS 1.2 session.
    pub key_exchange: String,
    /// The cipher suite by its registered name.
    pub cipher: String,
    /// The name that the client asked for.
    pub server_name: Option<String>,
}

/// Whose credential a request carries. Sessions belong to the principal that opened them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Principal {
    /// Nobody in particular: the edge was told to let everybody in.
    Anonymous,
    /// The holder of a token, by the first bytes of the token's digest.
    Token(TokenId),
}

impl std::fmt::Display for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Token(id) => write!(f, "token:{id}"),
        }
    }
}

/// Names a token without giving it away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(pub(crate) [u8; 6]);

impl std::fmt::Display for TokenId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What the edge knows of whoever sends a message.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Whose credential it carries.
    pub principal: Principal,
    /// How it came in.
    pub transport: Transport,
    /// From where; none on standard input.
    pub client: Option<ClientAddr>,
    /// The HTTP version, such as `HTTP/2.0`; none on standard input.
    pub http: Option<&'static str>,
    /// What TLS settled; none without TLS.
    pub tls: Option<Arc<TlsFacts>>,
    /// A name for its session that does not give the session's id away.
    pub session: Option<String>,
    /// The request that brought it; none on standard input.
    pub(crate) provenance: Option<Arc<Provenance>>,
    /// The memory that its messages, and their answers, count against.
    pub(crate) quota: Quota,
}

/// What an upstream is told of the request that a message came in.
#[derive(Clone, Debug)]
pub(crate) struct Provenance {
    /// The edge's name for the request.
    pub(crate) request: HeaderValue,
    /// The host that it was addressed to.
    pub(crate) host: Option<HeaderValue>,
    /// Fields of the client's that go up as they are, because the operator listed them.
    pub(crate) forwarded: Vec<(HeaderName, HeaderValue)>,
}

impl Caller {
    /// Whoever holds the other end of standard input and output.
    #[must_use]
    pub fn stdio() -> Self {
        Self {
            principal: Principal::Anonymous,
            transport: Transport::Stdio,
            client: None,
            http: None,
            tls: None,
            session: None,
            provenance: None,
            quota: Quota::default(),
        }
    }
}
