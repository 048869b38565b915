//! Promise: a running server takes another configuration whole or not at all. What begins after it
//! is held to it, what is under way goes on, and no request is lost.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails, helpers of it too")]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use http_body_util::Full;
use mcp_edge::{
    Access, Behind, CertFiles, ChildCommand, Config, Limits, ReloadError, Secret, Server, Times,
    TlsRules, TlsSource, UpstreamKind,
};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::AlertDescription;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use support::{
    Answer, Client, EDGE, Fixture, Mark, OTHER_TOKEN, TOKEN, TestServer, bounded, ca_named, call,
    config, eventually, hello, loopback, trusting,
};
use tokio::io::AsyncReadExt;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;

const NEW_TOKEN: &str = "newer-token-of-the-tests";

fn tokens(tokens: &[&str]) -> Access {
    Access::Tokens(tokens.iter().map(|token| Secret::new(*token)).collect())
}

async fn fixture() -> TestServer {
    TestServer::start(config(), Behind::handler(Fixture::new().0)).await
}

impl TestServer {
    /// Reloads what it was started with, changed by this.
    fn reload(&self, change: impl FnOnce(&mut Config)) -> Result<(), ReloadError> {
        let mut config = self.config.clone();
        change(&mut config);
        self.control.reload(config).map(drop)
    }

    fn limit(&self, change: impl FnOnce(&mut Limits)) {
        let mut limits = *self.config.limits;
        change(&mut limits);
        self.reload(|config| config.limits = limits.check().unwrap()).unwrap();
    }

    fn time(&self, change: impl FnOnce(&mut Times)) {
        let mut times = *self.config.times;
        change(&mut times);
        self.reload(|config| config.times = times.check().unwrap()).unwrap();
    }
}

async fn echo(client: &Client) -> Answer {
    echo_of(client, json!({})).await
}

async fn echo_of(client: &Client, params: Value) -> Answer {
    client.send(client.post("/mcp", &call(1, "f/echo", params))).await
}

/// From a page of this origin.
async fn from_page(client: &Client, origin: &str) -> Answer {
    let mut request = client.post("/mcp", &call(1, "f/echo", json!({})));
    request.headers_mut().insert("origin", origin.parse().unwrap());
    client.send(request).await
}

/// To this host.
async fn to_host(client: &Client, host: &str) -> u16 {
    let mut request = client.post("/mcp", &call(1, "tools/list", json!({})));
    request.headers_mut().insert("host", host.parse().unwrap());
    client.send(request).await.status.as_u16()
}

/// Calls without end: over one connection, or each over one of its own; by HTTP/1.1 and HTTP/2.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU32>,
    callers: JoinSet<()>,
}

impl Load {
    fn of(client: &Client) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let mut callers = JoinSet::new();
        for (client, kept) in [
            (client.clone(), true),
            (client.clone().h2(), true),
            (client.clone(), false),
            (client.clone().h2(), false),
        ] {
            callers.spawn(Self::call(client, kept, Arc::clone(&stop), Arc::clone(&answered)));
        }
        Self { stop, answered, callers }
    }

    async fn call(client: Client, kept: bool, stop: Arc<AtomicBool>, answered: Arc<AtomicU32>) {
        let mut conn = client.connect().await;
        while !stop.load(Ordering::Relaxed) {
            if !kept {
                conn = client.connect().await;
            }
            let answer = conn.send(client.post("/mcp", &call(1, "f/echo", json!({})))).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            answered.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until some more were answered.
    async fn goes_on(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        eventually(|| self.answered.load(Ordering::Relaxed) > before + 20).await;
    }

    /// Stops. Every call was answered.
    async fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.callers.join_next().await {
            ended.unwrap();
        }
    }
}

const PAGES: [&str; 2] = ["https://one.example", "https://two.example"];

/// Of two configurations that have nothing in common but one token, one or the other.
fn one_of_two(server: &TestServer, odd: bool) -> Config {
    let limits = Limits {
        requests_per_second: if odd { 100_000 } else { 200_000 },
        max_body_bytes: if odd { 8192 } else { 2048 },
        ..*server.config.limits
    };
    let call = Duration::from_mins(if odd { 5 } else { 1 });
    let times = Times { call, ..*server.config.times };
    Config {
        access: tokens(&[TOKEN, if odd { OTHER_TOKEN } else { NEW_TOKEN }]),
        allow_origins: vec![(if odd { PAGES[1] } else { PAGES[0] }).parse().unwrap()],
        allow_hosts: vec![format!("host{}.example", u8::from(odd)).parse().unwrap()],
        limits: limits.check().unwrap(),
        times: times.check().unwrap(),
        ..server.config.clone()
    }
}

