//! What framing takes and refuses, and that hyper reads the same out of what it takes.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use super::*;

const LIMITS: HeadLimits = HeadLimits { bytes: 4096, fields: 10 };

/// What framing says of these bytes, and how many of them it lets through.
fn judge(bytes: &[u8]) -> Result<(), FramingError> {
    let whole = Framing::new(LIMITS).follow(bytes).map_err(|violation| violation.error);
    let mut framing = Framing::new(LIMITS);
    let pieces = bytes.iter().try_for_each(|byte| framing.follow(&[*byte]));
    assert_eq!(whole, pieces.map_err(|violation| violation.error), "pieces are judged otherwise");
    whole
}

/// The bodies of whole requests, as framing sees them, and how many bytes may be handed on.
fn read_here(bytes: &[u8]) -> (Vec<Vec<u8>>, usize) {
    let mut framing = Framing::new(LIMITS);
    let (mut bodies, mut body) = (Vec::new(), Vec::new());
    let handed = Framing::new(LIMITS).follow(bytes).map_or_else(|it| it.at, |()| bytes.len());
    for byte in bytes {
        let before = framing.part;
        if framing.follow(&[*byte]).is_err() {
            break;
        }
        if matches!(before, Part::Body(_) | Part::ChunkData(_)) {
            body.push(*byte);
        }
        if before != Part::RequestLine && framing.part == Part::RequestLine {
            bodies.push(std::mem::take(&mut body));
        }
    }
    (bodies, handed)
}

/// The bodies of whole requests that hyper's server reads.
fn read_by_hyper(bytes: &[u8]) -> Vec<Vec<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| {
        let seen = Arc::clone(&seen);
        async move {
            if let Ok(body) = request.into_body().collect().await {
                seen.lock().unwrap().push(body.to_bytes().to_vec());
            }
            Ok::<_, Infallible>(http::Response::new(Empty::<Bytes>::new()))
        }
    });
    runtime.block_on(async {
        let (mut ours, theirs) = tokio::io::duplex(256 * 1024);
        ours.write_all(bytes).await.unwrap();
        ours.shutdown().await.unwrap();
        let mut builder = hyper::server::conn::http1::Builder::new();
        // How it ends is of no interest, only what it took for requests.
        drop(builder.half_close(true).serve_connection(TokioIo::new(theirs), service).await);
    });
    seen.lock().unwrap().clone()
}

#[test]
fn requests_of_real_clients_are_taken() {
    let long = format!("cookie: {}\r\n", "a=b; ".repeat(700));
    for head in [
        "POST /mcp HTTP/1.1\r\nHost: localhost:8443\r\nAccept: application/json, text/event-stream\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\nUser-Agent: python-httpx/0.28.1\r\nContent-Type: application/json\r\nmcp-protocol-version: 2025-06-18\r\nContent-Length: 2\r\n\r\n{}",
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\nconnection: keep-alive\r\naccept: application/json, text/event-stream\r\ncontent-type: application/json\r\naccept-language: *\r\nsec-fetch-mode: cors\r\nuser-agent: node\r\naccept-encoding: gzip, deflate\r\ncontent-length: 2\r\n\r\n{}",
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:8443\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "POST /mcp HTTP/1.1\r\nHost: [::1]:8443\r\nUser-Agent: Go-http-client/1.1\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\nAccept-Encoding: gzip\r\n\r\n2\r\n{}\r\n0\r\nX-Sum: 1\r\n\r\n",
        "GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nUser-Agent: claude-code/2.0.1 (cli)\r\nLast-Event-ID: 0-1\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "\r\nGET http://LocalHost/x?y HTTP/1.1\r\nHost: localhost\r\nX-Empty:\r\nX-Latin: caf\u{e9}\t\u{ff}\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nupgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
    ] {
        assert_eq!(judge(head.as_bytes()), Ok(()), "{head}");
        let (bodies, _) = read_here(head.as_bytes());
        assert_eq!(bodies.len(), 1, "{head}");
        assert_eq!(read_by_hyper(head.as_bytes()), bodies, "{head}");
    }
    let cookies = format!("GET / HTTP/1.1\r\nhost: a\r\n{long}\r\n");
    assert_eq!(judge(cookies.as_bytes()), Ok(()));
}

