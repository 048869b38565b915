//! Logging: one subscriber, to stderr.
//!
//! The level is for the edge's own events. Its dependencies stay at WARN, whatever the level is and
//! whatever `RUST_LOG` says: at finer levels hyper and h2 write header fields, tokens among them.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::time::SystemTime;
use std::{fmt, iter};

use mcp_edge::Report;
use serde::{Serialize, Serializer};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, registry};

use crate::cli::{LogFormat, LogLevel, LogSettings};

/// Starts logging for the whole process.
pub(crate) fn start(settings: LogSettings) {
    let LogSettings { level, format } = settings;
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // The process has one subscriber, and this is the only place that sets it.
    let _first = registry().with(lines.with_filter(filter(level))).try_init();
}

/// Writes what `log` logs as JSON, in a log of any format and level.
pub(crate) fn as_json(log: impl FnOnce()) {
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let lines = registry().with(lines.json().flatten_event(true));
    tracing::subscriber::with_default(lines, log);
}

/// One line for machines, in a log of any format and level.
pub(crate) fn report(report: &Report) {
    let line = Line { timestamp: humantime::format_rfc3339_millis(SystemTime::now()), report };
    // Numbers by name: there is nothing that JSON cannot say.
    if let Ok(line) = serde_json::to_string(&line) {
        say(format_args!("{line}"));
    }
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(serialize_with = "as_text")]
    timestamp: humantime::Rfc3339Timestamp,
    report: &'a Report,
}

fn as_text<T: fmt::Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

/// Says why the edge ends: a plain line for people, an event for machines.
pub(crate) fn complain(settings: LogSettings, error: &(dyn Error + 'static)) {
    match settings.format {
        LogFormat::Text => say(format_args!("mcp-edge: {}", chain(error))),
        LogFormat::Json => tracing::error!("{}", chain(error)),
    }
}

/// One line on stderr.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    // Nobody is left to be told that stderr is closed.
    let _told = writeln!(io::stderr().lock(), "{line}");
}

/// An error and what caused it, in one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // `child` is what the MCP server behind writes to its stderr.
    let others = Targets::new().with_default(level.min(LevelFilter::WARN));
    others.with_target("mcp_edge", level).with_target("child", level)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn dependencies_stay_quiet() {
        let trace = filter(LogLevel::Trace);
        assert!(trace.would_enable("mcp_edge::http", &Level::TRACE));
        assert!(trace.would_enable("child", &Level::INFO));
        assert!(!trace.would_enable("h2::codec", &Level::INFO));
        assert!(trace.would_enable("h2::codec", &Level::WARN));
        let error = filter(LogLevel::Error);
        assert!(!error.would_enable("rustls", &Level::WARN));
        assert!(!error.would_enable("mcp_edge", &Level::WARN));
    }
}
