//! Sessions on a paused clock, with the backend played by the test.

use serde_json::json;

use super::id::SessionId;
use super::log::MAX_BYTES;
use super::reader::Reader;
use super::requests::BESIDE_A_CLIENT;
use super::*;
use crate::backend::{During, FromBackend, Link, say};
use crate::drain::Drain;
use crate::mcp::call::Permitted;
use crate::wire::jsonrpc::Kind;

pub(in crate::mcp) const TIMES: SessionTimes = SessionTimes {
    call: Duration::from_mins(5),
    idle: Duration::from_mins(30),
    age: Duration::from_hours(24),
    write: Duration::from_secs(30),
};

/// A session, and the ends of its link that the backend would hold.
pub(in crate::mcp) struct Rig {
    pub(in crate::mcp) session: Arc<Session>,
    told: mpsc::Receiver<ToBackend>,
    pub(in crate::mcp) say: mpsc::Sender<FromBackend>,
    caller: Arc<Caller>,
}

impl Rig {
    fn new(transport: Transport) -> Self {
        Self::held_to(TIMES, transport)
    }

    pub(in crate::mcp) fn held_to(times: SessionTimes, transport: Transport) -> Self {
        let (quota, metrics) = (Quota::unbounded(), Metrics::default());
        Self::on(Terms { times, quota, metrics }, transport)
    }

    fn on(terms: Terms, transport: Transport) -> Self {
        let (to_backend, told) = mpsc::channel(4);
        let (say, from_backend) = mpsc::channel(4);
        let owner = (Principal::Anonymous, transport);
        let id = SessionId::random().unwrap();
        let link = Link { to_backend, from_backend };
        let session = Session::start(id, owner, terms, link, (), &Drain::default());
        Self { session, told, say, caller: Arc::new(Caller::stdio()) }
    }

    async fn call(&self, id: u64) -> Reader {
        let request = Message::request(&id.into(), "tools/call", &json!({}));
        self.session.call(vec![self.permitted(request)], true).await.unwrap()
    }

    fn permitted(&self, request: Message) -> Permitted {
        Permitted::of_edge(request, Arc::clone(&self.caller))
    }

    pub(in crate::mcp) async fn say(&self, message: Message) {
        self.say.send(FromBackend::Message { message, during: During::Unknown }).await.unwrap();
    }

    pub(in crate::mcp) async fn told(&mut self) -> Message {
        self.told.recv().await.unwrap().message
    }
}

fn note(text: &str) -> Message {
    Message::notification("notifications/message", &json!({ "data": text }))
}

