//! SECURITY.md and SPECIFICATION.md promise nothing that no test keeps.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const README: &str = include_str!("../README.md");
const SECURITY: &str = include_str!("../SECURITY.md");
const SPECIFICATION: &str = include_str!("../SPECIFICATION.md");

/// The tests that a page names: what stands in backticks as `file::function`.
fn named(page: &str) -> BTreeSet<(&str, &str)> {
    let quoted = page.split('`').skip(1).step_by(2);
    quoted.filter_map(|it| it.split_once(".rs::")).collect()
}

/// Is this a function of the file, with a test's attribute before it?
fn is_test(source: &str, name: &str) -> bool {
    let Some((before, _)) = source.split_once(&format!("fn {name}(")) else { return false };
    let Some((before, _)) = before.rsplit_once('\n') else { return false };
    let attributes = before.lines().rev().take_while(|line| line.trim().starts_with("#["));
    attributes.map(str::trim).any(|line| line == "#[test]" || line.starts_with("#[tokio::test"))
}

/// The tests of `folder/mod.rs` may be in any file of the folder.
fn has_test(file: &str, name: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let own = root.join(file).with_extension("rs");
    let mut files = vec![own];
    if let Some(folder) = file.strip_suffix("/mod") {
        let inside = std::fs::read_dir(root.join(folder)).unwrap();
        files.extend(inside.map(|entry| entry.unwrap().path()));
    }
    files.iter().any(|file| std::fs::read_to_string(file).is_ok_and(|text| is_test(&text, name)))
}

#[test]
fn every_test_that_is_named_exists() {
    for (page, text, least) in
        [("SECURITY.md", SECURITY, 40), ("SPECIFICATION.md", SPECIFICATION, 50)]
    {
        let named = named(text);
        assert!(named.len() >= least, "{page} was not understood: {named:?}");
        let missing: Vec<_> = named.iter().filter(|(file, test)| !has_test(file, test)).collect();
        assert!(missing.is_empty(), "{page} names tests that are not there: {missing:?}");
    }
}

/// Rows whose first cell is an option: the option, and the cell with its default.
fn options(page: &str, at: usize) -> BTreeMap<&str, &str> {
    let rows = page.lines().filter(|line| line.starts_with("| `--"));
    let cells = rows.map(|row| row.trim_matches('|').split('|').map(str::trim));
    cells
        .map(Iterator::collect::<Vec<_>>)
        .map(|cells| (*cells.first().unwrap(), *cells.get(at).unwrap()))
        .collect()
}

#[test]
fn every_limit_of_the_readme_is_specified() {
    let (_, limits) = README.split_once("\n## Limits\n").unwrap();
    let (limits, _) = limits.split_once("\n## ").unwrap();
    let promised = options(limits, 2);
    assert!(promised.len() > 25, "the README was not understood: {promised:?}");
    assert_eq!(promised, options(SPECIFICATION, 1), "the README on the left");
}

#[test]
fn every_threat_and_every_exit_code_has_its_row() {
    for number in 1..=25 {
        let row = format!("\n| {number} | ");
        let (_, row) = SECURITY.split_once(&row).unwrap_or_else(|| panic!("no threat {number}"));
        assert!(row.lines().next().unwrap().contains(".rs::"), "no test for threat {number}");
    }
    let (_, codes) = README.split_once("\n## Exit codes and signals\n").unwrap();
    let codes = codes.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next());
    for code in codes.filter(|code| code.parse::<u8>().is_ok()) {
        assert!(SPECIFICATION.contains(&format!("\n| {code} | `")), "exit code {code}");
    }
}
