//! Promise: a path that is passed through reaches the upstream as it is and comes back as it comes,
//! within the limits of every other request; nothing of the client's goes up that is not listed.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails, helpers of it too")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use mcp_edge::{Behind, Config, Limits, Times, Upstream};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{Client, TOKEN, Taken, TestServer, Upside, bounded, config, upstream_limits};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep, timeout};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                      transfer-encoding: chunked\r\n\r\n";

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// An edge that passes everything beneath `/p`, and its upstream.
async fn pair() -> (TestServer, Upside) {
    with(config(), |upstream| upstream).await
}

async fn with(config: Config, change: impl FnOnce(Upstream) -> Upstream) -> (TestServer, Upside) {
    let upside = Upside::new().await;
    let upstream = change(upside.passing(&["/p/*", "open:/open"]));
    (TestServer::start(config, Behind::upstream(upstream)).await, upside)
}

fn get(path: &str, fields: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n{fields}\r\n"
    )
}

fn posting(path: &str, fields: &str) -> String {
    get(path, fields).replacen("GET", "POST", 1)
}

/// Has the other side ended the connection?
async fn ended(mut taken: Taken) {
    taken.until_closed().await;
}

#[tokio::test]
async fn a_request_goes_up_as_it_is_and_its_response_comes_down() {
    bounded(async {
        let (server, upside) = pair().await;
        for client in [server.client(), server.client().h2()] {
            for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
                let body = if method == "GET" { "" } else { "some text" };
                let request = client.request(method, "/p/a%20b;c/?d=/../e&f");
                let request = request.header("content-type", "text/plain");
                let request = request.body(Full::new(Bytes::from(body))).unwrap();
                let answering = async {
                    let (mut taken, mut seen) = upside.asked().await;
                    if !body.is_empty() && !seen.ends_with(body) {
                        seen += &taken.until(body).await;
                    }
                    taken
                        .send(
                            "HTTP/1.1 418 Short and stout\r\ncontent-type: text/x\r\n\
                               content-length: 3\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\
                               connection: close\r\n\r\ntea",
                        )
                        .await;
                    seen
                };
                let (answer, seen) = tokio::join!(client.send(request), answering);
                let line = format!("{method} /p/a%20b;c/?d=/../e&f HTTP/1.1\r\n");
                assert!(seen.starts_with(&line), "{seen}");
                assert!(seen.contains(&format!("\r\nhost: {}\r\n", upside.address)), "{seen}");
                assert!(seen.ends_with(&format!("\r\n\r\n{body}")), "{seen}");
                assert_eq!((answer.status.as_u16(), &*answer.body), (418, &b"tea"[..]));
                assert_eq!(answer.header("content-type"), "text/x");
                assert_eq!(answer.headers.get_all("set-cookie").iter().count(), 2);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn head_is_answered_without_a_body() {
    bounded(async {
        let (server, upside) = pair().await;
        for client in [server.client(), server.client().h2()] {
            let length = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\n";
            let asking = client.bare(client.request("HEAD", "/p/a"));
            let (answer, seen) = tokio::join!(asking, upside.answer(length));
            assert!(seen.starts_with("HEAD /p/a "), "{seen}");
            assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0));
            assert_eq!(answer.header("content-length"), "7");
        }
    })
    .await;
}

#[tokio::test]
async fn a_closed_path_needs_the_token_and_an_open_one_only_the_rate() {
    bounded(async {
        let limits = Limits { requests_per_second: 1, burst: 2, ..*config().limits };
        let (server, upside) =
            with(Config { limits: limits.check().unwrap(), ..config() }, |upstream| upstream).await;
        let stranger = server.client().stranger();
        assert_eq!(stranger.bare(stranger.request("GET", "/p/a")).await.status, 401);
        assert!(upside.is_untouched().await);
        let asking = stranger.bare(stranger.request("GET", "/open"));
        assert_eq!(tokio::join!(asking, upside.answer(OK)).0.status, 200);
        let wrong = stranger.token("not-the-token-of-the-tests");
        let asking = wrong.bare(wrong.request("GET", "/open"));
        assert_eq!(tokio::join!(asking, upside.answer(OK)).0.status, 200);
        let refused = wrong.bare(wrong.request("GET", "/open")).await;
        assert_eq!(refused.status, 429);
        assert!(!refused.header("retry-after").is_empty());
    })
    .await;
}

#[tokio::test]
async fn the_edges_own_paths_go_up_only_if_they_are_named() {
    bounded(async {
        let upside = Upside::new().await;
        let server = TestServer::start(config(), upside.behind(&["/*", "/sse", "/token"])).await;
        let client = server.client();
        for path in ["/sse", "/token", "/mcp/x", "/"] {
            let asking = client.bare(client.request("GET", path));
            let (answer, seen) = tokio::join!(asking, upside.answer(OK));
            assert_eq!(answer.status, 200, "{path}");
            assert!(seen.starts_with(&format!("GET {path} ")), "{seen}");
        }
        for (method, path, status) in [
            ("GET", "/livez", 200),
            ("PUT", "/livez", 405),
            ("PUT", "/mcp", 405),
            ("PUT", "/mcp/", 405),
            ("PUT", "/messages", 405),
            ("GET", "/register", 404),
            ("GET", "/.well-known/oauth-protected-resource", 404),
        ] {
            let answer = client.bare(client.request(method, path)).await;
            assert_eq!(answer.status, status, "{method} {path}");
        }
        assert!(upside.is_untouched().await);
    })
    .await;
}

#[tokio::test]
async fn paths_that_could_be_read_as_others_are_refused_in_words() {
    bounded(async {
        let (server, upside) = pair().await;
        for path in [
            "/p/../mcp",
            "/p/./a",
            "/p//a",
            "/p/..",
            "/p/%2e%2e/mcp",
            "/p/.%2E/mcp",
            "/p/%2Fa",
            "/p/%5c..%5cmcp",
            "/p/..;/mcp",
            "/p/%252e%252e/mcp",
            "/p/a\\..\\..\\mcp",
        ] {
            let mut raw = server.raw().await;
            raw.send(get(path, "")).await;
            let answer = raw.answer().await.unwrap();
            assert_eq!(
                (answer.status, &answer.json()["error"]),
                (400, &"bad_path".into()),
                "{path}"
            );
        }
        // These are no paths beneath `/p` to begin with.
        for path in ["//p/a", "/P/a", "/%70/a", "/x/../p/a", "/pp/a"] {
            let mut raw = server.raw().await;
            raw.send(get(path, "")).await;
            assert_eq!(raw.answer().await.unwrap().status, 404, "{path}");
        }
        assert!(upside.is_untouched().await);
    })
    .await;
}

#[tokio::test]
async fn no_spelling_of_a_closed_path_goes_up_without_a_token() {
    bounded(async {
        let upside = Upside::new().await;
        let behind = upside.behind(&["open:/*", "/o/private/*"]);
        let server = TestServer::start(config(), behind).await;
        let stranger = server.client().stranger();
        for path in ["/o/%70rivate/x", "/o/PRIVATE/x", "/%6f/private/x", "/%6dcp", "/MCP", "/s%73e"]
        {
            let refused = stranger.send(stranger.post(path, &serde_json::json!({}))).await;
            let error = &refused.json()["error"];
            assert_eq!((refused.status.as_u16(), error), (400, &"bad_path".into()), "{path}");
        }
        for path in ["/o/private/x", "/mcp"] {
            let refused = stranger.send(stranger.post(path, &serde_json::json!({}))).await;
            assert_eq!(refused.status, 401, "{path}");
        }
        assert!(upside.is_untouched().await);
        // A harmless escape goes up as it is.
        let asking = stranger.bare(stranger.request("GET", "/o/a%20b"));
        let (answer, seen) = tokio::join!(asking, upside.answer(OK));
        assert_eq!(answer.status, 200);
        assert!(seen.starts_with("GET /o/a%20b HTTP/1.1\r\n"), "{seen}");
    })
    .await;
}

#[tokio::test]
async fn the_upstreams_endpoint_under_another_path_is_not_open() {
    bounded(async {
        let upside = Upside::new().await;
        let url = format!("http://{}/api/mcp", upside.address).parse().unwrap();
        let upstream = Upstream { url, ..upside.passing(&["open:/*"]) };
        let server = TestServer::start(config(), Behind::upstream(upstream)).await;
        let stranger = server.client().stranger();
        for (path, status) in
            [("/api/mcp", 401), ("/api/mcp/", 401), ("/api/messages/", 401), ("/api/%6dcp", 400)]
        {
            let refused = stranger.send(stranger.post(path, &serde_json::json!({}))).await;
            assert_eq!(refused.status, status, "{path}");
        }
        assert!(upside.is_untouched().await);
    })
    .await;
}

#[tokio::test]
async fn other_protocols_and_the_methods_of_proxies_are_refused_in_words() {
    bounded(async {
        let (server, upside) = pair().await;
        let socket = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                      sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let trace = get("/p/a", "").replacen("GET", "TRACE", 1);
        for (request, error) in [(get("/p/a", socket), "no_upgrade"), (trace, "no_such_method")] {
            let mut raw = server.raw().await;
            raw.send(request).await;
            let answer = raw.answer().await.unwrap();
            assert_eq!((answer.status, &answer.json()["error"]), (501, &error.into()));
        }
        let mut raw = server.raw().await;
        raw.send(get("localhost:443", "").replacen("GET", "CONNECT", 1)).await;
        assert!((400..500).contains(&raw.answer().await.unwrap().status));
        assert!(upside.is_untouched().await);
        // An upstream that changes the protocol by itself is not followed.
        let client = server.client();
        let asking = client.bare(client.request("GET", "/p/a"));
        let changed = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                       upgrade: websocket\r\n\r\n";
        assert_eq!(tokio::join!(asking, upside.answer(changed)).0.status, 502);
    })
    .await;
}

/// The names of the fields of a head, in lower case.
fn names(head: &str) -> Vec<String> {
    let head = head.split("\r\n\r\n").next().unwrap();
    let fields = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    fields.map(|(name, _)| name.to_ascii_lowercase()).collect()
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.split("\r\n").skip(1).filter_map(|line| line.split_once(": "));
    let (_, value) = lines.find(|(other, _)| other.eq_ignore_ascii_case(name))?;
    Some(value)
}

/// Names that somebody might hope to get through, and others that nobody has thought of.
fn hopeful() -> Vec<String> {
    let mut names: Vec<_> = [
        "cookie",
        "origin",
        "forwarded",
        "via",
        "x-real-ip",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-port",
        "x-forwarded-user",
        "x-request-id",
        "x-user-role",
        "x-original-url",
        "x-rewrite-url",
        "x-http-method-override",
        "x-client-ip",
        "true-client-ip",
        "cf-connecting-ip",
        "x-envoy-internal",
        "x-amzn-oidc-data",
        "remote-user",
        "x-remote-user",
        "x_forwarded_for",
        "proxy-authorization",
        "proxy-connection",
        "keep-alive",
        "te",
        "trailer",
        "http2-settings",
        "accept-encoding",
        "referer",
        "dnt",
        "sec-fetch-site",
        "user-agent",
        "from",
        "mcp-method",
        "mcp-name",
        "mcp-param-x",
        "if-unmodified",
        "x-api-key",
        "baggage",
    ]
    .map(str::to_owned)
    .into();
    // Any name at all, and none that a library would send.
    let mut state = u64::from(std::process::id()) | 1;
    for _ in 0..40 {
        let letters = (0..8).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040);
            char::from(b'a' + u8::try_from((state >> 33) % 26).unwrap())
        });
        names.push(format!("x-{}", letters.collect::<String>()));
    }
    names
}

