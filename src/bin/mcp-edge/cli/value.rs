//! Values as operators write them: `10MiB`, `yes`, `localhost`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::str::FromStr;

use clap::builder::ValueParserFactory;
use mcp_edge::TlsVersion;

/// An address to listen on.
///
/// # Errors
///
/// What is neither an IP address (an IPv6 one with or without brackets) nor `localhost`.
pub(crate) fn host(text: &str) -> Result<IpAddr, &'static str> {
    if text.eq_ignore_ascii_case("localhost") {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_not_an_address| {
        "give an IP address of this machine (127.0.0.1, 0.0.0.0, ::) or localhost"
    })
}

/// An address and a port to listen on.
///
/// # Errors
///
/// Whatever misses one of the two.
pub(crate) fn listen(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    text.parse().map_err(|_not_both| {
        let give = |rest: String| format!("give address and port, as {rest}");
        match (text.parse::<u16>(), host(text)) {
            (Ok(port), _) => give(format!("0.0.0.0:{port} for every IPv4 address")),
            (_, Ok(ip)) => give(SocketAddr::new(ip, 80).to_string()),
            _ => give("0.0.0.0:80 for every IPv4 address".to_owned()),
        }
    })
}

/// A version of TLS.
///
/// # Errors
///
/// Whatever is not spoken.
pub(crate) fn tls_version(text: &str) -> Result<TlsVersion, &'static str> {
    match text.trim() {
        "1.2" => Ok(TlsVersion::Tls12),
        "1.3" => Ok(TlsVersion::Tls13),
        _ => Err("give 1.2 or 1.3; older versions are broken, and not spoken (RFC 8996)"),
    }
}

/// A length of time: a number and its unit, as `500ms`, `10s`, `30m`, `1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Duration(std::time::Duration);

impl FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        humantime::parse_duration(text).map(Self).map_err(|_no_duration| {
            if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
                format!("it has no unit: write {text}s, or {text}ms, {text}m or {text}h")
            } else {
                "give a number and its unit, as 500ms, 30s, 10m or 1h".to_owned()
            }
        })
    }
}

impl Deref for Duration {
    type Target = std::time::Duration;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// A whole number.
///
/// # Errors
///
/// Whatever else, or more than fits.
pub(crate) fn count<T: FromStr>(text: &str) -> Result<T, &'static str> {
    text.trim().parse().map_err(|_no_number| "give a whole number, as 20")
}

/// A port.
///
/// # Errors
///
/// Whatever is not a number from 0 to 65535.
pub(crate) fn port(text: &str) -> Result<u16, &'static str> {
    text.trim().parse().map_err(|_no_port| "give a port from 0 to 65535")
}

/// A size in bytes, written plain or in KiB, MiB, GiB (`K`, `M`, `G` mean the same, as in nginx).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) usize);

impl FromStr for Bytes {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const HINT: &str = "give bytes, or a whole number of KiB, MiB or GiB, as 32KiB";
        let text = text.trim();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at_checked(digits).ok_or(HINT)?;
        let unit: usize = match unit.trim_start().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            _ => return Err(HINT),
        };
        let number: usize = number.parse().map_err(|_not_a_number| HINT)?;
        number.checked_mul(unit).map(Self).ok_or("that is more than this machine can count")
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.iter().find(|(unit, _)| self.0 > 0 && self.0.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

/// On or off: `1`, `true`, `yes`, `on` or `0`, `false`, `no`, `off`, in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Switch(pub(crate) bool);

impl ValueParserFactory for Switch {
    type Parser = clap::builder::ValueParser;

    fn value_parser() -> Self::Parser {
        clap::builder::ValueParser::new(|text: &str| {
            match text.trim().to_ascii_lowercase().as_str() {
                "1" | "true" | "yes" | "y" | "on" | "t" => Ok(Self(true)),
                "0" | "false" | "no" | "n" | "off" | "f" => Ok(Self(false)),
                _ => Err("give true or false (1, yes, on; 0, no, off)"),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_read_as_written() {
        let size = |text: &str| text.parse::<Bytes>().map(|it| it.0);
        assert_eq!(size("512"), Ok(512));
        assert_eq!(size("512 B"), Ok(512));
        assert_eq!(size("32KiB"), Ok(32 * 1024));
        assert_eq!(size("32k"), Ok(32 * 1024));
        assert_eq!(size(" 16M "), Ok(16 * 1024 * 1024));
        assert_eq!(size("10 mib"), Ok(10 * 1024 * 1024));
        assert_eq!(size("1G"), Ok(1 << 30));
        for bad in ["", "M", "-1", "1.5M", "10MB", "ten", "1 2", "99999999999999999999", "é"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert!(size("99999999999G").is_err());
    }

    #[test]
    fn hosts_are_addresses_or_localhost() {
        assert_eq!(host("LocalHost"), Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert_eq!(host("0.0.0.0"), Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        assert_eq!(host("[::1]"), host("::1"));
        assert!(host("example.com").is_err());
        assert!(host("127.0.0.1:8443").is_err());
    }

    proptest! {
        #[test]
        fn no_size_panics(text in ".*") {
            let _size = text.parse::<Bytes>();
        }

        #[test]
        fn a_size_reads_back(bytes in any::<u32>()) {
            let bytes = Bytes(usize::try_from(bytes).unwrap());
            prop_assert_eq!(bytes.to_string().replace("bytes", "B").parse(), Ok(bytes));
        }
    }
}
