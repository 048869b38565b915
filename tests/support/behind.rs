//! An HTTP server behind the edge, on a bare socket: it says what the test has it say.

use std::net::{Ipv4Addr, SocketAddr};

use mcp_edge::{Behind, Checked, PassRule, Upstream, UpstreamLimits};
use tokio::net::{TcpListener, TcpStream};

use super::raw::RawClient;

/// The server. It takes no connection that the test does not take.
pub(crate) struct Upside {
    socket: TcpListener,
    pub(crate) address: SocketAddr,
}

/// A connection that it took.
pub(crate) type Taken = RawClient<TcpStream>;

impl Upside {
    pub(crate) async fn new() -> Self {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        Self { socket, address }
    }

    /// Settings for an edge in front, that passes these paths through: as `--pass` takes them, or
    /// behind `open:` as `--pass-open` does.
    pub(crate) fn passing(&self, paths: &[&str]) -> Upstream {
        let url = format!("http://{}/mcp", self.address).parse().unwrap();
        let pass = paths.iter().map(|path| rule(path)).collect();
        // Its connection would be the first that the test takes.
        Upstream { pass, check_at_start: false, ..Upstream::new(url) }
    }

    pub(crate) fn behind(&self, paths: &[&str]) -> Behind {
        Behind::upstream(self.passing(paths))
    }

    pub(crate) async fn accept(&self) -> Taken {
        RawClient::on(self.socket.accept().await.unwrap().0)
    }

    /// A connection, and the head of its first request.
    pub(crate) async fn asked(&self) -> (Taken, String) {
        let mut taken = self.accept().await;
        let head = taken.until("\r\n\r\n").await;
        (taken, head)
    }

    /// Answers the next request; its head, and what came with it.
    pub(crate) async fn answer(&self, response: &str) -> String {
        let (mut taken, head) = self.asked().await;
        taken.send(response).await;
        head
    }

    /// Has no connection come?
    pub(crate) async fn is_untouched(&self) -> bool {
        let moment = std::time::Duration::from_millis(50);
        tokio::time::timeout(moment, self.socket.accept()).await.is_err()
    }
}

/// The limits of an upstream, with what the test changes.
pub(crate) fn upstream_limits(change: impl FnOnce(&mut UpstreamLimits)) -> Checked<UpstreamLimits> {
    let mut limits = UpstreamLimits::default();
    change(&mut limits);
    limits.check().unwrap()
}

fn rule(text: &str) -> PassRule {
    let (open, text) = text.strip_prefix("open:").map_or((false, text), |text| (true, text));
    let (path, beneath) = text.strip_suffix("/*").map_or((text, false), |path| (path, true));
    PassRule { path: path.to_owned(), beneath, open }
}