/// Those, fields that may go up, and some that are named as of this connection only.
fn everything(port: u16) -> String {
    let field = |name: String| {
        let value = match name.as_str() {
            "te" => "trailers".to_owned(),
            "origin" => format!("https://localhost:{port}"),
            _ => "evil".to_owned(),
        };
        format!("{name}: {value}\r\n")
    };
    let listed = "accept: a/b\r\ncontent-type: c/d\r\nlast-event-id: 7\r\nrange: bytes=0-1\r\n\
                  x-listed: yes\r\nx-named: evil\r\naccept-language: de\r\n\
                  connection: x-named, accept-language\r\n";
    hopeful().into_iter().map(field).collect::<String>() + listed
}

#[tokio::test]
async fn no_field_goes_up_that_is_not_listed() {
    bounded(async {
        let forward = vec!["x-listed".parse().unwrap()];
        let limits = Limits { max_headers: 200, ..*config().limits };
        let (server, upside) =
            with(Config { limits: limits.check().unwrap(), ..config() }, |upstream| Upstream {
                forward_headers: forward,
                ..upstream
            })
            .await;
        let mut raw = server.raw().await;
        // Trailers are fields too.
        let fields = everything(server.address.port()) + "transfer-encoding: chunked\r\n";
        raw.send(posting("/p/a", &fields)).await;
        raw.send("3\r\nabc\r\n0\r\nx-trailing: evil\r\ncookie: evil\r\n\r\n").await;
        let (mut taken, mut seen) = upside.asked().await;
        if !seen.ends_with("0\r\n\r\n") {
            seen += &taken.until("0\r\n\r\n").await;
        }
        taken.send(OK).await;
        assert_eq!(raw.answer().await.unwrap().status, 200);
        let mut names = names(&seen);
        names.sort();
        assert_eq!(
            names,
            [
                "accept",
                "content-type",
                "host",
                "last-event-id",
                "range",
                "transfer-encoding",
                "user-agent",
                "x-forwarded-for",
                "x-forwarded-host",
                "x-forwarded-proto",
                "x-listed",
                "x-real-ip",
                "x-request-id",
            ]
        );
        assert!(!seen.contains("evil"), "{seen}");
        assert!(!seen.contains(TOKEN), "{seen}");
        assert_eq!(field(&seen, "x-real-ip"), Some("127.0.0.1"));
        assert_eq!(field(&seen, "x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(field(&seen, "x-forwarded-proto"), Some("https"));
        assert_eq!(field(&seen, "x-forwarded-host"), Some("localhost"));
        assert!(field(&seen, "user-agent").unwrap().starts_with("mcp-edge/"));
    })
    .await;
}

#[tokio::test]
async fn what_comes_down_is_the_upstreams_but_for_the_connection() {
    bounded(async {
        let (server, upside) = pair().await;
        let response = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nserver: Leaky/1.0\r\n\
                        alt-svc: h3=\":443\"\r\nstrict-transport-security: max-age=1\r\n\
                        connection: close, x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n\
                        proxy-authenticate: Basic\r\nx-frame-options: SAMEORIGIN\r\n\
                        cache-control: max-age=60\r\netag: \"1\"\r\nx-request-id: theirs\r\n\r\nok";
        for client in [server.client(), server.client().h2()] {
            let asking = client.bare(client.request("GET", "/p/a"));
            let (answer, seen) = tokio::join!(asking, upside.answer(response));
            for gone in [
                "server",
                "alt-svc",
                "strict-transport-security",
                "x-hop",
                "keep-alive",
                "proxy-authenticate",
                "content-security-policy",
                "connection",
            ] {
                assert_eq!(answer.header(gone), "", "{gone}");
            }
            for (name, value) in [
                ("x-frame-options", "SAMEORIGIN"),
                ("cache-control", "max-age=60"),
                ("etag", "\"1\""),
                ("x-content-type-options", "nosniff"),
                ("referrer-policy", "no-referrer"),
                ("x-xss-protection", "0"),
                ("x-request-id", field(&seen, "x-request-id").unwrap()),
            ] {
                assert_eq!(answer.header(name), value, "{name}");
            }
        }
        // Nothing says how long it is good, nor does the edge.
        let client = server.client();
        let asking = client.bare(client.request("GET", "/p/a"));
        assert_eq!(tokio::join!(asking, upside.answer(OK)).0.header("cache-control"), "");
    })
    .await;
}

#[tokio::test]
async fn an_empty_refusal_of_the_upstreams_is_its_own() {
    bounded(async {
        let (server, upside) = pair().await;
        for client in [server.client(), server.client().h2()] {
            for status in [400, 414, 431] {
                let refusal = format!(
                    "HTTP/1.1 {status} No\r\ncontent-length: 0\r\nx-theirs: 1\r\n\
                     connection: close\r\n\r\n"
                );
                let asking = client.bare(client.request("GET", "/p/a"));
                let (answer, _) = tokio::join!(asking, upside.answer(&refusal));
                assert_eq!((answer.status.as_u16(), &*answer.body), (status, &b""[..]));
                assert_eq!(answer.header("x-theirs"), "1");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_body_of_unknown_length_goes_up_with_every_method() {
    bounded(async {
        let (server, upside) = pair().await;
        for method in ["GET", "HEAD", "DELETE", "POST"] {
            let mut raw = server.raw().await;
            let head = get("/p/a", "transfer-encoding: chunked\r\n");
            raw.send(head.replacen("GET", method, 1)).await;
            raw.send("4\r\nsome\r\n0\r\n\r\n").await;
            let (mut taken, mut seen) = upside.asked().await;
            if !seen.ends_with("\r\n0\r\n\r\n") {
                seen += &taken.until("\r\n0\r\n\r\n").await;
            }
            assert_eq!(field(&seen, "transfer-encoding"), Some("chunked"), "{seen}");
            assert_eq!(seen.matches("transfer-encoding").count(), 1, "{seen}");
            assert!(seen.contains("\r\n\r\n4\r\nsome\r\n"), "{seen}");
            taken.send(OK).await;
            raw.until("HTTP/1.1 200 OK").await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_redirect_to_the_upstream_leads_to_the_edge() {
    bounded(async {
        let (server, upside) = pair().await;
        let client = server.client();
        let response = format!(
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://{0}/p/a/?b\r\n\
             content-location: http://{0}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            upside.address
        );
        let asking = client.bare(client.request("GET", "/p/a"));
        let (answer, _) = tokio::join!(asking, upside.answer(&response));
        assert_eq!((answer.status.as_u16(), answer.header("location")), (307, "/p/a/?b"));
        assert_eq!(answer.header("content-location"), "/");
    })
    .await;
}

#[tokio::test]
async fn of_two_lengths_of_a_response_the_chunks_count() {
    bounded(async {
        let (server, upside) = pair().await;
        let response = "HTTP/1.1 200 OK\r\ncontent-length: 40\r\ntransfer-encoding: chunked\r\n\
                        connection: close\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        for client in [server.client(), server.client().h2()] {
            let asking = client.bare(client.request("GET", "/p/a"));
            let (answer, _) = tokio::join!(asking, upside.answer(response));
            assert_eq!((answer.header("content-length"), &*answer.body), ("", &b"ok"[..]));
            let asking = client.bare(client.request("HEAD", "/p/a"));
            let (answer, _) = tokio::join!(asking, upside.answer(response));
            assert_eq!((answer.status.as_u16(), answer.header("content-length")), (200, ""));
        }
    })
    .await;
}

#[tokio::test]
async fn bodies_flow_both_ways_at_once() {
    bounded(async {
        let (server, upside) = pair().await;
        let mut raw = server.raw().await;
        raw.send(posting("/p/a", "transfer-encoding: chunked\r\n")).await;
        raw.send(chunk("first up")).await;
        let (mut taken, seen) = upside.asked().await;
        if !seen.contains("first up") {
            taken.until("first up").await;
        }
        taken.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        taken.send(chunk("first down")).await;
        raw.until("first down").await;
        for turn in ["second", "third"] {
            raw.send(chunk(turn)).await;
            taken.until(turn).await;
            taken.send(chunk(turn)).await;
            raw.until(turn).await;
        }
        raw.send("0\r\n\r\n").await;
        taken.until("0\r\n\r\n").await;
        taken.send(chunk("last")).await;
        taken.send("0\r\n\r\n").await;
        raw.until("0\r\n\r\n").await;
        // The connection lives on.
        raw.send(get("/livez", "")).await;
        assert_eq!(raw.answer().await.unwrap().status, 200);
    })
    .await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_or_broken_off() {
    bounded(async {
        let limits = Limits { max_body_bytes: 1024, ..*config().limits };
        let (server, upside) =
            with(Config { limits: limits.check().unwrap(), ..config() }, |upstream| upstream).await;
        for client in [server.client(), server.client().h2()] {
            let request = client.request("POST", "/p/a");
            let large = Full::new(Bytes::from(vec![b'x'; 1025]));
            let refused = client.send(request.body(large).unwrap()).await;
            assert_eq!(
                (refused.status.as_u16(), refused.json()["error"]["code"].as_i64()),
                (413, Some(-32600))
            );
        }
        assert!(upside.is_untouched().await);
        let mut raw = server.raw().await;
        raw.send(posting("/p/a", "transfer-encoding: chunked\r\n")).await;
        raw.send(chunk(&"x".repeat(600))).await;
        let (mut taken, _) = upside.asked().await;
        raw.send(chunk(&"y".repeat(600))).await;
        assert_eq!(raw.answer().await.unwrap().status, 413);
        let seen = taken.until_closed().await;
        assert!(!seen.ends_with(b"0\r\n\r\n") && !seen.contains(&b'y'));
        // What fits goes through.
        let client = server.client();
        let request = client.request("POST", "/p/a");
        let request = request.body(Full::new(Bytes::from(vec![b'x'; 1024]))).unwrap();
        let answering = async {
            let (mut taken, seen) = upside.asked().await;
            if !seen.ends_with('x') {
                taken.until(&"x".repeat(1024)).await;
            }
            taken.send(OK).await;
        };
        assert_eq!(tokio::join!(client.send(request), answering).0.status, 200);
    })
    .await;
}

#[tokio::test]
async fn a_body_has_its_time_between_two_pieces_and_in_all() {
    bounded(async {
        let moment = Duration::from_millis(300);
        for (idle, whole) in [(moment, Duration::from_mins(1)), (Duration::from_secs(20), moment)] {
            let times = Times { body_idle: idle, body: whole, ..*config().times };
            let (server, upside) =
                with(Config { times: times.check().unwrap(), ..config() }, |upstream| upstream)
                    .await;
            // For those who wait for a stream there is no other end.
            for accept in ["", "accept: text/event-stream\r\n"] {
                let mut raw = server.raw().await;
                let fields = format!("transfer-encoding: chunked\r\n{accept}");
                raw.send(posting("/p/a", &fields) + &chunk("a")).await;
                let (taken, _) = upside.asked().await;
                assert_eq!(raw.answer().await.unwrap().status, 408);
                ended(taken).await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn an_upstream_that_takes_no_body_does_not_hold_a_request_for_ever() {
    bounded(async {
        let times = Times { body: Duration::from_millis(500), ..*config().times };
        let limits = Limits { max_body_bytes: 64 * 1024 * 1024, ..*config().limits };
        let (server, upside) = with(
            Config { times: times.check().unwrap(), limits: limits.check().unwrap(), ..config() },
            |upstream| upstream,
        )
        .await;
        let client = server.client();
        let request = client.request("POST", "/p/a").header("accept", "text/event-stream");
        let large = Full::new(Bytes::from(vec![b'x'; 32 * 1024 * 1024]));
        let request = request.body(large).unwrap();
        let mut conn = client.connect().await;
        let (answer, _taken) = tokio::join!(conn.begin(request), upside.accept());
        // Its client may fail at the body before it sees the answer.
        if let Ok(answer) = answer {
            assert_eq!(answer.status(), 408);
        }
    })
    .await;
}

#[tokio::test]
async fn an_upstream_has_its_time_but_for_event_streams() {
    bounded(async {
        let head = Duration::from_millis(300);
        let (server, upside) = with(config(), |upstream| Upstream {
            limits: upstream_limits(|it| it.head = head),
            ..upstream
        })
        .await;
        let client = server.client();
        let begun = Instant::now();
        let asking = client.bare(client.request("GET", "/p/a"));
        let (late, (taken, _)) = tokio::join!(asking, upside.asked());
        assert_eq!((late.status.as_u16(), &late.json()["error"]), (504, &"upstream_late".into()));
        assert!(begun.elapsed() >= head);
        ended(taken).await;
        let request = client.request("GET", "/p/a").header("accept", "text/event-stream");
        let answering = async {
            let (mut taken, _) = upside.asked().await;
            sleep(head * 3).await;
            taken.send(EVENTS).await;
            sleep(head * 3).await;
            taken.send(chunk("data: 1\n\n") + "0\r\n\r\n").await;
        };
        let (events, ()) = tokio::join!(client.bare(request), answering);
        assert_eq!((events.status.as_u16(), &*events.body), (200, &b"data: 1\n\n"[..]));
        // Another body may not be silent for so long.
        let mut raw = server.raw().await;
        raw.send(get("/p/a", "")).await;
        let (mut taken, _) = upside.asked().await;
        taken.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        let seen = raw.until_closed().await;
        assert!(seen.ends_with(b"half"));
        ended(taken).await;
    })
    .await;
}

#[tokio::test]
async fn an_upstream_that_is_not_there_or_leaves_is_a_502() {
    bounded(async {
        let (server, upside) = pair().await;
        for client in [server.client(), server.client().h2()] {
            let post = || client.post("/p/a", &serde_json::json!({}));
            let leaving = async { drop(upside.asked().await) };
            let (left, ()) = tokio::join!(client.send(post()), leaving);
            assert_eq!(
                (left.status.as_u16(), &left.json()["error"]),
                (502, &"upstream_broken".into())
            );
            let babbling = upside.answer("this is not HTTP\r\n\r\n");
            assert_eq!(tokio::join!(client.send(post()), babbling).0.status, 502);
        }
        let address = upside.address;
        drop(upside);
        for client in [server.client(), server.client().h2()] {
            let gone = client.send(client.post("/p/a", &serde_json::json!({}))).await;
            assert_eq!(
                (gone.status.as_u16(), &gone.json()["error"]),
                (502, &"upstream_unreachable".into())
            );
            // Strangers are not told where it is.
            assert!(!String::from_utf8_lossy(&gone.body).contains(&address.port().to_string()));
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_vanishes_takes_its_request_along() {
    bounded(async {
        let (server, upside) = pair().await;
        let clients = [
            server.client(),
            server.client().abrupt(),
            server.client().h2(),
            server.client().abrupt().h2(),
        ];
        for client in clients {
            for stream in [false, true] {
                let accept = if stream { "text/event-stream" } else { "*/*" };
                let request = || client.request("GET", "/p/a").header("accept", accept);
                let request = || request().body(Full::default()).unwrap();
                // Before the head of the response …
                let mut conn = client.connect().await;
                let (taken, _) = tokio::select! {
                    _ = conn.begin(request()) => unreachable!(),
                    taken = upside.asked() => taken,
                };
                drop(conn);
                ended(taken).await;
                // … and in the middle of its body.
                let mut conn = client.connect().await;
                let answering = async {
                    let (mut taken, _) = upside.asked().await;
                    taken.send(EVENTS).await;
                    taken.send(chunk("data: 1\n\n")).await;
                    taken
                };
                let (response, taken) = tokio::join!(conn.begin(request()), answering);
                drop((response, conn));
                ended(taken).await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    bounded(async {
        let times = Times { write: Duration::from_millis(500), ..*config().times };
        let (server, upside) =
            with(Config { times: times.check().unwrap(), ..config() }, |upstream| upstream).await;
        for client in [server.client(), server.client().h2()] {
            let mut conn = client.connect().await;
            let request = client.request("GET", "/p/a").body(Full::default()).unwrap();
            let pouring = async {
                let (mut taken, _) = upside.asked().await;
                let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n";
                taken.send(head).await;
                let piece = vec![b'x'; 100_000];
                while tokio::io::AsyncWriteExt::write_all(&mut taken.io, &piece).await.is_ok() {}
            };
            let (_unread, ()) = tokio::join!(conn.begin(request), pouring);
        }
    })
    .await;
}

#[tokio::test]
async fn a_response_that_breaks_off_reaches_nobody_as_whole() {
    bounded(async {
        let (server, upside) = pair().await;
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n";
        let counted = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf";
        for response in [chunked, counted] {
            for client in [server.client(), server.client().h2()] {
                let mut conn = client.connect().await;
                let request = client.request("GET", "/p/a").body(Full::default()).unwrap();
                let answering = async {
                    let (mut taken, _) = upside.asked().await;
                    taken.send(response).await;
                    taken
                };
                let (answer, taken) = tokio::join!(conn.begin(request), answering);
                let mut body = answer.unwrap().into_body();
                assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
                drop(taken);
                assert!(body.frame().await.unwrap().is_err());
            }
        }
        // Clients of HTTP/1.0 see the end of a body by the end of TLS: there must be none.
        let mut raw = server.raw().await;
        raw.send(get("/p/a", "").replace("HTTP/1.1", "HTTP/1.0")).await;
        let (mut taken, _) = upside.asked().await;
        taken.send(chunked).await;
        raw.until("half").await;
        drop(taken);
        let error = raw.io.read_u8().await.unwrap_err();
        assert!(error.to_string().contains("close_notify"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn an_event_stream_that_breaks_off_says_so() {
    bounded(async {
        let (server, upside) = pair().await;
        let encoded = EVENTS.replace("\r\n\r\n", "\r\ncontent-encoding: gzip\r\n\r\n");
        for client in [server.client(), server.client().h2()] {
            for head in [
                EVENTS,
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 99\r\n\r\n",
            ] {
                let request = client.request("GET", "/p/a").body(Full::default()).unwrap();
                let answering = async {
                    let half = "data: ha";
                    let half = if head == EVENTS { chunk(half) } else { half.to_owned() };
                    upside.answer(&format!("{head}{half}")).await
                };
                let (answer, _) = tokio::join!(client.send(request), answering);
                let text = "data: ha\n\nevent: error\ndata: {\"jsonrpc\":\"2.0\",\"error\":\
                            {\"code\":-32603,\"message\":\"the upstream broke off\"}}\n\n";
                assert_eq!(std::str::from_utf8(&answer.body).unwrap(), text);
            }
            // Nothing can be added to what is compressed.
            let mut conn = client.connect().await;
            let request = client.request("GET", "/p/a").body(Full::default()).unwrap();
            let answering = async {
                let (mut taken, _) = upside.asked().await;
                taken.send(&encoded).await;
                taken
            };
            let (answer, taken) = tokio::join!(conn.begin(request), answering);
            drop(taken);
            assert!(answer.unwrap().into_body().collect().await.is_err());
        }
    })
    .await;
}

/// Opens an event stream that the upstream keeps open; none if it is refused.
async fn open(client: &Client, upside: &Upside, accept: &str) -> Option<(support::Stream, Taken)> {
    let request = client.request("GET", "/p/a").header("accept", accept);
    let opening = client.open(request.body(Full::default()).unwrap());
    let answering = async {
        let (mut taken, _) = timeout(Duration::from_millis(500), upside.asked()).await.ok()?;
        taken.send(EVENTS.to_owned() + &chunk("data: 1\n\n")).await;
        Some(taken)
    };
    let (stream, taken) = tokio::join!(opening, answering);
    if stream.status == 429 {
        assert!(stream.headers.contains_key("retry-after"));
        return None;
    }
    let mut stream = stream.events();
    assert!(stream.next().await.is_some());
    Some((stream, taken.unwrap()))
}

#[tokio::test]
async fn event_streams_take_places_and_give_them_back() {
    bounded(async {
        let limits = Limits { streams_per_ip: 2, ..*config().limits };
        let (server, upside) =
            with(Config { limits: limits.check().unwrap(), ..config() }, |upstream| upstream).await;
        let client = server.client();
        let first = open(&client, &upside, "text/event-stream").await.unwrap();
        // Whoever does not say that it is a stream has one all the same.
        let _second = open(&client, &upside, "*/*").await.unwrap();
        assert!(open(&client, &upside, "text/event-stream").await.is_none());
        assert!(open(&client, &upside, "*/*").await.is_none());
        let other = server.client().from(support::loopback(2));
        let _other = open(&other, &upside, "text/event-stream").await.unwrap();
        // Other responses need no place.
        let asking = client.bare(client.request("GET", "/p/a"));
        assert_eq!(tokio::join!(asking, upside.answer(OK)).0.status, 200);
        drop(first);
        while open(&client, &upside, "text/event-stream").await.is_none() {}
    })
    .await;
}

#[tokio::test]
async fn requests_under_way_take_places_and_give_them_back() {
    bounded(async {
        let (server, upside) = pair().await;
        let mut all = Vec::new();
        for _ in 0..64 {
            let mut raw = server.raw().await;
            raw.send(get("/open", "")).await;
            all.push((raw, upside.asked().await.0));
        }
        let client = server.client();
        let refused = client.bare(client.request("GET", "/open")).await;
        let error = &refused.json()["error"];
        assert_eq!((refused.status.as_u16(), error), (429, &"too_many_requests".into()));
        assert!(!refused.header("retry-after").is_empty());
        assert!(upside.is_untouched().await);
        // Behind the token there are other places.
        let asking = client.bare(client.request("GET", "/p/a"));
        assert_eq!(tokio::join!(asking, upside.answer(OK)).0.status, 200);
        // Others have places of their own, and so have event streams.
        let other = server.client().from(support::loopback(2));
        let asking = other.bare(other.request("GET", "/open"));
        assert_eq!(tokio::join!(asking, upside.answer(OK)).0.status, 200);
        let _stream = open(&client, &upside, "text/event-stream").await.unwrap();
        // A place is free when its response is over.
        let (raw, taken) = all.last_mut().unwrap();
        taken.send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf").await;
        raw.until("half").await;
        assert_eq!(client.bare(client.request("GET", "/open")).await.status, 429);
        taken.send("full").await;
        raw.until("full").await;
        let asking = client.bare(client.request("GET", "/open"));
        let answering = async {
            // The connection that has just become free is taken again.
            all.last_mut().unwrap().1.until("\r\n\r\n").await;
            all.last_mut().unwrap().1.send(OK).await;
        };
        assert_eq!(tokio::join!(asking, answering).0.status, 200);
    })
    .await;
}

#[tokio::test]
async fn strangers_take_no_place_from_token_holders() {
    let Rlimit { current: _, maximum } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    bounded(async {
        let limits = Limits { streams_per_ip: 1, ..*config().limits };
        let (server, upside) =
            with(Config { limits: limits.check().unwrap(), ..config() }, |upstream| upstream).await;
        // Eight addresses, each with all the requests that it may have under way on the open path.
        let (mut conns, mut held) = (Vec::new(), Vec::new());
        for last in 2..10 {
            let stranger = server.client().from(support::loopback(last)).stranger().h2();
            let mut conn = stranger.connect().await;
            for _ in 0..64 {
                let request = stranger.request("GET", "/open").body(Full::default()).unwrap();
                let half = async {
                    let (mut taken, _) = upside.asked().await;
                    taken.send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf").await;
                    taken
                };
                let (response, taken) = tokio::join!(conn.begin(request), half);
                held.push((response.unwrap(), taken));
            }
            conns.push(conn);
        }
        let newcomer = server.client().stranger();
        let refused = newcomer.bare(newcomer.request("GET", "/open")).await;
        let error = &refused.json()["error"];
        assert_eq!((refused.status.as_u16(), error), (503, &"requests_full".into()));
        // Neither a new address nor one of the eight is refused with a token.
        for last in [1, 2] {
            let client = server.client().from(support::loopback(last));
            let asking = client.bare(client.request("GET", "/p/a"));
            assert_eq!(tokio::join!(asking, upside.answer(OK)).0.status, 200);
            let _stream = open(&client, &upside, "text/event-stream").await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_done_is_not_refused_for_want_of_a_stream() {
    bounded(async {
        let limits = Limits { streams_per_ip: 1, ..*config().limits };
        let (server, upside) =
            with(Config { limits: limits.check().unwrap(), ..config() }, |upstream| upstream).await;
        let client = server.client();
        let _first = open(&client, &upside, "text/event-stream").await.unwrap();
        let post = || client.request("POST", "/p/a").body(Full::default()).unwrap();
        let events = format!("{EVENTS}{}0\r\n\r\n", chunk("data: 1\n\n"));
        let (answer, _) = tokio::join!(client.send(post()), upside.answer(&events));
        assert_eq!((answer.status.as_u16(), &*answer.body), (200, &b"data: 1\n\n"[..]));
        // It is an event stream all the same.
        let opening = client.open(post());
        let (stream, seen) = tokio::join!(opening, upside.answer(EVENTS));
        assert!(seen.starts_with("POST "), "{seen}");
        let broken = stream.events().next().await.unwrap();
        assert_eq!(broken.name.as_deref(), Some("error"));
    })
    .await;
}

#[tokio::test]
async fn streams_end_with_the_drain_and_other_responses_are_finished() {
    bounded(async {
        let (mut server, upside) = pair().await;
        let client = server.client();
        let (mut stream, taken) = open(&client, &upside, "text/event-stream").await.unwrap();
        let mut raw = server.raw().await;
        raw.send(get("/p/a", "")).await;
        let (mut slow, _) = upside.asked().await;
        slow.send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf").await;
        raw.until("half").await;
        server.begin_stop();
        assert!(stream.next().await.is_none(), "a clean end");
        ended(taken).await;
        slow.send("full").await;
        raw.until("full").await;
        drop(raw);
        assert!(server.stop().await);
    })
    .await;
}

#[tokio::test]
async fn a_preflight_is_answered_here_and_another_options_goes_up() {
    bounded(async {
        let config =
            Config { allow_origins: vec!["https://app.example".parse().unwrap()], ..config() };
        let (server, upside) = with(config, |upstream| upstream).await;
        let client = server.client().stranger();
        let preflight = || {
            let request = client.request("OPTIONS", "/p/a").header("origin", "https://app.example");
            request.header("access-control-request-method", "PATCH")
        };
        let answer = client.bare(preflight()).await;
        assert_eq!(answer.status, 204);
        assert!(answer.header("access-control-allow-methods").contains("PATCH"));
        assert_eq!(answer.header("access-control-allow-origin"), "https://app.example");
        let client = server.client();
        let options = client.request("OPTIONS", "/p/a").header("origin", "https://app.example");
        let response = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\
                        access-control-allow-origin: *\r\n\r\n";
        let (answer, seen) = tokio::join!(client.bare(options), upside.answer(response));
        assert!(seen.starts_with("OPTIONS /p/a "), "{seen}");
        assert_eq!(answer.header("access-control-allow-origin"), "https://app.example");
        let foreign = client.request("GET", "/p/a").header("origin", "https://evil.example");
        assert_eq!(client.bare(foreign).await.status, 403);
        assert!(upside.is_untouched().await);
    })
    .await;
}

#[tokio::test]
async fn many_requests_share_a_few_connections() {
    bounded(async {
        let (server, upside) = pair().await;
        let client = server.client();
        let mut conn = client.connect().await;
        let serving = async {
            let mut taken = upside.accept().await;
            for _ in 0..5 {
                taken.until("\r\n\r\n").await;
                taken.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
        };
        let asking = async {
            for _ in 0..5 {
                let request = client.request("GET", "/p/a").body(Full::default()).unwrap();
                assert_eq!(conn.send(request).await.body, "ok");
            }
        };
        tokio::join!(serving, asking);
    })
    .await;
}

const KEPT: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_costs_the_connection() {
    bounded(async {
        let (server, upside) = pair().await;
        let mut raw = server.raw().await;
        raw.send(posting("/p/a", "content-length: 100000\r\n") + "some").await;
        let (mut taken, _) = upside.asked().await;
        taken.send(KEPT).await;
        assert_eq!(raw.answer().await.unwrap().status, 200);
        // Nobody waits for the rest.
        raw.until_closed().await;
        ended(taken).await;
        let client = server.client();
        let asking = client.bare(client.request("GET", "/p/a"));
        assert_eq!(tokio::join!(asking, upside.answer(OK)).0.status, 200);
    })
    .await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_time_and_with_the_drain() {
    bounded(async {
        let (server, upside) = pair().await;
        let client = server.client();
        let request = || client.bare(client.request("GET", "/p/a"));
        let answering = async {
            let (mut taken, _) = upside.asked().await;
            taken.send(KEPT).await;
            taken
        };
        let begun = Instant::now();
        let (answer, taken) = tokio::join!(request(), answering);
        assert_eq!(answer.status, 200);
        timeout(Duration::from_secs(5), ended(taken)).await.unwrap();
        assert!(begun.elapsed() >= Duration::from_secs(3));
        let answering = async {
            let (mut taken, _) = upside.asked().await;
            taken.send(KEPT).await;
            taken
        };
        let (answer, taken) = tokio::join!(request(), answering);
        assert_eq!(answer.status, 200);
        let begun = Instant::now();
        assert!(server.stop().await);
        ended(taken).await;
        assert!(begun.elapsed() < Duration::from_secs(2));
    })
    .await;
}

#[tokio::test]
async fn a_safe_request_outlives_the_connection_that_it_was_sent_on() {
    bounded(async {
        let (server, upside) = pair().await;
        for client in [server.client(), server.client().h2()] {
            for (method, answered) in [("GET", true), ("OPTIONS", true), ("POST", false)] {
                let asking = client.bare(client.request("GET", "/p/a"));
                let answering = async {
                    let (mut taken, _) = upside.asked().await;
                    taken.send(KEPT).await;
                    taken
                };
                let (first, mut taken) = tokio::join!(asking, answering);
                assert_eq!(first.status, 200);
                let closing = async {
                    taken.until("\r\n\r\n").await;
                    drop(taken);
                    if answered { upside.answer(OK).await } else { String::new() }
                };
                let asking = client.bare(client.request(method, "/p/b?c"));
                let (second, seen) = tokio::join!(asking, closing);
                assert_eq!(second.status, if answered { 200 } else { 502 }, "{method}");
                if answered {
                    assert!(seen.starts_with(&format!("{method} /p/b?c HTTP/1.1\r\n")), "{seen}");
                }
            }
        }
        // On a new connection it is asked once only.
        let client = server.client();
        let asking = client.bare(client.request("GET", "/p/a"));
        let leaving = async { drop(upside.asked().await) };
        assert_eq!(tokio::join!(asking, leaving).0.status, 502);
        assert!(upside.is_untouched().await);
    })
    .await;
}
