//! A bare call before an upstream that can answer it without a session of ours.

use tokio::time::{Instant, timeout_at};

use super::call::Permitted;
use super::{Mcp, Reason};
use crate::backend::{Backend, Directly};
use crate::wire::jsonrpc::Message;

impl Mcp {
    /// Makes the call directly; none where the backend has no such way.
    pub(super) async fn call_directly(
        &self,
        call: &Permitted,
        deadline: Instant,
    ) -> Option<Result<Message, Reason>> {
        let Backend::Upstream(upstream) = &self.backend else { return None };
        let caller = call.caller();
        let answer = upstream.call(&caller.principal, call.request(), caller);
        Some(match timeout_at(deadline, answer).await {
            Ok(Directly::NoWay) => return None,
            Ok(Directly::Answered(answer)) => Ok(answer),
            Ok(Directly::Full) => Err(Reason::TooManyCalls),
            Ok(Directly::Crowded) => Err(Reason::SessionsFull(None)),
            Ok(Directly::Unanswered { code, text }) => Err(Reason::Unanswered { code, text }),
            Err(_elapsed) => Err(Reason::CallTimeout(self.times.call)),
        })
    }
}
