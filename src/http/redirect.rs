//! Plain HTTP that is only redirected to TLS.

use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request};

use super::proxied::Proxied;
use super::refusal::Refusal;
use super::reply::{self, ReplyBody};
use super::route::Route;
use super::{App, head};
use crate::guard::{ConnInfo, Deny, Visit};
use crate::policy::Policy;
use crate::wire::forwarded::Prefix;

impl App {
    /// Redirects a request to the same path at `port` over TLS. Its body is not looked at.
    pub(crate) fn redirect<B>(
        &self,
        conn: &ConnInfo,
        request: Request<B>,
        port: u16,
    ) -> Response<ReplyBody> {
        let policy = &*self.policy.now();
        let (head, _body) = request.into_parts();
        let tag = self.requests.next();
        let Proxied { client, prefix, malformed } =
            Proxied::of(&policy.proxies, conn, &head.headers);
        let visit = policy.admission.visit(conn, client, &head, &prefix, &tag);
        let sent = match malformed.map_or_else(|| head::check_size(&policy.limits, &head), Err) {
            Ok(()) => self.redirected(policy, visit, port),
            Err(refusal) => self.refuse_stranger(policy, visit, refusal),
        };
        let mut response = self.finish(policy, visit, Route::Unknown, sent);
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }

    fn redirected(
        &self,
        policy: &Policy,
        visit: Visit<'_>,
        port: u16,
    ) -> Result<Response<ReplyBody>, Refusal> {
        // Only hosts that are ours come through here.
        self.guard.admit_onward(&policy.admission, visit)?;
        let head = visit.head;
        let location =
            location(head, visit.prefix, port).ok_or(Refusal::Denied(Deny::HostMalformed))?;
        let mut response = reply::empty(match head.method {
            Method::GET | Method::HEAD => StatusCode::MOVED_PERMANENTLY,
            // Method and body must stay what they are.
            _ => StatusCode::PERMANENT_REDIRECT,
        });
        response.headers_mut().insert(header::LOCATION, location);
        Ok(response)
    }
}

/// The same over TLS. The host has been looked at.
fn location(head: &request::Parts, prefix: &Prefix, port: u16) -> Option<HeaderValue> {
    let host = head::host(head)?;
    let host: Authority = host.to_str().ok()?.parse().ok()?;
    let host = host.host();
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    // `OPTIONS *` has no path, and what stands behind the port must not become a part of it.
    let target = if target.starts_with('/') { target } else { "/" };
    let prefix = prefix.as_str();
    HeaderValue::try_from(format!("https://{host}{port}{prefix}{target}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(method: &str, target: &str, host: &str, port: u16) -> Option<String> {
        let request = Request::builder().method(method).uri(target).header("host", host);
        let head = request.body(()).unwrap().into_parts().0;
        location(&head, &Prefix::default(), port).map(|it| it.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_place_is_the_same_over_tls() {
        for (target, host, port, place) in [
            ("/mcp?a=b", "mcp.example.com", 443, "https://mcp.example.com/mcp?a=b"),
            ("/", "mcp.example.com:80", 8443, "https://mcp.example.com:8443/"),
            ("/?", "[::1]:8080", 443, "https://[::1]/?"),
            ("//evil.example/", "a.example", 443, "https://a.example//evil.example/"),
            ("/\\evil.example", "a.example", 443, "https://a.example/\\evil.example"),
            ("/@evil.example", "a.example", 8443, "https://a.example:8443/@evil.example"),
            ("*", "a.example", 443, "https://a.example/"),
            ("*", "a.example", 8443, "https://a.example:8443/"),
            ("http://a.example:80/x", "a.example:80", 443, "https://a.example/x"),
            ("http://a.example", "a.example", 443, "https://a.example/"),
        ] {
            assert_eq!(to("OPTIONS", target, host, port).as_deref(), Some(place), "{target}");
        }
        assert_eq!(to("GET", "/", "", 443), None);
    }
}
