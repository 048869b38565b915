//! Reads a request body within a number of bytes, an idle time and a total time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

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
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
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
}

/// Reads `body` whole.
///
/// # Errors
/// [`BodyError`] as soon as one of the `limits` is passed; what was read by then is dropped.
pub(crate) async fn read<B>(body: B, limits: BodyLimits) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes>,
{
    let BodyLimits { bytes: most, idle, total } = limits;
    let declared = body.size_hint().lower();
    if usize::try_from(declared).map_or(true, |declared| declared > most) {
        return Err(BodyError::TooLarge(most));
    }
    let end = Instant::now() + total;
    let mut body = std::pin::pin!(body);
    let mut read = BytesMut::new();
    loop {
        let deadline = end.min(Instant::now() + idle);
        let Ok(frame) = timeout_at(deadline, body.frame()).await else {
            return Err(BodyError::Timeout);
        };
        let data = match frame {
            None => return Ok(read.freeze()),
            Some(Err(_broken)) => return Err(BodyError::Broken),
            Some(Ok(frame)) => frame.into_data(),
        };
        let Ok(data) = data else { continue };
        if read.len() + data.len() > most {
            return Err(BodyError::TooLarge(most));
        }
        if read.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        read.extend_from_slice(&data);
    }
}

/// Takes what is left of a small body, and forgets it. A body that is not small, or does not say
/// how large it is, is left alone.
pub(crate) async fn discard<B>(body: B, limits: BodyLimits)
where
    B: Body<Data = Bytes>,
{
    let declared = body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    if declared.is_some_and(|bytes| bytes <= limits.bytes) {
        // How it ends makes no difference: the request is answered already.
        drop(read(body, limits).await);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};

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
        assert_eq!(read(body, LIMITS).await, Ok(Bytes::from_static(b"0123456789")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_over_the_limit_is_refused() {
        let declared = Full::new(Bytes::from_static(b"0123456789a"));
        assert_eq!(read(declared, LIMITS).await, Err(BodyError::TooLarge(10)));
        let undeclared = dripping(Duration::from_millis(1));
        assert_eq!(read(undeclared, LIMITS).await, Err(BodyError::TooLarge(10)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_body_ends_at_the_idle_time() {
        let begun = Instant::now();
        assert_eq!(read(dripping(Duration::from_secs(11)), LIMITS).await, Err(BodyError::Timeout));
        assert_eq!(begun.elapsed(), Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dripping_body_ends_at_the_total_time() {
        let begun = Instant::now();
        assert_eq!(read(dripping(Duration::from_secs(9)), LIMITS).await, Err(BodyError::Timeout));
        assert_eq!(begun.elapsed(), Duration::from_mins(1));
    }
}
