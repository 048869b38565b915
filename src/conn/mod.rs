//! The life of one connection: handshake, then HTTP under its time limits and the drain. The
//! floor's one verb is [`Connection::serve`].

mod activity;
mod arrival;
#[cfg(fuzzing)]
pub mod fuzzing;
mod http1;
mod http2;
mod socket;
pub(crate) mod tls;
mod unread;

use std::convert::Infallible;
use std::fmt::Display;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};

pub(crate) use self::arrival::{Arrival, KnownBy};

use self::activity::{Activity, ConnTimes, Overdue, Reported};
use self::http1::{Framing, HeadLimits, Violation};
use self::socket::Watched;
use self::tls::{EndedBy, HandshakeError, TlsAcceptor, TlsError, Trust};
use self::unread::{Received, Then};
use crate::caller::Alpn;
use crate::config::Config;
use crate::drain::Drain;
use crate::http::{App, ConnInfo, ReplyBody};
use crate::limits::addr::ClientAddr;
use crate::limits::strangers::Stranger;
use crate::observe::metrics::{Outcome, Tally};
use crate::observe::sample::{EVERY, Samples};

/// Header fields that hyper's HTTP/1.1 parser has room for without an allocation.
const HYPERS_HEADERS: usize = 100;
/// How long, and how much, a peer is listened to after the last answer of its connection.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 16 * 1024 * 1024;

type Answer = Response<Reported<ReplyBody>>;

/// What every connection is served with.
#[derive(Debug)]
pub(crate) struct Connection {
    app: Arc<App>,
    job: Job,
    tls: Option<TlsAcceptor>,
    handshake: Duration,
    times: ConnTimes,
    max_header_bytes: usize,
    max_headers: usize,
    /// The failed handshakes that the log tells: anybody can cause them.
    told: Samples,
    tally: Tally,
    drain: Drain,
}

/// What is done with the requests of a connection.
#[derive(Clone, Copy, Debug)]
enum Job {
    Serve,
    /// They are sent to this port over TLS.
    Redirect(u16),
}

/// Why an HTTP/1.1 connection ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Both sides are done with it, or it broke.
    Done,
    /// It has gone on too long.
    Overdue(Overdue),
    /// What came on it is no HTTP/1.1.
    Violation(Violation),
}

impl Connection {
    /// Connections to this app; without `tls` they speak plain HTTP/1.1.
    pub(crate) fn new(
        config: &Config,
        app: Arc<App>,
        tls: Option<TlsAcceptor>,
        tally: Tally,
        drain: Drain,
    ) -> Self {
        let times = &config.times;
        Self {
            app,
            job: Job::Serve,
            tls,
            handshake: times.tls_handshake,
            times: ConnTimes { header: times.header, idle: times.idle, write: times.write },
            max_header_bytes: config.limits.max_header_bytes,
            max_headers: config.limits.max_headers,
            told: Samples::every(EVERY),
            tally,
            drain,
        }
    }

    /// Connections over plain HTTP whose requests are only sent to this port over TLS.
    pub(crate) fn redirecting(
        config: &Config,
        app: Arc<App>,
        port: u16,
        tally: Tally,
        drain: Drain,
    ) -> Self {
        Self { job: Job::Redirect(port), ..Self::new(config, app, None, tally, drain) }
    }

    /// Keeps the certificate fresh, for as long as the server runs.
    pub(crate) async fn keep_fresh(&self) {
        match &self.tls {
            Some(tls) => tls.keep_fresh().await,
            None => std::future::pending().await,
        }
    }

    /// Reads the certificates again; nothing where there is no TLS. See [`TlsAcceptor::reload`].
    pub(crate) fn reload(&self, now: SystemTime) -> Option<Result<Trust, TlsError>> {
        self.tls.as_ref().map(|tls| tls.reload(now))
    }

    /// Has a trusted proxy say whom a connection is from; nothing if it does not in time, or badly.
    pub(crate) async fn announced<I>(&self, io: I, proxy: ClientAddr) -> Option<Arrival<I>>
    where
        I: AsyncRead + Unpin,
    {
        match timeout(self.times.header, Arrival::announced(io, proxy)).await {
            Ok(Ok(arrival)) => Some(arrival),
            Ok(Err(error)) => {
                tracing::debug!(%proxy, %error, "a trusted proxy's connection is closed");
                None
            }
            Err(_elapsed) => {
                tracing::debug!(%proxy, "a trusted proxy's connection said nothing in time");
                None
            }
        }
    }

