//! The spine: one request, from its head to its response. The floor's one verb is [`App::handle`].

mod cors;
#[cfg(fuzzing)]
pub mod fuzzing;
mod head;
mod notice;
mod pass;
mod passed;
mod redirect;
mod refusal;
mod reply;
mod rules;
mod tag;
mod visitor;

use std::sync::Arc;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderName, HeaderValue, Method, Request, Response, Version, header, request};
use http_body::Body;
use tokio::time::Instant;

pub(crate) use self::reply::{EVERY, OWN, ReplyBody};
pub(crate) use self::visitor::ConnInfo;

use self::head::{Fields, Route};
use self::notice::Notices;
use self::pass::Places;
use self::refusal::Refusal;
use self::rules::Rules;
use self::tag::RequestTags;
use self::visitor::Forwarded;
use crate::caller::{Caller, Principal, Provenance, Transport};
use crate::client::Upstream;
use crate::config::{Config, PassRule, TlsSource};
use crate::drain::Drain;
use crate::guard::{Admitted, Guard, OriginMatch, Visit};
use crate::limits::body::{self, BodyError, BodyLimits};
use crate::limits::bytes::Quota;
use crate::mcp::{Accept, Ask, MESSAGES_PATH, Mcp, Verb};
use crate::observe::metrics::Tally;
use crate::wire::proxy_header::{Prefix, TrustedProxies};

/// What the HTTP floor reaches of an upstream past MCP.
#[derive(Debug)]
pub(crate) struct Front {
    upstream: Arc<Upstream>,
    /// Paths that are passed through.
    rules: Rules,
    /// Places of requests to them.
    places: Places,
}

impl Front {
    /// This upstream, of which the paths of `pass` are passed through beside the unified path.
    pub(crate) fn new(
        upstream: Arc<Upstream>,
        pass: Vec<PassRule>,
        config: &Config,
        tally: &Tally,
    ) -> Self {
        let rules = Rules::new(pass, &config.path, upstream.url().path());
        let places = Places::new(config.limits.streams_per_ip, &tally.gauges().streams);
        Self { upstream, rules, places }
    }

    /// Has idle connections to the upstream closed in time, and all of them at the end.
    pub(crate) fn keep_swept(&self, drain: &Drain) {
        let upstream = Arc::clone(&self.upstream);
        let stopping = drain.stopping();
        drain.spawn_vital_behind(async move {
            tokio::select! {
                () = stopping => {}
                () = upstream.keep_swept() => {}
            }
            upstream.close_idle();
        });
    }

    /// Has the operator told if the upstream takes no connection. The start waits for nothing.
    pub(crate) fn look(&self, drain: &Drain) {
        let upstream = Arc::clone(&self.upstream);
        let stopping = drain.stopping();
        drain.spawn_behind(async move {
            tokio::select! {
                () = stopping => {}
                () = upstream.look() => {}
            }
        });
    }
}

/// Everything above the connections.
#[derive(Debug)]
pub(crate) struct App {
    /// The unified path, without a slash at its end.
    path: String,
    guard: Guard,
    mcp: Mcp,
    body: BodyLimits,
    max_headers: usize,
    max_header_bytes: usize,
    front: Option<Front>,
    proxies: TrustedProxies,
    /// Are the certificates such that clients may be told never to come without TLS?
    only_tls: bool,
    requests: RequestTags,
    notices: Notices,
    tally: Tally,
    drain: Drain,
}

/// One request, as far as it is known before its body.
#[derive(Clone, Copy, Debug)]
struct Arrived<'a> {
    conn: &'a ConnInfo,
    visit: Visit<'a>,
    head: &'a request::Parts,
    route: Route,
    /// What stands in front of the paths that its client knows.
    prefix: &'a Prefix,
    /// Its name.
    tag: &'a HeaderValue,
}

impl App {
    /// The floors below, put together.
    pub(crate) fn new(
        config: &Config,
        guard: Guard,
        mcp: Mcp,
        front: Option<Front>,
        tally: Tally,
        drain: Drain,
    ) -> Self {
        Self {
            path: config.path.to_string(),
            guard,
            mcp,
            body: BodyLimits {
                bytes: config.limits.max_body_bytes,
                idle: config.times.body_idle,
                total: config.times.body,
            },
            max_headers: config.limits.max_headers,
            max_header_bytes: config.limits.max_header_bytes,
            front,
            proxies: TrustedProxies::new(&config.trusted_proxies),
            only_tls: matches!(config.tls, TlsSource::Files(_)),
            requests: RequestTags::default(),
            notices: Notices::default(),
            tally,
            drain,
        }
    }

