//! The head of a request, parsed once: what it names, and what it takes for an answer.

use http::{HeaderMap, HeaderName, Method, header, request};

use super::refusal::{BadHead, Refusal};
use super::route::Route;
use crate::config::Limits;
use crate::mcp::Accept;
use crate::wire::fields;

static SESSION: HeaderName = fields::SESSION_ID;
static VERSION: HeaderName = fields::PROTOCOL_VERSION;
static LAST_EVENT: HeaderName = fields::LAST_EVENT_ID;

/// The bytes of a head as HTTP/1.1 would write it. hyper's own limit is one of its read buffer,
/// which a head that comes at once may pass.
pub(super) fn size(head: &request::Parts) -> usize {
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let field = |(name, value): (&HeaderName, &header::HeaderValue)| {
        name.as_str().len() + value.len() + ": \r\n".len()
    };
    target + head.headers.iter().map(field).sum::<usize>()
}

/// Refuses a head of more fields or bytes than are allowed.
pub(super) fn check_size(limits: &Limits, head: &request::Parts) -> Result<(), Refusal> {
    let fits = head.headers.len() <= limits.max_headers && size(head) <= limits.max_header_bytes;
    if fits { Ok(()) } else { Err(Refusal::HeadTooLarge) }
}

/// The fields of a request that the transports look at.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    pub(super) accept: Accept,
    pub(super) session: Option<&'a str>,
    pub(super) version: Option<&'a str>,
    pub(super) last_event: Option<&'a str>,
}

impl<'a> Fields<'a> {
    /// Reads them, but for `accept`, which the route decides.
    pub(super) fn of(headers: &'a HeaderMap, accept: Accept) -> Result<Self, BadHead> {
        Ok(Self {
            accept,
            session: single(headers, &SESSION)?,
            // Nothing in them is as good as not there; an empty session id is an unknown one.
            version: single(headers, &VERSION)?.filter(|text| !text.is_empty()),
            last_event: single(headers, &LAST_EVENT)?.filter(|text| !text.is_empty()),
        })
    }
}

fn single<'a>(
    headers: &'a HeaderMap,
    name: &'static HeaderName,
) -> Result<Option<&'a str>, BadHead> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match value.to_str().map(str::trim) {
            Ok(value) => Ok(Some(value)),
            Err(_not_ascii) => Err(BadHead::Field(name.as_str())),
        },
        (Some(_), Some(_)) => Err(BadHead::Field(name.as_str())),
    }
}

/// What `Accept` names. Nothing said, nothing excluded but event streams: a bare client that does
/// not ask for events cannot read them.
pub(super) fn accepted(headers: &HeaderMap) -> Accept {
    let mut accept = Accept { json: false, events: false };
    let mut said = false;
    for value in headers.get_all(header::ACCEPT) {
        for range in value.to_str().unwrap_or_default().split(',') {
            said |= !range.trim().is_empty();
            let mut parts = range.split(';').map(str::trim);
            let essence = parts.next().unwrap_or_default();
            let is = |names: &[&str]| names.iter().any(|name| essence.eq_ignore_ascii_case(name));
            let refused = parts.any(|parameter| {
                let weight = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="));
                weight.and_then(|weight| weight.parse::<f32>().ok()).is_some_and(|q| q <= 0.0)
            });
            // Wildcards allow an event stream, but do not ask for one.
            accept.json |= !refused && is(&["application/json", "*/*", "application/*"]);
            accept.events |= !refused && is(&["text/event-stream", "text/*"]);
        }
    }
    if !said {
        accept.json = true;
    }
    accept
}

/// What this request takes for an answer. Whoever asks for a stream by GET takes one by a wildcard,
/// too: there is nothing else. HTTP+SSE clients need not even name it.
pub(super) fn accept(head: &request::Parts, route: Route) -> Accept {
    let headers = &head.headers;
    let accept = accepted(headers);
    let asks_for_stream = head.method == Method::GET && matches!(route, Route::Mcp | Route::Sse);
    let is_said = headers.contains_key(header::ACCEPT);
    let silent = route == Route::Sse && !is_said;
    let events = accept.events || asks_for_stream && (silent || has_wildcard(headers));
    Accept { events, ..accept }
}

fn has_wildcard(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::ACCEPT).iter();
    values.any(|value| value.to_str().is_ok_and(|text| text.contains("*/*")))
}

/// Is the text that `Content-Type` names one of JSON's (RFC 8259 section 8.1), or a part of it?
fn is_unicode(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else { return true };
    let value = value.trim().trim_matches('"');
    !name.trim().eq_ignore_ascii_case("charset")
        || ["utf-8", "utf8", "us-ascii"].iter().any(|name| value.eq_ignore_ascii_case(name))
}

/// A body must say that it is JSON, and come as it is.
pub(super) fn check_content(headers: &HeaderMap) -> Result<(), BadHead> {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (types.next(), types.next()) else {
        return Err(BadHead::MediaType);
    };
    let mut parts = value.to_str().unwrap_or_default().split(';');
    let essence = parts.next().unwrap_or_default();
    let unicode = parts.all(is_unicode);
    let plain = headers.get_all(header::CONTENT_ENCODING).iter().all(|encoding| {
        encoding.to_str().is_ok_and(|text| text.trim().eq_ignore_ascii_case("identity"))
    });
    if plain && unicode && essence.trim().eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(BadHead::MediaType)
    }
}