    /// Serves one connection to its end. Never longer than its peer keeps to the time limits.
    pub(crate) async fn serve<I>(
        &self,
        arrival: Arrival<I>,
        local: IpAddr,
        stranger: Option<Arc<Stranger>>,
    ) where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Arrival { mut io, client, by } = arrival;
        io.hear(stranger.clone());
        let speaks_for = by == KnownBy::Requests;
        let Some(tls) = &self.tls else {
            let conn = ConnInfo { client, local, tls: None, speaks_for, stranger };
            return self.serve_http1(io, conn).await;
        };
        // Boxed: the handshake is large, and gone when the connection becomes a long one.
        let handshake = Box::pin(timeout(self.handshake, tls.accept(io)));
        let (stream, facts) = match handshake.await {
            Ok(Ok(accepted)) => accepted,
            Ok(Err(error)) => {
                let flood = matches!(error, HandshakeError::Flood(_));
                self.tally.count(if flood { Outcome::TlsFlood } else { Outcome::HandshakeFailed });
                return self.log_handshake(client, &error);
            }
            Err(_elapsed) => {
                self.tally.count(Outcome::HandshakeTimeout);
                return tracing::debug!(%client, "the TLS handshake took too long");
            }
        };
        let alpn = facts.alpn;
        let conn = ConnInfo { client, local, tls: Some(facts), speaks_for, stranger };
        match alpn {
            Alpn::Http1 => self.serve_http1(stream, conn).await,
            // Boxed: a task is as large as the largest of what it may do.
            Alpn::H2 => Box::pin(self.serve_http2(stream, conn)).await,
        }
    }

    /// Not `async` itself: what it takes would have a place in the future, beside what is made of
    /// it.
    fn serve_http1<I>(&self, io: I, conn: ConnInfo) -> impl Future<Output = ()> + Send
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let activity = Activity::new(self.times, Alpn::Http1);
        // Up to twice its size a head is the HTTP floor's, which charges it and names its refusal.
        let bytes = self.max_header_bytes.saturating_mul(2).max(8192);
        let limits = HeadLimits { bytes, fields: self.max_headers.max(HYPERS_HEADERS) };
        let framing = Some(Framing::new(limits));
        let io = TokioIo::new(Watched::new(io, Arc::clone(&activity), framing));
        let client = conn.client;
        let service = self.service(conn, Arc::clone(&activity));
        let mut builder = hyper::server::conn::http1::Builder::new();
        // The head has its time from `Activity`; hyper's own timer would also cut idle keep-alive.
        builder.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(bytes);
        if self.max_headers > HYPERS_HEADERS {
            // Up to its own number, which costs less, the limit is the HTTP floor's.
            builder.max_headers(self.max_headers);
        }
        let mut http = builder.serve_connection(io, hyper::service::service_fn(service));
        async move {
            let mut draining = Box::pin(self.drain.draining());
            let mut drained = false;
            let (end, linger) = loop {
                tokio::select! {
                    ended = std::future::poll_fn(|context| http.poll_without_shutdown(context)) => {
                        self.log_end(client, &ended, &activity);
                        let violation = activity.violation();
                        let linger =
                            ended.is_err() || violation.is_some() || activity.may_send();
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
            self.count(end);
            if activity.broke_off() {
                // A goodbye would make a whole answer of one that ends with the connection.
                return;
            }
            let io = http.into_parts().io.into_inner();
            Box::pin(self.bid_farewell(io, end, linger)).await;
        }
    }

    /// Ends our side of an HTTP/1.1 connection; says why where its time is over, or what came is no
    /// request, and somebody listens. To a peer that took that, and still has something to say, it listens for a while.
    async fn bid_farewell<I>(&self, mut io: Watched<I>, end: End, linger: bool)
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let text = match end {
            End::Overdue(Overdue::Head) => socket::refusal(
                "408 Request Timeout",
                "head_timeout",
                "the request head did not arrive in time",
            ),
            End::Violation(Violation { fault, in_body: false, .. }) => {
                self.tally.refused(fault.label());
                socket::refusal(fault.status(), fault.label(), fault.text())
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
        let taken = timeout(self.times.write, last_words).await;
        if linger && matches!(taken, Ok(Ok(()))) {
            take_the_rest(io.into_inner()).await;
        }
    }

    fn count(&self, end: End) {
        match end {
            End::Violation(violation) => {
                tracing::debug!(fault = ?violation.fault, "a connection broke the rules of HTTP/1.1");
                self.tally.count(Outcome::Malformed);
            }
            End::Overdue(Overdue::Head) => self.tally.count(Outcome::HeadTimeout),
            End::Overdue(Overdue::Stalled) => self.tally.count(Outcome::WriteStalled),
            // Nothing is wrong with that.
            End::Overdue(Overdue::Idle) | End::Done => {}
        }
    }

    /// One request of this connection, for hyper.
    fn service(
        &self,
        conn: ConnInfo,
        activity: Arc<Activity>,
    ) -> impl Fn(Request<Incoming>) -> Serving + Unpin + use<'_> {
        let conn = Arc::new(conn);
        let job = self.job;
        move |request| {
            let app = Arc::clone(&self.app);
            let conn = Arc::clone(&conn);
            let mut exchange = activity.begin();
            let request = request.map(|body| {
                Received::new(body, || match activity.protocol() {
                    Alpn::Http1 => Then::Linger(Arc::clone(&activity), exchange.number()),
                    Alpn::H2 => Then::Take(self.drain.clone(), exchange.over()),
                })
            });
            Box::pin(async move {
                let mut response = match job {
                    Job::Serve => app.handle(&conn, request).await,
                    Job::Redirect(port) => app.redirect(&conn, request, port),
                };
                if exchange.is_violated() {
                    // hyper knows only later that there is nothing more to be read.
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                exchange.answered(response.status());
                Ok(response.map(|body| Reported::new(body, exchange)))
            })
        }
    }
}

/// Takes what a peer still sends of a request that was answered before it was read. Closing on
/// unread bytes resets the connection, and the peer would lose the answer (RFC 9112 section 9.6).
async fn take_the_rest<I: AsyncRead + Unpin>(io: I) {
    let mut rest = io.take(LINGER_BYTES);
    let mut nowhere = tokio::io::sink();
    // It is over either way.
    drop(timeout(LINGER, tokio::io::copy(&mut rest, &mut nowhere)).await);
}

type Serving = Pin<Box<dyn Future<Output = Result<Answer, Infallible>> + Send>>;

/// The kind of a client's alert, whenever it comes.
const ALERT: &str = "alert";

impl Connection {
    fn log_handshake(&self, client: ClientAddr, error: &HandshakeError) {
        let kind = match error {
            HandshakeError::Closed => {
                return tracing::trace!(%client, %error, "no handshake");
            }
            HandshakeError::PlainHttp => "plain_http",
            HandshakeError::Left => "left",
            HandshakeError::UnknownName(_) => "unknown_name",
            HandshakeError::Flood(_) => "flood",
            HandshakeError::Tls(rustls::Error::AlertReceived(_)) => ALERT,
            HandshakeError::Tls(_) => "tls",
            HandshakeError::Io(_) => "io",
        };
        self.log_failed(client, kind, &error);
    }

    /// One of a kind in 10 s, the others at DEBUG.
    fn log_failed(&self, client: ClientAddr, kind: &str, error: &dyn Display) {
        if let Some(left_out) = self.told.take(kind, Instant::now()) {
            tracing::info!(%client, %error, left_out, "the TLS handshake failed");
        } else {
            tracing::debug!(%client, %error, "the TLS handshake failed");
        }
    }

    fn log_end(&self, client: ClientAddr, ended: &Result<(), hyper::Error>, activity: &Activity) {
        let Err(error) = ended else { return };
        // Asked of the socket: the HTTP/2 library keeps of an error no more than its text.
        match activity.take_ended_by() {
            Some(EndedBy::Alert(error)) => {
                self.tally.count(Outcome::HandshakeFailed);
                self.log_failed(client, ALERT, &error);
            }
            Some(EndedBy::Flood) => {
                self.tally.count(Outcome::TlsFlood);
                tracing::debug!(%client, %error, "the client sent TLS records without data");
            }
            None => tracing::debug!(%client, %error, "the connection ended with an error"),
        }
    }
}

#[cfg(test)]
mod tests;
