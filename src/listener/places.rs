//! How many connections there may be: of one client, of strangers, and in all.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::config::Config;
use crate::limits::addr::ClientAddr;
use crate::limits::places::{PerClient, Permit};
use crate::limits::strangers::{Stranger, Strangers};
use crate::observe::metrics::{Gauged, Outcome, Tally};
use crate::wire::forwarded::TrustedProxies;

/// One in so many strangers goes where nobody can be accepted. Then the loop rests: a newcomer has
/// some seven rests to become known, and those who wait before it are let in by the dozen.
const ONE_IN: usize = 8;
/// How long a newcomer waits for the place of a stranger who was told to go.
const GIVE_WAY: Duration = Duration::from_secs(1);

/// The limits that all listeners keep together.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    all: Arc<Semaphore>,
    per_client: PerClient,
    connections_per_ip: u32,
    pub(super) strangers: Strangers,
    pub(super) proxies: Arc<TrustedProxies>,
    pub(super) write_timeout: Duration,
    pub(super) tally: Tally,
}

impl Places {
    pub(crate) fn new(config: &Config, tally: Tally) -> Self {
        let most = usize::try_from(config.limits.max_connections).unwrap_or(usize::MAX);
        let most = most.min(Semaphore::MAX_PERMITS);
        let strangers = usize::try_from(config.limits.max_unauthenticated).unwrap_or(usize::MAX);
        Self {
            all: Arc::new(Semaphore::new(most)),
            per_client: PerClient::default(),
            connections_per_ip: config.limits.connections_per_ip,
            strangers: Strangers::new(strangers, tally.gauges().unauthenticated.clone()),
            proxies: Arc::new(TrustedProxies::new(&config.trusted_proxies)),
            write_timeout: config.times.write,
            tally,
        }
    }

    /// Takes a newcomer in; a stranger gives way if that is one too many.
    pub(super) fn enter(&self, client: ClientAddr) -> Arc<Stranger> {
        let (stranger, full) = self.strangers.enter(client.key());
        if full {
            self.tally.count(Outcome::MaxUnauthenticated);
        }
        Arc::new(stranger)
    }

    /// One of all places, or a stranger's where all are taken.
    pub(super) fn one_of_all(&self) -> Option<ConnectionPlace> {
        if let Ok(place) = Arc::clone(&self.all).try_acquire_owned() {
            return Some(ConnectionPlace::Taken(self.taken(place)));
        }
        self.strangers.give_way().then(|| {
            self.tally.count(Outcome::MaxUnauthenticated);
            ConnectionPlace::Promised(Arc::clone(&self.all))
        })
    }

    fn taken(&self, place: OwnedSemaphorePermit) -> Taken {
        Taken { _place: place, _open: self.tally.gauges().connections.hold() }
    }

    /// Has strangers go, so that others can be accepted with what they hold.
    pub(super) fn make_room(&self) {
        let most = (self.strangers.len() / ONE_IN).max(1);
        let went = (0..most).take_while(|_| self.strangers.give_way()).count();
        self.tally.count_many(Outcome::MaxUnauthenticated, went);
    }

    /// The place, once its stranger has gone; none if that takes too long.
    pub(super) async fn had(&self, place: ConnectionPlace, client: ClientAddr) -> Option<Taken> {
        let place = match place {
            ConnectionPlace::Taken(taken) => Some(taken),
            ConnectionPlace::Promised(all) => {
                let place = timeout(GIVE_WAY, all.acquire_owned()).await;
                place.ok().and_then(Result::ok).map(|place| self.taken(place))
            }
        };
        if place.is_none() {
            self.refuse(client, Outcome::MaxConnections);
        }
        place
    }

    /// A place for a client, or none.
    pub(super) fn take(&self, client: ClientAddr) -> Option<Permit> {
        let permit = self.per_client.try_take(client.key(), self.connections_per_ip);
        if permit.is_none() {
            self.refuse(client, Outcome::ConnectionsPerIp);
        }
        permit
    }

    pub(super) fn refuse(&self, client: ClientAddr, outcome: Outcome) {
        self.tally.count(outcome);
        tracing::debug!(%client, refusal = outcome.name(), "refused");
    }
}

/// One of all places.
#[derive(Debug)]
pub(super) enum ConnectionPlace {
    Taken(Taken),
    /// Its stranger was told to go.
    Promised(Arc<Semaphore>),
}

/// The place of a connection, which counts as open.
#[derive(Debug)]
pub(super) struct Taken {
    _place: OwnedSemaphorePermit,
    _open: Gauged,
}
