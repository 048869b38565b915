//! Connections to an upstream: made, used by one request at a time, and kept for the next.
//!
//! A connection has no task of its own. Whoever waits for a response drives it, and whoever reads
//! the body goes on driving it: a request costs no turn of the scheduler beyond its own, and a
//! response that is dropped half read closes its connection at once.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http::{Method, Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::body::{Outgoing, full};

/// How long an idle connection is kept. Servers in Python and Node close theirs after 5 seconds,
/// and a request that meets that moment fails without anybody's knowing if it was served.
const KEPT: Duration = Duration::from_secs(3);
/// Bytes of a response head, and of what is read ahead of a body.
const MAX_HEAD: usize = 64 * 1024;
/// A silent upstream is asked by the kernel whether it is there.
const KEEP_ALIVE: Duration = Duration::from_mins(1);

type Socket = Either<TcpStream, TlsStream<TcpStream>>;
type Driver = http1::Connection<TokioIo<Socket>, Outgoing>;

/// Makes connections to one upstream.
pub(super) struct Connector {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Connector {
    /// To the authority of `url`; none where it has no host that can be reached so.
    pub(super) fn new(url: &Uri, tls: ClientConfig) -> Option<Self> {
        let host = url.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let secure = url.scheme() == Some(&Scheme::HTTPS);
        let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let name = ServerName::try_from(host.clone()).ok()?;
        let tls = secure.then(|| (TlsConnector::from(Arc::new(tls)), name));
        Some(Self { host, port, tls })
    }

    async fn connect(&self) -> io::Result<UpstreamConnection> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
        tcp.set_nodelay(true)?;
        SockRef::from(&tcp).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE))?;
        let socket = match &self.tls {
            None => Either::Left(tcp),
            Some((tls, name)) => {
                Either::Right(tls.connect(name.clone(), tcp).await.map_err(explained)?)
            }
        };
        let mut builder = http1::Builder::new();
        // hyper's own limit of 100 fields stays: naming it would cost an allocation each time.
        builder.max_buf_size(MAX_HEAD);
        let (sender, driver) =
            builder.handshake(TokioIo::new(socket)).await.map_err(io::Error::other)?;
        Ok(UpstreamConnection { sender, driver: Box::pin(driver), over: false })
    }
}

/// A handshake that failed, with the next step where it is known.
fn explained(error: io::Error) -> io::Error {
    let plain = "if it speaks plain HTTP at that port, write http:// in --upstream (MCP_UPSTREAM)";
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let text = match (tls, error.kind()) {
        (Some(rustls::Error::InvalidMessage(_)), _) => {
            format!("it does not speak TLS there: {plain}")
        }
        (Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)), _) => {
            "its certificate leads to no CA that is trusted here: give its CA by --upstream-ca \
             (MCP_UPSTREAM_CA)"
                .to_owned()
        }
        (Some(rustls::Error::InvalidCertificate(wrong)), _) => {
            format!("its certificate does not fit --upstream (MCP_UPSTREAM): {wrong}")
        }
        (None, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
            format!("it broke off the TLS handshake: {plain}")
        }
        (Some(_) | None, _) => return error,
    };
    io::Error::new(error.kind(), text)
}

/// Why a request has no response.
#[derive(Debug)]
pub(super) enum Failed {
    /// No connection could be made.
    Unreachable(io::Error),
    /// The connection broke behind the request.
    Broken(hyper::Error),
    /// The connection is gone, and nobody says why.
    Gone,
}

impl Failed {
    /// Did the upstream say nothing at all?
    fn is_silence(&self) -> bool {
        match self {
            Self::Broken(error) => !error.is_parse(),
            Self::Gone => true,
            Self::Unreachable(_) => false,
        }
    }
}

/// The same request once more, if it is safe and has no body.
fn again(request: &Request<Outgoing>) -> Option<Box<Request<Outgoing>>> {
    let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !safe || !request.body().is_end_stream() {
        return None;
    }
    let mut again = Request::new(full(Bytes::new()));
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    Some(Box::new(again))
}

/// Idle connections, and the way to more.
pub(super) struct Connections {
    connector: Connector,
    connect: Duration,
    /// The oldest first.
    idle: Mutex<Vec<(UpstreamConnection, Instant)>>,
    given: Notify,
    most: usize,
}

impl Connections {
    /// Keeps at most `most`; a connection is made within `connect`.
    pub(super) fn new(connector: Connector, connect: Duration, most: usize) -> Arc<Self> {
        Arc::new(Self { connector, connect, idle: Mutex::default(), given: Notify::new(), most })
    }

    /// The connection that was used last, if it is still good.
    fn take(&self) -> Option<UpstreamConnection> {
        loop {
            let (mut connection, since) = self.idle.lock().pop()?;
            if since.elapsed() >= KEPT {
                // Those below it have been idle for longer.
                self.idle.lock().clear();
                return None;
            }
            if connection.is_free() {
                return Some(connection);
            }
        }
    }

