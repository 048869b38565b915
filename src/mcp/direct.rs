//! A bare call before an upstream that can answer it without a session of ours.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::{Mcp, Reason};
use crate::backend::{Backend, Directly};
use crate::caller::{Caller, Principal};
use crate::jsonrpc::{Message, code};

impl Mcp {
    /// Makes the call directly; none where the backend has no such way.
    pub(super) async fn call_directly(
        &self,
        principal: &Principal,
        message: &Message,
        caller: &Arc<Caller>,
        deadline: Instant,
    ) -> Option<Result<Message, Reason>> {
        let Backend::Upstream(upstream) = &self.backend else { return None };
        let call = upstream.call(principal, message, caller);
        Some(match timeout_at(deadline, call).await {
            Ok(Directly::NoWay) => return None,
            Ok(Directly::Answered(answer)) => Ok(answer),
            Ok(Directly::Full) => Err(Reason::TooManyCalls),
            Err(_elapsed) => {
                let text = self.times.overdue();
                let error = message.id().map(|id| Message::error(id, code::INTERNAL_ERROR, &text));
                error.ok_or(Reason::BackendBusy)
            }
        })
    }
}
