//! Logging: one subscriber, to stderr, by way of [`crate::stderr`]; and panics, which are logged too.
//!
//! The level is for the edge's own events. Its dependencies stay at WARN, whatever the level is and
//! whatever `RUST_LOG` says: at finer levels hyper and h2 write header fields, tokens among them.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::time::SystemTime;
use std::{fmt, panic, thread};

use mcp_edge::{LogFormat, LogLevel, LogSettings, Report, chain};
use serde::{Serialize, Serializer};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, registry};

use crate::stderr::{self, Lines};

/// Starts logging for the whole process.
pub(crate) fn start(settings: LogSettings) {
    let LogSettings { level, format } = settings;
    stderr::start();
    let lines = tracing_subscriber::fmt::layer();
    let lines = match format {
        LogFormat::Text => {
            let colours = io::stderr().is_terminal();
            lines.with_ansi(colours).with_writer(Lines { colours }).boxed()
        }
        LogFormat::Json => {
            lines.with_writer(Lines { colours: false }).json().flatten_event(true).boxed()
        }
    };
    // The process has one subscriber, and this is the only place that sets it.
    let _first = registry().with(lines.with_filter(filter(level))).try_init();
    panic::set_hook(Box::new(panicked));
}

/// Logs a panic in one event. Who runs the task that panicked counts it.
fn panicked(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    // A text that was put together may hold what a client sent; one that stands in the source not.
    let said = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(not shown)");
    let thread = thread::current().name().unwrap_or_default().to_owned();
    tracing::error!(
        location,
        said,
        thread,
        "a panic: this is a fault of the edge, please report it"
    );
}

/// Writes what `log` logs as JSON, in a log of any format and level.
pub(crate) fn as_json(log: impl FnOnce()) {
    let lines = tracing_subscriber::fmt::layer().with_writer(Lines { colours: false });
    let lines = registry().with(lines.json().flatten_event(true));
    tracing::subscriber::with_default(lines, log);
}

/// One line for machines, in a log of any format and level.
pub(crate) fn report(report: &Report) {
    let report = FullReport { report, log_lines_dropped: stderr::dropped() };
    let line =
        ReportLine { timestamp: humantime::format_rfc3339_millis(SystemTime::now()), report };
    // Numbers by name: there is nothing that JSON cannot say.
    if let Ok(line) = serde_json::to_string(&line) {
        say(format_args!("{line}"));
    }
}

#[derive(Serialize)]
struct ReportLine<'a> {
    #[serde(serialize_with = "as_text")]
    timestamp: humantime::Rfc3339Timestamp,
    report: FullReport<'a>,
}

/// What the server holds, and what its process does not say.
#[derive(Serialize)]
struct FullReport<'a> {
    #[serde(flatten)]
    report: &'a Report,
    log_lines_dropped: u64,
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
    // It takes whatever it is given.
    let _taken = Lines { colours: false }.write(format!("{line}\n").as_bytes());
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
    use std::fmt::Write as _;

    use std::fmt::Debug;
    use std::sync::{Arc, Mutex};

    use tracing::field::{Field, Visit};
    use tracing::{Event, Level, Subscriber};
    use tracing_subscriber::layer::Context;

    use super::*;

    /// Keeps the fields of what is logged.
    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<String>>);

    impl<S: Subscriber> Layer<S> for Seen {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            event.record(&mut self.clone());
        }
    }

    impl Visit for Seen {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            write!(self.0.lock().unwrap(), "{field}={value:?};").unwrap();
        }
    }

    /// The only test of this binary that sets the hook; it puts the old one back.
    #[test]
    fn a_panic_is_logged_with_its_place_and_nothing_of_a_request() {
        let seen = Seen::default();
        let before = panic::take_hook();
        panic::set_hook(Box::new(panicked));
        tracing::subscriber::with_default(registry().with(seen.clone()), || {
            let secret = "hunter2";
            let _told = panic::catch_unwind(|| panic!("{secret} is no number"));
            let _told = panic::catch_unwind(|| panic!("of the source"));
        });
        panic::set_hook(before);
        let seen = seen.0.lock().unwrap().clone();
        assert_eq!(seen.matches("location=\"src/bin/mcp-edge/log.rs:").count(), 2, "{seen}");
        assert!(seen.contains("said=\"of the source\""), "{seen}");
        assert!(seen.contains("said=\"(not shown)\""), "{seen}");
        assert!(!seen.contains("hunter2"), "{seen}");
    }

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
