//! A POST with no session, no handshake and no `Accept`: one call, one JSON answer (or one event, for
//! a client that takes no JSON).

use std::sync::Arc;

use super::Reason;
use super::exchange::{Head, Reply};
use super::pool::Pool;
use crate::wire::jsonrpc::Message;

/// The transport.
#[derive(Debug)]
pub(super) struct Plain {
    pool: Arc<Pool>,
}

impl Plain {
    pub(super) fn new(pool: Arc<Pool>) -> Self {
        Self { pool }
    }

    /// One call without a session.
    pub(super) async fn call(&self, head: Head<'_>, request: Message) -> Result<Reply, Reason> {
        let Some(own) = request.id().cloned() else { return Ok(Reply::accepted()) };
        let accept = head.accept;
        let call = self.pool.sender(head).permit(request)?;
        let answer = match self.pool.answer(call).await {
            Ok(answer) => answer,
            // It was asked: what came of that is the answer.
            Err(
                fault @ (Reason::CallTimeout(_)
                | Reason::NeverSpoke { .. }
                | Reason::Unanswered { .. }),
            ) => fault.answer(&own),
            Err(reason) => return Err(reason),
        };
        // JSON may have line breaks, and an event may not.
        Ok(accept.sole(if accept.json { answer.bytes().clone() } else { answer.line() }))
    }
}
