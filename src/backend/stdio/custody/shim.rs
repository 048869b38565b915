//! `mcp-edge __keep PID [limits] -- program args…`: what runs between the edge and a program.
//!
//! The edge forbids unsafe code, and with it hooks between fork and exec. So the binary runs
//! itself, in three stages, each a subcommand that nobody types:
//!
//! - `__keep` stays between the edge and the program, see [`super::keeper`];
//! - `__exec` ties the program's life to the keeper's, sets its limits, and becomes the program;
//! - `__end` dies of the signal that the program died of, for a keeper that catches signals.
//!
//! The parent-death signal is sent when the *thread* that forked ends, not the process: keepers
//! must be started on a thread that lives as long as the edge does.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::process::ExitCode;

use rustix::process::Signal;

use super::keeper;
use super::order::{END, EXEC, KEEP, Order, USAGE, shell_status};

/// Is this the first argument of a stage?
#[must_use]
pub fn is_stage(word: &OsStr) -> bool {
    [KEEP, EXEC, END].iter().any(|stage| word == OsStr::new(stage))
}

/// Runs the stage that `args` begin with. Of `__exec` and `__end` this returns only if they fail.
pub fn run(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let stage = args.next().unwrap_or_default();
    let ended = if stage == END {
        return end(args.next().and_then(|signal| signal.to_str()?.parse().ok()));
    } else if stage == KEEP {
        Order::read(args).and_then(|order| keeper::keep(&order))
    } else {
        Order::read(args).and_then(|order| Err(order.become_program()))
    };
    ended.unwrap_or_else(|(status, text)| {
        // Without stderr there is nobody left to tell.
        drop(writeln!(std::io::stderr(), "mcp-edge: {text}"));
        ExitCode::from(status)
    })
}

fn end(signal: Option<i32>) -> ExitCode {
    let known = signal.and_then(Signal::from_named_raw);
    let (Some(raw), Some(signal)) = (signal, known) else { return ExitCode::from(USAGE) };
    // Rust's own handler of SIGSEGV and SIGBUS gives the first one back.
    for _ in 0..2 {
        let _dead = rustix::process::kill_process(rustix::process::getpid(), signal);
    }
    // SIGPIPE, which Rust ignores, for one.
    shell_status(raw)
}
