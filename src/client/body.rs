//! The body of a request on its way to the server.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request body on its way up.
pub(crate) enum Outgoing {
    /// All of it is there.
    Full(Bytes),
    /// It is passed on as it comes.
    Passed(UnsyncBoxBody<Bytes, BoxError>),
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Passed(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_empty(),
            Self::Passed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => {
                SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
            }
            Self::Passed(body) => body.size_hint(),
        }
    }
}

/// A body that is there already.
pub(crate) fn full(bytes: Bytes) -> Outgoing {
    Outgoing::Full(bytes)
}

/// A body that is passed on as it comes.
pub(crate) fn passed<B>(body: B) -> Outgoing
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Outgoing::Passed(body.map_err(Into::into).boxed_unsync())
}
