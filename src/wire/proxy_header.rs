//! The PROXY protocol, by which a proxy names the source of a connection: both versions (sections
//! 2.1 and 2.2 of `proxy-protocol.txt`). Whatever is unclear is refused: a client that could choose
//! its address would escape every limit.
#![cfg_attr(not(fuzzing), expect(unreachable_pub, reason = "the fuzz targets reach it"))]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

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
pub const MAX_HEADER: usize = FIXED + 4096;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
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
pub enum BadHeader {
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
pub fn read(bytes: &[u8]) -> Result<Header, BadHeader> {
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
enum Family {
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
        (1, 0x11) => Family::Inet,
        (1, 0x21) => Family::Inet6,
        // The proxy speaks for itself, of whatever family. Or it speaks for something unspecified,
        // for UDP or a Unix socket: who has no use for those is to take them as unspecified.
        (0, _) | (1, 0x00 | 0x12 | 0x22 | 0x31 | 0x32) => Family::Nothing,
        (1, _) => return Err(BadHeader::Family(family)),
        (_, _) => return Err(BadHeader::Command(command)),
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let least = match told {
        Family::Nothing => 0,
        Family::Inet => 12,
        Family::Inet6 => 36,
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
        Family::Nothing => None,
        Family::Inet => inet(block),
        Family::Inet6 => inet6(block),
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

#[cfg(test)]
mod tests {
    use std::net::{SocketAddrV4, SocketAddrV6};

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
    }
}
