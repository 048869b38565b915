//! The command line: what may be typed, and the environment's twin of each option.
//!
//! An option wins over its variable, a variable over the default. The variables are laid under the
//! command line as further options, so that there is one parser and one set of errors; the process
//! environment comes in as an argument, for which tests have a map.

mod access;
mod args;
mod child;
mod environment;
mod error;
mod hints;
mod names;
mod ranges;
mod settings;
#[cfg(test)]
mod tests;
mod upstream;
mod value;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use args::{Certificates, Options, Serving};
pub(crate) use args::{LogFormat, LogLevel};
use environment::Link;
pub(crate) use error::{ConfigError, bind_redirect_text, bind_text};
pub(crate) use hints::hint;
use hints::in_our_words;
pub(crate) use settings::{Background, LogSettings, Mode, Settings, TokenSource};

/// What was typed.
#[derive(Debug, Parser)]
#[command(
    name = "mcp-edge",
    version,
    about = "Puts any MCP server straight on the internet: TLS, token, limits and SSE in one binary",
    override_usage = "mcp-edge [OPTIONS] [-- COMMAND [ARG]...]\n       mcp-edge health [OPTIONS]",
    args_conflicts_with_subcommands = true,
    next_line_help = true
)]
struct CommandLine {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    action: Option<Subcommands>,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Ask a running edge whether it lives: exit code 0 if so, else 1 and a line that says why
    Health(Health),
}

/// Where a running edge is, told by the same options and variables as the edge itself.
#[derive(Clone, Debug, clap::Args)]
#[command(next_line_help = true)]
pub(crate) struct Health {
    #[command(flatten)]
    serving: Serving,
    #[command(flatten)]
    certificates: Certificates,
}

/// Options that were understood one by one, and not yet checked against each other.
#[derive(Clone, Debug)]
pub(crate) struct Args {
    options: Options,
    /// `MCP_AUTH_TOKEN`: in the environment only, because options show in `ps`.
    auth_token: Option<OsString>,
    /// Was `--` typed?
    dashes: bool,
    /// What is odd in the environment.
    notices: Vec<String>,
}

/// What to do.
#[derive(Debug)]
pub(crate) enum Asked {
    /// Serve, or speak on stdin and stdout.
    Run(Box<Args>),
    /// Ask a running edge.
    Health(Box<Health>),
}

/// Reads the command line `argv` (program name first) and the environment.
///
/// # Errors
///
/// What clap has to say, `--help` and `--version` among it.
pub(crate) fn parse(
    argv: impl IntoIterator<Item = OsString>,
    vars: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Asked, clap::Error> {
    let vars: BTreeMap<_, _> = vars.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let var = |name: &str| vars.get(OsStr::new(name)).cloned();
    let mut argv: Vec<_> = argv.into_iter().collect();
    let dashes = argv.iter().any(|word| word == "--");
    let command = command();
    let ours: Vec<_> = command.get_arguments().filter_map(clap::Arg::get_long).map(twin).collect();
    let typed = command.clone().try_get_matches_from(&argv).map_err(in_our_words)?;
    let (at, twins) = match typed.subcommand() {
        Some((name, matches)) => {
            (2, command.find_subcommand(name).map(|it| from_environment(it, matches, &var)))
        }
        None => (1, Some(from_environment(&command, &typed, &var))),
    };
    let at = at.min(argv.len());
    argv.splice(at..at, twins.unwrap_or_default());
    let matches = command.try_get_matches_from(&argv).map_err(in_our_words)?;
    let CommandLine { options, action } = CommandLine::from_arg_matches(&matches)?;
    Ok(match action {
        Some(Subcommands::Health(health)) => Asked::Health(Box::new(health)),
        None => {
            let notices = notices(&vars, &ours, &typed, &options.child.pass_env);
            Asked::Run(Box::new(Args { options, auth_token: var(AUTH_TOKEN), dashes, notices }))
        }
    })
}

/// The one secret among the variables.
const AUTH_TOKEN: &str = "MCP_AUTH_TOKEN";

/// The variable that stands for an option: `MCP_` and its name, but for one that is older than us.
fn twin(long: &str) -> String {
    match long {
        "path" => "MCP_SSE_PATH".to_owned(),
        long => format!("MCP_{}", long.to_uppercase().replace('-', "_")),
    }
}

fn command() -> clap::Command {
    let tell_twin = |arg: clap::Arg| match (arg.get_long(), arg.get_help()) {
        (Some(long), Some(help)) => {
            let help = format!("{help}\n[env: {}]", twin(long));
            arg.help(help)
        }
        _ => arg,
    };
    CommandLine::command()
        .mut_args(tell_twin)
        .mut_subcommand("health", |health| health.mut_args(tell_twin))
}

/// The options that were not typed but have a variable.
fn from_environment(
    command: &clap::Command,
    typed: &ArgMatches,
    var: &impl Fn(&str) -> Option<OsString>,
) -> Vec<OsString> {
    let absent = |arg: &&clap::Arg| {
        typed.value_source(arg.get_id().as_str()) != Some(ValueSource::CommandLine)
    };
    let mut options = Vec::new();
    for arg in command.get_arguments().filter(absent) {
        let Some(long) = arg.get_long() else { continue };
        let name = twin(long);
        let theirs = |value: &OsString| Link::of(&name, &value.to_string_lossy()).is_some();
        let Some(value) = var(&name).filter(|value| !theirs(value)) else {
            continue;
        };
        let list = matches!(arg.get_action(), ArgAction::Append);
        let values = if list { pieces(long, value) } else { vec![value] };
        for value in values {
            let mut option = OsString::from(format!("--{long}="));
            option.push(value);
            options.push(option);
        }
    }
    options
}

/// What is odd among the variables: those of others that have a name of ours, and those that were
/// probably meant to be ours. What is handed on to the child by name is its own.
fn notices(
    vars: &BTreeMap<OsString, OsString>,
    ours: &[String],
    typed: &ArgMatches,
    passed: &[String],
) -> Vec<String> {
    let is_typed = |name: &str| {
        let id = name.strip_prefix("MCP_").unwrap_or_default().to_ascii_lowercase();
        typed.try_contains_id(&id).is_ok()
            && typed.value_source(&id) == Some(ValueSource::CommandLine)
    };
    let mut notices = Vec::new();
    for (name, value) in vars {
        let Some(name) = name.to_str() else { continue };
        let value = value.to_string_lossy();
        match Link::of(name, &value) {
            Some(link) if !is_typed(name) => notices.push(link.warning(&value)),
            Some(_) => {}
            None if passed.iter().any(|passed| passed == name) => {}
            None => {
                let ours = ours.iter().map(String::as_str).chain([AUTH_TOKEN]);
                if let Some(our) = environment::meant(name, ours) {
                    notices.push(format!(
                        "{name} is set, and nothing here reads it: is {our} meant? If it is for the \
                         server behind, --pass-env {name} says so"
                    ));
                }
            }
        }
    }
    notices
}

/// A list in one variable: comma-separated; `MCP_ENV` one a line, because values may hold commas.
fn pieces(long: &str, value: OsString) -> Vec<OsString> {
    let Some(text) = value.to_str() else {
        return vec![value];
    };
    let pieces: Vec<&str> = match long {
        "env" => text.lines().filter(|line| !line.trim().is_empty()).collect(),
        _ => text.split(',').map(str::trim).filter(|piece| !piece.is_empty()).collect(),
    };
    pieces.into_iter().map(OsString::from).collect()
}
