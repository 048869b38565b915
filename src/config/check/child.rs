//! The command behind the edge: is it there, and what of the environment does it get?

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::config::draft::Draft;
use crate::config::options::{CHILD_MEMORY, ENV, NEW_PRIVILEGES, PASS_ENV};
use crate::config::{ChildCommand, ChildFault, ChildLimits, ConfigError, Reason, Secret};

/// The variable that no child gets.
const AUTH_TOKEN: &str = "MCP_AUTH_TOKEN";

/// The child as asked for, if one is. What this process is, and its own limits, is the start's to say.
pub(super) fn command(draft: &Draft) -> Result<Option<ChildCommand>, ConfigError> {
    let memory = draft.option(&CHILD_MEMORY)?;
    let env = draft.list(&ENV)?;
    let env = env.iter().zip(1..).map(|(text, number)| variable(draft, text, number));
    let env = env.collect::<Result<_, _>>()?;
    let pass_env = draft.list(&PASS_ENV)?;
    let pass_env = pass_env.into_iter().zip(1..).map(|(text, number)| passed(draft, text, number));
    let pass_env = pass_env.collect::<Result<_, _>>()?;
    let Some((program, args)) = draft.command.split_first() else {
        return Ok(None);
    };
    executable(program, std::env::var_os("PATH").as_deref())?;
    let limits = ChildLimits {
        open_files: None,
        memory: memory.map(|bytes| u64::try_from(bytes).unwrap_or(u64::MAX)),
        new_privileges: draft.value(&NEW_PRIVILEGES)?,
    };
    let (program, args) = (program.clone(), args.to_vec());
    Ok(Some(ChildCommand { program, args, pass_env, env, limits, ..ChildCommand::default() }))
}

fn variable(draft: &Draft, text: &str, number: usize) -> Result<(String, Secret), ConfigError> {
    let wrong = |fault| Err(draft.error(ENV.setting.name, None, Reason::Child(fault)));
    match text.split_once('=') {
        Some((AUTH_TOKEN, _)) => wrong(ChildFault::GetsToken),
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), Secret::new(value))),
        _ => wrong(ChildFault::EnvForm(number)),
    }
}

fn passed(draft: &Draft, text: String, number: usize) -> Result<String, ConfigError> {
    let wrong = |fault| Err(draft.error(PASS_ENV.setting.name, None, Reason::Child(fault)));
    match text.as_str() {
        AUTH_TOKEN => wrong(ChildFault::GetsToken),
        "" => wrong(ChildFault::PassEnvForm(number)),
        name if name.contains('=') => wrong(ChildFault::PassEnvForm(number)),
        _ => Ok(text),
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
    let told = |fault| Err(ConfigError::command(program, fault));
    if program.is_empty() {
        return told(ChildFault::Empty);
    }
    if !candidates.iter().any(|it| it.exists()) {
        let word = program.split_whitespace().next().unwrap_or_default();
        if let Some(name) = set_variable(word) {
            return told(ChildFault::VariableBefore(name.to_owned()));
        }
        if word.len() < program.trim_end().len() {
            return told(ChildFault::Quoted(word.to_owned()));
        }
        let place = if program.contains('/') { "" } else { " in PATH" };
        return told(ChildFault::Missing(place));
    }
    if candidates.iter().any(|it| is_executable(it)) {
        return Ok(());
    }
    told(if candidates.iter().all(|it| it.is_dir() || !it.exists()) {
        ChildFault::IsDirectory
    } else {
        ChildFault::NotExecutable
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
    use crate::config::Given;

    fn draft(program: &[&str], env: &[&str], pass_env: &[&str]) -> Draft {
        let mut draft = Draft::default();
        let list = |texts: &[&str]| texts.iter().map(Into::into).collect();
        draft.set(&ENV.setting, list(env), Given::Flag);
        draft.set(&PASS_ENV.setting, list(pass_env), Given::Flag);
        draft.command = program.iter().map(|&text| text.to_owned()).collect();
        draft
    }

    fn error(program: &[&str], env: &[&str], pass_env: &[&str]) -> String {
        command(&draft(program, env, pass_env)).unwrap_err().to_string()
    }

    #[test]
    fn what_it_may_have_is_handed_on() {
        let mut asked = draft(&["sh"], &[], &[]);
        let limits = |asked: &Draft| command(asked).unwrap().unwrap().limits;
        let given = ChildLimits { open_files: None, memory: None, new_privileges: false };
        assert_eq!(limits(&asked), given);
        asked.set(&CHILD_MEMORY.setting, vec!["64MiB".into()], Given::Flag);
        asked.set(&NEW_PRIVILEGES.setting, vec!["true".into()], Given::Flag);
        let given = ChildLimits { memory: Some(64 << 20), new_privileges: true, ..given };
        assert_eq!(limits(&asked), given);
        asked.set(&CHILD_MEMORY.setting, vec!["1MiB".into()], Given::Flag);
        let text = command(&asked).unwrap_err().to_string();
        assert!(text.contains("--child-memory (MCP_CHILD_MEMORY)"), "{text}");
    }

    #[test]
    fn variables_keep_their_values_to_themselves() {
        let asked = draft(&["sh", "-c"], &["A=b,c=d", "EMPTY="], &["HOME"]);
        let child = command(&asked).unwrap().unwrap();
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
        for secret in ["KEY=hunter2", "KEY=hunter2 npx", "npx --key hunter2"] {
            let error = command(&draft(&[secret], &[], &[])).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
        assert!(error(&["/etc/passwd"], &[], &[]).contains("chmod +x"));
        assert!(error(&["/etc"], &[], &[]).contains("is a directory"));
        assert!(command(&draft(&[], &[], &[])).unwrap().is_none());
    }
}
