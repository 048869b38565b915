//! Is a running edge alive? For container health checks: one question, one answer, three seconds.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::conn::tls::{TlsError, pinned_client};

/// What a live edge needs at most, on a machine that is not lost.
const PATIENCE: Duration = Duration::from_secs(3);

/// A running edge to ask.
#[derive(Clone, Debug)]
pub struct HealthCheck {
    /// Where it listens; an unspecified address is asked on loopback.
    pub address: SocketAddr,
    /// The PEM file with the certificate that it must show; none if it serves plain HTTP.
    pub trust: Option<PathBuf>,
}

/// Why an edge is not well.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// It does not answer in time.
    #[error("no answer from {0} within {seconds} s", seconds = PATIENCE.as_secs())]
    Silent(SocketAddr),
    /// Nothing listens.
    #[error("cannot connect to {address}")]
    Connect {
        /// The address asked.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The certificate to compare with cannot be used.
    #[error("cannot read the certificate that {address} must show from {file}")]
    Trust {
        /// The address asked.
        address: SocketAddr,
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        #[source]
        source: TlsError,
    },
    /// It does not speak TLS, or shows another certificate.
    #[error("no TLS with {address}")]
    Tls {
        /// The address asked.
        address: SocketAddr,
        /// What rustls said.
        #[source]
        source: io::Error,
    },
    /// It does not speak HTTP.
    #[error("no HTTP answer from {address}")]
    Http {
        /// The address asked.
        address: SocketAddr,
        /// What hyper said.
        #[source]
        source: hyper::Error,
    },
    /// It speaks, and says no.
    #[error("{address} answered {status} to GET /livez")]
    Status {
        /// The address asked.
        address: SocketAddr,
        /// Its answer.
        status: StatusCode,
    },
}

impl HealthCheck {
    /// Asks `GET /livez` and expects 200.
    ///
    /// # Errors
    ///
    /// What went wrong on the way.
    pub async fn run(&self) -> Result<(), Unhealthy> {
        let address = self.reachable();
        let asked = tokio::time::timeout(PATIENCE, self.ask(address)).await;
        let status = asked.map_err(|_elapsed| Unhealthy::Silent(address))??;
        match status {
            StatusCode::OK => Ok(()),
            status => Err(Unhealthy::Status { address, status }),
        }
    }

    /// Where it is asked: an edge that listens everywhere, where every machine reaches itself.
    #[must_use]
    pub fn reachable(&self) -> SocketAddr {
        let ip = match self.address.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
            ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
        };
        SocketAddr::new(ip, self.address.port())
    }

    async fn ask(&self, address: SocketAddr) -> Result<StatusCode, Unhealthy> {
        let connect = |source| Unhealthy::Connect { address, source };
        let stream = TcpStream::connect(address).await.map_err(connect)?;
        let Some(file) = &self.trust else {
            return livez(stream, address).await;
        };
        let pinned = pinned_client(file);
        let config =
            pinned.map_err(|source| Unhealthy::Trust { address, file: file.clone(), source })?;
        let stream = TlsConnector::from(Arc::new(config))
            .connect(ServerName::from(address.ip()), stream)
            .await
            .map_err(|source| Unhealthy::Tls { address, source })?;
        livez(stream, address).await
    }
}

async fn livez<S>(stream: S, address: SocketAddr) -> Result<StatusCode, Unhealthy>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let failed = |source| Unhealthy::Http { address, source };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let request = Request::get("/livez").header(header::HOST, address.to_string());
    let Ok(request) = request.body(Empty::<Bytes>::new()) else {
        return Ok(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let answer = sender.send_request(request);
    tokio::pin!(answer);
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        done = connection => match done {
            Ok(()) => answer.await,
            Err(error) => Err(error),
        },
    };
    answer.map(|it| it.status()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one connection with `answer`, or keeps silent if it is empty.
    async fn asked(answer: &'static str) -> Result<(), Unhealthy> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let check = HealthCheck { address: listener.local_addr().unwrap(), trust: None };
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let read = stream.read(&mut head).await.unwrap();
            assert!(head[..read].starts_with(b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1:"));
            if answer.is_empty() {
                std::future::pending::<()>().await;
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        tokio::select! {
            result = check.run() => result,
            () = async { serve.await; std::future::pending().await } => unreachable!(),
        }
    }

    #[tokio::test]
    async fn only_200_is_well() {
        asked("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        let error = asked("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
        let text = error.unwrap_err().to_string();
        assert!(text.ends_with("answered 503 Service Unavailable to GET /livez"), "{text}");
        let error = asked("SSH-2.0-OpenSSH_9.2\r\n").await.unwrap_err();
        assert!(matches!(error, Unhealthy::Http { .. }), "{error}");
    }

    #[tokio::test]
    async fn silence_and_absence_are_told_apart() {
        let error = asked("").await.unwrap_err().to_string();
        assert!(error.ends_with("within 3 s"), "{error}");
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let error = HealthCheck { address: free, trust: None }.run().await.unwrap_err();
        assert!(matches!(error, Unhealthy::Connect { .. }), "{error}");
    }

    #[test]
    fn everywhere_is_asked_on_loopback() {
        let mapped = |text: &str| {
            let check = HealthCheck { address: text.parse().unwrap(), trust: None };
            check.reachable().to_string()
        };
        assert_eq!(mapped("0.0.0.0:1"), "127.0.0.1:1");
        assert_eq!(mapped("[::]:1"), "[::1]:1");
        assert_eq!(mapped("192.0.2.1:1"), "192.0.2.1:1");
    }
}
