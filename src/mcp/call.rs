//! A call on its way to the backend, as a value.
//!
//! Whatever way a client's request comes in, [`Sender::permit`] makes it a [`Permitted`]. Sessions
//! and the pool take nothing else, except that the edge's own requests need no permission. [`Record`]
//! is the account of a call that the backend gets.

use std::sync::Arc;

use super::Reason;
use super::session::id::SessionId;
use crate::caller::{Caller, Grant};
use crate::guard::{ToolPolicy, permit};
use crate::observe::metrics::{Metrics, Outcome};
use crate::wire::jsonrpc::{Message, RequestId};

/// Who sends the messages of one request of HTTP, or of standard input.
#[derive(Clone, Debug)]
pub(super) struct Sender<'a> {
    policy: ToolPolicy,
    grant: &'a Grant,
    caller: Arc<Caller>,
}

impl<'a> Sender<'a> {
    pub(super) fn new(policy: ToolPolicy, grant: &'a Grant, caller: Caller) -> Self {
        Self { policy, grant, caller: Arc::new(caller) }
    }

    /// What the backend learns of the sender.
    pub(super) fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// Makes a request a call, if the policy permits it.
    pub(super) fn permit(&self, request: Message) -> Result<Permitted, Reason> {
        let tool = if self.policy.names_tools() { request.tool() } else { None };
        let method = request.method().unwrap_or_default();
        permit(self.policy, self.grant, method, tool.as_deref())?;
        Ok(Permitted { request, caller: Arc::clone(&self.caller) })
    }
}

/// A request that may be made.
#[derive(Debug)]
#[must_use]
pub(crate) struct Permitted {
    request: Message,
    caller: Arc<Caller>,
}

impl Permitted {
    /// A request of the edge's own: `initialize` or `ping`.
    pub(super) fn of_edge(request: Message, caller: Arc<Caller>) -> Self {
        Self { request, caller }
    }

    /// The same call, in a session that is opened for it.
    pub(super) fn in_session(mut self, id: &SessionId) -> Self {
        Arc::make_mut(&mut self.caller).session = Some(id.alias());
        self
    }

    /// The same call under another id, for a session whose callers do not know of each other.
    pub(super) fn under(&self, id: &RequestId) -> Self {
        let request = self.request.with_id(id).charged_if_large(&self.caller.quota);
        Self { request, caller: Arc::clone(&self.caller) }
    }

    pub(super) fn request(&self) -> &Message {
        &self.request
    }

    pub(super) fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// What the backend gets.
    pub(super) fn into_parts(self) -> (Message, Arc<Caller>) {
        (self.request, self.caller)
    }
}

/// The account of one call. It begins when the backend is to get the call, and ends when it is
/// dropped, whatever became of the call.
#[derive(Debug)]
pub(super) struct Record {
    metrics: Metrics,
    is_late: bool,
}

impl Record {
    pub(super) fn begin(metrics: &Metrics) -> Self {
        Self { metrics: metrics.clone(), is_late: false }
    }

    /// Notes why the backend did not answer.
    pub(super) fn note(&mut self, fault: &Reason) {
        self.is_late |= fault.is_late();
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.is_late {
            self.metrics.count(Outcome::CallTimeout);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_a_late_call_is_counted_and_only_once() {
        let metrics = Metrics::default();
        let mut late = Record::begin(&metrics);
        late.note(&Reason::CallTimeout(Duration::from_secs(1)));
        late.note(&Reason::BackendBusy);
        drop((late, Record::begin(&metrics)));
        assert_eq!(metrics.outcomes()["call_timeout"], 1);
    }
}
