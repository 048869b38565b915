//! What to do about an address that cannot be listened on.

use std::io;
use std::net::SocketAddr;

/// Why the address could not be taken, with what to do.
pub(crate) fn bind_text(address: SocketAddr, source: &io::Error) -> String {
    let ip = address.ip();
    let port = address.port();
    unbound(&format!("cannot listen on --host {ip} --port {port} (MCP_HOST, MCP_PORT)"), source)
}

/// The same of the address for plain HTTP.
pub(crate) fn bind_redirect_text(address: SocketAddr, source: &io::Error) -> String {
    let place = format!("cannot listen on --redirect-http {address} (MCP_REDIRECT_HTTP)");
    unbound(&place, source)
}

fn unbound(place: &str, source: &io::Error) -> String {
    let kind = source.kind();
    let advice = if kind == io::ErrorKind::AddrInUse {
        "the port is taken: stop the other program (`ss -ltnp` shows it) or choose another port; 0 \
         lets the system choose"
    } else if kind == io::ErrorKind::AddrNotAvailable {
        "the address is none of this machine's: use one that `ip address` shows, or 0.0.0.0 for all"
    } else if kind == io::ErrorKind::PermissionDenied {
        "ports below 1024 need a privilege: choose another port, or grant CAP_NET_BIND_SERVICE \
         (systemd: AmbientCapabilities)"
    } else {
        return format!("{place}: {source}");
    };
    format!("{place}: {advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_the_address_cannot_be_had() {
        use std::io::{Error, ErrorKind};
        let text = |kind| bind_text("192.0.2.1:443".parse().unwrap(), &Error::from(kind));
        let place = "--host 192.0.2.1 --port 443 (MCP_HOST, MCP_PORT)";
        for (kind, part) in [
            (ErrorKind::AddrInUse, "the port is taken"),
            (ErrorKind::AddrNotAvailable, "none of this machine's"),
            (ErrorKind::PermissionDenied, "CAP_NET_BIND_SERVICE"),
            (ErrorKind::OutOfMemory, place),
        ] {
            let text = text(kind);
            assert!(text.contains(place) && text.contains(part), "{text}");
        }
    }
}
