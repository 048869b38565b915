//! What one session knows: the calls that wait, the streams, and where each message belongs.
//!
//! Pure bookkeeping: nothing here awaits, and time comes in as an argument.
#![cfg_attr(not(fuzzing), expect(unreachable_pub, reason = "the fuzz targets reach it"))]

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use tokio::time::Instant;

use super::audience::Audience;
use super::eviction::{Usage, Used};
use super::id::StreamId;
use super::log::{EventLog, Turn};
use crate::backend::During;
use crate::limits::bytes::{PER_MESSAGE, Quota};
use crate::mcp::Reason;
use crate::mcp::call::{Permitted, Record, Shape};
use crate::mcp::era::Era;
use crate::observe::metrics::{Metrics, Outcome};
use crate::wire::jsonrpc::{Kind, Message, RequestId, code};
use crate::wire::revision::ProtocolVersion;

/// Calls of one session that may wait for the backend at once.
pub(crate) const MAX_CALLS: usize = 64;
/// Requests of the backend that may wait for the client; older ones are forgotten.
const MAX_ASKED: usize = 256;
/// Streams of finished calls that are kept for a client that lost its connection.
const MAX_FINISHED: usize = 16;
/// Bytes that finished streams may hold together.
const MAX_FINISHED_BYTES: usize = 2 * 1024 * 1024;

/// Where the answers to calls go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onto {
    /// On a stream of their own; with `events`, whatever else belongs to the calls goes there too.
    Own {
        /// Does the reader take more than the answers?
        events: bool,
    },
    /// On the stream that a GET opened.
    Standalone,
}

/// One call that waits for the backend.
#[derive(Debug)]
struct PendingCall {
    stream: StreamId,
    deadline: Instant,
    progress: Option<RequestId>,
    /// May anything but the answer go on its stream?
    streams: bool,
    initialize: bool,
    shape: Shape,
    record: Record,
}

/// What became of a message from the backend.
#[derive(Debug, PartialEq, Eq)]
pub enum Routed {
    /// It is on a stream.
    Delivered,
    /// It belongs to nobody: an answer that nobody waits for.
    Dropped,
    /// It is a request that this kind of session cannot put to its client.
    Unanswerable(RequestId),
}

/// The books of one session.
#[derive(Debug)]
pub struct State {
    audience: Audience,
    version: Option<ProtocolVersion>,
    refused: bool,
    calls: HashMap<RequestId, PendingCall>,
    asked: VecDeque<(RequestId, StreamId)>,
    logs: BTreeMap<StreamId, EventLog>,
    next_stream: u64,
    pub(crate) used: Used,
    ended: bool,
    /// What became of the backend, where that ended the session.
    fault: Option<String>,
    /// What lies on its streams counts against this.
    quota: Quota,
    metrics: Metrics,
}

impl State {
    /// The books of a session that begins now, on account of whoever has this quota.
    pub(crate) fn new(audience: Audience, now: Instant, quota: Quota, metrics: Metrics) -> Self {
        Self {
            audience,
            version: None,
            refused: false,
            calls: HashMap::new(),
            asked: VecDeque::new(),
            logs: BTreeMap::from([(StreamId::STANDALONE, EventLog::default())]),
            next_stream: 1,
            used: Used::new(now),
            ended: false,
            fault: None,
            quota,
            metrics,
        }
    }

    /// A message as it lies on a stream.
    fn line(&self, message: &Message) -> Bytes {
        let line = message.line();
        if line.as_ptr() == message.bytes().as_ptr() {
            return line;
        }
        // A copy that nobody accounted for.
        self.quota.take_anyway(line.len().saturating_add(PER_MESSAGE)).hold(line)
    }

    fn push(&mut self, stream: StreamId, event: Bytes) {
        let dropped = self.logs.entry(stream).or_default().push(event);
        self.metrics.count_many(Outcome::EventsDropped, dropped);
    }

    /// Gives up what is only kept for clients that come back: memory is short.
    pub(crate) fn shed(&mut self) {
        let shed = self.logs.values_mut().map(EventLog::shed).sum();
        self.metrics.count_many(Outcome::EventsShed, shed);
    }