/// The host that a request is addressed to.
pub(super) fn host(head: &request::Parts) -> Option<http::HeaderValue> {
    match head.uri.authority() {
        Some(authority) => http::HeaderValue::try_from(authority.as_str()).ok(),
        None => head.headers.get(header::HOST).cloned(),
    }
}

/// The `sessionId` of a query.
pub(super) fn session_in_query(head: &request::Parts) -> Option<&str> {
    let pairs = head.uri.query()?.split('&');
    let mut named = pairs.filter_map(|pair| match pair.split_once('=') {
        Some(("sessionId" | "session_id", value)) => Some(value),
        Some(_) | None => None,
    });
    match (named.next(), named.next()) {
        (Some(value), None) if !value.is_empty() => Some(value),
        (_, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for value in values {
            map.append(name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn what_is_taken_for_an_answer_depends_on_the_route_and_the_method() {
        let events = "text/event-stream";
        let both = "application/json, text/event-stream";
        // For each header: the answers to GET of the unified path, GET of `/sse`, and everything else.
        let (none, json, stream, all) = ("", "json", "events", "json events");
        for (said, mcp, sse, others) in [
            (&[][..], json, all, json),
            (&[""], json, json, json),
            (&["*/*"], all, all, json),
            (&["*/*;q=0.1"], all, all, json),
            (&["application/json"], json, json, json),
            (&["application/*"], json, json, json),
            (&[events], stream, stream, stream),
            (&["text/*"], stream, stream, stream),
            (&[both], all, all, all),
            (&["application/json", events], all, all, all),
            (&["application/json;q=0, text/event-stream"], stream, stream, stream),
            (&["application/json, text/event-stream;q=0"], json, json, json),
            (&["Application/JSON; charset=utf-8"], json, json, json),
            (&["application/json;q=0, text/event-stream;q=0.5"], stream, stream, stream),
            (&["text/html"], none, none, none),
            (&["text/html, */*"], all, all, json),
        ] {
            for method in [Method::GET, Method::HEAD, Method::POST, Method::DELETE] {
                for route in [Route::Mcp, Route::Sse, Route::Messages, Route::Tools] {
                    let mut request = http::Request::new(());
                    *request.method_mut() = method.clone();
                    *request.headers_mut() = headers("accept", said);
                    let accept = accept(&request.into_parts().0, route);
                    let right = match (&method, route) {
                        (&Method::GET, Route::Mcp) => mcp,
                        (&Method::GET, Route::Sse) => sse,
                        _ => others,
                    };
                    let right = (right.contains("json"), right.contains("events"));
                    let read = (accept.json, accept.events);
                    assert_eq!(read, right, "{said:?} {method} {route:?}");
                }
            }
        }
    }

    #[test]
    fn a_body_must_be_plain_json() {
        for good in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
            "application/json; charset=utf8; v=1",
            "application/json; CharSet=US-ASCII",
            "application/json;",
        ] {
            assert_eq!(check_content(&headers("content-type", &[good])), Ok(()), "{good}");
        }
        for charset in ["utf-16", "\"utf-16\"", "utf-8; charset=utf-16", "", "utf-8x", "latin1"] {
            let text = format!("application/json; charset={charset}");
            let checked = check_content(&headers("content-type", &[&text]));
            assert_eq!(checked, Err(BadHead::MediaType), "{charset}");
        }
        for bad in [&[][..], &["text/plain"], &["application/jsonx"], &["application/json"; 2]] {
            assert_eq!(check_content(&headers("content-type", bad)), Err(BadHead::MediaType));
        }
        let mut zipped = headers("content-type", &["application/json"]);
        zipped.insert("content-encoding", "gzip".parse().unwrap());
        assert_eq!(check_content(&zipped), Err(BadHead::MediaType));
    }

    #[test]
    fn a_field_comes_once_and_in_ascii() {
        let twice = headers("mcp-session-id", &["a", "b"]);
        assert_eq!(single(&twice, &SESSION), Err(BadHead::Field("mcp-session-id")));
        let strange = headers("mcp-session-id", &["caf\u{e9}"]);
        assert!(single(&strange, &SESSION).is_err());
    }

    #[test]
    fn the_session_of_a_query() {
        let of = |target: &str| {
            let request = http::Request::builder().uri(target).body(()).unwrap();
            session_in_query(&request.into_parts().0).map(str::to_owned)
        };
        assert_eq!(of("/messages?sessionId=abc"), Some("abc".into()));
        assert_eq!(of("/messages?x=1&session_id=abc"), Some("abc".into()));
        for none in ["/messages", "/messages?sessionId=", "/messages?sessionId=a&sessionId=b"] {
            assert_eq!(of(none), None);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(value in "[ -~]*") {
            accepted(&headers("accept", &[&value]));
            let _content = check_content(&headers("content-type", &[&value]));
        }
    }
}
