//! One child's life, from its start to the last of its group: one task.
//!
//! It ends for one of the reasons in [`Why`]. Whatever the reason, its output is read until it is
//! gone: a child that blocks on a full pipe could not finish.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{FusedFuture, join};
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::command::Command;
use super::custody::orphans::Own;
use super::process::{Process, ProcessEnd};
use super::redact::Redactor;
use super::starts::Attempt;
use super::stderr::{self, LastWords};
use super::stdout::{self, Noise};
use super::watch::{NoMcp, SLOW, Watch};
use crate::backend::{CHILD_STEP, FromBackend, ToBackend};
use crate::drain::Drain;
use crate::limits::bytes::Quota;
use crate::limits::lines::{Frames, LAST_WORDS};
use crate::limits::places::TotalPermit;
use crate::observe::metrics::{Metrics, Outcome};

/// A step of the end when the edge itself is stopping: two must fit into what the drain allows.
const HURRIED_STEP: Duration = Duration::from_secs(1);

/// A child that was started, and all that belongs to it.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) command: Arc<Command>,
    pub(super) process: Process,
    pub(super) own: Option<Own>,
    pub(super) attempt: Attempt,
    pub(super) pipes: Pipes,
    pub(super) told: mpsc::Receiver<ToBackend>,
    pub(super) to_session: mpsc::Sender<FromBackend>,
    pub(super) max_line: usize,
    /// What it says counts against this.
    pub(super) quota: Quota,
    pub(super) metrics: Metrics,
    pub(super) drain: Drain,
    pub(super) place: TotalPermit,
}

/// The edge's ends of a child's pipes.
#[derive(Debug)]
pub(super) struct Pipes {
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
    pub(super) stderr: ChildStderr,
}

/// Why a child's life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// It ended by itself.
    Exited,
    /// It closed its stdout, without which it cannot answer.
    ClosedOutput,
    /// It closed its stdin, without which it cannot be asked.
    ClosedInput,
    /// It speaks no MCP.
    NoMcp(NoMcp),
    /// The edge dropped the link.
    Dropped,
    /// The edge is stopping.
    Stopping,
}

impl Why {
    fn text(self) -> &'static str {
        match self {
            Self::Exited => "ended by itself",
            Self::ClosedOutput => "closed its output",
            Self::ClosedInput => "closed its input",
            Self::NoMcp(what) => what.text(),
            Self::Dropped => "was ended with its session",
            Self::Stopping => "was ended with the edge",
        }
    }
}

impl Life {
    /// Runs the child to its end.
    pub(super) async fn run(self) {
        let Self {
            command,
            mut process,
            own,
            attempt,
            pipes: Pipes { stdin, stdout, stderr },
            told,
            to_session,
            max_line,
            quota,
            metrics,
            drain,
            place,
        } = self;
        let pid = process.pid();
        let [ending, exited, closed] = [(); 3].map(|()| CancellationToken::new());
        let watch = Watch::new(max_line);
        let last_words = LastWords::default();
        let mut noise = Noise::of(pid, command.redactor(), metrics.clone(), (&watch, &last_words));
        let speaking = async {
            let lines = Frames::new(stdout, max_line, exited.clone(), quota);
            stdout::hand_on(lines, &to_session, attempt.spoke(), &ending, &mut noise).await;
            closed.cancel();
        };
        // A line of stderr is short, and is written to the log at once.
        let muttering = Frames::new(stderr, stderr::MAX_LINE, exited.clone(), Quota::unbounded());
        let muttering = stderr::listen(muttering, pid, command.redactor(), &last_words, &watch);
        let mut output = pin!(join(speaking, muttering).map(drop).fuse());

        let working = async {
            let feeding = feed(stdin, told, &attempt, &watch);
            let watching = watched(&watch, command.redactor(), pid, &to_session, &metrics);
            let work = work(&process, feeding, watching, &to_session, &drain, &closed);
            let why = beside(&mut pin!(attempt.prove().fuse()), work).await;
            settle(why, &process).await
        };
        let why = beside(&mut output, working).await;
        if why == Why::Exited {
            exited.cancel();
            // Who is left of its group may finish a line, and no more.
            let _heard = beside(&mut output, timeout(LAST_WORDS, closed.cancelled())).await;
            let status = reap(&mut process, own, why).await;
            let telling = async {
                until_stopping(&drain, rest(&mut output)).await;
                let gone = last_words.after(&format!("the server {status}"));
                tell_gone(&to_session, gone, why, &attempt, &drain).await;
            };
            join(telling, leave(&process, place)).await;
        } else {
            ending.cancel();
            let gone = last_words.after(&format!("the server {}", why.text()));
            let telling = tell_gone(&to_session, gone, why, &attempt, &drain);
            let leaving = async {
                if process.end(|| step(&drain)).await {
                    metrics.count(Outcome::ChildKilled);
                }
                reap(&mut process, own, why).await;
                leave(&process, place).await;
            };
            beside(&mut output, join(telling, leaving)).await;
        }
    }
}

