//! Streams that stay open for what belongs to no call: how many, and for how long.

use std::time::Duration;

use super::Reason;
use super::session::reader::Reader;
use super::sse::{EventStream, StreamKind};
use crate::config::Config;
use crate::drain::Drain;
use crate::limits::addr::ClientKey;
use crate::limits::places::{PerClient, Permit};
use crate::observe::metrics::Gauge;
use crate::policy::Policy;
use crate::wire::revision::ProtocolVersion;

/// What every event stream is held to.
#[derive(Debug)]
pub(super) struct Streams {
    places: PerClient,
    keep_alive: Duration,
    age: Duration,
    drain: Drain,
}

impl Streams {
    /// `open` counts those that are open.
    pub(super) fn new(config: &Config, open: Gauge, drain: Drain) -> Self {
        Self {
            places: PerClient::counting(open),
            keep_alive: config.times.keep_alive,
            age: config.times.stream_age,
            drain,
        }
    }

    /// Takes a place for a long stream of this client.
    pub(super) fn take(&self, client: ClientKey, policy: &Policy) -> Result<Permit, Reason> {
        self.places.try_take(client, policy.limits.streams_per_ip).ok_or(Reason::ClientStreamsFull)
    }

    /// What a long stream of a session of this revision is like.
    pub(super) fn long(&self, version: Option<ProtocolVersion>) -> StreamKind {
        StreamKind {
            ids: true,
            primed: version.is_some_and(ProtocolVersion::has_priming),
            endpoint: None,
            age: Some(self.age),
            keep_alive: self.keep_alive,
        }
    }

    /// A long stream. It ends early while the edge goes down.
    pub(super) fn start(&self, reader: Reader, kind: StreamKind, place: Permit) -> EventStream {
        EventStream::new(reader, kind, Some(self.drain.draining()), Some(place))
    }
}
