//! Request bodies within a number of bytes, an idle time and a total time: read whole ([`read`]),
//! or handed on as they come ([`hand_on`]).

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use crate::limits::bytes::{Gathered, Quota, Short};

/// What a request body may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimits {
    /// Bytes in all.
    pub(crate) bytes: usize,
    /// Between two pieces.
    pub(crate) idle: Duration,
    /// From the first wait to the last byte.
    pub(crate) total: Duration,
}

/// Why a body was not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    /// It is longer than allowed, by its declaration or by what came.
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    /// It did not come in time.
    #[error("the body did not arrive in time")]
    Timeout,
    /// The peer went away, or broke the framing.
    #[error("the body broke off")]
    Broken,
    /// There is no memory for it.
    #[error("{0}")]
    Short(Short),
}

impl From<Short> for BodyError {
    fn from(short: Short) -> Self {
        Self::Short(short)
    }
}

/// Reads `body` whole; what is read counts against `quota`.
///
/// # Errors
/// [`BodyError`] as soon as one of the `limits` is passed; what was read by then is dropped.
pub(crate) async fn read<B>(body: B, limits: BodyLimits, quota: &Quota) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes>,
{
    let declared = check_declared(&body, limits)?;
    quota.check(declared)?;
    let BodyLimits { bytes: most, idle, total } = limits;
    let end = Instant::now() + total;
    let mut body = std::pin::pin!(body);
    let mut read = Gathered::new(quota, most)?;
    loop {
        let until = end.min(Instant::now() + idle);
        let left = most.saturating_sub(read.len());
        let Some(piece) = piece(body.as_mut(), until, left, most).await? else { break };
        if piece.len() > left {
            return Err(BodyError::TooLarge(most));
        }
        // A piece may be a small part of a large buffer: it is copied, and the buffer let go.
        read.add(&piece)?;
    }
    Ok(read.whole())
}

/// The next piece, if it comes before `deadline`, and no more is to come than what is `left` of the
/// `most`; none at the end.
async fn piece<B>(
    mut body: Pin<&mut B>,
    deadline: Instant,
    left: usize,
    most: usize,
) -> Result<Option<Bytes>, BodyError>
where
    B: Body<Data = Bytes>,
{
    loop {
        let frame = poll_fn(|context| match body.as_mut().poll_frame(context) {
            // It need not come before it is known to be too much.
            Poll::Pending if promises_more(&*body, left) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
            Poll::Ready(frame) => Poll::Ready(Some(frame)),
        });
        let Ok(frame) = timeout_at(deadline, frame).await else {
            return Err(BodyError::Timeout);
        };
        match frame {
            None => return Err(BodyError::TooLarge(most)),
            Some(None) => return Ok(None),
            Some(Some(Err(_broken))) => return Err(BodyError::Broken),
            Some(Some(Ok(frame))) => {
                let Ok(piece) = frame.into_data() else { continue };
                return Ok(Some(piece));
            }
        }
    }
}

/// Does the body say that more than this is to come? So it does where the size of a chunk has come.
fn promises_more(body: &impl Body, left: usize) -> bool {
    !usize::try_from(body.size_hint().lower()).is_ok_and(|more| more <= left)
}

/// Looks at the size that a body declares.
///
/// # Errors
/// [`BodyError::TooLarge`] where it will pass the limit.
pub(crate) fn check_declared<B: Body>(body: &B, limits: BodyLimits) -> Result<usize, BodyError> {
    let declared = usize::try_from(body.size_hint().lower()).ok();
    declared.filter(|declared| *declared <= limits.bytes).ok_or(BodyError::TooLarge(limits.bytes))
}

/// A body that goes on to somebody else as it comes, and what becomes of it.
pub(crate) fn hand_on<B>(body: B, limits: BodyLimits) -> (Passing<B>, Fate)
where
    B: Body<Data = Bytes>,
{
    let end = Instant::now() + limits.total;
    let books = BodyState { error: None, done: body.is_end_stream() };
    let books = Arc::new(Mutex::new(books));
    let fate = Fate { end, books: Arc::clone(&books) };
    let timer = Box::pin(sleep_until(end));
    let passing = Passing { body, limits, end, read: 0, waits: false, timer, books };
    (passing, fate)
}

/// A request body on its way to somebody else. It breaks off where it passes its limits. What
/// stands behind its data (trailers) stays here.
#[derive(Debug)]
pub(crate) struct Passing<B> {
    body: B,
    limits: BodyLimits,
    end: Instant,
    read: usize,
    /// Is the next piece awaited? Only then does the idle time run: whoever takes the body may be
    /// slow as well.
    waits: bool,
    timer: Pin<Box<Sleep>>,
    books: Arc<Mutex<BodyState>>,
}

