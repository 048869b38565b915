//! What to do about an address that cannot be listened on.

use std::io::ErrorKind;

use mcp_edge::StartError;

/// Why the address could not be taken, with what to do; none if something else is wrong.
pub(crate) fn advice(error: &StartError) -> Option<String> {
    let (place, source) = if let StartError::Bind { address, source } = error {
        let (ip, port) = (address.ip(), address.port());
        (format!("--host {ip} --port {port} (MCP_HOST, MCP_PORT)"), source)
    } else if let StartError::BindRedirect { address, source } = error {
        (format!("--redirect-http {address} (MCP_REDIRECT_HTTP)"), source)
    } else {
        return None;
    };
    let kind = source.kind();
    let advice = if kind == ErrorKind::AddrInUse {
        "the port is taken: stop the other program (`ss -ltnp` shows it) or choose another port; 0 \
         lets the system choose"
    } else if kind == ErrorKind::AddrNotAvailable {
        "the address is none of this machine's: use one that `ip address` shows, or 0.0.0.0 for all"
    } else if kind == ErrorKind::PermissionDenied {
        "ports below 1024 need a privilege: choose another port, or grant CAP_NET_BIND_SERVICE \
         (systemd: AmbientCapabilities)"
    } else {
        return Some(format!("cannot listen on {place}: {source}"));
    };
    Some(format!("cannot listen on {place}: {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_the_address_cannot_be_had() {
        let address = "192.0.2.1:443".parse().unwrap();
        let text =
            |kind: ErrorKind| advice(&StartError::Bind { address, source: kind.into() }).unwrap();
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
