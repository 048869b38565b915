//! Reads PEM files. The only place that knows `rustls-pemfile`.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls_pemfile::Item;

use super::error::TlsError;
use crate::wire::pem::tidied;

/// Bytes read of one file: a chain takes a few KiB, and a device file never ends.
const MAX_BYTES: u64 = 1024 * 1024;

/// The certificates in a file: at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let (certificates, _) = parse(path, &read(path)?)?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate { path: path.to_owned() });
    }
    Ok(certificates)
}

/// The first private key in a file.
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(path)?;
    match parse(path, &bytes)? {
        (_, Some(key)) => {
            warn_if_others_can_read(path);
            Ok(key)
        }
        (_, None) if is_encrypted(&bytes) => Err(TlsError::EncryptedKey { path: path.to_owned() }),
        (_, None) => Err(TlsError::NoKey { path: path.to_owned() }),
    }
}

type Contents = (Vec<CertificateDer<'static>>, Option<PrivateKeyDer<'static>>);

fn parse(path: &Path, mut bytes: &[u8]) -> Result<Contents, TlsError> {
    let mut certificates = Vec::new();
    let mut key = None;
    // An encrypted key of the traditional form has headers, over which the parser stumbles.
    let encrypted = is_encrypted(bytes);
    for item in rustls_pemfile::read_all(&mut bytes) {
        let item = item.map_err(|source| {
            if encrypted {
                TlsError::EncryptedKey { path: path.to_owned() }
            } else {
                TlsError::BadPem { path: path.to_owned(), source }
            }
        })?;
        match item {
            Item::X509Certificate(certificate) => certificates.push(certificate),
            Item::Pkcs8Key(found) => key = key.or(Some(found.into())),
            Item::Pkcs1Key(found) => key = key.or(Some(found.into())),
            Item::Sec1Key(found) => key = key.or(Some(found.into())),
            Item::SubjectPublicKeyInfo(_) | Item::Crl(_) | Item::Csr(_) | _ => {}
        }
    }
    Ok((certificates, key))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes));
    read.map_err(|source| {
        let path = path.to_owned();
        if source.kind() == ErrorKind::IsADirectory {
            TlsError::Directory { path }
        } else {
            TlsError::Read { path, source }
        }
    })?;
    Ok(tidied(&bytes))
}

fn is_encrypted(pem: &[u8]) -> bool {
    let text = String::from_utf8_lossy(pem);
    text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED")
}

fn warn_if_others_can_read(path: &Path) {
    let Ok(metadata) = path.metadata() else {
        return;
    };
    let mode = metadata.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(
            path = %path.display(),
            mode = format_args!("{:o}", mode & 0o777),
            "the private key can be read by other users of this machine: chmod 600"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Pki;
    use super::*;

    fn no_key(text: &str) -> TlsError {
        let pki = Pki::new();
        let path = pki.write("key.pem", text);
        let error = private_key(&path).unwrap_err();
        assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
        error
    }

    #[test]
    fn a_missing_file_is_named() {
        let path = Path::new("/nowhere/cert.pem");
        for error in [certificates(path).unwrap_err(), private_key(path).unwrap_err()] {
            assert!(error.to_string().contains("/nowhere/cert.pem"), "{error}");
            let TlsError::Read { source, .. } = error else { panic!("{error:?}") };
            assert_eq!(source.kind(), ErrorKind::NotFound);
        }
    }

    #[test]
    fn swapped_files_are_found_out() {
        let pki = Pki::new();
        let files = pki.issue("a", &["a.example"]);
        assert!(matches!(certificates(&files.key), Err(TlsError::NoCertificate { .. })));
        assert!(matches!(private_key(&files.cert), Err(TlsError::NoKey { .. })));
        assert!(matches!(no_key(""), TlsError::NoKey { .. }));
    }

    #[test]
    fn encrypted_keys_of_both_forms_are_found_out() {
        let pkcs8 = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n\
                     -----END ENCRYPTED PRIVATE KEY-----\n";
        let traditional = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\
                           DEK-Info: AES-256-CBC,00\n\nMAA=\n-----END EC PRIVATE KEY-----\n";
        for text in [pkcs8, traditional] {
            let error = no_key(text);
            assert!(matches!(error, TlsError::EncryptedKey { .. }), "{error:?}");
            assert!(error.to_string().contains("openssl pkey -in"), "{error}");
        }
    }

    #[test]
    fn half_a_file_is_bad_pem() {
        let error = no_key("-----BEGIN PRIVATE KEY-----\nMAA=\n");
        assert!(matches!(error, TlsError::BadPem { .. }), "{error:?}");
    }
}
