//! The transports' doors for the fuzz targets: events as they are written, and a session's books.

use std::sync::Arc;

use tokio::time::Instant;

use super::call::Permitted;
pub use super::reason::Reason;
pub use super::session::audience::Audience;
pub use super::session::id::StreamId;
pub use super::session::log::Turn;
pub use super::session::state::{Onto, Routed, State};
pub use super::sse::{EventId, error_event, event};
pub use crate::backend::During;
use crate::caller::Caller;
use crate::limits::bytes::Quota;
use crate::observe::metrics::Metrics;
use crate::wire::jsonrpc::Message;

/// The books of a session that begins now, with no bounds to the memory of its client.
pub fn state(audience: Audience, now: Instant) -> State {
    State::new(audience, now, Quota::unbounded(), Metrics::default())
}

/// Enters calls, as if a policy had permitted them.
pub fn begin(
    state: &mut State,
    calls: &[Message],
    onto: Onto,
    deadline: Instant,
) -> Option<(StreamId, Turn)> {
    let caller = Arc::new(Caller::stdio());
    let permitted = |call: &Message| Permitted::of_edge(call.clone(), Arc::clone(&caller));
    state.begin(&mut calls.iter().map(permitted).collect::<Vec<_>>(), onto, deadline).ok()
}