#[test]
fn what_a_rule_forbids_is_named() {
    let get = "GET / HTTP/1.1\r\nhost: a\r\n";
    let chunked = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let large = "x".repeat(5000);
    let many = "x: y\r\n".repeat(11);
    let extensions = format!("1;{}\r\nx\r\n", "y".repeat(200)).repeat(21);
    for (bytes, fault) in [
        ("GET / HTTP/1.1\nhost: a\n\n".to_owned(), FramingError::LineEnd),
        ("GET / HTTP/1.1\r\nhost: a\r\n\n".to_owned(), FramingError::LineEnd),
        (format!("{get}x: a\rb\r\n\r\n"), FramingError::LineEnd),
        (format!("{get}x: a\r\r\n\r\n"), FramingError::LineEnd),
        ("\n".to_owned(), FramingError::LineEnd),
        ("\r\n\r\nGET / HTTP/1.1\r\n".to_owned(), FramingError::EmptyLines),
        ("GET /\r\n".to_owned(), FramingError::RequestLine),
        (format!("GET /{large} HTTP/1.1\r\n"), FramingError::TargetTooLong),
        (format!("{get}x: {large}"), FramingError::HeadTooLarge),
        (format!("{get}{}", "x: y\r\n".repeat(1000)), FramingError::HeadTooLarge),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), FramingError::Host),
        (format!("{get}Host: a\r\n\r\n"), FramingError::Host),
        ("GET http://b/ HTTP/1.1\r\nhost: a\r\n".to_owned(), FramingError::Authority),
        (format!("{get}expect: more\r\n"), FramingError::Expectation),
        (format!("{get}content-length: 1\r\ncontent-length: 1\r\n"), FramingError::ContentLength),
        (
            format!("{get}transfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n"),
            FramingError::TwoLengths,
        ),
        (
            format!("{get}content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n"),
            FramingError::TwoLengths,
        ),
        (
            "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n".to_owned(),
            FramingError::TransferEncoding,
        ),
        (
            format!("{get}transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"),
            FramingError::TransferEncoding,
        ),
        (format!("{chunked}5\n"), FramingError::LineEnd),
        (format!("{chunked}\r\n"), FramingError::ChunkSize),
        (format!("{chunked}{}", "0".repeat(300)), FramingError::ChunkSize),
        (format!("{chunked}1;{}\r\n", "x".repeat(258)), FramingError::ChunkExtension),
        (format!("{chunked}{extensions}"), FramingError::ChunkExtension),
        (format!("{chunked}1\r\nxy\r\n"), FramingError::ChunkEnd),
        (format!("{chunked}1\r\nx\n"), FramingError::ChunkEnd),
        (format!("{chunked}0\r\n{many}"), FramingError::Trailer),
        (format!("{chunked}0\r\nx: {large}"), FramingError::Trailer),
        (format!("{chunked}0\r\ncontent-length: 1\r\n"), FramingError::Trailer),
        (format!("{chunked}0\r\nhost: a\r\n"), FramingError::Trailer),
        (format!("{chunked}0\r\nauthorization: a\r\n"), FramingError::Trailer),
        (format!("{chunked}0\r\n\n"), FramingError::LineEnd),
    ] {
        assert_eq!(judge(bytes.as_bytes()), Err(fault), "{bytes:.100}");
    }
}

#[test]
fn the_bytes_before_the_line_that_is_wrong_are_let_through() {
    let good = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let violation = Framing::new(LIMITS).follow(format!("{good}GET /\n").as_bytes());
    let at = good.len();
    assert_eq!(violation, Err(Violation { error: FramingError::LineEnd, at, in_body: false }));
    let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let violation = Framing::new(LIMITS).follow(format!("{head}zz\r\n").as_bytes());
    let at = head.len();
    assert_eq!(violation, Err(Violation { error: FramingError::ChunkSize, at, in_body: true }));
}

