//! One HTTP exchange with an upstream's MCP endpoint: a message up, what it is answered down.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::time::timeout;

use crate::body::{self, BodyError, BodyLimits};
use crate::budget::{PER_MESSAGE, Quota, Share, Short};
use crate::caller::Caller;
use crate::events::{Decoder, Event};
use crate::jsonrpc::{RequestId, code};
use crate::upstream::{self, Arriving, Fault, Upstream};

pub(super) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
pub(super) const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
pub(super) const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
const BOTH: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");

/// A JSON answer in all. The call has its own, shorter time; this one is for whoever has none.
const ANSWER: Duration = Duration::from_hours(1);
/// How long the end of a stream is waited for behind its last event, so that its connection can be
/// used again.
const END: Duration = Duration::from_millis(50);
/// Bytes of a refusal that are looked at.
const REFUSAL: usize = 64 * 1024;

/// The MCP endpoint of an upstream.
#[derive(Debug)]
pub(super) struct Wire {
    upstream: Arc<Upstream>,
    /// Bytes that one message may have.
    max: usize,
}

/// What an upstream says to a request.
#[derive(Debug)]
pub(super) enum Answer {
    /// 2xx and one JSON text.
    Json(Bytes),
    /// 2xx and a stream.
    Events(Box<EventBody>),
    /// 2xx and neither.
    Accepted,
    /// Anything else.
    Refused(Refusal),
}

/// A status that is no success, and what the upstream said beside it.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// Code and text, where the body is a JSON-RPC error.
    pub(super) error: Option<(i32, String)>,
    /// The request that the error answers, where it names one.
    answers: Option<RequestId>,
    /// Where it redirects to.
    location: Option<String>,
}

impl Refusal {
    /// The edge's own, of an answer that it has no memory for.
    fn for_want_of_memory(status: StatusCode, short: Short) -> Self {
        let text = format!("no memory for the upstream's answer: {short}");
        Self { status, error: Some((code::INTERNAL_ERROR, text)), answers: None, location: None }
    }

    /// What the client is told.
    pub(super) fn text(&self) -> String {
        let status = self.status;
        match (&self.error, &self.location) {
            (Some((_, text)), _) => text.clone(),
            (None, Some(to)) => {
                format!("the upstream redirects ({status}) to {to:?}: give that URL as --upstream")
            }
            (None, None) if matches!(status.as_u16(), 401 | 403) => format!(
                "the upstream wants a credential ({status}): give the edge one by \
                 --upstream-token-file"
            ),
            (None, None) => format!("the upstream answered {status}"),
        }
    }

    /// Does it say that it does not know the session? 404 is what the specification has; servers
    /// built on the SDKs' examples say 400 and name the session in the error. An error that answers
    /// the request itself is the request's, whatever it speaks of: a tool may have run.
    pub(super) fn is_lost_session(&self, request: Option<&RequestId>) -> bool {
        let code = self.error.as_ref().map(|(code, _)| *code);
        let of_the_transport = matches!(code, Some(code::TRANSPORT | code::SESSION_NOT_FOUND));
        if request.is_some() && self.answers.as_ref() == request && !of_the_transport {
            return false;
        }
        let named = || {
            let text = self.error.as_ref().map(|(_, text)| text.to_ascii_lowercase());
            text.is_some_and(|text| text.contains("session") || text.contains("not initialized"))
        };
        match self.status {
            StatusCode::NOT_FOUND => true,
            StatusCode::BAD_REQUEST => named(),
            _ => false,
        }
    }
}

impl Wire {
    pub(super) fn new(upstream: Arc<Upstream>, max: usize) -> Self {
        Self { upstream, max }
    }

    /// Where the endpoint is.
    pub(super) fn url(&self) -> &Uri {
        self.upstream.url()
    }

    /// How long an upstream may think about what needs no thought.
    pub(super) fn patience(&self) -> Duration {
        self.upstream.patience()
    }

    /// Posts one message. Gives the head's fields, too.
    pub(super) async fn post(
        &self,
        to: &Uri,
        message: Bytes,
        session: &HeaderMap,
        caller: &Caller,
        patience: Option<Duration>,
    ) -> Result<(HeaderMap, Answer), Fault> {
        let mut request = self.request(Method::POST, to, message, session, caller);
        let headers = request.headers_mut();
        drop(headers.insert(CONTENT_TYPE, JSON));
        drop(headers.insert(ACCEPT, BOTH));
        self.send(request, patience, &caller.quota).await
    }

    /// Asks for a stream.
    pub(super) async fn listen(
        &self,
        session: &HeaderMap,
        caller: &Caller,
    ) -> Result<Answer, Fault> {
        let mut request = self.request(Method::GET, self.url(), Bytes::new(), session, caller);
        drop(request.headers_mut().insert(ACCEPT, EVENTS));
        // Some servers send the head with the first event only.
        Ok(self.send(request, None, &caller.quota).await?.1)
    }

    /// Ends a session. Whatever comes of it.
    pub(super) async fn end(&self, session: &HeaderMap, caller: &Caller, patience: Duration) {
        let request = self.request(Method::DELETE, self.url(), Bytes::new(), session, caller);
        if let Err(fault) = self.send(request, Some(patience), &caller.quota).await {
            tracing::debug!(%fault, "could not end the upstream's session");
        }
    }

