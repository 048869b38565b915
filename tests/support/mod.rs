//! What the tests stand on: a server on a free port with a CA of its own, clients that trust it,
//! and MCP servers that do as they are told. Nothing here waits for readiness: a bound server has
//! its socket.
#![allow(dead_code, reason = "every test file uses a part of it")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where it fails"
)]

mod behind;
mod client;
mod edge;
mod fixture;
pub(crate) mod frames;
mod raw;
mod scripted;
mod scripted_sse;
mod terminal;

use std::collections::BTreeSet;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mcp_edge::{
    Access, Behind, ChildCommand, Config, Control, Limits, Report, Reporter, Secret, Server, Times,
    TlsSource, Upstream, UpstreamKind,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

#[allow(unused_imports, reason = "every test file uses a part of it")]
pub(crate) use self::behind::{Taken, Upside, upstream_limits};
#[allow(unused_imports, reason = "every test file uses a part of it")]
pub(crate) use self::client::{
    Answer, Client, Conn, Event, Session, Stream, VERSIONS, call, hello, note,
};
#[allow(unused_imports, reason = "every test file uses a part of it")]
pub(crate) use self::edge::{Edge, piped};
#[allow(unused_imports, reason = "every test file uses a part of it")]
pub(crate) use self::fixture::{Fixture, FixtureHandle, SCRIPT, TOOLS_SCRIPT};
#[allow(unused_imports, reason = "every test file uses a part of it")]
pub(crate) use self::raw::{RawAnswer, RawClient};
#[allow(unused_imports, reason = "every test file uses a part of it")]
pub(crate) use self::scripted::{Act, Scripted, Seen};
#[allow(unused_imports, reason = "every test file uses a part of it")]
pub(crate) use self::scripted_sse::{Deed, ScriptedSse};
#[allow(unused_imports, reason = "every test file uses a part of it")]
pub(crate) use self::terminal::terminal;

/// The binary under test; as a child it is the diagnostics server on stdin and stdout.
pub(crate) const EDGE: &str = env!("CARGO_BIN_EXE_mcp-edge");
/// The tokens of two principals.
pub(crate) const TOKEN: &str = "first-token-of-the-tests";
pub(crate) const OTHER_TOKEN: &str = "other-token-of-the-tests";

/// A test ends by itself, whatever hangs. Boxed: test bodies are large.
pub(crate) fn bounded<F: Future>(what: F) -> Pin<Box<impl Future<Output = F::Output>>> {
    within(Duration::from_secs(30), what)
}

pub(crate) fn within<F: Future>(
    time: Duration,
    what: F,
) -> Pin<Box<impl Future<Output = F::Output>>> {
    let what = Box::pin(what);
    Box::pin(async move { timeout(time, what).await.expect("the test took too long") })
}

/// Waits for something that has no event to wait for; the test's own bound ends it.
pub(crate) async fn eventually(what: impl Fn() -> bool) {
    while !what() {
        sleep(Duration::from_millis(5)).await;
    }
}

/// Limits that no test runs into by accident.
pub(crate) fn config() -> Config {
    let limits = Limits {
        requests_per_second: 100_000,
        burst: 100_000,
        connections_per_ip: 2000,
        streams_per_ip: 2000,
        max_connections: 5000,
        max_sessions: 5000,
        sessions_per_ip: 5000,
        ..Limits::default()
    };
    let times = Times { shutdown: Duration::from_secs(6), ..Times::default() };
    Config {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        access: Access::Tokens(vec![Secret::new(TOKEN), Secret::new(OTHER_TOKEN)]),
        limits: limits.check().unwrap(),
        times: times.check().unwrap(),
        ..Config::default()
    }
}

/// A server that runs until it is stopped or dropped.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    pub(crate) redirect: Option<SocketAddr>,
    pub(crate) ca: PathBuf,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) control: Control,
    /// What it was started with.
    pub(crate) config: Config,
    reporter: Reporter,
    stop: Option<oneshot::Sender<()>>,
    running: JoinSet<bool>,
    _certs: tempfile::TempDir,
}

impl TestServer {
    pub(crate) async fn start(config: Config, behind: Behind) -> Self {
        let certs = tempfile::tempdir().unwrap();
        let tls = TlsSource::SelfSigned { dir: certs.path().to_owned(), names: Vec::new() };
        let config = Config { tls, ..config };
        let server = Box::pin(Server::bind(config.clone(), behind)).await.unwrap();
        let address = server.local_addr();
        let ca = server.ca().unwrap();
        let redirect = server.redirect_addr();
        let control = server.control();
        let reporter = server.reporter();
        let (stop, stopped) = oneshot::channel();
        let mut running = JoinSet::new();
        running.spawn(server.run(async { drop(stopped.await) }));
        let tls = trusting(&ca);
        let stop = Some(stop);
        Self { address, redirect, ca, tls, control, config, reporter, stop, running, _certs: certs }
    }

