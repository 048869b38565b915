//! How many connections there may be: of one client, of strangers, and in all.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::config::Limits;
use crate::limits::addr::ClientAddr;
use crate::limits::places::{PerClient, Permit, Total, TotalPermit};
use crate::limits::strangers::{Stranger, Strangers};
use crate::observe::metrics::{Metrics, Outcome};

/// One in so many strangers goes where nobody can be accepted. Then the loop rests: a newcomer has
/// some seven rests to become known, and those who wait before it are let in by the dozen.
const ONE_IN: usize = 8;
/// How long a newcomer waits for the place of a stranger who was told to go.
const GIVE_WAY: Duration = Duration::from_secs(1);

/// The connections of all listeners, counted together.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionPlaces {
    all: Total,
    per_client: PerClient,
    pub(super) strangers: Strangers,
    pub(super) metrics: Metrics,
}

impl ConnectionPlaces {
    pub(crate) fn new(metrics: Metrics) -> Self {
        let gauges = metrics.gauges();
        Self {
            all: Total::counting(gauges.connections.clone()),
            per_client: PerClient::default(),
            strangers: Strangers::counting(gauges.unauthenticated.clone()),
            metrics,
        }
    }

    /// Takes a newcomer in; a stranger gives way if that is one too many.
    pub(super) fn enter(&self, client: ClientAddr, limits: &Limits) -> Arc<Stranger> {
        let most = usize::try_from(limits.max_unauthenticated).unwrap_or(usize::MAX);
        let (stranger, went) = self.strangers.enter(client.key(), most);
        self.metrics.count_many(Outcome::MaxUnauthenticated, went);
        Arc::new(stranger)
    }

    /// One of all places, or a stranger's where all are taken.
    pub(super) fn one_of_all(&self, limits: &Limits) -> Option<ConnectionPlace> {
        let most = limits.max_connections;
        if let Some(place) = self.all.try_take(most) {
            return Some(ConnectionPlace::Taken(place));
        }
        self.strangers.give_way().then(|| {
            self.metrics.count(Outcome::MaxUnauthenticated);
            ConnectionPlace::Promised { most }
        })
    }

    /// Has strangers go, so that others can be accepted with what they hold.
    pub(super) fn make_room(&self) {
        let most = (self.strangers.len() / ONE_IN).max(1);
        let went = (0..most).take_while(|_| self.strangers.give_way()).count();
        self.metrics.count_many(Outcome::MaxUnauthenticated, went);
    }

    /// The place, once its stranger has gone; none if that takes too long.
    pub(super) async fn had(
        &self,
        place: ConnectionPlace,
        client: ClientAddr,
    ) -> Option<TotalPermit> {
        let place = match place {
            ConnectionPlace::Taken(place) => Some(place),
            ConnectionPlace::Promised { most } => timeout(GIVE_WAY, self.all.take(most)).await.ok(),
        };
        if place.is_none() {
            self.refuse(client, Outcome::MaxConnections);
        }
        place
    }

    /// A place for a client, or none.
    pub(super) fn take(&self, client: ClientAddr, limits: &Limits) -> Option<Permit> {
        let permit = self.per_client.try_take(client.key(), limits.connections_per_ip);
        if permit.is_none() {
            self.refuse(client, Outcome::ConnectionsPerIp);
        }
        permit
    }

    pub(super) fn refuse(&self, client: ClientAddr, outcome: Outcome) {
        self.metrics.count(outcome);
        tracing::debug!(%client, refusal = outcome.name(), "refused");
    }
}

/// One of all places.
#[derive(Debug)]
pub(super) enum ConnectionPlace {
    Taken(TotalPermit),
    /// Its stranger was told to go. There may be so many.
    Promised {
        most: u32,
    },
}
