//! Invariant: no bytes panic; a PROXY header is read as an independent parser reads it, is never
//! longer than it may be, and says the same whatever stands behind it; as long as it is partial,
//! what it asks for belongs to it, so that no byte behind it is taken from the connection.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use mcp_edge::fuzzing::{Header, MAX_HEADER, conn, proxy_header};
use mcp_edge_fuzz::edge;

/// A header and whom it names; none if there is no good and whole one.
fn independently(bytes: &[u8]) -> Option<(usize, Option<SocketAddr>)> {
    if let Some(rest) = bytes.strip_prefix(b"\r\n\r\n\0\r\nQUIT\n") {
        let [first, family, high, low, rest @ ..] = rest else { return None };
        let length = usize::from(*high) << 8 | usize::from(*low);
        let block = rest.get(..length).filter(|_| length <= 4096)?;
        let port = |at: usize| u16::from_be_bytes([block[at], block[at + 1]]);
        let named = match (first, family) {
            (0x20, _) | (0x21, 0x00 | 0x12 | 0x22 | 0x31 | 0x32) => None,
            (0x21, 0x11) => {
                let ip = Ipv4Addr::from(<[u8; 4]>::try_from(block.get(..4)?).ok()?);
                block.get(..12)?;
                Some(SocketAddr::new(ip.into(), port(8)))
            }
            (0x21, 0x21) => {
                let ip = Ipv6Addr::from(<[u8; 16]>::try_from(block.get(..16)?).ok()?);
                block.get(..36)?;
                Some(SocketAddr::new(ip.into(), port(32)))
            }
            _ => return None,
        };
        return Some((16 + length, named));
    }
    let end = bytes.windows(2).position(|it| it == b"\r\n").filter(|end| *end <= 105)?;
    let line = &bytes[..end];
    if line.contains(&b'\n') || line.contains(&b'\r') {
        return None;
    }
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    if fields.first() != Some(&&b"PROXY"[..]) {
        return None;
    }
    let named = match (fields[1..].first()?, fields.get(2..).unwrap_or_default()) {
        (&b"UNKNOWN", _) => None,
        (&family, &[from, to, source, target]) => {
            let text = |bytes| std::str::from_utf8(bytes).ok();
            let port = |bytes| {
                let number: u16 = text(bytes)?.parse().ok()?;
                (number.to_string().as_bytes() == bytes).then_some(number)
            };
            let ip = |bytes| {
                let ip: IpAddr = text(bytes)?.parse().ok()?;
                let fits =
                    matches!((family, ip), (b"TCP4", IpAddr::V4(_)) | (b"TCP6", IpAddr::V6(_)));
                fits.then_some(ip)
            };
            let (_, _) = (ip(to)?, port(target)?);
            Some(SocketAddr::new(ip(from)?, port(source)?))
        }
        _ => return None,
    };
    Some((end + 2, named))
}

fuzz_target!(|data: &[u8]| {
    let read = proxy_header(data);
    let expected = independently(data);
    match (read, expected) {
        (Ok(Header::Present { length, source }), Some(expected)) => {
            assert_eq!((length, source), expected);
            assert!(length <= MAX_HEADER);
            // Of every beginning of it no more is asked for than is there.
            let mut at = 0;
            while at < length {
                match proxy_header(&data[..at]) {
                    Ok(Header::Partial { needed }) => {
                        assert!(needed > 0 && at + needed <= length, "{needed} behind {at}");
                        at += needed;
                    }
                    other => panic!("{other:?} after {at} bytes"),
                }
            }
            assert_eq!(at, length);
            assert_eq!(proxy_header(&data[..length]), read);
        }
        (Ok(Header::Partial { needed }), None) => {
            assert!(needed > 0 && data.len() + needed <= MAX_HEADER);
        }
        (Ok(Header::Absent) | Err(_), None) => {}
        (read, expected) => panic!("{read:?}, but {expected:?}"),
    }
    // The same from a connection: what stands behind the header is all there.
    let arrived = edge::run(conn::announced(data));
    match read {
        Ok(Header::Present { length, source }) => {
            let arrived = arrived.expect("it is good");
            assert_eq!(arrived.rest, &data[length..]);
            let canonical = |it: SocketAddr| SocketAddr::new(it.ip().to_canonical(), it.port());
            assert_eq!(arrived.client, source.map(canonical));
        }
        Ok(Header::Absent) => assert_eq!(arrived.expect("all of it is there").rest, data),
        Ok(Header::Partial { .. }) | Err(_) => assert_eq!(arrived, None),
    }
});
