//! What goes on on one connection, and until when it may go on like that.
//!
//! Three parties report here: the socket (bytes come, or cannot be written), the service (a request
//! begins), and the response body (a piece was handed over, the response is over). The connection's
//! own task asks one question: when is it too late?

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::{Frame, SizeHint};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::http1::{Announced, Violation};
use super::http2::Work;
use super::tls::EndedBy;
use crate::caller::Alpn;

/// Lengths of time that a connection is held to.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnTimes {
    /// From the first byte of a head to its last; of a new connection, from its start.
    pub(super) header: Duration,
    /// Without a request.
    pub(super) idle: Duration,
    /// Without progress of a write.
    pub(super) write: Duration,
}

/// Why a connection must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// No request came.
    Idle,
    /// A request began to come, and did not.
    Head,
    /// The peer takes nothing of what it asked for.
    Stalled,
}

/// What an HTTP/2 peer must take, in each `write`, of responses that wait for nothing but its window.
const LEAST_TAKEN: u64 = 4096;

/// What goes on on one connection.
#[derive(Debug)]
pub(super) struct Activity {
    times: ConnTimes,
    protocol: Alpn,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Since when there has been no request; bytes of the next may be there.
    quiet: Option<Instant>,
    /// Since when the next head has been coming.
    head: Option<Instant>,
    /// Has there been a request?
    used: bool,
    requests: u32,
    /// When each response last handed a piece over that was not asked for again.
    handed: Vec<(u64, Instant)>,
    next_response: u64,
    /// Since when the socket takes nothing.
    blocked: Option<Instant>,
    /// Was the last request refused, sent elsewhere, or not read to its end? Then the peer may still be
    /// sending its body.
    may_send: bool,
    /// HTTP/1.1: what is to come of the chunk under way.
    announced: Option<Announced>,
    /// Did a response break off in the middle?
    broken: bool,
    /// What the peer did to the framing, once that was read.
    violation: Option<Violation>,
    /// Who reads on when the requests under way are answered.
    reader: Option<Waker>,
    /// Since when an HTTP/2 frame or header block has been coming.
    unfinished: Option<Instant>,
    /// HTTP/2: responses that have begun on the wire and not ended; those of all responses whose
    /// bodies are still being made.
    begun: usize,
    made: usize,
    /// Since when an HTTP/2 peer has owed it to take [`LEAST_TAKEN`], and what it took.
    owes: Option<(Instant, u64)>,
    /// What was done for the peer and not told yet.
    work: Work,
    /// How TLS ended it, until that is told.
    ended_by: Option<EndedBy>,
}

impl State {
    /// What the peer owes, after it took so many bytes more.
    fn settle(&mut self, taken: u64) {
        self.owes = match self.owes {
            _ if self.begun <= self.made => None,
            Some((since, before)) if before + taken < LEAST_TAKEN => Some((since, before + taken)),
            Some(_) | None => Some((Instant::now(), 0)),
        };
    }
}

