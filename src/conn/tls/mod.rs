//! TLS: certificates at the start, then one handshake for each connection.
//!
//! The floor's one verb is [`TlsAcceptor::accept`]. It waits for the peer and for nothing else,
//! and the caller says how long.

mod certificate;
mod doubts;
mod error;
mod files;
#[cfg(fuzzing)]
pub(super) mod fuzzing;
mod hello;
mod local_ca;
mod pem;
mod pinned;
mod provider;
mod self_signed;
mod served;
mod sni;
mod stream;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, RwLock};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::NoServerSessionStorage;
use rustls::{ProtocolVersion, ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::sleep;
use tokio_rustls::StartHandshake;

use self::provider::provider;
use self::served::Served;
use self::sni::ByName;
use self::stream::{Records, Secured};
use crate::caller::{Alpn, TlsFacts};
use crate::config::{CertFiles, TlsRules, TlsSource, TlsVersion};

pub use self::error::TlsError;
pub(crate) use self::error::{EndedBy, HandshakeError};
pub(crate) use self::pinned::pinned_client;

const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Between two looks at a self-signed certificate's age.
const LOOK_EVERY: Duration = Duration::from_hours(12);

/// Makes TLS streams of connections.
#[derive(Debug)]
pub(crate) struct TlsAcceptor {
    served: RwLock<ByProtocol>,
    /// Locked while files are read, and perhaps written: two at once would be in each other's way.
    asked: Mutex<CertSettings>,
}

/// Where certificates come from, and under which rules they are served.
#[derive(Debug)]
struct CertSettings {
    source: TlsSource,
    rules: TlsRules,
}

/// What is served now, for each protocol inside.
#[derive(Clone, Debug)]
struct ByProtocol {
    http1: Arc<ServerConfig>,
    h2: Arc<ServerConfig>,
    names: Arc<ByName>,
    refuse_unknown_names: bool,
}

/// What clients have to trust, and by which names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trust {
    /// Absolute path of `ca.pem`, when the certificate is self-signed.
    pub(crate) ca: Option<PathBuf>,
    /// Every DNS name and address of all certificates, lower case; wildcards as `*.example.com`.
    pub(crate) names: Vec<String>,
    /// Where certificates and keys were read.
    pub(crate) files: Vec<PathBuf>,
    /// When the first of the certificates expires.
    pub(crate) not_after: SystemTime,
}

impl TlsAcceptor {
    /// Reads the certificates, or makes them.
    pub(crate) fn new(
        source: &TlsSource,
        rules: TlsRules,
        now: SystemTime,
    ) -> Result<(Self, Trust), TlsError> {
        let (served, trust) = ByProtocol::load(source, rules, now)?;
        let asked = Mutex::new(CertSettings { source: source.clone(), rules });
        let acceptor = Self { served: RwLock::new(served), asked };
        Ok((acceptor, trust))
    }

    /// Renews a self-signed certificate before it expires, for as long as the server runs.
    pub(crate) async fn keep_fresh(&self) {
        loop {
            sleep(LOOK_EVERY).await;
            if let Err(error) = self.renew(SystemTime::now()) {
                tracing::error!(%error, "could not renew the certificate; trying again later");
            }
        }
    }

    /// Renews a self-signed certificate if that is due, and nobody reads certificates at this moment:
    /// that renews it as well.
    fn renew(&self, now: SystemTime) -> Result<(), TlsError> {
        let Some(asked) = self.asked.try_lock() else { return Ok(()) };
        if matches!(asked.source, TlsSource::SelfSigned { .. }) {
            *self.served.write() = ByProtocol::load(&asked.source, asked.rules, now)?.0;
        }
        Ok(())
    }

    /// Reads every certificate and key again, perhaps of another source and under other rules; those
    /// of its own making after they were renewed where that is due. All or nothing: after an error
    /// what was served is served on. `before` is called when all of it can be used, and not yet
    /// served.
    ///
    /// New connections get them. Those that are open, and their handshakes, go on with what they
    /// have; older tickets are not taken, so that clients that come back see the new certificate.
    pub(crate) fn replace(
        &self,
        source: &TlsSource,
        rules: TlsRules,
        now: SystemTime,
        before: impl FnOnce(&Trust),
    ) -> Result<Trust, TlsError> {
        let mut asked = self.asked.lock();
        let (fresh, trust) = ByProtocol::load(source, rules, now)?;
        before(&trust);
        *self.served.write() = fresh;
        *asked = CertSettings { source: source.clone(), rules };
        Ok(trust)
    }

