//! What a trusted proxy says of a request in its header fields: for whom it speaks
//! ([`TrustedProxies`], `X-Forwarded-For`), and what it took off the path ([`Prefix`],
//! `X-Forwarded-Prefix`). Whatever is unclear is refused: a client that could choose its address
//! would escape every limit.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use ipnet::{IpNet, Ipv4Net};

const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_PREFIX: &str = "x-forwarded-prefix";

/// Bytes of the longest prefix.
const LONGEST_PREFIX: usize = 256;

/// How many entries of `X-Forwarded-For` are looked at.
const MOST_ENTRIES: usize = 64;

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
    use std::net::Ipv4Addr;

    use http::HeaderValue;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

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

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in vec(any::<u8>(), 0..300)) {
            if let Ok(line) = HeaderValue::from_bytes(&bytes) {
                let headers = HeaderMap::from_iter([(http::HeaderName::from_static(FORWARDED_FOR), line)]);
                let _client = proxies(&["0.0.0.0/0", "::/0"]).forwarded_for(&headers);
            }
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