/// Watches the child until it is certain that it speaks no MCP. Of one that is only slow it is told
/// what it seems to do.
async fn watched(
    watch: &Watch,
    redactor: &Redactor,
    pid: i32,
    to_session: &mpsc::Sender<FromBackend>,
    metrics: &Metrics,
) -> NoMcp {
    let suspect = |text: String| {
        let why = text.as_str();
        warn!(target: "child", pid, why, "no answer to `initialize` for {} s", SLOW.as_secs());
        // Where there is no room, the child sends messages: then it is no mystery.
        drop(to_session.try_send(FromBackend::Suspect(text)));
    };
    let what = watch.verdict(redactor, suspect).await;
    metrics.count(Outcome::ChildNoMcp);
    warn!(target: "child", pid, "the server {}: it is ended", what.text());
    what
}

async fn reap(process: &mut Process, own: Option<Own>, why: Why) -> ProcessEnd {
    let status = process.reap().await;
    if let Some(own) = own {
        own.reaped(status.is_by_signal());
    }
    info!(pid = process.pid(), %status, why = why.text(), "child ended");
    status
}

/// Gives the place back once the whole group is gone.
async fn leave(process: &Process, place: TotalPermit) {
    process.group_gone().await;
    drop(place);
}

/// Serves until there is a reason to stop. Then stdin is closed, and no more is taken.
async fn work(
    process: &Process,
    feeding: impl Future<Output = Why>,
    watching: impl Future<Output = NoMcp>,
    to_session: &mpsc::Sender<FromBackend>,
    drain: &Drain,
    closed: &CancellationToken,
) -> Why {
    tokio::select! {
        () = process.exited() => Why::Exited,
        () = closed.cancelled() => Why::ClosedOutput,
        why = fed(feeding, to_session) => why,
        what = watching => Why::NoMcp(what),
        () = to_session.closed() => Why::Dropped,
        () = drain.stopping() => Why::Stopping,
    }
}

/// Feeds the child. A link that tells no more may still listen, until the child is done.
async fn fed(feeding: impl Future<Output = Why>, to_session: &mpsc::Sender<FromBackend>) -> Why {
    let why = feeding.await;
    if why == Why::Dropped {
        to_session.closed().await;
    }
    why
}

/// A process that exits closes its pipes first; then its status says more.
async fn settle(why: Why, process: &Process) -> Why {
    match why {
        Why::ClosedOutput | Why::ClosedInput => {
            timeout(LAST_WORDS, process.exited()).await.map_or(why, |()| Why::Exited)
        }
        Why::Exited | Why::NoMcp(_) | Why::Dropped | Why::Stopping => why,
    }
}

/// Writes what the child is told, as fast as it reads. What is queued goes out together.
async fn feed(
    stdin: ChildStdin,
    mut told: mpsc::Receiver<ToBackend>,
    attempt: &Attempt,
    watch: &Watch,
) -> Why {
    let mut stdin = BufWriter::new(stdin);
    let feeding = async {
        loop {
            let next = match told.try_recv() {
                Ok(next) => next,
                Err(_none) => {
                    stdin.flush().await?;
                    let Some(next) = told.recv().await else {
                        return Ok(());
                    };
                    next
                }
            };
            attempt.note_sent(&next.message);
            watch.note_sent(&next.message);
            for part in next.message.line_parts() {
                stdin.write_all(part).await?;
            }
            stdin.write_all(b"\n").await?;
        }
    };
    let fed: std::io::Result<()> = feeding.await;
    match fed {
        Ok(()) => Why::Dropped,
        Err(error) => {
            debug!(%error, "writing to a child failed");
            Why::ClosedInput
        }
    }
}

/// Runs `step` while the output is read.
async fn beside<O, S>(output: &mut O, step: S) -> S::Output
where
    O: FusedFuture<Output = ()> + Unpin,
    S: Future,
{
    let mut step = pin!(step);
    loop {
        tokio::select! {
            done = &mut step => return done,
            () = &mut *output, if !output.is_terminated() => {}
        }
    }
}

/// Reads the output to its end.
async fn rest<O: FusedFuture<Output = ()> + Unpin>(output: &mut O) {
    if !output.is_terminated() {
        output.await;
    }
}

/// Says the last word to a link that is still there. A full queue is waited for, unless the edge
/// has ended the link itself and may not be reading.
async fn tell_gone(
    to_session: &mpsc::Sender<FromBackend>,
    text: String,
    why: Why,
    attempt: &Attempt,
    drain: &Drain,
) {
    match why {
        Why::Exited | Why::ClosedOutput | Why::ClosedInput | Why::NoMcp(_) => {
            // Before anybody is told: they may ask for the next start at once.
            attempt.ended(&text);
            until_stopping(drain, to_session.send(FromBackend::Gone(text)).map(drop)).await;
        }
        Why::Dropped => drop(to_session.try_send(FromBackend::Gone(text))),
        Why::Stopping => {}
    }
}

async fn until_stopping(drain: &Drain, task: impl Future<Output = ()>) {
    tokio::select! {
        () = task => {}
        () = drain.stopping() => {}
    }
}

/// What a child is given at each step of its end; less once the edge is stopping.
async fn step(drain: &Drain) {
    let hurried = async {
        drain.stopping().await;
        sleep(HURRIED_STEP).await;
    };
    tokio::select! {
        () = sleep(CHILD_STEP) => {}
        () = hurried => {}
    }
}
