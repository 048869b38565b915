//! Addresses that cannot be mixed up, and the key under which one client is limited.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The address of the client that the limits and the logs speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddr(SocketAddr);

impl ClientAddr {
    /// The client is the peer of the socket.
    #[must_use]
    pub fn from_peer(peer: SocketAddr) -> Self {
        Self(SocketAddr::new(peer.ip().to_canonical(), peer.port()))
    }

    /// The address without its port; an IPv4 address in IPv6 dress is IPv4 here.
    #[must_use]
    pub fn ip(self) -> IpAddr {
        self.0.ip()
    }

    /// What this client is limited by.
    pub(crate) fn key(self) -> ClientKey {
        ClientKey::from(self.ip())
    }
}

impl fmt::Display for ClientAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The key of every per-address limit: an IPv4 address, or the /64 of an IPv6 address.
///
/// A single customer is commonly given a whole /64 (RFC 6177), so that counting IPv6 by address
/// would count nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ClientKey(IpAddr);

impl From<IpAddr> for ClientKey {
    fn from(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(v4) => Self(IpAddr::V4(v4)),
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Self(IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)))
            }
        }
    }
}

/// The network that an address is in: the /24 of an IPv4 address, or the /48 of an IPv6 address.
///
/// The addresses of one attacker are mostly in one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Network(IpAddr);

impl ClientKey {
    /// The network that this client is in.
    pub(crate) fn network(self) -> Network {
        match self.0 {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                Network(IpAddr::from([a, b, c, 0]))
            }
            IpAddr::V6(v6) => {
                let [a, b, c, ..] = v6.segments();
                Network(IpAddr::from([a, b, c, 0, 0, 0, 0, 0]))
            }
        }
    }
}

impl fmt::Display for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(v4) => v4.fmt(f),
            IpAddr::V6(v6) => write!(f, "{v6}/64"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(ip: &str) -> String {
        ClientKey::from(ip.parse::<IpAddr>().unwrap()).to_string()
    }

    #[test]
    fn a_network_is_the_24_or_the_48() {
        let network = |ip: &str| ClientKey::from(ip.parse::<IpAddr>().unwrap()).network();
        assert_eq!(network("192.0.2.7"), network("192.0.2.254"));
        assert_eq!(network("::ffff:192.0.2.7"), network("192.0.2.1"));
        assert_ne!(network("192.0.2.7"), network("192.0.3.7"));
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:ffff::1"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:2:2::1"));
    }

    #[test]
    fn a_key_is_the_address_or_the_64() {
        assert_eq!(key("192.0.2.7"), "192.0.2.7");
        assert_eq!(key("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(key("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
    }

    #[test]
    fn a_client_is_shown_by_its_port_and_limited_without_it() {
        let client = ClientAddr::from_peer("[::ffff:192.0.2.7]:567".parse().unwrap());
        assert_eq!(client.to_string(), "192.0.2.7:567");
        assert_eq!(
            (client.ip().to_string(), client.key().to_string()),
            ("192.0.2.7".into(), "192.0.2.7".into())
        );
    }
}
