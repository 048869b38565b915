//! What a signal asks of the process. Hooks of renewals and log rotation send some of them, and none
//! of those ends it.

use std::fs::{self, File};
use std::io;

use rustix::io::Errno;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// To finish, by the signal of this name.
    Finish(&'static str),
    /// To finish, because the terminal that the edge was started on has gone.
    TerminalGone,
    /// To read the certificates again.
    Reread,
}

/// Every signal that means something here. What was ignored at the start (`nohup`, a shell's `&`)
/// ends nothing.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Option<Signal>,
    hangup: Signal,
    reopen_log: Signal,
    upgrade: Signal,
    /// Does the edge end with its terminal?
    ends_with_terminal: bool,
}

impl Signals {
    /// Catches them from now on.
    pub(crate) fn listen() -> io::Result<Self> {
        // Asked first: what is caught is not ignored any more.
        let ignored = ignored();
        let is_ignored = |signal: SignalKind| {
            let bit = u32::try_from(signal.as_raw_value() - 1).unwrap_or(u32::MAX);
            ignored.checked_shr(bit).is_some_and(|mask| mask & 1 == 1)
        };
        let quit = SignalKind::quit();
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: if is_ignored(quit) { None } else { Some(signal(quit)?) },
            ends_with_terminal: terminal().is_ok() && !is_ignored(SignalKind::hangup()),
            hangup: signal(SignalKind::hangup())?,
            reopen_log: signal(SignalKind::user_defined1())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next signal that asks for something.
    pub(crate) async fn next(&mut self) -> Told {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Told::Finish("SIGTERM"),
                _ = self.interrupt.recv() => return Told::Finish("SIGINT"),
                () = caught(self.quit.as_mut()) => return Told::Finish("SIGQUIT"),
                _ = self.hangup.recv() => return self.hung_up(terminal().err()),
                _ = self.reopen_log.recv() => tracing::info!(
                    "SIGUSR1 does nothing: the log goes to stderr, and what stores it rotates it"
                ),
                _ = self.upgrade.recv() => tracing::info!(
                    "SIGUSR2 does nothing: restart the edge to have another binary serve"
                ),
            }
        }
    }

    /// SIGHUP has two meanings. Only "there is no such terminal" says that it has gone: opening it
    /// may fail for want of descriptors as well.
    fn hung_up(&self, terminal: Option<Errno>) -> Told {
        let gone = matches!(terminal, Some(Errno::NXIO | Errno::IO));
        if self.ends_with_terminal && gone { Told::TerminalGone } else { Told::Reread }
    }
}

async fn caught(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// The controlling terminal of this process (tty(4)), if it has one.
fn terminal() -> Result<(), Errno> {
    match File::open("/dev/tty") {
        Ok(_terminal) => Ok(()),
        Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::INVAL)),
    }
}

/// The signals that this process ignores, as a mask; bit 0 is signal 1 (`proc_pid_status(5)`).
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hangup_is_a_renewal_unless_the_terminal_has_gone() {
        let mut signals = Signals::listen().unwrap();
        for (ends_with_terminal, terminal, told) in [
            (true, None, Told::Reread),
            (true, Some(Errno::NXIO), Told::TerminalGone),
            (true, Some(Errno::IO), Told::TerminalGone),
            // Out of descriptors: it may well be there.
            (true, Some(Errno::MFILE), Told::Reread),
            // Started without one, or by `nohup`.
            (false, Some(Errno::NXIO), Told::Reread),
        ] {
            signals.ends_with_terminal = ends_with_terminal;
            assert_eq!(signals.hung_up(terminal), told, "{ends_with_terminal} {terminal:?}");
        }
    }
}