    /// What the floor reaches of an upstream, to be kept swept.
    pub(crate) fn front(&self) -> Option<&Front> {
        self.front.as_ref()
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
        let (head, body) = request.into_parts();
        let route = self.route(head.uri.path());
        let tag = self.requests.next();
        let Forwarded { conn, prefix, malformed } =
            Forwarded::of(&self.proxies, conn, &head.headers);
        let visit = visit(&conn, &head);
        let arrived =
            Arrived { conn: &conn, visit, head: &head, route, prefix: &prefix, tag: &tag };
        let asks_health = matches!(route, Route::Livez | Route::Readyz);
        if asks_health && matches!(head.method, Method::GET | Method::HEAD) {
            let answered = self.health(arrived).await;
            return self.finish(arrived, answered);
        }
        let mut body = Some(body);
        let answered = match malformed.map_or_else(|| self.check_size(&head), Err) {
            Ok(()) => self.answer(arrived, &mut body).await,
            Err(refusal) => self.refuse_stranger(arrived, refusal),
        };
        self.finish(arrived, answered)
    }

    /// Where a path leads. Where platforms look for health unasked there is the edge's own, unless
    /// the operator has the upstream's passed on.
    fn route(&self, path: &str) -> Route {
        let is_passed = || self.front.as_ref().is_some_and(|front| front.rules.have(path));
        let route = Route::of(path, &self.path);
        let usual = route == Route::Unknown && head::is_usual_for_health(path);
        if usual && !is_passed() { Route::Livez } else { route }
    }

    async fn health(&self, arrived: Arrived<'_>) -> Result<Response<ReplyBody>, Refusal> {
        self.guard.admit_probe(arrived.conn.client.key())?;
        let well = arrived.route == Route::Livez || Box::pin(self.mcp.ready()).await;
        Ok(reply::health(well))
    }

    /// What every answer gets.
    fn finish(
        &self,
        arrived: Arrived<'_>,
        answered: Result<Response<ReplyBody>, Refusal>,
    ) -> Response<ReplyBody> {
        let Arrived { conn, visit, head, route, prefix: _, tag } = arrived;
        let mut response = answered.unwrap_or_else(|refusal| {
            let refused = refusal.label();
            self.tally.refused(refused);
            tracing::debug!(client = %conn.client, request = ?tag, refusal = refused, "refused");
            self.notices.tell(&self.guard, arrived, &refusal, Instant::now());
            refusal.response(route.is_plain())
        });
        if let (OriginMatch::Allowed, Some(origin)) =
            (self.guard.origin(visit), head.headers.get(header::ORIGIN))
        {
            cors::allow(&mut response, origin);
        }
        reply::finish(&mut response, tag.clone(), self.only_tls && conn.tls.is_some());
        if head.method == Method::HEAD {
            reply::strip_body(&mut response);
        }
        response
    }

    fn check_size(&self, head: &request::Parts) -> Result<(), Refusal> {
        let fits =
            head.headers.len() <= self.max_headers && head::size(head) <= self.max_header_bytes;
        if fits { Ok(()) } else { Err(Refusal::HeadTooLarge) }
    }

    /// Refuses a request that is charged like any other.
    fn refuse_stranger<T>(&self, arrived: Arrived<'_>, refusal: Refusal) -> Result<T, Refusal> {
        self.guard.admit_stranger(arrived.visit)?;
        Err(refusal)
    }

