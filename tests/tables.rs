//! Promise: the tables of options in README.md and SPECIFICATION.md say what is declared.
//!
//! `WRITE_TABLES=1 cargo test --test tables` writes them. In SPECIFICATION.md the last two cells of
//! a row, what is promised and which tests keep it, are written by hand and stay.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use mcp_edge::Setting;

const CHANGELOG: &str = include_str!("../CHANGELOG.md");

/// Every option, with its default if it has one. To change one breaks what operators have set up.
const PUBLISHED: &str = "
    transport=http host=127.0.0.1 port=8443 path=/mcp redirect-http workers cert key
    self-signed=false certs-dir=certs name tls-min=1.2 refuse-unknown-names=false
    insecure-http=false auth-token-file allow-anonymous=false allow-origin allow-host
    trusted-proxy pass-env env child-memory new-privileges=false max-line-bytes=16MiB upstream
    upstream-kind=auto upstream-host upstream-ca upstream-token-file forward-header pass
    pass-open upstream-connections=32 upstream-connect-timeout=5s upstream-head-timeout=60s
    upstream-wait=10s requests-per-second=10 burst=20 connections-per-ip=20 streams-per-ip=20
    max-connections=1000 max-unauthenticated=256 max-sessions=1000 sessions-per-ip=20
    max-children=100 max-header-bytes=32KiB max-headers=100 max-body-bytes=10MiB
    max-buffered-bytes=256MiB rate-wait=0s tls-handshake-timeout=10s header-timeout=10s
    body-idle-timeout=10s body-timeout=60s idle-timeout=75s call-timeout=300s
    keep-alive-interval=15s stream-age=1h session-idle-timeout=30m session-age=24h
    write-timeout=30s shutdown-timeout=30s log-level=INFO log-format=text report-interval=0s
";

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
fn no_option_and_no_default_changes_unnoticed() {
    let declared = mcp_edge::settings().map(|it| match it.default {
        Some(default) => format!("{}={default}", it.name),
        None => it.name.to_owned(),
    });
    let declared: BTreeSet<_> = declared.collect();
    let published = PUBLISHED.split_whitespace().map(str::to_owned).collect();
    assert_eq!(declared, published, "what is declared on the left");
}

#[test]
fn the_changelog_names_every_option() {
    let named = |it: &&Setting| CHANGELOG.contains(&format!("`--{}`", it.name));
    let missing: Vec<_> = mcp_edge::settings().filter(|it| !named(it)).collect();
    assert!(missing.is_empty(), "{missing:?}");
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
