//! What an upstream says that does not do what it was asked, in words that name the next step.

use http::{Method, Response, StatusCode, Uri, header};
use serde_json::Value;

use crate::client::refuses_host;
use crate::limits::bytes::Short;
use crate::wire::jsonrpc::{RequestId, code};

/// Where MCP servers mostly are.
pub(super) const WHERE: &str = "check host, port and path of --upstream (MCP_UPSTREAM): MCP servers \
                                are mostly at /mcp or /sse";

/// What was asked, as far as its refusal depends on it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    /// Its path: the query may hold a key.
    pub(super) path: String,
    /// Without TLS?
    pub(super) plain: bool,
    /// With the edge's own token?
    pub(super) token: bool,
}

impl Asked {
    pub(super) fn new(method: &Method, to: &Uri, url: &Uri, token: bool) -> Self {
        Self {
            method: method.clone(),
            path: to.path().to_owned(),
            plain: url.scheme_str() == Some("http"),
            token,
        }
    }
}

/// What is wrong, where the answer shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UpstreamFault {
    /// It does not take the `Host`.
    Host,
    /// It speaks TLS, and was spoken to without.
    Tls,
    /// Nothing in particular.
    Unknown,
}

/// A status that is no success, and what the upstream said beside it.
#[derive(Debug)]
pub(super) struct UpstreamRefusal {
    pub(super) status: StatusCode,
    /// Code and text, where the body is a JSON-RPC error.
    pub(super) error: Option<(i32, String)>,
    /// The request that the error answers, where it names one.
    answers: Option<RequestId>,
    /// Where it redirects to.
    location: Option<String>,
    asked: Asked,
    fault: UpstreamFault,
    /// Is it a web page?
    page: bool,
}

impl UpstreamRefusal {
    /// This response to what was asked, with this body.
    pub(super) fn new(response: &Response<()>, body: &[u8], asked: Asked) -> Self {
        let json: Option<Value> = serde_json::from_slice(body).ok();
        let error = json.as_ref().and_then(|body| body.get("error")).and_then(|error| {
            let code = i32::try_from(error.get("code")?.as_i64()?).ok()?;
            Some((code, error.get("message")?.as_str()?.to_owned()))
        });
        let answers = json.as_ref().and_then(|body| RequestId::parse(&body.get("id")?.to_string()));
        let status = response.status();
        let field = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let location = field(header::LOCATION).filter(|_| status.is_redirection());
        let location = location.map(str::to_owned);
        let page = is_page(field(header::CONTENT_TYPE).unwrap_or_default());
        let fault = if answers.is_none() && refuses_host(status, body) {
            UpstreamFault::Host
        } else if asked.plain && status == StatusCode::BAD_REQUEST && speaks_of_https(body) {
            UpstreamFault::Tls
        } else {
            UpstreamFault::Unknown
        };
        Self { status, error, answers, location, asked, fault, page }
    }

    /// The edge's own, of an answer that it has no memory for.
    pub(super) fn for_want_of_memory(status: StatusCode, short: Short, asked: Asked) -> Self {
        let text = format!("no memory for the upstream's answer: {short}");
        let error = Some((code::INTERNAL_ERROR, text));
        let fault = UpstreamFault::Unknown;
        Self { status, error, answers: None, location: None, asked, fault, page: false }
    }

    /// Does it not take the `Host` that it was sent?
    pub(super) fn is_of_host(&self) -> bool {
        self.fault == UpstreamFault::Host
    }

