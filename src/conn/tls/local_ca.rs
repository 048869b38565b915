//! A small certificate authority that can sign for this server's names and for nothing else.
//!
//! Whoever trusts it gives it no power over other names: the CA certificate carries critical name
//! constraints (RFC 5280, section 4.2.1.10) and is for TLS servers only. That is also why its key
//! may be kept beside the server's own, and for years: a thief gains no name by it that the
//! server's key does not already stand for.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
};
use rustls::pki_types::CertificateDer;

use super::certificate::CertificateFacts;

/// The organization in the name of the CA: by it we know what we made.
pub(super) const ORGANIZATION: &str = "mcp-edge";

const DAY: Duration = Duration::from_hours(24);
/// A new CA has to be trusted anew on every client.
const CA_LIFE: Duration = DAY.saturating_mul(5 * 365);
/// What public CAs were held to for long; Apple refuses more than 825 days of private ones.
const LEAF_LIFE: Duration = DAY.saturating_mul(397);
/// Clocks of clients that run behind ours.
const CLOCK_SKEW: Duration = DAY;

/// A CA with its key.
#[derive(Debug)]
pub(super) struct Ca {
    /// Its certificate.
    pub(super) pem: String,
    issuer: Issuer<'static, KeyPair>,
    not_after: SystemTime,
}

/// New certificate chains and the key of both, in PEM.
pub(super) struct Issued {
    /// The leaf for every name and address, then the CA.
    pub(super) cert: String,
    /// The leaf for the DNS names alone, then the CA.
    pub(super) names: String,
    /// The leaves' key.
    pub(super) key: String,
}

impl Ca {
    /// Makes a CA for these names and addresses.
    pub(super) fn create(names: &[String], now: SystemTime) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let not_after = now + CA_LIFE;
        let mut params = CertificateParams::default();
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = not_after.into();
        // Each CA has its own name, so that a client that trusts an older one is not misled.
        let mark = match *params.key_identifier(&key).as_slice() {
            [a, b, c, d, ..] => u32::from_be_bytes([a, b, c, d]),
            _ => 0,
        };
        let common_name = format!("mcp-edge local CA {mark:08x}");
        params.distinguished_name.push(DnType::OrganizationName, ORGANIZATION);
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: names.iter().map(|name| only(name)).collect(),
            excluded_subtrees: Vec::new(),
        });
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { pem, issuer: Issuer::new(params, key), not_after })
    }

    /// Takes up a CA that was made earlier; nothing if the key is not its own.
    pub(super) fn reopen(
        pem: String,
        der: &CertificateDer<'_>,
        facts: &CertificateFacts,
        key: KeyPair,
    ) -> Result<Option<Self>, rcgen::Error> {
        if !fits(&key, facts) {
            return Ok(None);
        }
        let issuer = Issuer::from_ca_cert_der(der, key)?;
        Ok(Some(Self { pem, issuer, not_after: facts.not_after }))
    }

    /// The key of the CA.
    pub(super) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Makes server certificates, with a new key, that do not outlive the CA.
    ///
    /// There are two, because `BoringSSL` (and Bun with it) refuses any certificate with an address
    /// in it whose CA is constrained to addresses: those who ask for a name get one without.
    pub(super) fn issue(&self, names: &[String], now: SystemTime) -> Result<Issued, rcgen::Error> {
        let key = KeyPair::generate()?;
        let cert = self.sign(names.to_vec(), &key, now)?;
        let names = self.sign(dns_names(names), &key, now)?;
        Ok(Issued { cert, names, key: key.serialize_pem() })
    }

    fn sign(
        &self,
        names: Vec<String>,
        key: &KeyPair,
        now: SystemTime,
    ) -> Result<String, rcgen::Error> {
        let mut params = CertificateParams::new(names)?;
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = self.not_after.min(now + LEAF_LIFE - CLOCK_SKEW).into();
        params.distinguished_name.push(DnType::CommonName, "mcp-edge server");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(key, &self.issuer)?.pem() + &self.pem)
    }
}

/// Those of the names that are no addresses.
pub(super) fn dns_names(names: &[String]) -> Vec<String> {
    names.iter().filter(|name| name.parse::<IpAddr>().is_err()).cloned().collect()
}

/// Is this the key of that certificate?
pub(super) fn fits(key: &KeyPair, facts: &CertificateFacts) -> bool {
    rcgen::PublicKeyData::subject_public_key_info(key) == facts.public_key
}

/// A subtree of one address, or of one DNS name and what is below it; X.509 knows no narrower one.
fn only(name: &str) -> GeneralSubtree {
    match name.parse::<IpAddr>() {
        Ok(ip) => {
            let bits = if ip.is_ipv4() { 32 } else { 128 };
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(ip, bits))
        }
        Err(_) => GeneralSubtree::DnsName(name.to_owned()),
    }
}
