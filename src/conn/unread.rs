//! Request bodies that were answered before their end.
//!
//! Over HTTP/2 the library ends such a stream with `RST_STREAM(NO_ERROR)` as soon as nobody holds its
//! body (RFC 9113 section 8.1), in the same write as the answer. Clients exist that lose the answer
//! to that (curl 7.88). So the rest of the body is taken for a while, as it is over HTTP/1.1: most
//! peers have seen the answer by then and stopped, or sent all they had.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::activity::{Activity, Over};
use super::linger::{LINGER, LINGER_BYTES};
use crate::drain::Drain;

/// A request body that does not end its stream before the peer can have read the answer.
#[derive(Debug)]
pub(super) struct Received {
    body: Option<Incoming>,
    /// Did it end, or break off?
    done: bool,
    then: Option<Then>,
}

/// What happens to a body that is left before its end.
#[derive(Debug)]
pub(super) enum Then {
    /// The connection ends, and its peer is listened to for a while. The body is that of the request
    /// with this number.
    Linger(Arc<Activity>, u64),
    /// It is taken, for some time after its answer is over.
    Take(Drain, Over),
}

impl Received {
    pub(super) fn new(body: Incoming, then: impl FnOnce() -> Then) -> Self {
        let done = body.is_end_stream();
        Self { body: Some(body), done, then: (!done).then(then) }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let Some(body) = self.body.as_mut() else { return Poll::Ready(None) };
        let frame = Pin::new(&mut *body).poll_frame(context);
        let ended = body.is_end_stream();
        self.done = ended || matches!(frame, Poll::Ready(None | Some(Err(_))));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint);
        if let (Some(Then::Linger(activity, request)), None) = (&self.then, hint.exact()) {
            // The size of a chunk comes before its data.
            hint.set_lower(hint.lower().max(activity.announced(*request)));
        }
        hint
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        let (Some(body), Some(then), false) = (self.body.take(), self.then.take(), self.done)
        else {
            return;
        };
        match then {
            Then::Linger(activity, _) => activity.ending.set_may_send(true),
            Then::Take(drain, over) => drain.spawn(take(body, over)),
        }
    }
}

/// Takes a body until its end, or until its answer has been over for long enough. Before that the
/// library would take it just as well. Ends with the connection.
async fn take(mut body: Incoming, over: Over) {
    tokio::select! {
        () = skip(&mut body, u64::MAX) => return,
        _over = over => {}
    }
    // The peer is told by a reset, if it still sends then.
    drop(timeout(LINGER, skip(&mut body, LINGER_BYTES)).await);
}

/// Takes so many bytes of a body, or all that there are.
async fn skip(body: &mut Incoming, most: u64) {
    let mut left = most;
    while let (1.., Some(Ok(frame))) = (left, body.frame().await) {
        let length = frame.data_ref().map_or(0, Bytes::len);
        left = left.saturating_sub(u64::try_from(length).unwrap_or(u64::MAX));
    }
}
