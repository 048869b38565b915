//! The command behind the edge: is it there, and what of the environment does it get?

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mcp_edge::{ChildCommand, ChildLimits, Secret};
use rustix::process::{Resource, getrlimit};

use super::{AUTH_TOKEN, ConfigError, args, ranges};

/// The child as asked for, if one is.
pub(super) fn command(
    command: Vec<String>,
    asked: &args::Child,
) -> Result<Option<ChildCommand>, ConfigError> {
    let args::Child { pass_env, env, child_memory, new_privileges, max_line_bytes: _ } = asked;
    let memory = child_memory.map(ranges::child_memory).transpose()?;
    let env =
        env.iter().zip(1..).map(|(text, place)| variable(text, place)).collect::<Result<_, _>>()?;
    let pass_env = pass_env.iter().zip(1..).map(|(text, place)| passed(text, place));
    let pass_env = pass_env.collect::<Result<_, _>>()?;
    let mut command = command.into_iter();
    let Some(program) = command.next() else {
        return Ok(None);
    };
    executable(&program, std::env::var_os("PATH").as_deref())?;
    let args = command.collect();
    let shim = std::env::current_exe().ok();
    // The edge raises its own limit later; programs that use select(2) cannot live with that.
    let open_files = getrlimit(Resource::Nofile).current;
    let limits = ChildLimits { open_files, memory, new_privileges: new_privileges.0 };
    // This process is the edge, and has no other children.
    let adopt = true;
    Ok(Some(ChildCommand { program, args, pass_env, env, shim, limits, adopt }))
}

fn variable(text: &str, place: usize) -> Result<(String, Secret), ConfigError> {
    match text.split_once('=') {
        Some((AUTH_TOKEN, _)) => Err(ConfigError::TokenToChild { option: "--env (MCP_ENV)" }),
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), Secret::new(value))),
        _ => Err(ConfigError::EnvForm { place }),
    }
}

fn passed(text: &str, place: usize) -> Result<String, ConfigError> {
    match text {
        AUTH_TOKEN => Err(ConfigError::TokenToChild { option: "--pass-env (MCP_PASS_ENV)" }),
        "" => Err(ConfigError::PassEnvForm { place }),
        name if name.contains('=') => Err(ConfigError::PassEnvForm { place }),
        name => Ok(name.to_owned()),
    }
}

/// Found as the system will find it: as it stands if it has a slash, else along `PATH`.
fn executable(program: &str, path: Option<&OsStr>) -> Result<(), ConfigError> {
    let candidates: Vec<PathBuf> = if program.contains('/') {
        vec![PathBuf::from(program)]
    } else {
        let directories = path.map(std::env::split_paths).into_iter().flatten();
        directories.map(|directory| directory.join(program)).collect()
    };
    if program.is_empty() {
        return Err(ConfigError::EmptyCommand);
    }
    if !candidates.iter().any(|it| it.exists()) {
        let word = program.split_whitespace().next().unwrap_or_default();
        if let Some(name) = set_variable(word) {
            return Err(ConfigError::VariableBeforeCommand { name: name.to_owned() });
        }
        if word.len() < program.trim_end().len() {
            return Err(ConfigError::QuotedCommand { word: word.to_owned() });
        }
        let place = if program.contains('/') { "" } else { " in PATH" };
        return Err(ConfigError::CommandMissing { program: program.to_owned(), place });
    }
    if candidates.iter().any(|it| is_executable(it)) {
        return Ok(());
    }
    let program = program.to_owned();
    Err(if candidates.iter().all(|it| it.is_dir() || !it.exists()) {
        ConfigError::CommandIsDirectory { program }
    } else {
        ConfigError::CommandNotExecutable { program }
    })
}

/// The name in `NAME=value`, as shells read it before a command.
fn set_variable(word: &str) -> Option<&str> {
    let (name, _) = word.split_once('=')?;
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_name = name.bytes().all(letters) && !name.starts_with(|it: char| it.is_ascii_digit());
    Some(name).filter(|name| is_name && !name.is_empty())
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::value::{Bytes, Switch};

    fn owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    fn child(env: &[&str], pass_env: &[&str]) -> args::Child {
        args::Child {
            env: owned(env),
            pass_env: owned(pass_env),
            child_memory: None,
            new_privileges: Switch(false),
            max_line_bytes: Bytes(1024),
        }
    }

    fn error(program: &[&str], env: &[&str], pass_env: &[&str]) -> String {
        command(owned(program), &child(env, pass_env)).unwrap_err().to_string()
    }

    #[test]
    fn what_it_may_have_is_handed_on() {
        let mut asked = child(&[], &[]);
        let open_files = getrlimit(Resource::Nofile).current;
        let limits = |asked: &args::Child| command(owned(&["sh"]), asked).unwrap().unwrap().limits;
        let given = ChildLimits { open_files, memory: None, new_privileges: false };
        assert_eq!(limits(&asked), given);
        asked.child_memory = Some(Bytes(64 << 20));
        asked.new_privileges = Switch(true);
        let given = ChildLimits { memory: Some(64 << 20), new_privileges: true, ..given };
        assert_eq!(limits(&asked), given);
        asked.child_memory = Some(Bytes(1 << 20));
        let text = command(owned(&["sh"]), &asked).unwrap_err().to_string();
        assert!(text.contains("--child-memory (MCP_CHILD_MEMORY)"), "{text}");
    }

    #[test]
    fn variables_keep_their_values_to_themselves() {
        let asked = child(&["A=b,c=d", "EMPTY="], &["HOME"]);
        let child = command(owned(&["sh", "-c"]), &asked).unwrap().unwrap();
        let env: Vec<_> = child.env.iter().map(|(name, value)| (&**name, value.expose())).collect();
        assert_eq!(env, [("A", "b,c=d"), ("EMPTY", "")]);
        assert_eq!(child.pass_env, ["HOME"]);
        assert_eq!((&*child.program, child.args), ("sh", vec!["-c".to_owned()]));

        for bad in ["hunter2", "=hunter2"] {
            let text = error(&[], &["A=b", bad], &[]);
            assert!(text.starts_with("value 2 of --env (MCP_ENV) is not NAME=VALUE"), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
        let text = error(&[], &[], &["A=hunter2"]);
        assert!(text.contains("--pass-env (MCP_PASS_ENV)") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn no_child_gets_the_token() {
        let text = error(&[], &["MCP_AUTH_TOKEN=hunter2"], &[]);
        assert!(text.starts_with("--env (MCP_ENV) names MCP_AUTH_TOKEN"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
        let text = error(&[], &[], &["MCP_AUTH_TOKEN"]);
        assert!(text.starts_with("--pass-env (MCP_PASS_ENV) names MCP_AUTH_TOKEN"), "{text}");
    }

    #[test]
    fn a_command_that_cannot_start_is_told_at_once() {
        assert!(
            error(&["no-such-program"], &[], &[])
                .contains("\"no-such-program\" is not found in PATH")
        );
        assert!(error(&["./no/such"], &[], &[]).contains("\"./no/such\" is not found:"));
        assert!(error(&[""], &[], &[]).contains("nothing stands behind `--`"));
        assert!(error(&["/etc/passwd"], &[], &[]).contains("chmod +x"));
        assert!(error(&["/etc"], &[], &[]).contains("is a directory"));
        assert!(command(Vec::new(), &child(&[], &[])).unwrap().is_none());
    }
}