impl Activity {
    pub(super) fn new(times: ConnTimes, protocol: Alpn) -> Arc<Self> {
        let state = State { quiet: Some(Instant::now()), ..State::default() };
        Arc::new(Self { times, protocol, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Bytes came in. Between two requests of HTTP/1.1 they are the next head; of HTTP/2 they may
    /// be anything, such as the answer to a ping.
    pub(super) fn bytes_came(&self) {
        if self.protocol == Alpn::H2 {
            return;
        }
        let mut state = self.state();
        if state.requests == 0 && state.head.is_none() {
            // A new connection's first head is due from the connection's start.
            let since =
                if state.used { Instant::now() } else { state.quiet.unwrap_or_else(Instant::now) };
            state.head = Some(since);
        }
    }

    /// The socket took something (true), or takes nothing now.
    pub(super) fn wrote(&self, progress: bool) {
        let mut state = self.state();
        if progress {
            state.blocked = None;
        } else if state.blocked.is_none() {
            state.blocked = Some(Instant::now());
        }
    }

    /// HTTP/2: a frame, or a header block, has been coming since then; none that must be complete is
    /// if there is no time. Data has time limits of its own.
    pub(super) fn unfinished(&self, since: Option<Instant>) {
        self.state().unfinished = since;
    }

    /// HTTP/2: so many responses have begun on the wire and not ended, and so many bytes of them
    /// were taken just now. Those whose bodies are made, and that wait in the library for the peer's
    /// window, are watched by nobody else.
    pub(super) fn responding(&self, begun: usize, taken: u64) {
        let mut state = self.state();
        state.begun = begun;
        state.settle(taken);
    }

    /// What was done for the peer since this was last asked.
    pub(super) fn take_work(&self) -> Work {
        std::mem::take(&mut self.state().work)
    }

    /// Has there been a request?
    pub(super) fn was_used(&self) -> bool {
        self.state().used
    }

    /// Is this HTTP/1.1, with no request being served?
    pub(super) fn awaits_head(&self) -> bool {
        self.protocol == Alpn::Http1 && self.state().requests == 0
    }

    /// May the peer still be sending the last request? It was refused, or not read to its end.
    pub(super) fn may_send(&self) -> bool {
        self.state().may_send
    }

    /// HTTP/1.1: this is to come of the chunk under way.
    pub(super) fn announce(&self, announced: Option<Announced>) {
        self.state().announced = announced;
    }

    /// How many bytes of this request's body are announced, and have not come.
    pub(super) fn announced(&self, request: u64) -> u64 {
        let announced = self.state().announced.filter(|announced| announced.request == request);
        announced.map_or(0, |announced| announced.bytes)
    }

    /// The body of a request was left before its end.
    pub(super) fn left_unread(&self) {
        self.state().may_send = true;
    }

    /// What is spoken.
    pub(super) fn protocol(&self) -> Alpn {
        self.protocol
    }

    /// Did a response break off, whose end the peer must not take for a good one?
    pub(super) fn broke_off(&self) -> bool {
        self.state().broken
    }

    /// The peer broke the framing. What is wrong behind whole requests has time until they are
    /// answered: pending until then.
    pub(super) fn violated(&self, violation: Violation, context: &Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.requests > 0 && !violation.in_body {
            state.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        state.violation = Some(violation);
        Poll::Ready(())
    }

    /// What the peer did to the framing, if that has ended the connection.
    pub(super) fn violation(&self) -> Option<Violation> {
        self.state().violation
    }

    /// The socket cannot be read any more.
    pub(super) fn failed(&self, error: &io::Error) {
        if let Some(by) = EndedBy::of(error) {
            self.state().ended_by = Some(by);
        }
    }

    /// How TLS ended it, if it did and nobody asked before.
    pub(super) fn take_ended_by(&self) -> Option<EndedBy> {
        self.state().ended_by.take()
    }

    /// A request begins. It ends when the value is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Exchange {
        let mut state = self.state();
        state.requests += 1;
        state.used = true;
        state.quiet = None;
        state.head = None;
        state.may_send = false;
        let response = state.next_response;
        state.next_response += 1;
        Exchange { activity: Arc::clone(self), response, welcome: false, made: false, over: None }
    }

    /// Until when this may go on, and what it is then.
    fn due(&self) -> Option<(Instant, Overdue)> {
        let ConnTimes { header, idle, write } = self.times;
        let state = self.state();
        let quiet = match (state.quiet, state.head) {
            (_, Some(since)) => Some((since + header, Overdue::Head)),
            (Some(since), None) if state.used => Some((since + idle, Overdue::Idle)),
            (Some(since), None) => Some((since + header, Overdue::Idle)),
            (None, None) => None,
        };
        let unfinished = state.unfinished.map(|since| {
            // A new connection's first head is due from the connection's start.
            let since = state.quiet.filter(|_| !state.used).unwrap_or(since);
            (since + header, Overdue::Head)
        });
        let handed = state
            .handed
            .iter()
            .map(|(_, since)| (*since + write, Overdue::Stalled))
            .min_by_key(|(when, _)| *when);
        let blocked = state.blocked.map(|since| (since + write, Overdue::Stalled));
        let owes = state.owes.map(|(since, _)| (since + write, Overdue::Stalled));
        // Of two at once the first counts.
        let all = [unfinished, quiet, handed, blocked, owes];
        all.into_iter().flatten().min_by_key(|(when, _)| *when)
    }

    /// Resolves when it has gone on too long.
    pub(super) async fn overdue(&self) -> Overdue {
        let ConnTimes { header, idle, write } = self.times;
        // Whatever begins from now on is not due before this.
        let step = header.min(idle).min(write).max(Duration::from_millis(1));
        loop {
            let now = Instant::now();
            let look = match self.due() {
                Some((when, overdue)) if when <= now => return overdue,
                Some((when, _)) => when.min(now + step),
                None => now + step,
            };
            sleep_until(look).await;
        }
    }
}

/// One request under way, from its head to the end of its response.
#[derive(Debug)]
pub(super) struct Exchange {
    activity: Arc<Activity>,
    response: u64,
    /// Was it answered with what it asked for?
    welcome: bool,
    /// Is its response being made?
    made: bool,
    /// Tells that it is over, by being dropped.
    over: Option<oneshot::Sender<Infallible>>,
}

/// Resolves, with an error, when an exchange is over.
pub(super) type Over = oneshot::Receiver<Infallible>;

impl Exchange {
    /// Which request of the connection it is, from 0.
    pub(super) fn number(&self) -> u64 {
        self.response
    }

    /// Resolves when it is over, and its response is with the library.
    pub(super) fn over(&mut self) -> Over {
        let (tell, over) = oneshot::channel();
        self.over = Some(tell);
        over
    }

    /// The request is answered with this status.
    pub(super) fn answered(&mut self, status: StatusCode) {
        let refused =
            status.is_redirection() || status.is_client_error() || status.is_server_error();
        self.welcome = !refused;
        let mut state = self.activity.state();
        state.may_send |= refused;
        let done = if refused { &mut state.work.refused } else { &mut state.work.answered };
        *done = done.saturating_add(1);
        if !std::mem::replace(&mut self.made, true) {
            state.made += 1;
        }
    }

    /// The response has something to say.
    fn said(&self) {
        if self.welcome {
            let pieces = &mut self.activity.state().work.pieces;
            *pieces = pieces.saturating_add(1);
        }
    }

    /// Did the request break the framing in its body?
    pub(super) fn is_violated(&self) -> bool {
        self.activity.violation().is_some()
    }

    /// The response has no end.
    fn broke_off(&self) {
        self.activity.state().broken = true;
    }

    /// The response gave a piece away (true), or waits for more itself.
    fn handed(&self, piece: bool) {
        let now = piece.then(Instant::now);
        let mut state = self.activity.state();
        state.handed.retain(|(response, _)| *response != self.response);
        state.handed.extend(now.map(|now| (self.response, now)));
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        state.handed.retain(|(response, _)| *response != self.response);
        state.requests = state.requests.saturating_sub(1);
        state.made = state.made.saturating_sub(usize::from(self.made));
        state.settle(0);
        if state.requests == 0 {
            state.quiet = Some(Instant::now());
            let reader = state.reader.take();
            drop(state);
            reader.iter().for_each(Waker::wake_by_ref);
        }
    }
}

/// A response body that reports how it is taken.
#[derive(Debug)]
pub(super) struct Reported<B> {
    body: B,
    exchange: Exchange,
}

impl<B> Reported<B> {
    pub(super) fn new(body: B, exchange: Exchange) -> Self {
        exchange.handed(true);
        Self { body, exchange }
    }
}

impl<B: http_body::Body<Data = Bytes> + Unpin> http_body::Body for Reported<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.exchange.handed(frame.is_ready());
        match &frame {
            Poll::Ready(Some(Ok(_piece))) => self.exchange.said(),
            Poll::Ready(Some(Err(_))) => self.exchange.broke_off(),
            Poll::Ready(None) | Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: ConnTimes = ConnTimes {
        header: Duration::from_secs(10),
        idle: Duration::from_secs(75),
        write: Duration::from_secs(30),
    };

    async fn ends(activity: &Activity) -> (Overdue, u64) {
        let begun = Instant::now();
        let overdue = activity.overdue().await;
        (overdue, begun.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_has_its_heads_time() {
        let activity = Activity::new(TIMES, Alpn::Http1);
        assert_eq!(ends(&activity).await, (Overdue::Idle, 10));
        let activity = Activity::new(TIMES, Alpn::Http1);
        tokio::time::advance(Duration::from_secs(4)).await;
        activity.bytes_came();
        assert_eq!(ends(&activity).await, (Overdue::Head, 6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_used_connection_may_be_idle_for_longer() {
        let activity = Activity::new(TIMES, Alpn::Http1);
        drop(activity.begin());
        assert_eq!(ends(&activity).await, (Overdue::Idle, 75));
        let activity = Activity::new(TIMES, Alpn::Http1);
        drop(activity.begin());
        tokio::time::advance(Duration::from_secs(7)).await;
        activity.bytes_came();
        tokio::time::advance(Duration::from_secs(2)).await;
        activity.bytes_came();
        assert_eq!(ends(&activity).await, (Overdue::Head, 8));
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_between_requests_are_no_head_in_http_2() {
        let activity = Activity::new(TIMES, Alpn::H2);
        assert_eq!(ends(&activity).await, (Overdue::Idle, 10));
        let activity = Activity::new(TIMES, Alpn::H2);
        drop(activity.begin());
        activity.bytes_came();
        assert_eq!(ends(&activity).await, (Overdue::Idle, 75));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_may_take_its_time_but_a_response_must_be_taken() {
        let activity = Activity::new(TIMES, Alpn::Http1);
        let exchange = activity.begin();
        assert!(tokio::time::timeout(Duration::from_hours(1), activity.overdue()).await.is_err());
        exchange.handed(true);
        assert_eq!(ends(&activity).await, (Overdue::Stalled, 30));
        exchange.handed(false);
        assert!(tokio::time::timeout(Duration::from_hours(1), activity.overdue()).await.is_err());
        activity.wrote(false);
        tokio::time::advance(Duration::from_secs(3)).await;
        activity.wrote(false);
        assert_eq!(ends(&activity).await, (Overdue::Stalled, 27));
        activity.wrote(true);
        drop(exchange);
        assert_eq!(ends(&activity).await, (Overdue::Idle, 75));
    }
}
