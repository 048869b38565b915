//! What a proxy that is believed says of a request: for whom it speaks, and what it took off the path.

use std::net::SocketAddr;

use http::HeaderMap;

use super::refusal::Refusal;
use crate::guard::ConnInfo;
use crate::limits::addr::ClientAddr;
use crate::wire::forwarded::{Prefix, TrustedProxies};

/// What a request says about the client behind a proxy that is believed.
pub(super) struct Proxied {
    /// Who sends the request.
    pub(super) client: ClientAddr,
    /// What the proxy took off the path.
    pub(super) prefix: Prefix,
    /// What the proxy did not say well.
    pub(super) malformed: Option<Refusal>,
}

impl Proxied {
    /// Reads it, where a trusted proxy speaks for others.
    pub(super) fn of(proxies: &TrustedProxies, conn: &ConnInfo, headers: &HeaderMap) -> Self {
        let mut found = Self { client: conn.client, prefix: Prefix::default(), malformed: None };
        // A proxy may have lost its trust since its connection was accepted.
        if !conn.speaks_for || !proxies.trusts(conn.client.ip()) {
            return found;
        }
        match Prefix::of(headers) {
            Ok(prefix) => found.prefix = prefix,
            Err(malformed) => found.malformed = Some(Refusal::Forwarded(malformed.to_string())),
        }
        match proxies.forwarded_for(headers) {
            Ok(None) => {}
            // Its port is not told.
            Ok(Some(ip)) => found.client = ClientAddr::from_peer(SocketAddr::new(ip, 0)),
            Err(malformed) => found.malformed = Some(Refusal::Forwarded(malformed.to_string())),
        }
        found
    }
}
