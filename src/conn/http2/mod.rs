//! HTTP/2 on a connection. The folder's one verb is [`serve`]: which limits the library is told to
//! hold its peer to, what it cannot limit itself (an allowance of frames that ask for nothing), and
//! how the connection ends.

mod allowance;
mod fields;
pub(super) mod frame;
mod frames;
#[cfg(fuzzing)]
pub(super) mod fuzzing;
mod ledger;
mod metered;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};

pub(super) use self::ledger::Ledger;

use self::metered::{GoAway, Metered};
use super::activity::Activity;
use super::deadlines::Overdue;
use super::linger::{LINGER, take_the_rest};
use super::service::{ConnLimits, Service, Serving};
use super::socket::Watched;
use crate::caller::Alpn;
use crate::http::ConnInfo;
use crate::observe::metrics::{Metrics, Outcome};

/// Request bytes that a peer may send before they are asked for: of one stream, and of a
/// connection, which is what bounds memory. A stream may use it all: a client that stalls when a
/// body outgrows its stream's window (httpcore 1.0) has most of them go through.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Streams of one connection at once (RFC 9113 section 6.5.2 recommends no fewer than 100).
const STREAMS: u32 = 100;
/// Bytes of a frame: the least that RFC 9113 allows. A larger one would wait in memory until it is
/// whole.
const FRAME: u32 = 16 * 1024;
/// Bytes of the table by which heads are compressed: RFC 7541's own. More would be the peer's to
/// fill.
const HEADER_TABLE: u16 = 4096;
/// Streams that a peer may reset before the library has handed them on. Those come in one burst; all
/// others cost points of the allowance.
const PENDING_RESETS: usize = 20;
/// Streams that the library may reset for a peer's errors while a connection lives. The allowance ends
/// a flood of them earlier; this ends a slow one.
const LOCAL_RESETS: usize = 256;
/// Bytes of a header list that a peer is told to be the most.
const HEADER_LIST: usize = 64 * 1024;
/// Bytes of a response that wait for a peer's window.
const SEND_BUFFER: usize = 64 * 1024;
/// A silent peer is asked whether it lives, this often, and has this long to answer.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_WAIT: Duration = Duration::from_secs(20);

/// How hyper's part of a connection ended.
enum Driven {
    /// By itself.
    Over(Result<(), hyper::Error>),
    /// By a time limit, at once.
    Cut(Overdue),
    /// By one that let it finish, but it did not.
    Unfinished,
}

/// Serves an HTTP/2 connection to its end.
pub(super) async fn serve<I>(service: &Service, limits: ConnLimits, io: I, conn: ConnInfo)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let client = conn.client;
    let activity = Activity::new(limits.times, Alpn::H2);
    let mut io = Metered::new(
        Watched::new(io, Arc::clone(&activity), None),
        Arc::clone(&activity),
        HEADER_TABLE,
    );
    let requests = service.requests(conn, Arc::clone(&activity));
    let end = Box::pin(drive(service, limits, &mut io, requests, &activity)).await;
    let metrics = &service.failures.metrics;
    let reason = match (io.fault(), end) {
        (Some(fault), _) => {
            let flood = matches!(fault, GoAway::Spent(_));
            metrics.count(if flood { Outcome::Http2Flood } else { Outcome::Http2Broken });
            tracing::debug!(%client, ?fault, "an HTTP/2 peer is sent away");
            fault
        }
        (None, Driven::Cut(Overdue::Head | Overdue::Idle)) => GoAway::Overdue,
        (None, Driven::Over(Err(error))) => {
            count_error(metrics, &error);
            service.failures.ended(client, &error, &activity);
            // The library has said why; a peer that still sends must be able to read it.
            return Box::pin(take_the_rest(io.into_inner())).await;
        }
        (None, Driven::Over(Ok(())) | Driven::Cut(Overdue::Stalled) | Driven::Unfinished) => return,
    };
    Box::pin(say_goodbye(io, reason)).await;
}

/// Has hyper serve the connection, under its time limits and the drain. What hyper had is gone
/// when this returns, but for the socket.
async fn drive<I, S>(
    service: &Service,
    limits: ConnLimits,
    io: &mut Metered<I>,
    requests: S,
    activity: &Activity,
) -> Driven
where
    I: AsyncRead + AsyncWrite + Unpin + Send,
    S: Fn(Request<Incoming>) -> Serving + Unpin,
{
    let requests = hyper::service::service_fn(requests);
    let http = builder(limits).serve_connection(TokioIo::new(io), requests);
    let mut http = std::pin::pin!(http);
    let mut draining = Box::pin(service.drain.draining());
    let mut drained = false;
    let mut last: Option<Instant> = None;
    loop {
        let end = last.unwrap_or_else(far_future);
        tokio::select! {
            ended = &mut http => return Driven::Over(ended),
            () = &mut draining, if !drained => {
                drained = true;
                http.as_mut().graceful_shutdown();
            }
            overdue = activity.overdue(), if last.is_none() => {
                service.failures.overdue(overdue);
                // What has been used may be used this very moment: there the peer is asked.
                if overdue != Overdue::Idle || !activity.deadlines.was_used() {
                    return Driven::Cut(overdue);
                }
                http.as_mut().graceful_shutdown();
                last = Some(Instant::now() + limits.times.write);
            }
            () = tokio::time::sleep_until(end), if last.is_some() => return Driven::Unfinished,
        }
    }
}

/// Every limit that the library has, said: none is left to what it thinks best.
fn builder(limits: ConnLimits) -> http2::Builder<TokioExecutor> {
    // The limit itself is the HTTP floor's; the library refuses what is far beyond, in silence.
    let max_headers = limits.max_header_bytes.saturating_mul(2).max(HEADER_LIST);
    let max_headers = u32::try_from(max_headers).unwrap_or(u32::MAX);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        // Else windows grow with what a peer sends fast.
        .adaptive_window(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .max_frame_size(FRAME)
        .header_table_size(u32::from(HEADER_TABLE))
        .max_header_list_size(max_headers)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(LOCAL_RESETS)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_WAIT)
        .auto_date_header(true);
    // `enable_connect_protocol` is not called, which is off: extended CONNECT (RFC 8441) is
    // refused by the library.
    builder
}

/// What ended a connection by the library's own judgement is counted, too.
fn count_error(metrics: &Metrics, error: &hyper::Error) {
    let Some(error) = error.source().and_then(|it| it.downcast_ref::<::h2::Error>()) else {
        return;
    };
    if !error.is_io() && !error.is_remote() {
        let calm = error.reason() == Some(::h2::Reason::ENHANCE_YOUR_CALM);
        metrics.count(if calm { Outcome::Http2Flood } else { Outcome::Http2Broken });
    }
}

/// Says why the connection ends. To a peer that is at fault, and may still send, it listens for a
/// moment more: closing on unread bytes resets the connection, and the peer would lose the reason.
async fn say_goodbye<I>(mut io: Metered<I>, reason: GoAway)
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let Some(goaway) = io.goaway(reason) else { return };
    let last_words = async {
        io.write_all(&goaway).await?;
        io.shutdown().await
    };
    // It has had its time already.
    let taken = matches!(timeout(LINGER, last_words).await, Ok(Ok(())));
    if taken && reason != GoAway::Overdue {
        take_the_rest(io.into_inner()).await;
    }
}

/// Later than anything; a timer that is never due.
fn far_future() -> Instant {
    Instant::now() + Duration::from_hours(24 * 365)
}
