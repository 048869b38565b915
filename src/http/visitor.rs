//! Where a request came from, as far as its connection tells, and a proxy that is believed.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::HeaderMap;

use super::refusal::Refusal;
use crate::caller::TlsFacts;
use crate::limits::addr::ClientAddr;
use crate::limits::strangers::Stranger;
use crate::wire::forwarded::{Prefix, TrustedProxies};

/// What is known of the connection that a request came on.
#[derive(Clone, Debug)]
pub(crate) struct ConnInfo {
    /// Who is at the other end.
    pub(crate) client: ClientAddr,
    /// The address it came in on.
    pub(crate) local: IpAddr,
    /// What TLS settled.
    pub(crate) tls: Option<TlsFacts>,
    /// Does a trusted proxy speak there, for clients that `X-Forwarded-For` names?
    pub(crate) speaks_for: bool,
    /// Gives way to newcomers until it has made a request that may pass; nobody, if it never has to.
    pub(crate) stranger: Option<Arc<Stranger>>,
}

impl ConnInfo {
    /// It has made a request that may pass.
    pub(super) fn is_known(&self) {
        if let Some(stranger) = &self.stranger {
            stranger.is_known();
        }
    }
}

/// What a request says about the client behind a proxy that is believed.
pub(super) struct Forwarded<'a> {
    /// The connection as this request has it.
    pub(super) conn: Cow<'a, ConnInfo>,
    /// What the proxy took off the path.
    pub(super) prefix: Prefix,
    /// What the proxy did not say well.
    pub(super) malformed: Option<Refusal>,
}

impl<'a> Forwarded<'a> {
    /// Reads it, where a trusted proxy speaks for others.
    pub(super) fn of(proxies: &TrustedProxies, conn: &'a ConnInfo, headers: &HeaderMap) -> Self {
        let mut found =
            Self { conn: Cow::Borrowed(conn), prefix: Prefix::default(), malformed: None };
        // A proxy may have lost its trust since its connection was accepted.
        if !conn.speaks_for || !proxies.trusts(conn.client.ip()) {
            return found;
        }
        match Prefix::of(headers) {
            Ok(prefix) => found.prefix = prefix,
            Err(malformed) => found.malformed = Some(malformed.into()),
        }
        match proxies.forwarded_for(headers) {
            Ok(None) => {}
            Ok(Some(ip)) => {
                // Its port is not told.
                let client = ClientAddr::from_peer(SocketAddr::new(ip, 0));
                found.conn = Cow::Owned(ConnInfo { client, ..conn.clone() });
            }
            Err(malformed) => found.malformed = Some(malformed.into()),
        }
        found
    }
}