    /// The handshake. The caller limits its time.
    ///
    /// Of h2 and http/1.1 the client gets the one that it names first. Node's fetch names http/1.1
    /// first although it could speak h2, and means it.
    pub(crate) async fn accept<I>(&self, io: I) -> Result<(Secured<I>, TlsFacts), HandshakeError>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let mut io = Records::new(io);
        let accepted = hello::read(&mut io).await?;
        let first = accepted
            .client_hello()
            .alpn()
            .and_then(|mut offered| offered.find(|name| [H2, HTTP1].contains(name)));
        let served = self.served.read().clone();
        let name = accepted.client_hello().server_name().map(str::to_owned);
        if let Some(name) = name.filter(|name| !served.names.knows(name))
            && served.refuse_unknown_names
        {
            return Err(hello::refuse_name(&mut io, name).await);
        }
        let config = if first == Some(H2) { served.h2 } else { served.http1 };
        let start = StartHandshake::from_parts(accepted, io);
        let stream = start.into_stream(config).await;
        let stream = stream.map_err(HandshakeError::after_hello)?;
        let facts = TlsFacts::of(stream.get_ref().1);
        Ok((Secured::new(stream), facts))
    }
}

impl ByProtocol {
    fn load(
        source: &TlsSource,
        rules: TlsRules,
        now: SystemTime,
    ) -> Result<(Self, Trust), TlsError> {
        let provider = provider();
        let (ca, files) = match source {
            TlsSource::Files(files) => (None, files.clone()),
            TlsSource::SelfSigned { dir, names } => {
                let (ca, files) = self_signed::prepare(dir, names, now, &provider)?;
                (Some(ca), files.to_vec())
            }
            TlsSource::None => (None, Vec::new()),
        };
        let load = |files: &CertFiles| Served::load(files, &provider, now);
        let certificates = files.iter().map(load).collect::<Result<Vec<_>, _>>()?;
        let Some(not_after) = certificates.iter().map(|it| it.facts.not_after).min() else {
            return Err(TlsError::Nothing);
        };
        for doubt in certificates.iter().flat_map(|it| &it.doubts) {
            tracing::warn!("{doubt}");
        }
        let mut names = Vec::new();
        for name in certificates.iter().flat_map(|it| &it.facts.names) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        let by_name = Arc::new(match source {
            // Whoever asks for a name gets the certificate without addresses.
            TlsSource::SelfSigned { .. } => ByName::new(certificates.iter().rev(), &certificates),
            TlsSource::Files(_) | TlsSource::None => ByName::new(&certificates, &certificates),
        });
        let mut http1 = config(provider, rules, Arc::clone(&by_name))?;
        // With the same ticketer: a client may resume with another protocol than it had.
        let mut h2 = http1.clone();
        http1.alpn_protocols = vec![HTTP1.to_vec()];
        h2.alpn_protocols = vec![H2.to_vec()];
        let mut read = Vec::new();
        for file in files.into_iter().flat_map(|it| [it.cert, it.key]) {
            if !read.contains(&file) {
                read.push(file);
            }
        }
        let refuse_unknown_names = rules.refuse_unknown_names;
        let (http1, h2) = (Arc::new(http1), Arc::new(h2));
        let served = Self { http1, h2, names: by_name, refuse_unknown_names };
        Ok((served, Trust { ca, names, files: read, not_after }))
    }
}

impl TlsFacts {
    fn of(connection: &ServerConnection) -> Self {
        let h2 = connection.alpn_protocol() == Some(H2);
        let tls13 = connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        let key_exchange = connection.negotiated_key_exchange_group();
        let cipher = connection.negotiated_cipher_suite();
        Self {
            alpn: if h2 { Alpn::H2 } else { Alpn::Http1 },
            version: if tls13 { "TLSv1.3" } else { "TLSv1.2" },
            key_exchange: key_exchange
                .map_or_else(|| "none".to_owned(), |group| format!("{:?}", group.name())),
            // rustls says TLS13_AES_…, everybody else TLS_AES_….
            cipher: cipher.map_or_else(String::new, |suite| {
                format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1)
            }),
            server_name: connection.server_name().map(str::to_ascii_lowercase),
        }
    }
}