    /// The version that was settled on; none before `initialize` was answered.
    pub(crate) fn version(&self) -> Option<ProtocolVersion> {
        self.version
    }

    /// Did the backend refuse to be initialised?
    pub(crate) fn is_refused(&self) -> bool {
        self.refused
    }

    /// Is it over, or as good as that?
    pub fn is_ended(&self) -> bool {
        self.ended || self.refused
    }

    /// Notes what became of the backend: the session ends by that.
    pub(crate) fn blame(&mut self, fault: &str) {
        self.fault = Some(fault.to_owned());
    }

    /// What became of the backend, where that ended the session.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.len()
    }

    /// How it is used, for a newcomer that needs a place. `None` if it has ended, or is about to.
    pub(crate) fn usage(&self) -> Option<Usage> {
        let streams = self.is_read(StreamId::STANDALONE);
        let usage =
            Usage { idle_since: self.idle_since(), streams, returned: self.used.returned() };
        (!self.is_ended()).then_some(usage)
    }

    /// Since when nothing goes on; none while a call waits or somebody reads.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let busy = !self.calls.is_empty() || self.logs.values().any(EventLog::is_attached);
        (!busy).then_some(self.used.last())
    }

    /// When the first call is due.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.calls.values().map(|call| call.deadline).min()
    }

    /// Enters calls that came in together, and opens the stream for what belongs to them.
    pub(crate) fn begin(
        &mut self,
        calls: &mut [Permitted],
        onto: Onto,
        deadline: Instant,
    ) -> Result<(StreamId, Turn), Reason> {
        if self.ended {
            return Err(Reason::UnknownSession);
        }
        if self.calls.len() + calls.len() > MAX_CALLS {
            return Err(Reason::TooManyCalls);
        }
        let mut ids: Vec<&RequestId> =
            calls.iter().filter_map(|call| call.request().id()).collect();
        let doubled = ids.iter().any(|id| self.calls.contains_key(*id));
        ids.sort_unstable();
        if doubled || ids.windows(2).any(|pair| matches!(pair, [one, other] if one == other)) {
            return Err(Reason::DuplicateId);
        }
        let stream = match onto {
            Onto::Own { .. } => self.open_stream(),
            Onto::Standalone => StreamId::STANDALONE,
        };
        for call in calls {
            let shape = call.take_shape();
            let request = call.request();
            let Some(id) = request.id() else { continue };
            let pending = PendingCall {
                stream,
                deadline,
                progress: request.progress_token(),
                streams: !matches!(onto, Onto::Own { events: false }),
                initialize: request.method() == Some("initialize"),
                shape,
                record: Record::begin(&self.metrics),
            };
            self.calls.insert(id.clone(), pending);
        }
        let log = self.logs.entry(stream).or_default();
        let turn = match onto {
            Onto::Own { .. } => log.attach(),
            // Its reader is the GET that opened the session; a POST does not take it over.
            Onto::Standalone => log.turn(),
        };
        Ok((stream, turn))
    }

    fn open_stream(&mut self) -> StreamId {
        let stream = StreamId(self.next_stream);
        self.next_stream += 1;
        stream
    }

    /// The stream that a message from the backend goes to.
    pub fn place(&self, message: &Message, during: &During) -> Option<StreamId> {
        let streaming = |id: &RequestId| self.calls.get(id).filter(|call| call.streams);
        if let Some(id) = message.answers() {
            return self.calls.get(id).map(|call| call.stream);
        }
        if let During::Call(id) = during
            && let Some(call) = streaming(id)
        {
            return Some(call.stream);
        }
        match message.method() {
            Some("notifications/progress") => {
                let token = message.progress_token();
                // That of a call that is over is nobody's: clients take it for an error.
                let mut calls = self.calls.values();
                let call = calls.find(|call| token.is_some() && call.progress == token)?;
                return Some(if call.streams { call.stream } else { StreamId::STANDALONE });
            }
            Some("notifications/cancelled") => {
                let id = message.cancelled();
                let mut asked = self.asked.iter();
                if let Some((_, stream)) = asked.find(|(asked, _)| Some(asked) == id.as_ref()) {
                    // On a stream that is over nobody would hear of it, nor would it ever be freed.
                    let open = self.logs.get(stream).is_some_and(|log| !log.is_finished());
                    return Some(if open { *stream } else { StreamId::STANDALONE });
                }
            }
            Some(_) | None => {}
        }
        // What belongs to no call goes where nobody waits for it only if nobody listens at all.
        if *during == During::NoCall && self.is_read(StreamId::STANDALONE) {
            return Some(StreamId::STANDALONE);
        }
        Some(self.guess())
    }

    /// Where a message goes that says of no call that it belongs there: with one call in flight it
    /// is that call's; else it is the standalone stream's, if somebody reads it; else the newest
    /// call's; else it waits for somebody to read the standalone stream.
    fn guess(&self) -> StreamId {
        let mut streams: Vec<StreamId> =
            self.calls.values().filter(|call| call.streams).map(|call| call.stream).collect();
        streams.sort_unstable();
        streams.dedup();
        let standalone = self.logs.get(&StreamId::STANDALONE).is_some_and(EventLog::is_attached);
        match streams.as_slice() {
            [only] => *only,
            [.., newest] if !standalone => *newest,
            [..] => StreamId::STANDALONE,
        }
    }

    /// Is the stream so full of what its reader has not read that the backend must wait?
    pub fn is_full(&self, stream: StreamId) -> bool {
        self.logs.get(&stream).is_some_and(EventLog::is_full)
    }

    fn is_read(&self, stream: StreamId) -> bool {
        self.logs.get(&stream).is_some_and(EventLog::is_attached)
    }

    /// Puts a message from the backend where it belongs.
    pub fn route(&mut self, message: &Message, during: &During, now: Instant) -> Routed {
        let Some(stream) = self.place(message, during) else { return Routed::Dropped };
        match message.kind() {
            Kind::Response { id } => {
                self.settle(id, message, now);
                return Routed::Delivered;
            }
            Kind::Request { id, .. } if !self.audience.questions => {
                return Routed::Unanswerable(id.clone());
            }
            // Nobody is there to answer in time; that the session lives, the edge can say.
            Kind::Request { id, method } if &**method == "ping" && !self.is_read(stream) => {
                return Routed::Unanswerable(id.clone());
            }
            Kind::Notification { .. } if !self.audience.notifications => {
                return Routed::Dropped;
            }
            Kind::Request { id, .. } => {
                if self.asked.len() >= MAX_ASKED {
                    self.asked.pop_front();
                    self.metrics.count(Outcome::QuestionForgotten);
                }
                self.asked.push_back((id.clone(), stream));
            }
            Kind::Notification { .. } => {}
        }
        let line = self.line(message);
        self.push(stream, line);
        Routed::Delivered
    }

    /// Gives a call its answer; the stream ends with the last answer that it waits for.
    fn settle(&mut self, id: &RequestId, answer: &Message, now: Instant) {
        let Some(call) = self.calls.remove(id) else { return };
        self.used.now(now);
        let mut line = self.line(&call.shape.apply(answer));
        if call.initialize {
            let named = answer.protocol_version();
            self.refused = answer.is_error();
            if Era::of_revision(named.as_deref()) == Era::Modern {
                // Such a revision has no handshake: nobody could go on from here.
                let text = "the MCP server chose a protocol version that has no `initialize`";
                line = Message::error(id, code::INTERNAL_ERROR, text).line();
                self.refused = true;
            }
            self.version =
                named.map(|name| ProtocolVersion::parse(&name).unwrap_or(ProtocolVersion::ASSUMED));
        }
        self.push(call.stream, line);
        self.finish_if_last(call.stream);
    }

    /// A stream of calls ends with the last of them.
    fn finish_if_last(&mut self, stream: StreamId) {
        let more = self.calls.values().any(|other| other.stream == stream);
        if !more && stream != StreamId::STANDALONE {
            self.logs.entry(stream).or_default().finish();
        }
        self.forget_finished();
    }

    /// Answers a call by an error of the edge's own. False where it does not wait (any more).
    pub fn fail(&mut self, id: &RequestId, fault: Reason, now: Instant) -> bool {
        let Some(call) = self.calls.get_mut(id) else { return false };
        call.record.note(&fault);
        let stream = call.stream;
        let answer = fault.answer(id);
        self.logs.entry(stream).or_default().excuse(fault);
        self.settle(id, &answer, now);
        true
    }

    /// Forgets a call that its client cancelled: nobody is to answer it any more (2025-11-25,
    /// "Cancellation"). False where it does not wait.
    pub fn cancel(&mut self, id: &RequestId, now: Instant) -> bool {
        let Some(call) = self.calls.remove(id) else { return false };
        self.used.now(now);
        self.finish_if_last(call.stream);
        true
    }

    /// Is this call one that may not be cancelled (2025-03-26 and later, "Cancellation")?
    pub(crate) fn is_initialize(&self, id: &RequestId) -> bool {
        self.calls.get(id).is_some_and(|call| call.initialize)
    }

    /// The calls whose time is over.
    pub(crate) fn overdue(&self, now: Instant) -> Vec<RequestId> {
        let over = self.calls.iter().filter(|(_, call)| call.deadline <= now);
        over.map(|(id, _)| id.clone()).collect()
    }

    /// Takes the client's answer to a request of the backend's. False if nobody asked.
    pub fn take_answer(&mut self, id: &RequestId) -> bool {
        let Some(at) = self.asked.iter().position(|(asked, _)| asked == id) else { return false };
        self.asked.remove(at).is_some()
    }

    /// Ends the session: every call is answered, every stream finished.
    pub fn end(&mut self, why: &str, now: Instant) {
        self.ended = true;
        let waiting: Vec<RequestId> = self.calls.keys().cloned().collect();
        for id in &waiting {
            self.fail(id, Reason::ended(why), now);
        }
        self.logs.values_mut().for_each(EventLog::finish);
    }

    /// No request of this session is served from now on; what is under way goes on until it ends.
    pub(crate) fn close(&mut self) {
        self.ended = true;
    }

    /// Calls, questions, streams, and the bytes of their events, counted anew.
    #[cfg(fuzzing)]
    pub fn held(&self) -> (usize, usize, usize, usize) {
        let bytes = self.logs.values().map(EventLog::checked).sum();
        (self.calls.len(), self.asked.len(), self.logs.len(), bytes)
    }

    pub fn log(&mut self, stream: StreamId) -> Option<&mut EventLog> {
        self.logs.get_mut(&stream)
    }

    /// Puts an answer of the edge's own on the standalone stream.
    pub(crate) fn put(&mut self, answer: Bytes) {
        self.push(StreamId::STANDALONE, answer);
    }

    /// Forgets a stream that its client was answered without.
    pub(crate) fn forget(&mut self, stream: StreamId) {
        if self.logs.get(&stream).is_some_and(EventLog::is_finished) {
            self.logs.remove(&stream);
        }
    }

    /// Keeps the newest finished streams for clients that come back, and forgets the others.
    pub fn forget_finished(&mut self) {
        let idle = |(stream, log): (&StreamId, &EventLog)| {
            (log.is_finished() && !log.is_attached()).then_some((*stream, log.bytes()))
        };
        let finished: Vec<(StreamId, usize)> = self.logs.iter().filter_map(idle).collect();
        let (mut count, mut bytes) = (0, 0);
        for (stream, size) in finished.into_iter().rev() {
            count += 1;
            bytes += size;
            if count > MAX_FINISHED || bytes > MAX_FINISHED_BYTES {
                let unread = self.logs.remove(&stream).map_or(0, |log| log.unread());
                self.metrics.count_many(Outcome::EventsDropped, unread);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::caller::{Caller, Transport};

    fn state() -> State {
        state_of(Quota::unbounded(), Metrics::default())
    }

    fn state_of(quota: Quota, metrics: Metrics) -> State {
        State::new(Audience::of(Transport::StreamableHttp), Instant::now(), quota, metrics)
    }

    fn request(id: u64, token: Option<&str>) -> Message {
        let params =
            token.map_or(json!({}), |token| json!({ "_meta": { "progressToken": token } }));
        Message::request(&id.into(), "tools/call", &params)
    }

    fn call(request: Message) -> Permitted {
        Permitted::of_edge(request, Arc::new(Caller::stdio()))
    }

    fn begin(state: &mut State, message: &Message, events: bool) -> Result<StreamId, Reason> {
        let deadline = Instant::now() + Duration::from_secs(1);
        state
            .begin(&mut [call(message.clone())], Onto::Own { events }, deadline)
            .map(|(stream, _)| stream)
    }

    fn progress(token: &str) -> Message {
        Message::notification("notifications/progress", &json!({ "progressToken": token }))
    }

    #[tokio::test]
    async fn an_answer_goes_to_the_stream_of_its_call_and_ends_it() {
        let mut state = state();
        let (one, two) = (request(1, None), request(2, None));
        let first = begin(&mut state, &one, true).unwrap();
        let second = begin(&mut state, &two, true).unwrap();
        let answer = Message::result(&2.into(), &json!({}));
        assert_eq!(state.route(&answer, &During::Unknown, Instant::now()), Routed::Delivered);
        assert!(state.log(second).unwrap().is_finished());
        assert!(!state.log(first).unwrap().is_finished());
        assert_eq!(state.route(&answer, &During::Unknown, Instant::now()), Routed::Dropped);
    }

    #[tokio::test]
    async fn progress_follows_its_token_and_the_rest_is_placed_by_rule() {
        let mut state = state();
        let note = Message::notification("notifications/message", &json!({}));
        assert_eq!(state.place(&note, &During::Unknown), Some(StreamId::STANDALONE));
        let first = begin(&mut state, &request(1, Some("a")), true).unwrap();
        assert_eq!(state.place(&note, &During::Unknown), Some(first));
        let second = begin(&mut state, &request(2, Some("b")), true).unwrap();
        assert_eq!(state.place(&progress("a"), &During::Unknown), Some(first));
        assert_eq!(state.place(&progress("b"), &During::Unknown), Some(second));
        assert_eq!(state.place(&progress("over"), &During::Unknown), None);
        assert_eq!(state.place(&note, &During::Unknown), Some(second));
        assert_eq!(state.place(&note, &During::NoCall), Some(second));
        assert_eq!(state.place(&note, &During::Call(1.into())), Some(first));
        let _turn = state.log(StreamId::STANDALONE).unwrap().attach();
        assert_eq!(state.place(&note, &During::Unknown), Some(StreamId::STANDALONE));
    }

    #[tokio::test]
    async fn a_call_that_takes_only_json_gets_nothing_but_its_answer() {
        let mut state = state();
        let stream = begin(&mut state, &request(1, Some("a")), false).unwrap();
        assert_eq!(
            state.place(&progress("a"), &During::Call(1.into())),
            Some(StreamId::STANDALONE)
        );
        let answer = Message::result(&1.into(), &json!({}));
        assert_eq!(state.place(&answer, &During::Unknown), Some(stream));
    }

    #[tokio::test]
    async fn ids_in_flight_are_unique_and_calls_have_a_lid() {
        let mut state = state();
        let one = request(1, None);
        assert!(begin(&mut state, &one, true).is_ok());
        assert_eq!(begin(&mut state, &one, true), Err(Reason::DuplicateId));
        let (two, same) = (request(2, None), request(2, None));
        let twice = state.begin(&mut [call(two), call(same)], Onto::Standalone, Instant::now());
        assert_eq!(twice.unwrap_err(), Reason::DuplicateId);
        for id in 2..=64 {
            assert!(begin(&mut state, &request(id, None), true).is_ok());
        }
        assert_eq!(begin(&mut state, &request(65, None), true), Err(Reason::TooManyCalls));
    }

    #[tokio::test]
    async fn only_what_was_asked_may_be_answered_and_only_once() {
        let mut state = state();
        let asked = Message::request(&7.into(), "roots/list", &json!({}));
        assert_eq!(state.route(&asked, &During::Unknown, Instant::now()), Routed::Delivered);
        assert!(!state.take_answer(&8.into()));
        assert!(state.take_answer(&7.into()));
        assert!(!state.take_answer(&7.into()));
    }

    #[tokio::test]
    async fn a_cancellation_follows_its_question_as_long_as_that_stream_is_open() {
        let mut state = state();
        let stream = begin(&mut state, &request(1, None), true).unwrap();
        let asked = Message::request(&7.into(), "roots/list", &json!({}));
        assert_eq!(state.route(&asked, &During::Call(1.into()), Instant::now()), Routed::Delivered);
        let cancel = Message::cancellation(&7.into(), None);
        assert_eq!(state.place(&cancel, &During::Unknown), Some(stream));
        let answer = Message::result(&1.into(), &json!({}));
        assert_eq!(state.route(&answer, &During::Unknown, Instant::now()), Routed::Delivered);
        assert_eq!(state.place(&cancel, &During::Unknown), Some(StreamId::STANDALONE));
        state.forget(stream);
        assert_eq!(state.route(&cancel, &During::Unknown, Instant::now()), Routed::Delivered);
        assert!(state.log(stream).is_none());
    }

    #[tokio::test]
    async fn questions_have_a_lid() {
        let metrics = Metrics::default();
        let mut state = state_of(Quota::unbounded(), metrics.clone());
        for id in 0..300_u64 {
            let asked = Message::request(&id.into(), "roots/list", &json!({}));
            state.route(&asked, &During::Unknown, Instant::now());
        }
        assert_eq!((state.asked.len(), metrics.outcomes()["question_forgotten"]), (MAX_ASKED, 44));
        assert!(!state.take_answer(&43.into()) && state.take_answer(&44.into()));
    }

    #[tokio::test]
    async fn finished_streams_are_kept_up_to_a_lid() {
        let mut state = state();
        for id in 1..=100_u64 {
            let (stream, turn) = state
                .begin(&mut [call(request(id, None))], Onto::Own { events: true }, Instant::now())
                .unwrap();
            state.log(stream).unwrap().detach(turn);
            let answer = Message::result(&id.into(), &json!({}));
            assert_eq!(state.route(&answer, &During::Unknown, Instant::now()), Routed::Delivered);
        }
        assert_eq!(state.logs.len(), 1 + MAX_FINISHED);
        assert!(state.log(StreamId(100)).is_some());
    }

    #[tokio::test]
    async fn the_end_answers_everybody() {
        let mut state = state();
        let stream = begin(&mut state, &request(1, None), true).unwrap();
        state.end("gone", Instant::now());
        assert!(state.log(stream).unwrap().is_finished());
        assert_eq!(state.log(stream).unwrap().unread(), 1);
        assert_eq!(begin(&mut state, &request(2, None), true), Err(Reason::UnknownSession));
    }

    #[tokio::test]
    async fn finished_streams_are_kept_up_to_two_mebibytes() {
        let mut state = state();
        let mut finish = |id: u64, size: usize| {
            let onto = Onto::Own { events: true };
            let (stream, turn) =
                state.begin(&mut [call(request(id, None))], onto, Instant::now()).unwrap();
            state.log(stream).unwrap().detach(turn);
            let empty = Message::result(&id.into(), &json!("")).bytes().len();
            let answer = Message::result(&id.into(), &json!("x".repeat(size - empty)));
            let _routed = state.route(&answer, &During::Unknown, Instant::now());
            state.logs.len() - 1
        };
        assert_eq!(finish(1, 1024 * 1024), 1);
        assert_eq!(finish(2, 1024 * 1024), 2, "they may have all of it");
        assert_eq!(finish(3, 100), 2, "the oldest goes");
    }

    fn initialize(id: u64) -> Message {
        Message::request(&id.into(), "initialize", &json!({}))
    }

    fn text(state: &mut State, stream: StreamId) -> String {
        let log = state.log(stream).unwrap();
        let turn = log.attach();
        let context = std::task::Context::from_waker(std::task::Waker::noop());
        let std::task::Poll::Ready(Some((_, event))) = log.poll_next(turn, &context) else {
            panic!("nothing is there");
        };
        String::from_utf8(event.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn what_initialize_is_answered_settles_the_session() {
        let now = Instant::now();
        let settled = |answer: Message| {
            let mut state = state();
            let stream = begin(&mut state, &initialize(1), true).unwrap();
            assert!(state.is_initialize(&1.into()) && !state.is_initialize(&2.into()));
            assert_eq!(state.route(&answer, &During::Unknown, now), Routed::Delivered);
            let (version, refused) = (state.version(), state.is_refused());
            assert_eq!(state.is_ended(), refused);
            assert_eq!(state.usage().is_none(), refused);
            (version, refused, text(&mut state, stream))
        };
        let result =
            |version: &str| Message::result(&1.into(), &json!({ "protocolVersion": version }));
        let fine = result("2025-06-18");
        let line = String::from_utf8(fine.bytes().to_vec()).unwrap();
        assert_eq!(settled(fine), (Some(ProtocolVersion::V2025_06_18), false, line));
        assert_eq!(settled(result("unheard-of")).0, Some(ProtocolVersion::ASSUMED));
        let error = settled(Message::error(&1.into(), -1, "no"));
        assert_eq!((error.0, error.1), (None, true));
        let (_, refused, line) = settled(result("2026-07-28"));
        assert!(refused && line.contains("-32603"), "{line}");
    }

    #[tokio::test]
    async fn a_session_is_idle_while_no_call_waits_and_nobody_reads() {
        let mut state = state();
        let begun = state.idle_since().unwrap();
        let later = begun + Duration::from_secs(1);
        let stream = begin(&mut state, &request(1, None), true).unwrap();
        assert_eq!((state.idle_since(), state.calls()), (None, 1));
        let answer = Message::result(&1.into(), &json!({}));
        assert_eq!(state.route(&answer, &During::Unknown, later), Routed::Delivered);
        assert_eq!((state.idle_since(), state.calls()), (None, 0), "its stream is read");
        let turn = state.log(stream).unwrap().turn();
        state.log(stream).unwrap().detach(turn);
        let usage = state.usage().unwrap();
        assert_eq!((usage.idle_since, usage.streams, usage.returned), (Some(later), false, false));
        let _turn = state.log(StreamId::STANDALONE).unwrap().attach();
        assert!(state.usage().unwrap().streams);
        state.close();
        assert!(state.is_ended() && state.usage().is_none());
    }

    #[tokio::test]
    async fn a_call_is_due_at_its_deadline_and_not_before() {
        let mut state = state();
        let begun = Instant::now();
        let due = |seconds| begun + Duration::from_secs(seconds);
        let mut calls = |id: u64, seconds| {
            let onto = Onto::Own { events: true };
            state.begin(&mut [call(request(id, None))], onto, due(seconds)).unwrap().0
        };
        let (first, _second) = (calls(1, 5), calls(2, 9));
        assert_eq!(state.next_deadline(), Some(due(5)));
        assert!(state.overdue(due(5) - Duration::from_millis(1)).is_empty());
        assert_eq!(state.overdue(due(5)), [1.into()]);
        assert!(state.fail(&1.into(), Reason::ended("late"), due(5)));
        assert!(!state.fail(&1.into(), Reason::ended("late"), due(5)), "it waits no more");
        assert_eq!(state.log(first).unwrap().excused(), Some(&Reason::ended("late")));
        assert!(text(&mut state, first).contains("late"));
        assert!(state.cancel(&2.into(), due(6)) && !state.cancel(&2.into(), due(6)));
        assert_eq!((state.next_deadline(), state.used.last()), (None, due(6)));
    }

    #[tokio::test]
    async fn what_belongs_to_no_call_goes_to_the_standalone_stream_if_that_is_read() {
        let mut state = state();
        let only = begin(&mut state, &request(1, None), true).unwrap();
        let note = Message::notification("notifications/message", &json!({}));
        let nameless = Message::notification("notifications/progress", &json!({}));
        assert_eq!(state.place(&note, &During::NoCall), Some(only));
        assert_eq!(state.place(&nameless, &During::Unknown), None, "it is of no call");
        let _turn = state.log(StreamId::STANDALONE).unwrap().attach();
        assert_eq!(state.place(&note, &During::NoCall), Some(StreamId::STANDALONE));
        assert_eq!(state.place(&note, &During::Unknown), Some(only));
    }

    #[tokio::test]
    async fn nothing_is_asked_of_a_client_that_cannot_answer() {
        let now = Instant::now();
        let asked = Message::request(&7.into(), "roots/list", &json!({}));
        let ping = Message::request(&8.into(), "ping", &json!({}));
        let note = Message::notification("notifications/message", &json!({}));
        let (audience, quota) = (Audience::of(Transport::Bare), Quota::unbounded());
        let mut bare = State::new(audience, now, quota, Metrics::default());
        assert_eq!(bare.route(&asked, &During::Unknown, now), Routed::Unanswerable(7.into()));
        assert_eq!(bare.route(&note, &During::Unknown, now), Routed::Dropped);
        let mut state = state();
        assert_eq!(state.route(&ping, &During::Unknown, now), Routed::Unanswerable(8.into()));
        let _turn = state.log(StreamId::STANDALONE).unwrap().attach();
        assert_eq!(state.route(&ping, &During::Unknown, now), Routed::Delivered);
        assert_eq!(state.route(&note, &During::Unknown, now), Routed::Delivered);
    }

    #[tokio::test]
    async fn the_standalone_stream_outlives_the_calls_that_are_answered_on_it() {
        let mut state = state();
        let onto = Onto::Standalone;
        let (stream, _turn) =
            state.begin(&mut [call(request(1, None))], onto, Instant::now()).unwrap();
        assert_eq!(stream, StreamId::STANDALONE);
        let answer = Message::result(&1.into(), &json!({}));
        assert_eq!(state.route(&answer, &During::Unknown, Instant::now()), Routed::Delivered);
        state.put(Bytes::from_static(b"{}"));
        assert_eq!(state.log(stream).unwrap().unread(), 2);
        state.forget(stream);
        assert!(!state.log(stream).unwrap().is_finished());
        state.blame("it crashed");
        assert_eq!(state.fault(), Some("it crashed"));
    }

    #[tokio::test]
    async fn a_finished_stream_that_is_read_is_never_forgotten() {
        let mut state = state();
        for id in 1..=2 * u64::try_from(MAX_FINISHED).unwrap() {
            let _stream = begin(&mut state, &request(id, None), true).unwrap();
            let answer = Message::result(&id.into(), &json!({}));
            assert_eq!(state.route(&answer, &During::Unknown, Instant::now()), Routed::Delivered);
        }
        assert_eq!(state.logs.len(), 1 + 2 * MAX_FINISHED);
    }

    #[tokio::test]
    async fn a_copy_that_a_stream_makes_counts_and_what_it_gives_up_is_counted() {
        let budget = crate::limits::bytes::Budget::new(100_000, 0, Metrics::default());
        let metrics = Metrics::default();
        let mut state = state_of(budget.quota(), metrics.clone());
        let plain = r#"{"jsonrpc":"2.0","method":"a"}"#;
        for (text, taken) in [(plain.to_owned(), 0), (format!("{plain}\n"), 31 + PER_MESSAGE)] {
            let note = Message::parse(text.into()).unwrap();
            assert_eq!(state.route(&note, &During::Unknown, Instant::now()), Routed::Delivered);
            assert_eq!(budget.taken(), taken);
        }
        state.shed();
        state.shed();
        assert_eq!((budget.taken(), metrics.outcomes()["events_shed"]), (0, 2));
    }
}
