//! What is known of the backend: if it answers, and who asks it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::mcp::Reason;
use crate::mcp::session::Session;

/// How long an asker waits at most, for a backend that is being started, too.
pub(super) const WAIT: Duration = Duration::from_secs(3);
/// How long it stands that the backend answered.
pub(super) const GOOD: Duration = Duration::from_secs(2);
/// How long it stands that it did not.
pub(super) const BAD: Duration = Duration::from_millis(500);
/// Between two sessions that are opened for this: askers need no token, and a process costs.
pub(super) const OPEN_PAUSE: Duration = Duration::from_secs(5);
/// A session whose backend kept silent for so long makes place for another.
pub(super) const SILENCE: Duration = Duration::from_secs(30);

/// What is known of the backend.
#[derive(Debug, Default)]
pub(in crate::mcp) struct Readiness {
    books: Mutex<Books>,
    /// A question was answered.
    pub(super) answered: Notify,
}

#[derive(Debug, Default)]
pub(super) struct Books {
    pub(super) session: Option<Arc<Session>>,
    /// Since when a question is open.
    pub(super) asking: Option<Instant>,
    /// What was found, and until when it stands.
    pub(super) verdict: Option<(bool, Instant)>,
    /// Before this no session is opened.
    pub(super) closed_until: Option<Instant>,
    /// Since when the session's backend does not answer.
    pub(super) silent: Option<Instant>,
    /// It was logged that the backend is not ready.
    pub(super) warned: bool,
}

/// What to do for an asker.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Say this.
    Known(bool),
    /// Somebody asks already: wait, until then.
    Wait(Instant),
    /// Ask; a session is there, or has to be opened.
    Ask,
}

impl Books {
    /// What to do for an asker. With [`Look::Ask`] the question is open.
    pub(super) fn look(&mut self, now: Instant) -> Look {
        if let Some((good, _)) = self.verdict.filter(|(_, until)| now < *until) {
            return Look::Known(good);
        }
        if let Some(since) = self.asking {
            return Look::Wait(since + WAIT);
        }
        let open = self.session.as_ref().is_some_and(|session| !session.is_ended());
        if !open && self.closed_until.is_some_and(|until| now < until) {
            return Look::Known(false);
        }
        self.asking = Some(now);
        Look::Ask
    }

    /// A question was answered.
    pub(super) fn settle(&mut self, good: bool, now: Instant) {
        self.asking = None;
        self.verdict = Some((good, now + if good { GOOD } else { BAD }));
        let since = *self.silent.get_or_insert(now);
        if good {
            (self.silent, self.warned) = (None, false);
        } else if now >= since + SILENCE {
            self.end_session();
        }
    }

    fn end_session(&mut self) {
        self.silent = None;
        if let Some(session) = self.session.take() {
            session.close();
        }
    }
}

impl Readiness {
    pub(super) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock()
    }

    /// Logs why the backend is not ready. True if as a warning: once, until it is ready again.
    pub(super) fn warn(&self, reason: &Reason) -> bool {
        let first = !std::mem::replace(&mut self.books().warned, true);
        if first {
            tracing::warn!(%reason, "the MCP server is not ready: /readyz answers 503");
        } else {
            tracing::debug!(%reason, "not ready");
        }
        first
    }

    /// Ends the session if no question is open, and opens none for a while. Says if there was one.
    pub(in crate::mcp) fn give_up(&self) -> bool {
        let mut books = self.books();
        let held = books.session.as_ref().is_some_and(|session| !session.is_ended());
        if !held || books.asking.is_some() {
            return false;
        }
        books.closed_until = Some(Instant::now() + OPEN_PAUSE);
        books.end_session();
        true
    }
}

/// A question that is open. Dropped without an answer, the answer is no.
pub(super) struct Question {
    readiness: Arc<Readiness>,
    good: bool,
}

impl Question {
    pub(super) fn to(readiness: &Arc<Readiness>) -> Self {
        Self { readiness: Arc::clone(readiness), good: false }
    }

    pub(super) fn settle(mut self, good: bool) {
        self.good = good;
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.readiness.books().settle(self.good, Instant::now());
        self.readiness.answered.notify_waiters();
    }
}
