//! How many requests are forwarded at once, and how many event streams: of one client, and in all.

use super::refusal::{ForwardError, Refusal};
use crate::config::{PASSED_AT_ONCE, PassRule};
use crate::limits::addr::ClientKey;
use crate::limits::places::{PerClient, Permit, Total, TotalPermit};
use crate::mcp::{Reason, Refused};
use crate::observe::metrics::Gauge;

/// Requests that may be under way at once, each with a connection of its own to the upstream: of
/// one client, enough for any page.
const PER_CLIENT: u32 = 64;

/// Places of requests that are passed through. Open rules have places of their own: strangers must
/// never hold one that a request with a token needs.
#[derive(Debug)]
pub(super) struct ForwardPlaces {
    open: RulePlaces,
    closed: RulePlaces,
}

/// Places of requests under open rules, or under closed ones.
#[derive(Debug)]
pub(super) struct RulePlaces {
    each: PerClient,
    all: Total,
    each_streams: PerClient,
    /// None where a token is wanted: who has one is not a stranger, and has its connections only.
    all_streams: Option<Total>,
}

impl RulePlaces {
    fn new(all_streams: Option<Total>, streams: &Gauge) -> Self {
        Self {
            each: PerClient::default(),
            all: Total::default(),
            each_streams: PerClient::counting(streams.clone()),
            all_streams,
        }
    }

    pub(super) fn take(&self, client: ClientKey) -> Result<ForwardPlace, ForwardError> {
        let own = self.each.try_take(client, PER_CLIENT).ok_or(ForwardError::ClientFull)?;
        Ok(ForwardPlace { _own: own, _all: Some(one_of(&self.all)?) })
    }

    /// The place of an event stream; one client has at most `most` of them.
    pub(super) fn take_stream(
        &self,
        client: ClientKey,
        most: u32,
    ) -> Result<ForwardPlace, Refusal> {
        let own = self.each_streams.try_take(client, most);
        let own = own.ok_or_else(|| Refused::from(Reason::ClientStreamsFull))?;
        let all = self.all_streams.as_ref().map(one_of).transpose()?;
        Ok(ForwardPlace { _own: own, _all: all })
    }
}

fn one_of(all: &Total) -> Result<TotalPermit, ForwardError> {
    all.try_take(PASSED_AT_ONCE).ok_or(ForwardError::Full)
}

impl ForwardPlaces {
    /// `streams` counts the event streams.
    pub(super) fn new(streams: &Gauge) -> Self {
        let open = RulePlaces::new(Some(Total::default()), streams);
        Self { open, closed: RulePlaces::new(None, streams) }
    }

    pub(super) fn under(&self, rule: &PassRule) -> &RulePlaces {
        if rule.open { &self.open } else { &self.closed }
    }
}

/// The place of a request that is passed through, or of an event stream.
#[derive(Debug)]
pub(super) struct ForwardPlace {
    _own: Permit,
    _all: Option<TotalPermit>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(last: u8) -> ClientKey {
        ClientKey::from(std::net::IpAddr::from([192, 0, 2, last]))
    }

    #[test]
    fn strangers_never_take_a_place_that_a_token_holder_needs() {
        let gauge = Gauge::default();
        let places = ForwardPlaces::new(&gauge);
        let rule = |open| PassRule { path: String::new(), beneath: true, open };
        let (open, closed) = (places.under(&rule(true)), places.under(&rule(false)));
        let strangers = || (0..8).flat_map(|last| (0..64).map(move |_| key(last)));
        let taken: Vec<_> = strangers().map(|client| open.take(client).unwrap()).collect();
        let streams: Vec<_> =
            strangers().map(|client| open.take_stream(client, 64).unwrap()).collect();
        assert_eq!(open.take(key(9)).unwrap_err(), ForwardError::Full);
        let full = open.take_stream(key(9), 64).unwrap_err();
        assert!(matches!(full, Refusal::NotForwarded(ForwardError::Full)), "{full:?}");
        // Neither in all, nor of an address that strangers have as well.
        for last in [0, 9] {
            assert!(closed.take(key(last)).is_ok() && closed.take_stream(key(last), 64).is_ok());
        }
        assert_eq!(gauge.value(), 512);
        drop((taken, streams));
        assert!(open.take(key(9)).is_ok() && open.take_stream(key(9), 64).is_ok());
    }

    #[test]
    fn places_are_of_one_client_and_in_all() {
        let places = ForwardPlaces::new(&Gauge::default());
        let of = |last: u8| places.closed.take(key(last));
        let mut taken: Vec<_> =
            (0..8).flat_map(|last| (0..64).map(move |_| last)).map(of).collect();
        assert!(taken.iter().all(Result::is_ok));
        assert_eq!(of(0).unwrap_err(), ForwardError::ClientFull);
        assert_eq!(of(9).unwrap_err(), ForwardError::Full);
        drop(taken.pop());
        assert!(of(9).is_ok() && of(7).is_ok());
    }
}
