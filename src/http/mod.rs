//! The spine: one request, from its head to its response. The floor's one verb is [`App::handle`].

mod caller;
mod cors;
mod finish;
mod forward;
#[cfg(fuzzing)]
pub mod fuzzing;
mod head;
mod notice;
mod pass;
mod places;
mod proxied;
mod redirect;
mod refusal;
mod reply;
mod route;
mod rules;
mod tag;
mod verb;
mod verdict;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body;

pub(crate) use self::pass::Front;
pub(crate) use self::refusal::NoRequest;
pub(crate) use self::reply::ReplyBody;
pub(crate) use crate::guard::ConnInfo;

use self::caller::caller;
use self::head::Fields;
use self::notice::Notices;
use self::proxied::Proxied;
use self::refusal::Refusal;
use self::route::Route;
use self::tag::RequestTags;
use crate::caller::Principal;
use crate::client::Client;
use crate::config::{Config, PassRule, TlsSource};
use crate::drain::Drain;
use crate::guard::{Guard, Visit};
use crate::limits::bytes::Budget;
use crate::mcp::{Ask, Mcp};
use crate::observe::metrics::Metrics;
use crate::policy::{CurrentPolicy, Policy};

/// Everything above the connections.
#[derive(Debug)]
pub(crate) struct App {
    /// The unified path, without a slash at its end.
    path: String,
    guard: Guard,
    mcp: Mcp,
    front: Option<Front>,
    policy: CurrentPolicy,
    budget: Budget,
    /// Are the certificates such that clients may be told never to come without TLS?
    only_tls: bool,
    requests: RequestTags,
    notices: Notices,
    metrics: Metrics,
    drain: Drain,
}

impl App {
    /// The floors below, put together.
    pub(crate) fn new(
        config: &Config,
        policy: CurrentPolicy,
        budget: Budget,
        mcp: Mcp,
        front: Option<Front>,
        metrics: Metrics,
        drain: Drain,
    ) -> Self {
        Self {
            path: config.path.to_string(),
            guard: Guard::new(metrics.clone()),
            mcp,
            front,
            policy,
            budget,
            only_tls: matches!(config.tls, TlsSource::Files(_)),
            requests: RequestTags::default(),
            notices: Notices::default(),
            metrics,
            drain,
        }
    }

    /// What the floor reaches of an upstream, to be attended to.
    pub(crate) fn front(&self) -> Option<&Front> {
        self.front.as_ref()
    }

    /// The transports, to be held to another policy.
    pub(crate) fn mcp(&self) -> &Mcp {
        &self.mcp
    }

    /// The guard, to be kept swept.
    pub(crate) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Answers one request.
    pub(crate) async fn handle<B>(
        &self,
        conn: &ConnInfo,
        request: Request<B>,
    ) -> Response<ReplyBody>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let policy = &*self.policy.now();
        let (head, body) = request.into_parts();
        let tag = self.requests.next();
        let Proxied { client, prefix, malformed } =
            Proxied::of(&policy.proxies, conn, &head.headers);
        let visit = policy.admission.visit(conn, client, &head, &prefix, &tag);
        let route = self.route(head.uri.path());
        let answered = if route.is_probe(&head.method) {
            self.health(policy, visit, route).await
        } else {
            match malformed.map_or_else(|| head::check_size(&policy.limits, &head), Err) {
                Ok(()) => self.answer(policy, visit, route, body).await,
                Err(refusal) => self.refuse_stranger(policy, visit, refusal),
            }
        };
        self.finish(policy, visit, route, answered)
    }

    /// Where a path leads. Where platforms look for health unasked there is the edge's own, unless
    /// the operator has the upstream's passed on.
    fn route(&self, path: &str) -> Route {
        let is_passed = || self.front.as_ref().is_some_and(|front| front.has(path));
        let route = Route::of(path, &self.path);
        let usual = route == Route::Unknown && route::is_usual_for_health(path);
        if usual && !is_passed() { Route::Livez } else { route }
    }

    async fn health(
        &self,
        policy: &Policy,
        visit: Visit<'_>,
        route: Route,
    ) -> Result<Response<ReplyBody>, Refusal> {
        self.guard.admit_probe(visit.key())?;
        let well = route == Route::Livez || Box::pin(self.mcp.ready(policy)).await;
        Ok(reply::health(well))
    }

    /// Answers what is neither a probe nor too large. What is left of the body is discarded at the
    /// end, with the value.
    async fn answer<B>(
        &self,
        policy: &Policy,
        visit: Visit<'_>,
        route: Route,
        mut body: B,
    ) -> Result<Response<ReplyBody>, Refusal>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let head = visit.head;
        let front = self.front.as_ref();
        let upstream = front.map(Front::upstream);
        let passed = front.and_then(|front| Some((front, front.rule(head.uri.path(), route)?)));
        let preflight = passed.is_none() || cors::is_preflight(&head.headers);
        if head.method == Method::OPTIONS && preflight {
            self.guard.admit_stranger(&policy.admission, visit)?;
            let listed = upstream.map_or(&[][..], Client::forward);
            return Ok(cors::preflight(&head.headers, passed.is_some(), listed));
        }
        if let Some((front, rule)) = passed {
            let principal = self.admit_under(rule, policy, visit).await?;
            return front.pass((rule, principal), policy, visit, body, &self.drain).await;
        }
        if route == Route::OAuthProbe {
            return self.refuse_stranger(policy, visit, Refusal::NoOAuth);
        }
        let admitted = self.guard.admit(&policy.admission, visit).await?;
        visit.conn.mark_authenticated();
        let fields = Fields::of(&head.headers, head::accept(head, route)).map_err(Refusal::Head)?;
        let quota = self.budget.of(visit.key());
        let verb = self.verb(policy, visit, route, &fields, &mut body, &quota).await?;
        let ask = Ask {
            policy,
            admitted: &admitted,
            client: visit.key(),
            caller: caller(visit, upstream, admitted.principal().clone(), quota),
            accept: fields.accept,
            session: fields.session,
            version: fields.version,
            verb,
        };
        Ok(reply::answer(self.mcp.exchange(ask).await?))
    }

    /// Whose a request is that falls under this rule, if it may pass.
    async fn admit_under(
        &self,
        rule: &PassRule,
        policy: &Policy,
        visit: Visit<'_>,
    ) -> Result<Principal, Refusal> {
        if rule.open {
            self.guard.admit_stranger(&policy.admission, visit)?;
            return Ok(Principal::Anonymous);
        }
        let admitted = self.guard.admit(&policy.admission, visit).await?;
        visit.conn.mark_authenticated();
        Ok(admitted.principal().clone())
    }

    /// Refuses a request that is charged like any other.
    fn refuse_stranger<T>(
        &self,
        policy: &Policy,
        visit: Visit<'_>,
        refusal: Refusal,
    ) -> Result<T, Refusal> {
        self.guard.admit_stranger(&policy.admission, visit)?;
        Err(refusal)
    }
}
