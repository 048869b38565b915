//! Invariant: whatever a client, its backend and its connections do, in whatever order, each message
//! goes to one stream at most, an answer to that of its call and to no other, once; a reader gets
//! the events of its stream, each once, in their order and without a gap; what is held is bounded,
//! and nothing waits when the session is over.
#![no_main]

use std::collections::{BTreeMap, HashMap};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arbitrary::Arbitrary;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mcp_edge::Transport;
use mcp_edge::fuzzing::mcp::{
    Audience, During, Onto, Reason, Routed, State, StreamId, Turn, begin, state,
};
use mcp_edge::jsonrpc::{Message, RequestId};
use mcp_edge_fuzz::edge;
use serde_json::{Value, json};
use tokio::time::Instant;

#[derive(Arbitrary, Debug)]
enum Step {
    Call { id: u8, token: Option<u8>, own: bool, events: bool },
    Batch { ids: Vec<u8>, events: bool },
    Answer { id: u8, error: bool },
    Progress { token: u8, during: Option<u8> },
    Note { during: Option<u8>, long: u8 },
    Ask { id: u8, during: Option<u8>, ping: bool },
    CancelQuestion { id: u8 },
    Reply { id: u8 },
    Cancel { id: u8 },
    Fail { id: u8 },
    Attach { stream: u8 },
    Resume { stream: u8, seen: u8 },
    Leave { reader: u8 },
    Read { reader: u8, events: u8 },
    End,
}

#[derive(Arbitrary, Debug)]
struct Input {
    bare: bool,
    steps: Vec<Step>,
}

/// What must be true, from what was done.
#[derive(Default)]
struct Model {
    /// Calls that wait, and their stream.
    calls: HashMap<RequestId, u64>,
    /// What was placed on each stream, in its order; a text that says which message it is.
    placed: BTreeMap<u64, Vec<String>>,
    serial: u64,
}

/// One reader of one stream.
#[derive(Clone, Copy)]
struct Reading {
    stream: u64,
    turn: Turn,
}

/// What became of a message of the backend's.
#[derive(Debug, PartialEq)]
enum Placed {
    /// It is on this stream.
    On(u64),
    /// It is nobody's.
    Nobodys,
    /// The edge has to answer it.
    Ours,
}

#[derive(Debug)]
struct Held {
    calls: usize,
    asked: usize,
    streams: usize,
    bytes: usize,
}

/// The books of one session, as its task, its readers and its client use them.
struct Books(State);

impl Books {
    fn begin(&mut self, calls: &[Message], own: bool, events: bool) -> Option<Reading> {
        let onto = if own { Onto::Own { events } } else { Onto::Standalone };
        let deadline = Instant::now() + Duration::from_secs(10);
        let (StreamId(stream), turn) = begin(&mut self.0, calls, onto, deadline)?;
        Some(Reading { stream, turn })
    }

    /// Is there no room for a message? Then its writer would wait.
    fn is_full(&self, message: &Message, during: Option<u8>) -> bool {
        let place = self.0.place(message, &said(during));
        place.is_some_and(|stream| self.0.is_full(stream))
    }

    fn route(&mut self, message: &Message, during: Option<u8>) -> Placed {
        let during = said(during);
        let place = self.0.place(message, &during);
        match (self.0.route(message, &during, Instant::now()), place) {
            (Routed::Delivered, Some(StreamId(stream))) => Placed::On(stream),
            (Routed::Delivered, None) | (Routed::Dropped, _) => Placed::Nobodys,
            (Routed::Unanswerable(_), _) => Placed::Ours,
        }
    }

    fn cancel(&mut self, id: &RequestId) -> bool {
        self.0.cancel(id, Instant::now())
    }

    fn fail(&mut self, id: &RequestId) -> bool {
        self.0.fail(id, Reason::BackendBusy, Instant::now())
    }

    /// A new reader goes on where the last one was, or behind an event that it has seen.
    fn read(&mut self, stream: u64, seen: Option<u64>) -> Option<Reading> {
        let log = self.0.log(StreamId(stream))?;
        let turn = match seen {
            None => log.attach(),
            Some(seen) => log.resume(seen)?,
        };
        Some(Reading { stream, turn })
    }

    fn leave(&mut self, reading: Reading) {
        if let Some(log) = self.0.log(StreamId(reading.stream)) {
            log.detach(reading.turn);
        }
        self.0.forget_finished();
    }

    /// The next event of a reader and its number; at the end `Some(None)`.
    fn next(&mut self, reading: Reading) -> Option<Option<(u64, Bytes)>> {
        let Some(log) = self.0.log(StreamId(reading.stream)) else { return Some(None) };
        match log.poll_next(reading.turn, &Context::from_waker(Waker::noop())) {
            Poll::Ready(next) => Some(next),
            Poll::Pending => None,
        }
    }