    /// This server as what stands behind another.
    pub(crate) fn as_upstream(&self, kind: UpstreamKind) -> Behind {
        let path = if kind == UpstreamKind::Sse { "/sse" } else { "/mcp" };
        let url = format!("https://localhost:{}{path}", self.address.port()).parse().unwrap();
        let ca = Some(self.ca.clone());
        let token = Some(Secret::new(TOKEN));
        Behind::upstream(Upstream { kind, ca, token, ..Upstream::new(url) })
    }

    /// A server in front of the fixture, and the fixture's other end.
    pub(crate) async fn fixture() -> (Self, FixtureHandle) {
        let (fixture, told) = Fixture::new();
        (Self::start(config(), Behind::handler(fixture)).await, told)
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.address, Arc::clone(&self.tls))
    }

    /// What it holds, and what happened at its limits.
    pub(crate) fn report(&self) -> Report {
        self.reporter.now()
    }

    pub(crate) async fn raw(&self) -> RawClient {
        RawClient::connect(self.address, &self.tls, &[]).await
    }

    pub(crate) async fn raw_h2(&self) -> RawClient {
        RawClient::connect(self.address, &self.tls, &["h2"]).await
    }

    /// Stops it. Did everything end within the grace?
    pub(crate) async fn stop(mut self) -> bool {
        self.begin_stop();
        self.running.join_next().await.unwrap().unwrap()
    }

    pub(crate) fn begin_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // Whoever has ended already needs no word.
            let _told = stop.send(());
        }
    }
}

/// A TLS client that trusts this CA and nothing else.
pub(crate) fn trusting(ca: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// A CA of this name.
pub(crate) fn ca_named(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// 127.0.0.`last`: another client to every limit.
pub(crate) fn loopback(last: u8) -> IpAddr {
    IpAddr::from([127, 0, 0, last])
}

fn is_keeper(pid: i32) -> bool {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    words.split(|byte| *byte == 0).nth(1) == Some(b"__keep")
}

/// Names the processes of one test, and their children: a variable in their environment.
#[derive(Clone)]
pub(crate) struct Mark(String);

impl Mark {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(format!("{}-{number}", std::process::id()))
    }

    /// As `--env` takes it.
    pub(crate) fn text(&self) -> String {
        format!("EDGE_TEST_MARK={}", self.0)
    }

    fn variable(&self) -> (String, Secret) {
        ("EDGE_TEST_MARK".to_owned(), Secret::new(&self.0))
    }

    /// The processes that live, zombies aside.
    pub(crate) fn alive(&self) -> BTreeSet<i32> {
        let mark = format!("{}\0", self.text());
        let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            // The environment of a zombie is empty.
            let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
            let marked = environment.windows(mark.len()).any(|part| part == mark.as_bytes());
            marked.then_some(pid)
        });
        processes.collect()
    }

    /// Those of them that are no keepers.
    pub(crate) fn programs(&self) -> BTreeSet<i32> {
        self.alive().into_iter().filter(|pid| !is_keeper(*pid)).collect()
    }

    /// Those of them that stand between the edge and each program.
    pub(crate) fn keepers(&self) -> Vec<i32> {
        self.alive().into_iter().filter(|pid| is_keeper(*pid)).collect()
    }

    pub(crate) async fn gone(&self) {
        eventually(|| self.alive().is_empty()).await;
    }

    /// The diagnostics server as a child.
    pub(crate) fn diagnostics(&self) -> Behind {
        let transport = ("MCP_TRANSPORT".to_owned(), Secret::new("stdio"));
        Behind::child(ChildCommand {
            program: EDGE.to_owned(),
            env: vec![self.variable(), transport],
            shim: Some(EDGE.into()),
            ..ChildCommand::default()
        })
    }

    /// A shell script as a child.
    pub(crate) fn sh(&self, script: &str) -> Behind {
        self.sh_in(script, Path::new("/nowhere"))
    }

    /// A shell script as a child that finds this directory in `$DIR`.
    pub(crate) fn sh_in(&self, script: &str, dir: &Path) -> Behind {
        let dir = ("DIR".to_owned(), Secret::new(dir.to_str().unwrap()));
        Behind::child(ChildCommand {
            program: "sh".to_owned(),
            args: vec!["-c".to_owned(), script.to_owned()],
            env: vec![self.variable(), dir],
            shim: Some(EDGE.into()),
            ..ChildCommand::default()
        })
    }
}

/// Does this process ignore the signal, as one does that a shell began in the background? What it
/// starts ignores it too.
pub(crate) fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() >> (signal - 1) & 1 == 1
}

/// Is the process there, and no zombie?
pub(crate) fn alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.contains(") Z ") && !stat.contains(") X "))
}
