//! What a session may do with its client: abilities, in place of names of transports.
#![cfg_attr(not(fuzzing), expect(unreachable_pub, reason = "the fuzz targets reach it"))]

use crate::caller::Transport;

/// What a session may do with whoever it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audience {
    /// May the backend ask it something? Then it is one client, whose calls have ids of its own.
    pub(crate) questions: bool,
    /// Is it sent notifications?
    pub(crate) notifications: bool,
    /// Is the session over once nobody reads its standalone stream?
    pub(crate) lives_on_stream: bool,
}

impl Audience {
    /// That of a session of this transport.
    pub fn of(transport: Transport) -> Self {
        let (client, lives_on_stream) = match transport {
            Transport::StreamableHttp | Transport::Stdio => (true, false),
            Transport::HttpSse => (true, true),
            // Callers that share a session wait for their answers, and do not know of each other.
            Transport::Bare | Transport::Edge => (false, false),
        };
        Self { questions: client, notifications: client, lives_on_stream }
    }
}
