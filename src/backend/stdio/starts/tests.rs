//! Exact seconds of the crash loop, and what counts as a failure.

use std::net::IpAddr;

use super::*;
use crate::limits::addr::ClientKey;

fn client(last: u8) -> Starter {
    Starter::Client(ClientKey::from(IpAddr::from([192, 0, 2, last])))
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// So many failures of the edge's own starts, without jitter.
fn failing(starts: &mut Starts, times: u32, now: Instant) {
    for _ in 0..times {
        starts.failed(Starter::Edge, "exited", 0.0, now);
    }
}

fn wait(starts: &mut Starts, who: Starter, now: Instant) -> Option<Duration> {
    starts.ask(who, now).err().map(|held| held.wait)
}

#[test]
fn five_failures_are_free_and_then_the_pauses_double() {
    let mut starts = Starts::default();
    let mut now = Instant::now();
    failing(&mut starts, FREE - 1, now);
    assert_eq!(wait(&mut starts, client(1), now), None);
    assert!(!starts.is_loop());
    for pause in [1, 2, 4, 8, 16, 30, 30].map(secs) {
        failing(&mut starts, 1, now);
        assert!(starts.is_loop());
        assert_eq!(wait(&mut starts, client(1), now), Some(pause));
        let before = now + pause.saturating_sub(Duration::from_millis(1));
        assert_eq!(wait(&mut starts, Starter::Edge, before), Some(Duration::from_millis(1)));
        now += pause;
        // One is let through, and the others wait for what becomes of it.
        assert_eq!(wait(&mut starts, client(1), now), None);
        assert_eq!(wait(&mut starts, client(2), now), Some(TRIAL));
        assert_eq!(wait(&mut starts, Starter::Edge, now), Some(TRIAL));
        now += TRIAL;
    }
}

#[test]
fn chance_takes_up_to_half_off_a_pause() {
    for (chance, pause) in [(0.0, 1000), (0.5, 750), (1.0, 500)] {
        let mut starts = Starts::default();
        let now = Instant::now();
        failing(&mut starts, FREE - 1, now);
        starts.failed(Starter::Edge, "exited", chance, now);
        assert_eq!(wait(&mut starts, client(1), now), Some(Duration::from_millis(pause)));
    }
}

#[test]
fn what_stays_up_ends_the_row() {
    let mut starts = Starts::default();
    let now = Instant::now();
    failing(&mut starts, FREE + 3, now);
    assert_eq!(wait(&mut starts, client(1), now + secs(8)), None);
    starts.steady(now + secs(13));
    assert!(!starts.is_loop());
    assert_eq!(wait(&mut starts, client(1), now + secs(13)), None);
    failing(&mut starts, FREE - 1, now + secs(14));
    assert_eq!(wait(&mut starts, client(1), now + secs(14)), None);
}

#[test]
fn one_client_whose_starts_fail_holds_nobody_else_back() {
    let mut starts = Starts::default();
    let now = Instant::now();
    for _ in 0..=FREE {
        starts.failed(client(1), "exited", 0.0, now);
    }
    assert_eq!(wait(&mut starts, client(1), now), Some(secs(2)));
    assert_eq!(wait(&mut starts, client(2), now), None);
    assert_eq!(wait(&mut starts, Starter::Edge, now), None);
    assert!(!starts.is_loop());
    // Until another's fails as well.
    starts.failed(client(2), "exited", 0.0, now);
    assert!(starts.is_loop());
    for who in [client(1), client(2), client(3), Starter::Edge] {
        assert_eq!(wait(&mut starts, who, now), Some(secs(4)));
    }
}

#[test]
fn so_many_failures_a_minute_are_the_most_in_a_row_or_not() {
    let mut starts = Starts::default();
    let begun = Instant::now();
    let mut now = begun;
    for _ in 0..BUDGET {
        assert_eq!(wait(&mut starts, client(1), now), None);
        failing(&mut starts, 1, now);
        now += secs(1);
        // Others of its starts go well.
        starts.steady(now);
    }
    assert_eq!(wait(&mut starts, client(1), now), Some((begun + WINDOW).duration_since(now)));
    assert_eq!(wait(&mut starts, client(1), begun + WINDOW), None);
    // Twenty more a minute after the first: only those count that are not so old.
    starts.steady(begun + WINDOW);
    starts.failed(Starter::Edge, "exited", 0.0, begun + 2 * WINDOW);
    assert_eq!(starts.recent.len(), 1);
}

#[test]
fn what_is_told_is_bounded() {
    let mut starts = Starts::default();
    let now = Instant::now();
    for _ in 0..FREE {
        starts.failed(Starter::Edge, &"é".repeat(10_000), 0.0, now);
    }
    assert_eq!(starts.ask(client(1), now).unwrap_err().why.len(), TOLD);
}

fn note_sent(attempt: &Attempt, method: &str) {
    attempt.note_sent(&Message::notification(method, &serde_json::Value::Null));
}

/// How many failures are counted after one start that did as `doing` says.
async fn counted<F: Future<Output = ()>>(doing: impl FnOnce(Attempt) -> F) -> u32 {
    let gate = Gate::new(Metrics::default());
    doing(gate.pass(client(1)).unwrap()).await;
    gate.starts.lock().in_row
}

#[tokio::test(start_paused = true)]
async fn what_counts_as_a_failure() {
    let silent = counted(async |attempt| {
        note_sent(&attempt, "tools/call");
        tokio::time::sleep(secs(100)).await;
        attempt.ended("exited");
    });
    assert_eq!(silent.await, 1, "it never spoke");
    let greeted = counted(async |attempt| {
        attempt.spoke().cancel();
        note_sent(&attempt, "initialize");
        note_sent(&attempt, "notifications/initialized");
        tokio::time::sleep(STEADY.saturating_sub(Duration::from_millis(1))).await;
        attempt.ended("exited");
    });
    assert_eq!(greeted.await, 1, "it ended too soon");
    let asked = counted(async |attempt| {
        attempt.spoke().cancel();
        note_sent(&attempt, "tools/call");
        attempt.ended("exited");
    });
    assert_eq!(asked.await, 0, "the call may have ended it");
    let old = counted(async |attempt| {
        attempt.spoke().cancel();
        tokio::time::sleep(STEADY).await;
        attempt.ended("exited");
    });
    assert_eq!(old.await, 0, "it was up long enough");
    assert_eq!(counted(async |attempt| drop(attempt)).await, 0, "it was ended by the edge");
}

#[tokio::test(start_paused = true)]
async fn it_opens_again_at_the_very_second_that_a_trial_has_stayed_up() {
    let metrics = Metrics::default();
    let gate = Gate::new(metrics.clone());
    for _ in 0..FREE {
        gate.pass(Starter::Edge).unwrap().ended("exited with status 3");
    }
    assert!(gate.is_closed());
    let held = gate.pass(client(1)).unwrap_err();
    assert_eq!(held.why, "exited with status 3");
    tokio::time::sleep(held.wait).await;
    let is_loop = || metrics.gauges().crash_loop.load(Ordering::Relaxed);
    assert!(!gate.is_closed() && is_loop());
    let trial = gate.pass(client(1)).unwrap();
    assert!(gate.is_closed());
    trial.spoke().cancel();
    let begun = Instant::now();
    trial.prove().await;
    assert_eq!(begun.elapsed(), STEADY);
    assert!(!gate.is_closed() && !is_loop());
    let failed = Outcome::StartFailed.name();
    let entered = Outcome::CrashLoop.name();
    assert_eq!((metrics.outcomes()[failed], metrics.outcomes()[entered]), (u64::from(FREE), 1));
}
