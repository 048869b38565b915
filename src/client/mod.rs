//! The HTTP client for what stands behind: connections, TLS, deadlines, and the fields of a request.
//!
//! The floor's one verb is [`Client::send`]. It knows no MCP. A request that fails says whether
//! the upstream may have seen it ([`SendError`]): only what was never sent may be sent again by anybody
//! who asks no further. (A GET without a body is, once, where a kept connection closed on it.)

mod body;
mod connections;
mod fields;
mod host;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::{Instant, timeout};

use self::connections::{Connections, Connector, Failed};
use self::host::Host;

use crate::caller::Caller;
use crate::config;
use crate::observe::sample::Samples;
use crate::wire::pem::tidied;

pub(crate) use self::body::{Outgoing, full, passed};
pub(crate) use self::connections::Arriving;
pub(crate) use self::fields::Passable;
pub(crate) use self::host::refuses_host;

/// No file of CAs is larger: that of a system takes some hundred KiB.
const MOST_CA_BYTES: u64 = 16 * 1024 * 1024;
/// Between two lines of the log about the same fault of an upstream.
pub(crate) const PAUSE: Duration = Duration::from_mins(1);

/// An HTTP server behind the edge, and the connections to it.
pub(crate) struct Client {
    connections: Arc<Connections>,
    url: Uri,
    host: Host,
    /// Of its refusals of that.
    refused: Samples,
    token: Option<HeaderValue>,
    forward: Vec<http::HeaderName>,
    head: Duration,
    /// How long a call waits where it is down; none if nobody is to be told of that at the start.
    told_at_start: Option<Duration>,
}

/// Why a request has no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SendError {
    /// The upstream takes no connection: it never saw the request.
    #[error("the upstream cannot be reached: {0}")]
    Unreachable(String),
    /// The connection broke: the upstream may have seen the request.
    #[error("the upstream broke the connection: {0}")]
    Broken(String),
    /// The head of the response did not come in time.
    #[error("the upstream did not answer within {} seconds", .0.as_secs_f32())]
    Late(Duration),
}

/// Why an upstream cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// The file with its CAs cannot be read, or holds none.
    #[error("{path} holds no CA certificate that can be used: give a PEM file")]
    Ca {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
    /// The token cannot stand in a header.
    #[error("the upstream's token cannot stand in a header: use visible ASCII only")]
    Token,
    /// The host is none.
    #[error("the upstream's host is neither a name nor an address")]
    Host,
    /// TLS cannot be set up.
    #[error("TLS to the upstream cannot be set up")]
    Tls(#[from] rustls::Error),
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("url", &config::shown(&self.url)).finish_non_exhaustive()
    }
}

impl Client {
    /// The client for this upstream. Nothing is connected yet.
    ///
    /// # Errors
    /// [`UpstreamError`] where CA file or token cannot be used.
    pub(crate) fn new(config: &config::Upstream) -> Result<Self, UpstreamError> {
        let token = match &config.token {
            None => None,
            Some(token) => {
                let field = HeaderValue::try_from(format!("Bearer {}", token.expose()));
                let mut field = field.map_err(|_invalid| UpstreamError::Token)?;
                field.set_sensitive(true);
                Some(field)
            }
        };
        let authority = config.url.authority().map_or("", |authority| authority.as_str());
        let own = HeaderValue::try_from(authority).map_err(|_invalid| UpstreamError::Host)?;
        let host = Host::new(&config.host, own);
        let connector = Connector::new(&config.url, tls(config)?).ok_or(UpstreamError::Host)?;
        let connections =
            Connections::new(connector, config.limits.connect, config.limits.connections);
        let (url, forward) = (config.url.clone(), config.forward_headers.clone());
        let refused = Samples::every(PAUSE);
        let told_at_start = config.check_at_start.then_some(config.limits.wait);
        let head = config.limits.head;
        Ok(Self { connections, url, host, refused, token, forward, head, told_at_start })
    }

    /// Where the MCP endpoint is.
    pub(crate) fn url(&self) -> &Uri {
        &self.url
    }

    /// The fields of the client's that go up as they are.
    pub(crate) fn forward(&self) -> &[http::HeaderName] {
        &self.forward
    }

