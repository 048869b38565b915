//! What stands behind the edge: a child process for each session, a handler linked in, or a server
//! that speaks HTTP itself.
//!
//! The floor's first verb is [`Backend::open`]: it gives a [`Link`], a pair of bounded queues of
//! messages. Dropping the link ends what it leads to. A backend that needs no session for a call
//! takes it by [`Backend::call`].

pub(crate) mod catalog;
pub(crate) mod diagnostics;
pub(crate) mod embedded;
pub(crate) mod stdio;
pub(crate) mod upstream;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

pub(crate) use self::upstream::NoAnswer;

use self::stdio::CommandError;
use crate::caller::Caller;
use crate::config::{Limits, Secret, Times};
use crate::limits::addr::ClientKey;
use crate::limits::bytes::Quota;
use crate::wire::jsonrpc::{Message, RequestId};

/// Messages that may wait on their way to a backend. A full queue makes the sender wait.
pub(crate) const QUEUE: usize = 64;

/// Messages of a backend that may wait for their session. Fewer, and none that is [`LARGE`]: they wait
/// in memory while the client does not read.
pub(crate) const SAID_QUEUE: usize = 4;

/// A message of more bytes is the only one of its backend that waits for a reader ([`say`]).
pub(crate) const LARGE: usize = 64 * 1024;

/// How long a child is given at each step of its end: after its stdin is closed, and after TERM.
pub(crate) const CHILD_STEP: Duration = Duration::from_secs(2);

/// What stands behind the edge.
#[derive(Debug)]
pub(crate) enum Backend {
    /// A process for each session.
    Stdio(stdio::StdioBackend),
    /// A handler in this process.
    Embedded(embedded::EmbeddedBackend),
    /// A server that speaks HTTP itself.
    Upstream(upstream::UpstreamBackend),
}

impl Backend {
    /// Opens one session's link, if the `limits` allow it. What the backend says counts against `quota`.
    ///
    /// # Errors
    /// [`OpenError`] where every place is taken or the process does not start.
    pub(crate) fn open(
        &self,
        who: Starter,
        quota: &Quota,
        limits: &Limits,
    ) -> Result<Link, OpenError> {
        match self {
            Self::Stdio(stdio) => stdio.open(who, quota, limits),
            Self::Embedded(embedded) => Ok(embedded.open(quota)),
            Self::Upstream(upstream) => Ok(upstream.open()),
        }
    }

    /// Keeps to these limits in what is open. A process keeps the longest line that it was started
    /// with.
    pub(crate) fn keep_to(&self, limits: &Limits, times: &Times) {
        if let Self::Upstream(upstream) = self {
            upstream.keep_to(limits.max_line_bytes, times.session_idle);
        }
    }

    /// Checks that none of these secrets is handed to what stands behind.
    ///
    /// # Errors
    /// [`CommandError::TokenValue`] names the variable that has one.
    pub(crate) fn check_secrets(&self, secrets: &[Secret]) -> Result<(), CommandError> {
        match self {
            Self::Stdio(stdio) => stdio.check_secrets(secrets),
            Self::Embedded(_) | Self::Upstream(_) => Ok(()),
        }
    }

    /// Makes one call without a session of the caller's. `None` if this backend needs one. Dropped,
    /// it cancels the call.
    pub(crate) async fn call(
        &self,
        request: &Message,
        caller: &Arc<Caller>,
    ) -> Option<Result<Message, NoAnswer>> {
        match self {
            Self::Stdio(_) | Self::Embedded(_) => None,
            Self::Upstream(upstream) => upstream.call(request, caller).await,
        }
    }

    /// Is nothing opened now, because what was opened ended at once?
    pub(crate) fn is_held(&self) -> bool {
        matches!(self, Self::Stdio(stdio) if stdio.is_held())
    }

    /// Does it read parameters as values, which take more memory than their text?
    pub(crate) fn reads_values(&self) -> bool {
        matches!(self, Self::Embedded(_))
    }
}

/// Whose handshake a backend is opened for: a handshake can be at fault itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Starter {
    /// The edge's own.
    Edge,
    /// That of this client.
    Client(ClientKey),
}

/// What a backend says.
#[derive(Debug)]
pub(crate) enum FromBackend {
    /// One message.
    Message { message: Message, during: During },
    /// A request got no answer, and will get none: the edge itself has to answer it.
    Unanswered { id: RequestId, code: i32, text: String },
    /// `initialize` waits, and what the backend says meanwhile is no answer: what that looks like,
    /// for the caller that waits in vain.
    Suspect(String),
    /// Dropped when whatever was said before is with its readers.
    Taken(oneshot::Sender<Infallible>),
    /// The backend is gone; nothing follows. The text says why, for the client that waits:
    /// exit status and last stderr lines.
    Gone(String),
}

/// Has a session hear this. What is large has been read, or there is nobody who reads it, before this
/// returns: its backend says nothing more until then.
///
/// # Errors
/// What was not said, to a session that is over.
pub(crate) async fn say(
    session: &mpsc::Sender<FromBackend>,
    from_backend: FromBackend,
) -> Result<(), mpsc::error::SendError<FromBackend>> {
    let large = matches!(
        &from_backend,
        FromBackend::Message { message, .. } if message.bytes().len() > LARGE
    );
    session.send(from_backend).await?;
    if large {
        let (until_taken, taken) = oneshot::channel();
        session.send(FromBackend::Taken(until_taken)).await?;
        drop(taken.await);
    }
    Ok(())
}

/// What a message of a backend's belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(not(fuzzing), expect(unreachable_pub, reason = "the fuzz targets reach it"))]
pub enum During {
    /// This request of the client's.
    Call(RequestId),
    /// No request: it came on a stream for such messages.
    NoCall,
    /// The backend does not say.
    Unknown,
}

/// What the edge says to a backend.
#[derive(Debug)]
pub(crate) struct ToBackend {
    pub(crate) message: Message,
    pub(crate) caller: Arc<Caller>,
}

/// Two bounded queues that lead to one session's backend. Dropping `said` ends the backend.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) to_backend: mpsc::Sender<ToBackend>,
    /// It ends after [`FromBackend::Gone`], or without a word if the edge is stopping.
    pub(crate) from_backend: mpsc::Receiver<FromBackend>,
}

/// Why no backend could be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// Every place for a child process is taken.
    #[error("all {0} places for child processes are taken")]
    Full(u32),
    /// The program ends as soon as it is started, and is not started for a while.
    #[error("it ends as soon as it is started: {why}")]
    Held {
        wait: Duration,
        /// What became of the last start.
        why: String,
    },
    /// The process could not be started.
    #[error("could not start `{program}`")]
    Spawn {
        program: String,
        #[source]
        source: std::io::Error,
    },
}
