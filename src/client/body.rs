//! The body of a request on its way to the server.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Either, Full};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request body on its way up: all of it is there, or it is passed on as it comes.
pub(crate) struct Outgoing(Either<Full<Bytes>, UnsyncBoxBody<Bytes, BoxError>>);

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.0).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// A body that is there already.
pub(crate) fn full(bytes: Bytes) -> Outgoing {
    Outgoing(Either::Left(Full::new(bytes)))
}

/// A body that is passed on as it comes.
pub(crate) fn passed<B>(body: B) -> Outgoing
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Outgoing(Either::Right(body.map_err(Into::into).boxed_unsync()))
}
