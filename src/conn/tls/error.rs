//! What can be wrong with certificates at the start, and with handshakes later, in words.

use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use rustls::{AlertDescription, PeerMisbehaved};

use super::stream::RecordFlood;

/// Why there is no certificate to serve. Every text names the file and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// Neither files nor a self-signed certificate were asked for.
    #[error("no certificate is configured: name a certificate and a key file")]
    Nothing,
    /// The file is not there, or not for us.
    #[error("could not read `{path}`: check that it exists and that this user may read it")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory in place of a file.
    #[error(
        "`{path}` is a directory: give the file in it, as fullchain.pem for the certificate and \
         privkey.pem for its key"
    )]
    Directory {
        /// The directory.
        path: PathBuf,
    },
    /// The file could not be made or replaced.
    #[error("could not write `{path}`: check that this user may write to its directory")]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file has the marks of PEM, but is broken.
    #[error("`{path}` is not valid PEM: copy it again, whole and as text")]
    BadPem {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: io::Error,
    },
    /// There is no certificate in the file.
    #[error(
        "no certificate in `{path}`: it needs a block that begins with `BEGIN CERTIFICATE`; check \
         that certificate and key are not swapped, and convert DER with \
         `openssl x509 -inform der -in FILE`"
    )]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// There is no private key in the file.
    #[error(
        "no private key in `{path}`: it needs a block that begins with `BEGIN PRIVATE KEY`, \
         `BEGIN EC PRIVATE KEY` or `BEGIN RSA PRIVATE KEY`; check that certificate and key are \
         not swapped"
    )]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The private key has a passphrase.
    #[error(
        "the private key in `{path}` is encrypted: decrypt it with \
         `openssl pkey -in {path} -out decrypted-key.pem` and use that file"
    )]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// The private key is of no kind that we can sign with.
    #[error("the private key in `{path}` cannot be used: make an ECDSA P-256 or RSA 2048 key")]
    BadKey {
        /// The file.
        path: PathBuf,
        /// What was wrong with it.
        source: rustls::Error,
    },
    /// The certificate cannot be parsed.
    #[error("a certificate in `{path}` cannot be parsed ({reason}): have it issued again")]
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        reason: String,
    },
    /// The private key belongs to another certificate.
    #[error(
        "the private key in `{key}` does not fit the first certificate in `{cert}`: use the key \
         it was issued for, and put the server's own certificate first"
    )]
    KeyMismatch {
        /// The certificate file.
        cert: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// The certificate is past its time.
    #[error("the certificate in `{path}` expired at {}: renew it", rfc3339(*.at))]
    Expired {
        /// The file.
        path: PathBuf,
        /// When it expired.
        at: SystemTime,
    },
    /// The certificate's time has not come.
    #[error(
        "the certificate in `{path}` is not valid before {}: check the clock of this machine",
        rfc3339(*.at)
    )]
    NotYetValid {
        /// The file.
        path: PathBuf,
        /// When it begins to be valid.
        at: SystemTime,
    },
    /// A name for the self-signed certificate is none.
    #[error(
        "`{name}` cannot be a name of the certificate: give a DNS name (international ones as \
         xn--…, no wildcard, no port) or an IP address"
    )]
    BadName {
        /// The name as given.
        name: String,
    },
    /// A file of our own making cannot be used any more.
    #[error("`{path}` is damaged: delete it, and a new one is made at the next start")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<Self>,
    },
    /// A file in the directory is not of our making, and would have to be overwritten.
    #[error(
        "`{path}` was not made by mcp-edge and is not overwritten: serve it as a certificate file, \
         or keep the self-signed certificate in another directory"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The self-signed certificate could not be made.
    #[error("could not make a certificate")]
    Issue(#[from] rcgen::Error),
    /// The TLS library refused its configuration.
    #[error("could not set up TLS")]
    Setup(#[from] rustls::Error),
}

fn rfc3339(at: SystemTime) -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_seconds(at)
}

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// Plain HTTP came; it was answered with 400.
    #[error("the client spoke plain HTTP to the TLS port; it was told to use https")]
    PlainHttp,
    /// The peer went away before it had said what it wants: a port scan, a TCP health check, a client that gave up.
    #[error("the client closed the connection before the handshake")]
    Closed,
    /// The peer went away when it had our certificate, with a reset where it left something unread.
    #[error(
        "the client broke the connection off when it had our certificate, and did not say why: most \
         often it does not trust the certificate or its name, as Node.js does it; give it the CA \
         (ca.pem; to Node.js in NODE_EXTRA_CA_CERTS, before it starts), or put the intermediate \
         certificates behind the leaf in the --cert file"
    )]
    Left,
    /// The client asks for a name that no certificate has, and such are refused.
    #[error(
        "the client asks for `{0}`, which is no name of a certificate (--refuse-unknown-names)"
    )]
    UnknownName(String),
    /// The client sends records without end.
    #[error(transparent)]
    Flood(RecordFlood),
    /// One of the two sides would not go on.
    #[error("{}", in_words(.0))]
    Tls(#[source] rustls::Error),
    /// The connection broke.
    #[error("the connection broke during the handshake")]
    Io(#[source] io::Error),
}

impl HandshakeError {
    /// An error of the part of the handshake in which the peer has our certificate.
    pub(super) fn after_hello(error: io::Error) -> Self {
        let error = Self::from(error);
        let left = matches!(&error, Self::Closed)
            || matches!(&error, Self::Io(error) if is_broken_off(error));
        if left { Self::Left } else { error }
    }
}

/// Did the peer break the connection off, rather than the network or its own silence?
fn is_broken_off(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), ConnectionReset | BrokenPipe | ConnectionAborted)
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        let error = match error.downcast::<RecordFlood>() {
            Ok(flood) => return Self::Flood(flood),
            Err(error) => error,
        };
        match error.downcast::<rustls::Error>() {
            Ok(error) => Self::Tls(error),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Self::Closed,
            Err(error) => Self::Io(error),
        }
    }
}