    fn end(&mut self) {
        self.0.end("over", Instant::now());
    }

    fn is_ended(&self) -> bool {
        self.0.is_ended()
    }

    fn held(&self) -> Held {
        let (calls, asked, streams, bytes) = self.0.held();
        Held { calls, asked, streams, bytes }
    }
}

fn said(during: Option<u8>) -> During {
    during.map_or(During::Unknown, |id| During::Call(of(id)))
}

struct Reader {
    reading: Reading,
    /// The number of the event before the next, once one was read.
    at: Option<u64>,
    gone: bool,
}

fn request(id: u8, token: Option<u8>, serial: u64) -> Message {
    let params = match token {
        Some(token) => json!({ "_meta": { "progressToken": token % 8 }, "serial": serial }),
        None => json!({ "serial": serial }),
    };
    Message::request(&of(id), "tools/call", &params)
}

/// Few ids, or none would ever meet.
fn of(id: u8) -> RequestId {
    RequestId::from(u64::from(id % 8))
}

fuzz_target!(|input: Input| edge::run(async { play(input) }));

fn play(input: Input) {
    let transport = if input.bare { Transport::Bare } else { Transport::StreamableHttp };
    let mut books = Books(state(Audience::of(transport), Instant::now()));
    let (mut model, mut readers) = (Model::default(), Vec::<Reader>::new());
    for step in input.steps.iter().take(600) {
        model.serial += 1;
        take(step, &mut books, &mut model, &mut readers);
        let held = books.held();
        assert_eq!(held.calls, model.calls.len());
        assert!(held.asked <= 256);
        // The streams of calls, the standalone one, the finished that are kept and those still read.
        assert!(held.streams <= 64 + 1 + 16 + readers.len() + 1, "{held:?}");
        assert!(!books.is_ended() || held.calls == 0);
    }
    let mut waiting: Vec<RequestId> = model.calls.keys().cloned().collect();
    waiting.sort();
    books.end();
    assert!(books.is_ended());
    assert_eq!(books.held().calls, 0);
    for id in &waiting {
        assert!(!books.cancel(id) && !books.fail(id));
    }
    for reader in &readers {
        books.leave(reader.reading);
    }
    let held = books.held();
    assert!(held.streams <= 16 + 1 && held.bytes <= (2 << 20) + (1 << 20) + (1 << 18), "{held:?}");
    assert!(books.begin(&[request(1, None, 0)], true, true).is_none());
}

fn route(books: &mut Books, model: &mut Model, message: &Message, during: Option<u8>) -> Placed {
    if books.is_ended() {
        // Its task is over: nobody carries anything any more.
        return Placed::Nobodys;
    }
    if books.is_full(message, during) {
        // Its writer waits; here it says something else.
        return Placed::Nobodys;
    }
    let placed = books.route(message, during);
    if let Placed::On(stream) = placed {
        let known = model.calls.values().any(|it| *it == stream) || stream == 0;
        assert!(known, "a message on stream {stream}, which belongs to no call");
        let line = String::from_utf8(message.line().to_vec()).expect("text");
        model.placed.entry(stream).or_default().push(line);
    }
    placed
}

