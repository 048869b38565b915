//! Promise: the floor plan holds. A floor knows the floors under it, never one above. No file
//! imports in a circle. Every file says what it is for, and none has grown into two. The walks in
//! `docs/architecture.md` name files and functions that are there.
//!
//! The map of the imports, in figures: `cargo test --test architecture -- --nocapture the_map`.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test ends where it fails, helpers of it too"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The library, lowest floor first. Two on one line do not know each other.
const LIBRARY: &[&[&str]] = &[
    &["observe", "wire"],
    &["drain", "limits"],
    &["caller", "config"],
    &["client"],
    &["backend", "guard"],
    &["policy"],
    &["mcp"],
    &["http"],
    &["conn"],
    &["health", "listener"],
    &["server"],
    &["fuzzing"],
    &["lib"],
];

/// The binary, which knows the library by its public items alone.
const BINARY: &[&[&str]] = &[
    &["bind", "cli", "exit", "signals", "stderr", "token"],
    &["banner", "descriptors", "log"],
    &["run"],
    &["main"],
];

/// Where the binary is, in `src/`.
const BIN: &str = "bin/mcp-edge";

/// Past this a file has a second job.
const MOST_LINES: usize = 450;

/// Entries that `src/` may show.
const MOST_ENTRIES: usize = 21;

/// One source file.
struct Source {
    /// Its path in `src/`.
    path: PathBuf,
    text: String,
    /// Its module, from the crate's root on: `["mcp", "session", "state"]`.
    module: Vec<String>,
    is_binary: bool,
}

impl Source {
    fn read(root: &Path, path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let path = path.strip_prefix(root).unwrap().to_owned();
        let is_binary = path.starts_with(BIN);
        let inside = path.strip_prefix(BIN).unwrap_or(&path).with_extension("");
        let mut module: Vec<String> =
            inside.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        if module.len() > 1 && module.last().is_some_and(|last| last == "mod") {
            module.pop();
        }
        Self { path, text, module, is_binary }
    }

    fn floor(&self) -> &str {
        &self.module[0]
    }

    fn is_test(&self) -> bool {
        self.module.iter().any(|part| part == "tests" || part == "testing" || part == "timing")
    }

    fn is_fuzzing(&self) -> bool {
        self.module.iter().any(|part| part == "fuzzing")
    }

    /// The code that is no test of its own.
    fn code(&self) -> impl Iterator<Item = &str> {
        let lines =
            self.text.lines().take_while(|line| line.trim() != "#[cfg(test)]" || self.is_test());
        lines.map(|line| line.split("//").next().unwrap_or_default())
    }
}

/// Sorted by path.
fn sources() -> Vec<Source> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    found.sort();
    assert!(found.len() > 30, "the sources were not found");
    found.iter().map(|path| Source::read(&root, path)).collect()
}

fn floor(plan: &[&[&str]], name: &str) -> Option<usize> {
    plan.iter().position(|floor| floor.contains(&name))
}

/// The floors that a line of code names from the crate's root on.
fn named(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        rest.get(..end).unwrap_or_default()
    })
}

fn check(source: &Source, faults: &mut String) {
    let shown = source.path.display();
    let own = source.floor();
    if !source.text.starts_with("//! ") {
        writeln!(faults, "{shown} has no header that says what it is for").unwrap();
    }
    let lines = source.text.lines().take_while(|line| line.trim() != "#[cfg(test)]").count();
    if lines > MOST_LINES && !source.is_test() {
        writeln!(faults, "{shown} has {lines} lines, more than {MOST_LINES}").unwrap();
    }
    let plan = if source.is_binary { BINARY } else { LIBRARY };
    let Some(height) = floor(plan, own) else {
        return writeln!(faults, "{shown}: `{own}` has no floor").unwrap();
    };
    for (line, number) in source.text.lines().zip(1..) {
        for other in named(line.split("//").next().unwrap_or_default()) {
            // A root re-export (a type, or a list of modules) hides which floor is meant.
            let is_under = other == own || floor(plan, other).is_some_and(|other| other < height);
            if !is_under {
                writeln!(faults, "{shown}:{number}: `{own}` must not know `crate::{other}`")
                    .unwrap();
            }
        }
    }
}

#[test]
fn no_floor_knows_one_above_it() {
    let mut faults = String::new();
    for source in sources() {
        check(&source, &mut faults);
    }
    assert!(faults.is_empty(), "\n{faults}");
}

