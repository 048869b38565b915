//! The end of every request: an answer, or a refusal that is counted and logged, becomes a response.

use http::{Method, Response, header};
use tokio::time::Instant;

use super::refusal::Refusal;
use super::reply::{self, ReplyBody};
use super::route::Route;
use super::verdict::Verdict;
use super::{App, cors};
use crate::guard::{OriginMatch, Visit};
use crate::policy::Policy;

impl App {
    /// What every answer gets.
    pub(super) fn finish(
        &self,
        policy: &Policy,
        visit: Visit<'_>,
        route: Route,
        answered: Result<Response<ReplyBody>, Refusal>,
    ) -> Response<ReplyBody> {
        let Visit { conn, client, head, tag, .. } = visit;
        let mut response = answered.unwrap_or_else(|refusal| {
            let verdict = Verdict::of(&refusal);
            let label = verdict.label;
            self.metrics.refused(label);
            tracing::debug!(%client, request = ?tag, refusal = label, "refused");
            self.notices.log(&policy.admission, visit, route, &refusal, Instant::now());
            verdict.response(refusal.id(), route.is_plain())
        });
        if let (OriginMatch::Allowed, Some(origin)) =
            (visit.origin(), head.headers.get(header::ORIGIN))
        {
            cors::allow(&mut response, origin);
        }
        reply::finish(&mut response, tag.clone(), self.only_tls && conn.tls.is_some());
        if head.method == Method::HEAD {
            reply::strip_body(&mut response);
        }
        response
    }
}
