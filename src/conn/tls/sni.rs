//! Chooses the certificate by the name that the client asks for: exact names first, then
//! wildcards; the first certificate serves everybody else.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::served::Served;
use crate::config::wildcard_of;

/// Certificates by name. Where two hold the same name, the first is served.
#[derive(Debug)]
pub(super) struct ByName {
    /// By name in lower case, wildcards as `*.example.com`.
    keys: HashMap<String, Arc<CertifiedKey>>,
    default: Option<Arc<CertifiedKey>>,
}

impl ByName {
    /// `named` in the order in which they are looked at; the first of `all` is the default.
    pub(super) fn new<'a>(named: impl IntoIterator<Item = &'a Served>, all: &[Served]) -> Self {
        let mut keys = HashMap::new();
        for Served { key, facts, doubts: _ } in named {
            for name in &facts.names {
                keys.entry(name.clone()).or_insert_with(|| Arc::clone(key));
            }
        }
        let default = all.first().map(|first| Arc::clone(&first.key));
        Self { keys, default }
    }

    /// Is there a certificate for this name?
    pub(super) fn knows(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        self.keys.get(&name).or_else(|| self.keys.get(&wildcard_of(&name)?))
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name().and_then(|name| self.find(name));
        asked.or(self.default.as_ref()).map(Arc::clone)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ClientSide, Pki, acceptor, client, handshake};

    fn served(client: &ClientSide) -> Vec<u8> {
        let (_, connection) = client.as_ref().unwrap().get_ref();
        connection.peer_certificates().unwrap()[0].to_vec()
    }

    #[tokio::test]
    async fn exact_then_wildcard_then_default() {
        let pki = Pki::new();
        let first = pki.issue("first", &["first.example", "192.0.2.1"]);
        let wild = pki.issue("wild", &["*.Example.org"]);
        let exact = pki.issue("exact", &["www.EXAMPLE.org"]);
        let acceptor = acceptor(&[first.clone(), wild.clone(), exact.clone()]);
        for (name, files) in [
            ("first.example", &first),
            ("www.example.org", &exact),
            ("WWW.example.org", &exact),
            ("api.example.org", &wild),
            // No server name is sent for an address.
            ("192.0.2.1", &first),
        ] {
            let (_, client) = handshake(&acceptor, client(pki.root(), &[]), name).await;
            let [expected, ..] = &*super::super::pem::certificates(&files.cert).unwrap() else {
                panic!("no certificate");
            };
            assert_eq!(served(&client), expected.as_ref(), "{name}");
        }
    }

    #[tokio::test]
    async fn a_wildcard_is_one_label() {
        let pki = Pki::new();
        let wild = pki.issue("wild", &["*.example.org"]);
        let first = pki.issue("first", &["a.b.example.org", "example.org"]);
        let acceptor = acceptor(&[first, wild]);
        for name in ["a.b.example.org", "example.org"] {
            let (_, client) = handshake(&acceptor, client(pki.root(), &[]), name).await;
            assert!(client.is_ok(), "{name}");
        }
    }
}
