//! Formats: bytes in, types out. Nothing here waits, counts or knows who is asking.

pub(crate) mod events;
pub(crate) mod fields;
pub(crate) mod forwarded;
pub(crate) mod hex;
pub mod jsonrpc;
pub(crate) mod pem;
pub(crate) mod proxy_header;
pub(crate) mod revision;
