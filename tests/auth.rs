//! Promise: who may pass is decided before anything else, in the forms of RFC 6750, whatever the
//! method and the HTTP version; and every refusal has a JSON body.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends where it fails, helpers of it too"
)]

mod support;

use http::request::Builder;
use http_body_util::Full;
use mcp_edge::{Access, Behind, Config, Limits};
use serde_json::{Value, json};
use support::{
    Answer, Client, Fixture, OTHER_TOKEN, TOKEN, TestServer, bounded, call, config, hello,
};

const MISSING: &str = r#"Bearer realm="mcp""#;
const WRONG: &str = r#"Bearer realm="mcp", error="invalid_token""#;
const MALFORMED: &str = r#"Bearer realm="mcp", error="invalid_request""#;
const PAGE: &str = "https://app.example.com";

async fn started(config: Config) -> TestServer {
    TestServer::start(config, Behind::handler(Fixture::new().0)).await
}

fn both(server: &TestServer) -> [Client; 2] {
    [server.client(), server.client().h2()]
}

/// A request that would be fine with a good token.
fn fine(client: &Client, method: &str, path: &str) -> Builder {
    let request =
        client.request(method, path).header("accept", "application/json, text/event-stream");
    request.header("content-type", "application/json")
}

async fn posted(client: &Client, request: Builder) -> Answer {
    let body = call(1, "f/echo", json!({})).to_string();
    client.send(request.body(Full::new(body.into())).unwrap()).await
}

/// A refusal outside JSON-RPC: a client must not take it for a server of another era.
fn plain(answer: &Answer) -> Value {
    let body = answer.json();
    assert!(body.get("jsonrpc").is_none() && body["error"].is_string(), "{answer:?}");
    body
}

