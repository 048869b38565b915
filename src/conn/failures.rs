//! What goes wrong with connections: counted, and logged, but not all of it, for anybody can cause it.

use std::fmt::Display;

use tokio::time::Instant;

use super::activity::Activity;
use super::deadlines::Overdue;
use super::tls::{EndedBy, HandshakeError};
use crate::limits::addr::ClientAddr;
use crate::observe::metrics::{Metrics, Outcome};
use crate::observe::sample::{EVERY, Samples};

/// The kind of a client's alert, whenever it comes.
const ALERT: &str = "alert";

/// The counts and the log of failed connections.
#[derive(Debug)]
pub(super) struct Failures {
    pub(super) metrics: Metrics,
    /// The failed handshakes that the log names.
    logged: Samples,
}

impl Failures {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { metrics, logged: Samples::every(EVERY) }
    }

    /// A handshake failed.
    pub(super) fn handshake(&self, client: ClientAddr, error: &HandshakeError) {
        let flood = matches!(error, HandshakeError::Flood(_));
        self.metrics.count(if flood { Outcome::TlsFlood } else { Outcome::HandshakeFailed });
        let kind = match error {
            HandshakeError::Closed => {
                return tracing::trace!(%client, %error, "no handshake");
            }
            HandshakeError::PlainHttp => "plain_http",
            HandshakeError::Left => "left",
            HandshakeError::UnknownName(_) => "unknown_name",
            HandshakeError::Flood(_) => "flood",
            HandshakeError::Tls(rustls::Error::AlertReceived(_)) => ALERT,
            HandshakeError::Tls(_) => "tls",
            HandshakeError::Io(_) => "io",
        };
        self.log_handshake(client, kind, &error);
    }

    /// A handshake took too long.
    pub(super) fn late_handshake(&self, client: ClientAddr) {
        self.metrics.count(Outcome::HandshakeTimeout);
        tracing::debug!(%client, "the TLS handshake took too long");
    }

    /// One of a kind in 10 s, the others at DEBUG.
    fn log_handshake(&self, client: ClientAddr, kind: &str, error: &dyn Display) {
        if let Some(left_out) = self.logged.take(kind, Instant::now()) {
            tracing::info!(%client, %error, left_out, "the TLS handshake failed");
        } else {
            tracing::debug!(%client, %error, "the TLS handshake failed");
        }
    }

    /// A time limit ends a connection.
    pub(super) fn overdue(&self, overdue: Overdue) {
        match overdue {
            Overdue::Head => self.metrics.count(Outcome::HeadTimeout),
            Overdue::Stalled => self.metrics.count(Outcome::WriteStalled),
            // Nothing is wrong with that.
            Overdue::Idle => {}
        }
    }

    /// The library gave a connection up.
    pub(super) fn ended(&self, client: ClientAddr, error: &hyper::Error, activity: &Activity) {
        // Asked of the socket: the HTTP/2 library keeps of an error no more than its text.
        match activity.ending.take_ended_by_tls() {
            Some(EndedBy::Alert(error)) => {
                self.metrics.count(Outcome::HandshakeFailed);
                self.log_handshake(client, ALERT, &error);
            }
            Some(EndedBy::Flood) => {
                self.metrics.count(Outcome::TlsFlood);
                tracing::debug!(%client, %error, "the client sent TLS records without data");
            }
            None => tracing::debug!(%client, %error, "the connection ended with an error"),
        }
    }
}
