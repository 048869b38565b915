//! What askers are told, on a paused clock, with the backend played by the test.

use serde_json::json;

use super::readiness::{BAD, Books, GOOD, Readiness};
use super::*;
use crate::backend::embedded::EmbeddedBackend;
use crate::backend::{Backend, FromBackend};
use crate::config::Config;
use crate::drain::Drain;
use crate::limits::bytes::Budget;
use crate::mcp::Mcp;
use crate::mcp::session::tests::{Rig, TIMES};
use crate::observe::metrics::Metrics;

const SECOND: Duration = Duration::from_secs(1);

/// A session as the edge keeps it.
fn rig() -> Rig {
    Rig::held_to(SessionTimes { idle: IDLE, ..TIMES }, Transport::Edge)
}

#[tokio::test(start_paused = true)]
async fn a_backend_is_initialised_once_and_pinged_each_time() {
    let mut rig = rig();
    let session = Arc::clone(&rig.session);
    let playing = async {
        let hello = rig.told().await;
        assert_eq!(hello.method(), Some("initialize"));
        rig.say(Message::result(hello.id().unwrap(), &json!({ "protocolVersion": "2025-11-25" })))
            .await;
        assert_eq!(rig.told().await.method(), Some("notifications/initialized"));
        for _ in 0..2 {
            let ping = rig.told().await;
            assert_eq!(ping.method(), Some("ping"));
            // An error is an answer.
            rig.say(Message::error(ping.id().unwrap(), -32_601, "no ping here")).await;
        }
    };
    let asking = async {
        assert_eq!(ask(&session, true).await, Ok(()));
        assert_eq!(ask(&session, false).await, Ok(()));
    };
    tokio::join!(playing, asking);
}

