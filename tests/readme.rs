//! README.md and `mcp-edge --help` name the same options, variables and defaults.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

const README: &str = include_str!("../README.md");

/// What is said of one option: its variable, and its default if it has one.
#[derive(Debug, PartialEq, Eq)]
struct Described {
    variable: String,
    default: Option<String>,
}

fn help() -> String {
    let edge = env!("CARGO_BIN_EXE_mcp-edge");
    let output = Command::new(edge).arg("--help").env_clear().output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

fn is_name(c: char) -> bool {
    c.is_ascii_lowercase() || c == '-'
}

/// Options of the help text: a line that begins with the name, then its description to the next.
fn from_help(text: &str) -> BTreeMap<String, Described> {
    let mut blocks: Vec<(String, String)> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("--") {
            blocks.push((rest.chars().take_while(|c| is_name(*c)).collect(), String::new()));
        } else if let Some((_, said)) = blocks.last_mut() {
            said.push_str(line);
            said.push(' ');
        }
    }
    let between = |said: &str, open: &str| {
        let (_, rest) = said.split_once(open)?;
        Some(rest.split_once(']')?.0.to_owned())
    };
    let told = |said: &str| {
        let variable = between(said, "[env: ")?;
        Some(Described { variable, default: between(said, "[default: ") })
    };
    let options = blocks.into_iter().map(|(name, said)| {
        let told = told(&said).unwrap_or_else(|| panic!("--{name} has no variable: {said}"));
        (name, told)
    });
    options.collect()
}

/// Rows of the README's tables whose first cell is an option: option, variable, default, and the
/// rest. A default stands in backticks; whatever else stands there says that there is none.
fn from_readme(text: &str) -> BTreeMap<String, Described> {
    let mut options = BTreeMap::new();
    for row in text.lines().filter(|line| line.starts_with("| `--")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [option, variable, default, rest @ ..] = cells.as_slice() else {
            panic!("a row with too few cells: {row}");
        };
        assert!(rest.iter().any(|cell| !cell.is_empty()), "nothing is explained: {row}");
        let code =
            |cell: &str| cell.strip_prefix('`')?.split_once('`').map(|(it, _)| it.to_owned());
        let name = code(option).unwrap().chars().skip(2).take_while(|c| is_name(*c)).collect();
        let told = Described { variable: code(variable).unwrap(), default: code(default) };
        assert!(options.insert(name, told).is_none(), "twice: {row}");
    }
    options
}

fn variables(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.strip_prefix("MCP_").is_some_and(|rest| !rest.is_empty())).collect()
}

#[test]
fn the_readme_has_every_option_with_its_variable_and_default() {
    let help = from_help(&help());
    let readme = from_readme(README);
    assert!(help.len() > 40, "the help text was not understood: {help:?}");
    for (name, told) in &help {
        assert_eq!(Some(told), readme.get(name), "--{name}: help on the left, README on the right");
    }
    let gone: Vec<_> = readme.keys().filter(|name| !help.contains_key(*name)).collect();
    assert!(gone.is_empty(), "only in the README: {gone:?}");
}

#[test]
fn the_readme_names_no_variable_that_is_not_read() {
    let help = help();
    let unknown: Vec<_> = variables(README).difference(&variables(&help)).copied().collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