fn take(step: &Step, books: &mut Books, model: &mut Model, readers: &mut Vec<Reader>) {
    let serial = model.serial;
    match step {
        Step::Call { id, token, own, events } => {
            let call = request(*id, *token, serial);
            let begun = books.begin(std::slice::from_ref(&call), *own, *events);
            enter(begun, &[*id], *own, model, readers, books.is_ended());
        }
        Step::Batch { ids, events } => {
            let ids: Vec<u8> = ids.iter().copied().take(80).collect();
            let calls: Vec<Message> = ids.iter().map(|id| request(*id, None, serial)).collect();
            if calls.is_empty() {
                return;
            }
            let begun = books.begin(&calls, true, *events);
            enter(begun, &ids, true, model, readers, books.is_ended());
        }
        Step::Answer { id, error } => {
            let answer = match error {
                true => Message::error(&of(*id), -1, &serial.to_string()),
                false => Message::result(&of(*id), &json!({ "serial": serial })),
            };
            let waits = model.calls.get(&of(*id)).copied();
            if books.is_ended() || books.is_full(&answer, None) {
                return;
            }
            let placed = route(books, model, &answer, None);
            assert_eq!(placed, waits.map_or(Placed::Nobodys, Placed::On), "the answer to {id}");
            model.calls.remove(&of(*id));
        }
        Step::Progress { token, during } => {
            let params = json!({ "progressToken": token % 8, "progress": serial });
            let note = Message::notification("notifications/progress", &params);
            route(books, model, &note, *during);
        }
        Step::Note { during, long } => {
            let text = "x".repeat(usize::from(*long) * 1024);
            let params = json!({ "data": text, "serial": serial });
            let note = Message::notification("notifications/message", &params);
            route(books, model, &note, *during);
        }
        Step::Ask { id, during, ping } => {
            let method = if *ping { "ping" } else { "roots/list" };
            let question = Message::request(&of(*id), method, &json!({ "serial": serial }));
            route(books, model, &question, *during);
        }
        Step::CancelQuestion { id } => {
            let note = Message::cancellation(&of(*id), Some(&serial.to_string()));
            route(books, model, &note, None);
        }
        Step::Reply { id } => {
            let before = books.held().asked;
            let was = books.0.take_answer(&of(*id));
            assert_eq!(books.held().asked, before - usize::from(was));
        }
        Step::Cancel { id } => {
            let waited = model.calls.remove(&of(*id)).is_some();
            assert_eq!(books.cancel(&of(*id)), waited);
        }
        Step::Fail { id } => {
            let stream = model.calls.remove(&of(*id));
            assert_eq!(books.fail(&of(*id)), stream.is_some());
            if let Some(stream) = stream {
                model.placed.entry(stream).or_default().push(format!("own {}", of(*id)));
            }
        }
        Step::Attach { stream } => {
            if let Some(reading) = books.read(u64::from(stream % 32), None) {
                readers.push(Reader { reading, at: None, gone: false });
            }
        }
        Step::Resume { stream, seen } => {
            let (stream, seen) = (u64::from(stream % 32), u64::from(*seen));
            if let Some(reading) = books.read(stream, Some(seen)) {
                let placed = model.placed.get(&stream).map_or(0, Vec::len);
                assert!(seen <= placed as u64, "event {seen} of {placed} was seen");
                readers.push(Reader { reading, at: Some(seen), gone: false });
            }
        }
        Step::Leave { reader } => {
            if !readers.is_empty() {
                let at = usize::from(*reader) % readers.len();
                books.leave(readers.remove(at).reading);
            }
        }
        Step::Read { reader, events } => {
            if !readers.is_empty() {
                let at = usize::from(*reader) % readers.len();
                read(books, model, &mut readers[at], *events);
            }
        }
        Step::End => {
            let mut ids = BTreeMap::<u64, Vec<RequestId>>::new();
            for (id, stream) in model.calls.drain() {
                ids.entry(stream).or_default().push(id);
            }
            for (stream, ids) in ids {
                // Those of one stream are told in any order.
                let all: String = ids.iter().map(|id| format!(" {id}")).collect();
                let placed = model.placed.entry(stream).or_default();
                placed.extend(ids.iter().map(|_| format!("own{all}")));
            }
            books.end();
        }
    }
    // The oldest leave: a client has so many connections and no more.
    while readers.len() > 20 {
        books.leave(readers.remove(0).reading);
    }
}

fn enter(
    begun: Option<Reading>,
    ids: &[u8],
    own: bool,
    model: &mut Model,
    readers: &mut Vec<Reader>,
    ended: bool,
) {
    let mut sorted: Vec<u8> = ids.iter().map(|id| id % 8).collect();
    sorted.sort_unstable();
    let twice = sorted.windows(2).any(|pair| pair[0] == pair[1]);
    let known = ids.iter().any(|id| model.calls.contains_key(&of(*id)));
    let fits = model.calls.len() + ids.len() <= 64;
    assert_eq!(begun.is_some(), !ended && !twice && !known && fits);
    let Some(reading) = begun else { return };
    assert_eq!(reading.stream == 0, !own);
    assert!(!own || !model.placed.contains_key(&reading.stream), "a stream of somebody else's");
    for id in ids {
        model.calls.insert(of(*id), reading.stream);
    }
    if own {
        drop(model.placed.insert(reading.stream, Vec::new()));
        readers.push(Reader { reading, at: Some(0), gone: false });
    }
}

fn read(books: &mut Books, model: &Model, reader: &mut Reader, events: u8) {
    let nothing = Vec::new();
    let placed = model.placed.get(&reader.reading.stream).unwrap_or(&nothing);
    for _ in 0..events {
        match books.next(reader.reading) {
            Some(Some((number, event))) => {
                assert!(!reader.gone, "an event after the end");
                assert!(
                    reader.at.is_none_or(|at| number == at + 1),
                    "{:?} then {number}",
                    reader.at
                );
                reader.at = Some(number);
                let expected = placed.get(number as usize - 1).expect("an event that was placed");
                let text = std::str::from_utf8(&event).expect("text");
                let answer: Value = serde_json::from_str(text).expect("a message");
                let id = answer.get("id").map(Value::to_string).unwrap_or_default();
                let own = expected.strip_prefix("own").is_some_and(|ids| {
                    answer.get("error").is_some() && ids.split(' ').any(|it| it == id)
                });
                assert!(text == expected || own, "{text} in place of {expected}");
            }
            Some(None) => reader.gone = true,
            None => return assert!(!reader.gone, "waits after the end"),
        }
    }
}
