//! Who a connection or a request really comes from, where a trusted proxy stands in front.
//!
//! [`read`] knows both versions of the PROXY protocol (sections 2.1 and 2.2 of
//! `proxy-protocol.txt`), [`TrustedProxies`] the `X-Forwarded-For` header, [`Prefix`] the
//! `X-Forwarded-Prefix` header. Whatever is unclear is refused: a client that could choose its
//! address would escape every limit.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::HeaderMap;
use ipnet::{IpNet, Ipv4Net};

/// How version 1 begins. No HTTP method is called so.
const WORD: &[u8] = b"PROXY ";

/// The longest line of version 1, its end included, and the shortest (`PROXY UNKNOWN`).
const LONGEST_LINE: usize = 107;
const SHORTEST_LINE: usize = 15;

/// How version 2 begins: as nothing else does.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The part of version 2 that is always there; its last two bytes are the length of the rest.
const FIXED: usize = 16;

/// The longest header that is read. A line is shorter; in version 2 this leaves 4 KiB for addresses
/// and what proxies like to add.
pub(crate) const MAX_HEADER: usize = FIXED + 4096;

const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_PREFIX: &str = "x-forwarded-prefix";

/// Bytes of the longest prefix.
const LONGEST_PREFIX: usize = 256;

/// How many entries of `X-Forwarded-For` are looked at.
const MOST_ENTRIES: usize = 64;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// A PROXY header, or its beginning so far. At least `needed` more bytes belong to it, so that
    /// who reads no more takes nothing that stands behind it.
    Partial { needed: usize },
    /// Something else.
    Absent,
    /// A PROXY header of `length` bytes. No source is told for connections of the proxy's own, and
    /// for those that are not TCP.
    Present { length: usize, source: Option<SocketAddr> },
}

/// Why a PROXY header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadHeader {
    #[error("the PROXY line does not end within {LONGEST_LINE} bytes")]
    LongLine,
    #[error("the PROXY line does not end in CR LF")]
    LineEnd,
    #[error("the PROXY line does not consist of a protocol, two addresses and two ports")]
    Fields,
    #[error("the PROXY line names neither TCP4 nor TCP6 nor UNKNOWN")]
    Protocol,
    #[error("the PROXY line has an address that is not of the protocol named")]
    Address,
    #[error("the PROXY line has a port that is no number from 0 to 65535")]
    Port,
    #[error("the PROXY header is of version {0}, not 2")]
    Version(u8),
    #[error("the PROXY header has the unknown command {0}")]
    Command(u8),
    #[error("the PROXY header has the unknown address family and protocol {0:#04x}")]
    Family(u8),
    #[error("the PROXY header is too short for its addresses")]
    Short,
    #[error("the PROXY header is longer than {MAX_HEADER} bytes")]
    Long,
}

/// Reads the PROXY header that `bytes` begin with.
pub(crate) fn read(bytes: &[u8]) -> Result<Header, BadHeader> {
    // The first byte tells the two apart; as long as there is none, the shorter one may come.
    if agree(bytes, WORD) {
        read_line(bytes)
    } else if agree(bytes, SIGNATURE) {
        read_binary(bytes)
    } else {
        Ok(Header::Absent)
    }
}

/// Does one of the two begin with the other?
fn agree(bytes: &[u8], other: &[u8]) -> bool {
    bytes.iter().zip(other).all(|(ours, theirs)| ours == theirs)
}

fn read_line(bytes: &[u8]) -> Result<Header, BadHeader> {
    let longest = LONGEST_LINE - 1;
    let Some(end) = bytes.iter().take(longest).position(|byte| matches!(byte, b'\r' | b'\n'))
    else {
        if bytes.len() >= longest {
            return Err(BadHeader::LongLine);
        }
        let needed = SHORTEST_LINE.saturating_sub(bytes.len()).max(2);
        return Ok(Header::Partial { needed });
    };
    match (bytes.get(end), bytes.get(end + 1)) {
        (Some(b'\r'), Some(b'\n')) => {}
        (Some(b'\r'), None) => return Ok(Header::Partial { needed: 1 }),
        _ => return Err(BadHeader::LineEnd),
    }
    let fields = bytes.get(WORD.len()..end).ok_or(BadHeader::Fields)?;
    Ok(Header::Present { length: end + 2, source: line_source(fields)? })
}

