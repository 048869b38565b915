//! Promise: the tables of options in README.md and SPECIFICATION.md say what is declared.
//!
//! `WRITE_TABLES=1 cargo test --test tables` writes them. In SPECIFICATION.md the last two cells of
//! a row, what is promised and which tests keep it, are written by hand and stay.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use mcp_edge::Setting;

/// Limits by the floor that keeps them, then all else as `--help` has it.
fn declared(limits: bool) -> Vec<&'static Setting> {
    let mut declared: Vec<_> = mcp_edge::settings().filter(|it| it.is_limit == limits).collect();
    if limits {
        let groups = ["Limits", "Child", "Upstream", "Time limits"];
        declared.sort_by_key(|it| groups.iter().position(|group| *group == it.group));
    }
    declared
}

fn default(setting: &Setting) -> String {
    setting.default.map_or_else(|| setting.without.to_owned(), |default| format!("`{default}`"))
}

fn row(setting: &Setting) -> String {
    let Setting { name, row, .. } = setting;
    format!("| `--{name}` | `{}` | {} | {} |", setting.variable(), default(setting), row.trim())
}

/// The row of the page that has this option, with the cells behind the default as they are.
fn specified(setting: &Setting, page: &str) -> String {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `--"));
    let rows: BTreeMap<_, _> = rows.filter_map(|row| row.split_once("` | ")).collect();
    let kept = rows.get(setting.name).and_then(|rest| rest.split_once(" | "));
    let (_, kept) = kept.unwrap_or(("", "default | |"));
    format!("| `--{}` | {} | {kept}", setting.name, default(setting))
}

/// The page with the rows of the table behind this heading replaced.
fn with_table(page: &str, heading: &str, rows: &[String]) -> String {
    let (before, rest) = page.split_once(&format!("\n## {heading}\n")).unwrap();
    let (intro, table) = rest.split_once("\n|---").unwrap();
    let (rule, table) = table.split_once('\n').unwrap();
    let (_, after) = table.split_once("|\n\n").unwrap();
    let rows = rows.join("\n");
    format!("{before}\n## {heading}\n{intro}\n|---{rule}\n{rows}\n\n{after}")
}

fn check(page: &str, tables: impl Fn(&str) -> String) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = std::fs::read_to_string(&path).unwrap();
    let right = tables(&text);
    if std::env::var_os("WRITE_TABLES").is_some() {
        return std::fs::write(path, right).unwrap();
    }
    let wrong = text.lines().zip(right.lines()).find(|(is, right)| is != right);
    assert!(text == right, "{page}: run `WRITE_TABLES=1 cargo test --test tables`; {wrong:#?}");
}

#[test]
fn the_readme_has_the_declared_options() {
    check("README.md", |text| {
        let rows = |limits| declared(limits).into_iter().map(row).collect::<Vec<_>>();
        let text = with_table(text, "Limits", &rows(true));
        with_table(&text, "All other options", &rows(false))
    });
}

#[test]
fn the_specification_has_the_declared_limits_and_a_test_for_each() {
    check("SPECIFICATION.md", |text| {
        let rows: Vec<_> = declared(true).into_iter().map(|it| specified(it, text)).collect();
        let unkept: Vec<_> = rows.iter().filter(|row| !row.contains(".rs::")).collect();
        assert!(unkept.is_empty() || std::env::var_os("WRITE_TABLES").is_some(), "{unkept:#?}");
        with_table(text, "Limits", &rows)
    });
}
