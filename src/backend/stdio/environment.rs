//! What a child is told through its environment: little, and never the edge's token.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use tracing::warn;

use super::command_error::CommandError;
use super::redact::Redactor;
use crate::config::{ChildCommand, Secret};

/// What a program needs to find its files and speak its user's language, and no more: what the
/// MCP SDKs hand on by default, and the locale. Proxies, certificates, cloud credentials and the
/// like are handed on by name.
const HANDED_ON: [&str; 11] = [
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "LANG", "LC_ALL", "LC_CTYPE", "TZ",
    "TMPDIR",
];

/// The edge's own token; whoever holds it may call.
const TOKEN: &str = "MCP_AUTH_TOKEN";

/// A child's whole environment, and the text that must not be repeated because of it.
#[derive(Debug)]
pub(super) struct Environment {
    pub(super) variables: BTreeMap<OsString, OsString>,
    pub(super) redactor: Redactor,
}

/// Puts a child's environment together: what is always handed on, then `pass_env`, then `env`; the
/// later wins. `own` reads the edge's own variables.
pub(super) fn environment(
    command: &ChildCommand,
    secrets: &[Secret],
    own: impl Fn(&str) -> Option<OsString>,
) -> Result<Environment, CommandError> {
    let inherited = HANDED_ON.into_iter().filter_map(|name| Some((name, own(name)?)));
    let mut variables: BTreeMap<OsString, OsString> =
        inherited.map(|(name, value)| (name.into(), value)).collect();
    let mut configured = Vec::new();
    for name in &command.pass_env {
        check_name(name)?;
        if let Some(value) = own(name) {
            configured.push((name, value));
        } else {
            warn!(name, "a variable to be handed to the child is not set");
        }
    }
    for (name, value) in &command.env {
        check_name(name)?;
        if value.expose().contains('\0') {
            return Err(CommandError::Value(name.clone()));
        }
        configured.push((name, value.expose().into()));
    }
    let redactor = Redactor::new(configured.iter().map(|(_, value)| value.as_os_str()));
    for (name, value) in configured {
        variables.insert(name.into(), value);
    }
    check_secrets(&variables, secrets)?;
    Ok(Environment { variables, redactor })
}

/// Whoever holds the edge's token may call: no variable may have it for a value.
pub(super) fn check_secrets(
    variables: &BTreeMap<OsString, OsString>,
    secrets: &[Secret],
) -> Result<(), CommandError> {
    for (name, value) in variables {
        if secrets.iter().any(|secret| value == OsStr::new(secret.expose())) {
            return Err(CommandError::TokenValue(name.to_string_lossy().into_owned()));
        }
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), CommandError> {
    let odd = |c: char| c == '=' || c.is_control() || c.is_whitespace();
    if name.is_empty() || name.contains(odd) {
        return Err(CommandError::Name(name.to_owned()));
    }
    if name.eq_ignore_ascii_case(TOKEN) { Err(CommandError::TokenName) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(name: &str) -> Option<OsString> {
        match name {
            "PATH" => Some("/bin".into()),
            "HOME" => Some("/home/edge".into()),
            "API_KEY" => Some("from-the-edge".into()),
            "MCP_AUTH_TOKEN" | "COPY" => Some("the-token".into()),
            "AWS_SECRET_ACCESS_KEY" => Some("not for everybody".into()),
            _ => None,
        }
    }

    fn build(pass: &[&str], set: &[(&str, &str)]) -> Result<Environment, CommandError> {
        let command = ChildCommand {
            program: "true".to_owned(),
            args: Vec::new(),
            pass_env: pass.iter().map(|name| (*name).to_owned()).collect(),
            env: set.iter().map(|(n, v)| ((*n).to_owned(), Secret::new(*v))).collect(),
            ..ChildCommand::default()
        };
        environment(&command, &[Secret::new("the-token")], own)
    }

    fn told(pass: &[&str], set: &[(&str, &str)]) -> Vec<String> {
        let variables = build(pass, set).unwrap().variables.into_iter();
        variables.map(|(n, v)| format!("{}={}", n.display(), v.display())).collect()
    }

    #[test]
    fn little_is_handed_on_unasked() {
        assert_eq!(told(&[], &[]), ["HOME=/home/edge", "PATH=/bin"]);
    }

    #[test]
    fn names_are_handed_on_and_pairs_win() {
        assert_eq!(
            told(&["API_KEY", "UNSET"], &[("HOME", "/srv"), ("EMPTY", "")]),
            ["API_KEY=from-the-edge", "EMPTY=", "HOME=/srv", "PATH=/bin"]
        );
        assert_eq!(told(&["API_KEY"], &[("API_KEY", "set")])[0], "API_KEY=set");
    }

    #[test]
    fn the_token_is_refused_by_name_and_by_value() {
        for refused in [
            build(&["MCP_AUTH_TOKEN"], &[]),
            build(&[], &[("MCP_AUTH_TOKEN", "another")]),
            build(&[], &[("mcp_auth_token", "another")]),
        ] {
            assert!(matches!(refused, Err(CommandError::TokenName)), "{refused:?}");
        }
        let by_value = build(&["COPY"], &[]).unwrap_err();
        assert_eq!(by_value.to_string(), "`COPY` would hand the edge's token to the child");
        assert!(matches!(build(&[], &[("X", "the-token")]), Err(CommandError::TokenValue(_))));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for name in ["", "A=B", "A B", "A\0"] {
            assert!(matches!(build(&[name], &[]), Err(CommandError::Name(_))), "{name:?}");
            assert!(matches!(build(&[], &[(name, "v")]), Err(CommandError::Name(_))), "{name:?}");
        }
        assert!(matches!(build(&[], &[("A", "v\0")]), Err(CommandError::Value(_))));
    }

    #[test]
    fn what_was_configured_is_not_repeated_and_what_is_common_is() {
        let environment = build(&["API_KEY"], &[("X", "a-secret-value")]).unwrap();
        let text = environment.redactor.text(b"from-the-edge a-secret-value /home/edge", false);
        assert_eq!(text, "[redacted] [redacted] /home/edge");
    }
}