#[tokio::test(start_paused = true)]
async fn silence_costs_two_seconds_and_the_ping_is_taken_back() {
    let mut rig = rig();
    let begun = Instant::now();
    assert_eq!(ask(&rig.session, false).await, Err(Reason::CallTimeout(PATIENCE)));
    assert_eq!(begun.elapsed(), PATIENCE);
    assert_eq!(rig.told().await.method(), Some("ping"));
    assert_eq!(rig.told().await.method(), Some("notifications/cancelled"));
    assert_eq!(rig.session.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_ends_did_not_answer() {
    let rig = rig();
    let session = Arc::clone(&rig.session);
    let ending = async {
        sleep(SECOND).await;
        rig.say.send(FromBackend::Gone("exited".to_owned())).await.unwrap();
    };
    let (asked, ()) = tokio::join!(ask(&session, false), ending);
    assert!(matches!(asked, Err(Reason::Unanswered { .. })), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn what_the_edge_answers_itself_is_no_answer() {
    let mut rig = rig();
    let session = Arc::clone(&rig.session);
    let failing = async {
        let id = rig.told().await.id().unwrap().clone();
        let unanswered = FromBackend::Unanswered { id, code: -1, text: "unreachable".to_owned() };
        rig.say.send(unanswered).await.unwrap();
    };
    let (asked, ()) = tokio::join!(ask(&session, false), failing);
    assert_eq!(asked, Err(Reason::Unanswered { code: -1, text: "unreachable".to_owned() }));
    // Another may well be answered.
    assert!(!session.is_ended());
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_fails_ends_the_session() {
    let mut rig = rig();
    let session = Arc::clone(&rig.session);
    let refusing = async {
        let hello = rig.told().await;
        rig.say(Message::error(hello.id().unwrap(), -1, "no")).await;
    };
    let (asked, ()) = tokio::join!(ask(&session, true), refusing);
    assert_eq!(asked, Err(Reason::BackendFailed("no".to_owned())));
    assert!(session.is_ended());
}

#[tokio::test(start_paused = true)]
async fn a_handshake_without_an_answer_ends_the_session_in_its_time() {
    let mut rig = rig();
    let begun = Instant::now();
    assert_eq!(ask(&rig.session, true).await, Err(Reason::CallTimeout(SILENCE)));
    assert_eq!(begun.elapsed(), SILENCE);
    assert_eq!(rig.told().await.method(), Some("initialize"));
    // Another is opened for the next question.
    assert!(rig.session.is_ended());
}

#[tokio::test(start_paused = true)]
async fn a_handshake_in_vain_says_what_was_said_instead() {
    let rig = rig();
    rig.say.send(FromBackend::Suspect("it asks".to_owned())).await.unwrap();
    let late = Reason::NeverSpoke { time: SILENCE, text: "it asks".to_owned() };
    assert_eq!(ask(&rig.session, true).await, Err(late));
}

#[tokio::test(start_paused = true)]
async fn that_it_is_not_ready_is_logged_once_until_it_is_ready_again() {
    let readiness = Readiness::default();
    let now = Instant::now();
    for _ in 0..2 {
        assert!(readiness.warn(&Reason::BackendBusy));
        readiness.books().settle(false, now);
        assert!(!readiness.warn(&Reason::BackendBusy));
        readiness.books().settle(true, now);
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_nobody_asks_for_is_ended_after_two_minutes() {
    let rig = rig();
    sleep(Duration::from_secs(119)).await;
    assert!(!rig.session.is_ended());
    sleep(2 * SECOND).await;
    assert!(rig.session.is_ended());
}

#[tokio::test(start_paused = true)]
async fn a_verdict_stands_for_its_time_and_one_asks_for_all() {
    let mut books = Books::default();
    let now = Instant::now();
    assert_eq!(books.look(now), Look::Ask);
    assert_eq!(books.look(now + SECOND), Look::Wait(now + WAIT));
    // A backend that starts slowly holds nobody up for longer.
    assert_eq!(books.look(now + 10 * SECOND), Look::Wait(now + WAIT));
    books.settle(true, now);
    assert_eq!(books.look(now + GOOD - Duration::from_millis(1)), Look::Known(true));
    assert_eq!(books.look(now + GOOD), Look::Ask);
    books.settle(false, now + GOOD);
    let bad = now + GOOD + BAD;
    assert_eq!(books.look(bad - Duration::from_millis(1)), Look::Known(false));
    assert_eq!(books.look(bad), Look::Ask);
}

#[tokio::test(start_paused = true)]
async fn sessions_are_not_opened_one_after_the_other() {
    let now = Instant::now();
    let mut books = Books { closed_until: Some(now + OPEN_PAUSE), ..Books::default() };
    assert_eq!(books.look(now + 4 * SECOND), Look::Known(false));
    assert_eq!(books.look(now + OPEN_PAUSE), Look::Ask);
    // One that is there may be asked at any time.
    let session = Some(rig().session);
    let closed_until = Some(now + OPEN_PAUSE);
    let mut books = Books { session, closed_until, ..Books::default() };
    assert_eq!(books.look(now), Look::Ask);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_stays_silent_makes_place_for_another() {
    let now = Instant::now();
    let session = rig().session;
    let mut books = Books { session: Some(Arc::clone(&session)), ..Books::default() };
    books.settle(false, now);
    books.settle(false, now + 29 * SECOND);
    assert!(!session.is_ended());
    books.settle(true, now + SILENCE);
    books.settle(false, now + SILENCE + SECOND);
    assert!(!session.is_ended());
    books.settle(false, now + 2 * SILENCE + SECOND);
    assert!(session.is_ended());
    assert!(books.session.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_place_is_given_up_unless_a_question_is_open() {
    let session = rig().session;
    let readiness = Readiness::default();
    assert!(!readiness.give_up());
    readiness.books().session = Some(Arc::clone(&session));
    readiness.books().asking = Some(Instant::now());
    assert!(!readiness.give_up());
    assert!(!session.is_ended());
    readiness.books().asking = None;
    assert!(readiness.give_up());
    assert!(session.is_ended());
    // Who gave it up does not take it back at once.
    assert_eq!(readiness.books().look(Instant::now()), Look::Known(false));
    assert!(!readiness.give_up());
}

#[tokio::test(start_paused = true)]
async fn a_question_that_is_dropped_is_answered_by_no() {
    let readiness = Arc::new(Readiness::default());
    assert_eq!(readiness.books().look(Instant::now()), Look::Ask);
    drop(Question::to(&readiness));
    assert_eq!(readiness.books().look(Instant::now()), Look::Known(false));
    tokio::time::advance(BAD).await;
    assert_eq!(readiness.books().look(Instant::now()), Look::Ask);
    Question::to(&readiness).settle(true);
    assert_eq!(readiness.books().look(Instant::now()), Look::Known(true));
}

fn mcp() -> Mcp {
    let drain = Drain::default();
    let handler = crate::backend::diagnostics::Diagnostics;
    let backend = Backend::Embedded(EmbeddedBackend::new(handler, drain.clone()));
    let budget = Budget::new(256 << 20, 16 << 20, Metrics::default());
    Mcp::new(backend, budget, Metrics::default(), drain)
}

#[tokio::test(start_paused = true)]
async fn askers_wait_three_seconds_at_most_and_hear_of_the_drain_at_once() {
    let (mcp, policy) = (mcp(), Policy::new(&Config::default(), &[]));
    assert!(mcp.ready(&policy).await);
    // Somebody's question is never answered.
    tokio::time::advance(GOOD).await;
    assert_eq!(mcp.sessions.readiness.books().look(Instant::now()), Look::Ask);
    let begun = Instant::now();
    assert!(!mcp.ready(&policy).await);
    assert_eq!(begun.elapsed(), WAIT);
    assert!(!mcp.ready(&policy).await);
    assert_eq!(begun.elapsed(), WAIT);
    mcp.sessions.readiness.books().asking = Some(Instant::now());
    let draining = async {
        sleep(SECOND).await;
        mcp.sessions.drain.begin();
    };
    let (ready, ()) = tokio::join!(mcp.ready(&policy), draining);
    assert!(!ready);
    assert_eq!(begun.elapsed(), WAIT + SECOND);
    mcp.sessions.readiness.books().verdict = Some((true, Instant::now() + GOOD));
    assert!(!mcp.ready(&policy).await);
}
