//! Reads the list of tools once, to know which calls may be repeated.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Learning, SseSession};
use crate::backend::ToBackend;
use crate::backend::catalog::Walk;
use crate::wire::jsonrpc::{Message, RequestId};

impl SseSession {
    /// Asks for the tools if nobody did.
    pub(super) fn learn(&mut self) {
        if self.shared.tools.must_be_learnt() {
            self.ask_for_tools(Walk::default());
        }
    }

    fn ask_for_tools(&mut self, walk: Walk) {
        let id = self.memory.name();
        let message = Message::request(&id, "tools/list", &walk.params());
        let told = ToBackend { message, caller: Arc::clone(&self.caller) };
        self.own.insert(id.clone());
        let until = Instant::now() + self.shared.wire.patience();
        self.learning = Some(Learning { id, walk, until });
        self.outbox.push_back(told.into());
    }

    /// An answer to a request of the edge's own.
    pub(super) fn learnt(&mut self, answer: &Message, id: &RequestId) {
        let learning = self.learning.take_if(|it| it.id == *id);
        let Some(Learning { mut walk, .. }) = learning else { return };
        self.shared.tools.learn(answer);
        if walk.follow(answer) {
            self.ask_for_tools(walk);
        } else {
            // If it was no list, somebody else may ask.
            self.shared.tools.were_not_learnt();
        }
    }

    /// Asks no further.
    pub(super) fn stop_learning(&mut self) {
        if let Some(Learning { id, .. }) = self.learning.take() {
            self.over(&id);
            self.shared.tools.were_not_learnt();
        }
    }
}