/// What a client means by its last word.
const ALERTS: &[(AlertDescription, &str)] = &[
    (
        AlertDescription::UnknownCA,
        "the client does not trust our certificate: it does not know the CA that signed it; give it \
         the CA (ca.pem), or put the intermediate certificates behind the leaf in the --cert file",
    ),
    (
        AlertDescription::BadCertificate,
        "the client does not trust our certificate: it finds it bad, which often means issued for \
         another name than the one it asked for",
    ),
    (
        AlertDescription::CertificateUnknown,
        "the client does not trust our certificate: it does not say why, but most often the CA \
         or the name is not what it expects",
    ),
    (
        AlertDescription::CertificateExpired,
        "the client does not trust our certificate: by its clock the certificate is not valid; \
         renew it, or set the client's clock",
    ),
    (
        AlertDescription::CertificateRevoked,
        "the client does not trust our certificate: it holds it for revoked",
    ),
    (
        AlertDescription::UnsupportedCertificate,
        "the client does not trust our certificate: it cannot use its kind of key",
    ),
    (
        AlertDescription::DecryptError,
        "the client does not trust our certificate: a signature is wrong to it; it may know \
         another CA by the same name",
    ),
    (
        AlertDescription::BadCertificateStatusResponse,
        "the client does not trust our certificate: it expects a stapled OCSP response",
    ),
    (
        AlertDescription::AccessDenied,
        "the client broke off by a rule of its own (a proxy or virus scanner in between does so)",
    ),
    (
        AlertDescription::CertificateRequired,
        "the client expects to be asked for a certificate, which this server does not do",
    ),
    (
        AlertDescription::UnrecognisedName,
        "the client says that our certificate is not for the name it asked for",
    ),
    (
        AlertDescription::InsufficientSecurity,
        "the client finds what we chose too weak: it may ask for larger keys",
    ),
    (
        AlertDescription::DecodeError,
        "the client could not read what we sent: something in between may change it",
    ),
    (AlertDescription::InternalError, "the client failed by a fault of its own"),
    (AlertDescription::ProtocolVersion, "the client speaks no TLS version that we chose"),
    (
        AlertDescription::HandshakeFailure,
        "the client found nothing in what we offered that it accepts",
    ),
    (AlertDescription::NoApplicationProtocol, "the client speaks no protocol that we chose"),
    (AlertDescription::UserCanceled, "the client gave up the handshake"),
    (AlertDescription::CloseNotify, "the client gave up the handshake"),
];

