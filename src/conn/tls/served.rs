//! A certificate chain with its key, checked.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

use super::certificate::CertificateFacts;
use super::doubts::doubts;
use super::error::TlsError;
use super::pem;
use crate::config::CertFiles;

/// A certificate chain that may be served, with its key.
#[derive(Clone, Debug)]
pub(super) struct Served {
    /// Chain and key.
    pub(super) key: Arc<CertifiedKey>,
    /// Of the first certificate of the chain.
    pub(super) facts: CertificateFacts,
    /// Why clients may refuse it all the same.
    pub(super) doubts: Vec<String>,
}

impl Served {
    /// Reads certificate and key, and checks that clients will get along with them.
    pub(super) fn load(
        files: &CertFiles,
        provider: &CryptoProvider,
        now: SystemTime,
    ) -> Result<Self, TlsError> {
        let CertFiles { cert, key } = files;
        let chain = pem::certificates(cert)?;
        let private_key = pem::private_key(key)?;
        let all = chain
            .iter()
            .map(|it| CertificateFacts::read(it, cert))
            .collect::<Result<Vec<_>, _>>()?;
        let doubts = chain.first().map_or_else(Vec::new, |leaf| doubts(cert, &all, leaf));
        let Some(facts) = all.into_iter().next() else {
            return Err(TlsError::NoCertificate { path: cert.clone() });
        };
        if now > facts.not_after {
            return Err(TlsError::Expired { path: cert.clone(), at: facts.not_after });
        }
        if now < facts.not_before {
            return Err(TlsError::NotYetValid { path: cert.clone(), at: facts.not_before });
        }
        let signer = provider
            .key_provider
            .load_private_key(private_key)
            .map_err(|source| TlsError::BadKey { path: key.clone(), source })?;
        let certified = CertifiedKey::new(chain, signer);
        match certified.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {
                Ok(Self { key: Arc::new(certified), facts, doubts })
            }
            Err(Error::InconsistentKeys(_)) => {
                Err(TlsError::KeyMismatch { cert: cert.clone(), key: key.clone() })
            }
            Err(error) => {
                Err(TlsError::BadCertificate { path: cert.clone(), reason: error.to_string() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::provider::provider;
    use super::super::testing::{DAY, Pki};
    use super::*;

    fn load(files: &CertFiles) -> Result<Served, TlsError> {
        Served::load(files, &provider(), SystemTime::now())
    }

    /// The error, and its text, which must name the file.
    fn refused(files: &CertFiles, named: &Path) -> (TlsError, String) {
        let error = load(files).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&*named.to_string_lossy()), "{text}");
        (error, text)
    }

    #[test]
    fn a_certificate_has_its_time() {
        let pki = Pki::new();
        let now = SystemTime::now();
        let old = pki.issue_from("old", &["a.example"], now - 3 * DAY);
        let (error, text) = refused(&old, &old.cert);
        assert!(matches!(error, TlsError::Expired { .. }));
        let day = humantime::format_rfc3339_seconds(now - DAY).to_string();
        assert!(text.contains(day.split_once('T').unwrap().0), "{text}");
        let new = pki.issue_from("new", &["a.example"], now + DAY);
        assert!(matches!(refused(&new, &new.cert).0, TlsError::NotYetValid { .. }));
    }

    #[test]
    fn a_key_fits_or_not() {
        let pki = Pki::new();
        let (a, b) = (pki.issue("a", &["a.example"]), pki.issue("b", &["b.example"]));
        assert!(load(&a).is_ok());
        let mixed = CertFiles { cert: a.cert, key: b.key };
        assert!(matches!(refused(&mixed, &mixed.key).0, TlsError::KeyMismatch { .. }));
        assert!(matches!(refused(&mixed, &mixed.cert).0, TlsError::KeyMismatch { .. }));
    }

    #[test]
    fn one_file_may_hold_both() {
        let pki = Pki::new();
        let CertFiles { cert, key } = pki.issue("a", &["a.example"]);
        let text = [cert, key].map(|path| std::fs::read_to_string(path).unwrap()).concat();
        let both = pki.write("both.pem", &text);
        assert!(load(&CertFiles { cert: both.clone(), key: both }).is_ok());
    }

    #[test]
    fn what_is_no_certificate_or_key_is_said_so() {
        let pki = Pki::new();
        let good = pki.issue("a", &["a.example"]);
        let text = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        let files = CertFiles { cert: pki.write("c.pem", text), ..good.clone() };
        assert!(matches!(refused(&files, &files.cert).0, TlsError::BadCertificate { .. }));
        let text = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
        let files = CertFiles { key: pki.write("k.pem", text), ..good };
        assert!(matches!(refused(&files, &files.key).0, TlsError::BadKey { .. }));
    }
}