#[tokio::test]
async fn a_bad_token_is_told_in_the_forms_of_rfc_6750() {
    bounded(async {
        let server = started(config()).await;
        let good = |scheme: &str| format!("{scheme} {TOKEN}");
        for client in both(&server).map(Client::stranger) {
            let cases: Vec<(Vec<String>, u16, &str)> = vec![
                (vec![], 401, MISSING),
                (vec!["Basic dXNlcjpwYXNz".to_owned()], 401, MISSING),
                (vec!["Bearer wrong".to_owned()], 401, WRONG),
                (vec![format!("Bearer {}", TOKEN.trim_end_matches('s'))], 401, WRONG),
                (vec![format!("Bearer {TOKEN}x")], 401, WRONG),
                (vec![format!("Bearer {}", "x".repeat(5000))], 401, WRONG),
                (vec!["Bearer".to_owned()], 400, MALFORMED),
                (vec![format!("Bearer {TOKEN} {TOKEN}")], 400, MALFORMED),
                (vec![format!("Bearer {TOKEN}, Bearer {TOKEN}")], 400, MALFORMED),
                (vec![good("Bearer"), good("Bearer")], 400, MALFORMED),
                (vec![good("Bearer"), "Basic dXNlcjpwYXNz".to_owned()], 400, MALFORMED),
                (vec![good("Bearer")], 200, ""),
                (vec![good("bearer")], 200, ""),
                (vec![good("BEARER")], 200, ""),
                (vec![format!("Bearer   {OTHER_TOKEN}")], 200, ""),
            ];
            for (values, status, challenge) in cases {
                let request = fine(&client, "POST", "/mcp");
                let request =
                    values.iter().fold(request, |it, value| it.header("authorization", value));
                let answer = posted(&client, request).await;
                assert_eq!(answer.status, status, "{values:?}: {answer:?}");
                assert_eq!(answer.header("www-authenticate"), challenge, "{values:?}");
                if status != 200 {
                    plain(&answer);
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn the_token_comes_before_the_method_and_the_path() {
    bounded(async {
        let server = started(config()).await;
        for client in both(&server) {
            let stranger = client.clone().stranger();
            for path in ["/mcp", "/mcp/", "/sse", "/messages?sessionId=x", "/", "/nope"] {
                for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "BREW"] {
                    let refused = stranger.bare(fine(&stranger, method, path)).await;
                    assert_eq!(refused.status, 401, "{method} {path}");
                    assert_eq!(refused.header("www-authenticate"), MISSING);
                    if method == "HEAD" {
                        assert!(refused.body.is_empty());
                    } else {
                        plain(&refused);
                    }
                }
            }
            for (method, path, status) in [
                ("PUT", "/mcp", 405),
                ("PATCH", "/mcp", 405),
                ("HEAD", "/mcp", 405),
                ("BREW", "/mcp", 405),
                ("GET", "/nope", 404),
                ("POST", "/", 404),
            ] {
                let answer = client.bare(fine(&client, method, path)).await;
                assert_eq!(answer.status, status, "{method} {path}");
                assert_eq!(status == 405, answer.header("allow").contains("POST"));
                if method != "HEAD" {
                    plain(&answer);
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_token_anywhere_else_is_ignored() {
    bounded(async {
        let server = started(config()).await;
        for client in both(&server).map(Client::stranger) {
            let query = format!("/mcp?token={TOKEN}&access_token={TOKEN}");
            let cookie = fine(&client, "POST", "/mcp").header("cookie", format!("token={TOKEN}"));
            let other = fine(&client, "POST", "/mcp").header("x-api-key", TOKEN);
            for request in [fine(&client, "POST", &query), cookie, other] {
                let answer = posted(&client, request).await;
                assert_eq!(
                    (answer.status.as_u16(), answer.header("www-authenticate")),
                    (401, MISSING)
                );
            }
        }
    })
    .await;
}

#[tokio::test]
async fn oauth_is_looked_for_in_vain_without_a_token() {
    bounded(async {
        let server = started(config()).await;
        for client in both(&server).map(Client::stranger) {
            for path in [
                "/.well-known/oauth-protected-resource",
                "/.well-known/oauth-protected-resource/mcp",
                "/.well-known/oauth-authorization-server",
                "/.well-known/oauth-authorization-server/mcp",
                "/.well-known/openid-configuration",
                "/.well-known/openid-configuration/mcp",
                "/mcp/.well-known/openid-configuration",
                "/mcp/.well-known/oauth-authorization-server",
                "/mcp/.well-known/oauth-protected-resource",
                "/register",
                "/authorize?response_type=code",
                "/token",
                "/mcp/register",
            ] {
                for method in ["GET", "POST"] {
                    let answer = client.bare(fine(&client, method, path)).await;
                    assert_eq!(answer.status, 404, "{method} {path}");
                    assert_eq!(answer.header("www-authenticate"), "");
                    plain(&answer);
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn liveness_is_for_everybody() {
    bounded(async {
        let server = started(config()).await;
        for client in both(&server).map(Client::stranger) {
            let answer = client.bare(client.request("GET", "/livez")).await;
            assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0));
        }
    })
    .await;
}

#[tokio::test]
async fn preflights_need_no_token_and_only_listed_pages_are_let_in() {
    bounded(async {
        let server =
            started(Config { allow_origins: vec![PAGE.parse().unwrap()], ..config() }).await;
        for client in both(&server) {
            let stranger = client.clone().stranger();
            let preflight = |origin: Option<&str>| {
                let request = stranger
                    .request("OPTIONS", "/mcp")
                    .header("access-control-request-method", "POST")
                    .header(
                        "access-control-request-headers",
                        "authorization, x-evil, mcp-session-id",
                    );
                match origin {
                    Some(origin) => request.header("origin", origin),
                    None => request,
                }
            };
            let allowed = stranger.bare(preflight(Some(PAGE))).await;
            assert_eq!(allowed.status, 204);
            assert_eq!(allowed.header("access-control-allow-origin"), PAGE);
            assert_eq!(
                allowed.header("access-control-allow-headers"),
                "authorization, mcp-session-id"
            );
            assert!(allowed.header("access-control-allow-methods").contains("DELETE"));
            assert!(allowed.header("vary").contains("Origin"));
            let foreign = stranger.bare(preflight(Some("https://evil.example.com"))).await;
            assert_eq!(
                (foreign.status.as_u16(), foreign.header("access-control-allow-origin")),
                (403, "")
            );
            plain(&foreign);
            let without = stranger.bare(preflight(None)).await;
            assert!(without.status.is_success());
            assert_eq!(without.header("access-control-allow-origin"), "");

            // Whatever becomes of it, an allowed page may read the answer.
            for (client, status) in [(&client, 200), (&stranger, 401)] {
                let answer =
                    posted(client, fine(client, "POST", "/mcp").header("origin", PAGE)).await;
                assert_eq!(answer.status, status);
                assert_eq!(answer.header("access-control-allow-origin"), PAGE);
                let exposed = answer.header("access-control-expose-headers").to_ascii_lowercase();
                for name in
                    ["mcp-session-id", "mcp-protocol-version", "www-authenticate", "retry-after"]
                {
                    assert!(exposed.contains(name), "{exposed}");
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn origins_must_be_ours() {
    bounded(async {
        let server =
            started(Config { allow_origins: vec![PAGE.parse().unwrap()], ..config() }).await;
        let port = server.address.port();
        for client in both(&server) {
            for (origin, status) in [
                (format!("https://localhost:{port}"), 200),
                (format!("https://127.0.0.1:{port}"), 200),
                (PAGE.to_owned(), 200),
                ("https://app.example.com:443".to_owned(), 200),
                ("http://app.example.com".to_owned(), 403),
                ("https://app.example.com:8443".to_owned(), 403),
                ("https://app.example.com.evil.com".to_owned(), 403),
                ("https://evil.example.com".to_owned(), 403),
                ("null".to_owned(), 403),
                ("https://localhost.evil.com".to_owned(), 403),
                ("nonsense".to_owned(), 403),
                (String::new(), 403),
            ] {
                for method in ["POST", "PUT", "GET", "DELETE"] {
                    if method == "GET" && status == 200 {
                        // A stream without end.
                        continue;
                    }
                    let request = fine(&client, method, "/mcp").header("origin", &origin);
                    let answer = posted(&client, request).await;
                    let right =
                        if status == 403 { answer.status == 403 } else { answer.status != 403 };
                    assert!(right, "{method} {origin}: {answer:?}");
                    if status == 403 {
                        plain(&answer);
                        assert_eq!(answer.header("access-control-allow-origin"), "");
                    }
                }
            }
            let two = fine(&client, "POST", "/mcp").header("origin", PAGE).header("origin", PAGE);
            assert_eq!(posted(&client, two).await.status, 403);
        }
    })
    .await;
}

#[tokio::test]
async fn hosts_must_be_ours() {
    bounded(async {
        let server =
            started(Config { allow_hosts: vec!["edge.example.com".parse().unwrap()], ..config() })
                .await;
        let port = server.address.port();
        for (host, status) in [
            ("localhost".to_owned(), 200),
            (format!("LOCALHOST:{port}"), 200),
            ("127.0.0.1".to_owned(), 200),
            ("[::1]:1".to_owned(), 200),
            ("edge.example.com".to_owned(), 200),
            ("evil.example.com".to_owned(), 403),
            ("localhost.evil.com".to_owned(), 403),
            ("192.0.2.1".to_owned(), 403),
            ("a b".to_owned(), 400),
            ("user@localhost".to_owned(), 400),
            (String::new(), 400),
        ] {
            assert_eq!(raw_host(&server, &format!("host: {host}\r\n")).await, status, "{host:?}");
        }
        assert_eq!(raw_host(&server, "").await, 400);
        assert_eq!(raw_host(&server, "host: localhost\r\nhost: localhost\r\n").await, 400);
        assert_eq!(raw_host(&server, "host: localhost\r\nhost: evil.com\r\n").await, 400);
    })
    .await;
}

async fn raw_host(server: &TestServer, host: &str) -> u16 {
    let mut raw = server.raw().await;
    let body = call(1, "f/echo", json!({})).to_string();
    raw.send(format!(
        "POST /mcp HTTP/1.1\r\n{host}authorization: Bearer {TOKEN}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
    .await;
    let answer = raw.answer().await.unwrap();
    assert!(answer.json().is_object());
    answer.status
}

#[tokio::test]
async fn over_http2_the_authority_is_the_host() {
    bounded(async {
        let server = started(config()).await;
        let client = server.client().h2();
        let port = server.address.port();
        for (authority, host, status) in [
            ("localhost".to_owned(), None, 200),
            (format!("127.0.0.1:{port}"), None, 200),
            ("evil.example.com".to_owned(), None, 403),
            ("localhost".to_owned(), Some("evil.example.com"), 400),
            ("evil.example.com".to_owned(), Some("localhost"), 400),
        ] {
            let request = fine(&client, "POST", "/mcp").uri(format!("https://{authority}/mcp"));
            let request = match host {
                Some(host) => request.header("host", host),
                None => request,
            };
            let answer = posted(&client, request).await;
            assert_eq!(answer.status, status, "{authority} {host:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn without_tokens_everybody_is_the_same() {
    bounded(async {
        let server = started(Config { access: Access::Anonymous, ..config() }).await;
        let client = server.client();
        let session = client.initialize("2025-11-25").await;
        let caller = session.call(1, "f/caller", json!({})).await;
        assert_eq!(caller["result"]["principal"], "anonymous");
        let stranger = support::Session { client: client.stranger(), ..session };
        stranger.call(1, "f/echo", json!({})).await;
    })
    .await;
}

#[tokio::test]
async fn every_refusal_has_a_json_body() {
    bounded(async {
        let limits = Limits { max_body_bytes: 10_000, max_headers: 50, ..*config().limits };
        let server = started(Config { limits: limits.check().unwrap(), ..config() }).await;
        for client in both(&server) {
            let body =
                |request: Builder, body: String| request.body(Full::new(body.into())).unwrap();
            let post = |name: &str, value: &str| {
                let request = client.request("POST", "/mcp").header(name, value);
                body(request, hello("2025-11-25").to_string())
            };
            let many = (0..60)
                .fold(fine(&client, "POST", "/mcp"), |it, n| it.header(format!("x-{n}"), "y"));
            let unacceptable = fine(&client, "POST", "/mcp").header("accept", "text/html;q=1");
            let mut unacceptable = body(unacceptable, hello("2025-11-25").to_string());
            unacceptable.headers_mut().insert("accept", "text/html".parse().unwrap());
            let encoded = fine(&client, "POST", "/mcp").header("content-encoding", "gzip");
            for (request, status) in [
                (body(fine(&client, "POST", "/mcp"), "{".to_owned()), 400),
                (body(client.clone().stranger().request("POST", "/mcp"), String::new()), 401),
                (body(fine(&client, "POST", "/nope"), String::new()), 404),
                (body(fine(&client, "PUT", "/mcp"), String::new()), 405),
                (unacceptable, 406),
                (body(fine(&client, "POST", "/mcp"), "x".repeat(20_000)), 413),
                (post("content-type", "text/plain"), 415),
                (post("x-nothing", "x"), 415),
                (body(encoded, hello("2025-11-25").to_string()), 415),
                (body(many, String::new()), 431),
            ] {
                let what = format!("{:?}, {} fields", request.uri(), request.headers().len());
                let answer = client.send(request).await;
                assert_eq!(answer.status, status, "{what}: {answer:?}");
                assert!(
                    answer.json()["error"].is_string() || answer.json()["error"]["code"].is_i64()
                );
            }
        }
    })
    .await;
}

async fn heads_within_32_kib(client: Client) {
    for (bytes, status) in [(20_000, 200), (33_000, 431), (40_000, 431)] {
        let long = fine(&client, "POST", "/mcp").header("x-long", "y".repeat(bytes));
        let answer = posted(&client, long).await;
        assert_eq!(answer.status, status, "{bytes}");
        assert!(answer.json().is_object(), "{bytes}");
    }
}

#[tokio::test]
async fn a_head_of_more_than_32_kib_is_431() {
    let server = started(config()).await;
    bounded(heads_within_32_kib(server.client())).await;
}

#[tokio::test]
async fn a_head_of_more_than_32_kib_is_431_over_http2() {
    let server = started(config()).await;
    bounded(heads_within_32_kib(server.client().h2())).await;
}

#[tokio::test]
async fn what_the_operator_forwards_a_listed_page_may_send() {
    bounded(async {
        let upside = support::Upside::new().await;
        let upstream = mcp_edge::Upstream {
            forward_headers: vec!["x-user-role".parse().unwrap(), "x-tenant".parse().unwrap()],
            ..upside.passing(&["/p/*"])
        };
        let config = Config { allow_origins: vec![PAGE.parse().unwrap()], ..config() };
        let server = TestServer::start(config, Behind::upstream(upstream)).await;
        for client in both(&server) {
            for (path, asked, allowed) in [
                ("/mcp", "X-User-Role, x-evil, authorization", "x-user-role, authorization"),
                ("/sse", "x-tenant", "x-tenant"),
                ("/mcp", "if-none-match", ""),
                (
                    "/p/a",
                    "x-user-role,if-none-match,range,cookie",
                    "x-user-role, if-none-match, range",
                ),
            ] {
                let request = client
                    .request("OPTIONS", path)
                    .header("origin", PAGE)
                    .header("access-control-request-method", "POST")
                    .header("access-control-request-headers", asked);
                let answer = client.bare(request).await;
                assert_eq!(answer.status, 204, "{path}");
                assert_eq!(answer.header("access-control-allow-headers"), allowed, "{path}");
            }
            let every = client.bare(client.request("OPTIONS", "/mcp").header("origin", PAGE)).await;
            assert!(every.header("access-control-allow-headers").contains("x-user-role"));
            let read = client.bare(client.request("GET", "/nope").header("origin", PAGE)).await;
            assert!(read.header("access-control-expose-headers").contains("x-request-id"));
        }
        assert!(upside.is_untouched().await);
    })
    .await;
}

#[tokio::test]
async fn an_origin_of_null_is_listed_by_that_word_only() {
    bounded(async {
        let list = |origins: &[&str]| origins.iter().map(|it| it.parse().unwrap()).collect();
        for (origins, status) in [(list(&["null"]), 200), (list(&[PAGE]), 403)] {
            let server = started(Config { allow_origins: origins, ..config() }).await;
            for client in both(&server) {
                let answer =
                    posted(&client, fine(&client, "POST", "/mcp").header("origin", "null")).await;
                assert_eq!(answer.status, status);
                let allowed = if status == 200 { "null" } else { "" };
                assert_eq!(answer.header("access-control-allow-origin"), allowed);
                let stranger = client.stranger();
                let asked = fine(&stranger, "POST", "/mcp").header("origin", "null");
                let unknown = posted(&stranger, asked).await;
                assert_eq!(unknown.status, if status == 200 { 401 } else { 403 });
                for other in ["Null", "null,", "null null", "file://"] {
                    let asked = fine(&stranger, "POST", "/mcp").header("origin", other);
                    assert_eq!(posted(&stranger, asked).await.status, 403, "{other}");
                }
            }
        }
        let open = Config {
            access: Access::Anonymous,
            allow_origins: list(&["null"]),
            tls: mcp_edge::TlsSource::None,
            ..config()
        };
        let behind = Behind::handler(Fixture::new().0);
        let refused = Box::pin(mcp_edge::Server::bind(open, behind)).await.unwrap_err();
        assert!(refused.to_string().contains("null"), "{refused}");
    })
    .await;
}

#[tokio::test]
async fn pages_of_other_sites_start_nothing() {
    bounded(async {
        let upside = support::Upside::new().await;
        let open = Config {
            access: Access::Anonymous,
            allow_origins: vec![PAGE.parse().unwrap()],
            ..config()
        };
        let server = TestServer::start(open, upside.behind(&["/p/*", "open:/o/*"])).await;
        for client in both(&server) {
            let sent = |method: &str, path: &str, site: &str, origin: Option<&str>| {
                let request = fine(&client, method, path).header("sec-fetch-site", site);
                let request = match origin {
                    Some(origin) => request.header("origin", origin),
                    None => request,
                };
                let client = client.clone();
                async move { client.bare(request).await }
            };
            for site in ["cross-site", "same-site", "Same-Origin", "nonsense", ""] {
                for (method, path) in [
                    ("GET", "/sse"),
                    ("GET", "/mcp"),
                    ("POST", "/mcp"),
                    ("DELETE", "/mcp"),
                    ("POST", "/messages"),
                    ("GET", "/mcp/tools"),
                    ("GET", "/tools/list"),
                    ("POST", "/mcp/call-tool"),
                    ("GET", "/p/a"),
                    ("GET", "/o/a"),
                    ("GET", "/nope"),
                ] {
                    let answer = sent(method, path, site, None).await;
                    assert_eq!(answer.status, 403, "{method} {path} {site}");
                    assert_eq!(plain(&answer)["error"], "cross_site", "{method} {path} {site}");
                }
            }
            // Its owner typed the address, the page is the edge's own, or it is listed.
            for (site, origin) in [
                ("none", None),
                ("same-origin", None),
                ("cross-site", Some(PAGE)),
                ("same-site", Some(PAGE)),
            ] {
                let answer = sent("PUT", "/mcp", site, origin).await;
                assert_eq!(answer.status, 405, "{site} {origin:?}");
            }
            for path in ["/livez", "/health", "/healthz"] {
                assert_eq!(sent("GET", path, "cross-site", None).await.status, 200, "{path}");
            }
            let twice = fine(&client, "GET", "/sse")
                .header("sec-fetch-site", "none")
                .header("sec-fetch-site", "none");
            assert_eq!(client.bare(twice).await.status, 403);
        }
        assert!(upside.is_untouched().await);
    })
    .await;
}

#[tokio::test]
async fn a_wrong_path_says_where_mcp_lives() {
    bounded(async {
        let server = started(Config { path: "/api/mcp".parse().unwrap(), ..config() }).await;
        for client in both(&server) {
            for (path, told) in [
                ("/", " /api/mcp "),
                ("/mcp", " /api/mcp "),
                ("/api/mcp/sse", " /sse "),
                ("//api/mcp", ": ask for /api/mcp"),
                ("/api//mcp", ": ask for /api/mcp"),
                ("/api/mcp//", ": ask for /api/mcp"),
                ("//sse", ": ask for /sse"),
                ("/api/mcp//tools/", ": ask for /api/mcp/tools"),
                ("//livez", ": ask for /livez"),
                ("//api//mcp//nope", " /api/mcp "),
            ] {
                let answer = client.bare(fine(&client, "GET", path)).await;
                assert_eq!(
                    (answer.status.as_u16(), &plain(&answer)["error"]),
                    (404, &"not_found".into())
                );
                let text = plain(&answer)["message"].as_str().unwrap().to_owned();
                assert!(text.contains(told), "{path}: {text}");
                // Nothing of a stranger's is repeated.
                assert!(!text.contains("//") && !text.contains("nope"), "{path}: {text}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn the_usual_health_paths_are_served_unless_a_rule_has_them() {
    bounded(async {
        let server = started(config()).await;
        for client in both(&server).map(Client::stranger) {
            for path in ["/health", "/healthz", "/health/", "/healthz/"] {
                for method in ["GET", "HEAD"] {
                    let answer = client.bare(client.request(method, path)).await;
                    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0), "{path}");
                }
                assert_eq!(client.bare(client.request("POST", path)).await.status, 401);
            }
        }
        let client = server.client();
        let wrong = client.bare(client.request("POST", "/health")).await;
        assert_eq!((wrong.status.as_u16(), wrong.header("allow")), (405, "GET, HEAD"));
        let upside = support::Upside::new().await;
        let page = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\npage";
        for (rule, has, has_not) in [
            ("open:/health", &["/health"][..], &["/healthz"][..]),
            ("open:/*", &["/health", "/healthz", "/health/"], &[]),
            ("open:/health/*", &["/health", "/health/"], &["/healthz"]),
        ] {
            let server = TestServer::start(config(), upside.behind(&[rule])).await;
            let client = server.client().stranger();
            for path in has {
                let asking = client.bare(client.request("GET", path));
                let (answer, seen) = tokio::join!(asking, upside.answer(page));
                assert_eq!(answer.body, "page", "{rule} {path}");
                assert!(seen.starts_with(&format!("GET {path} ")), "{seen}");
            }
            for path in has_not {
                let answer = client.bare(client.request("GET", path)).await;
                assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0), "{rule} {path}");
            }
        }
        // Behind the token, a stranger is not told that all is well.
        let server = TestServer::start(config(), upside.behind(&["/*"])).await;
        let stranger = server.client().stranger();
        assert_eq!(stranger.bare(stranger.request("GET", "/health")).await.status, 401);
        // Nor is another spelling of a page of the upstream's answered for it.
        let server = TestServer::start(config(), upside.behind(&["open:/health"])).await;
        let client = server.client();
        assert_eq!(client.bare(client.request("GET", "/health/")).await.status, 404);
        assert!(upside.is_untouched().await);
    })
    .await;
}