fn in_words(error: &rustls::Error) -> String {
    if let rustls::Error::AlertReceived(alert) = error {
        return match ALERTS.iter().find(|(known, _)| known == alert) {
            Some((_, words)) => format!("{words} (alert {alert:?})"),
            None => format!("the client broke the handshake off (alert {alert:?})"),
        };
    }
    if matches!(error, rustls::Error::NoApplicationProtocol) {
        return "the client offers neither HTTP/1.1 nor HTTP/2".to_owned();
    }
    if let rustls::Error::PeerIncompatible(why) = error {
        return format!("the client offers nothing that we accept ({why:?})");
    }
    if let rustls::Error::InvalidMessage(why) = error {
        return format!("the client sent something that is not TLS ({why:?})");
    }
    error.to_string()
}

/// How TLS ended a connection whose handshake was over for us.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum EndedBy {
    /// The client's alert, in words: a client of TLS 1.3 looks at our certificate when the handshake
    /// is over for us, and its verdict comes where a request was expected.
    Alert(String),
    /// Too many records that carry nothing.
    Flood,
}

impl EndedBy {
    /// Nothing, if it was not TLS.
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        let cause = error.get_ref()?;
        if cause.is::<RecordFlood>() {
            return Some(Self::Flood);
        }
        let tls = cause.downcast_ref::<rustls::Error>()?;
        if matches!(tls, rustls::Error::AlertReceived(_)) {
            return Some(Self::Alert(in_words(tls)));
        }
        let many = matches!(
            tls,
            rustls::Error::PeerMisbehaved(
                PeerMisbehaved::TooManyEmptyFragments
                    | PeerMisbehaved::TooManyKeyUpdateRequests
                    | PeerMisbehaved::TooManyRenegotiationRequests
                    | PeerMisbehaved::TooManyWarningAlertsReceived
            )
        );
        many.then_some(Self::Flood)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_told_in_words() {
        let text = |alert| HandshakeError::Tls(rustls::Error::AlertReceived(alert)).to_string();
        for alert in [
            AlertDescription::UnknownCA,
            AlertDescription::BadCertificate,
            AlertDescription::CertificateUnknown,
        ] {
            assert!(text(alert).starts_with("the client does not trust our certificate: "));
        }
        assert_eq!(
            text(AlertDescription::DecodeError),
            "the client could not read what we sent: something in between may change it (alert DecodeError)"
        );
    }

    #[test]
    fn a_flood_is_told_from_other_faults() {
        let of = |error: rustls::Error| EndedBy::of(&io::Error::other(error));
        for many in [
            PeerMisbehaved::TooManyEmptyFragments,
            PeerMisbehaved::TooManyKeyUpdateRequests,
            PeerMisbehaved::TooManyRenegotiationRequests,
            PeerMisbehaved::TooManyWarningAlertsReceived,
        ] {
            assert_eq!(of(many.into()), Some(EndedBy::Flood));
        }
        assert_eq!(EndedBy::of(&io::Error::other(RecordFlood)), Some(EndedBy::Flood));
        assert_eq!(of(rustls::Error::DecryptError), None);
        let alert = of(rustls::Error::AlertReceived(AlertDescription::UnknownCA));
        assert!(matches!(alert, Some(EndedBy::Alert(_))));
        assert_eq!(EndedBy::of(&io::ErrorKind::ConnectionReset.into()), None);
    }

    #[test]
    fn an_end_of_file_is_a_peer_that_went_away() {
        let error = HandshakeError::from(io::Error::from(io::ErrorKind::UnexpectedEof));
        assert!(matches!(error, HandshakeError::Closed));
        let reset = HandshakeError::from(io::Error::from(io::ErrorKind::ConnectionReset));
        assert!(matches!(reset, HandshakeError::Io(_)));
        let tls = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::DecryptError);
        assert!(matches!(HandshakeError::from(tls), HandshakeError::Tls(_)));
    }
}
