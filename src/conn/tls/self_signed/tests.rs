//! The life of a self-signed certificate, start after start.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rcgen::KeyPair;
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;

use super::super::provider::provider;
use super::super::testing::{DAY, client, handshake};
use super::super::{TlsAcceptor, Trust, pem};
use super::*;
use crate::config::{TlsRules, TlsSource};

const HOST: &str = "box.example";

/// A directory, and a server that is started in it again and again.
struct Server {
    dir: TempDir,
    now: SystemTime,
}

impl Server {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), now: SystemTime::now() }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn bytes(&self, file: &str) -> Vec<u8> {
        fs::read(self.path(file)).unwrap()
    }

    fn acceptor(&self, names: &[&str]) -> (TlsAcceptor, Trust) {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        let source = TlsSource::SelfSigned { dir: self.dir.path().to_owned(), names };
        TlsAcceptor::new(&source, TlsRules::default(), self.now).unwrap()
    }

    /// Starts it once: are the CA and the leaf the same as before?
    fn start(&self, names: &[&str], host: Option<&str>) -> Result<(bool, bool), TlsError> {
        let before = [fs::read(self.path("ca.pem")).ok(), fs::read(self.path("cert.pem")).ok()];
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let files = Files::in_dir(self.dir.path())?;
        let host = host.map(str::to_owned);
        renew(&files, &required(&names)?, host, self.now, &provider())?;
        let [ca, leaf] = before;
        Ok((ca == Some(self.bytes("ca.pem")), leaf == Some(self.bytes("cert.pem"))))
    }

    fn names(&self) -> Vec<String> {
        let path = self.path("cert.pem");
        CertificateFacts::read(&pem::certificates(&path).unwrap()[0], &path).unwrap().names
    }

    fn ca(&self) -> CertificateDer<'static> {
        pem::certificates(&self.path("ca.pem")).unwrap().remove(0)
    }

    /// Does a client that trusts the CA accept a certificate of it for that name?
    fn ca_can_sign(&self, name: &str) -> bool {
        let ca = self.ca();
        let facts = CertificateFacts::read(&ca, Path::new("ca.pem")).unwrap();
        let key: PrivateKeyDer<'_> = pem::private_key(&self.path("ca-key.pem")).unwrap();
        let key = KeyPair::try_from(&key).unwrap();
        let signer = Ca::reopen(String::new(), &ca, &facts, key).unwrap().unwrap();
        let names = ["localhost".to_owned(), name.to_owned()];
        let issued = signer.issue(&names, self.now).unwrap();
        let file = self.path("other.pem");
        fs::write(&file, issued.cert).unwrap();
        let leaf = pem::certificates(&file).unwrap().remove(0);
        accepts(&ca, &leaf, self.now, &provider())
    }
}

const NEW: (bool, bool) = (false, false);
const LEAF_RENEWED: (bool, bool) = (true, false);
const REUSED: (bool, bool) = (true, true);

#[test]
fn the_second_start_finds_everything_in_place() {
    let server = Server::new();
    assert_eq!(server.start(&["Mcp.example.", "192.0.2.9"], Some(HOST)).unwrap(), NEW);
    let names = ["localhost", "127.0.0.1", "::1", "mcp.example", "192.0.2.9", HOST];
    assert_eq!(server.names(), names);
    assert_eq!(server.start(&["192.0.2.9", "mcp.example"], Some(HOST)).unwrap(), REUSED);
}

#[test]
fn a_leaf_near_its_end_is_renewed_and_the_ca_kept() {
    let mut server = Server::new();
    assert_eq!(server.start(&[], Some(HOST)).unwrap(), NEW);
    server.now += 360 * DAY;
    assert_eq!(server.start(&[], Some(HOST)).unwrap(), REUSED);
    server.now += 10 * DAY;
    assert_eq!(server.start(&[], Some(HOST)).unwrap(), LEAF_RENEWED);
    assert_eq!(server.start(&[], Some(HOST)).unwrap(), REUSED);
}

