//! One HTTP exchange with an upstream's MCP endpoint: a message up, what it is answered down.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::refusal::{Asked, UpstreamRefusal, is_page};
use crate::caller::Caller;
use crate::client::{self, Arriving, Client, SendError};
use crate::limits::body::{self, BodyError, BodyLimits};
use crate::limits::bytes::{PER_MESSAGE, Quota, Share, Short};
use crate::wire::events::{Decoder, Event};
use crate::wire::jsonrpc::Message;

pub(super) use crate::wire::fields::{
    LAST_EVENT_ID as LAST_EVENT, PROTOCOL_VERSION as VERSION, SESSION_ID as SESSION,
};

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
    upstream: Arc<Client>,
    /// Bytes that one message may have.
    max: AtomicUsize,
}

/// What an upstream says to a request.
#[derive(Debug)]
pub(super) enum Answer {
    /// 2xx and one JSON text.
    Json(Bytes),
    /// 2xx and a stream.
    Events(Box<EventBody>),
    /// 2xx and neither.
    Accepted {
        /// Is it a web page?
        page: bool,
    },
    /// Anything else.
    Refused(UpstreamRefusal),
}

impl Wire {
    pub(super) fn new(upstream: Arc<Client>, max: usize) -> Self {
        Self { upstream, max: AtomicUsize::new(max) }
    }

    /// Takes messages of at most so many bytes from now on.
    pub(super) fn keep_to(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
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
        message: &Message,
        session: &HeaderMap,
        caller: &Caller,
        patience: Option<Duration>,
    ) -> Result<(HeaderMap, Answer), SendError> {
        let mut request = self.request(Method::POST, to, message.bytes().clone(), session, caller);
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(ACCEPT, BOTH);
        self.send(request, patience, &caller.quota).await
    }

    /// Asks for a stream.
    pub(super) async fn listen(
        &self,
        session: &HeaderMap,
        caller: &Caller,
    ) -> Result<Answer, SendError> {
        let mut request = self.request(Method::GET, self.url(), Bytes::new(), session, caller);
        request.headers_mut().insert(ACCEPT, EVENTS);
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
    ) -> Request<client::Outgoing> {
        self.upstream.note_host(caller);
        let mut request = Request::new(client::full(body));
        *request.method_mut() = method;
        *request.uri_mut() = to.clone();
        *request.headers_mut() = self.upstream.fields(caller);
        for (name, value) in session {
            request.headers_mut().insert(name, value.clone());
        }
        request
    }

    async fn send(
        &self,
        request: Request<client::Outgoing>,
        patience: Option<Duration>,
        quota: &Quota,
    ) -> Result<(HeaderMap, Answer), SendError> {
        let host = request.headers().get(HOST).cloned();
        let token = self.upstream.has_token();
        let asked = Asked::new(request.method(), request.uri(), self.url(), token);
        let (head, body) = self.upstream.send(request, patience).await?.into_parts();
        let response = Response::from_parts(head, ());
        let fields = response.headers();
        let essence = fields.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = essence.and_then(|text| text.split(';').next()).unwrap_or_default().trim();
        let encoded = fields.get(CONTENT_ENCODING).is_some_and(|it| it != "identity");
        // A call's answer may come as late as its head may.
        let idle = patience.unwrap_or(ANSWER);
        let answer = if !response.status().is_success() {
            let limits = BodyLimits { bytes: REFUSAL, ..self.limits() };
            let said = Box::pin(body::read(body, limits, quota)).await.unwrap_or_default();
            let refusal = UpstreamRefusal::new(&response, &said, asked);
            if let Some(host) = host.filter(|_| refusal.is_of_host()) {
                self.upstream.refused_host(refusal.status, &host);
            }
            Answer::Refused(refusal)
        } else if encoded {
            return Err(SendError::Broken("it sent a compressed answer, unasked".to_owned()));
        } else if essence.eq_ignore_ascii_case("application/json") {
            match body::read(body, BodyLimits { idle, ..self.limits() }, quota).await {
                Ok(read) => Answer::Json(read),
                // It answered: to ask again would do what it did once more, and help nobody.
                Err(BodyError::Short(short)) => Answer::Refused(
                    UpstreamRefusal::for_want_of_memory(response.status(), short, asked),
                ),
                Err(error) => return Err(SendError::Broken(error.to_string())),
            }
        } else if essence.eq_ignore_ascii_case("text/event-stream") {
            Answer::Events(Box::new(EventBody::new(body, Decoder::new(self.max()), quota)))
        } else {
            let page = is_page(essence);
            // Read, so that the connection can be used again; what it says is of no use.
            let limits = BodyLimits { bytes: REFUSAL, ..self.limits() };
            drop(Box::pin(body::read(body, limits, quota)).await);
            Answer::Accepted { page }
        };
        Ok((response.into_parts().0.headers, answer))
    }

    fn limits(&self) -> BodyLimits {
        BodyLimits { bytes: self.max(), idle: self.upstream.patience(), total: ANSWER }
    }
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

    /// The next event, whose data are not empty if it has any; none at the end of the stream.
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
                let data = event.data.filter(|data| !data.is_empty()).map(hold);
                self.share.set(self.decoder.held()).map_err(no_memory)?;
                return Ok(Some(Event { data, ..event }));
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
