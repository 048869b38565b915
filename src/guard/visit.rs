//! One request, and the connection that it came on, as far as both are known before the body.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Uri, request};

use super::origin::OriginMatch;
use crate::caller::TlsFacts;
use crate::limits::addr::{ClientAddr, ClientKey};
use crate::limits::strangers::Stranger;
use crate::wire::forwarded::Prefix;

/// What is known of a connection. Its requests share it.
#[derive(Debug)]
pub(crate) struct ConnInfo {
    /// Who is at the other end.
    pub(crate) client: ClientAddr,
    /// The address it came in on.
    pub(crate) local: IpAddr,
    /// What TLS settled.
    pub(crate) tls: Option<Arc<TlsFacts>>,
    /// Does a trusted proxy speak there, for clients that `X-Forwarded-For` names?
    pub(crate) speaks_for: bool,
    /// Gives way to newcomers until it has made a request that may pass. `None` if it never has to.
    pub(crate) stranger: Option<Arc<Stranger>>,
}

impl ConnInfo {
    /// It has made a request that may pass: it can no longer be evicted.
    pub(crate) fn mark_authenticated(&self) {
        if let Some(stranger) = &self.stranger {
            stranger.mark_authenticated();
        }
    }
}

/// A request before its body. [`super::Admission::visit`] makes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visit<'a> {
    /// The connection that it came on.
    pub(crate) conn: &'a ConnInfo,
    /// Who sends it: the other end of the connection, or whom a trusted proxy there names.
    pub(crate) client: ClientAddr,
    /// Its head.
    pub(crate) head: &'a request::Parts,
    /// What a trusted proxy took off the front of the path that the client asked for.
    pub(crate) prefix: &'a Prefix,
    /// Its name in answers, in the log and for the server behind.
    pub(crate) tag: &'a HeaderValue,
    /// Which page sends it.
    pub(super) origin: OriginMatch,
}

impl Visit<'_> {
    /// Whose limits it counts against.
    pub(crate) fn key(&self) -> ClientKey {
        self.client.key()
    }

    /// Which page sends it, as a browser says, and as it is judged.
    pub(crate) fn origin(&self) -> OriginMatch {
        self.origin
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.head.uri
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::limits::strangers::Strangers;

    #[test]
    fn an_authenticated_connection_is_no_stranger_any_more() {
        let strangers = Strangers::default();
        let client = ClientAddr::from_peer(SocketAddr::from((Ipv4Addr::LOCALHOST, 9)));
        let (stranger, _went) = strangers.enter(client.key(), 8);
        let conn = ConnInfo {
            client,
            local: Ipv4Addr::LOCALHOST.into(),
            tls: None,
            speaks_for: false,
            stranger: Some(Arc::new(stranger)),
        };
        assert_eq!(strangers.len(), 1);
        conn.mark_authenticated();
        assert_eq!(strangers.len(), 0);
    }
}
