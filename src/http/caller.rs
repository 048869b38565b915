//! Who sends a message, as handlers and upstreams are told.

use std::sync::Arc;

use http::{HeaderName, Version};

use super::head;
use crate::caller::{Caller, Principal, Provenance, Transport};
use crate::client::Client;
use crate::guard::Visit;
use crate::limits::bytes::Quota;

/// Whoever makes this request, as `principal`. What only an upstream is told is left out if there
/// is none.
pub(super) fn caller(
    visit: Visit<'_>,
    upstream: Option<&Client>,
    principal: Principal,
    quota: Quota,
) -> Caller {
    let Visit { conn, client, head, tag, .. } = visit;
    let provenance = upstream.map(|upstream| {
        let listed = |name: &HeaderName| {
            let values = head.headers.get_all(name).iter().cloned();
            values.map(|value| (name.clone(), value)).collect::<Vec<_>>()
        };
        Arc::new(Provenance {
            request: tag.clone(),
            host: head::host(head),
            forwarded: upstream.forward().iter().flat_map(listed).collect(),
        })
    });
    Caller {
        principal,
        transport: Transport::StreamableHttp,
        client: Some(client),
        http: Some(http_name(head.version)),
        tls: conn.tls.clone(),
        session: None,
        provenance,
        quota,
    }
}

fn http_name(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP",
    }
}
