//! The sessions that clients know by an id, and how many there may be.

use std::sync::Arc;

use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Session;
use super::eviction::{self, Candidate, Choice};
use super::id::SessionId;
use crate::caller::{Principal, Transport};
use crate::config::Limits;
use crate::limits::addr::ClientKey;
use crate::limits::places::{PerClient, Permit, Total, TotalPermit};
use crate::mcp::Reason;
use crate::observe::metrics::{Gauge, Gauged};

/// How often a session is chosen for eviction until one can really be ended.
const MAX_CHOICES: usize = 8;

/// The sessions that clients know by an id.
#[derive(Debug, Default)]
pub(crate) struct SessionTable {
    sessions: Arc<DashMap<Box<str>, Entry>>,
    places: Total,
    known: Gauge,
    per_client: PerClient,
}

/// A session that clients can find.
#[derive(Debug)]
struct Entry {
    session: Arc<Session>,
    hold: Arc<Hold>,
    _known: Gauged,
}

/// What a session holds of the limits, until a newcomer takes it or the session ends.
#[derive(Debug)]
pub(crate) struct Hold {
    client: ClientKey,
    places: Mutex<Option<SessionPermits>>,
}

/// A place in all, and one of the client's.
#[derive(Debug)]
pub(crate) struct SessionPermits {
    all: TotalPermit,
    _client: Permit,
}

impl Hold {
    fn release(&self) -> Option<SessionPermits> {
        self.places.lock().take()
    }
}

/// The place of one session. Dropping it gives back what it still holds, and forgets the session.
#[derive(Debug)]
pub(crate) struct SessionPlace {
    id: SessionId,
    sessions: Arc<DashMap<Box<str>, Entry>>,
    hold: Arc<Hold>,
}

impl SessionPlace {
    pub(crate) fn id(&self) -> &SessionId {
        &self.id
    }

    pub(crate) fn hold(&self) -> Arc<Hold> {
        Arc::clone(&self.hold)
    }
}

impl Drop for SessionPlace {
    fn drop(&mut self) {
        self.sessions.remove(self.id.as_str());
        drop(self.hold.release());
    }
}

/// The client that needs a place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Newcomer<'a> {
    pub(crate) principal: &'a Principal,
    /// How long it waits at most.
    pub(crate) patience: Instant,
}

/// No place can be had now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// Those of the client are taken, and the first may be free at this time, if that is known.
    OfClient(Option<Instant>),
    /// All are taken, likewise.
    AtAll(Option<Instant>),
    /// There is no session id.
    NoRandomness,
}

impl SessionTable {
    /// `known` counts the sessions that clients can find.
    pub(crate) fn counting(known: Gauge) -> Self {
        Self { known, ..Self::default() }
    }

    /// Takes a place for a session of this client: a free one, or that of an idle session, which
    /// ends. Where a limit was lowered, and there are more than that, a second one ends: each
    /// newcomer brings the number down by one, and the limits of one request end no more than two.
    pub(crate) fn take(
        &self,
        client: ClientKey,
        newcomer: Newcomer<'_>,
        limits: &Limits,
    ) -> Result<SessionPlace, NoPlace> {
        let Limits { sessions_per_ip, max_sessions, .. } = *limits;
        let of_client = || self.evict(Some(client), newcomer).map_err(NoPlace::OfClient);
        let of_all = || self.evict(None, newcomer).map_err(NoPlace::AtAll);
        let places = match self.per_client.try_take(client, sessions_per_ip) {
            None => of_client()?,
            Some(permit) => {
                let free = self.places.try_take(max_sessions);
                let all = free.map_or_else(|| of_all().map(|evicted| evicted.all), Ok)?;
                SessionPermits { all, _client: permit }
            }
        };
        if self.per_client.taken(client) > sessions_per_ip {
            drop(of_client()?);
        } else if self.places.taken() > max_sessions {
            drop(of_all()?);
        }
        let hold = Arc::new(Hold { client, places: Mutex::new(Some(places)) });
        let id = SessionId::random().map_err(|_no_randomness| NoPlace::NoRandomness)?;
        Ok(SessionPlace { id, sessions: Arc::clone(&self.sessions), hold })
    }