#[test]
fn a_ca_near_its_end_is_replaced_and_no_leaf_outlives_it() {
    let mut server = Server::new();
    server.start(&[], None).unwrap();
    server.now += (5 * 365 - 31) * DAY;
    assert_eq!(server.start(&[], None).unwrap(), LEAF_RENEWED);
    let path = server.path("cert.pem");
    let [leaf, ca] = pem::certificates(&path).unwrap().try_into().unwrap();
    let [leaf, ca] = [leaf, ca].map(|der| CertificateFacts::read(&der, &path).unwrap().not_after);
    assert_eq!(leaf, ca);
    server.now += 2 * DAY;
    assert_eq!(server.start(&[], None).unwrap(), NEW);
}

#[test]
fn a_new_name_needs_a_new_ca_and_a_dropped_one_a_new_leaf() {
    let server = Server::new();
    server.start(&["a.example"], None).unwrap();
    assert_eq!(server.start(&["a.example", "b.example"], None).unwrap(), NEW);
    assert_eq!(server.start(&["b.example"], None).unwrap(), LEAF_RENEWED);
    assert!(!server.names().contains(&"a.example".to_owned()));
    assert_eq!(server.start(&["b.example", "a.example"], None).unwrap(), LEAF_RENEWED);
    // What is below a permitted name is permitted.
    assert_eq!(server.start(&["api.b.example"], None).unwrap(), LEAF_RENEWED);
    assert_eq!(server.start(&["xb.example"], None).unwrap(), NEW);
}

#[test]
fn a_new_host_name_is_no_reason_for_a_new_ca() {
    let server = Server::new();
    server.start(&[], Some("f00d")).unwrap();
    assert_eq!(server.start(&[], Some("cafe")).unwrap(), LEAF_RENEWED);
    assert_eq!(server.names(), OWN_NAMES);
    assert_eq!(server.start(&[], Some("beef")).unwrap(), REUSED);
    assert_eq!(server.start(&[], Some("f00d")).unwrap(), LEAF_RENEWED);
    assert!(server.names().contains(&"f00d".to_owned()));
}

#[test]
fn without_its_key_a_ca_serves_until_it_has_to_sign() {
    let mut server = Server::new();
    server.start(&[], None).unwrap();
    fs::remove_file(server.path("ca-key.pem")).unwrap();
    assert_eq!(server.start(&[], None).unwrap(), REUSED);
    server.now += 380 * DAY;
    assert_eq!(server.start(&[], None).unwrap(), NEW);
}

#[test]
fn a_missing_or_strange_leaf_or_key_is_made_anew() {
    for file in ["cert.pem", "key.pem"] {
        let server = Server::new();
        server.start(&[], None).unwrap();
        fs::remove_file(server.path(file)).unwrap();
        assert_eq!(server.start(&[], None).unwrap(), LEAF_RENEWED, "{file}");
        let other = Server::new();
        other.start(&[], None).unwrap();
        fs::copy(other.path(file), server.path(file)).unwrap();
        assert_eq!(server.start(&[], None).unwrap(), LEAF_RENEWED, "{file}");
    }
}

#[test]
fn damaged_files_are_named_and_can_be_deleted() {
    for file in ["ca.pem", "cert.pem", "key.pem", "ca-key.pem"] {
        for text in ["", "-----BEGIN PRIVATE KEY-----\n", "-----BEGIN CERTIFICATE-----\nMAA="] {
            let mut server = Server::new();
            server.start(&[], None).unwrap();
            fs::write(server.path(file), text).unwrap();
            server.now += 380 * DAY;
            let error = server.start(&[], None).unwrap_err();
            assert!(matches!(error, TlsError::Damaged { .. }), "{file}: {error:?}");
            assert!(error.to_string().contains(file), "{error}");
            fs::remove_file(server.path(file)).unwrap();
            assert!(server.start(&[], None).is_ok(), "{file}");
        }
    }
}

#[test]
fn files_of_others_are_not_overwritten() {
    let pki = super::super::testing::Pki::new();
    let theirs = pki.issue("theirs", &["a.example"]);
    for (from, to) in [
        (&theirs.cert, "cert.pem"),
        (&theirs.cert, "ca.pem"),
        (&theirs.key, "key.pem"),
        (&theirs.key, "ca-key.pem"),
    ] {
        let server = Server::new();
        fs::copy(from, server.path(to)).unwrap();
        let error = server.start(&[], None).unwrap_err();
        assert!(matches!(error, TlsError::Foreign { .. }), "{to}: {error:?}");
        assert_eq!(server.bytes(to), fs::read(from).unwrap());
    }
}