    /// Does it say by itself what to do? If so, to ask in another way would bring nothing.
    pub(super) fn is_clear(&self) -> bool {
        let wants_credential =
            matches!(self.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        self.fault != UpstreamFault::Unknown || wants_credential || self.location.is_some()
    }

    /// Status, and what came beside it, in a few words.
    pub(super) fn brief(&self) -> String {
        match &self.error {
            Some((_, text)) => format!("{} ({text:?})", self.status),
            None if self.page => format!("{} (a web page)", self.status),
            None => self.status.to_string(),
        }
    }

    /// What the client is told.
    pub(super) fn text(&self) -> String {
        let (status, Asked { method, path, token, .. }) = (self.status, &self.asked);
        match (self.fault, &self.error, &self.location) {
            (UpstreamFault::Host, ..) => format!(
                "the upstream refuses the Host that the edge sends it ({status}): give one that it \
                 takes by --upstream-host (MCP_UPSTREAM_HOST)"
            ),
            (UpstreamFault::Tls, ..) => format!(
                "the upstream speaks TLS at that port ({status} to plain HTTP): write https:// in \
                 --upstream (MCP_UPSTREAM)"
            ),
            (UpstreamFault::Unknown, Some((_, text)), _) => text.clone(),
            (UpstreamFault::Unknown, None, Some(to)) => format!(
                "the upstream redirects ({status}) to {to:?}: give that URL as --upstream \
                 (MCP_UPSTREAM)"
            ),
            (UpstreamFault::Unknown, None, None) => match status.as_u16() {
                401 | 403 if *token => format!(
                    "the upstream refuses the edge's token ({status}): check the file of \
                     --upstream-token-file (MCP_UPSTREAM_TOKEN_FILE)"
                ),
                401 | 403 => format!(
                    "the upstream wants a credential ({status}): give the edge one by \
                     --upstream-token-file (MCP_UPSTREAM_TOKEN_FILE)"
                ),
                404 | 410 => format!("the upstream has nothing at {path} ({status}): {WHERE}"),
                405 | 501 => {
                    format!("the upstream takes no {method} at {path} ({status}): {WHERE}")
                }
                502..=504 => format!(
                    "the upstream answered {status}: a proxy answers so whose own server is down"
                ),
                _ => format!("the upstream answered {}", self.brief()),
            },
        }
    }

    /// Does it say that it does not know the session? 404 is what the specification has; servers
    /// built on the SDKs' examples say 400 and name the session in the error. An error that answers
    /// the request itself is the request's, whatever it speaks of: a tool may have run.
    pub(super) fn is_lost_session(&self, request: Option<&RequestId>) -> bool {
        let code = self.error.as_ref().map(|(code, _)| *code);
        let of_the_transport = matches!(code, Some(code::TRANSPORT | code::SESSION_NOT_FOUND));
        if request.is_some() && self.answers.as_ref() == request && !of_the_transport {
            return false;
        }
        let named = || {
            let text = self.error.as_ref().map(|(_, text)| text.to_ascii_lowercase());
            text.is_some_and(|text| text.contains("session") || text.contains("not initialized"))
        };
        match self.status {
            StatusCode::NOT_FOUND => true,
            StatusCode::BAD_REQUEST => named(),
            _ => false,
        }
    }
}

/// Is this the type of a web page?
pub(super) fn is_page(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("text/html")
}

/// As servers do that get plain HTTP at a port with TLS.
fn speaks_of_https(body: &[u8]) -> bool {
    let said = String::from_utf8_lossy(body).to_ascii_lowercase();
    ["https port", "https server", "plain http", "requires tls", "use https"]
        .iter()
        .any(|words| said.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, kind: &str, body: &str, token: bool) -> UpstreamRefusal {
        let url = Uri::from_static("http://127.0.0.1:8000/app/mcp?key=secret");
        let response = Response::builder().status(status).header("content-type", kind);
        let asked = Asked::new(&Method::POST, &url, &url, token);
        UpstreamRefusal::new(&response.body(()).unwrap(), body.as_bytes(), asked)
    }

    #[test]
    fn each_refusal_names_the_next_step() {
        for (status, body, says) in [
            (404, "<html>", "the upstream has nothing at /app/mcp (404 Not Found): check host, "),
            (405, "", "the upstream takes no POST at /app/mcp (405 Method Not Allowed): check "),
            (501, "", "the upstream takes no POST at /app/mcp (501 Not Implemented): check host"),
            (401, "", "the upstream wants a credential (401 Unauthorized): give the edge one by -"),
            (403, "", "the upstream wants a credential (403 Forbidden): give the edge one by --up"),
            (403, "Invalid Host header", "the upstream refuses the Host that the edge sends it (4"),
            (421, "", "the upstream refuses the Host that the edge sends it (421 Misdirected Requ"),
            (400, "The plain HTTP request was sent to HTTPS port", "the upstream speaks TLS at th"),
            (502, "", "the upstream answered 502 Bad Gateway: a proxy answers so whose own server"),
            (500, "", "the upstream answered 500 Internal Server Error (a web page)"),
            (400, r#"{"error":{"code":-32600,"message":"no"}}"#, "no"),
        ] {
            let text = refusal(status, "text/html; charset=utf-8", body, false).text();
            assert!(text.starts_with(says), "{text}");
            assert!(!text.contains("secret"), "{text}");
        }
        let text = refusal(401, "", "", true).text();
        assert!(text.contains("refuses the edge's token"), "{text}");
    }

    #[test]
    fn an_error_that_answers_the_call_itself_is_not_about_the_host() {
        let body =
            r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32602,"message":"no such host header"}}"#;
        let own = refusal(400, "application/json", body, false);
        assert!(!own.is_of_host() && own.text() == "no such host header");
        let transport = body.replace('7', "null");
        assert!(refusal(400, "application/json", &transport, false).is_of_host());
    }
}
