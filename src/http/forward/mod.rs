//! Forwards one request to one server: its head, its body as it comes, and the response as it
//! comes back, within limits. The folder's one verb is [`send`]; which requests are forwarded is
//! for its callers to decide.

mod fields;
mod response;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header, request};
use http_body::Body;
use tokio::select;

pub(super) use self::response::{BrokenOff, ForwardTerms, Forwarded, is_events, response};

use super::refusal::{ForwardError, Refusal};
use crate::caller::Caller;
use crate::client::{self, Arriving, Client, Outgoing, Passable, SendError};
use crate::limits::body::{self, BodyLimits};

/// The head of the request that goes to this server for `caller`.
pub(super) fn head(
    server: &Client,
    caller: &Caller,
    head: &request::Parts,
) -> Result<Request<()>, ForwardError> {
    let mut request = Request::new(());
    *request.method_mut() = head.method.clone();
    // There is none for `OPTIONS *` and for what is no path.
    *request.uri_mut() = fields::target(server.url(), &head.uri).ok_or(ForwardError::Path)?;
    let mut sent = server.fields(caller);
    let passable: HeaderMap = Passable::of(&fields::end_to_end(&head.headers)).collect();
    sent.extend(passable);
    *request.headers_mut() = sent;
    Ok(request)
}

/// Sends head and body. `patience` is how long the head of the response may take.
///
/// # Errors
/// [`Refusal`] if the body does not come as `limits` want it, or if there is no response.
pub(super) async fn send<B>(
    server: &Client,
    tag: &HeaderValue,
    mut request: Request<()>,
    patience: Option<Duration>,
    body: B,
    limits: BodyLimits,
) -> Result<Response<Arriving>, Refusal>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    body::check_declared(&body, limits).map_err(Refusal::Body)?;
    if !body.is_end_stream() && body.size_hint().exact().is_none() {
        // Unasked, hyper sends no body of such a length with methods that seldom have one.
        let chunked = HeaderValue::from_static("chunked");
        request.headers_mut().insert(header::TRANSFER_ENCODING, chunked);
    }
    let (passing, fate) = body::hand_on(body, limits);
    let request: Request<Outgoing> = request.map(|()| client::passed(passing));
    let sent = select! {
        sent = server.send(request, patience) => sent,
        () = fate.overdue() => Err(SendError::Late(limits.total)),
    };
    let response = sent.map_err(|fault| match fate.error() {
        Some(error) => Refusal::Body(error),
        None => failed(tag, fault),
    })?;
    if response.status().is_informational() {
        return Err(failed(tag, SendError::Broken("it changes the protocol".into())));
    }
    Ok(response)
}

/// What went wrong in particular is for the log only.
fn failed(tag: &HeaderValue, fault: SendError) -> Refusal {
    tracing::warn!(request = ?tag, error = %fault, "a passed request has no response");
    ForwardError::Send(fault).into()
}
