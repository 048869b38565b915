//! Places and failed accepts, on a clock that stands still until everybody waits.

use std::cell::Cell;
use std::io::Write;
use std::task::Poll;

use futures_util::FutureExt;
use parking_lot::Mutex;
use rustix::io::Errno;
use tokio::time::{Instant, timeout};
use tracing::subscriber::DefaultGuard;

use super::places::ConnectionPlace;
use super::shortage::{CALM, REST, accept};
use super::*;
use crate::config::{Config, Limits};
use crate::observe::metrics::Metrics;

fn places() -> ConnectionPlaces {
    ConnectionPlaces::new(Metrics::default())
}

fn limits(max_connections: u32) -> Limits {
    Limits { max_connections, ..Limits::default() }
}

fn client() -> ClientAddr {
    ClientAddr::from_peer(([192, 0, 2, 1], 1).into())
}

fn counted(places: &ConnectionPlaces, outcome: Outcome) -> u64 {
    places.metrics.outcomes()[outcome.name()]
}

/// What the system allows at most (tcp(7)).
fn somaxconn() -> usize {
    let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    most.trim().parse().unwrap()
}

#[tokio::test]
async fn a_burst_of_connections_waits_to_be_accepted() {
    let policy = CurrentPolicy::new(Policy::new(&Config::default(), &[]));
    let at = ([127, 0, 0, 1], 0).into();
    let listener = Listener::bind(at, policy, places(), Drain::default()).unwrap();
    let address = listener.local_addr().unwrap();
    // Nobody accepts. What the queue does not take is tried again a second later, for a minute.
    let burst = (0..400.min(somaxconn())).map(|_| TcpStream::connect(address));
    let connected = timeout(Duration::from_secs(30), futures_util::future::try_join_all(burst));
    assert!(connected.await.expect("all wait in the queue").is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_whose_promised_place_never_comes_is_refused_after_a_second() {
    let (places, limits) = (places(), limits(1));
    let Some(ConnectionPlace::Taken(_taken)) = places.one_of_all(&limits) else {
        panic!("the first is taken in")
    };
    // A stranger that was told to go, and does not.
    let stays = places.enter(client(), &limits);
    let promised = places.one_of_all(&limits).unwrap();
    assert!(matches!(promised, ConnectionPlace::Promised { .. }));
    stays.must_go().await;
    let begun = Instant::now();
    assert!(places.had(promised, client()).await.is_none());
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
    assert_eq!(counted(&places, Outcome::MaxConnections), 1);
    // With nobody left to go there is not even a promise.
    assert!(places.one_of_all(&limits).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_promised_place_is_had_when_its_stranger_goes() {
    let (places, limits) = (places(), limits(1));
    let Some(ConnectionPlace::Taken(taken)) = places.one_of_all(&limits) else {
        panic!("the first is taken in")
    };
    let _stranger = places.enter(client(), &limits);
    let promised = places.one_of_all(&limits).unwrap();
    let begun = Instant::now();
    let going = async {
        tokio::time::sleep(Duration::from_millis(999)).await;
        drop(taken);
    };
    let (place, ()) = tokio::join!(places.had(promised, client()), going);
    assert!(place.is_some());
    assert_eq!(begun.elapsed(), Duration::from_millis(999));
    assert_eq!(counted(&places, Outcome::MaxConnections), 0);
}

/// What is logged on this thread from now on.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn begin() -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let lines = tracing_subscriber::fmt().json().with_writer(move || writer.clone());
        (log, tracing::subscriber::set_default(lines.finish()))
    }

    fn count(&self, text: &str) -> usize {
        let bytes = self.0.lock();
        String::from_utf8_lossy(&bytes).matches(text).count()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An accept that fails like this while `fails` says so, and otherwise has nobody.
async fn failing(places: &ConnectionPlaces, error: Errno, fails: impl Fn() -> bool) {
    let poll = |_: &mut std::task::Context<'_>| {
        if fails() { Poll::Ready(Err::<(), _>(io::Error::from(error))) } else { Poll::Pending }
    };
    match accept(poll, |()| {}, places).await {}
}

#[tokio::test(start_paused = true)]
async fn the_loop_rests_after_each_accept_that_fails() {
    for error in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::PERM] {
        let places = places();
        let tries = Cell::new(0);
        let fails = || {
            tries.set(tries.get() + 1);
            true
        };
        // The first at once, then one at the end of each rest: 10 in a second.
        let second = Duration::from_secs(1) - Duration::from_millis(1);
        assert!(timeout(second, failing(&places, error, fails)).await.is_err());
        assert_eq!(tries.get(), 10, "{error:?}");
        assert_eq!(counted(&places, Outcome::AcceptFailed), 10, "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_left_costs_no_rest() {
    for error in [Errno::CONNABORTED, Errno::CONNRESET, Errno::INTR] {
        let places = places();
        let left = Cell::new(0);
        let fails = || left.replace(10.min(left.get() + 1)) < 10;
        assert!(timeout(REST / 2, failing(&places, error, fails)).await.is_err());
        assert_eq!(left.get(), 10, "{error:?}");
        assert_eq!(counted(&places, Outcome::AcceptFailed), 0, "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_descriptors_run_out_the_oldest_strangers_go() {
    let (places, limits) = (places(), limits(100));
    let strangers: Vec<_> = (0..16).map(|_| places.enter(client(), &limits)).collect();
    let once = |error| {
        let places = places.clone();
        async move { timeout(REST / 2, failing(&places, error, || true)).await.is_err() }
    };
    // One in eight, the oldest first.
    assert!(once(Errno::MFILE).await);
    assert_eq!(places.strangers.len(), 14);
    strangers[0].must_go().await;
    strangers[1].must_go().await;
    // One at least, as long as there is one; what no connection holds is freed by none.
    assert!(once(Errno::NOMEM).await && once(Errno::PERM).await);
    assert_eq!(places.strangers.len(), 13);
    strangers[13].mark_authenticated();
    for _ in 0..20 {
        assert!(once(Errno::NFILE).await);
    }
    assert_eq!(places.strangers.len(), 0);
    assert_eq!(counted(&places, Outcome::MaxUnauthenticated), 15, "the known one stays");
}

#[tokio::test(start_paused = true)]
async fn where_all_places_or_descriptors_are_taken_silent_strangers_go_first() {
    let limits = Limits { max_connections: 8, max_unauthenticated: 16, ..Limits::default() };
    let places = places();
    let taken: Vec<_> = (0..8).map_while(|_| places.one_of_all(&limits)).collect();
    assert_eq!(taken.len(), 8);
    let from = |last| ClientAddr::from_peer(([192, 0, last, 1], 1).into());
    let [first, second, third, fourth] = [1, 2, 3, 3].map(|last| places.enter(from(last), &limits));
    let new = [4, 5, 6, 7].map(|last| places.enter(from(last), &limits));
    new.iter().chain([&first, &third, &fourth]).for_each(|stranger| stranger.speaks());
    assert!(matches!(places.one_of_all(&limits), Some(ConnectionPlace::Promised { .. })));
    assert!(second.must_go().now_or_never().is_some());
    // Then one of the network with the most, whichever way it is asked for.
    places.make_room();
    assert!(third.must_go().now_or_never().is_some());
    assert_eq!(places.strangers.len(), 6);
    assert!(places.one_of_all(&limits).is_some());
    assert!(first.must_go().now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_shortage_is_told_of_when_it_begins_and_when_it_is_over() {
    let (log, _guard) = Log::begin();
    let places = places();
    let begun = Instant::now();
    // Two of the same: between them it is calm for too short a time.
    let lasts = Duration::from_secs(2);
    let pause = CALM.saturating_sub(REST);
    let fails = || {
        let at = begun.elapsed();
        at < lasts || (at >= lasts + pause && at < lasts + pause + REST)
    };
    let wakes = async {
        tokio::time::sleep(lasts + pause).await;
        std::future::pending::<()>().await;
    };
    let mut running = Box::pin(async {
        tokio::select! {
            () = failing(&places, Errno::MFILE, fails) => {}
            () = wakes => {}
        }
    });
    let told = || (log.count("out of open files"), log.count("accepted again"));
    let end = lasts + pause + REST + CALM;
    let moment = Duration::from_millis(1);
    assert!(timeout(end.saturating_sub(moment), &mut running).await.is_err());
    assert_eq!(told(), (1, 0));
    assert!(timeout(moment, &mut running).await.is_err());
    assert_eq!(told(), (1, 1));
    assert_eq!(log.count(r#""failed":21,"lasted":"7s""#), 1);
}