#[test]
fn what_reaches_a_limit_is_taken_and_one_byte_more_is_not() {
    // The target and the fields with their ends count; what else is in the head does not.
    let target = |length: usize| format!("OPTIONS /{} HTTP/1.0\r\n\r\n", "x".repeat(length - 1));
    assert_eq!(judge(target(4096).as_bytes()), Ok(()));
    assert_eq!(judge(target(4097).as_bytes()), Err(FramingError::TargetTooLong));
    let head = |length: usize| {
        let beside = "/".len() + "host: a\r\n".len() + "x: \r\n".len();
        format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(length - beside))
    };
    assert_eq!(judge(head(4096).as_bytes()), Ok(()));
    assert_eq!(judge(head(4097).as_bytes()), Err(FramingError::HeadTooLarge));
    let chunked = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n";
    let trailers =
        |length: usize| format!("{chunked}x: {}\r\n\r\n", "y".repeat(length - "x: \r\n".len()));
    assert_eq!(judge(trailers(4096).as_bytes()), Ok(()));
    assert_eq!(judge(trailers(4097).as_bytes()), Err(FramingError::Trailer));
    let fields = |count| format!("{chunked}{}\r\n", "x: y\r\n".repeat(count));
    assert_eq!(judge(fields(10).as_bytes()), Ok(()));
    assert_eq!(judge(fields(11).as_bytes()), Err(FramingError::Trailer));
    // Of trailers never more than 8 KiB.
    let roomy = |length: usize| {
        Framing::new(HeadLimits { bytes: 64 * 1024, fields: 10 })
            .follow(trailers(length).as_bytes())
            .map_err(|violation| violation.error)
    };
    assert_eq!((roomy(8192), roomy(8193)), (Ok(()), Err(FramingError::Trailer)));
    let chunk = |extension: usize| {
        let head = chunked.strip_suffix("0\r\n").unwrap();
        format!("{head}1;{}\r\nz\r\n0\r\n\r\n", "x".repeat(extension - 1))
    };
    assert_eq!(judge(chunk(256).as_bytes()), Ok(()));
    assert_eq!(judge(chunk(257).as_bytes()), Err(FramingError::ChunkExtension));
}

#[test]
fn what_is_still_to_come_of_a_chunk_is_known() {
    let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut framing = Framing::new(LIMITS);
    framing.follow(head.as_bytes()).unwrap();
    assert_eq!(framing.announced(), None);
    framing.follow(b"a\r\n012").unwrap();
    assert_eq!(framing.announced(), Some(Announced { request: 0, bytes: 7 }));
    framing.follow(b"3456789").unwrap();
    assert_eq!(framing.announced(), None);
    framing.follow(format!("\r\n0\r\n\r\n{head}2\r\n").as_bytes()).unwrap();
    assert_eq!(framing.announced(), Some(Announced { request: 1, bytes: 2 }));
}

#[test]
fn the_extensions_of_a_body_have_a_limit_together() {
    let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let full = format!("1;{}\r\nz\r\n", "x".repeat(255)).repeat(16);
    assert_eq!(judge(format!("{head}{full}0\r\n\r\n").as_bytes()), Ok(()));
    assert_eq!(judge(format!("{head}{full}0;\r\n").as_bytes()), Err(FramingError::ChunkExtension));
}

#[test]
fn an_expectation_is_passed_over_in_http_1_0() {
    let head = |version| format!("GET / HTTP/{version}\r\nhost: a\r\nexpect: more\r\n\r\n");
    assert_eq!(judge(head("1.0").as_bytes()), Ok(()));
    assert_eq!(judge(head("1.1").as_bytes()), Err(FramingError::Expectation));
}

#[test]
fn an_error_has_the_status_label_and_text_that_its_peer_can_use() {
    for (error, status, label) in [
        (FramingError::LineEnd, "400 Bad Request", "bad_request"),
        (FramingError::TargetTooLong, "414 URI Too Long", "uri_too_long"),
        (FramingError::Expectation, "417 Expectation Failed", "expectation_failed"),
        (FramingError::HeadTooLarge, "431 Request Header Fields Too Large", "head_too_large"),
    ] {
        let answer = String::from_utf8(error.refusal().bytes().to_vec()).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
        assert_eq!(error.refusal().label(), label);
    }
    let answer = String::from_utf8(FramingError::Host.refusal().bytes().to_vec()).unwrap();
    assert!(answer.contains("there must be one Host field, and it must name a host"), "{answer}");
}

