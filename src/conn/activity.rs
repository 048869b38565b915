//! What goes on on one connection. The socket, the service and the response bodies report here; the
//! connection's own task asks one question: when is it too late?

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::deadlines::{ConnTimes, Deadlines, Overdue};
use super::ending::Ending;
use super::http1::Announced;
use super::http2::Ledger;
use crate::caller::Alpn;

/// What goes on on one connection.
#[derive(Debug)]
pub(super) struct Activity {
    pub(super) deadlines: Deadlines,
    /// HTTP/1.1 has none of its frames counted, so that its peer never owes anything.
    pub(super) ledger: Ledger,
    pub(super) ending: Ending,
    /// HTTP/1.1: what is to come of the chunk under way.
    announced: Mutex<Option<Announced>>,
}

impl Activity {
    pub(super) fn new(times: ConnTimes, protocol: Alpn) -> Arc<Self> {
        Arc::new(Self {
            deadlines: Deadlines::new(times, protocol),
            ledger: Ledger::default(),
            ending: Ending::default(),
            announced: Mutex::default(),
        })
    }

    /// HTTP/1.1: this is to come of the chunk under way.
    pub(super) fn announce(&self, announced: Option<Announced>) {
        *self.announced.lock() = announced;
    }

    /// How many bytes of this request's body are announced, and have not come.
    pub(super) fn announced(&self, request: u64) -> u64 {
        let announced = *self.announced.lock();
        announced.filter(|it| it.request == request).map_or(0, |announced| announced.bytes)
    }

    /// A request begins. It ends when the value is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Exchange {
        self.ending.set_may_send(false);
        let number = self.deadlines.begin();
        Exchange { activity: Arc::clone(self), number, welcome: false, made: false, over: None }
    }

    /// Until when this may go on, and what it is then.
    fn due(&self) -> Option<(Instant, Overdue)> {
        let owes = self.ledger.owes_since();
        let owes = owes.map(|since| (since + self.deadlines.times.write, Overdue::Stalled));
        self.deadlines.due().into_iter().chain(owes).min_by_key(|(when, _)| *when)
    }

    /// Resolves when it has gone on too long.
    pub(super) async fn overdue(&self) -> Overdue {
        let ConnTimes { header, idle, write } = self.deadlines.times;
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
    /// Which request of the connection it is, from 0.
    pub(super) number: u64,
    /// Was it answered with what it asked for?
    welcome: bool,
    /// Is its response being made?
    made: bool,
    /// Dropped, it says that the exchange is over.
    over: Option<oneshot::Sender<Infallible>>,
}

/// Resolves, with an error, when an exchange is over.
pub(super) type Over = oneshot::Receiver<Infallible>;

impl Exchange {
    /// Resolves when it is over, and its response is with the library.
    pub(super) fn over(&mut self) -> Over {
        let (sender, over) = oneshot::channel();
        self.over = Some(sender);
        over
    }

    /// The request is answered with this status. Once for each request.
    pub(super) fn answered(&mut self, status: StatusCode) {
        let refused =
            status.is_redirection() || status.is_client_error() || status.is_server_error();
        self.welcome = !refused;
        self.made = true;
        if refused {
            self.activity.ending.set_may_send(true);
        }
        self.activity.ledger.answered(refused);
    }

    /// Did the request break the framing in its body?
    pub(super) fn is_violated(&self) -> bool {
        self.activity.ending.violation().is_some()
    }

    /// The response gave a piece away (true), or waits for more itself.
    fn handed(&self, piece: bool) {
        self.activity.deadlines.handed(self.number, piece);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.activity.ledger.end(self.made);
        self.activity.deadlines.end(self.number);
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
            Poll::Ready(Some(Ok(_))) if self.exchange.welcome => {
                self.exchange.activity.ledger.piece();
            }
            Poll::Ready(Some(Err(_))) => self.exchange.activity.ending.break_off(),
            Poll::Ready(Some(Ok(_)) | None) | Poll::Pending => {}
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
        activity.deadlines.bytes_came();
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
        activity.deadlines.bytes_came();
        tokio::time::advance(Duration::from_secs(2)).await;
        activity.deadlines.bytes_came();
        assert_eq!(ends(&activity).await, (Overdue::Head, 8));
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_between_requests_are_no_head_in_http_2() {
        let activity = Activity::new(TIMES, Alpn::H2);
        assert_eq!(ends(&activity).await, (Overdue::Idle, 10));
        let activity = Activity::new(TIMES, Alpn::H2);
        drop(activity.begin());
        activity.deadlines.bytes_came();
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
        activity.deadlines.wrote(false);
        tokio::time::advance(Duration::from_secs(3)).await;
        activity.deadlines.wrote(false);
        assert_eq!(ends(&activity).await, (Overdue::Stalled, 27));
        activity.deadlines.wrote(true);
        drop(exchange);
        assert_eq!(ends(&activity).await, (Overdue::Idle, 75));
    }
}
