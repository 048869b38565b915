//! Promise: the floor plan holds. A floor knows the floors beneath it, never one above; every file
//! says what it is for; and none has grown into two.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails, helpers of it too")]

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Lowest first: the library, up to its façade, then the binary. Two on one line do not know each
/// other.
const FLOORS: &[&[&str]] = &[
    &["addr", "pem", "protocol", "proxied", "sample", "tally"],
    &["budget", "shutdown", "strangers"],
    &["body", "events", "jsonrpc"],
    &["caller", "config", "frames", "limit"],
    &["upstream"],
    &["backend", "guard"],
    &["mcp"],
    &["http"],
    &["conn"],
    &["health", "listener"],
    &["report"],
    &["server"],
    &["fuzzing"],
    &["lib"],
    &["exit", "cli", "log", "signals"],
    &["banner", "descriptors", "observe"],
    &["run"],
    &["main"],
];

/// Past this a file has a second job.
const MOST_LINES: usize = 450;

fn floor(name: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&name))
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            found.push(path);
        }
    }
}

/// The modules that a line of code names from the crate's root on.
fn named(line: &str) -> impl Iterator<Item = &str> {
    let code = line.split("//").next().unwrap_or_default();
    code.split("crate::").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        rest.get(..end).unwrap_or_default()
    })
}

fn check(file: &Path, inside: &Path, faults: &mut String) {
    let text = std::fs::read_to_string(file).unwrap();
    let shown = inside.display();
    let name = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    let module = name.strip_suffix(".rs").unwrap_or(name);
    if !text.starts_with("//! ") {
        writeln!(faults, "{shown} has no header that says what it is for").unwrap();
    }
    let lines = text.lines().take_while(|line| line.trim() != "#[cfg(test)]").count();
    let is_test =
        inside.components().any(|part| part.as_os_str().to_string_lossy().starts_with("tests"));
    if lines > MOST_LINES && !is_test {
        writeln!(faults, "{shown} has {lines} lines, more than {MOST_LINES}").unwrap();
    }
    let Some(own) = floor(module) else {
        return writeln!(faults, "{shown}: `{module}` has no floor").unwrap();
    };
    for (line, number) in text.lines().zip(1..) {
        for other in named(line) {
            // A root re-export (a type, or a list of modules) hides which floor is meant.
            let beneath = other == module || floor(other).is_some_and(|other| other < own);
            if !beneath {
                writeln!(faults, "{shown}:{number}: `{module}` must not know `crate::{other}`")
                    .unwrap();
            }
        }
    }
}

#[test]
fn no_floor_knows_one_above_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    files.sort();
    assert!(files.len() > 30, "the sources were not found");
    let mut faults = String::new();
    for file in &files {
        check(file, file.strip_prefix(&root).unwrap(), &mut faults);
    }
    assert!(faults.is_empty(), "\n{faults}");
}

#[test]
fn modules_are_read_out_of_any_line() {
    let of = |line| named(line).collect::<Vec<_>>();
    assert_eq!(of("use crate::addr::ClientAddr;"), ["addr"]);
    assert_eq!(of("    pub(crate) fn x(_: crate::a_b::C, _: crate::d::E) {}"), ["a_b", "d"]);
    assert_eq!(of("use crate::{a, b};"), [""]);
    assert_eq!(of("let x = 1; // crate::above"), Vec::<&str>::new());
}
