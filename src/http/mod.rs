//! The spine: one request, from its head to its response. The floor's one verb is [`App::handle`].

mod cors;
mod head;
mod refusal;
mod reply;
mod tag;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderName, Method, Request, Response, StatusCode, Version, header, request};
use http_body::Body;

pub(crate) use self::reply::ReplyBody;

use self::head::{Fields, Route};
use self::refusal::Refusal;
use self::tag::RequestTags;
use crate::addr::ClientAddr;
use crate::body::{self, BodyLimits};
use crate::caller::{Caller, Principal, Provenance, TlsFacts, Transport};
use crate::config::{Config, PassRule};
use crate::guard::{Admitted, Guard, OriginMatch, Visit};
use crate::mcp::{Accept, Ask, Mcp, Verb};
use crate::upstream::Upstream;

/// What is taken of the body of a request that was refused before it was read.
const DISCARDED: BodyLimits = BodyLimits {
    bytes: 1024 * 1024,
    idle: Duration::from_millis(100),
    total: Duration::from_secs(1),
};

/// What is known of the connection that a request came on.
#[derive(Clone, Debug)]
pub(crate) struct ConnInfo {
    /// Who is at the other end.
    pub(crate) client: ClientAddr,
    /// The address it came in on.
    pub(crate) local: IpAddr,
    /// What TLS settled.
    pub(crate) tls: Option<TlsFacts>,
}

/// What the HTTP floor reaches of an upstream past MCP.
#[derive(Debug)]
pub(crate) struct Front {
    /// The upstream.
    pub(crate) upstream: Arc<Upstream>,
    /// Paths that are passed through.
    pub(crate) pass: Vec<PassRule>,
}

/// Everything above the connections.
#[derive(Debug)]
pub(crate) struct App {
    path: String,
    guard: Guard,
    mcp: Mcp,
    body: BodyLimits,
    max_headers: usize,
    max_header_bytes: usize,
    front: Option<Front>,
    requests: RequestTags,
}

impl App {
    /// The floors below, put together.
    pub(crate) fn new(config: &Config, guard: Guard, mcp: Mcp, front: Option<Front>) -> Self {
        Self {
            path: config.path.clone(),
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
            requests: RequestTags::default(),
        }
    }

    /// The guard, to be kept swept.
    pub(crate) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// How many sessions there are.
    pub(crate) fn sessions(&self) -> usize {
        self.mcp.sessions()
    }

    /// How many child processes there are.
    pub(crate) fn children(&self) -> u32 {
        self.mcp.children()
    }

    /// Answers one request.
    pub(crate) async fn handle<B>(
        &self,
        conn: &ConnInfo,
        request: Request<B>,
    ) -> Response<ReplyBody>
    where
        B: Body<Data = Bytes>,
    {
        let (head, body) = request.into_parts();
        let route = Route::of(head.uri.path(), &self.path);
        if route == Route::Livez && matches!(head.method, Method::GET | Method::HEAD) {
            return reply::empty(StatusCode::OK);
        }
        let visit = Visit {
            client: conn.client.key(),
            local: conn.local,
            uri: &head.uri,
            headers: &head.headers,
        };
        let mut body = std::pin::pin!(body);
        let answered = self.answer(conn, visit, route, &head, body.as_mut()).await;
        if answered.is_err() && head.version == Version::HTTP_2 {
            // A stream that is reset behind its answer is an error to older clients (curl 7.88).
            body::discard(body, DISCARDED).await;
        }
        let mut response = answered.unwrap_or_else(|refusal| {
            tracing::debug!(client = %conn.client, refusal = refusal.label(), "refused");
            refusal.response()
        });
        if let (OriginMatch::Allowed, Some(origin)) =
            (self.guard.origin(visit), head.headers.get(header::ORIGIN))
        {
            cors::allow(&mut response, origin);
        }
        reply::finish(&mut response);
        if head.method == Method::HEAD {
            reply::strip_body(&mut response);
        }
        response
    }