    fn request(
        &self,
        method: Method,
        to: &Uri,
        body: Bytes,
        session: &HeaderMap,
        caller: &Caller,
    ) -> Request<upstream::Outgoing> {
        let mut request = Request::new(upstream::full(body));
        *request.method_mut() = method;
        *request.uri_mut() = to.clone();
        *request.headers_mut() = self.upstream.fields(caller);
        for (name, value) in session {
            drop(request.headers_mut().insert(name, value.clone()));
        }
        request
    }

    async fn send(
        &self,
        request: Request<upstream::Outgoing>,
        patience: Option<Duration>,
        quota: &Quota,
    ) -> Result<(HeaderMap, Answer), Fault> {
        let (head, body) = self.upstream.send(request, patience).await?.into_parts();
        let response = Response::from_parts(head, ());
        let fields = response.headers();
        let essence = fields.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = essence.and_then(|text| text.split(';').next()).unwrap_or_default().trim();
        let encoded = fields.get(CONTENT_ENCODING).is_some_and(|it| it != "identity");
        // A call's answer may come as late as its head may.
        let idle = patience.unwrap_or(ANSWER);
        let answer = if !response.status().is_success() {
            Answer::Refused(Box::pin(refusal(&response, body, self.limits(), quota)).await)
        } else if encoded {
            return Err(Fault::Broken("it sent a compressed answer, unasked".to_owned()));
        } else if essence.eq_ignore_ascii_case("application/json") {
            match body::read(body, BodyLimits { idle, ..self.limits() }, quota).await {
                Ok(read) => Answer::Json(read),
                // It answered: to ask again would do what it did once more, and help nobody.
                Err(BodyError::Short(short)) => {
                    Answer::Refused(Refusal::for_want_of_memory(response.status(), short))
                }
                Err(error) => return Err(Fault::Broken(error.to_string())),
            }
        } else if essence.eq_ignore_ascii_case("text/event-stream") {
            Answer::Events(Box::new(EventBody::new(body, Decoder::new(self.max), quota)))
        } else {
            // Read, so that the connection can be used again; what it says is of no use.
            let limits = BodyLimits { bytes: REFUSAL, ..self.limits() };
            drop(Box::pin(body::read(body, limits, quota)).await);
            Answer::Accepted
        };
        Ok((response.into_parts().0.headers, answer))
    }

    fn limits(&self) -> BodyLimits {
        BodyLimits { bytes: self.max, idle: self.upstream.patience(), total: ANSWER }
    }
}

async fn refusal(
    response: &Response<()>,
    body: Arriving,
    limits: BodyLimits,
    quota: &Quota,
) -> Refusal {
    let body = body::read(body, BodyLimits { bytes: REFUSAL, ..limits }, quota).await;
    let body: Option<Value> = body.ok().and_then(|body| serde_json::from_slice(&body).ok());
    let error = body.as_ref().and_then(|body| body.get("error")).and_then(|error| {
        let code = i32::try_from(error.get("code")?.as_i64()?).ok()?;
        Some((code, error.get("message")?.as_str()?.to_owned()))
    });
    let answers = body.as_ref().and_then(|body| RequestId::parse(&body.get("id")?.to_string()));
    let status = response.status();
    let location = response.headers().get(LOCATION).filter(|_| status.is_redirection());
    let location = location.and_then(|value| value.to_str().ok()).map(str::to_owned);
    Refusal { status, error, answers, location }
}

fn no_memory(short: Short) -> String {
    format!("no memory for what it says: {short}")
}

/// A stream of events as it comes.
#[derive(Debug)]
pub(super) struct EventBody {
    body: Arriving,
    decoder: Decoder,
    quota: Quota,
    /// Of what the decoder holds.
    share: Share,
}

impl EventBody {
    fn new(body: Arriving, decoder: Decoder, quota: &Quota) -> Self {
        Self { body, decoder, quota: quota.clone(), share: quota.take_anyway(0) }
    }

    /// The next event; none at the end of the stream.
    ///
    /// # Errors
    /// Says how the stream broke off.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, String> {
        loop {
            if let Some(event) = self.decoder.next().map_err(|error| error.to_string())? {
                // What was held there already.
                let hold = |data: Bytes| {
                    let size = data.len().saturating_add(PER_MESSAGE);
                    self.quota.take_anyway(size).hold(data)
                };
                let event = Event { data: event.data.map(hold), ..event };
                self.share.set(self.decoder.held()).map_err(no_memory)?;
                return Ok(Some(event));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(error.to_string()),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.decoder.feed(&data);
                        self.share.set(self.decoder.held()).map_err(no_memory)?;
                    }
                }
            }
        }
    }

    /// Reads to the end, if that is near: the connection can be used again then.
    pub(super) async fn finish(mut self) {
        let end = async { while let Some(Ok(_frame)) = self.body.frame().await {} };
        // No end in sight: dropping the body closes the connection.
        drop(timeout(END, end).await);
    }
}
