//! What can be wrong with the bytes of an HTTP/1.1 peer, and the text that tells it so.

use crate::http::NoRequest;

/// Why a connection's bytes are not taken any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FramingError {
    /// A line that ends with a bare LF, or a CR that ends none (RFC 9112 section 2.2).
    LineEnd,
    /// More empty lines before a request than one (RFC 9112 section 2.2).
    EmptyLines,
    /// A request line of another form (RFC 9112 section 3).
    RequestLine,
    /// Neither HTTP/1.1 nor HTTP/1.0.
    Version,
    /// A target of none of the four forms (RFC 9112 section 3.2).
    Target,
    /// An absolute target for another host than `Host` names (RFC 9112 section 3.2.2).
    Authority,
    /// A field line without a colon, or whose name is no token (RFC 9110 section 5.1).
    FieldName,
    /// Control characters in a field value (RFC 9110 section 5.5).
    FieldValue,
    /// A line that goes on with the one before (RFC 9112 section 5.2).
    Folded,
    /// HTTP/1.1 without `Host`, with two, or with one that names no host (RFC 9112 section 3.2).
    Host,
    /// A `Content-Length` that is no number, or there twice (RFC 9112 section 6.3).
    ContentLength,
    /// A `Transfer-Encoding` that is not exactly `chunked`, or in HTTP/1.0 (RFC 9112 section 6.1).
    TransferEncoding,
    /// Two lengths for one body (RFC 9112 section 6.3).
    TwoLengths,
    /// An `Expect` that is not met (RFC 9110 section 10.1.1).
    Expectation,
    /// A request target that alone is larger than a head may be.
    TargetTooLong,
    /// A head that is larger than allowed.
    HeadTooLarge,
    /// A chunk size of another form, or without an end (RFC 9112 section 7.1).
    ChunkSize,
    /// A chunk extension that is malformed or too long (RFC 9112 section 7.1.1).
    ChunkExtension,
    /// A chunk whose data does not end where it should.
    ChunkEnd,
    /// A trailer section that is malformed, too long, or says what only a head may say
    /// (RFC 9110 section 6.5.1).
    Trailer,
}

impl FramingError {
    /// The refusal that it is.
    pub(super) fn refusal(self) -> NoRequest {
        NoRequest::Malformed(match self {
            Self::Expectation => return NoRequest::Expectation,
            Self::TargetTooLong => return NoRequest::TargetTooLong,
            Self::HeadTooLarge => return NoRequest::HeadTooLarge,
            Self::LineEnd => "a line must end with CR LF, and have no other CR",
            Self::EmptyLines => "there are empty lines where a request should begin",
            Self::RequestLine => "the request line is not `METHOD target HTTP/1.1`",
            Self::Version => "this is neither HTTP/1.1 nor HTTP/1.0",
            Self::Target => "the request target is malformed",
            Self::Authority => "the request target names another host than the Host field",
            Self::FieldName => "a header line has no colon, or a malformed name before it",
            Self::FieldValue => "a header value has a control character in it",
            Self::Folded => "a header line begins with white space",
            Self::Host => "there must be one Host field, and it must name a host",
            Self::ContentLength => "there must be one Content-Length at most, of digits only",
            Self::TransferEncoding => "Transfer-Encoding must be `chunked`, once, in HTTP/1.1",
            Self::TwoLengths => "Content-Length and Transfer-Encoding exclude each other",
            Self::ChunkSize => "a chunk size must be one to eight hexadecimal digits",
            Self::ChunkExtension => "a chunk extension is malformed or too long",
            Self::ChunkEnd => "a chunk does not end where its size says",
            Self::Trailer => "the trailer section is malformed, too large or not allowed",
        })
    }
}
