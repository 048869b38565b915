//! What the edge knows of whoever sends a message.

use std::fmt::Write;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::limits::addr::ClientAddr;
use crate::limits::bytes::Quota;
use crate::wire::hex;

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
    /// The edge itself asks, for no client.
    Edge,
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
            Self::Edge => "edge",
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
    /// Nobody in particular: the edge lets everybody in.
    Anonymous,
    /// The holder of a token.
    Token(TokenId),
}

/// Principals that one map keeps something for at once. Each such map ends what was not used for
/// longest, or refuses a new principal.
pub(crate) const MAX_PRINCIPALS: usize = 1024;

impl std::fmt::Display for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Token(id) => write!(f, "token:{id}"),
        }
    }
}

/// Names a token without giving it away: a digest, which is compared whole. Its text is the first
/// six bytes in hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(pub(crate) [u8; 32]);

impl TokenId {
    /// Bytes of the digest that its text shows.
    const SHOWN: usize = 6;
}

impl std::fmt::Display for TokenId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        hex::digits(self.0.get(..Self::SHOWN).unwrap_or_default())
            .try_for_each(|digit| f.write_char(digit))
    }
}

impl std::fmt::Debug for TokenId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenId({self})")
    }
}

/// What the credential of a request entitles its sender to. Whatever else a credential grants (a
/// role, an end) becomes a field here, and reaches every decision that takes a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Who holds it. Every request clones it, so a long name must be in an `Arc`.
    pub(crate) principal: Principal,
}

impl Grant {
    /// What everybody has who needs no credential.
    pub(crate) const ANONYMOUS: Self = Self { principal: Principal::Anonymous };
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
        Self::without_a_request(Transport::Stdio)
    }

    /// The edge itself: it initialises sessions that it shares between callers, asks if the server
    /// is ready, and cancels calls that nobody waits for any more.
    #[must_use]
    pub fn edge() -> Self {
        Self::without_a_request(Transport::Edge)
    }

    fn without_a_request(transport: Transport) -> Self {
        Self {
            principal: Principal::Anonymous,
            transport,
            client: None,
            http: None,
            tls: None,
            session: None,
            provenance: None,
            quota: Quota::unbounded(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_told_apart_by_all_of_the_digest_and_show_six_bytes() {
        let (one, mut other) = (TokenId([0xab; 32]), TokenId([0xab; 32]));
        other.0[31] = 0;
        assert_ne!(Principal::Token(one), Principal::Token(other));
        assert_eq!(Principal::Token(one).to_string(), "token:abababababab");
        assert_eq!(format!("{one:?}"), "TokenId(abababababab)");
    }
}