/// Who imports whom, by file.
struct Map<'a> {
    /// By module path, joined with `::`. The binary's begin with `bin::`.
    sources: BTreeMap<String, &'a Source>,
    /// Names that a module hands on, and the module that has them.
    exports: BTreeMap<(String, String), String>,
    arrows: BTreeMap<String, BTreeSet<String>>,
}

impl<'a> Map<'a> {
    fn of(sources: &'a [Source]) -> Self {
        let counted = sources.iter().filter(|source| !source.is_test() && !source.is_fuzzing());
        let sources: BTreeMap<_, _> = counted.map(|source| (Self::key(source), source)).collect();
        let mut map = Self { sources, exports: BTreeMap::new(), arrows: BTreeMap::new() };
        for (key, source) in map.sources.clone() {
            for (path, is_public) in paths(source) {
                let Some((target, name)) = map.resolve(&key, source, &path) else { continue };
                if is_public && path.starts_with("self::") {
                    map.exports.insert((key.clone(), name), target);
                }
            }
        }
        for (key, source) in map.sources.clone() {
            let mut arrows = BTreeSet::new();
            for (path, is_public) in paths(source) {
                let Some((mut target, name)) = map.resolve(&key, source, &path) else { continue };
                // A list of what others have is no use of it, except in the façade.
                if is_public && path.starts_with("self::") && key != "lib" {
                    continue;
                }
                // The house hands a name on twice at most.
                for _ in 0..3 {
                    if let Some(next) = map.exports.get(&(target.clone(), name.clone())) {
                        target.clone_from(next);
                    }
                }
                if target != key {
                    arrows.insert(target);
                }
            }
            map.arrows.insert(key, arrows);
        }
        map
    }

    fn key(source: &Source) -> String {
        let root = if source.is_binary { "bin::" } else { "" };
        format!("{root}{}", source.module.join("::"))
    }

    /// The module that a path leads to, and the name that it takes there.
    fn resolve(&self, key: &str, source: &Source, path: &str) -> Option<(String, String)> {
        let mut segments = path.split("::").peekable();
        let mut at: Vec<&str> = key.split("::").collect();
        // The façade and the street door are the root, and not a module of it.
        let is_root = source.module.len() == 1 && matches!(source.floor(), "lib" | "main");
        if is_root {
            at.pop();
        }
        match segments.next()? {
            "crate" => at.truncate(usize::from(source.is_binary)),
            "mcp_edge" if source.is_binary => return Some(("lib".to_owned(), String::new())),
            "self" => {}
            "super" => drop(at.pop()),
            first if is_root && self.sources.contains_key(first) => at.push(first),
            _ => return None,
        }
        while segments.next_if_eq(&"super").is_some() {
            at.pop();
        }
        while let Some(next) = segments.peek() {
            at.push(next);
            if !self.sources.contains_key(&at.join("::")) {
                at.pop();
                break;
            }
            segments.next();
        }
        let target = at.join("::");
        self.sources
            .contains_key(&target)
            .then(|| (target, segments.next().unwrap_or_default().to_owned()))
    }

    /// Files that reach each other, in groups.
    fn circles(&self) -> BTreeSet<Vec<String>> {
        let reach: BTreeMap<&String, BTreeSet<String>> =
            self.arrows.keys().map(|key| (key, reached(&self.arrows, key))).collect();
        let mutual = |key: &String| -> Vec<String> {
            let back = |other: &&String| reach.get(other).is_some_and(|it| it.contains(key));
            reach[key].iter().filter(back).cloned().collect()
        };
        self.arrows.keys().map(mutual).filter(|group| !group.is_empty()).collect()
    }

    /// The same arrows between the entries of `src/`.
    fn entries(&self) -> BTreeMap<String, BTreeSet<String>> {
        let entry = |key: &String| key.split("::").next().unwrap().to_owned();
        let mut entries = BTreeMap::<String, BTreeSet<String>>::new();
        for (from, to) in &self.arrows {
            let own = entry(from);
            let others = to.iter().map(entry).filter(|other| *other != own);
            entries.entry(own.clone()).or_default().extend(others.collect::<Vec<_>>());
        }
        entries
    }
}

