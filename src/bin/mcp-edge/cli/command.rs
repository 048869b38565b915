//! The command line that the declared settings make.

use std::ffi::{OsStr, OsString};

use clap::builder::{
    PathBufValueParser, PossibleValue, PossibleValuesParser, StringValueParser, TypedValueParser,
};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use mcp_edge::{Draft, Given, Setting, Takes};

/// What follows `--`.
const COMMAND: &str = "command";
/// The groups of settings that say where a running edge is.
const WHEREABOUTS: [&str; 2] = ["Serving", "Certificates"];

/// Everything that may be typed.
pub(super) fn command() -> Command {
    let behind = Arg::new(COMMAND)
        .last(true)
        .num_args(0..)
        .value_name("COMMAND")
        .help_heading("Command")
        .help(
            "The stdio MCP server to put behind the edge, with its arguments; without it the built-in \
             diagnostics server answers",
        );
    let health = Command::new("health")
        .about("Ask a running edge whether it lives: exit code 0 if so, else 1 and a line that says why")
        .next_line_help(true)
        .args(mcp_edge::settings().filter(|it| WHEREABOUTS.contains(&it.group)).map(arg));
    Command::new("mcp-edge")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Puts any MCP server straight on the internet: TLS, token, limits and SSE in one binary")
        .override_usage(
            "mcp-edge [OPTIONS] [-- COMMAND [ARG]...]\n       mcp-edge health [OPTIONS]",
        )
        .args_conflicts_with_subcommands(true)
        .next_line_help(true)
        .args(mcp_edge::settings().map(arg))
        .arg(behind)
        .subcommand(health)
}

fn arg(setting: &'static Setting) -> Arg {
    let is_switch = matches!(setting.takes, Takes::Switch);
    let arg = Arg::new(setting.name)
        .long(setting.name)
        .value_name(setting.value)
        .help_heading(setting.group)
        .help(format!("{}\n[env: {}]", setting.help, setting.variable()))
        .value_parser(SettingParser(setting))
        .ignore_case(matches!(setting.takes, Takes::Words(_)))
        .action(if setting.is_list() { ArgAction::Append } else { ArgAction::Set });
    let arg = match setting.default {
        Some(default) => arg.default_value(default),
        None => arg,
    };
    if is_switch {
        arg.num_args(0..=1).require_equals(true).default_missing_value("true")
    } else {
        arg
    }
}

/// Has a text read by its setting, with errors in clap's form. The text stays as it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct SettingParser(pub(super) &'static Setting);

impl SettingParser {
    fn words(words: &[&'static [&'static str]]) -> Vec<PossibleValue> {
        let known = words.iter().filter_map(|all| all.split_first());
        known.map(|(shown, others)| PossibleValue::new(*shown).aliases(others.to_vec())).collect()
    }
}

impl TypedValueParser for SettingParser {
    type Value = OsString;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        text: &OsStr,
    ) -> Result<OsString, clap::Error> {
        let Self(setting) = *self;
        match setting.takes {
            Takes::File => {
                PathBufValueParser::new().parse_ref(command, arg, text).map(OsString::from)
            }
            Takes::Words(words) => PossibleValuesParser::new(Self::words(&words()))
                .parse_ref(command, arg, text)
                .map(OsString::from),
            Takes::Text | Takes::Switch => {
                let read = move |text: String| {
                    setting.check_form(text.as_ref()).map(|()| OsString::from(text))
                };
                StringValueParser::new().try_map(read).parse_ref(command, arg, text)
            }
        }
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        match self.0.takes {
            Takes::Words(words) => Some(Box::new(Self::words(&words()).into_iter())),
            Takes::File | Takes::Text | Takes::Switch => None,
        }
    }
}

/// What was typed.
pub(super) fn typed(matches: &ArgMatches) -> Draft {
    let mut draft = Draft::default();
    for setting in mcp_edge::settings() {
        let is_typed = matches.try_contains_id(setting.name).is_ok()
            && matches.value_source(setting.name) == Some(ValueSource::CommandLine);
        if let Some(texts) = matches.try_get_many(setting.name).ok().flatten().filter(|_| is_typed)
        {
            draft.set(setting, texts.cloned().collect(), Given::Flag);
        }
    }
    let command = matches.try_get_many(COMMAND).ok().flatten();
    draft.command = command.map(|words| words.cloned().collect()).unwrap_or_default();
    draft
}
