//! Which header fields, and which target, a forwarded message has.

use http::{HeaderMap, HeaderName, Uri, header};

/// Fields that concern one connection only (RFC 9110 section 7.6.1), beside those that `Connection`
/// names.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// The fields that are for more than one connection.
pub(super) fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    for named in headers.get_all(header::CONNECTION) {
        for name in named.to_str().unwrap_or_default().split(',') {
            if let Ok(name) = HeaderName::try_from(name.trim()) {
                kept.remove(name);
            }
        }
    }
    for name in HOP_BY_HOP {
        kept.remove(name);
    }
    kept
}

/// The same path and query at the upstream.
pub(super) fn target(upstream: &Uri, asked: &Uri) -> Option<Uri> {
    let target = Uri::builder()
        .scheme(upstream.scheme()?.clone())
        .authority(upstream.authority()?.clone())
        .path_and_query(asked.path_and_query()?.clone());
    target.build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_one_connection_stays_on_it() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Mine"),
            ("connection", "x-more,, bad name"),
            ("x-mine", "1"),
            ("x-more", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("content-type", "text/plain"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        let kept = end_to_end(&headers);
        assert_eq!(kept.len(), 3, "{kept:?}");
        assert_eq!(kept.get_all("set-cookie").iter().count(), 2);
        assert!(kept.contains_key("content-type"));
    }

    #[test]
    fn only_the_path_and_the_query_are_the_clients() {
        let upstream = Uri::from_static("http://127.0.0.1:8000/mcp?key=1");
        let of = |asked: &str| target(&upstream, &asked.parse().unwrap()).map(|it| it.to_string());
        assert_eq!(of("/a/b?c=d").as_deref(), Some("http://127.0.0.1:8000/a/b?c=d"));
        assert_eq!(of("https://x.test/a").as_deref(), Some("http://127.0.0.1:8000/a"));
        assert_eq!(of("x.test:443"), None);
    }
}
