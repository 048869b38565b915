//! Accepts that fail: what ran out, how long the loop rests, and what the operator is told of it.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use tokio::time::{Instant, sleep, sleep_until};

use super::places::ConnectionPlaces;
use crate::observe::metrics::Outcome;

/// How long the loop rests after an accept that failed.
pub(super) const REST: Duration = Duration::from_millis(100);
/// A shortage is over once no accept has failed for so long. One that comes and goes is told of
/// once.
pub(super) const CALM: Duration = Duration::from_secs(5);

/// Why an accept failed (accept(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// Its peer left meanwhile, or a signal came: the next one may be accepted.
    Passing,
    /// This process has all the open files that it may have.
    ProcessFiles,
    /// All processes together have.
    SystemFiles,
    /// The kernel has no memory for a socket.
    Memory,
    /// Anything else. That a stranger goes would not help.
    Other,
}

impl Cause {
    fn of(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::CONNABORTED | Errno::CONNRESET | Errno::INTR) => Self::Passing,
            Some(Errno::MFILE) => Self::ProcessFiles,
            Some(Errno::NFILE) => Self::SystemFiles,
            Some(Errno::NOBUFS | Errno::NOMEM) => Self::Memory,
            Some(_) | None => Self::Other,
        }
    }

    /// Is there more of it when connections are closed?
    fn is_shortage(self) -> bool {
        matches!(self, Self::ProcessFiles | Self::SystemFiles | Self::Memory)
    }

    /// Says what ran out, and what can be done.
    fn warn(self, error: &io::Error) {
        match self {
            Self::Passing => {}
            Self::ProcessFiles => {
                let limit = getrlimit(Resource::Nofile).current;
                tracing::warn!(
                    %error,
                    limit,
                    "out of open files: new connections wait, and some without a token are closed \
                     for them. Raise the limit (LimitNOFILE= of the unit, ulimit -n, \
                     --ulimit nofile= of a container), or lower --max-connections"
                );
            }
            Self::SystemFiles => tracing::warn!(
                %error,
                "the system is out of open files: new connections wait, and some without a token are \
                 closed for them. Raise fs.file-max (sysctl), or lower --max-connections"
            ),
            Self::Memory => tracing::warn!(
                %error,
                "the system has no memory for sockets: new connections wait, and some \
                 without a token are closed for them. Give it more, or lower --max-connections"
            ),
            Self::Other => tracing::warn!(%error, "connections cannot be accepted: they wait"),
        }
    }
}

/// Accepts that failed one after another.
#[derive(Clone, Copy, Debug)]
struct Failing {
    since: Instant,
    /// The end of the last rest.
    until: Instant,
    times: u64,
}

/// Whether accepts fail at present.
#[derive(Debug, Default)]
struct FailedAccepts(Option<Failing>);

impl FailedAccepts {
    fn count(&mut self, cause: Cause, error: &io::Error) {
        let now = Instant::now();
        let failing = self.0.get_or_insert_with(|| {
            cause.warn(error);
            Failing { since: now, until: now, times: 0 }
        });
        failing.times += 1;
        failing.until = now + REST;
    }

    /// Resolves when none has failed for long enough.
    async fn over(&self) {
        match self.0 {
            Some(Failing { until, .. }) => sleep_until(until + CALM).await,
            None => std::future::pending().await,
        }
    }

    fn end(&mut self) {
        if let Some(Failing { since, until, times }) = self.0.take() {
            let lasted = until.duration_since(since);
            tracing::info!(failed = times, ?lasted, "connections are accepted again");
        }
    }
}

/// Hands what `poll` accepts to `admit`, for ever. Where nothing can be accepted, room is made, and
/// the loop rests: it must not spin.
pub(super) async fn accept<T>(
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>,
    mut admit: impl FnMut(T),
    places: &ConnectionPlaces,
) -> Infallible {
    let mut failures = FailedAccepts::default();
    loop {
        let accepted = tokio::select! {
            accepted = poll_fn(&mut poll) => accepted,
            () = failures.over() => {
                failures.end();
                continue;
            }
        };
        let error = match accepted {
            Ok(accepted) => {
                admit(accepted);
                continue;
            }
            Err(error) => error,
        };
        let cause = Cause::of(&error);
        if cause == Cause::Passing {
            continue;
        }
        places.metrics.count(Outcome::AcceptFailed);
        failures.count(cause, &error);
        if cause.is_shortage() {
            places.make_room();
        }
        sleep(REST).await;
    }
}