/// What becomes of a body that was handed on.
#[derive(Debug)]
pub(crate) struct Fate {
    end: Instant,
    books: Arc<Mutex<BodyState>>,
}

#[derive(Debug)]
struct BodyState {
    error: Option<BodyError>,
    done: bool,
}

impl Fate {
    /// Why it broke off, if it did.
    pub(crate) fn error(&self) -> Option<BodyError> {
        self.books.lock().error
    }

    /// Resolves when the total time is over and the body is not, even if nobody asks it for more.
    pub(crate) async fn overdue(&self) {
        sleep_until(self.end).await;
        let late = {
            let mut books = self.books.lock();
            let late = !books.done;
            if late {
                books.error = Some(BodyError::Timeout);
            }
            late
        };
        if !late {
            std::future::pending::<()>().await;
        }
    }
}

impl<B> Passing<B> {
    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.books.lock().error = Some(error);
        Poll::Ready(Some(Err(error)))
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Passing<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            let frame = match Pin::new(&mut this.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(_broken))) => return this.fail(BodyError::Broken),
                Poll::Ready(None) => {
                    this.books.lock().done = true;
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    let most = this.limits.bytes;
                    if promises_more(&this.body, most.saturating_sub(this.read)) {
                        return this.fail(BodyError::TooLarge(most));
                    }
                    if !std::mem::replace(&mut this.waits, true) {
                        let idle = Instant::now() + this.limits.idle;
                        this.timer.as_mut().reset(this.end.min(idle));
                    }
                    ready!(this.timer.as_mut().poll(context));
                    return this.fail(BodyError::Timeout);
                }
            };
            let Ok(data) = frame.into_data() else { continue };
            this.books.lock().done = this.body.is_end_stream();
            this.waits = false;
            this.read = this.read.saturating_add(data.len());
            if this.read > this.limits.bytes {
                return this.fail(BodyError::TooLarge(this.limits.bytes));
            }
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Passing<B> {
    fn drop(&mut self) {
        self.books.lock().done = true;
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::combinators::UnsyncBoxBody;
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;

    const LIMITS: BodyLimits =
        BodyLimits { bytes: 10, idle: Duration::from_secs(10), total: Duration::from_mins(1) };

    fn dripping(every: Duration) -> impl Body<Data = Bytes, Error = Infallible> {
        StreamBody::new(stream::unfold((), move |()| async move {
            tokio::time::sleep(every).await;
            Some((Ok(Frame::data(Bytes::from_static(b"x"))), ()))
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_whole_body_is_read() {
        let body = Full::new(Bytes::from_static(b"0123456789"));
        assert_eq!(
            read(body, LIMITS, &Quota::unbounded()).await,
            Ok(Bytes::from_static(b"0123456789"))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_over_the_limit_is_refused() {
        let declared = Full::new(Bytes::from_static(b"0123456789a"));
        assert_eq!(read(declared, LIMITS, &Quota::unbounded()).await, Err(BodyError::TooLarge(10)));
        let undeclared = dripping(Duration::from_millis(1));
        assert_eq!(
            read(undeclared, LIMITS, &Quota::unbounded()).await,
            Err(BodyError::TooLarge(10))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_body_ends_at_the_idle_time() {
        let begun = Instant::now();
        assert_eq!(
            read(dripping(Duration::from_secs(11)), LIMITS, &Quota::unbounded()).await,
            Err(BodyError::Timeout)
        );
        assert_eq!(begun.elapsed(), Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dripping_body_ends_at_the_total_time() {
        let begun = Instant::now();
        assert_eq!(
            read(dripping(Duration::from_secs(9)), LIMITS, &Quota::unbounded()).await,
            Err(BodyError::Timeout)
        );
        assert_eq!(begun.elapsed(), Duration::from_mins(1));
    }

    async fn handed_on<B>(body: B) -> Result<Bytes, BodyError>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        check_declared(&body, LIMITS)?;
        let (passing, fate) = hand_on(body, LIMITS);
        let collected = passing.collect().await.map(http_body_util::Collected::to_bytes);
        assert_eq!(fate.error(), collected.as_ref().err().copied());
        collected
    }

    fn boxed(every: Duration) -> UnsyncBoxBody<Bytes, Infallible> {
        dripping(every).boxed_unsync()
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_handed_on_has_the_same_limits() {
        let body = Full::new(Bytes::from_static(b"0123456789"));
        assert_eq!(handed_on(body).await, Ok(Bytes::from_static(b"0123456789")));
        let declared = Full::new(Bytes::from_static(b"0123456789a"));
        assert_eq!(handed_on(declared).await, Err(BodyError::TooLarge(10)));
        let undeclared = boxed(Duration::from_millis(1));
        assert_eq!(handed_on(undeclared).await, Err(BodyError::TooLarge(10)));
        for (every, seconds) in [(11, 10), (9, 60)] {
            let begun = Instant::now();
            let body = boxed(Duration::from_secs(every));
            assert_eq!(handed_on(body).await, Err(BodyError::Timeout));
            assert_eq!(begun.elapsed(), Duration::from_secs(seconds));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_nobody_takes_is_overdue() {
        let (passing, fate) = hand_on(boxed(Duration::from_secs(1)), LIMITS);
        let begun = Instant::now();
        fate.overdue().await;
        assert_eq!(begun.elapsed(), Duration::from_mins(1));
        assert_eq!(fate.error(), Some(BodyError::Timeout));
        drop(passing);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_was_taken_is_not_overdue() {
        let (passing, fate) = hand_on(Full::new(Bytes::from_static(b"all")), LIMITS);
        assert!(passing.collect().await.is_ok());
        assert!(tokio::time::timeout(Duration::from_hours(1), fate.overdue()).await.is_err());
        assert_eq!(fate.error(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_idle_time_does_not_run_while_nobody_asks() {
        let limits = BodyLimits { total: Duration::from_hours(1), ..LIMITS };
        let (mut passing, _fate) = hand_on(boxed(Duration::from_secs(1)), limits);
        assert!(passing.frame().await.is_some_and(|frame| frame.is_ok()));
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(passing.frame().await.is_some_and(|frame| frame.is_ok()));
    }

    #[tokio::test(start_paused = true)]
    async fn trailers_stay_behind() {
        let frames = [
            Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x"))),
            Ok(Frame::trailers(http::HeaderMap::new())),
        ];
        let body = StreamBody::new(stream::iter(frames));
        let (mut passing, _fate) = hand_on(body, LIMITS);
        assert!(passing.frame().await.is_some_and(|frame| frame.is_ok_and(|it| it.is_data())));
        assert!(passing.frame().await.is_none());
    }

    /// A body of which five bytes came, and nothing more, though so many are promised.
    struct Promising {
        came: bool,
        promised: u64,
    }

    impl Body for Promising {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if std::mem::replace(&mut self.came, true) {
                return Poll::Pending;
            }
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"01234")))))
        }

        fn size_hint(&self) -> SizeHint {
            let mut hint = SizeHint::new();
            hint.set_lower(if self.came { self.promised } else { 0 });
            hint
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_promises_too_much_is_refused_before_that_comes() {
        let promising = |promised| Promising { came: false, promised };
        let begun = Instant::now();
        let too_large = Err(BodyError::TooLarge(10));
        assert_eq!(read(promising(6), LIMITS, &Quota::unbounded()).await, too_large);
        assert_eq!(handed_on(promising(6)).await, too_large);
        assert_eq!(begun.elapsed(), Duration::ZERO);
        // What still fits is waited for.
        assert_eq!(read(promising(5), LIMITS, &Quota::unbounded()).await, Err(BodyError::Timeout));
        assert_eq!(handed_on(promising(5)).await, Err(BodyError::Timeout));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_says_the_same_of_itself_when_it_is_handed_on() {
        let (passing, _fate) = hand_on(Full::new(Bytes::from_static(b"abc")), LIMITS);
        assert_eq!((passing.is_end_stream(), passing.size_hint().exact()), (false, Some(3)));
        let (passing, fate) = hand_on(Full::new(Bytes::new()), LIMITS);
        assert_eq!((passing.is_end_stream(), passing.size_hint().exact()), (true, Some(0)));
        // Nobody need ask for it: it is whole already.
        assert!(tokio::time::timeout(Duration::from_hours(1), fate.overdue()).await.is_err());
        assert_eq!(fate.error(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_was_given_up_is_not_overdue() {
        let (passing, fate) = hand_on(boxed(Duration::from_secs(1)), LIMITS);
        drop(passing);
        assert!(tokio::time::timeout(Duration::from_hours(1), fate.overdue()).await.is_err());
        assert_eq!(fate.error(), None);
    }
}
