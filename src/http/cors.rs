//! CORS (Fetch standard, section 3.2) for the origins that the operator allowed by name.

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::reply::{self, ReplyBody};
use super::route::Route;
use crate::client::Passable;

const METHODS: HeaderValue = HeaderValue::from_static(Route::Mcp.allow());
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "mcp-session-id, mcp-protocol-version, www-authenticate, retry-after, x-request-id",
);
/// On paths that are passed through there are more.
const PASSED_METHODS: HeaderValue =
    HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
/// How long a browser may keep the answer to a preflight, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// Header fields that a page may send.
const ALLOWED: [&str; 8] = [
    "authorization",
    "content-type",
    "accept",
    "mcp-protocol-version",
    "mcp-method",
    "mcp-name",
    "mcp-session-id",
    "last-event-id",
];
/// And every field that begins so.
const ALLOWED_PREFIX: &str = "mcp-param-";

/// Is this OPTIONS a preflight? One without this field is a request of its own.
pub(super) fn is_preflight(request: &HeaderMap) -> bool {
    request.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a preflight from an allowed origin, for a path that is passed through or not.
/// Fields that the operator has `forwarded` to an upstream may come from a page, too.
pub(super) fn preflight(
    request: &HeaderMap,
    passed: bool,
    forwarded: &[HeaderName],
) -> Response<ReplyBody> {
    let mut response = reply::empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    let methods = if passed { PASSED_METHODS } else { METHODS };
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    if let Ok(names) = HeaderValue::try_from(vetted(request, passed, forwarded)) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names);
    }
    response
}

/// The fields that were asked for and are allowed; all that are allowed where none was asked for.
fn vetted(request: &HeaderMap, passed: bool, forwarded: &[HeaderName]) -> String {
    let asked = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
    let Some(asked) = asked.and_then(|value| value.to_str().ok()) else {
        let all = ALLOWED.into_iter().chain(forwarded.iter().map(HeaderName::as_str));
        return all.collect::<Vec<_>>().join(", ");
    };
    let names = asked.split(',').map(|name| name.trim().to_ascii_lowercase());
    let allowed = names.filter(|name| {
        ALLOWED.contains(&name.as_str())
            || forwarded.iter().any(|listed| listed.as_str() == name)
            || (passed && Passable::has(name))
            || (name.starts_with(ALLOWED_PREFIX) && HeaderName::try_from(name).is_ok())
    });
    allowed.collect::<Vec<_>>().join(", ")
}

/// Lets the page read the response.
pub(super) fn allow(response: &mut Response<ReplyBody>, origin: &HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_vetted_fields_are_allowed() {
        let mut request = HeaderMap::new();
        let forwarded = ["x-user-role".parse().unwrap()];
        assert_eq!(vetted(&request, false, &[]), ALLOWED.join(", "));
        assert!(vetted(&request, false, &forwarded).ends_with(", last-event-id, x-user-role"));
        let asked = "Authorization, X-Evil, mcp-param-region,mcp-session-id, X-User-Role, Range";
        request.insert("access-control-request-headers", asked.parse().unwrap());
        let own = "authorization, mcp-param-region, mcp-session-id";
        assert_eq!(vetted(&request, false, &[]), own);
        assert_eq!(vetted(&request, false, &forwarded), format!("{own}, x-user-role"));
        assert_eq!(vetted(&request, true, &forwarded), format!("{own}, x-user-role, range"));
    }
}
