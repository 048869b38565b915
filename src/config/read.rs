//! Values as operators write them: `10MiB`, `30s`, `yes`, `localhost`. Each reader gives the reason if
//! a text cannot be read.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::TlsVersion;

fn utf8(text: &OsStr) -> Result<&str, String> {
    text.to_str().ok_or_else(|| "it is not UTF-8".to_owned())
}

/// A file or a directory, under whatever name.
#[expect(clippy::unnecessary_wraps, reason = "every reader may fail")]
pub(super) fn file(text: &OsStr) -> Result<PathBuf, String> {
    Ok(PathBuf::from(text))
}

/// A text that is looked at together with other settings.
pub(super) fn text(text: &OsStr) -> Result<String, String> {
    utf8(text).map(str::to_owned)
}

/// An address to listen on: an IP address (IPv6 with or without brackets) or `localhost`.
pub(super) fn host(text: &OsStr) -> Result<IpAddr, String> {
    address(utf8(text)?).map_err(str::to_owned)
}

fn address(text: &str) -> Result<IpAddr, &'static str> {
    if text.eq_ignore_ascii_case("localhost") {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_not_an_address| {
        "give an IP address of this machine (127.0.0.1, 0.0.0.0, ::) or localhost"
    })
}

/// An address and a port to listen on.
pub(super) fn listen(text: &OsStr) -> Result<SocketAddr, String> {
    let text = utf8(text)?.trim();
    text.parse().map_err(|_not_both| {
        let give = |rest: String| format!("give address and port, as {rest}");
        match (text.parse::<u16>(), address(text)) {
            (Ok(port), _) => give(format!("0.0.0.0:{port} for every IPv4 address")),
            (_, Ok(ip)) => give(SocketAddr::new(ip, 80).to_string()),
            _ => give("0.0.0.0:80 for every IPv4 address".to_owned()),
        }
    })
}

/// A version of TLS that is spoken.
pub(super) fn tls_version(text: &OsStr) -> Result<TlsVersion, String> {
    match utf8(text)?.trim() {
        "1.2" => Ok(TlsVersion::Tls12),
        "1.3" => Ok(TlsVersion::Tls13),
        _ => {
            Err("give 1.2 or 1.3; older versions are broken, and not spoken (RFC 8996)".to_owned())
        }
    }
}

/// A length of time: a number and its unit, as `500ms`, `10s`, `30m`, `1h`.
pub(super) fn time(text: &OsStr) -> Result<Duration, String> {
    let text = utf8(text)?.trim();
    humantime::parse_duration(text).map_err(|_no_duration| {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            format!("it has no unit: write {text}s, or {text}ms, {text}m or {text}h")
        } else {
            "give a number and its unit, as 500ms, 30s, 10m or 1h".to_owned()
        }
    })
}

/// A whole number.
pub(super) fn count<T: FromStr>(text: &OsStr) -> Result<T, String> {
    utf8(text)?.trim().parse().map_err(|_no_number| "give a whole number, as 20".to_owned())
}

/// A port.
pub(super) fn port(text: &OsStr) -> Result<u16, String> {
    utf8(text)?.trim().parse().map_err(|_no_port| "give a port from 0 to 65535".to_owned())
}

/// A size in bytes, written plain or in KiB, MiB, GiB (`K`, `M`, `G` mean the same, as in nginx).
pub(super) fn size(text: &OsStr) -> Result<usize, String> {
    let hint = || "give bytes, or a whole number of KiB, MiB or GiB, as 32KiB".to_owned();
    let text = utf8(text)?.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).ok_or_else(hint)?;
    let unit: usize = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        _ => return Err(hint()),
    };
    let number: usize = number.parse().map_err(|_not_a_number| hint())?;
    number.checked_mul(unit).ok_or_else(|| "that is more than this machine can count".to_owned())
}

/// A size as [`size`] reads it.
pub(super) fn shown_size(bytes: usize) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes} bytes"),
    }
}

/// A length of time as [`time`] reads it.
pub(super) fn shown_time(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

/// On or off: `1`, `true`, `yes`, `on` or `0`, `false`, `no`, `off`, in any case.
pub(super) fn switch(text: &OsStr) -> Result<bool, String> {
    match utf8(text)?.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "y" | "on" | "t" => Ok(true),
        "0" | "false" | "no" | "n" | "off" | "f" => Ok(false),
        _ => Err("give true or false (1, yes, on; 0, no, off)".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_read_as_written() {
        let size = |text: &str| size(text.as_ref());
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
        let host = |text: &str| host(text.as_ref());
        assert_eq!(host("LocalHost"), Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert_eq!(host("0.0.0.0"), Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        assert_eq!(host("[::1]"), host("::1"));
        assert!(host("example.com").is_err());
        assert!(host("127.0.0.1:8443").is_err());
    }

    proptest! {
        #[test]
        fn no_size_panics(text in ".*") {
            let _size = size(text.as_ref());
        }

        #[test]
        fn a_size_reads_back(bytes in any::<u32>()) {
            let bytes = usize::try_from(bytes).unwrap();
            let shown = shown_size(bytes).replace("bytes", "B");
            prop_assert_eq!(size(shown.as_ref()), Ok(bytes));
        }
    }
}