/// Checks that new requests are held to this one of the two, and to nothing of the other.
async fn check_held_to_one(server: &TestServer, odd: bool) {
    let client = server.client();
    for (token, good) in [(OTHER_TOKEN, odd), (NEW_TOKEN, !odd)] {
        let status = echo(&client.clone().token(token)).await.status;
        assert_eq!(status, if good { 200 } else { 401 });
    }
    for (at, page) in PAGES.into_iter().enumerate() {
        let good = at == usize::from(odd);
        let answer = from_page(&client, page).await;
        assert_eq!(answer.status, if good { 200 } else { 403 });
        assert_eq!(answer.headers.contains_key("access-control-allow-origin"), good);
        let status = to_host(&client, &format!("host{at}.example")).await;
        assert_eq!(status, if good { 200 } else { 403 });
    }
    let large = json!({ "text": "x".repeat(4096) });
    assert_eq!(echo_of(&client, large).await.status, if odd { 200 } else { 413 });
}

#[tokio::test]
async fn everything_changes_under_load_and_no_request_is_lost() {
    bounded(async {
        let server = fixture().await;
        let client = server.client();
        let session = client.initialize("2025-11-25").await;
        let mut standalone = session.listen(None).await.events();
        let others = server.client().token(OTHER_TOKEN).initialize("2025-06-18").await;
        let mut others_stream = others.listen(None).await.events();
        let load = Load::of(&client);
        for odd in [false, true, false, true] {
            load.goes_on().await;
            let (control, config) = (server.control.clone(), one_of_two(&server, odd));
            let loaded = tokio::task::spawn_blocking(move || control.reload(config));
            assert!(loaded.await.unwrap().unwrap().is_some());
            check_held_to_one(&server, odd).await;
        }
        load.finish().await;
        // What was open all the time lives on, also of a token that was gone for a while.
        for session in [&session, &others] {
            assert_eq!(session.call(2, "f/echo", json!({})).await["id"], 2);
        }
        server.reload(|config| config.access = tokens(&[TOKEN])).unwrap();
        assert_eq!(others.post(&call(3, "f/echo", json!({}))).await.status, 401);
        for stream in [&mut standalone, &mut others_stream] {
            assert!(
                timeout(Duration::from_millis(50), stream.message()).await.is_err(),
                "it ended"
            );
        }
        assert_eq!(server.report().outcomes["panics"], 0);
    })
    .await;
}

/// What changes a configuration.
type Change = Box<dyn FnOnce(&mut Config)>;