fn config(
    provider: Arc<CryptoProvider>,
    rules: TlsRules,
    names: Arc<ByName>,
) -> Result<ServerConfig, TlsError> {
    let versions: &[_] = match rules.oldest {
        TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(names);
    config.ticketer = Ticketer::new()?;
    // Tickets hold the whole state; a table of sessions would only be memory to fill.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // Early data can be replayed, and calls of tools must not be.
    config.max_early_data_size = 0;
    Ok(config)
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests {
    use std::io::{self, ErrorKind};
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use rustls::version::{TLS12, TLS13};
    use rustls::{ClientConfig, HandshakeKind};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};

    use super::testing::{Pki, acceptor, client, client_of, edge, handshake, hello, ruled};
    use super::*;

    async fn facts(alpn: &[&str]) -> Result<TlsFacts, HandshakeError> {
        let (pki, acceptor) = edge();
        let (server, _client) = handshake(&acceptor, client(pki.root(), alpn), "a.example").await;
        server.map(|(_, facts)| facts)
    }

    /// A first byte: the tickets of TLS 1.3 come with it.
    async fn say(from: &mut (impl AsyncWrite + Unpin), to: &mut (impl AsyncRead + Unpin)) {
        from.write_all(b"x").await.unwrap();
        from.flush().await.unwrap();
        assert_eq!(to.read_u8().await.unwrap(), b'x');
    }

    #[tokio::test]
    async fn the_clients_order_of_protocols_decides() {
        for (offered, agreed) in [
            (["h2", "http/1.1"].as_slice(), Alpn::H2),
            (&["http/1.1", "h2"], Alpn::Http1),
            (&["spdy/3", "h2", "http/1.1"], Alpn::H2),
            (&["h2"], Alpn::H2),
            (&["http/1.1"], Alpn::Http1),
            (&[], Alpn::Http1),
        ] {
            assert_eq!(facts(offered).await.unwrap().alpn, agreed, "{offered:?}");
        }
    }

    #[tokio::test]
    async fn a_client_of_other_protocols_is_told_so() {
        let (pki, acceptor) = edge();
        // RFC 7301 section 3.2: alert 120.
        let no_protocol = rustls::AlertDescription::NoApplicationProtocol;
        assert_eq!(u8::from(no_protocol), 120);
        for version in [&TLS12, &TLS13] {
            let mut client = client_of(pki.root(), &["h2"], &[version]);
            // In a session that is resumed, too.
            let (server, first) = handshake(&acceptor, client.clone(), "a.example").await;
            let mut server = server.unwrap().0;
            let mut first = first.unwrap();
            say(&mut server, &mut first).await;
            for offered in [["spdy/3", "h3"], ["http/1.0", "h2c"], ["http/1.1 ", "H2"]] {
                client.alpn_protocols = offered.map(|name| name.as_bytes().to_vec()).to_vec();
                let (server, client) = handshake(&acceptor, client.clone(), "a.example").await;
                assert_eq!(
                    server.unwrap_err().to_string(),
                    "the client offers neither HTTP/1.1 nor HTTP/2"
                );
                let alert = client.unwrap_err().downcast::<rustls::Error>().unwrap();
                assert_eq!(alert, rustls::Error::AlertReceived(no_protocol), "{offered:?}");
            }
        }
    }

    #[tokio::test]
    async fn the_facts_are_those_of_the_connection() {
        let facts = facts(&["h2"]).await.unwrap();
        assert_eq!(
            facts,
            TlsFacts {
                alpn: Alpn::H2,
                version: "TLSv1.3",
                key_exchange: "X25519MLKEM768".to_owned(),
                cipher: "TLS_AES_256_GCM_SHA384".to_owned(),
                server_name: Some("a.example".to_owned()),
            }
        );
    }

    #[tokio::test]
    async fn both_versions_work_and_sessions_resume() {
        let (pki, acceptor) = edge();
        for (version, text) in [(&TLS12, "TLSv1.2"), (&TLS13, "TLSv1.3")] {
            let client = Arc::new(client_of(pki.root(), &["h2", "http/1.1"], &[version]));
            for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
                let (server, client) = handshake(&acceptor, Arc::clone(&client), "a.example").await;
                let ((mut server, facts), mut client) = (server.unwrap(), client.unwrap());
                assert_eq!(facts.version, text);
                assert_eq!(server.connection().handshake_kind(), Some(kind), "{text}");
                say(&mut server, &mut client).await;
            }
        }
    }

    /// One handshake that is used: was it a new one, and which certificate does the client see?
    async fn visit(acceptor: &TlsAcceptor, client: &Arc<ClientConfig>) -> (HandshakeKind, Vec<u8>) {
        let (server, client) = handshake(acceptor, Arc::clone(client), "a.example").await;
        let mut server = server.unwrap().0;
        let mut client = client.unwrap();
        say(&mut server, &mut client).await;
        let connection = client.get_ref().1;
        let shown = connection.peer_certificates().unwrap()[0].to_vec();
        (connection.handshake_kind().unwrap(), shown)
    }

    #[tokio::test]
    async fn certificates_are_read_again_all_or_nothing() {
        let pki = Pki::new();
        let (first, second) = (pki.issue("a", &["a.example"]), pki.issue("b", &["b.example"]));
        let files = [first.clone(), second.clone()];
        let acceptor = acceptor(&files);
        let source = TlsSource::Files(files.into());
        let read_again =
            || acceptor.replace(&source, TlsRules::default(), SystemTime::now(), |_trust| {});
        let client = Arc::new(client(pki.root(), &[]));
        let (kind, old) = visit(&acceptor, &client).await;
        assert_eq!(kind, HandshakeKind::Full);
        assert_eq!(visit(&acceptor, &client).await, (HandshakeKind::Resumed, old.clone()));

        // The first pair is new and good, the second is broken: the first is not taken either.
        pki.issue("a", &["a.example"]);
        let key = std::fs::read_to_string(&second.key).unwrap();
        pki.write("b-key.pem", "");
        let error = read_again().unwrap_err();
        assert!(error.to_string().contains(&*second.key.to_string_lossy()), "{error}");
        assert_eq!(visit(&acceptor, &client).await, (HandshakeKind::Resumed, old.clone()));

        pki.write("b-key.pem", &key);
        let trust = read_again().unwrap();
        assert_eq!(trust.files, [first.cert, first.key, second.cert, second.key]);
        let (kind, new) = visit(&acceptor, &client).await;
        assert_eq!(kind, HandshakeKind::Full, "a ticket of before shows no new certificate");
        assert_ne!(new, old);
        assert_eq!(visit(&acceptor, &client).await, (HandshakeKind::Resumed, new));
    }

    #[tokio::test]
    async fn a_client_that_does_not_trust_us_says_so() {
        let (_, acceptor) = edge();
        let other = Pki::new();
        let (server, _) = handshake(&acceptor, client(other.root(), &[]), "a.example").await;
        let text = server.unwrap_err().to_string();
        assert!(text.starts_with("the client does not trust our certificate: "), "{text}");
    }

    /// A connection that is broken.
    #[derive(Debug)]
    struct Broken(ErrorKind);

    impl AsyncRead for Broken {
        fn poll_read(
            self: Pin<&mut Self>,
            _context: &mut Context<'_>,
            _buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Ready(Err(self.0.into()))
        }
    }

    #[tokio::test]
    async fn a_client_that_leaves_with_our_certificate_is_told_from_a_port_scan() {
        let (pki, acceptor) = edge();
        let hello = hello(&pki);
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        theirs.write_all(&hello).await.unwrap();
        theirs.shutdown().await.unwrap();
        assert!(matches!(acceptor.accept(ours).await, Err(HandshakeError::Left)));
        // Node.js leaves unread what we say behind the certificate: then the system resets. Only at
        // that point is it the certificate.
        for kind in [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe] {
            let peer = hello.as_slice().chain(Broken(kind));
            let ended = acceptor.accept(tokio::io::join(peer, tokio::io::sink())).await;
            let error = ended.unwrap_err();
            assert!(matches!(error, HandshakeError::Left), "{error:?}");
            let text = error.to_string();
            assert!(text.contains("does not trust the certificate"), "{text}");
            assert!(text.contains("NODE_EXTRA_CA_CERTS"), "{text}");
        }
        let early = tokio::io::join(Broken(ErrorKind::ConnectionReset), tokio::io::sink());
        assert!(matches!(acceptor.accept(early).await, Err(HandshakeError::Io(_))));
    }

    #[tokio::test]
    async fn a_name_that_is_nobodys_gets_the_first_certificate_or_is_refused() {
        let pki = Pki::new();
        let files = [pki.issue("a", &["a.example"])];
        for refuse_unknown_names in [false, true] {
            let acceptor = ruled(&files, TlsRules { refuse_unknown_names, ..TlsRules::default() });
            let known = handshake(&acceptor, client(pki.root(), &[]), "a.example").await;
            assert!(known.0.is_ok() && known.1.is_ok());
            let (server, client) = handshake(&acceptor, client(pki.root(), &[]), "b.example").await;
            let alert = client.unwrap_err().downcast::<rustls::Error>().unwrap();
            let refused = rustls::AlertDescription::UnrecognisedName;
            if refuse_unknown_names {
                assert_eq!(alert, rustls::Error::AlertReceived(refused));
                let told = server.unwrap_err().to_string();
                assert!(told.contains("`b.example`"), "{told}");
            } else {
                assert!(matches!(alert, rustls::Error::InvalidCertificate(_)), "{alert}");
            }
        }
    }

    #[tokio::test]
    async fn the_oldest_version_is_the_operators_choice() {
        let pki = Pki::new();
        let files = [pki.issue("a", &["a.example"])];
        for (oldest, served) in [(TlsVersion::Tls12, true), (TlsVersion::Tls13, false)] {
            let acceptor = ruled(&files, TlsRules { oldest, ..TlsRules::default() });
            let old = client_of(pki.root(), &[], &[&TLS12]);
            assert_eq!(handshake(&acceptor, old, "a.example").await.0.is_ok(), served);
            let new = client_of(pki.root(), &[], &[&TLS13]);
            assert!(handshake(&acceptor, new, "a.example").await.0.is_ok());
        }
    }

    #[tokio::test]
    async fn no_early_data_is_taken() {
        let (pki, acceptor) = edge();
        let mut config = client_of(pki.root(), &[], &[&TLS13]);
        config.enable_early_data = true;
        let client = Arc::new(config);
        for _ in 0..2 {
            let (server, client) = handshake(&acceptor, Arc::clone(&client), "a.example").await;
            let mut server = server.unwrap().0;
            let mut client = client.unwrap();
            assert!(!client.get_ref().1.is_early_data_accepted());
            say(&mut server, &mut client).await;
        }
    }

    #[test]
    fn trust_holds_every_name_and_the_first_expiry() {
        let pki = Pki::new();
        let now = SystemTime::now();
        let files = [
            pki.issue("a", &["A.example", "*.A.example", "192.0.2.1", "2001:db8::1"]),
            pki.issue_from("b", &["b.example", "a.example"], now - testing::DAY / 2),
        ];
        let (_, trust) =
            TlsAcceptor::new(&TlsSource::Files(files.into()), TlsRules::default(), now).unwrap();
        let names = ["a.example", "*.a.example", "192.0.2.1", "2001:db8::1", "b.example"];
        assert_eq!(trust.names, names);
        assert_eq!(trust.ca, None);
        let left = trust.not_after.duration_since(now).unwrap();
        assert!(left <= testing::DAY && left > testing::DAY / 2, "{left:?}");
    }

    #[test]
    fn nothing_to_serve_is_an_error() {
        for source in [TlsSource::Files(Vec::new()), TlsSource::None] {
            let error =
                TlsAcceptor::new(&source, TlsRules::default(), SystemTime::now()).unwrap_err();
            assert!(matches!(error, TlsError::Nothing));
        }
    }
}
