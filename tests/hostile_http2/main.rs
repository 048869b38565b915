//! Promise: whatever an HTTP/2 peer sends, it is answered by the book, its floods end with a GOAWAY
//! within 2,000 frames, and a good client beside it notices nothing.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends where it fails, helpers of it too"
)]
#![allow(clippy::wildcard_imports, reason = "a peer speaks in all of its frames")]

#[path = "../support/mod.rs"]
mod support;

mod conformance;
mod figures;
mod floods;
mod heads;
mod limits;