#[tokio::test(start_paused = true)]
async fn a_call_without_an_answer_is_cancelled_at_the_backend_too() {
    let mut rig = Rig::new(Transport::StreamableHttp);
    let reader = rig.call(1).await;
    assert_eq!(rig.told().await.method(), Some("tools/call"));
    let begun = Instant::now();
    let answer = reader.answer().await.unwrap();
    assert_eq!(begun.elapsed(), TIMES.call);
    assert!(answer.starts_with(br#"{"jsonrpc":"2.0","id":1,"error":{"code":-32603"#));
    let cancelled = rig.told().await;
    assert_eq!(cancelled.method(), Some("notifications/cancelled"));
    assert_eq!(cancelled.cancelled(), Some(1.into()));
    // The answer that comes after all belongs to nobody.
    rig.say(Message::result(&1.into(), &json!({}))).await;
    assert_eq!(rig.session.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_over_when_its_answer_was_read() {
    let rig = Rig::new(Transport::StreamableHttp);
    let reader = rig.call(1).await;
    assert!(!reader.is_over());
    rig.say(Message::result(&1.into(), &json!({}))).await;
    reader.ready().await;
    assert!(!reader.is_over(), "the answer waits");
    assert!(reader.next().await.is_some());
    assert!(reader.is_over());
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_ends_answers_everybody_with_its_last_words() {
    let rig = Rig::new(Transport::StreamableHttp);
    let (one, two) = (rig.call(1).await, rig.call(2).await);
    rig.say.send(FromBackend::Gone("exited with status 3".to_owned())).await.unwrap();
    for reader in [one, two] {
        let answer = String::from_utf8(reader.answer().await.unwrap().to_vec()).unwrap();
        assert!(answer.contains("exited with status 3"), "{answer}");
    }
    assert!(rig.session.is_ended());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_found_no_backend_is_answered_with_its_code() {
    let rig = Rig::new(Transport::StreamableHttp);
    let (one, two) = (rig.call(1).await, rig.call(2).await);
    for id in [1, 2, 7] {
        let text = "unreachable".to_owned();
        rig.say.send(FromBackend::Unanswered { id: id.into(), code: -7, text }).await.unwrap();
    }
    let answer = br#"{"jsonrpc":"2.0","id":1,"error":{"code":-7,"message":"unreachable"}}"#;
    assert_eq!(one.answer().await.unwrap(), &answer[..]);
    let fault = Reason::Unanswered { code: -7, text: "unreachable".to_owned() };
    assert_eq!(two.outcome().await, Err(fault));
    assert!(!rig.session.is_ended());
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_does_not_read_holds_the_backend_up_for_the_write_time_only() {
    let rig = Rig::new(Transport::StreamableHttp);
    let slow = rig.session.listen().unwrap();
    let begun = Instant::now();
    // The stream keeps 256 events for a reader, the session holds one, four fit into the queue.
    for number in 0..256 + 1 + 4 {
        rig.say(note(&number.to_string())).await;
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    rig.say(note("one too many")).await;
    assert_eq!(begun.elapsed(), TIMES.write);
    assert_eq!(slow.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_reads_loses_nothing() {
    let rig = Rig::new(Transport::StreamableHttp);
    let reader = rig.session.listen().unwrap();
    let saying = async {
        for number in 0..1000 {
            rig.say(note(&number.to_string())).await;
        }
    };
    let reading = async {
        for number in 0..1000 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let event = reader.next().await.unwrap();
            assert_eq!(event, *note(&number.to_string()).bytes());
        }
    };
    tokio::join!(saying, reading);
}

#[tokio::test(start_paused = true)]
async fn a_client_can_cancel_its_calls_but_not_its_handshake() {
    let mut rig = Rig::new(Transport::StreamableHttp);
    let initialize = Message::request(&0.into(), "initialize", &json!({}));
    let waiting = rig.session.call(vec![rig.permitted(initialize)], true).await.unwrap();
    let reader = rig.call(1).await;
    for id in [0, 1, 7] {
        let params = json!({ "requestId": id });
        let cancel = Message::notification("notifications/cancelled", &params);
        rig.session.notify(cancel, &rig.caller).await.unwrap();
    }
    assert_eq!(reader.answer().await, None);
    let told = [rig.told().await, rig.told().await, rig.told().await];
    assert_eq!(told[2].cancelled(), Some(1.into()));
    assert!(rig.told.try_recv().is_err());
    assert_eq!(rig.session.calls(), 1);
    drop(waiting);
}

#[tokio::test(start_paused = true)]
async fn nobody_answers_what_was_not_asked() {
    let mut rig = Rig::new(Transport::StreamableHttp);
    let answer = Message::result(&9.into(), &json!({}));
    rig.session.answer(answer.clone(), &rig.caller).await.unwrap();
    assert!(rig.told.try_recv().is_err());
    rig.say(Message::request(&9.into(), "roots/list", &json!({}))).await;
    let reader = rig.session.listen().unwrap();
    assert!(reader.next().await.is_some());
    rig.session.answer(answer.clone(), &rig.caller).await.unwrap();
    assert_eq!(*rig.told().await.kind(), Kind::Response { id: 9.into() });
}

#[tokio::test(start_paused = true)]
async fn a_bare_session_answers_its_backends_questions_itself() {
    let mut rig = Rig::new(Transport::Bare);
    rig.say(Message::request(&1.into(), "ping", &json!({}))).await;
    assert!(!rig.told().await.is_error());
    rig.say(Message::request(&2.into(), "roots/list", &json!({}))).await;
    assert!(rig.told().await.is_error());
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_takes_nothing_is_busy_after_the_write_time() {
    let rig = Rig::new(Transport::StreamableHttp);
    for _ in 0..4 {
        rig.session.notify(note("x"), &rig.caller).await.unwrap();
    }
    let begun = Instant::now();
    assert_eq!(rig.session.notify(note("x"), &rig.caller).await, Err(Reason::BackendBusy));
    assert_eq!(begun.elapsed(), TIMES.write);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_legacy_stream_is_the_end_of_its_session() {
    let rig = Rig::new(Transport::HttpSse);
    let reader = rig.session.listen().unwrap();
    drop(reader);
    rig.say.closed().await;
    assert!(rig.session.is_ended());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_nobody_came_to_know_is_closed() {
    let rig = Rig::new(Transport::StreamableHttp);
    Unknown::new(Arc::clone(&rig.session)).known();
    assert!(!rig.session.is_ended());
    drop(Unknown::new(Arc::clone(&rig.session)));
    rig.say.closed().await;
    assert!(rig.session.is_ended());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_the_backend_was_not_told_of_is_not_waited_for() {
    let mut rig = Rig::new(Transport::StreamableHttp);
    for _ in 0..4 {
        rig.session.notify(note("x"), &rig.caller).await.unwrap();
    }
    // Its client leaves while the backend takes nothing.
    let asking = tokio::time::timeout(Duration::from_secs(1), rig.call(1));
    assert!(asking.await.is_err());
    assert_eq!(rig.session.calls(), 0);
    rig.told().await;
    rig.call(1).await;
}

#[tokio::test(start_paused = true)]
async fn who_asks_and_does_not_read_is_sent_away() {
    let rig = Rig::new(Transport::HttpSse);
    let _reader = rig.session.listen().unwrap();
    for _ in 0..256 {
        rig.session.put(Bytes::from_static(b"{}"));
    }
    assert!(!rig.session.is_ended());
    rig.session.put(Bytes::from_static(b"{}"));
    assert!(rig.session.is_ended());
}

#[tokio::test(start_paused = true)]
async fn a_ping_of_the_backend_is_answered_where_nobody_listens() {
    let mut rig = Rig::new(Transport::StreamableHttp);
    rig.say(Message::request(&1.into(), "ping", &json!({}))).await;
    assert!(!rig.told().await.is_error());
    let reader = rig.session.listen().unwrap();
    rig.say(Message::request(&2.into(), "ping", &json!({}))).await;
    assert!(reader.next().await.is_some());
}

#[tokio::test(start_paused = true)]
async fn where_memory_is_short_a_session_gives_up_what_it_only_keeps() {
    let metrics = Metrics::default();
    let quick = Duration::from_millis(1);
    let budget = crate::limits::bytes::Budget::new(400_000, 0, metrics.clone());
    let quota = budget.quota();
    let terms = Terms { times: TIMES, quota: quota.clone(), metrics: metrics.clone() };
    let rig = Rig::on(terms, Transport::StreamableHttp);
    for number in 0..8 {
        rig.say(note(&number.to_string()).charged(&quota)).await;
    }
    tokio::time::sleep(quick).await;
    let kept = budget.taken();
    let filler = quota.try_take(80_000).unwrap();
    tokio::time::sleep(quick).await;
    assert_eq!((budget.taken() - 80_000, metrics.outcomes()["events_shed"]), (kept / 2, 4));
    // Whoever fills memory keeps the session busy with that ten times a second at most.
    for _ in 0..50 {
        assert!(quota.try_take(90_000).is_err());
        tokio::time::sleep(quick).await;
    }
    assert_eq!(metrics.outcomes()["events_shed"], 4);
    drop(filler);
    assert_eq!(rig.session.listen().unwrap().next().await.unwrap(), note("4").line());
}

#[tokio::test(start_paused = true)]
async fn what_a_sessions_times_end_is_counted() {
    let metrics = Metrics::default();
    let count = |outcome| metrics.outcomes()[outcome];
    for (times, outcome) in [
        (SessionTimes { age: TIMES.idle * 2, ..TIMES }, "session_idle"),
        (SessionTimes { age: TIMES.idle / 2, ..TIMES }, "session_age"),
    ] {
        let terms = Terms { times, quota: Quota::unbounded(), metrics: metrics.clone() };
        let rig = Rig::on(terms, Transport::StreamableHttp);
        let due = times.idle.min(times.age);
        tokio::time::sleep(due).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(rig.session.is_ended());
        assert_eq!(count(outcome), 1);
    }
    assert_eq!(count("call_timeout"), 0);
}

#[tokio::test(start_paused = true)]
async fn an_initialize_that_waits_in_vain_is_told_what_was_said_instead() {
    let rig = Rig::new(Transport::StreamableHttp);
    let initialize = Message::request(&0.into(), "initialize", &json!({}));
    let reader = rig.session.call(vec![rig.permitted(initialize)], false).await.unwrap();
    rig.say.send(FromBackend::Suspect("it asks".to_owned())).await.unwrap();
    let answer = String::from_utf8(reader.answer().await.unwrap().to_vec()).unwrap();
    let text = "the MCP server did not answer `initialize` within 300 seconds: it asks";
    assert!(answer.contains(text), "{answer}");
    assert!(rig.session.is_ended());
}

#[tokio::test(start_paused = true)]
async fn the_edges_own_initialize_has_an_integer_for_its_id() {
    for (transport, id) in [(Transport::Bare, 1), (Transport::HttpSse, BESIDE_A_CLIENT)] {
        let mut rig = Rig::new(transport);
        let (session, caller) = (Arc::clone(&rig.session), Arc::clone(&rig.caller));
        let playing = async {
            let hello = rig.told().await;
            assert_eq!(hello.id(), Some(&id.into()));
            rig.say(Message::result(&id.into(), &json!({ "protocolVersion": "2025-06-18" }))).await;
            assert_eq!(rig.told().await.method(), Some("notifications/initialized"));
        };
        let (begun, ()) = tokio::join!(session.initialize(&caller), playing);
        assert_eq!(begun, Ok(()));
    }
    assert!(i32::try_from(BESIDE_A_CLIENT).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_large_message_that_is_not_read_is_waited_for_somewhat_longer_than_a_write() {
    let rig = Rig::new(Transport::StreamableHttp);
    let reader = rig.session.listen().unwrap();
    let large =
        || FromBackend::Message { message: note(&"x".repeat(MAX_BYTES)), during: During::Unknown };
    let begun = Instant::now();
    say(&rig.say, large()).await.unwrap();
    assert_eq!(begun.elapsed(), TIMES.write + Duration::from_secs(1));
    assert!(reader.next().await.is_some());
    let begun = Instant::now();
    let (said, read) = tokio::join!(say(&rig.say, large()), reader.next());
    assert!(said.is_ok() && read.is_some());
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_resumed_behind_the_last_event_that_was_read() {
    let rig = Rig::new(Transport::StreamableHttp);
    let reader = rig.call(1).await;
    let (stream, words) = (reader.stream(), [note("one"), note("two")]);
    for message in words.clone() {
        rig.say(message).await;
    }
    assert_eq!(reader.next().await.unwrap(), words[0].bytes());
    let seen = reader.seen();
    drop(reader);
    let resumed = rig.session.resume(stream, seen).unwrap();
    assert_eq!(resumed.next().await.unwrap(), words[1].bytes());
    assert!(rig.session.resume(stream, seen + 7).is_none(), "no such event");
}