    fn give_back(&self, connection: UpstreamConnection) {
        let mut idle = self.idle.lock();
        if idle.len() >= self.most {
            return;
        }
        idle.push((connection, Instant::now()));
        if idle.len() == 1 {
            self.given.notify_one();
        }
    }

    /// Closes connections that have been idle for too long, for as long as it is polled.
    pub(super) async fn keep_swept(&self) {
        loop {
            let oldest = self.idle.lock().first().map(|(_, since)| *since);
            let Some(since) = oldest else {
                self.given.notified().await;
                continue;
            };
            sleep_until(since + KEPT).await;
            self.idle.lock().retain(|(_, since)| since.elapsed() < KEPT);
        }
    }

    pub(super) async fn connect(&self) -> io::Result<UpstreamConnection> {
        let connecting = Box::pin(tokio::time::timeout(self.connect, self.connector.connect()));
        let late = |_elapsed| io::Error::from(io::ErrorKind::TimedOut);
        connecting.await.map_err(late).and_then(|connected| connected)
    }

    /// Closes every idle connection.
    pub(super) fn close_idle(&self) {
        self.idle.lock().clear();
    }

    /// Sends a request in origin form over an idle connection, or a new one. One that was closed
    /// meanwhile never got the request: another is tried. One that closes instead of an answer may
    /// have got it: a new one is tried if the request does no harm twice (RFC 9112 section 9.3.1).
    pub(super) async fn send(
        self: &Arc<Self>,
        mut request: Request<Outgoing>,
    ) -> Result<Response<Arriving>, Failed> {
        while let Some(mut connection) = self.take() {
            let again = again(&request);
            match connection.send(request).await {
                Ok(response) => return Ok(self.arriving(response, connection)),
                Err((Some(unsent), _)) => request = unsent,
                Err((None, error)) => {
                    request = *again.filter(|_| error.is_silence()).ok_or(error)?;
                    break;
                }
            }
        }
        let mut connection = self.connect().await.map_err(Failed::Unreachable)?;
        match connection.send(request).await {
            Ok(response) => Ok(self.arriving(response, connection)),
            Err((_, error)) => Err(error),
        }
    }

    fn arriving(
        self: &Arc<Self>,
        response: Response<Incoming>,
        connection: UpstreamConnection,
    ) -> Response<Arriving> {
        response.map(|body| Arriving {
            body,
            connection: Some(connection),
            ended: false,
            connections: Arc::clone(self),
        })
    }
}

/// One connection.
pub(super) struct UpstreamConnection {
    sender: SendRequest<Outgoing>,
    driver: Pin<Box<Driver>>,
    over: bool,
}

impl UpstreamConnection {
    /// Lets the connection go on. Says if it is over.
    fn drive(&mut self, context: &mut Context<'_>) -> bool {
        self.over = self.over || self.driver.as_mut().poll(context).is_ready();
        self.over
    }

    /// Can it take a request? It cannot if the upstream closed it, or still says something, or if
    /// the last request is not all there.
    fn is_free(&mut self) -> bool {
        !self.drive(&mut Context::from_waker(Waker::noop())) && self.sender.is_ready()
    }

    /// Sends a request. Gives it back where the upstream cannot have seen it.
    async fn send(
        &mut self,
        request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, (Option<Request<Outgoing>>, Failed)> {
        let Self { sender, driver, over } = self;
        let mut answering = std::pin::pin!(sender.try_send_request(request));
        let answer = std::future::poll_fn(|context| {
            *over = *over || driver.as_mut().poll(context).is_ready();
            match answering.as_mut().poll(context) {
                Poll::Ready(answer) => Poll::Ready(Some(answer)),
                Poll::Pending if *over => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        });
        match answer.await {
            Some(Ok(response)) => Ok(response),
            Some(Err(mut error)) => {
                let unsent = error.take_message();
                Err((unsent, Failed::Broken(error.into_error())))
            }
            None => Err((None, Failed::Gone)),
        }
    }
}

/// A response body on its way down. Read to its end, it gives its connection back; dropped before,
/// it closes it.
pub(crate) struct Arriving {
    body: Incoming,
    connection: Option<UpstreamConnection>,
    /// Was it read to its end? A body without a declared length does not say so itself.
    ended: bool,
    connections: Arc<Connections>,
}

impl std::fmt::Debug for Arriving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arriving").field("body", &self.body).finish_non_exhaustive()
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        let mut polled = Pin::new(&mut this.body).poll_frame(context);
        if polled.is_pending() {
            // The connection puts into the body what it reads; that has to be looked for.
            let over = this.connection.as_mut().is_none_or(|connection| connection.drive(context));
            polled = Pin::new(&mut this.body).poll_frame(context);
            if over && polled.is_pending() {
                // Nobody will end it any more: it must not look whole.
                return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())));
            }
        }
        let frame = std::task::ready!(polled);
        this.ended |= frame.is_none();
        Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let read = self.ended || self.body.is_end_stream();
        // An upstream may answer before it has the whole request: what still goes up ends here.
        if let Some(mut connection) = self.connection.take().filter(|_| read)
            && connection.is_free()
        {
            self.connections.give_back(connection);
        }
    }
}