/// Paths that code names, from the crate, its own module or its parent on, with one item at the
/// end; true beside those that are handed on.
fn paths(source: &Source) -> Vec<(String, bool)> {
    let code = source.code().collect::<Vec<_>>().join(" ");
    let mut found = Vec::new();
    for root in ["crate::", "super::", "self::", "mcp_edge::"] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].trim_end();
            // `pub(in …)` says who may see, and uses nothing.
            if before.ends_with("::")
                || before.ends_with("(in")
                || code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
            {
                continue;
            }
            found.extend(items(&code[at..], before));
        }
    }
    // The roots of both crates name their modules as they are.
    if matches!(source.floor(), "lib" | "main") {
        for (at, _) in code.match_indices("use ") {
            found.extend(items(&code[at + 4..], &code[..at + 3]));
        }
    }
    found
}

fn items(text: &str, before: &str) -> Vec<(String, bool)> {
    let is_public = before.strip_suffix("use").is_some_and(|rest| {
        let rest = rest.trim_end();
        rest.ends_with("pub") || rest.ends_with(')') && rest.contains("pub(")
    });
    let end =
        text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(text.len());
    let path = text[..end].trim_end_matches(':');
    let list = text[end..].strip_prefix('{').and_then(|rest| rest.split('}').next());
    let Some(list) = list else { return vec![(path.to_owned(), is_public)] };
    let item =
        |item: &str| (format!("{path}::{}", item.split(" as ").next().unwrap().trim()), is_public);
    list.split(',').filter(|it| !it.trim().is_empty()).map(item).collect()
}

fn reached(arrows: &BTreeMap<String, BTreeSet<String>>, from: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut next: Vec<&String> = arrows[from].iter().collect();
    while let Some(at) = next.pop() {
        if seen.insert(at.clone()) {
            next.extend(&arrows[at]);
        }
    }
    seen
}

/// How many entries stand on top of each other: the longest way down.
fn levels(arrows: &BTreeMap<String, BTreeSet<String>>) -> usize {
    let mut height: BTreeMap<&String, usize> = arrows.keys().map(|key| (key, 1)).collect();
    // A circle would raise its members for ever.
    for _ in 0..arrows.len() {
        for (from, to) in arrows {
            let under = to.iter().map(|other| height[other]).max().unwrap_or(0);
            height.insert(from, height[from].max(under + 1).min(arrows.len()));
        }
    }
    height.into_values().max().unwrap_or(0)
}

#[test]
fn the_map_of_imports_has_no_circle() {
    let sources = sources();
    let map = Map::of(&sources);
    let entries = map.entries();
    let circles = map.circles();
    let arrows: usize = entries.values().map(BTreeSet::len).sum();
    println!(
        "entries {}, levels {}, arrows {arrows}; files {}, arrows between them {}, circles {}",
        entries.len(),
        levels(&entries),
        map.arrows.len(),
        map.arrows.values().map(BTreeSet::len).sum::<usize>(),
        circles.len(),
    );
    for (entry, others) in &entries {
        println!(
            "  {entry} -> {}",
            others.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
        );
    }
    assert!(arrows > 40, "the imports were not found");
    assert!(entries.len() <= MOST_ENTRIES, "{} entries in src/", entries.len());
    assert!(circles.is_empty(), "files that import each other: {circles:#?}");
}

/// Stops that a walk may have.
const MOST_STOPS: usize = 15;

/// The stops of a walk in the plan of the house: each names a file and a function.
fn stops<'a>(plan: &'a str, title: &str) -> Vec<(&'a str, &'a str)> {
    let (_before, walk) = plan.split_once(title).unwrap();
    let walk = walk.split("\n## ").next().unwrap();
    let number = |line: &str| line.split_once(". ").is_some_and(|(no, _)| no.parse::<u8>().is_ok());
    let stop = |line: &'a str| {
        let mut spans = line.split('`').skip(1).step_by(2);
        (spans.next().unwrap(), spans.next().unwrap())
    };
    walk.lines().filter(|line| number(line)).map(stop).collect()
}

#[test]
fn the_walks_name_functions_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let plan = std::fs::read_to_string(root.join("docs/architecture.md")).unwrap();
    for title in ["## The walk of a POST", "## The walk of a GET stream"] {
        let stops = stops(&plan, title);
        assert!((10..=MOST_STOPS).contains(&stops.len()), "{title}: {} stops", stops.len());
        for (file, path) in stops {
            let text = std::fs::read_to_string(root.join("src").join(file)).unwrap();
            let name = path.rsplit("::").next().unwrap();
            let defined =
                text.contains(&format!("fn {name}(")) || text.contains(&format!("fn {name}<"));
            assert!(defined, "{title}: no `{path}` in {file}");
        }
    }
}
