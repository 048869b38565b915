//! The command of a child, checked once at start-up: what starts then is what was checked.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::command_error::CommandError;
use super::custody::order::{KEEP, stage_args};
use super::environment::{self, Environment, environment};
use super::redact::Redactor;
use crate::config::{ChildCommand, ChildLimits, Secret};

/// Where programs are looked for if there is no `PATH` at all.
const USUAL_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A command that was found fit to run.
#[derive(Debug)]
pub(super) struct Command {
    /// As configured, for people.
    pub(super) name: String,
    program: PathBuf,
    args: Vec<String>,
    shim: Option<PathBuf>,
    limits: ChildLimits,
    environment: Environment,
}

impl Command {
    pub(super) fn check(
        command: &ChildCommand,
        secrets: &[Secret],
        own: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, CommandError> {
        let ChildCommand { program, args, pass_env: _, env: _, shim, limits, adopt: _ } = command;
        if args.iter().chain([program]).any(|arg| arg.contains('\0')) {
            return Err(CommandError::Argument);
        }
        let environment = environment(command, secrets, own)?;
        let path = environment.variables.get(OsStr::new("PATH"));
        let found = find(program, path.map_or(OsStr::new(USUAL_PATH), OsString::as_os_str))?;
        if let Some(shim) = shim {
            runnable(shim, &shim.to_string_lossy())?;
        }
        Ok(Self {
            name: program.clone(),
            program: found,
            args: args.clone(),
            shim: shim.clone(),
            limits: *limits,
            environment,
        })
    }

    /// Checks that the environment has none of these secrets.
    pub(super) fn check_secrets(&self, secrets: &[Secret]) -> Result<(), CommandError> {
        environment::check_secrets(&self.environment.variables, secrets)
    }

    pub(super) fn redactor(&self) -> &Redactor {
        &self.environment.redactor
    }

    /// Does a keeper stand between the edge and the program?
    pub(super) fn is_kept(&self) -> bool {
        self.shim.is_some()
    }

    /// Ready to be spawned.
    pub(super) fn prepared(&self) -> tokio::process::Command {
        let mut command = match &self.shim {
            Some(shim) => {
                let mut command = tokio::process::Command::new(shim);
                command.args(stage_args(KEEP, &self.limits)).arg(&self.program);
                command
            }
            None => tokio::process::Command::new(&self.program),
        };
        command
            .args(&self.args)
            .env_clear()
            .envs(&self.environment.variables)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Set between fork and exec: the group is there before the program is.
            .process_group(0)
            // A last resort; `Process` kills the whole group when it is dropped. A keeper has to
            // live until it has killed the others.
            .kill_on_drop(!self.is_kept());
        command
    }
}

/// Where the program is. A name without a slash is looked up in the `PATH` that the child will see.
fn find(program: &str, path: &OsStr) -> Result<PathBuf, CommandError> {
    if program.is_empty() {
        return Err(CommandError::Empty);
    }
    if program.contains('/') {
        runnable(Path::new(program), program)?;
        return Ok(program.into());
    }
    let mut nearest = CommandError::NotFound(program.to_owned());
    for directory in std::env::split_paths(path) {
        let candidate = directory.join(program);
        match runnable(&candidate, program) {
            Ok(()) => return Ok(candidate),
            // As shells do: a file that may not be run is worth telling, if there is no better.
            Err(error @ CommandError::NotExecutable(_)) => nearest = error,
            Err(_) => {}
        }
    }
    Err(nearest)
}

fn runnable(path: &Path, name: &str) -> Result<(), CommandError> {
    let found = std::fs::metadata(path)
        .map_err(|source| CommandError::File { program: name.to_owned(), source })?;
    if !found.is_file() {
        return Err(CommandError::NotAFile(name.to_owned()));
    }
    // Whether this very user may run it is for the system to say, at the first start.
    if found.permissions().mode() & 0o111 == 0 {
        return Err(CommandError::NotExecutable(name.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(directory: &Path, name: &str, mode: u32) {
        let path = directory.join(name);
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    #[test]
    fn programs_are_found_or_told_apart() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        file(first.path(), "here", 0o644);
        file(second.path(), "here", 0o755);
        file(first.path(), "plain", 0o644);
        std::fs::create_dir(first.path().join("folder")).unwrap();
        let path = std::env::join_paths([first.path(), second.path()]).unwrap();
        assert_eq!(find("here", &path).unwrap(), second.path().join("here"));
        let text = |program: &str| find(program, &path).unwrap_err().to_string();
        assert_eq!(text(""), "the command is empty");
        assert_eq!(text("nowhere"), "`nowhere` was not found in PATH");
        assert_eq!(text("folder"), "`folder` was not found in PATH");
        assert_eq!(text("plain"), "`plain` is not executable");
        assert_eq!(text("/tmp"), "`/tmp` is not a file");
        assert_eq!(text("./no/such"), "cannot run `./no/such`");
    }
}
