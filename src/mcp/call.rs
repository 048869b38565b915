//! A call on its way to the backend, as a value.
//!
//! Whatever way a client's request comes in, [`Sender::permit`] makes it a [`Permitted`]. Sessions
//! and the pool take nothing else, except that the edge's own requests need no permission. [`Record`]
//! is the account of a call that the backend gets, [`Shape`] what its answer goes through.

use std::borrow::Cow;
use std::sync::Arc;

use super::Reason;
use super::session::id::SessionId;
use crate::caller::{Caller, Grant};
use crate::guard::{ToolPolicy, permit};
use crate::limits::bytes::Quota;
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
        Ok(Permitted { request, caller: Arc::clone(&self.caller), shape: Shape::default() })
    }
}

/// A request that may be made.
#[derive(Debug)]
#[must_use]
pub(crate) struct Permitted {
    request: Message,
    caller: Arc<Caller>,
    shape: Shape,
}

impl Permitted {
    /// A request of the edge's own: `initialize` or `ping`.
    pub(super) fn of_edge(request: Message, caller: Arc<Caller>) -> Self {
        Self { request, caller, shape: Shape::default() }
    }

    /// The same call, in a session that is opened for it.
    pub(super) fn in_session(mut self, id: &SessionId) -> Self {
        Arc::make_mut(&mut self.caller).session = Some(id.alias());
        self
    }

    /// The same call under another id, for a session whose callers do not know of each other. Its
    /// answer comes under the id that it has now.
    pub(super) fn under(&self, id: &RequestId) -> Self {
        let quota = &self.caller.quota;
        let own = self.request.id().map(|own| (own.clone(), quota.clone()));
        Self {
            request: self.request.with_id(id).charged_if_large(quota),
            caller: Arc::clone(&self.caller),
            shape: Shape { own },
        }
    }

    pub(super) fn request(&self) -> &Message {
        &self.request
    }

    pub(super) fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// What its answer is to go through, for whoever waits for that.
    pub(super) fn take_shape(&mut self) -> Shape {
        std::mem::take(&mut self.shape)
    }

    /// What the backend gets.
    pub(super) fn into_parts(self) -> (Message, Arc<Caller>) {
        (self.request, self.caller)
    }
}

/// What the answer to a call goes through where it arrives.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// The id under which the caller waits, and what a large copy counts against.
    own: Option<(RequestId, Quota)>,
}

impl Shape {
    pub(super) fn apply<'a>(&self, answer: &'a Message) -> Cow<'a, Message> {
        match &self.own {
            Some((id, quota)) => Cow::Owned(answer.with_id(id).charged_if_large(quota)),
            None => Cow::Borrowed(answer),
        }
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

    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_comes_back_under_the_callers_own_id() {
        let request = Message::request(&RequestId::Text("mine".into()), "tools/list", &json!({}));
        let sender = Sender::new(ToolPolicy::default(), &Grant::ANONYMOUS, Caller::stdio());
        let call = sender.permit(request).unwrap();
        let mut renamed = call.under(&7.into());
        assert_eq!(renamed.request().id(), Some(&7.into()));
        let answer = Message::result(&7.into(), &json!({}));
        let shaped = renamed.take_shape().apply(&answer).into_owned();
        assert_eq!(Some(shaped.id()), Some(call.request().id()));
    }

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