fn line_source(fields: &[u8]) -> Result<Option<SocketAddr>, BadHeader> {
    let mut fields = fields.split(|byte| *byte == b' ');
    let protocol = fields.next().unwrap_or_default();
    if protocol == b"UNKNOWN" {
        // What follows is to be ignored, whatever it is.
        return Ok(None);
    }
    let mut field = || fields.next().and_then(|field| std::str::from_utf8(field).ok());
    let (Some(source), Some(destination), Some(source_port), Some(destination_port)) =
        (field(), field(), field(), field())
    else {
        return Err(BadHeader::Fields);
    };
    if fields.next().is_some() {
        return Err(BadHeader::Fields);
    }
    let address: fn(&str) -> Option<IpAddr> = match protocol {
        b"TCP4" => |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        b"TCP6" => |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => return Err(BadHeader::Protocol),
    };
    let (Some(source), Some(_)) = (address(source), address(destination)) else {
        return Err(BadHeader::Address);
    };
    let (Some(port), Some(_)) = (port(source_port), port(destination_port)) else {
        return Err(BadHeader::Port);
    };
    Ok(Some(SocketAddr::new(source, port)))
}

fn port(text: &str) -> Option<u16> {
    // `parse` would take a plus sign and leading zeros, too.
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let shortest = text == "0" || !text.starts_with('0');
    if plain && shortest { text.parse().ok() } else { None }
}

/// What a header of version 2 tells.
#[derive(Clone, Copy)]
enum Told {
    Nothing,
    Inet,
    Inet6,
}

fn read_binary(bytes: &[u8]) -> Result<Header, BadHeader> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED>() else {
        return Ok(Header::Partial { needed: FIXED - bytes.len() });
    };
    let [.., version_and_command, family, high, low] = *fixed;
    let version = version_and_command >> 4;
    let command = version_and_command & 0xf;
    if version != 2 {
        return Err(BadHeader::Version(version));
    }
    let told = match (command, family) {
        (1, 0x11) => Told::Inet,
        (1, 0x21) => Told::Inet6,
        // The proxy speaks for itself, of whatever family. Or it speaks for something unspecified,
        // for UDP or a Unix socket: who has no use for those is to take them as unspecified.
        (0, _) | (1, 0x00 | 0x12 | 0x22 | 0x31 | 0x32) => Told::Nothing,
        (1, _) => return Err(BadHeader::Family(family)),
        (_, _) => return Err(BadHeader::Command(command)),
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let least = match told {
        Told::Nothing => 0,
        Told::Inet => 12,
        Told::Inet6 => 36,
    };
    if length < least {
        return Err(BadHeader::Short);
    }
    if length > MAX_HEADER - FIXED {
        return Err(BadHeader::Long);
    }
    let Some(block) = rest.get(..length) else {
        return Ok(Header::Partial { needed: length - rest.len() });
    };
    let source = match told {
        Told::Nothing => None,
        Told::Inet => inet(block),
        Told::Inet6 => inet6(block),
    };
    Ok(Header::Present { length: FIXED + length, source })
}

/// Source, destination, and their ports.
fn inet(block: &[u8]) -> Option<SocketAddr> {
    let (source, rest) = block.split_first_chunk::<4>()?;
    let (_destination, rest) = rest.split_first_chunk::<4>()?;
    Some(SocketAddr::from((*source, u16::from_be_bytes(*rest.first_chunk()?))))
}

fn inet6(block: &[u8]) -> Option<SocketAddr> {
    let (source, rest) = block.split_first_chunk::<16>()?;
    let (_destination, rest) = rest.split_first_chunk::<16>()?;
    Some(SocketAddr::from((*source, u16::from_be_bytes(*rest.first_chunk()?))))
}

/// The entry of `X-Forwarded-For` that should name the client does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("X-Forwarded-For has no address where the client's should be")]
pub(crate) struct BadForwarded;

/// `X-Forwarded-Prefix` is no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("X-Forwarded-Prefix must come once and be a plain path, as /tools, of 256 bytes at most")]
pub(crate) struct BadPrefix;

/// The path that a trusted proxy took off the front of what its client asked for. Links that the
/// client follows begin with it. Has no slash at its end; empty where nothing was taken off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prefix(String);

