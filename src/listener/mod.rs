//! The accept loop. It awaits no peer: whatever waits for one runs in the connection's own task.

mod places;
mod shortage;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

pub(crate) use self::places::ConnectionPlaces;

use crate::conn::{self, Arrival, Connection, KnownBy};
use crate::drain::Drain;
use crate::limits::addr::ClientAddr;
use crate::limits::strangers::Stranger;
use crate::observe::metrics::Outcome;
use crate::policy::{CurrentPolicy, Policy};

/// A silent peer is asked by the kernel whether it is there: first after, then every, how often.
const KEEP_ALIVE_AFTER: Duration = Duration::from_mins(1);
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(15);
const KEEP_ALIVE_TRIES: u32 = 4;

/// Connections that may wait to be accepted. The system lowers it to what it allows
/// (`net.core.somaxconn`). A burst beyond it is dropped, and its clients try again a second later.
const BACKLOG: u32 = 4096;

/// Takes connections in, within the limits.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: TcpListener,
    policy: CurrentPolicy,
    places: ConnectionPlaces,
    drain: Drain,
}

impl Listener {
    /// Binds this address.
    pub(crate) fn bind(
        address: SocketAddr,
        policy: CurrentPolicy,
        places: ConnectionPlaces,
        drain: Drain,
    ) -> io::Result<Self> {
        Ok(Self { socket: listen(address)?, policy, places, drain })
    }

    /// The address that is listened on, with the port that the system chose.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts until the drain begins.
    pub(crate) async fn run(self, connection: Arc<Connection>) {
        let accepting = shortage::accept(
            |context| self.socket.poll_accept(context),
            |(stream, peer)| self.admit(stream, peer, &connection),
            &self.places,
        );
        tokio::select! {
            () = self.drain.draining() => {}
            never = accepting => match never {},
        }
    }

    /// Starts a connection's task, if there is a place; else closes it, before a byte of TLS. For
    /// whom a trusted proxy speaks is known later; it needs no place of its own.
    fn admit(&self, stream: TcpStream, peer: SocketAddr, connection: &Arc<Connection>) {
        let peer = ClientAddr::from_peer(peer);
        let policy = self.policy.now();
        let permit = if policy.proxies.trusts(peer.ip()) {
            None
        } else {
            let Some(permit) = self.places.take(peer, &policy.limits) else { return };
            Some(permit)
        };
        let Some(place) = self.places.one_of_all(&policy.limits) else {
            return self.places.refuse(peer, Outcome::MaxConnections);
        };
        if let Err(error) = prepare(&stream, policy.times.write) {
            return tracing::debug!(client = %peer, %error, "the connection was gone before it began");
        }
        let connection = Arc::clone(connection);
        let places = self.places.clone();
        self.drain.spawn(async move {
            let Some(_place) = places.had(place, peer).await else { return };
            let Ok(local) = stream.local_addr() else { return };
            match permit {
                Some(_permit) => {
                    let arrival = Arrival::direct(stream, peer);
                    let stranger = Some(places.enter(peer, &policy.limits));
                    serve(arrival, local, stranger, &connection, &policy).await;
                }
                None => serve_proxied(stream, peer, local, &connection, &places, &policy).await,
            }
        });
    }
}

/// A socket that listens, with a long queue.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // What an edge before this one has left in TIME_WAIT does not keep the address taken.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves a trusted proxy. Whoever it names in a PROXY header takes a place of its own.
async fn serve_proxied(
    stream: TcpStream,
    proxy: ClientAddr,
    local: SocketAddr,
    connection: &Connection,
    places: &ConnectionPlaces,
    policy: &Policy,
) {
    let Some(arrival) = conn::announced(stream, proxy, policy).await else { return };
    let taken = match arrival.by {
        KnownBy::Proxy => {
            let Some(permit) = places.take(arrival.client, &policy.limits) else { return };
            Some((permit, places.enter(arrival.client, &policy.limits)))
        }
        KnownBy::Peer | KnownBy::Itself | KnownBy::Requests => None,
    };
    let stranger = taken.as_ref().map(|(_permit, stranger)| Arc::clone(stranger));
    Box::pin(serve(arrival, local, stranger, connection, policy)).await;
}

/// Serves a connection to its end; a stranger for as long as it need not give way.
async fn serve<I>(
    arrival: Arrival<I>,
    local: SocketAddr,
    stranger: Option<Arc<Stranger>>,
    connection: &Connection,
    policy: &Policy,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let client = arrival.client;
    let gives_way = stranger.clone();
    let gives_way = async {
        match gives_way {
            Some(stranger) => stranger.must_go().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = connection.serve(arrival, local.ip(), stranger, policy) => {}
        () = gives_way => tracing::debug!(%client, "gave way to a newcomer"),
    }
}

/// Lets the kernel find out that a peer is gone without a goodbye.
fn prepare(stream: &TcpStream, write_timeout: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keep_alive = TcpKeepalive::new()
        .with_time(KEEP_ALIVE_AFTER)
        .with_interval(KEEP_ALIVE_EVERY)
        .with_retries(KEEP_ALIVE_TRIES);
    socket.set_tcp_keepalive(&keep_alive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(write_timeout))?;
    Ok(())
}

#[cfg(test)]
mod tests;
