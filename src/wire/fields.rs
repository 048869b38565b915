//! Names of header fields that several floors read or write.

use http::HeaderName;

/// The session of a request, or of an answer (MCP 2025-03-26, "Session management").
pub(crate) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// The revision that a client speaks (MCP 2025-06-18, "Protocol version header").
pub(crate) const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// The last event that a client has seen of a stream (HTML standard, "Server-sent events").
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// The edge's name for a request.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
