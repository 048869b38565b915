//! A keeper: the small process between the edge and a program, which lets nothing of it escape.
//!
//! It is the sub-reaper of all that the program starts (prctl(2), `PR_SET_CHILD_SUBREAPER`):
//! whoever loses its parent beneath it becomes its own child, be it in another group or session.
//! So whatever is beneath the keeper is the program's, and all of it is killed when the program
//! has ended, when the edge says so, and when the edge is dead: the kernel then sends the same
//! signal. Then the keeper ends as the program did.

use std::collections::HashSet;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid};
use tokio::signal::unix::{Signal as Caught, SignalKind, signal};
use tokio::time::{Instant, timeout};

use super::descent;
use super::order::{CANNOT_RUN, Failure, Order, die_of, forbid_core_dumps};

/// Says to a keeper: kill all of them. Its parent's death says the same.
pub(crate) const KILL_ALL: Signal = Signal::USR1;

/// How long a keeper waits for those that it has killed. Who hangs in the kernel becomes the edge's.
const KILLED: Duration = Duration::from_secs(2);

/// How often it kills anew: whoever was forked meanwhile.
const AGAIN: Duration = Duration::from_millis(10);

/// Runs the program until it and all that it started are gone.
pub(crate) fn keep(order: &Order) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.map_err(cannot)?.block_on(run(order))?;
    let Some(ended) = ended else { return Ok(ExitCode::from(CANNOT_RUN)) };
    Ok(match (ended.exit_status(), ended.terminating_signal()) {
        (Some(code), _) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        (None, Some(signal)) => die_of(signal),
        (None, None) => ExitCode::from(CANNOT_RUN),
    })
}

fn cannot(error: impl std::error::Error) -> Failure {
    (CANNOT_RUN, format!("could not keep a child: {error}"))
}

async fn run(order: &Order) -> Result<Option<WaitStatus>, Failure> {
    // Until the signal is caught it ends this process, which has nothing to keep yet.
    order.follow_parent(KILL_ALL)?;
    forbid_core_dumps()?;
    rustix::process::set_child_subreaper(Some(getpid())).map_err(cannot)?;
    let mut kill_all = signal(SignalKind::user_defined1()).map_err(cannot)?;
    let exits = signal(SignalKind::child()).map_err(cannot)?;
    // These are for the program, which is in the same group; or for the edge, from a hook that
    // signals all processes of its name.
    let theirs = [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
        SignalKind::quit(),
        SignalKind::user_defined2(),
    ];
    let _caught = theirs.map(signal);
    let program = order.next_stage().spawn().map_err(cannot)?;
    let program = Pid::from_child(&program);
    let mut kept = Kept { program, ended: None, exits };
    let_go().map_err(cannot)?;
    tokio::select! {
        () = kept.program_ended() => {}
        _ = kill_all.recv() => {}
    }
    kept.kill().await;
    Ok(kept.ended)
}

/// The pipes are the program's alone: that it closed them must show.
fn let_go() -> io::Result<()> {
    let nothing = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    rustix::stdio::dup2_stdout(&nothing)?;
    Ok(())
}

struct Kept {
    program: Pid,
    ended: Option<WaitStatus>,
    exits: Caught,
}

impl Kept {
    async fn program_ended(&mut self) {
        loop {
            self.reap();
            if self.ended.is_some() {
                return;
            }
            self.exits.recv().await;
        }
    }

    /// Reaps all that have ended. Says if anybody is left: who has no child has no descendant.
    fn reap(&mut self) -> bool {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.program => self.ended = Some(status),
                Ok(Some(_stray)) => {}
                Ok(None) => return true,
                Err(_none) => return false,
            }
        }
    }

    async fn kill(&mut self) {
        let deadline = Instant::now() + KILLED;
        while self.reap() && Instant::now() < deadline {
            descent::kill_beneath(getpid(), &HashSet::new());
            // Who was killed may not have ended yet.
            let _told = timeout(AGAIN, self.exits.recv()).await;
        }
    }
}