    async fn answer<B>(
        &self,
        conn: &ConnInfo,
        visit: Visit<'_>,
        route: Route,
        head: &request::Parts,
        body: B,
    ) -> Result<Response<ReplyBody>, Refusal>
    where
        B: Body<Data = Bytes>,
    {
        if head.headers.len() > self.max_headers || head::size(head) > self.max_header_bytes {
            self.guard.admit_stranger(visit)?;
            return Err(Refusal::HeadTooLarge);
        }
        if head.method == Method::OPTIONS {
            self.guard.admit_stranger(visit)?;
            return Ok(cors::preflight(&head.headers));
        }
        if route == Route::OAuthProbe {
            self.guard.admit_stranger(visit)?;
            return Err(Refusal::NoOAuth);
        }
        let admitted = self.guard.admit(visit).await?;
        let fields = Fields::of(&head.headers).map_err(Refusal::Head)?;
        let verb = self.verb(route, head, &fields, body).await?;
        let ask = self.ask(conn, &admitted, head, &fields, verb);
        Ok(reply::answer(self.mcp.exchange(ask).await?))
    }

    /// What the request wants; its body is read for that, if it has one.
    async fn verb<'a, B>(
        &self,
        route: Route,
        head: &'a request::Parts,
        fields: &Fields<'a>,
        body: B,
    ) -> Result<Verb<'a>, Refusal>
    where
        B: Body<Data = Bytes>,
    {
        match (route, &head.method) {
            (Route::Mcp, &Method::POST) => Ok(Verb::Post(self.read(head, body).await?)),
            (Route::Mcp, &Method::GET) => Ok(Verb::Get(fields.last_event)),
            (Route::Mcp, &Method::DELETE) => Ok(Verb::Delete),
            (Route::Sse, &Method::GET) => Ok(Verb::OpenSse),
            (Route::Messages, &Method::POST) => {
                let session = head::session_in_query(head);
                Ok(Verb::PostMessage(session, self.read(head, body).await?))
            }
            (Route::Mcp | Route::Sse | Route::Messages | Route::Livez, _) => {
                Err(Refusal::Method(route))
            }
            (Route::OAuthProbe | Route::Unknown, _) => Err(Refusal::NotFound),
        }
    }

    fn ask<'a>(
        &self,
        conn: &ConnInfo,
        admitted: &'a Admitted,
        head: &'a request::Parts,
        fields: &Fields<'a>,
        verb: Verb<'a>,
    ) -> Ask<'a> {
        let accept = match verb {
            Verb::Get(_) | Verb::OpenSse => {
                let nothing_else =
                    matches!(verb, Verb::OpenSse) && !head.headers.contains_key(ACCEPT);
                Accept {
                    events: nothing_else || head::takes_stream(&head.headers),
                    ..fields.accept
                }
            }
            Verb::Post(_) | Verb::Delete | Verb::PostMessage(..) => fields.accept,
        };
        Ask {
            admitted,
            client: conn.client.key(),
            caller: self.caller(conn, admitted.principal().clone(), head),
            accept,
            session: fields.session,
            version: fields.version,
            verb,
        }
    }

    fn caller(&self, conn: &ConnInfo, principal: Principal, head: &request::Parts) -> Caller {
        let provenance = self.front.as_ref().map(|front| {
            let named = front.upstream.forward().iter();
            let listed = |name: &HeaderName| {
                let values = head.headers.get_all(name).iter().cloned();
                values.map(|value| (name.clone(), value)).collect::<Vec<_>>()
            };
            Arc::new(Provenance {
                request: self.requests.next(),
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
        }
    }

    async fn read<B>(&self, head: &request::Parts, body: B) -> Result<Bytes, Refusal>
    where
        B: Body<Data = Bytes>,
    {
        head::check_content(&head.headers).map_err(Refusal::Head)?;
        body::read(body, self.body).await.map_err(Refusal::Body)
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
