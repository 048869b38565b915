//! Which era of MCP a request belongs to: with a handshake and sessions, or without (2026-07-28 and
//! later). Nothing else decides it.

use super::Reason;
use crate::wire::jsonrpc::Message;
use crate::wire::revision::{self, ProtocolVersion};

/// An era of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Era {
    /// `initialize` begins a session (up to 2025-11-25).
    Handshake,
    /// Each request says all by itself (2026-07-28 and later).
    Modern,
}

impl Era {
    /// By the revision that a header, or an `initialize`, names.
    pub(super) fn of_revision(named: Option<&str>) -> Self {
        if named.is_some_and(revision::is_modern) { Self::Modern } else { Self::Handshake }
    }

    /// By the revision that a header names, and by the message itself.
    pub(super) fn of(named: Option<&str>, message: &Message) -> Self {
        match Self::of_revision(named) {
            Self::Handshake if message.envelope_version().is_none() => Self::Handshake,
            Self::Handshake | Self::Modern => Self::Modern,
        }
    }
}

/// A revision that a header names must be a known one; which of them, the session has settled.
pub(super) fn check_known(named: Option<&str>) -> Result<(), Reason> {
    match named {
        Some(version) if ProtocolVersion::parse(version).is_none() => Err(Reason::Version),
        Some(_) | None => Ok(()),
    }
}
