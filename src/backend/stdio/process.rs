//! One child process and the group it leads: signalled, watched and reaped as a whole.
//!
//! The group is killed while its leader is a zombie: until the leader is reaped its number cannot
//! become anybody else's, so that the signal reaches what was meant. A descendant that leaves the
//! group (setsid(2)) is found by the keeper, where there is one: then that is the leader.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;
use std::{fmt, io};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions};
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::custody::keeper;

/// How often an exit is looked for should the system not tell of it.
const LOOK: Duration = Duration::from_millis(50);

/// How long a killed group is waited for; the kill itself is certain.
const GROUP_GONE: Duration = Duration::from_millis(300);

/// How long a keeper has for killing what it keeps: longer than it takes at most.
const KEEPER: Duration = Duration::from_secs(3);

/// A child process that leads its group. Dropped before it was reaped, the group is killed.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    group: Pid,
    kept: bool,
    reaped: bool,
}

impl Process {
    /// `child` must have been started as the leader of its own group. One that is `kept` is a
    /// keeper, with the program and whatever that starts beneath it.
    pub(super) fn leader(child: Child, kept: bool) -> io::Result<Self> {
        let group = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::Error::other("the process has no number"))?;
        Ok(Self { child, group, kept, reaped: false })
    }

    pub(super) fn pid(&self) -> i32 {
        self.group.as_raw_pid()
    }

    pub(super) fn number(&self) -> Pid {
        self.group
    }

    /// Resolves when the leader has exited. It stays a zombie until [`Self::reap`].
    pub(super) async fn exited(&self) {
        // `Child::wait` would reap. Listening begins before the first look: no exit falls between.
        let mut exits = signal(SignalKind::child()).ok();
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        while let Ok(None) = rustix::process::waitid(WaitId::Pid(self.group), look) {
            let told = match &mut exits {
                Some(exits) => exits.recv().await,
                None => None,
            };
            if told.is_none() {
                sleep(LOOK).await;
            }
        }
    }

    /// Signals the leader and all that is in its group.
    pub(super) fn signal(&self, signal: Signal) {
        match rustix::process::kill_process_group(self.group, signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => debug!(pid = self.pid(), ?signal, %error, "signalling a child failed"),
        }
    }

    /// Asks the group to end, then makes it. Stdin was closed before: the first of the measures. A
    /// `step` is the time before the next one. Says if it had to be killed.
    pub(super) async fn end<F: Future<Output = ()>>(&self, step: impl Fn() -> F) -> bool {
        for kill in [false, true] {
            tokio::select! {
                () = self.exited() => return false,
                () = step() => if kill { self.kill() } else { self.signal(Signal::TERM) },
            }
        }
        if timeout(KEEPER, self.exited()).await.is_err() {
            // A keeper that does not do its work, as if it were stopped.
            self.signal(Signal::KILL);
            self.exited().await;
        }
        true
    }

    /// Kills the group; where there is a keeper it does that, and kills whoever left the group too.
    fn kill(&self) {
        if !self.kept {
            return self.signal(Signal::KILL);
        }
        if let Err(error) = rustix::process::kill_process(self.group, keeper::KILL_ALL) {
            debug!(pid = self.pid(), %error, "telling a keeper failed");
        }
    }

    /// Waits for the leader, kills what is left of its group, reaps the leader.
    pub(super) async fn reap(&mut self) -> ProcessEnd {
        self.exited().await;
        self.signal(Signal::KILL);
        let status = self.child.wait().await;
        self.reaped = true;
        ProcessEnd(status.ok())
    }

    /// Waits until nothing is left of the group. Where the edge is init of its container, orphans
    /// became its own children: those of this group are reaped here.
    pub(super) async fn group_gone(&self) {
        let gone = async {
            loop {
                while let Ok(Some(_)) = rustix::process::waitpgid(self.group, WaitOptions::NOHANG) {
                }
                if rustix::process::test_kill_process_group(self.group).is_err() {
                    return;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        if timeout(GROUP_GONE, gone).await.is_err() {
            debug!(pid = self.pid(), "a killed process group is still there");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
        }
    }
}

/// How a process ended, in words.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProcessEnd(Option<ExitStatus>);

impl ProcessEnd {
    /// Was it a signal?
    pub(super) fn is_by_signal(self) -> bool {
        self.0.is_some_and(|status| status.signal().is_some())
    }
}

impl fmt::Display for ProcessEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(status) = self.0 else {
            return f.write_str("ended");
        };
        match (status.code(), status.signal()) {
            (Some(code), _) => write!(f, "exited with status {code}"),
            (None, Some(signal)) => match name(signal) {
                Some(name) => write!(f, "was killed by signal {signal} ({name})"),
                None => write!(f, "was killed by signal {signal}"),
            },
            (None, None) => write!(f, "ended: {status}"),
        }
    }
}

/// The signals that end programs in practice.
fn name(signal: i32) -> Option<&'static str> {
    let known = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::USR2, "SIGUSR2"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::TERM, "SIGTERM"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::XFSZ, "SIGXFSZ"),
        (Signal::SYS, "SIGSYS"),
    ];
    known.into_iter().find(|(known, _)| known.as_raw() == signal).map(|(_, name)| name)
}