    /// Has the edge a token of its own for it?
    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// How long an ordinary response head may take.
    pub(crate) fn patience(&self) -> Duration {
        self.head
    }

    /// Closes connections that have been idle for too long, for as long as it is polled.
    pub(crate) async fn keep_swept(&self) {
        self.connections.keep_swept().await;
    }

    /// Tells the operator at the start if it takes no connection.
    pub(crate) async fn look(&self) {
        let Some(wait) = self.told_at_start else { return };
        if let Err(error) = self.connections.connect().await {
            tracing::warn!(
                upstream = config::shown(&self.url),
                error = last(&error),
                "nobody serves at the upstream yet: each call waits for it for {} s \
                 (--upstream-wait), then it is an error; start it, or check --upstream \
                 (MCP_UPSTREAM)",
                wait.as_secs_f32()
            );
        }
    }

    /// Closes every idle connection.
    pub(crate) fn close_idle(&self) {
        self.connections.close_idle();
    }

    /// The fields of a request that is made for `caller`: nothing of the client's but what was
    /// listed, and who the client is, as the edge knows it.
    pub(crate) fn fields(&self, caller: &Caller) -> HeaderMap {
        let mut fields = fields::fresh(caller);
        fields.insert(header::HOST, self.host.of(caller));
        if let Some(token) = &self.token {
            fields.insert(header::AUTHORIZATION, token.clone());
        }
        fields
    }

    /// Notes for the edge's own requests how a caller who was let in addressed the edge.
    pub(crate) fn note_host(&self, caller: &Caller) {
        self.host.note(caller);
    }

    /// Tells the operator that the upstream refuses the `Host` that it was sent.
    pub(crate) fn refused_host(&self, status: StatusCode, sent: &HeaderValue) {
        let kind = sent.to_str().unwrap_or_default();
        if let Some(left_out) = self.refused.take(kind, Instant::now()) {
            tracing::warn!(
                upstream = config::shown(&self.url),
                host = ?sent,
                %status,
                left_out,
                "the upstream refuses the Host that it is sent: give one that it takes by \
                 --upstream-host (MCP_UPSTREAM_HOST), a name that it is known by, or `client` for \
                 the one that each client sent; or allow this one there"
            );
        }
    }

    /// Sends a request with [`Self::fields`] to the path and query of its target. `patience` is how long the head of its
    /// response may take.
    ///
    /// # Errors
    /// [`SendError`] says whether the upstream may have seen the request.
    pub(crate) async fn send(
        &self,
        mut request: Request<Outgoing>,
        patience: Option<Duration>,
    ) -> Result<Response<Arriving>, SendError> {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
        // Pinned: moved on, it would have two places in this future.
        let sending = std::pin::pin!(self.connections.send(request));
        let answered = match patience {
            Some(patience) => {
                timeout(patience, sending).await.map_err(|_elapsed| SendError::Late(patience))?
            }
            None => sending.await,
        };
        answered.map_err(|failed| match failed {
            Failed::Unreachable(error) => SendError::Unreachable(last(&error)),
            Failed::Broken(error) if error.is_parse() => {
                SendError::Broken(format!("what it sent is no HTTP: {}", last(&error)))
            }
            Failed::Broken(error) => SendError::Broken(last(&error)),
            Failed::Gone => SendError::Broken("it closed the connection".to_owned()),
        })
    }
}

/// What is at the bottom of an error.
fn last(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    text
}

fn tls(config: &config::Upstream) -> Result<ClientConfig, UpstreamError> {
    let mut roots = RootCertStore::empty();
    match &config.ca {
        Some(path) => {
            let ca = |source| UpstreamError::Ca { path: path.clone(), source };
            for certificate in certificates(path).map_err(ca)? {
                roots.add(certificate).map_err(|error| ca(io::Error::other(error)))?;
            }
        }
        None if config.url.scheme_str() == Some("https") => {
            let (_added, _ignored) =
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        None => {}
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, io::Error> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MOST_CA_BYTES).read_to_end(&mut bytes)?;
    let found = CertificateDer::pem_slice_iter(&tidied(&bytes)).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(io::Error::other)?;
    if found.is_empty() { Err(io::Error::other("no certificate in it")) } else { Ok(found) }
}
