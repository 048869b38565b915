//! Where a request came from, as far as its connection tells.

use std::net::IpAddr;
use std::sync::Arc;

use crate::addr::ClientAddr;
use crate::caller::TlsFacts;
use crate::strangers::Stranger;

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
