//! What a stage of the shim is asked to do, and what all stages do alike.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Pid, Resource, Rlimit, Signal};

use crate::config::ChildLimits;

pub(crate) const KEEP: &str = "__keep";
pub(super) const EXEC: &str = "__exec";
pub(super) const END: &str = "__end";

const OPEN_FILES: &str = "--open-files=";
const MEMORY: &str = "--memory=";
const NEW_PRIVILEGES: &str = "--new-privileges";

/// The binary that runs, even if its file was replaced meanwhile.
const MYSELF: &str = "/proc/self/exe";

/// What shells return for a program that cannot be run, and for one that is not there.
pub(crate) const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;
/// `EX_USAGE` of sysexits.h.
pub(super) const USAGE: u8 = 64;

const USAGE_TEXT: &str = "usage: mcp-edge __keep|__exec <parent-pid> [--open-files=<count>] \
                          [--memory=<bytes>] [--new-privileges] -- <program> [argument]...";

/// Why a stage ends without the program: its status, and a line for stderr.
pub(crate) type Failure = (u8, String);

/// What a stage was asked to do.
#[derive(Debug)]
pub(crate) struct Order {
    parent: Pid,
    limits: ChildLimits,
    /// The program and its arguments.
    command: Vec<OsString>,
}

/// The arguments of a stage that this process starts, up to the program.
pub(crate) fn stage_args(stage: &str, limits: &ChildLimits) -> Vec<String> {
    let ChildLimits { open_files, memory, new_privileges } = *limits;
    let mut args = vec![stage.to_owned(), std::process::id().to_string()];
    args.extend(open_files.map(|count| format!("{OPEN_FILES}{count}")));
    args.extend(memory.map(|bytes| format!("{MEMORY}{bytes}")));
    args.extend(new_privileges.then(|| NEW_PRIVILEGES.to_owned()));
    args.push("--".to_owned());
    args
}

impl Order {
    pub(super) fn read(args: impl Iterator<Item = OsString>) -> Result<Self, Failure> {
        Self::parse(args).ok_or_else(|| (USAGE, USAGE_TEXT.to_owned()))
    }

    fn parse(mut args: impl Iterator<Item = OsString>) -> Option<Self> {
        let parent = Pid::from_raw(args.next()?.to_str()?.parse().ok()?)?;
        let mut limits = ChildLimits::default();
        loop {
            let arg = args.next()?;
            let arg = arg.to_str()?;
            if arg == "--" {
                break;
            } else if let Some(count) = arg.strip_prefix(OPEN_FILES) {
                limits.open_files = Some(count.parse().ok()?);
            } else if let Some(bytes) = arg.strip_prefix(MEMORY) {
                limits.memory = Some(bytes.parse().ok()?);
            } else if arg == NEW_PRIVILEGES {
                limits.new_privileges = true;
            } else {
                return None;
            }
        }
        let command: Vec<_> = args.collect();
        (!command.is_empty()).then_some(Self { parent, limits, command })
    }

    /// Has this process told of its parent's death, which it must not have missed.
    pub(crate) fn follow_parent(&self, signal: Signal) -> Result<(), Failure> {
        rustix::process::set_parent_process_death_signal(Some(signal)).map_err(|error| {
            (CANNOT_RUN, format!("could not set the parent-death signal: {error}"))
        })?;
        // The signal is not sent for a parent that was dead already.
        if rustix::process::getppid() == Some(self.parent) {
            return Ok(());
        }
        Err((CANNOT_RUN, "the edge ended before its child was started".to_owned()))
    }

    /// The next stage, ready to be spawned by this process.
    pub(crate) fn next_stage(&self) -> Command {
        let mut command = Command::new(MYSELF);
        command.args(stage_args(EXEC, &self.limits)).args(&self.command);
        command
    }

    pub(super) fn become_program(&self) -> Failure {
        let Some((program, args)) = self.command.split_first() else {
            return (USAGE, USAGE_TEXT.to_owned());
        };
        if let Err(failure) = self.follow_parent(Signal::KILL).and_then(|()| self.limit()) {
            return failure;
        }
        let error = Command::new(program).args(args).exec();
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        let status = if missing { NOT_FOUND } else { CANNOT_RUN };
        (status, format!("could not start `{}`: {error}", program.display()))
    }

    fn limit(&self) -> Result<(), Failure> {
        let ChildLimits { open_files, memory, new_privileges } = self.limits;
        forbid_core_dumps()?;
        if let Some(count) = open_files {
            let Rlimit { current: _, maximum } = rustix::process::getrlimit(Resource::Nofile);
            set(Resource::Nofile, Rlimit { current: Some(count), maximum })?;
        }
        if let Some(bytes) = memory {
            // Not the address space: runtimes reserve far more of it than they use.
            set(Resource::Data, Rlimit { current: Some(bytes), maximum: Some(bytes) })?;
        }
        if !new_privileges {
            rustix::thread::set_no_new_privs(true)
                .map_err(|error| (CANNOT_RUN, format!("could not withhold privileges: {error}")))?;
        }
        Ok(())
    }
}

/// A core is a copy of everything that the process knows.
pub(crate) fn forbid_core_dumps() -> Result<(), Failure> {
    set(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
}

fn set(resource: Resource, limit: Rlimit) -> Result<(), Failure> {
    rustix::process::setrlimit(resource, limit)
        .map_err(|error| (CANNOT_RUN, format!("could not set the limit of {resource:?}: {error}")))
}

/// Ends this process as another was ended: by this signal. One that is caught here is not caught
/// any more after exec.
pub(crate) fn die_of(signal: i32) -> ExitCode {
    drop(Command::new(MYSELF).args([END, &signal.to_string()]).exec());
    shell_status(signal)
}

/// What shells return for a program that died of a signal.
pub(super) fn shell_status(signal: i32) -> ExitCode {
    ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX))
}