    async fn answer<B>(
        &self,
        arrived: Arrived<'_>,
        body: &mut Option<B>,
    ) -> Result<Response<ReplyBody>, Refusal>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let Arrived { visit, head, route, .. } = arrived;
        let passed = self
            .front
            .as_ref()
            .and_then(|front| Some((front, front.rules.find(head.uri.path(), route)?)));
        let preflight = passed.is_none() || cors::is_preflight(&head.headers);
        if head.method == Method::OPTIONS && preflight {
            self.guard.admit_stranger(visit)?;
            let forwarded = self.front.as_ref().map_or(&[][..], |front| front.upstream.forward());
            return Ok(cors::preflight(&head.headers, passed.is_some(), forwarded));
        }
        if let Some(passed) = passed {
            return self.pass(arrived, passed, body).await;
        }
        if route == Route::OAuthProbe {
            return self.refuse_stranger(arrived, Refusal::NoOAuth);
        }
        let admitted = self.guard.admit(visit).await?;
        arrived.conn.is_known();
        let fields = Fields::of(&head.headers).map_err(Refusal::Head)?;
        let quota = self.mcp.budget().of(arrived.conn.client.key());
        let verb = self.verb(arrived, &fields, body, &quota).await?;
        let ask = self.ask(arrived, &admitted, &fields, verb, quota);
        Ok(reply::answer(self.mcp.exchange(ask).await?))
    }

    /// What the request wants; its body is read for that, if it has one.
    async fn verb<'a, B>(
        &self,
        arrived: Arrived<'a>,
        fields: &Fields<'a>,
        body: &mut Option<B>,
        quota: &Quota,
    ) -> Result<Verb<'a>, Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let Arrived { head, route, prefix, .. } = arrived;
        let prefix = prefix.as_str();
        match (route, &head.method) {
            (Route::Mcp, &Method::POST) => Ok(Verb::Post(self.read(head, body, quota).await?)),
            (Route::Mcp, &Method::GET) => {
                let messages = format!("{prefix}{}{MESSAGES_PATH}", self.path);
                Ok(Verb::Get { last: fields.last_event, messages })
            }
            (Route::Mcp, &Method::DELETE) => Ok(Verb::Delete),
            (Route::Sse, &Method::GET) => {
                Ok(Verb::OpenSse { messages: format!("{prefix}{MESSAGES_PATH}") })
            }
            (Route::Messages, &Method::POST) => {
                let session = head::session_in_query(head);
                Ok(Verb::PostMessage(session, self.read(head, body, quota).await?))
            }
            (Route::Tools, &Method::GET | &Method::HEAD) => Ok(Verb::ListTools),
            (Route::CallTool, &Method::POST) => {
                Ok(Verb::CallTool(self.read(head, body, quota).await?))
            }
            (Route::OAuthProbe | Route::Unknown, _) => {
                Err(Refusal::NotFound(head::whereabouts(head.uri.path(), &self.path, prefix)))
            }
            (_, _) => Err(Refusal::Method(route)),
        }
    }

    fn ask<'a>(
        &self,
        arrived: Arrived<'a>,
        admitted: &'a Admitted,
        fields: &Fields<'a>,
        verb: Verb<'a>,
        quota: Quota,
    ) -> Ask<'a> {
        let Arrived { conn, head, .. } = arrived;
        let accept = match verb {
            Verb::Get { .. } | Verb::OpenSse { .. } => {
                let nothing_else =
                    matches!(verb, Verb::OpenSse { .. }) && !head.headers.contains_key(ACCEPT);
                Accept {
                    events: nothing_else || head::takes_stream(&head.headers),
                    ..fields.accept
                }
            }
            Verb::Post(_)
            | Verb::Delete
            | Verb::PostMessage(..)
            | Verb::ListTools
            | Verb::CallTool(_) => fields.accept,
        };
        Ask {
            admitted,
            client: conn.client.key(),
            caller: self.caller(arrived, admitted.principal().clone(), quota),
            accept,
            session: fields.session,
            version: fields.version,
            verb,
        }
    }

    fn caller(&self, arrived: Arrived<'_>, principal: Principal, quota: Quota) -> Caller {
        let Arrived { conn, head, tag, .. } = arrived;
        let provenance = self.front.as_ref().map(|front| {
            let named = front.upstream.forward().iter();
            let listed = |name: &HeaderName| {
                let values = head.headers.get_all(name).iter().cloned();
                values.map(|value| (name.clone(), value)).collect::<Vec<_>>()
            };
            Arc::new(Provenance {
                request: tag.clone(),
                host: head::host(head),
                forwarded: named.flat_map(listed).collect(),
            })
        });
        Caller {
            principal,
            transport: Transport::StreamableHttp,
            client: Some(conn.client),
            http: Some(http_name(head.version)),
            tls: conn.tls.clone(),
            session: None,
            provenance,
            quota,
        }
    }

    async fn read<B>(
        &self,
        head: &request::Parts,
        body: &mut Option<B>,
        quota: &Quota,
    ) -> Result<Bytes, Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        head::check_content(&head.headers).map_err(Refusal::Head)?;
        let Some(body) = body else { return Err(Refusal::Body(BodyError::Broken)) };
        body::read(body, self.body, quota).await.map_err(Refusal::Body)
    }
}

fn visit<'a>(conn: &ConnInfo, head: &'a request::Parts) -> Visit<'a> {
    Visit { client: conn.client.key(), local: conn.local, uri: &head.uri, headers: &head.headers }
}

fn http_name(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP",
    }
}
