//! Which `Host` goes up, and what an upstream says that refuses it.

use parking_lot::Mutex;

use http::{HeaderValue, StatusCode};

use crate::caller::Caller;
use crate::config::UpstreamHost;

/// What servers say that check `Host` against a list (DNS rebinding protection), in lower case.
const REFUSALS: [&str; 9] = [
    "invalid host",
    "missing host",
    "host header",
    "host not allowed",
    "host is not allowed",
    "this host",
    "that host",
    "http_host",
    "allowed_hosts",
];

/// The `Host` of the requests to one upstream.
#[derive(Debug)]
pub(super) enum Host {
    /// Always this one.
    Fixed(HeaderValue),
    /// Of a client's request its own.
    Client {
        /// Where nothing better is known: the upstream's authority.
        own: HeaderValue,
        /// The last one of a client that was let in: for what the edge asks in its own name.
        last: Mutex<Option<HeaderValue>>,
    },
}

impl Host {
    /// As asked for; `own` is the upstream's authority.
    pub(super) fn new(asked: &UpstreamHost, own: HeaderValue) -> Self {
        match asked {
            UpstreamHost::Own => Self::Fixed(own),
            UpstreamHost::Named(name) => Self::Fixed(name.clone()),
            UpstreamHost::Client => Self::Client { own, last: Mutex::default() },
        }
    }

    /// That of a request for `caller`.
    pub(super) fn of(&self, caller: &Caller) -> HeaderValue {
        match self {
            Self::Fixed(host) => host.clone(),
            Self::Client { own, last } => named(caller).cloned().unwrap_or_else(|| {
                let last = last.lock();
                last.as_ref().unwrap_or(own).clone()
            }),
        }
    }

    /// Notes the Host of a client that was let in.
    pub(super) fn note(&self, caller: &Caller) {
        if let (Self::Client { last, .. }, Some(host)) = (self, named(caller)) {
            let mut last = last.lock();
            if last.as_ref() != Some(host) {
                *last = Some(host.clone());
            }
        }
    }
}

fn named(caller: &Caller) -> Option<&HeaderValue> {
    caller.provenance.as_ref()?.host.as_ref()
}

/// Does an answer with this status and body refuse the `Host` that was sent?
pub(crate) fn refuses_host(status: StatusCode, body: &[u8]) -> bool {
    match status {
        StatusCode::MISDIRECTED_REQUEST => true,
        StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN => {
            let said = String::from_utf8_lossy(body).to_ascii_lowercase();
            REFUSALS.iter().any(|refusal| said.contains(refusal))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::caller::Provenance;

    fn caller(host: &'static str) -> Caller {
        let host = Some(HeaderValue::from_static(host));
        let request = HeaderValue::from_static("1");
        let provenance = Provenance { request, host, forwarded: Vec::new() };
        Caller { provenance: Some(Arc::new(provenance)), ..Caller::stdio() }
    }

    #[test]
    fn the_edges_own_requests_carry_the_last_host_that_was_let_in() {
        let own = HeaderValue::from_static("127.0.0.1:8000");
        let host = Host::new(&UpstreamHost::Client, own.clone());
        let of = |caller: &Caller| host.of(caller).to_str().unwrap().to_owned();
        assert_eq!(of(&caller("a.example")), "a.example");
        // A caller that was not let in decides nothing for others.
        assert_eq!(of(&Caller::stdio()), "127.0.0.1:8000");
        host.note(&caller("b.example:8443"));
        host.note(&Caller::stdio());
        assert_eq!(of(&Caller::stdio()), "b.example:8443");
        assert_eq!(of(&caller("a.example")), "a.example");
        for (asked, sent) in [
            (UpstreamHost::Own, "127.0.0.1:8000"),
            (UpstreamHost::Named(HeaderValue::from_static("c.example")), "c.example"),
        ] {
            let host = Host::new(&asked, own.clone());
            host.note(&caller("a.example"));
            assert_eq!(host.of(&caller("a.example")), sent);
        }
    }

    #[test]
    fn a_refused_host_is_known_by_status_or_words() {
        for (status, body, refuses) in [
            (421, "", true),
            (421, "Invalid Host header", true),
            (400, "Invalid host header", true),
            (403, "Forbidden: Host header is not allowed", true),
            (403, r#"{"error":{"code":-32000,"message":"Invalid Host: a.example"}}"#, true),
            (403, "Blocked request. This host (\"a.example\") is not allowed.", true),
            (400, "DisallowedHost: Invalid HTTP_HOST header", true),
            (403, "Invalid Origin header", false),
            (403, "", false),
            (404, "Invalid Host header", false),
            (200, "Invalid Host header", false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(refuses_host(status, body.as_bytes()), refuses, "{status} {body}");
        }
    }
}