impl Prefix {
    /// The prefix that the header names; the empty one if there is no such header.
    ///
    /// # Errors
    /// [`BadPrefix`] where it comes twice, or a client could find another host or path in it: an
    /// empty or a dot segment, percent-encoding, a query, a backslash.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, BadPrefix> {
        let mut named = headers.get_all(FORWARDED_PREFIX).iter();
        let text = match (named.next(), named.next()) {
            (None, _) => return Ok(Self::default()),
            (Some(value), None) => value.to_str().map_err(|_not_ascii| BadPrefix)?,
            (Some(_), Some(_)) => return Err(BadPrefix),
        };
        let path = text.strip_suffix('/').unwrap_or(text);
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~@:+=/".contains(&byte);
        let is_plain = text.starts_with('/')
            && text.len() <= LONGEST_PREFIX
            && path.bytes().all(allowed)
            && !path.split('/').skip(1).any(|segment| matches!(segment, "" | "." | ".."));
        if is_plain { Ok(Self(path.to_owned())) } else { Err(BadPrefix) }
    }

    /// As it stands in front of a path.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The networks whose word is taken.
#[derive(Clone, Debug)]
pub(crate) struct TrustedProxies(Box<[IpNet]>);

impl TrustedProxies {
    pub(crate) fn new(nets: &[IpNet]) -> Self {
        Self(nets.iter().copied().map(canonical).collect())
    }

    /// Is this address a proxy's? An IPv4 address in IPv6 dress is IPv4 here.
    pub(crate) fn trusts(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.0.iter().any(|net| net.contains(&ip))
    }

    /// The client that `X-Forwarded-For` names; none if there is no such header.
    ///
    /// Each proxy adds at the right whom it got the request from. Read from there, the first
    /// address that is no proxy's is the client's; what stands left of it the client wrote itself.
    /// If all are proxies, the leftmost looked at counts. Empty entries are not skipped: behind one
    /// that a proxy left empty stands what the client wrote.
    pub(crate) fn forwarded_for(
        &self,
        headers: &HeaderMap,
    ) -> Result<Option<IpAddr>, BadForwarded> {
        let lines = headers.get_all(FORWARDED_FOR).iter().rev();
        let entries = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        let mut client = None;
        for entry in entries.take(MOST_ENTRIES) {
            let ip = forwarded(entry).ok_or(BadForwarded)?;
            client = Some(ip);
            if !self.trusts(ip) {
                break;
            }
        }
        Ok(client)
    }
}

/// The IPv4 network where one is written in IPv6 dress.
fn canonical(net: IpNet) -> IpNet {
    let v4 = match net {
        IpNet::V6(v6) => v6.network().to_ipv4_mapped().and_then(|ip| {
            let length = v6.prefix_len().checked_sub(96)?;
            Ipv4Net::new(ip, length).ok()
        }),
        IpNet::V4(_) => None,
    };
    v4.map_or(net, IpNet::V4)
}

