//! The guard's doors for the fuzz targets.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Uri};

pub use super::origin::OriginMatch as Origin;
use super::origin::{HostMatch, SiteMatch};
use super::rate::RateMatch;
use super::token::{self, Presented, TokenMatch, Tokens};
use super::{Admission, ConnInfo, Deny, Facts, Guard, Need, OriginMatch, OriginPolicy, decide};
use crate::caller::Grant;
use crate::config::{AllowedOrigin, Config, Secret};
use crate::limits::addr::ClientAddr;
use crate::observe::metrics::Metrics;
use crate::wire::forwarded::Prefix;

/// Is one of these tokens presented?
#[must_use]
pub fn is_valid(tokens: &[&str], headers: &HeaderMap) -> bool {
    let tokens: Vec<Secret> = tokens.iter().map(|token| Secret::new(*token)).collect();
    matches!(Tokens::new(&tokens).compare(token::presented(headers)), TokenMatch::Valid(_))
}

/// The bearer that the headers present, if they do.
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    match token::presented(headers) {
        Presented::Bearer(token) => Some(token),
        Presented::Nothing | Presented::Malformed => None,
    }
}

/// Names and origins that are ours.
#[derive(Debug)]
pub struct Names(OriginPolicy);

impl Names {
    /// As `--allow-host` and `--allow-origin` give them.
    #[must_use]
    pub fn new(hosts: &[String], origins: Vec<AllowedOrigin>, loopback: bool, https: bool) -> Self {
        let scheme = if https { "https" } else { "http" };
        Self(OriginPolicy::new(hosts, origins, loopback, scheme))
    }

    /// Does the request go to us?
    #[must_use]
    pub fn is_ours(&self, uri: &Uri, headers: &HeaderMap, local: IpAddr) -> bool {
        self.0.host(uri, headers, local) == HostMatch::Ours
    }

    /// Where does it come from?
    #[must_use]
    pub fn origin(&self, uri: &Uri, headers: &HeaderMap, local: IpAddr) -> Origin {
        self.0.origin(uri, headers, local)
    }
}

/// Do facts pass? Each is chosen by a number: of host 0 is ours, of origin 0 is absent and 3 is
/// foreign, of site 2 is foreign, of rate 0 is within, of token 0 is valid.
#[must_use]
pub fn passes(host: u8, origin: u8, site: u8, rate: u8, token: u8, wait: Duration) -> bool {
    let host = match host % 3 {
        0 => HostMatch::Ours,
        1 => HostMatch::Foreign,
        _ => HostMatch::Malformed,
    };
    let origin = match origin % 4 {
        0 => OriginMatch::Absent,
        1 => OriginMatch::Own,
        2 => OriginMatch::Allowed,
        _ => OriginMatch::Foreign,
    };
    let site = match site % 3 {
        0 => SiteMatch::Absent,
        1 => SiteMatch::Own,
        _ => SiteMatch::Foreign,
    };
    let rate = if rate % 2 == 0 { RateMatch::Within } else { RateMatch::Over(wait) };
    let token = match token % 5 {
        0 => TokenMatch::Valid(Grant::ANONYMOUS),
        1 => TokenMatch::Wrong,
        2 => TokenMatch::Missing,
        3 => TokenMatch::Malformed,
        _ => TokenMatch::NotCompared,
    };
    decide(Facts { host, origin, site, rate, need: Need::Token, token }).is_ok()
}

/// What became of a visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass.
    Admitted,
    /// Its client asks too fast.
    Rate,
    /// Something else is wrong with it.
    Denied,
}

/// A whole guard.
#[derive(Debug)]
pub struct Door(Guard, Admission);

impl Door {
    /// A guard for this configuration.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self(Guard::new(Metrics::default()), Admission::new(config, &[]))
    }

    /// One request of this client's.
    pub async fn visit(&self, client: IpAddr, uri: &Uri, headers: &HeaderMap) -> Verdict {
        let local = IpAddr::from([192, 0, 2, 1]);
        let conn = ConnInfo {
            client: ClientAddr::from_peer(SocketAddr::new(client, 0)),
            local,
            tls: None,
            speaks_for: false,
            stranger: None,
        };
        let (mut head, ()) = Request::new(()).into_parts();
        head.uri = uri.clone();
        head.headers = headers.clone();
        let (prefix, tag) = (Prefix::default(), HeaderValue::from_static("0"));
        let visit = self.1.visit(&conn, conn.client, &head, &prefix, &tag);
        match self.0.admit(&self.1, visit).await {
            Ok(_admitted) => Verdict::Admitted,
            Err(Deny::Rate(_)) => Verdict::Rate,
            Err(_) => Verdict::Denied,
        }
    }
}