/// One well-formed request.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let body = proptest::collection::vec(any::<u8>(), 0..40);
    let field = "[a-z][a-zA-Z0-9_-]{0,9}:[ \t]?[ -~]{0,12}\r\n";
    let fields = proptest::collection::vec(field, 0..4);
    ("(GET|POST|PUT)", "/[a-z0-9?=&%]{0,12}", fields, 0..3_u8, body, 1..20_usize).prop_map(
        |(method, target, fields, kind, body, step)| {
            let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n").into_bytes();
            for field in fields {
                // These would mean something.
                if !["te", "host", "expect", "connection", "upgrade"]
                    .iter()
                    .any(|it| field.starts_with(it))
                {
                    bytes.extend_from_slice(b"x-");
                    bytes.extend_from_slice(field.as_bytes());
                }
            }
            match kind {
                0 => bytes.extend_from_slice(b"\r\n"),
                1 => {
                    bytes.extend(format!("content-length: {}\r\n\r\n", body.len()).into_bytes());
                    bytes.extend_from_slice(&body);
                }
                _ => {
                    bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                    for chunk in body.chunks(step) {
                        bytes.extend(format!("{:x};x=y\r\n", chunk.len()).into_bytes());
                        bytes.extend_from_slice(chunk);
                        bytes.extend_from_slice(b"\r\n");
                    }
                    bytes.extend_from_slice(b"0\r\n\r\n");
                }
            }
            bytes
        },
    )
}

/// What is put in somewhere, in place of so many bytes.
fn mutation() -> impl Strategy<Value = (usize, usize, Vec<u8>)> {
    let text = proptest::sample::select(vec![
        "",
        "\n",
        "\r",
        "\r\n",
        " ",
        "\t",
        "\0",
        ":",
        ";",
        ",",
        "0",
        "1",
        "a",
        "\u{b}",
        "\u{7f}",
        "\r\n ",
        "content-length: 3\r\n",
        "Content-Length : 3\r\n",
        "transfer-encoding: chunked\r\n",
        "transfer-encoding: identity\r\n",
        "host: b\r\n",
        "\r\n0\r\n\r\n",
        "GET /x HTTP/1.1\r\n",
        "0x",
        "+",
        "-",
        "HTTP/1.0",
        "\r\nexpect: 100-continue\r\n",
        "#",
        "//",
        "http://a/",
    ]);
    (any::<usize>(), 0..3_usize, text.prop_map(|text| text.as_bytes().to_vec()))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn well_formed_requests_are_read_as_hyper_reads_them(
        requests in proptest::collection::vec(request(), 1..4)
    ) {
        let bytes = requests.concat();
        prop_assert_eq!(judge(&bytes), Ok(()), "{}", String::from_utf8_lossy(&bytes));
        let (bodies, _) = read_here(&bytes);
        prop_assert_eq!(bodies.len(), requests.len());
        prop_assert_eq!(read_by_hyper(&bytes), bodies);
    }

    #[test]
    fn hyper_finds_no_request_that_framing_does_not(
        requests in proptest::collection::vec(request(), 1..4),
        mutations in proptest::collection::vec(mutation(), 1..4),
    ) {
        let mut bytes = requests.concat();
        for (at, less, text) in mutations {
            let at = at % (bytes.len() + 1);
            let end = (at + less).min(bytes.len());
            bytes.splice(at..end, text);
        }
        let _verdict = judge(&bytes);
        let (bodies, handed) = read_here(&bytes);
        let theirs = read_by_hyper(&bytes[..handed]);
        // hyper may be stricter; it ends early where a request is the connection's last.
        prop_assert!(bodies.starts_with(&theirs), "{:?}", String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _verdict = judge(&bytes);
    }
}
