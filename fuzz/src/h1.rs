//! HTTP/1.1 responses, read strictly (RFC 9112).

/// One response.
#[derive(Debug)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its fields, names in lower case.
    pub fields: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a field that may come once; with a second one, none.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut all = self.fields.iter().filter(|(key, _)| key == name);
        match (all.next(), all.next()) {
            (Some((_, value)), None) => Some(value),
            _ => None,
        }
    }
}

/// All responses on a connection that was read to its end. If its client is `gone`, who closed
/// before it heard everything, the last may not be whole, and is left out then.
///
/// # Panics
/// Where a byte is not what a strict reader expects.
#[must_use]
pub fn responses(mut bytes: &[u8], gone: bool) -> Vec<Response> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let Some((response, rest)) = response(bytes) else {
            assert!(gone, "not whole: {}", shown(bytes));
            break;
        };
        all.push(response);
        bytes = rest;
    }
    all
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(400)]).into_owned()
}

/// The first response and what follows it; none if it is not whole.
fn response(bytes: &[u8]) -> Option<(Response, &[u8])> {
    let end = bytes.windows(4).position(|it| it == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).expect("a head that is no text");
    let rest = &bytes[end + 4..];
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let (version, status) = first.split_at_checked(9).unwrap_or_default();
    assert!(matches!(version, "HTTP/1.1 " | "HTTP/1.0 "), "{first}");
    let (digits, reason) = status.split_at_checked(3).expect("no status");
    assert!(reason.is_empty() || reason.starts_with(' '), "{first}");
    let status: u16 = digits.parse().expect("a status that is no number");
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').expect("a line without a colon");
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        assert!(!name.is_empty() && name.bytes().all(token), "{line:?}");
        assert!(!value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t'), "{line:?}");
        fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut response = Response { status, fields, body: Vec::new() };
    if status < 200 || status == 204 || status == 304 {
        return Some((response, rest));
    }
    let length = response.field("content-length").map(|it| it.parse::<usize>().expect("a length"));
    let coding = response.field("transfer-encoding").map(str::to_owned);
    // The answer to HEAD announces what does not come; no body of the edge's begins so.
    if rest.starts_with(b"HTTP/1.") || rest.is_empty() {
        return Some((response, rest));
    }
    let (body, rest) = match (length, coding.as_deref()) {
        (Some(_), Some(_)) => panic!("two ways to end: {head}"),
        (Some(length), None) => {
            let (body, rest) = rest.split_at_checked(length)?;
            (body.to_vec(), rest)
        }
        (None, Some("chunked")) => chunks(rest)?,
        (None, None) => (rest.to_vec(), &b""[..]),
        (None, Some(other)) => panic!("the coding {other}"),
    };
    response.body = body;
    Some((response, rest))
}

fn chunks(mut bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|it| it == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[..end]).expect("a size that is no text");
        let size = usize::from_str_radix(size, 16).expect("a size that is no number");
        let (chunk, rest) = bytes[end + 2..].split_at_checked(size)?;
        body.extend_from_slice(chunk);
        let (end, rest) = rest.split_at_checked(2)?;
        assert_eq!(end, b"\r\n", "a chunk without an end");
        bytes = rest;
        if size == 0 {
            return Some((body, bytes));
        }
    }
}
