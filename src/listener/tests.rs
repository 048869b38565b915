//! Places and failed accepts, on a clock that stands still until everybody waits.

use tokio::time::Instant;

use super::*;
use crate::config::Limits;

fn places(max_connections: u32) -> Places {
    let limits = Limits { max_connections, ..Limits::default() };
    Places::new(&Config { limits, ..Config::default() }, Tally::default())
}

fn client() -> ClientAddr {
    ClientAddr::from_peer(([192, 0, 2, 1], 1).into())
}

fn counted(places: &Places, outcome: Outcome) -> u64 {
    places.tally.outcomes()[outcome.name()]
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_whose_promised_place_never_comes_is_refused_after_a_second() {
    let places = places(1);
    let Some(Place::Taken(_taken)) = places.one_of_all() else { panic!("the first is taken in") };
    // A stranger that was told to go, and does not.
    let stays = places.enter();
    let promised = places.one_of_all().unwrap();
    assert!(matches!(promised, Place::Promised(_)));
    stays.must_go().await;
    let begun = Instant::now();
    assert!(places.had(promised, client()).await.is_none());
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
    assert_eq!(counted(&places, Outcome::MaxConnections), 1);
    // With nobody left to go there is not even a promise.
    assert!(places.one_of_all().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_promised_place_is_had_when_its_stranger_goes() {
    let places = places(1);
    let Some(Place::Taken(taken)) = places.one_of_all() else { panic!("the first is taken in") };
    let _stranger = places.enter();
    let promised = places.one_of_all().unwrap();
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
