//! HTTP/1.1 on a connection, under its time limits and the drain. The folder's one verb is
//! [`serve`]. The bytes are checked by [`Framing`] before hyper sees them.

mod error;
mod framing;
#[cfg(fuzzing)]
pub(super) mod fuzzing;
mod line;

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

pub(super) use self::framing::{Announced, Framing, Violation};

use self::framing::HeadLimits;
use super::activity::Activity;
use super::deadlines::{ConnTimes, Overdue};
use super::linger::take_the_rest;
use super::service::{ConnLimits, Service};
use super::socket::Watched;
use crate::caller::Alpn;
use crate::http::{ConnInfo, NoRequest};
use crate::observe::metrics::Outcome;

/// Header fields that hyper's parser has room for without an allocation.
const HYPERS_HEADERS: usize = 100;

/// Why a connection ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Both sides are done with it, or it broke.
    Done,
    /// It has gone on too long.
    Overdue(Overdue),
    /// What came on it is no HTTP/1.1.
    Violation(Violation),
}

/// Serves an HTTP/1.1 connection to its end.
///
/// Not `async` itself: what it takes would have a place in the future, beside what is made of it.
pub(super) fn serve<I>(
    service: &Service,
    limits: ConnLimits,
    io: I,
    conn: ConnInfo,
) -> impl Future<Output = ()> + Send + use<'_, I>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let ConnLimits { times, max_header_bytes, max_headers } = limits;
    let activity = Activity::new(times, Alpn::Http1);
    // Up to twice its size a head is the HTTP floor's, which charges it and names its refusal.
    let bytes = max_header_bytes.saturating_mul(2).max(8192);
    let framing = Framing::new(HeadLimits { bytes, fields: max_headers.max(HYPERS_HEADERS) });
    let io = TokioIo::new(Watched::new(io, Arc::clone(&activity), Some(framing)));
    let client = conn.client;
    let requests = service.requests(conn, Arc::clone(&activity));
    let mut builder = http1::Builder::new();
    // The head has its time from `Activity`; hyper's own timer would also cut idle keep-alive.
    builder.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(bytes);
    if max_headers > HYPERS_HEADERS {
        // Up to its own number, which costs less, the limit is the HTTP floor's.
        builder.max_headers(max_headers);
    }
    let mut http = builder.serve_connection(io, hyper::service::service_fn(requests));
    async move {
        let mut draining = Box::pin(service.drain.draining());
        let mut drained = false;
        let (end, linger) = loop {
            tokio::select! {
                ended = std::future::poll_fn(|context| http.poll_without_shutdown(context)) => {
                    if let Err(error) = &ended {
                        service.failures.ended(client, error, &activity);
                    }
                    let violation = activity.ending.violation();
                    let linger =
                        ended.is_err() || violation.is_some() || activity.ending.may_send();
                    break (violation.map_or(End::Done, End::Violation), linger);
                }
                () = &mut draining, if !drained => {
                    drained = true;
                    Pin::new(&mut http).graceful_shutdown();
                }
                overdue = activity.overdue() => {
                    break (End::Overdue(overdue), overdue == Overdue::Head);
                }
            }
        };
        count(service, end);
        if activity.ending.broke_off() {
            // A goodbye would make a whole answer of one that ends with the connection.
            return;
        }
        let io = http.into_parts().io.into_inner();
        Box::pin(bid_farewell(service, times, io, end, linger)).await;
    }
}

/// Ends our side of a connection. Says why if its time is over, or if what came is no request. A
/// peer that took that, and still has something to send, is listened to for a while.
async fn bid_farewell<I>(
    service: &Service,
    times: ConnTimes,
    mut io: Watched<I>,
    end: End,
    linger: bool,
) where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let text = match end {
        End::Overdue(Overdue::Head) => NoRequest::HeadTimeout.bytes(),
        End::Violation(Violation { error, in_body: false, .. }) => {
            let refusal = error.refusal();
            service.failures.metrics.refused(refusal.label());
            refusal.bytes()
        }
        // The request whose body it is has its answer.
        End::Violation(Violation { in_body: true, .. })
        | End::Overdue(Overdue::Idle)
        | End::Done => Bytes::new(),
        End::Overdue(Overdue::Stalled) => return,
    };
    let last_words = async {
        io.write_all(&text).await?;
        io.shutdown().await
    };
    // A peer that does not even take this has had its time.
    let taken = timeout(times.write, last_words).await;
    if linger && matches!(taken, Ok(Ok(()))) {
        take_the_rest(io.into_inner()).await;
    }
}

fn count(service: &Service, end: End) {
    match end {
        End::Violation(violation) => {
            tracing::debug!(fault = ?violation.error, "a connection broke the rules of HTTP/1.1");
            service.failures.metrics.count(Outcome::Malformed);
        }
        End::Overdue(overdue) => service.failures.overdue(overdue),
        End::Done => {}
    }
}
