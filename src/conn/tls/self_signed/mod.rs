//! Decides what the self-signed certificate needs: nothing, a new leaf, or a new CA.
//!
//! Clients are told once to trust `ca.pem`. So the CA is kept as long as it may sign for every
//! name that is asked for, and only leaves are made anew. The CA's key is kept for that; where
//! somebody took it away, what is there is served until it has to be renewed.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, DnsName, ServerName, UnixTime};

use super::certificate::CertificateFacts;
use super::error::TlsError;
use super::files::{Files, Inventory, KeptCert};
use super::local_ca::{Ca, dns_names, fits};
use crate::config::CertFiles;

/// The names of every self-signed certificate.
const OWN_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// What is left of a certificate's life when it is made anew.
const RENEW_BEFORE: Duration = Duration::from_hours(24 * 30);

/// Sees to it that there are certificates for `names` in `dir`: the path of the CA, the files for
/// everybody, and those for clients that ask for a DNS name.
pub(super) fn prepare(
    dir: &Path,
    names: &[String],
    now: SystemTime,
    provider: &Arc<CryptoProvider>,
) -> Result<(PathBuf, [CertFiles; 2]), TlsError> {
    let names = required(names)?;
    let files = Files::in_dir(dir)?;
    renew(&files, &names, host_name(), now, provider)?;
    Ok((files.ca, [files.leaf, files.names]))
}

fn renew(
    files: &Files,
    names: &[String],
    host: Option<String>,
    now: SystemTime,
    provider: &Arc<CryptoProvider>,
) -> Result<(), TlsError> {
    let inventory = files.read()?;
    let host = host.filter(|host| !names.contains(host));
    let with = |host: Option<&String>| names.iter().chain(host).cloned().collect::<Vec<_>>();
    let usable = inventory.ca.as_ref().filter(|ca| may_sign(&ca.facts, names, now));
    if let Some(ca) = usable {
        // Containers get a new host name each time; that is no reason to change the CA.
        let names = with(host.as_ref().filter(|host| permits(&ca.facts, host)));
        if still_serves(&inventory, ca, &names, now, provider) {
            return Ok(());
        }
        if let Some(ca) = files.reopen(ca)? {
            files.write_leaf(&ca.issue(&names, now)?)?;
            tracing::info!(?names, "made a new certificate; its CA is the same");
            return Ok(());
        }
    }
    let names = with(host.as_ref());
    let ca = Ca::create(&names, now)?;
    let leaf = ca.issue(&names, now)?;
    files.write_ca(&ca)?;
    files.write_leaf(&leaf)?;
    let path = files.ca.display();
    if inventory.ca.is_some() {
        tracing::warn!(%path, ?names, "made a new local CA: clients must trust it anew");
    } else {
        tracing::info!(%path, ?names, "made a local CA");
    }
    Ok(())
}

/// Our own names and those asked for, in one spelling and once each.
fn required(names: &[String]) -> Result<Vec<String>, TlsError> {
    let mut all: Vec<_> = OWN_NAMES.map(str::to_owned).into();
    for name in names {
        let known = spelled(name).ok_or_else(|| TlsError::BadName { name: name.clone() })?;
        if !all.contains(&known) {
            all.push(known);
        }
    }
    Ok(all)
}

/// The one spelling of an address or DNS name; nothing if it is neither.
fn spelled(name: &str) -> Option<String> {
    if let Ok(ip) = name.parse::<IpAddr>() {
        return Some(ip.to_string());
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    DnsName::try_from(name.as_str()).ok()?;
    Some(name)
}

fn host_name() -> Option<String> {
    let uname = rustix::system::uname();
    spelled(uname.nodename().to_str().ok()?)
}

/// May this CA sign for all of these names, and for some time to come?
fn may_sign(ca: &CertificateFacts, names: &[String], now: SystemTime) -> bool {
    ca.is_valid(now)
        && ca.is_valid(now + RENEW_BEFORE)
        && names.iter().all(|name| permits(ca, name))
}

fn permits(ca: &CertificateFacts, name: &str) -> bool {
    ca.permitted.iter().any(|permitted| match name.strip_suffix(permitted.as_str()) {
        Some(below) => below.is_empty() || below.ends_with('.'),
        None => false,
    })
}

/// Do clients that trust this CA accept what lies there, now and for some time to come?
fn still_serves(
    inventory: &Inventory,
    ca: &KeptCert,
    names: &[String],
    now: SystemTime,
    provider: &Arc<CryptoProvider>,
) -> bool {
    let Inventory { leaf: Some(leaf), names: Some(for_names), key: Some(key), ca: _ } = inventory
    else {
        return false;
    };
    [(leaf, names), (for_names, &dns_names(names))].iter().all(|(kept, names)| {
        kept.facts.names.len() == names.len()
            && names.iter().all(|name| kept.facts.names.contains(name))
            && fits(key, &kept.facts)
            && [now, now + RENEW_BEFORE].iter().all(|at| accepts(&ca.der, &kept.der, *at, provider))
    })
}

/// Does a client that trusts this CA accept that certificate? Signature, dates and constraints.
fn accepts(
    ca: &CertificateDer<'static>,
    leaf: &CertificateDer<'static>,
    at: SystemTime,
    provider: &Arc<CryptoProvider>,
) -> bool {
    let verify = || {
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone()).ok()?;
        let (roots, provider) = (Arc::new(roots), Arc::clone(provider));
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build().ok()?;
        let name = ServerName::try_from("localhost").ok()?;
        let at = UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).ok()?);
        verifier.verify_server_cert(leaf, &[], &name, &[], at).ok()
    };
    verify().is_some()
}

#[cfg(test)]
mod tests;
