//! The HTTP client for what stands behind: connections, TLS, deadlines, and the fields of a request.
//!
//! The floor's one verb is [`Upstream::send`]. It knows no MCP. A request that fails says whether
//! the upstream may have seen it ([`Fault`]): only what was never sent may be sent again by anybody
//! who asks no further.

mod fields;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Uri, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

use crate::caller::Caller;
use crate::config;

#[expect(unused_imports, reason = "for the paths that are passed through")]
pub(crate) use self::fields::Passable;
pub use self::fields::may_go_up;

/// How long an idle connection is kept. Servers in Python and Node close theirs after 5 seconds,
/// and a request that meets that moment fails without anybody's knowing if it was served.
const KEPT: Duration = Duration::from_secs(3);
/// Bytes of a response head, and of what is read ahead of a body.
const MAX_HEAD: usize = 64 * 1024;
/// Fields of a response head.
const MAX_FIELDS: usize = 100;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request body on its way up.
pub(crate) type Outgoing = UnsyncBoxBody<Bytes, BoxError>;

/// An HTTP server behind the edge, and the connections to it.
pub(crate) struct Upstream {
    client: Client<HttpsConnector<HttpConnector>, Outgoing>,
    url: Uri,
    token: Option<HeaderValue>,
    forward: Vec<http::HeaderName>,
    head: Duration,
}

/// Why a request has no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
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
    /// TLS cannot be set up.
    #[error("TLS to the upstream cannot be set up")]
    Tls(#[from] rustls::Error),
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Upstream {
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
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(config.connect));
        tcp.set_keepalive(Some(Duration::from_mins(1)));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(config)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEPT)
            .pool_max_idle_per_host(config.connections)
            .http1_max_buf_size(MAX_HEAD)
            .http1_max_headers(MAX_FIELDS)
            .build(connector);
        let (url, forward) = (config.url.clone(), config.forward_headers.clone());
        Ok(Self { client, url, token, forward, head: config.head })
    }

    /// Where the MCP endpoint is.
    pub(crate) fn url(&self) -> &Uri {
        &self.url
    }

    /// The fields of the client's that go up as they are.
    pub(crate) fn forward(&self) -> &[http::HeaderName] {
        &self.forward
    }

    /// How long an ordinary response head may take.
    pub(crate) fn patience(&self) -> Duration {
        self.head
    }

    /// The fields of a request that is made for `caller`: nothing of the client's but what was
    /// listed, and who the client is, as the edge knows it.
    pub(crate) fn fields(&self, caller: &Caller) -> HeaderMap {
        let mut fields = fields::fresh(caller);
        if let Some(token) = &self.token {
            drop(fields.insert(header::AUTHORIZATION, token.clone()));
        }
        fields
    }

    /// Sends a request. `patience` is how long the head of its response may take.
    ///
    /// # Errors
    /// [`Fault`] says whether the upstream may have seen the request.
    pub(crate) async fn send(
        &self,
        request: Request<Outgoing>,
        patience: Option<Duration>,
    ) -> Result<Response<Incoming>, Fault> {
        let sending = self.client.request(request);
        let answered = match patience {
            Some(patience) => {
                timeout(patience, sending).await.map_err(|_elapsed| Fault::Late(patience))?
            }
            None => sending.await,
        };
        answered.map_err(|error| fault(&error))
    }
}

/// A body that is there already.
pub(crate) fn full(bytes: Bytes) -> Outgoing {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// A body that is passed on as it comes.
pub(crate) fn passed<B>(body: B) -> Outgoing
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed_unsync()
}

fn fault(error: &Error) -> Fault {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    if error.is_connect() { Fault::Unreachable(text) } else { Fault::Broken(text) }
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
    let found =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(io::Error::other)?;
    if found.is_empty() { Err(io::Error::other("no certificate in it")) } else { Ok(found) }
}
