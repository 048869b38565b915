//! What the tests of this floor share: a CA, certificates of it, clients that trust it.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::DuplexStream;
use tokio_rustls::{TlsConnector, client};

use super::provider::provider;
use super::stream::Secured;
use super::{HandshakeError, TlsAcceptor, TlsFacts};
use crate::config::{CertFiles, TlsRules, TlsSource};

pub(super) const DAY: Duration = Duration::from_hours(24);

/// A CA without constraints, and a directory for what it issues.
pub(super) struct Pki {
    dir: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        let key = KeyPair::generate().unwrap();
        let common_name = format!("{:x?}", params.key_identifier(&key));
        params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        Self { dir: tempfile::tempdir().unwrap(), issuer }
    }

    pub(super) fn root(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    pub(super) fn write(&self, file: &str, text: &str) -> PathBuf {
        fs::write(self.path(file), text).unwrap();
        self.path(file)
    }

    /// A certificate for these names, valid from yesterday till tomorrow.
    pub(super) fn issue(&self, file: &str, names: &[&str]) -> CertFiles {
        self.issue_from(file, names, SystemTime::now() - DAY)
    }

    /// A certificate that is valid for two days.
    pub(super) fn issue_from(&self, file: &str, names: &[&str], from: SystemTime) -> CertFiles {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = from.into();
        params.not_after = (from + 2 * DAY).into();
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        CertFiles {
            cert: self.write(&format!("{file}.pem"), &leaf.pem()),
            key: self.write(&format!("{file}-key.pem"), &key.serialize_pem()),
        }
    }
}

/// An acceptor for these files.
pub(super) fn acceptor(files: &[CertFiles]) -> TlsAcceptor {
    ruled(files, TlsRules::default())
}

pub(super) fn ruled(files: &[CertFiles], rules: TlsRules) -> TlsAcceptor {
    TlsAcceptor::new(&TlsSource::Files(files.to_vec()), rules, SystemTime::now()).unwrap().0
}

/// An acceptor that has one certificate, for `a.example`.
pub(super) fn edge() -> (Pki, TlsAcceptor) {
    let pki = Pki::new();
    let acceptor = acceptor(&[pki.issue("a", &["a.example"])]);
    (pki, acceptor)
}

/// The first bytes of a client that asks for `a.example`.
pub(super) fn hello(pki: &Pki) -> Vec<u8> {
    let config = Arc::new(client(pki.root(), &[]));
    let name = "a.example".try_into().unwrap();
    let mut hello = Vec::new();
    rustls::ClientConnection::new(config, name).unwrap().write_tls(&mut hello).unwrap();
    hello
}

/// A client that trusts `root` and names these protocols, in this order.
pub(super) fn client(root: CertificateDer<'static>, alpn: &[&str]) -> ClientConfig {
    client_of(root, alpn, rustls::ALL_VERSIONS)
}

pub(super) fn client_of(
    root: CertificateDer<'static>,
    alpn: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(root).unwrap();
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

pub(super) type ServerSide = Result<(Secured<DuplexStream>, TlsFacts), HandshakeError>;
pub(super) type ClientSide = io::Result<client::TlsStream<DuplexStream>>;

/// One handshake, seen from both sides.
pub(super) async fn handshake(
    acceptor: &TlsAcceptor,
    client: impl Into<Arc<ClientConfig>>,
    name: &str,
) -> (ServerSide, ClientSide) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connector = TlsConnector::from(client.into());
    tokio::join!(acceptor.accept(ours), connector.connect(name, theirs))
}
