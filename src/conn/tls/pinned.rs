//! A client that accepts one certificate, byte for byte: `mcp-edge health` asks the server that
//! was started with it, by whatever address, and whether or not anybody else trusts it.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use super::error::TlsError;
use super::pem;
use super::provider::provider;

/// A client for the server that serves the first certificate of this file.
///
/// Neither name nor dates are checked: the certificate is known, and the server proves in the
/// handshake that it holds the key.
pub(crate) fn pinned_client(chain_pem: &Path) -> Result<ClientConfig, TlsError> {
    let Some(leaf) = pem::certificates(chain_pem)?.into_iter().next() else {
        return Err(TlsError::NoCertificate { path: chain_pem.to_owned() });
    };
    let provider = provider();
    let pinned = Pinned { leaf, provider: Arc::clone(&provider) };
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pinned))
        .with_no_client_auth())
}

#[derive(Debug)]
struct Pinned {
    leaf: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity == self.leaf {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::testing::{DAY, Pki, acceptor, handshake};
    use super::*;

    #[tokio::test]
    async fn the_pinned_certificate_is_accepted_by_any_name() {
        let pki = Pki::new();
        let files = pki.issue("a", &["a.example"]);
        let client = pinned_client(&files.cert).unwrap();
        let (server, client) = handshake(&acceptor(&[files]), client, "192.0.2.1").await;
        assert!(server.is_ok() && client.is_ok());
    }

    #[tokio::test]
    async fn another_certificate_of_the_same_ca_is_not() {
        let pki = Pki::new();
        let (files, other) = (pki.issue("a", &["a.example"]), pki.issue("b", &["a.example"]));
        let client = pinned_client(&other.cert).unwrap();
        let (server, client) = handshake(&acceptor(&[files]), client, "a.example").await;
        assert!(server.is_err() && client.is_err());
    }

    #[test]
    fn dates_are_not_looked_at() {
        let pki = Pki::new();
        let old = pki.issue_from("old", &["a.example"], SystemTime::now() - 9 * DAY);
        assert!(pinned_client(&old.cert).is_ok());
        let error = pinned_client(&old.key).unwrap_err();
        assert!(matches!(error, TlsError::NoCertificate { .. }));
    }
}