#[tokio::test]
async fn a_reload_that_is_refused_changes_nothing() {
    bounded(async {
        let server = fixture().await;
        let other_dir = TlsSource::SelfSigned { dir: "/nowhere".into(), names: Vec::new() };
        let pair = CertFiles { cert: "/nowhere".into(), key: "/nowhere".into() };
        let refused: [(&str, Change); 7] = [
            ("`listen`", Box::new(|config| config.listen.set_port(1))),
            ("`path`", Box::new(|config| config.path = "/other".parse().unwrap())),
            ("`tls`", Box::new(|config| config.tls = TlsSource::None)),
            ("`tls`", Box::new(|config| config.tls = other_dir)),
            ("`tls`", Box::new(|config| config.tls = TlsSource::Files(vec![pair]))),
            ("`redirect_http`", Box::new(|config| config.redirect_http = Some(config.listen))),
            (
                "null",
                Box::new(|config| {
                    config.access = Access::Anonymous;
                    config.allow_origins = vec!["null".parse().unwrap()];
                }),
            ),
        ];
        for (named, change) in refused {
            let error = server
                .reload(|config| {
                    config.access = tokens(&[NEW_TOKEN]);
                    config.allow_hosts = vec!["new.example".parse().unwrap()];
                    let limits = Limits { max_body_bytes: 1024, ..*config.limits };
                    config.limits = limits.check().unwrap();
                    change(config);
                })
                .unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
            let large = json!({ "text": "x".repeat(2048) });
            assert_eq!(echo_of(&server.client(), large).await.status, 200, "{named}");
            assert_eq!(echo(&server.client().token(NEW_TOKEN)).await.status, 401, "{named}");
            assert_eq!(to_host(&server.client(), "new.example").await, 403, "{named}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_token_that_the_child_has_is_refused() {
    bounded(async {
        let env = vec![("API_KEY".to_owned(), Secret::new(NEW_TOKEN))];
        let command = ChildCommand { program: EDGE.into(), env, ..ChildCommand::default() };
        let server = TestServer::start(config(), Behind::child(command)).await;
        let error = server.reload(|config| config.access = tokens(&[NEW_TOKEN])).unwrap_err();
        assert!(matches!(error, ReloadError::Command(_)), "{error:?}");
        assert_eq!(error.to_string(), "`API_KEY` would hand the edge's token to the child");
        let client = server.client().token(NEW_TOKEN);
        let answer = client.bare(client.request("DELETE", "/mcp")).await;
        assert_eq!(answer.status, 401);
    })
    .await;
}

/// Certificate and key of these names in `dir`, signed by this CA.
fn issue(
    dir: &Path,
    ca: &CertifiedIssuer<'static, KeyPair>,
    name: &str,
    names: &[&str],
) -> CertFiles {
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(names).unwrap().signed_by(&key, ca).unwrap();
    let files = CertFiles {
        cert: dir.join(format!("{name}.pem")),
        key: dir.join(format!("{name}-key.pem")),
    };
    std::fs::write(&files.cert, leaf.pem() + &ca.pem()).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

#[tokio::test]
async fn certificates_and_their_names_change_with_the_rest_or_not_at_all() {
    bounded(async {
        let (dir, ca) = (tempfile::tempdir().unwrap(), ca_named("CA of the tests"));
        std::fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
        let first = issue(dir.path(), &ca, "first", &["localhost"]);
        let old = Config { tls: TlsSource::Files(vec![first.clone()]), ..config() };
        let server = Box::pin(Server::bind(old.clone(), Behind::diagnostics())).await.unwrap();
        let (address, control) = (server.local_addr(), server.control());
        let (stop, stopped) = oneshot::channel::<()>();
        let mut running = JoinSet::new();
        running.spawn(server.run(async { drop(stopped.await) }));
        let trust = trusting(&dir.path().join("ca.pem"));
        let client = Client::new(address, Arc::clone(&trust));
        let unknown_name = async || {
            let name = ServerName::try_from("unknown.example").unwrap();
            let tls = TlsConnector::from(Arc::clone(&trust));
            let ended = tls.connect(name, client.tcp().await.unwrap()).await.unwrap_err();
            ended.downcast::<rustls::Error>().unwrap()
        };
        let mut kept = client.connect().await;
        let list = client.post("/mcp", &call(1, "tools/list", json!({})));
        assert_eq!(kept.send(list.clone()).await.status, 200);

        // A file that cannot be used, and all the rest stays as it was.
        let none = CertFiles { cert: dir.path().join("none.pem"), key: first.key.clone() };
        let rules = TlsRules { refuse_unknown_names: true, ..TlsRules::default() };
        let bad = Config {
            tls: TlsSource::Files(vec![none]),
            tls_rules: rules,
            access: tokens(&[NEW_TOKEN]),
            allow_hosts: vec!["other.example".parse().unwrap()],
            ..old.clone()
        };
        let error = control.reload(bad).unwrap_err();
        assert!(error.to_string().contains("none.pem"), "{error}");
        assert_eq!(to_host(&client, "other.example").await, 403);
        assert_eq!(kept.send(list.clone()).await.status, 200);
        let shown = unknown_name().await;
        assert!(matches!(shown, rustls::Error::InvalidCertificate(_)), "{shown}");

        let second = issue(dir.path(), &ca, "second", &["localhost", "second.example"]);
        let new = Config { tls: TlsSource::Files(vec![second]), tls_rules: rules, ..old.clone() };
        assert_eq!(to_host(&client, "second.example").await, 403);
        let loaded = control.reload(new).unwrap().unwrap();
        assert_eq!(loaded.names, ["localhost", "second.example"]);
        let refused = AlertDescription::UnrecognisedName;
        assert_eq!(unknown_name().await, rustls::Error::AlertReceived(refused));
        assert_eq!(to_host(&client, "second.example").await, 200);
        assert_eq!(kept.send(list).await.status, 200);

        // What is read again then are the files of now.
        let names = ["localhost", "second.example", "third.example"];
        issue(dir.path(), &ca, "second", &names);
        let read = control.reload_certificates().unwrap().unwrap();
        assert_eq!(read.names, names);
        assert_eq!(to_host(&client, "third.example").await, 200);
        drop(stop);
        assert!(running.join_next().await.unwrap().unwrap());
    })
    .await;
}

#[tokio::test]
async fn the_rate_of_an_address_changes() {
    bounded(async {
        let server = fixture().await;
        let client = server.client();
        server.limit(|it| (it.requests_per_second, it.burst) = (1, 1));
        let passed = async || {
            let mut passed = 0;
            for _ in 0..6 {
                passed += usize::from(echo(&client).await.status == 200);
            }
            passed
        };
        assert!(passed().await <= 4, "two at once, and one a second");
        server.limit(|it| (it.requests_per_second, it.burst) = (1, 100));
        assert_eq!(passed().await, 6);
        server.limit(|it| (it.requests_per_second, it.burst) = (1, 0));
        assert_eq!(echo(&client).await.status, 429, "what was taken stays taken");
        server.limit(|_as_before| {});
        sleep(Duration::from_millis(5)).await;
        assert_eq!(passed().await, 6);
    })
    .await;
}

#[tokio::test]
async fn a_request_over_the_rate_may_wait_from_now_on() {
    bounded(async {
        let server = fixture().await;
        let client = server.client();
        let set = |rate_wait| {
            let limits = Limits { requests_per_second: 2, burst: 0, ..*server.config.limits };
            let times = Times { rate_wait, ..*server.config.times };
            let change = |config: &mut Config| {
                config.limits = limits.check().unwrap();
                config.times = times.check().unwrap();
            };
            server.reload(change).unwrap();
        };
        set(Duration::ZERO);
        let mut conn = client.connect().await;
        let request = client.post("/mcp", &call(1, "f/echo", json!({})));
        conn.send(request.clone()).await;
        assert_eq!(conn.send(request.clone()).await.status, 429);
        set(Duration::from_secs(5));
        assert_eq!(conn.send(request).await.status, 200);
    })
    .await;
}

/// Is a new connection closed before a byte of TLS?
async fn is_closed(client: &Client) -> bool {
    let mut stream = client.tcp().await.unwrap();
    timeout(Duration::from_millis(200), stream.read_u8()).await.is_ok_and(|read| read.is_err())
}

#[tokio::test]
async fn the_numbers_of_connections_change() {
    bounded(async {
        let server = fixture().await;
        let client = server.client().from(loopback(2));
        let mut kept = client.connect().await;
        let request = client.post("/mcp", &call(1, "f/echo", json!({})));
        assert_eq!(kept.send(request.clone()).await.status, 200);
        for of_one in [true, false] {
            server.limit(|it| {
                *(if of_one { &mut it.connections_per_ip } else { &mut it.max_connections }) = 1;
            });
            assert!(is_closed(&client).await, "{of_one}");
            // Who is in stays in.
            assert_eq!(kept.send(request.clone()).await.status, 200);
            server.limit(|it| {
                *(if of_one { &mut it.connections_per_ip } else { &mut it.max_connections }) = 2;
            });
            let mut second = client.connect().await;
            assert_eq!(second.send(request.clone()).await.status, 200);
            assert!(is_closed(&client).await, "{of_one}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_number_of_strangers_changes() {
    bounded(async {
        let server = fixture().await;
        let client = server.client();
        let mut strangers = Vec::new();
        for _ in 0..4 {
            strangers.push(client.tcp().await.unwrap());
        }
        eventually(|| server.report().unauthenticated == 4).await;
        server.limit(|it| it.max_unauthenticated = 2);
        // Two go for each newcomer, until no more are left than may stay.
        let _one_more = client.tcp().await.unwrap();
        eventually(|| server.report().unauthenticated == 3).await;
        let _and_one_more = client.tcp().await.unwrap();
        eventually(|| server.report().unauthenticated == 2).await;
        assert_eq!(server.report().outcomes["max_unauthenticated"], 4);
        server.limit(|it| it.max_unauthenticated = 3);
        let _another = client.tcp().await.unwrap();
        eventually(|| server.report().unauthenticated == 3).await;
        assert_eq!(server.report().outcomes["max_unauthenticated"], 4);
    })
    .await;
}

#[tokio::test]
async fn the_numbers_of_sessions_and_streams_change() {
    bounded(async {
        let server = fixture().await;
        let client = server.client();
        let session = client.initialize("2025-11-25").await;
        // In use, so that it gives its place to nobody.
        let _stream = session.listen(None).await.events();
        let hello = || client.send(client.post("/mcp", &hello("2025-11-25")));
        server.limit(|it| it.sessions_per_ip = 1);
        assert_eq!(hello().await.status, 429);
        server.limit(|it| it.max_sessions = 1);
        assert_eq!(hello().await.status, 503);
        server.limit(|it| (it.sessions_per_ip, it.max_sessions) = (2, 2));
        assert_eq!(hello().await.status, 200);
        server.limit(|it| it.streams_per_ip = 1);
        let second = session.request("GET").header("accept", "text/event-stream");
        assert_eq!(client.bare(second).await.status, 429);
        server.limit(|it| it.streams_per_ip = 2);
        let request = session.request("GET").header("accept", "text/event-stream");
        let mut conn = client.connect().await;
        let answer = conn.begin(request.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200);
    })
    .await;
}

#[tokio::test]
async fn the_number_of_children_changes() {
    bounded(async {
        let mark = Mark::new();
        let server = TestServer::start(config(), mark.diagnostics()).await;
        let client = server.client();
        let session = client.initialize("2025-11-25").await;
        let _stream = session.listen(None).await.events();
        let hello = || client.send(client.post("/mcp", &hello("2025-11-25")));
        server.limit(|it| it.max_children = 1);
        assert_eq!(hello().await.status, 503);
        server.limit(|it| it.max_children = 2);
        assert_eq!(hello().await.status, 200);
        assert_eq!(server.report().children, 2);
        assert!(server.stop().await);
        mark.gone().await;
    })
    .await;
}

#[tokio::test]
async fn the_sizes_of_heads_and_bodies_change() {
    bounded(async {
        let server = fixture().await;
        let client = server.client();
        let with_fields = |count: usize, length: usize| {
            let mut request = client.post("/mcp", &call(1, "f/echo", json!({})));
            for number in 0..count {
                let name: http::HeaderName = format!("x-{number}").parse().unwrap();
                request.headers_mut().insert(name, "y".repeat(length).parse().unwrap());
            }
            client.send(request)
        };
        assert_eq!(with_fields(10, 1000).await.status, 200);
        server.limit(|it| it.max_header_bytes = 8192);
        assert_eq!(with_fields(10, 1000).await.status, 431);
        server.limit(|it| it.max_headers = 10);
        assert_eq!(with_fields(10, 1).await.status, 431);
        server.limit(|it| it.max_headers = 20);
        assert_eq!(with_fields(10, 1000).await.status, 200);
        // Of a connection, the head has the size of its beginning.
        server.limit(|it| it.max_header_bytes = 128 * 1024);
        assert_eq!(with_fields(10, 10_000).await.status, 200);
        let large = json!({ "text": "x".repeat(4096) });
        server.limit(|it| it.max_body_bytes = 4096);
        assert_eq!(echo_of(&client, large.clone()).await.status, 413);
        server.limit(|it| it.max_body_bytes = 8192);
        assert_eq!(echo_of(&client, large).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn the_memory_for_messages_changes_for_sessions_that_are_open_too() {
    bounded(async {
        let server = fixture().await;
        let session = server.client().initialize("2025-11-25").await;
        let large = call(1, "f/echo", json!({ "text": "x".repeat(700_000) }));
        assert_eq!(session.post(&large).await.status, 200);
        let mebibyte = 1024 * 1024;
        server.limit(|it| {
            (it.max_buffered_bytes, it.max_body_bytes, it.max_line_bytes) =
                (mebibyte, mebibyte, mebibyte);
        });
        // It reads as more than all there may be.
        assert_eq!(session.post(&large).await.status, 413);
        server.limit(|_as_before| {});
        assert_eq!(session.post(&large).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn the_longest_message_of_an_upstream_changes_at_once() {
    bounded(async {
        let upstream = fixture().await;
        let behind = upstream.as_upstream(UpstreamKind::Streamable);
        let server = TestServer::start(config(), behind).await;
        let session = server.client().initialize("2025-11-25").await;
        let huge = call(1, "f/huge", json!({ "size": 50_000 }));
        assert!(session.post(&huge).await.message()["result"].is_object());
        server.limit(|it| it.max_line_bytes = 10_000);
        assert!(session.post(&huge).await.message()["error"].is_object());
        server.limit(|it| it.max_line_bytes = 100_000);
        assert!(session.post(&huge).await.message()["result"].is_object());
    })
    .await;
}

/// A child whose answers are long.
const LONG: &str = r#"
while IFS= read -r line; do
  id=${line#*'"id":'}; id=${id%%,*}
  case $line in
    *'"method":"initialize"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-06-18","capabilities":{},"serverInfo":{"name":"sh","version":"1"}}}\n' "$id" ;;
    *'"method":"t/long"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"text":"%05000d"}}\n' "$id" 0 ;;
  esac
done
"#;

#[tokio::test]
async fn a_child_keeps_the_longest_line_that_it_was_started_with() {
    bounded(async {
        let mark = Mark::new();
        let server = TestServer::start(config(), mark.sh(LONG)).await;
        let client = server.client();
        let old = client.initialize("2025-06-18").await;
        server.limit(|it| it.max_line_bytes = 2048);
        let new = client.initialize("2025-06-18").await;
        let long = call(1, "t/long", json!({}));
        assert!(old.post(&long).await.message()["result"].is_object());
        assert!(new.post(&long).await.message()["error"].is_object());
        assert_eq!(server.report().outcomes["line_too_long"], 1);
        assert!(server.stop().await);
        mark.gone().await;
    })
    .await;
}

#[tokio::test]
async fn warm_sessions_do_not_hold_calls_to_the_times_of_before() {
    bounded(async {
        let server = fixture().await;
        let client = server.client();
        assert_eq!(echo(&client).await.status, 200);
        server.time(|it| it.call = Duration::from_millis(300));
        let begun = Instant::now();
        let late = client.send(client.post("/mcp", &call(1, "f/hang", json!({})))).await;
        let text = late.message()["error"]["message"].to_string();
        assert!(text.contains("did not answer"), "{text}");
        assert!(begun.elapsed() < Duration::from_secs(5));
        server.time(|it| it.call = Duration::from_mins(5));
        let hang = client.post("/mcp", &call(1, "f/hang", json!({})));
        assert!(timeout(Duration::from_secs(1), client.send(hang)).await.is_err(), "it waits");
    })
    .await;
}

#[tokio::test]
async fn the_time_of_the_shutdown_is_that_of_the_moment() {
    bounded(async {
        let server = fixture().await;
        let client = server.client();
        let session = client.initialize("2025-11-25").await;
        let _held = session.stream(&call(1, "f/hang", json!({}))).await;
        server.time(|it| it.shutdown = Duration::from_millis(300));
        let begun = Instant::now();
        assert!(!server.stop().await);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    })
    .await;
}

#[tokio::test]
async fn whom_a_proxy_speaks_for_is_no_longer_believed() {
    bounded(async {
        let server = fixture().await;
        let client = server.client().from(loopback(9));
        let proxies = vec!["127.0.0.9/32".parse().unwrap()];
        server.reload(|config| config.trusted_proxies = proxies).unwrap();
        let mut kept = client.connect().await;
        let mut request = client.post("/mcp", &call(1, "f/echo", json!({})));
        request.headers_mut().insert("x-forwarded-for", "no address".parse().unwrap());
        assert_eq!(kept.send(request.clone()).await.status, 400);
        server.reload(|_as_before| {}).unwrap();
        // Not even on its connection of before.
        assert_eq!(kept.send(request.clone()).await.status, 200);
        assert_eq!(client.send(request).await.status, 200);
    })
    .await;
}
