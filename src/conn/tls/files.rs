//! The directory of the self-signed certificate: what is in it, and how it gets there.
//!
//! Files are replaced whole, by renaming, and keys are never readable by others, not even for a
//! moment. Certificates are written before their keys: a key without any certificate of ours
//! beside it is then somebody else's, and is never overwritten.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;

use super::certificate::CertificateFacts;
use super::error::TlsError;
use super::local_ca::{Ca, Issued, ORGANIZATION};
use super::pem;
use crate::config::CertFiles;

const PUBLIC: u32 = 0o644;
const SECRET: u32 = 0o600;

/// Where the files are.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    /// `ca.pem`.
    pub(super) ca: PathBuf,
    ca_key: PathBuf,
    /// `cert.pem` and `key.pem`.
    pub(super) leaf: CertFiles,
    /// The same key, with `cert-names.pem`, the certificate for DNS names alone.
    pub(super) names: CertFiles,
}

/// A certificate that lies in the directory.
#[derive(Debug)]
pub(super) struct KeptCert {
    /// As it goes over the wire.
    pub(super) der: CertificateDer<'static>,
    /// What it says.
    pub(super) facts: CertificateFacts,
}

/// What lies in the directory, all of our own making.
#[derive(Debug)]
pub(super) struct Inventory {
    /// `ca.pem`.
    pub(super) ca: Option<KeptCert>,
    /// The first certificate of `cert.pem`.
    pub(super) leaf: Option<KeptCert>,
    /// The first certificate of `cert-names.pem`.
    pub(super) names: Option<KeptCert>,
    /// `key.pem`.
    pub(super) key: Option<KeyPair>,
}

impl Files {
    /// The files in `dir`, which is made if it is not there.
    pub(super) fn in_dir(dir: &Path) -> Result<Self, TlsError> {
        let failed = |source| TlsError::Write { path: dir.to_owned(), source };
        let dir = std::path::absolute(dir).map_err(failed)?;
        DirBuilder::new().recursive(true).mode(0o755).create(&dir).map_err(failed)?;
        Ok(Self {
            ca: dir.join("ca.pem"),
            ca_key: dir.join("ca-key.pem"),
            leaf: CertFiles { cert: dir.join("cert.pem"), key: dir.join("key.pem") },
            names: CertFiles { cert: dir.join("cert-names.pem"), key: dir.join("key.pem") },
            dir,
        })
    }

    /// Looks at what is there.
    pub(super) fn read(&self) -> Result<Inventory, TlsError> {
        let ca = kept(&self.ca)?;
        let leaf = kept(&self.leaf.cert)?;
        for key in [&self.ca_key, &self.leaf.key] {
            if ca.is_none() && leaf.is_none() && key.exists() {
                return Err(TlsError::Foreign { path: key.clone() });
            }
        }
        Ok(Inventory { ca, leaf, names: kept(&self.names.cert)?, key: key(&self.leaf.key)? })
    }

    /// The CA with its key, if the key is there and fits.
    pub(super) fn reopen(&self, ca: &KeptCert) -> Result<Option<Ca>, TlsError> {
        let Some(key) = key(&self.ca_key)? else {
            return Ok(None);
        };
        let pem = fs::read_to_string(&self.ca)
            .map_err(|source| TlsError::Read { path: self.ca.clone(), source })?;
        Ok(Ca::reopen(pem, &ca.der, &ca.facts, key)?)
    }

    /// Puts a new CA in place.
    pub(super) fn write_ca(&self, ca: &Ca) -> Result<(), TlsError> {
        self.replace(&self.ca, &ca.pem, PUBLIC)?;
        self.replace(&self.ca_key, &ca.key_pem(), SECRET)
    }

    /// Puts a new certificate in place.
    pub(super) fn write_leaf(&self, issued: &Issued) -> Result<(), TlsError> {
        self.replace(&self.leaf.cert, &issued.cert, PUBLIC)?;
        self.replace(&self.names.cert, &issued.names, PUBLIC)?;
        self.replace(&self.leaf.key, &issued.key, SECRET)
    }

    fn replace(&self, path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
        let new = path.with_extension("pem.new");
        let write = || -> io::Result<()> {
            match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            // Made anew: neither the mode of what lay there is kept nor a link followed.
            let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, path)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(|source| TlsError::Write { path: path.to_owned(), source })
    }
}

fn kept(path: &Path) -> Result<Option<KeptCert>, TlsError> {
    let chain = present(path, pem::certificates(path))?;
    let Some(der) = chain.into_iter().flatten().next() else { return Ok(None) };
    let Some(facts) = present(path, CertificateFacts::read(&der, path))? else { return Ok(None) };
    if facts.issuer.as_deref() != Some(ORGANIZATION) {
        return Err(TlsError::Foreign { path: path.to_owned() });
    }
    Ok(Some(KeptCert { der, facts }))
}

fn key(path: &Path) -> Result<Option<KeyPair>, TlsError> {
    let Some(der) = present(path, pem::private_key(path))? else {
        return Ok(None);
    };
    present(path, KeyPair::try_from(&der).map_err(TlsError::Issue))
}

/// A file that is not there is no error here, and one that cannot be used is damaged.
fn present<T>(path: &Path, read: Result<T, TlsError>) -> Result<Option<T>, TlsError> {
    match read {
        Ok(content) => Ok(Some(content)),
        Err(TlsError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error @ TlsError::Read { .. }) => Err(error),
        Err(error) => Err(TlsError::Damaged { path: path.to_owned(), source: Box::new(error) }),
    }
}
