//! How a connection comes to its end: what its peer did wrong, and what must be said or waited for
//! before the socket is closed.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::http1::Violation;
use super::tls::EndedBy;

/// What is known of a connection's end.
#[derive(Debug, Default)]
pub(super) struct Ending {
    may_send: AtomicBool,
    broke_off: AtomicBool,
    violation: OnceLock<Violation>,
    by_tls: Mutex<Option<EndedBy>>,
}

impl Ending {
    /// Was the last request refused, sent elsewhere, or not read to its end? Then the peer may
    /// still be sending its body.
    pub(super) fn may_send(&self) -> bool {
        self.may_send.load(Ordering::Relaxed)
    }

    /// Notes that the peer may still be sending a body, or cannot.
    pub(super) fn set_may_send(&self, may_send: bool) {
        self.may_send.store(may_send, Ordering::Relaxed);
    }

    /// Did a response break off, whose end the peer must not take for a good one?
    pub(super) fn broke_off(&self) -> bool {
        self.broke_off.load(Ordering::Relaxed)
    }

    /// A response has no end.
    pub(super) fn break_off(&self) {
        self.broke_off.store(true, Ordering::Relaxed);
    }

    /// What the peer did to the framing of HTTP/1.1, if that ends the connection.
    pub(super) fn violation(&self) -> Option<Violation> {
        self.violation.get().copied()
    }

    /// The peer broke the framing, and nothing before that is left to be answered.
    pub(super) fn violate(&self, violation: Violation) {
        self.violation.get_or_init(|| violation);
    }

    /// The socket cannot be read any more.
    pub(super) fn failed(&self, error: &io::Error) {
        if let Some(by) = EndedBy::of(error) {
            *self.by_tls.lock() = Some(by);
        }
    }

    /// How TLS ended it, if it did and nobody asked before.
    pub(super) fn take_ended_by_tls(&self) -> Option<EndedBy> {
        self.by_tls.lock().take()
    }
}
