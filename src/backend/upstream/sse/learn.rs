//! Reads the list of tools once, to know which calls may be repeated.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::{Message, RequestId, Session, Told};

/// Pages of tools that are looked at.
const MAX_PAGES: usize = 100;

/// A page that was asked for.
pub(super) struct Learning {
    pub(super) id: RequestId,
    cursor: Option<String>,
    /// How many came before it.
    pages: usize,
    until: Instant,
}

impl Session {
    /// Asks for the tools if nobody did.
    pub(super) fn learn(&mut self) {
        if self.shared.tools.must_be_learnt() {
            self.ask_for_tools(None, 0);
        }
    }

    fn ask_for_tools(&mut self, cursor: Option<String>, pages: usize) {
        let id = self.memory.name();
        let params = match &cursor {
            Some(cursor) => json!({ "cursor": cursor }),
            None => Value::Null,
        };
        let message = Message::request(&id, "tools/list", &params);
        let told = Told { message, caller: Arc::clone(&self.caller) };
        self.own.insert(id.clone());
        let until = Instant::now() + self.shared.wire.patience();
        self.learning = Some(Learning { id, cursor, pages, until });
        self.outbox.push_back(told.into());
    }

    /// An answer to a request of the edge's own.
    pub(super) fn learnt(&mut self, answer: &Message, id: &RequestId) {
        let Some(Learning { cursor, pages, .. }) = self.learning.take_if(|it| it.id == *id) else {
            return;
        };
        match self.shared.tools.learn(answer) {
            Some(next) if cursor.as_ref() != Some(&next) && pages + 1 < MAX_PAGES => {
                self.ask_for_tools(Some(next), pages + 1);
            }
            // Where it was no list, somebody else may ask.
            Some(_) | None => self.shared.tools.were_not_learnt(),
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

/// Resolves when a page has been waited for long enough; never where none is.
pub(super) async fn silent(learning: Option<&Learning>) {
    match learning {
        Some(learning) => sleep_until(learning.until).await,
        None => std::future::pending().await,
    }
}
