//! A command line without a process: typed options and a map for the environment.

mod checking;
mod parsing;

use mcp_edge::{ConfigError, Settings};

use super::*;

const TOKEN: &str = "0123456789abcdef";

fn parse_with(argv: &[&str], vars: &[(&str, &str)]) -> Result<Invocation, clap::Error> {
    let vars = vars.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let argv = ["mcp-edge"].iter().chain(argv).map(OsString::from);
    parse(argv, vars)
}

fn check(argv: &[&str], vars: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    match parse_with(argv, vars).unwrap_or_else(|error| panic!("{error}")) {
        Invocation::Run(draft, _) => draft.check(),
        Invocation::Health(draft) => panic!("{draft:?}"),
    }
}

/// With what every good start needs.
fn settings(argv: &[&str], vars: &[(&str, &str)]) -> Settings {
    let vars: Vec<_> = vars.iter().copied().chain([("MCP_AUTH_TOKEN", TOKEN)]).collect();
    let argv: Vec<_> = ["--self-signed"].iter().chain(argv).copied().collect();
    check(&argv, &vars).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(argv: &[&str], vars: &[(&str, &str)]) -> String {
    check(argv, vars).map(|settings| panic!("{settings:?}")).unwrap_err().to_string()
}

fn misread(argv: &[&str], vars: &[(&str, &str)]) -> String {
    parse_with(argv, vars).map(|asked| panic!("{asked:?}")).unwrap_err().to_string()
}

fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}