    /// Ends an idle session, of this client if one is given, for a newcomer who gets its places.
    /// The error says when the first session may be ended, if that is known.
    pub(crate) fn evict(
        &self,
        of: Option<ClientKey>,
        newcomer: Newcomer<'_>,
    ) -> Result<SessionPermits, Option<Instant>> {
        // A session that is used or ended in just this moment makes it choose again.
        for _ in 0..MAX_CHOICES {
            let sessions = self.sessions.iter();
            let sessions = sessions.filter(|entry| of.is_none_or(|of| entry.hold.client == of));
            let candidates = sessions.filter_map(|entry| {
                let Entry { session, hold, _known: _ } = entry.value();
                let usage = session.usage()?;
                let own = session.is_of(newcomer.principal);
                let session = (Arc::clone(session), Arc::clone(hold), usage);
                Some(Candidate { session, own, usage })
            });
            match eviction::choose(candidates, Instant::now(), newcomer.patience) {
                Choice::Evict((session, hold, usage)) => {
                    if let (true, Some(places)) = (session.evict(usage), hold.release()) {
                        return Ok(places);
                    }
                }
                Choice::Wait(at) => return Err(Some(at)),
                Choice::InUse => return Err(None),
            }
        }
        Err(None)
    }

    /// Makes a session known.
    pub(crate) fn enter(&self, session: &Arc<Session>, hold: Arc<Hold>) {
        let entry = Entry { session: Arc::clone(session), hold, _known: self.known.hold() };
        self.sessions.insert(session.id().as_str().into(), entry);
    }