/// The address of one entry, with or without a port.
fn forwarded(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim_matches([' ', '\t']);
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let ip = text.parse().ok().or_else(with_port).or_else(bracketed)?;
    Some(ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddrV4, SocketAddrV6};

    use http::HeaderValue;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn line(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
        let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        let from = source.ip();
        let to = destination.ip();
        let source = source.port();
        let destination = destination.port();
        format!("PROXY {family} {from} {to} {source} {destination}\r\n").into_bytes()
    }

    fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[0x20 | command, family], &length, block].concat()
    }

    fn addresses(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
        let octets = |address: SocketAddr| match address.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()];
        [octets(source), octets(destination), ports.concat()].concat()
    }

    fn source_of(line: &str) -> Result<Option<SocketAddr>, BadHeader> {
        match read(format!("PROXY {line}\r\n").as_bytes())? {
            Header::Present { length, source } => {
                assert_eq!(length, line.len() + 8);
                Ok(source)
            }
            other @ (Header::Partial { .. } | Header::Absent) => panic!("{line}: {other:?}"),
        }
    }

    fn present(length: usize, source: &str) -> Header {
        Header::Present { length, source: Some(source.parse().unwrap()) }
    }

    #[test]
    fn a_prefix_is_a_plain_path_that_comes_once() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(FORWARDED_PREFIX, value.parse().unwrap());
            }
            Prefix::of(&headers).map(|prefix| prefix.as_str().to_owned())
        };
        assert_eq!(of(&[]), Ok(String::new()));
        let longest = format!("/{}", "x".repeat(LONGEST_PREFIX - 1));
        for (value, prefix) in [
            ("/a", "/a"),
            ("/a/b-c._~@:+=/", "/a/b-c._~@:+="),
            ("/", ""),
            ("/...", "/..."),
            (&longest, &longest),
        ] {
            assert_eq!(of(&[value]).as_deref(), Ok(prefix), "{value}");
        }
        let long = format!("{longest}x");
        for bad in [
            "",
            "a",
            "//",
            "//a",
            "/a//",
            "/a//b",
            "/.",
            "/..",
            "/a/../b",
            "/a/./",
            "/a?b",
            "/a#b",
            "/\\a",
            "/a b",
            "/%2e%2e/a",
            "/a,/b",
            "/a, /b",
            "/\u{e9}",
            "http://a/",
            "/a\"b",
            "/a<b",
            &long,
        ] {
            assert_eq!(of(&[bad]), Err(BadPrefix), "{bad}");
        }
        assert_eq!(of(&["/a", "/a"]), Err(BadPrefix));
    }

    #[test]
    fn lines_name_the_source() {
        assert_eq!(
            read(b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\nGET / HTTP/1.1\r\n"),
            Ok(present(45, "192.0.2.7:56324"))
        );
        let v6 = "TCP6 2001:db8::7 2001:DB8:0:0:0:0:0:1 0 65535";
        assert_eq!(source_of(v6), Ok("[2001:db8::7]:0".parse().ok()));
        let mapped = "TCP6 ::ffff:192.0.2.7 ::1 1 2";
        assert_eq!(source_of(mapped), Ok("[::ffff:192.0.2.7]:1".parse().ok()));
        for unknown in ["UNKNOWN", "UNKNOWN ", "UNKNOWN any thing\0", "UNKNOWN ::1 ::1 1 1"] {
            assert_eq!(source_of(unknown), Ok(None));
        }
    }

    #[test]
    fn lines_that_are_not_exact_are_refused() {
        for (line, error) in [
            ("", BadHeader::Fields),
            ("TCP4", BadHeader::Fields),
            ("TCP4 1.2.3.4 1.2.3.4 1", BadHeader::Fields),
            ("TCP4 1.2.3.4 1.2.3.4 1 2 3", BadHeader::Fields),
            ("TCP4 1.2.3.4 1.2.3.4 1 2 ", BadHeader::Fields),
            ("TCP4  1.2.3.4 1.2.3.4 1 2", BadHeader::Fields),
            ("TCP4  1.2.3.4 1.2.3.4 1", BadHeader::Address),
            ("TCP4\t1.2.3.4 1.2.3.4 1 2", BadHeader::Fields),
            ("UDP4 1.2.3.4 1.2.3.4 1 2", BadHeader::Protocol),
            ("tcp4 1.2.3.4 1.2.3.4 1 2", BadHeader::Protocol),
            ("UNKNOWNS 1.2.3.4 1.2.3.4 1 2", BadHeader::Protocol),
            ("TCP6 1.2.3.4 1.2.3.4 1 2", BadHeader::Address),
            ("TCP4 ::1 ::1 1 2", BadHeader::Address),
            ("TCP4 1.2.3.4 ::1 1 2", BadHeader::Address),
            ("TCP4 01.2.3.4 1.2.3.4 1 2", BadHeader::Address),
            ("TCP4 1.2.3 1.2.3.4 1 2", BadHeader::Address),
            ("TCP6 [::1] ::1 1 2", BadHeader::Address),
            ("TCP6 fe80::1%1 ::1 1 2", BadHeader::Address),
            ("TCP4 1.2.3.4 1.2.3.4 01 2", BadHeader::Port),
            ("TCP4 1.2.3.4 1.2.3.4 1 00", BadHeader::Port),
            ("TCP4 1.2.3.4 1.2.3.4 +1 2", BadHeader::Port),
            ("TCP4 1.2.3.4 1.2.3.4 1 65536", BadHeader::Port),
            ("TCP4 1.2.3.4 1.2.3.4 -1 2", BadHeader::Port),
            ("TCP4 1.2.3.4 1.2.3.4  ", BadHeader::Port),
        ] {
            assert_eq!(source_of(line), Err(error), "{line}");
        }
    }

    #[test]
    fn a_line_ends_in_cr_lf_and_soon() {
        assert_eq!(read(b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n"), Err(BadHeader::LineEnd));
        assert_eq!(read(b"PROXY UNKNOWN\rx"), Err(BadHeader::LineEnd));
        assert_eq!(read(b"PROXY UNKNOWN\r\r\n"), Err(BadHeader::LineEnd));
        let of_length = |length: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(length - 16));
        assert_eq!(
            read(of_length(107).as_bytes()),
            Ok(Header::Present { length: 107, source: None })
        );
        assert_eq!(read(of_length(108).as_bytes()), Err(BadHeader::LongLine));
        assert_eq!(read(&[b"PROXY ", &[b'x'; 99][..]].concat()), Ok(Header::Partial { needed: 2 }));
        assert_eq!(read(&[b"PROXY ", &[b'x'; 100][..]].concat()), Err(BadHeader::LongLine));
    }

    #[test]
    fn binary_headers_name_the_source() {
        let v4 = [192, 0, 2, 7, 198, 51, 100, 1, 0x1f, 0x90, 0x01, 0xbb];
        assert_eq!(read(&binary(1, 0x11, &v4)), Ok(present(28, "192.0.2.7:8080")));
        let with_more = [&v4[..], b"\x04\x00\x03abcGET / HTTP/1.1"].concat();
        let mut bytes = binary(1, 0x11, &with_more[..18]);
        bytes.extend_from_slice(&with_more[18..]);
        assert_eq!(read(&bytes), Ok(present(34, "192.0.2.7:8080")));
        for family in [0x00, 0x12, 0x22, 0x31, 0x32] {
            let header = Header::Present { length: 28, source: None };
            assert_eq!(read(&binary(1, family, &v4)), Ok(header), "{family:#x}");
        }
        for family in [0x00, 0x11, 0x21, 0xff] {
            let header = Header::Present { length: 16, source: None };
            assert_eq!(read(&binary(0, family, b"")), Ok(header), "{family:#x}");
        }
    }

    #[test]
    fn binary_headers_that_are_not_exact_are_refused() {
        for family in [0x01, 0x10, 0x13, 0x20, 0x23, 0x30, 0x33, 0x41, 0xff] {
            let header = binary(1, family, &[0; 300]);
            assert_eq!(read(&header), Err(BadHeader::Family(family)), "{family:#x}");
        }
        assert_eq!(read(&binary(2, 0x11, &[0; 12])), Err(BadHeader::Command(2)));
        assert_eq!(read(&binary(1, 0x11, &[0; 11])), Err(BadHeader::Short));
        assert_eq!(read(&binary(1, 0x21, &[0; 35])), Err(BadHeader::Short));
        for command in [0, 1] {
            let longest = binary(command, 0x00, &[0; 4096]);
            assert_eq!(read(&longest), Ok(Header::Present { length: MAX_HEADER, source: None }));
            // Refused by what it announces, before that comes.
            let longer = binary(command, 0x00, &[0; 4097]);
            assert_eq!(read(&longer[..FIXED]), Err(BadHeader::Long));
        }
        let mut first = binary(1, 0x11, &[0; 12]);
        first[12] = 0x11;
        assert_eq!(read(&first), Err(BadHeader::Version(1)));
    }

    #[test]
    fn other_beginnings_are_no_header() {
        for bytes in [
            &b"\x16\x03\x01"[..],
            b"GET / HTTP/1.1\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"PROPFIND / HTTP/1.1\r\n",
            b"PROXYING / HTTP/1.1\r\n",
            b"proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
            b"\r\n\r\nGET / HTTP/1.1\r\n",
            b"\n",
        ] {
            assert_eq!(read(bytes), Ok(Header::Absent), "{bytes:?}");
        }
        assert_eq!(read(b""), Ok(Header::Partial { needed: 15 }));
    }

    fn proxies(nets: &[&str]) -> TrustedProxies {
        TrustedProxies::new(&nets.iter().map(|net| net.parse().unwrap()).collect::<Vec<_>>())
    }

    fn forwarded_for(lines: &[&str]) -> Result<Option<String>, BadForwarded> {
        let mut headers = HeaderMap::new();
        for line in lines {
            let line = HeaderValue::from_bytes(line.as_bytes()).unwrap();
            headers.append(FORWARDED_FOR, line);
        }
        let client = proxies(&["10.0.0.0/8", "2001:db8::/32"]).forwarded_for(&headers)?;
        Ok(client.map(|ip| ip.to_string()))
    }

    #[test]
    fn networks_are_the_same_in_both_dresses() {
        let proxies = proxies(&["10.0.0.0/8", "::ffff:192.0.2.0/120", "2001:db8::/32"]);
        for (ip, trusted) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("11.0.0.1", false),
            ("192.0.2.255", true),
            ("::ffff:192.0.2.255", true),
            ("192.0.3.0", false),
            ("2001:db8::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(proxies.trusts(ip.parse().unwrap()), trusted, "{ip}");
        }
        let nobody = TrustedProxies::new(&[]);
        assert!(!nobody.trusts("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn a_network_of_all_ipv6_is_not_one_of_ipv4() {
        let all = proxies(&["::/0"]);
        assert!(all.trusts("2001:db8::1".parse().unwrap()));
        assert!(!all.trusts("::ffff:192.0.2.7".parse().unwrap()));
        assert!(proxies(&["::ffff:0:0/96"]).trusts("192.0.2.7".parse().unwrap()));
    }

    #[test]
    fn the_first_stranger_from_the_right_is_the_client() {
        for (lines, client) in [
            (&["192.0.2.7"][..], "192.0.2.7"),
            (&["6.6.6.6, 192.0.2.7"], "192.0.2.7"),
            (&["rubbish,,\"x\", 192.0.2.7"], "192.0.2.7"),
            (&["192.0.2.7,10.0.0.1 ,\t10.0.0.2"], "192.0.2.7"),
            (&["6.6.6.6", "192.0.2.7", "10.0.0.1"], "192.0.2.7"),
            (&["192.0.2.7, 10.0.0.1", "10.0.0.2, 10.0.0.3"], "192.0.2.7"),
            (&["10.0.0.1, 10.0.0.2"], "10.0.0.1"),
            (&["::ffff:192.0.2.7, ::ffff:10.0.0.1"], "192.0.2.7"),
        ] {
            assert_eq!(forwarded_for(lines), Ok(Some(client.to_owned())), "{lines:?}");
        }
        assert_eq!(forwarded_for(&[]), Ok(None));
    }

    #[test]
    fn entries_may_have_ports_and_brackets() {
        for (entry, client) in [
            ("192.0.2.7:567", "192.0.2.7"),
            ("[2001:db9::7]", "2001:db9::7"),
            ("[2001:db9::7]:567", "2001:db9::7"),
            ("2001:db9::7", "2001:db9::7"),
            ("  192.0.2.7\t", "192.0.2.7"),
        ] {
            assert_eq!(forwarded_for(&[entry]), Ok(Some(client.to_owned())), "{entry}");
            let behind = format!("{entry}, [2001:db8::1]:2,10.0.0.1:80");
            assert_eq!(forwarded_for(&[&behind]), Ok(Some(client.to_owned())), "{behind}");
        }
    }

    #[test]
    fn an_entry_that_counts_and_is_no_address_is_refused() {
        for entry in [
            "",
            " ",
            "unknown",
            "192.0.2",
            "192.0.2.7:",
            "192.0.2.7:65536",
            "[192.0.2.7]",
            "[2001:db9::7",
            "192.0.2.7 192.0.2.8",
            "192.0.2.7,",
            "192.0.2.7, , 10.0.0.1",
            "\"192.0.2.7\"",
            "f\u{fc}r",
        ] {
            assert_eq!(forwarded_for(&[entry]), Err(BadForwarded), "{entry}");
            assert_eq!(forwarded_for(&["192.0.2.7", entry, "10.0.0.1"]), Err(BadForwarded));
        }
    }

    #[test]
    fn only_so_many_entries_are_looked_at() {
        let of = |proxies: usize| {
            let right = ", 10.0.0.2".repeat(proxies - 1);
            forwarded_for(&[&format!("rubbish, 192.0.2.7, 10.0.0.1{right}")])
        };
        assert_eq!(of(63), Ok(Some("192.0.2.7".to_owned())));
        assert_eq!(of(64), Ok(Some("10.0.0.1".to_owned())));
        assert_eq!(of(1000), Ok(Some("10.0.0.2".to_owned())));
    }

    fn pair() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
        let v4 = || any::<(Ipv4Addr, u16)>().prop_map(|(ip, port)| SocketAddrV4::new(ip, port));
        let v6 =
            || any::<(Ipv6Addr, u16)>().prop_map(|(ip, port)| SocketAddrV6::new(ip, port, 0, 0));
        prop_oneof![
            (v4(), v4()).prop_map(|(from, to)| (from.into(), to.into())),
            (v6(), v6()).prop_map(|(from, to)| (from.into(), to.into())),
        ]
    }

    /// Is read, whatever follows, and only when it is complete; till then nothing is asked for
    /// that does not belong to it.
    fn assert_reads(header: &[u8], source: Option<SocketAddr>, behind: &[u8]) {
        let present = Ok(Header::Present { length: header.len(), source });
        assert_eq!(read(&[header, behind].concat()), present);
        assert!(header.len() <= MAX_HEADER);
        for end in 0..header.len() {
            match read(&header[..end]) {
                Ok(Header::Partial { needed }) => {
                    assert!((1..=header.len() - end).contains(&needed), "{end}: {needed}");
                }
                other => panic!("the first {end} bytes: {other:?}"),
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            start in proptest::sample::select(vec![&b""[..], WORD, b"PROXY TCP4 ", SIGNATURE, b"\r\n\r\n\0\r\nQUIT\n\x21"]),
            bytes in vec(any::<u8>(), 0..200),
        ) {
            let _read = read(&[start, &bytes].concat());
            if let Ok(line) = HeaderValue::from_bytes(&bytes) {
                let headers = HeaderMap::from_iter([(http::HeaderName::from_static(FORWARDED_FOR), line)]);
                let _client = proxies(&["0.0.0.0/0", "::/0"]).forwarded_for(&headers);
            }
        }

        #[test]
        fn lines_are_read_back((source, destination) in pair(), behind in vec(any::<u8>(), 0..20)) {
            assert_reads(&line(source, destination), Some(source), &behind);
        }

        #[test]
        fn unknown_lines_are_read_back(rest in "( [^\r\n]{0,20})?", behind in vec(any::<u8>(), 0..20)) {
            assert_reads(format!("PROXY UNKNOWN{rest}\r\n").as_bytes(), None, &behind);
        }

        #[test]
        fn binary_headers_are_read_back(
            (source, destination) in pair(),
            more in vec(any::<u8>(), 0..100),
            behind in vec(any::<u8>(), 0..20),
        ) {
            let family = if source.is_ipv4() { 0x11 } else { 0x21 };
            let block = [addresses(source, destination), more].concat();
            assert_reads(&binary(1, family, &block), Some(source), &behind);
            assert_reads(&binary(0, family, &block), None, &behind);
        }

        #[test]
        fn a_tls_hello_is_no_header(rest in vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(read(&[&[0x16, 0x03], &rest[..]].concat()), Ok(Header::Absent));
        }

        #[test]
        fn an_http_method_is_no_header(method in "[A-Z]{1,10}|PRO[A-Z-]{0,6}", length in 0_usize..30) {
            prop_assume!(method != "PROXY");
            let head = format!("{method} / HTTP/1.1\r\n");
            prop_assert_eq!(read(head.as_bytes()), Ok(Header::Absent));
            let beginning = &head.as_bytes()[..length.min(head.len())];
            let found = matches!(read(beginning), Ok(Header::Absent | Header::Partial { .. }));
            prop_assert!(found, "{:?}", beginning);
        }

        #[test]
        fn what_proxies_append_is_what_counts(
            written in "[ -~]{0,40}",
            client in any::<Ipv4Addr>().prop_filter("a stranger", |ip| ip.octets()[0] != 10),
            hops in vec(any::<[u8; 3]>(), 0..10),
            own_lines in any::<bool>(),
        ) {
            let mut lines = vec![written];
            let hops = hops.into_iter().map(|[b, c, d]| Ipv4Addr::new(10, b, c, d));
            for hop in std::iter::once(client).chain(hops) {
                match lines.last_mut() {
                    Some(last) if !own_lines => *last = format!("{last}, {hop}"),
                    _ => lines.push(hop.to_string()),
                }
            }
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            prop_assert_eq!(forwarded_for(&lines), Ok(Some(client.to_string())));
        }
    }
}
