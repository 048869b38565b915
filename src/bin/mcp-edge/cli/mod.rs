//! The command line, and the environment beneath it.
//!
//! A flag wins over its variable, a variable over the default. Each is a draft of the settings, and
//! they are laid over each other; what they mean is for the library to judge. The process environment
//! comes in as an argument, for which tests have a map.

mod command;
mod environment;
mod hints;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use clap::Command;
use clap::builder::TypedValueParser;
use mcp_edge::{Draft, Given, Repeats, Setting};

use self::command::{SettingParser, command, typed};
use self::environment::{AUTH_TOKEN, ForeignVariable, notices};
pub(crate) use self::hints::hint;
use self::hints::in_our_words;

/// What to do.
#[derive(Debug)]
pub(crate) enum Invocation {
    /// Serve, or speak on stdin and stdout. The lines say what is odd in the environment.
    Run(Draft, Vec<String>),
    /// Ask a running edge, which is where the same settings say.
    Health(Draft),
}

/// Variables that are set to something.
type Variables = BTreeMap<OsString, OsString>;

/// Reads the command line `argv` (program name first) and the environment.
///
/// # Errors
///
/// What clap has to say, `--help` and `--version` among it.
pub(crate) fn parse(
    argv: impl IntoIterator<Item = OsString>,
    vars: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Invocation, clap::Error> {
    let vars: Variables = vars.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let argv: Vec<_> = argv.into_iter().collect();
    let names_command = argv.iter().any(|word| word == "--");
    let mut command = command();
    let matches = command.try_get_matches_from_mut(argv).map_err(in_our_words)?;
    let subcommand = matches.subcommand();
    let (command, matches) = match &subcommand {
        Some((name, matches)) => (command.find_subcommand(name).unwrap_or(&command), *matches),
        None => (&command, &matches),
    };
    let typed = typed(matches);
    let mut draft = typed.clone().over(from_environment(command, &typed, &vars)?);
    if subcommand.is_some() {
        return Ok(Invocation::Health(draft));
    }
    draft.names_command = names_command;
    if let Some(token) = vars.get(OsStr::new(AUTH_TOKEN)) {
        draft.set_token(token.clone());
    }
    let notices = notices(&vars, &typed, &draft);
    Ok(Invocation::Run(draft, notices))
}

/// The settings that were not typed but have a variable. One that was typed may have any.
fn from_environment(
    command: &Command,
    typed: &Draft,
    vars: &Variables,
) -> Result<Draft, clap::Error> {
    let mut draft = Draft::default();
    let absent = |setting: &&Setting| !typed.has(setting.name);
    for setting in mcp_edge::settings().filter(absent) {
        let name = setting.variable();
        let Some(value) = vars.get(OsStr::new(&name)) else { continue };
        let arg = command.get_arguments().find(|arg| arg.get_id() == setting.name);
        let (Some(arg), None) = (arg, ForeignVariable::of(&name, &value.to_string_lossy())) else {
            continue;
        };
        let texts = pieces(setting, value);
        for text in &texts {
            let read = SettingParser(setting).parse_ref(command, Some(arg), text);
            let _as_it_is = read.map_err(in_our_words)?;
        }
        if !texts.is_empty() {
            draft.set(setting, texts, Given::Variable);
        }
    }
    Ok(draft)
}

/// The values in one variable.
fn pieces(setting: &Setting, value: &OsStr) -> Vec<OsString> {
    let Some(text) = value.to_str() else {
        return vec![value.to_owned()];
    };
    let pieces: Vec<&str> = match setting.repeats {
        Repeats::No => vec![text],
        Repeats::ByLines => text.lines().filter(|line| !line.trim().is_empty()).collect(),
        Repeats::ByCommas => {
            text.split(',').map(str::trim).filter(|piece| !piece.is_empty()).collect()
        }
    };
    pieces.into_iter().map(OsString::from).collect()
}
