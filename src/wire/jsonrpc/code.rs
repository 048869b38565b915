//! Error codes of JSON-RPC 2.0 section 5.1, and those that MCP implementations share.

/// The bytes are no JSON.
pub const PARSE_ERROR: i32 = -32_700;
/// The JSON is no request.
pub const INVALID_REQUEST: i32 = -32_600;
/// Nobody answers this method.
pub const METHOD_NOT_FOUND: i32 = -32_601;
/// The parameters do not fit the method.
pub const INVALID_PARAMS: i32 = -32_602;
/// The server failed.
pub const INTERNAL_ERROR: i32 = -32_603;
/// The transport refused (what the MCP SDKs use for it).
pub const TRANSPORT: i32 = -32_000;
/// No such session (what the MCP SDKs use for it).
pub const SESSION_NOT_FOUND: i32 = -32_001;