#[test]
fn keys_are_for_the_owner_only() {
    let server = Server::new();
    let dir = server.path("made/here");
    fs::create_dir(server.path("made")).unwrap();
    prepare(&dir, &[], server.now, &provider()).unwrap();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(dir.clone()), 0o755);
    for (file, expected) in [("key.pem", 0o600), ("ca-key.pem", 0o600)] {
        assert_eq!(mode(dir.join(file)), expected, "{file}");
    }
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 5, "nothing is left over");
}

#[test]
fn the_ca_can_sign_for_no_other_name() {
    let server = Server::new();
    server.start(&["mcp.example", "192.0.2.9"], None).unwrap();
    for name in ["mcp.example", "192.0.2.9", "::1", "127.0.0.1"] {
        assert!(server.ca_can_sign(name), "{name}");
    }
    for name in ["other.example", "example", "xmcp.example", "192.0.2.8", "127.0.0.2", "::2"] {
        assert!(!server.ca_can_sign(name), "{name}");
    }
}

#[test]
fn names_are_dns_names_or_addresses() {
    for name in ["*.a.example", "a b", "", "a.example:443", "https://a", "bücher.example", "[::1]"]
    {
        let error = required(&[name.to_owned()]).unwrap_err();
        assert!(matches!(&error, TlsError::BadName { name: named } if named == name));
        assert!(error.to_string().contains(name), "{error}");
    }
    let names = ["LOCALHOST", "0:0:0:0:0:0:0:1", "a.example."].map(str::to_owned);
    assert_eq!(required(&names).unwrap(), ["localhost", "127.0.0.1", "::1", "a.example"]);
}

#[tokio::test]
async fn a_client_that_trusts_the_ca_gets_in_by_every_name() {
    let server = Server::new();
    let (acceptor, Trust { ca, names, files: _, not_after }) = server.acceptor(&["mcp.example"]);
    assert_eq!(ca, Some(server.path("ca.pem")));
    let life = not_after.duration_since(server.now).unwrap();
    assert!(life > 390 * DAY && life < 397 * DAY);
    assert!(names.contains(&"mcp.example".to_owned()) && names.contains(&"::1".to_owned()));
    for name in &names {
        let (_, client) = handshake(&acceptor, client(server.ca(), &["h2"]), name).await;
        assert!(client.is_ok(), "{name}: {client:?}");
    }
}

#[tokio::test]
async fn who_asks_for_a_name_gets_a_certificate_without_addresses() {
    let server = Server::new();
    let (acceptor, _) = server.acceptor(&["mcp.example"]);
    for (asked, has_addresses) in
        [("localhost", false), ("mcp.example", false), ("127.0.0.1", true)]
    {
        let (_, client) = handshake(&acceptor, client(server.ca(), &[]), asked).await;
        let answered = client.unwrap();
        let leaf = answered.get_ref().1.peer_certificates().unwrap()[0].clone();
        let facts = CertificateFacts::read(&leaf, Path::new("served")).unwrap();
        assert_eq!(facts.names.iter().any(|name| name == "127.0.0.1"), has_addresses, "{asked}");
        assert!(facts.names.iter().any(|name| name == "localhost"));
    }
}

#[tokio::test]
async fn a_server_that_runs_for_long_renews_its_certificate() {
    let server = Server::new();
    let (acceptor, _) = server.acceptor(&[]);
    // Nobody waits for a reload that reads the files at this moment.
    let reload = acceptor.asked.lock();
    acceptor.renew(server.now + 370 * DAY).unwrap();
    drop(reload);
    for (days, renewed) in [(0, false), (300, false), (370, true)] {
        acceptor.renew(server.now + days * DAY).unwrap();
        let (_, answered) = handshake(&acceptor, client(server.ca(), &[]), "localhost").await;
        // Made in more than a year, the new one is not valid yet for a client of today.
        assert_eq!(answered.is_err(), renewed, "{days}: {answered:?}");
    }
}
