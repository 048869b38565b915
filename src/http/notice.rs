//! Refusals that an operator can mend are told at INFO: pages cannot read them, and clients often
//! hide them. One of a kind in a while, for anybody can cause them.

use tokio::time::Instant;

use super::refusal::Refusal;
use super::route::Route;
use crate::guard::{Admission, Deny, Visit};
use crate::observe::sample::{EVERY, Samples};

/// What was told lately.
#[derive(Debug)]
pub(super) struct Notices(Samples);

impl Default for Notices {
    fn default() -> Self {
        Self(Samples::every(EVERY))
    }
}

/// What the line of one kind says.
struct Notice {
    name: &'static str,
    /// What is wrong, and what would allow it; `{}` stands for what was asked.
    text: &'static str,
    /// Where it is not known what was asked.
    unknown: &'static str,
}

fn notice(deny: Deny, route: Route) -> Option<Notice> {
    let (name, text, unknown) = match deny {
        Deny::Host => (
            "foreign_host",
            "a request is addressed to a host that this edge is not known by; if it is yours: \
             --allow-host {} (MCP_ALLOW_HOST)",
            "NAME",
        ),
        Deny::Origin => (
            "foreign_origin",
            "a page of an origin that may not call has called; if it is yours: --allow-origin {} \
             (MCP_ALLOW_ORIGIN)",
            "ORIGIN",
        ),
        Deny::Site => (
            "cross_site",
            "a page of another site led a browser here without an Origin (Sec-Fetch-Site); if it \
             is yours, have it call by fetch(), and allow it: --allow-origin {} (MCP_ALLOW_ORIGIN)",
            "ORIGIN",
        ),
        Deny::TokenWrong => (
            "wrong_token",
            "a request has a token that this edge does not know: compare the client's with MCP_AUTH_TOKEN \
             or --auth-token-file",
            "",
        ),
        // A scanner has no token either.
        Deny::TokenMissing if route == Route::Unknown => return None,
        Deny::TokenMissing => (
            "no_token",
            "a request has no token: have the client send `Authorization: Bearer TOKEN`, and \
             whatever stands in front of the edge pass it on",
            "",
        ),
        Deny::TokenMalformed => (
            "bad_authorization",
            "a request has no single header of the form `Authorization: Bearer TOKEN`: look for \
             quotes, spaces or a second header in the client's settings",
            "",
        ),
        // The first is no client's setting, the second is told by its own status and count.
        Deny::HostMalformed | Deny::Rate(_) => return None,
    };
    Some(Notice { name, text, unknown })
}

impl Notices {
    /// Tells of a refusal, if it is of a kind that is told, and none was told lately.
    pub(super) fn log(
        &self,
        admission: &Admission,
        visit: Visit<'_>,
        route: Route,
        refusal: &Refusal,
        now: Instant,
    ) {
        let Refusal::Denied(deny) = refusal else { return };
        let Some(Notice { name, text, unknown }) = notice(*deny, route) else { return };
        let Some(left_out) = self.0.take(name, now) else { return };
        let asked = admission.shown(visit, *deny);
        let text = text.replace("{}", asked.as_deref().unwrap_or(unknown));
        let client = visit.client;
        let request = visit.tag.to_str().unwrap_or_default();
        tracing::info!(refusal = name, asked, %client, request, left_out, "{text}");
    }
}
