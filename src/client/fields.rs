//! Which header fields go up. Everything is made fresh; of the client's own only what is listed.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::caller::Caller;
use crate::wire::fields::{LAST_EVENT_ID, PROTOCOL_VERSION, REQUEST_ID, SESSION_ID};

/// Fields that say who the client is. The edge writes them; the client's are never believed.
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The edge's name for itself.
const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("mcp-edge/", env!("CARGO_PKG_VERSION")));

/// Fields that no operator can let through: credentials that are for the edge (the token
/// passthrough ban of MCP 2025-06-18, "Security best practices"), what the edge says itself, and
/// what concerns one connection only (RFC 9110 section 7.6.1).
const NEVER: [&str; 27] = [
    "authorization",
    "cookie",
    "host",
    "origin",
    "forwarded",
    "x-real-ip",
    "x-request-id",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "expect",
    "content-length",
    "content-type",
    "content-encoding",
    "accept",
    "accept-encoding",
    "user-agent",
    "mcp-session-id",
    "mcp-protocol-version",
    "last-event-id",
    "mcp-method",
    "mcp-name",
    "via",
];
/// And every field that begins so.
const NEVER_PREFIXES: [&str; 3] = ["proxy-", "x-forwarded-", "mcp-param-"];

/// May an operator let this field through?
#[must_use]
pub fn may_go_up(name: &HeaderName) -> bool {
    !NEVER.contains(&name.as_str())
        && !NEVER_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix))
}

/// The fields of a client's request that a path which is passed through hands on.
#[derive(Debug)]
pub(crate) struct Passable;

impl Passable {
    const NAMES: [HeaderName; 15] = [
        header::ACCEPT,
        header::ACCEPT_LANGUAGE,
        header::CACHE_CONTROL,
        header::CONTENT_ENCODING,
        header::CONTENT_LANGUAGE,
        header::CONTENT_TYPE,
        header::IF_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_NONE_MATCH,
        header::IF_RANGE,
        header::IF_UNMODIFIED_SINCE,
        header::RANGE,
        LAST_EVENT_ID,
        SESSION_ID,
        PROTOCOL_VERSION,
    ];

    /// Is a field of this name, in lower case, among them?
    pub(crate) fn has(name: &str) -> bool {
        Self::NAMES.iter().any(|passable| passable.as_str() == name)
    }

    /// Those of `headers`.
    pub(crate) fn of(headers: &HeaderMap) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        Self::NAMES.into_iter().flat_map(|name| {
            let values: Vec<_> = headers.get_all(&name).iter().cloned().collect();
            values.into_iter().map(move |value| (name.clone(), value))
        })
    }
}

/// The fields of a request that the edge makes for `caller`.
pub(super) fn fresh(caller: &Caller) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(12);
    fields.insert(header::USER_AGENT, USER_AGENT);
    if let Some(client) = caller.client {
        // An address in text is always a valid field.
        if let Ok(address) = HeaderValue::try_from(client.ip().to_string()) {
            fields.insert(REAL_IP, address.clone());
            fields.insert(FORWARDED_FOR, address);
        }
        let scheme = if caller.tls.is_some() { "https" } else { "http" };
        fields.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }
    if let Some(provenance) = &caller.provenance {
        fields.insert(REQUEST_ID, provenance.request.clone());
        if let Some(host) = &provenance.host {
            fields.insert(FORWARDED_HOST, host.clone());
        }
        for (name, value) in &provenance.forwarded {
            fields.append(name.clone(), value.clone());
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::caller::Provenance;
    use crate::limits::addr::ClientAddr;

    fn caller(forwarded: Vec<(HeaderName, HeaderValue)>) -> Caller {
        let client = ClientAddr::from_peer("192.0.2.7:1234".parse().unwrap());
        let provenance = Provenance {
            request: HeaderValue::from_static("abc"),
            host: Some(HeaderValue::from_static("mcp.example.com")),
            forwarded,
        };
        Caller { client: Some(client), provenance: Some(Arc::new(provenance)), ..Caller::stdio() }
    }

    #[test]
    fn the_edge_says_who_the_client_is() {
        let fields = fresh(&caller(vec![(
            HeaderName::from_static("x-user-role"),
            HeaderValue::from_static("USER"),
        )]));
        let of = |name| fields.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        assert_eq!(of("x-real-ip"), Some("192.0.2.7"));
        assert_eq!(of("x-forwarded-for"), Some("192.0.2.7"));
        assert_eq!(of("x-forwarded-proto"), Some("http"));
        assert_eq!(of("x-forwarded-host"), Some("mcp.example.com"));
        assert_eq!(of("x-request-id"), Some("abc"));
        assert_eq!(of("x-user-role"), Some("USER"));
    }

    #[test]
    fn credentials_and_what_the_edge_says_itself_can_never_be_listed() {
        let named = |name: &str| may_go_up(&HeaderName::try_from(name).unwrap());
        for never in NEVER {
            assert!(!named(never), "{never}");
        }
        for never in ["proxy-authorization", "x-forwarded-for", "x-forwarded-user", "mcp-param-a"] {
            assert!(!named(never), "{never}");
        }
        assert!(named("x-user-role") && named("x-api-version") && named("traceparent"));
    }

    proptest! {
        #[test]
        fn no_field_of_a_client_is_passed_unless_it_is_listed(
            names in proptest::collection::vec("[a-z][a-z0-9-]{0,20}", 0..20),
        ) {
            let mut headers = HeaderMap::new();
            for name in &names {
                let name = HeaderName::try_from(name.as_str()).unwrap();
                headers.append(name, HeaderValue::from_static("v"));
            }
            for never in NEVER {
                headers.append(HeaderName::try_from(never).unwrap(), HeaderValue::from_static("v"));
            }
            for (name, _) in Passable::of(&headers) {
                prop_assert!(Passable::NAMES.contains(&name));
                prop_assert!(!["authorization", "cookie", "host"].contains(&name.as_str()));
            }
        }
    }
}
