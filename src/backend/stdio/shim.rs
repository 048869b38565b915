//! `mcp-edge __exec <parent-pid> -- program args…`: what runs between fork and the program.
//!
//! The edge forbids unsafe code, and with it hooks between fork and exec. So the binary runs
//! itself, ties its life to the edge's, forbids core dumps, and becomes the program.
//!
//! The parent-death signal is sent when the *thread* that forked ends, not the process: children
//! must be started on a thread that lives as long as the edge does.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Pid, Resource, Rlimit, Signal};

/// The subcommand that [`run`] stands behind.
pub(super) const EXEC: &str = "__exec";

/// What shells return for a program that cannot be run, and for one that is not there.
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;
/// `EX_USAGE` of sysexits.h.
const USAGE: u8 = 64;

/// Becomes the program; `args` are those after the subcommand. Returns only if that fails.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let (status, text) = failure(args);
    // Without stderr there is nobody left to tell.
    drop(writeln!(std::io::stderr(), "mcp-edge: {text}"));
    ExitCode::from(status)
}

fn failure(mut args: impl Iterator<Item = OsString>) -> (u8, String) {
    let parent = args.next().and_then(|pid| Pid::from_raw(pid.to_str()?.parse().ok()?));
    let separated = args.next().as_deref() == Some(OsStr::new("--"));
    let (Some(parent), true, Some(program)) = (parent, separated, args.next()) else {
        return (
            USAGE,
            "usage: mcp-edge __exec <parent-pid> -- <program> [argument]...".to_owned(),
        );
    };
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        return (CANNOT_RUN, format!("could not set the parent-death signal: {error}"));
    }
    // The signal is not sent for a parent that was dead already.
    if rustix::process::getppid() != Some(parent) {
        return (CANNOT_RUN, "the edge ended before its child was started".to_owned());
    }
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = rustix::process::setrlimit(Resource::Core, none) {
        return (CANNOT_RUN, format!("could not forbid core dumps: {error}"));
    }
    let error = Command::new(&program).args(args).exec();
    let status = if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN };
    (status, format!("could not start `{}`: {error}", program.display()))
}
