//! What a certificate says of itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{ASN1Time, FromDer as _, X509Certificate};

use super::error::TlsError;

/// What we need to know of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CertificateFacts {
    /// DNS names and addresses, lower case.
    pub(super) names: Vec<String>,
    /// The first moment of its life.
    pub(super) not_before: SystemTime,
    /// The last moment of its life.
    pub(super) not_after: SystemTime,
    /// The organization that issued it.
    pub(super) issuer: Option<String>,
    /// Of a CA: the names and addresses it may sign for. Subtrees of addresses are left out.
    pub(super) permitted: Vec<String>,
    /// The public key, as `SubjectPublicKeyInfo`.
    pub(super) public_key: Vec<u8>,
    /// Whose it is: the distinguished name, as it stands.
    pub(super) subject: Vec<u8>,
    /// Who signed it: the distinguished name, as it stands.
    pub(super) issued_by: Vec<u8>,
    /// The same for people.
    pub(super) issued_by_text: String,
    /// The common name in `subject`.
    pub(super) common_name: Option<String>,
}

impl CertificateFacts {
    /// Reads the certificate at `path`, which is named in the error only.
    pub(super) fn read(der: &CertificateDer<'_>, path: &Path) -> Result<Self, TlsError> {
        let unparsable =
            |reason: String| TlsError::BadCertificate { path: path.to_owned(), reason };
        let (_, x509) = X509Certificate::from_der(der).map_err(|e| unparsable(e.to_string()))?;
        let names = x509.subject_alternative_name().map_err(|e| unparsable(e.to_string()))?;
        let constraints = x509.name_constraints().map_err(|e| unparsable(e.to_string()))?;
        let issuer = x509.issuer().iter_organization().next();
        let common_name = x509.subject().iter_common_name().next();
        Ok(Self {
            names: names
                .iter()
                .flat_map(|extension| &extension.value.general_names)
                .filter_map(name)
                .collect(),
            not_before: time(x509.validity().not_before),
            not_after: time(x509.validity().not_after),
            issuer: issuer.and_then(|it| it.as_str().ok()).map(str::to_owned),
            permitted: constraints
                .iter()
                .flat_map(|extension| extension.value.permitted_subtrees.iter().flatten())
                .filter_map(|subtree| name(&subtree.base))
                .collect(),
            public_key: x509.public_key().raw.to_vec(),
            subject: x509.subject().as_raw().to_vec(),
            issued_by: x509.issuer().as_raw().to_vec(),
            issued_by_text: x509.issuer().to_string(),
            common_name: common_name.and_then(|it| it.as_str().ok()).map(str::to_owned),
        })
    }

    /// Is it valid at that moment?
    pub(super) fn is_valid(&self, at: SystemTime) -> bool {
        self.not_before <= at && at <= self.not_after
    }
}

fn time(time: ASN1Time) -> SystemTime {
    // Nothing that we look at was valid before 1970.
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    if let GeneralName::DNSName(dns) = name {
        return Some(dns.to_ascii_lowercase());
    }
    let GeneralName::IPAddress(bytes) = name else {
        return None;
    };
    address(bytes).map(|ip| ip.to_string())
}

/// An address, or a subtree that holds one address only: the address, then a mask of ones.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    let host = |half: usize| {
        let (address, mask) = bytes.split_at_checked(half)?;
        mask.iter().all(|byte| *byte == 0xff).then_some(address)
    };
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        8 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(host(4)?).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        32 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(host(16)?).ok()?).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subtrees_of_one_address_are_addresses() {
        assert_eq!(address(&[192, 0, 2, 1]), Some(IpAddr::from([192, 0, 2, 1])));
        let host = [192, 0, 2, 1, 255, 255, 255, 255];
        assert_eq!(address(&host), Some(IpAddr::from([192, 0, 2, 1])));
        assert_eq!(address(&[192, 0, 2, 0, 255, 255, 255, 0]), None);
        assert_eq!(address(&[1, 2, 3]), None);
    }
}