    /// The open session with this id, if it is of this transport and belongs to this principal.
    /// Somebody else's session is as unknown as none.
    pub(crate) fn find(
        &self,
        id: &str,
        principal: &Principal,
        transport: Transport,
    ) -> Result<Arc<Session>, Reason> {
        let session = self.sessions.get(id).map(|entry| Arc::clone(&entry.session));
        session
            .filter(|session| session.is_open_to(principal) && session.transport() == transport)
            .inspect(|session| session.used_by_client())
            .ok_or(Reason::UnknownSession)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;
    use crate::backend::diagnostics::Diagnostics;
    use crate::backend::embedded::EmbeddedBackend;
    use crate::backend::{Backend, FromBackend, Link, ToBackend};
    use crate::caller::{Caller, TokenId};
    use crate::config::{Config, Limits};
    use crate::drain::Drain;
    use crate::limits::bytes::{Budget, Quota};
    use crate::mcp::Mcp;
    use crate::mcp::call::Permitted;
    use crate::mcp::session::{SessionTimes, Terms};
    use crate::observe::metrics::Metrics;
    use crate::policy::Policy;
    use crate::wire::jsonrpc::Message;

    fn client(last: u8) -> ClientKey {
        ClientKey::from(IpAddr::from([192, 0, 2, last]))
    }

    const ME: Principal = Principal::Anonymous;

    /// A table, and how many sessions it may have in all and of one client.
    struct Limited(SessionTable, Limits);

    impl Limited {
        fn new(max_sessions: u32, sessions_per_ip: u32) -> Self {
            let limits = Limits { max_sessions, sessions_per_ip, ..Limits::default() };
            Self(SessionTable::default(), limits)
        }
    }

    impl std::ops::Deref for Limited {
        type Target = SessionTable;

        fn deref(&self) -> &SessionTable {
            &self.0
        }
    }

    fn take(table: &Limited, client: ClientKey) -> Result<SessionPlace, NoPlace> {
        take_as(table, client, &ME)
    }

    fn take_as(
        table: &Limited,
        client: ClientKey,
        principal: &Principal,
    ) -> Result<SessionPlace, NoPlace> {
        let newcomer = Newcomer { principal, patience: Instant::now() };
        table.0.take(client, newcomer, &table.1)
    }

    /// A session on the table whose backend the test plays by its link.
    fn session(place: SessionPlace, drain: &Drain, table: &SessionTable) -> (Arc<Session>, Played) {
        session_of(ME, place, drain, table)
    }

    type Played = (tokio::sync::mpsc::Receiver<ToBackend>, tokio::sync::mpsc::Sender<FromBackend>);

    fn session_of(
        principal: Principal,
        place: SessionPlace,
        drain: &Drain,
        table: &SessionTable,
    ) -> (Arc<Session>, Played) {
        let (to_backend, told) = tokio::sync::mpsc::channel(8);
        let (say, from_backend) = tokio::sync::mpsc::channel(8);
        let hour = Duration::from_hours(1);
        let times = SessionTimes { call: hour, idle: hour, age: hour, write: hour };
        let terms = Terms { times, quota: Quota::unbounded(), metrics: Metrics::default() };
        let id = place.id().clone();
        let hold = place.hold();
        let owner = (principal, Transport::StreamableHttp);
        let session =
            Session::start(id, owner, terms, Link { to_backend, from_backend }, place, drain);
        table.enter(&session, hold);
        (session, (told, say))
    }

    #[test]
    fn places_are_limited_in_all_and_per_client() {
        let table = Limited::new(3, 2);
        let (_a, b) = (take(&table, client(1)).unwrap(), take(&table, client(1)).unwrap());
        assert_eq!(take(&table, client(1)).unwrap_err(), NoPlace::OfClient(None));
        let _c = take(&table, client(2)).unwrap();
        assert_eq!(take(&table, client(2)).unwrap_err(), NoPlace::AtAll(None));
        drop(b);
        assert!(take(&table, client(2)).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_that_clients_can_find_are_counted() {
        let known = Gauge::default();
        let table = Limited(SessionTable::counting(known.clone()), Limits::default());
        let place = take(&table, client(1)).unwrap();
        assert_eq!(known.value(), 0, "it has not begun");
        let (session, _played) = session(place, &Drain::default(), &table);
        assert_eq!(known.value(), 1);
        session.close();
        sleep(Duration::from_millis(1)).await;
        assert_eq!(known.value(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_limit_was_lowered_each_newcomer_ends_two_idle_sessions_until_it_is_kept() {
        for lower in [
            Limits { sessions_per_ip: 2, ..Limits::default() },
            Limits { max_sessions: 2, ..Limits::default() },
        ] {
            let mut table = Limited::new(9, 9);
            let drain = Drain::default();
            let mut played = Vec::new();
            for _ in 0..5 {
                played.push(session(take(&table, client(1)).unwrap(), &drain, &table).1);
            }
            let first = Arc::clone(&table.sessions.iter().next().unwrap().session);
            let reader = first.listen().unwrap();
            table.1 = lower;
            assert!(take(&table, client(1)).is_err(), "all of them may be in a burst");
            sleep(Duration::from_secs(2)).await;
            drop(take(&table, client(1)).unwrap());
            sleep(Duration::from_millis(1)).await;
            assert_eq!((table.sessions.len(), table.places.taken()), (3, 3));
            let _newcomer = take(&table, client(1)).unwrap();
            sleep(Duration::from_millis(1)).await;
            // The one that is read stays, and the newcomer is the other.
            assert_eq!(
                (table.sessions.len(), table.places.taken(), first.is_ended()),
                (1, 2, false)
            );
            assert!(take(&table, client(1)).is_err());
            // A higher one counts at once.
            table.1 = Limits { sessions_per_ip: 3, max_sessions: 3, ..Limits::default() };
            assert!(take(&table, client(1)).is_ok());
            drop(reader);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_session_gives_its_place_to_a_newcomer_of_its_client() {
        let table = Limited::new(9, 2);
        let drain = Drain::default();
        let (one, _link) = session(take(&table, client(1)).unwrap(), &drain, &table);
        sleep(Duration::from_millis(750)).await;
        let (two, _played) = session(take(&table, client(1)).unwrap(), &drain, &table);
        let begun = Instant::now();
        let soon = NoPlace::OfClient(Some(begun + Duration::from_millis(750)));
        assert_eq!(take(&table, client(1)).unwrap_err(), soon, "it may be in a burst");
        sleep(Duration::from_millis(750)).await;
        let place = take(&table, client(1)).unwrap();
        assert!(one.is_ended() && !two.is_ended());
        // The place is the newcomer's at once, and the end of the session gives back no other.
        assert!(take(&table, client(1)).is_err());
        sleep(Duration::from_millis(1)).await;
        assert!(take(&table, client(1)).is_err());
        assert_eq!((table.sessions.len(), table.known.value()), (1, 1));
        drop(place);
        assert!(take(&table, client(1)).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_came_back_is_not_evicted_by_its_neighbours_for_five_minutes() {
        let table = Limited::new(9, 2);
        let drain = Drain::default();
        let mut played = Vec::new();
        let mut open = || {
            let (session, link) = session(take(&table, client(1)).unwrap(), &drain, &table);
            played.push(link);
            session
        };
        let (working, _never_used_again) = (open(), open());
        let find = || table.find(working.id().as_str(), &ME, Transport::StreamableHttp);
        assert!(find().is_ok());
        sleep(Duration::from_secs(2)).await;
        assert!(find().is_ok());
        for _ in 0..30 {
            sleep(Duration::from_secs(2)).await;
            let _newcomer = open();
        }
        assert!(!working.is_ended());
        // It has been idle for a minute. Its last neighbour comes back, too: nobody goes.
        let last = table
            .sessions
            .iter()
            .find(|entry| !entry.session.is_ended() && entry.session.id() != working.id());
        let last = last.map(|entry| Arc::clone(&entry.session)).unwrap();
        last.used_by_client();
        sleep(Duration::from_secs(2)).await;
        last.used_by_client();
        let free = Instant::now() + Duration::from_secs(300 - 62);
        assert_eq!(take(&table, client(1)).unwrap_err(), NoPlace::OfClient(Some(free)));
        tokio::time::sleep_until(free).await;
        assert!(take(&table, client(1)).is_ok());
        assert!(working.is_ended() && !last.is_ended());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_is_read_and_a_call_that_waits_are_never_evicted() {
        let table = Limited::new(9, 2);
        let drain = Drain::default();
        let (reading, _a) = session(take(&table, client(1)).unwrap(), &drain, &table);
        let (calling, _b) = session(take(&table, client(1)).unwrap(), &drain, &table);
        let reader = reading.listen().unwrap();
        let request = Message::request(&1.into(), "tools/call", &serde_json::json!({}));
        let request = Permitted::of_edge(request, Arc::new(Caller::stdio()));
        let answer = calling.call(vec![request], false).await.unwrap();
        sleep(Duration::from_mins(50)).await;
        assert!(take(&table, client(1)).is_err());
        assert!(!reading.is_ended() && !calling.is_ended());
        drop((reader, answer));
        // Its reader stayed for long: it may come back within five minutes.
        sleep(Duration::from_secs(299)).await;
        assert!(take(&table, client(1)).is_err());
        sleep(Duration::from_secs(1)).await;
        assert!(take(&table, client(1)).is_ok());
        assert!(reading.is_ended() && !calling.is_ended());
    }

    #[tokio::test(start_paused = true)]
    async fn another_principal_gives_way_only_if_none_of_ones_own_can() {
        let table = Limited::new(2, 9);
        let drain = Drain::default();
        let other = Principal::Token(TokenId([7; 32]));
        let place = take_as(&table, client(1), &other).unwrap();
        let (theirs, _a) = session_of(other.clone(), place, &drain, &table);
        sleep(Duration::from_mins(10)).await;
        let (mine, _b) = session(take(&table, client(2)).unwrap(), &drain, &table);
        sleep(Duration::from_secs(2)).await;
        let place = take(&table, client(3)).unwrap();
        assert!(mine.is_ended() && !theirs.is_ended());
        let (_busy, _c) = session(place, &drain, &table);
        let place = take(&table, client(4)).unwrap();
        assert!(theirs.is_ended());
        drop(place);
    }

    #[tokio::test(start_paused = true)]
    async fn a_newcomer_waits_no_longer_than_five_seconds_for_a_place() {
        let limits = Limits { sessions_per_ip: 1, ..Limits::default() };
        let config = Config { limits: limits.check().unwrap(), ..Config::default() };
        let drain = Drain::default();
        let backend = Backend::Embedded(EmbeddedBackend::new(Diagnostics, drain.clone()));
        let budget = Budget::new(256 << 20, 16 << 20, Metrics::default());
        let mcp = Mcp::new(backend, budget, Metrics::default(), drain.clone());
        let policy = Policy::new(&config, &[]);
        let newcomer = Newcomer { principal: &ME, patience: Instant::now() };
        let place = mcp.sessions.table.take(client(1), newcomer, &policy.limits).unwrap();
        let (calling, _link) = session(place, &drain, &mcp.sessions.table);
        let request = Message::request(&1.into(), "tools/call", &serde_json::json!({}));
        let request = Permitted::of_edge(request, Arc::new(Caller::stdio()));
        let _answer = calling.call(vec![request], false).await.unwrap();
        // Its only call may be answered at any moment, and a burst then ends 1.5 s later: there is
        // reason to look again at 1.5, 3 and 4.5 s, and none to wait until 6 s.
        let begun = Instant::now();
        let refused = mcp.sessions.take_place(&policy, client(1), &ME).await.unwrap_err();
        assert_eq!(refused, Reason::ClientSessionsFull(Some(eviction::BURST_PAUSE)));
        assert_eq!(begun.elapsed(), Duration::from_millis(4500));
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_is_known_only_to_its_principal_and_by_its_transport() {
        let (table, drain) = (Limited::new(9, 9), Drain::default());
        let (mine, _link) = session(take(&table, client(1)).unwrap(), &drain, &table);
        let id = mine.id().as_str();
        let other = Principal::Token(TokenId([7; 32]));
        assert!(table.find(id, &ME, Transport::StreamableHttp).is_ok());
        for (id, principal, transport) in [
            (id, &other, Transport::StreamableHttp),
            (id, &ME, Transport::HttpSse),
            ("no-such-id", &ME, Transport::StreamableHttp),
        ] {
            let unknown = table.find(id, principal, transport).err();
            assert_eq!(unknown, Some(Reason::UnknownSession), "{principal:?} {transport:?}");
        }
    }
}
