//! A child process for each session.
//!
//! A [`StdioBackend`] holds a command that was checked at start-up and a number of places. Each
//! [`Link`] that it opens is one process in a group of its own. A [`custody::keeper`], its parent, ends
//! all that it starts; the place is given back when all of that is gone. A child that cannot be
//! started costs its session and nothing else.

mod command;
mod command_error;
pub(crate) mod custody;
mod environment;
mod life;
mod looks;
mod process;
mod redact;
mod starts;
mod stderr;
mod stdout;
#[cfg(test)]
mod tests;
mod watch;

use std::io;
use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::info;

use self::command::Command;
pub use self::command_error::CommandError;
use self::custody::orphans::{Orphans, Own};
use self::life::{Life, Pipes};
use self::process::Process;
use self::starts::{Gate, HeldBack};
use super::{Link, OpenError, QUEUE, SAID_QUEUE, Starter};
use crate::config::{ChildCommand, Limits, Secret};
use crate::drain::Drain;
use crate::limits::bytes::Quota;
use crate::limits::places::Total;
use crate::observe::metrics::{Metrics, Outcome};

/// Starts a process for each link.
#[derive(Debug)]
pub(crate) struct StdioBackend {
    command: Arc<Command>,
    /// Taken before a child is started, and given back when its whole group is gone.
    places: Total,
    orphans: Option<Arc<Orphans>>,
    gate: Arc<Gate>,
    metrics: Metrics,
    drain: Drain,
}

impl StdioBackend {
    /// Checks the command. None of `secrets` may reach the child.
    pub(crate) fn new(
        command: &ChildCommand,
        secrets: &[Secret],
        metrics: Metrics,
        drain: Drain,
    ) -> Result<Self, CommandError> {
        let adopt = command.adopt;
        let command = Command::check(command, secrets, |name| std::env::var_os(name))?;
        let places = Total::counting(metrics.gauges().children.clone());
        let orphans = adopt.then(|| {
            let orphans = Orphans::new(metrics.clone());
            // What the last child leaves behind is ended, too.
            let (stopping, places) = (drain.stopping(), places.clone());
            let last = async move {
                stopping.await;
                all_free(places).await;
            };
            drain.spawn_behind(Arc::clone(&orphans).watch(last));
            orphans
        });
        Ok(Self {
            command: Arc::new(command),
            places,
            orphans,
            gate: Gate::new(metrics.clone()),
            metrics,
            drain,
        })
    }

    /// Starts one process, if there are fewer than the `limits` allow.
    ///
    /// Call it on a thread that lives as long as the runtime: a worker, never `spawn_blocking` and
    /// not under `block_in_place`. The kernel takes the end of the thread that forked for the
    /// parent's death, and the shim would have the child killed.
    ///
    /// What it says counts against `quota`.
    pub(crate) fn open(
        &self,
        who: Starter,
        quota: &Quota,
        limits: &Limits,
    ) -> Result<Link, OpenError> {
        let Limits { max_children, max_line_bytes, .. } = *limits;
        let place = self.places.try_take(max_children).ok_or(OpenError::Full(max_children))?;
        let attempt = self.gate.pass(who);
        let attempt = attempt.map_err(|HeldBack { wait, why }| OpenError::Held { wait, why })?;
        let (own, (process, pipes)) = self.start_own().map_err(|source| {
            self.metrics.count(Outcome::SpawnFailed);
            attempt.was_not_spawned(&source.to_string());
            OpenError::Spawn { program: self.command.name.clone(), source }
        })?;
        info!(pid = process.pid(), program = self.command.name, "child started");
        let (to_backend, told) = mpsc::channel(QUEUE);
        let (to_session, from_backend) = mpsc::channel(SAID_QUEUE);
        let life = Life {
            command: Arc::clone(&self.command),
            process,
            own,
            attempt,
            pipes,
            told,
            to_session,
            max_line: max_line_bytes,
            quota: quota.clone(),
            metrics: self.metrics.clone(),
            drain: self.drain.clone(),
            place,
        };
        self.drain.spawn_behind(life.run());
        Ok(Link { to_backend, from_backend })
    }

    /// Checks that the child is handed none of these secrets.
    pub(crate) fn check_secrets(&self, secrets: &[Secret]) -> Result<(), CommandError> {
        self.command.check_secrets(secrets)
    }

    /// Are all starts held back now?
    pub(crate) fn is_held(&self) -> bool {
        self.gate.is_closed()
    }

    fn start_own(&self) -> io::Result<(Option<Own>, (Process, Pipes))> {
        let Some(orphans) = &self.orphans else { return Ok((None, self.start()?)) };
        let (own, started) = orphans.knowing(|| {
            let (process, pipes) = self.start()?;
            Ok((process.number(), (process, pipes)))
        })?;
        Ok((Some(own), started))
    }

    fn start(&self) -> io::Result<(Process, Pipes)> {
        let mut child = self.command.prepared().spawn()?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let process = Process::leader(child, self.command.is_kept())?;
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(io::Error::other("the process has no pipes"));
        };
        Ok((process, Pipes { stdin, stdout, stderr }))
    }
}

/// Resolves when no place is taken. Meanwhile none can be taken.
async fn all_free(places: Total) {
    // The only place there may be is free when no other is taken.
    drop(places.take(1).await);
}
