//! What a child mutters: always drained, logged at a bounded rate, its last lines kept.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncRead;
use tokio::time::Instant;
use tracing::info;

use super::redact::{Redactor, shorten};
use super::watch::{Output, Watch};
use crate::limits::lines::{Frames, Line, Step};

/// Bytes of a line; the rest is cut off.
pub(super) const MAX_LINE: usize = 8 * 1024;

/// What is kept for the client that asks why the child ended.
const KEPT_LINES: usize = 20;
const KEPT_BYTES: usize = 4 * 1024;

/// Lines of one child that are logged in a second.
const LOGGED: u32 = 50;

/// What a child said last, shared with the code that reports its end.
#[derive(Debug, Default)]
pub(super) struct LastWords {
    pub(super) stderr: LastLines,
    /// Lines that are not even meant for messages.
    pub(super) stdout: LastLines,
}

impl LastWords {
    /// The text with the last words behind it, if there are any.
    pub(super) fn after(&self, text: &str) -> String {
        let text = self.stderr.joined(text, "; its last words: ");
        self.stdout.joined(&text, "; its last words on stdout: ")
    }
}

/// The last lines of one output.
#[derive(Debug, Default)]
pub(super) struct LastLines(Mutex<VecDeque<String>>);

impl LastLines {
    /// Keeps a line. What is told to clients is read in terminals, too.
    pub(super) fn take_line(&self, line: &str) {
        let mut line = line.replace(|c: char| c.is_control() && c != '\t', "");
        shorten(&mut line, KEPT_BYTES);
        let mut lines = self.0.lock();
        lines.push_back(line);
        while lines.len() > KEPT_LINES
            || lines.iter().map(|line| line.len() + 1).sum::<usize>() > KEPT_BYTES + 1
        {
            lines.pop_front();
        }
    }

    fn joined(&self, text: &str, opening: &str) -> String {
        let mut lines = self.0.lock();
        if lines.is_empty() {
            return text.to_owned();
        }
        format!("{text}{opening}{}", lines.make_contiguous().join("\n"))
    }
}

/// Reads a child's stderr to its end.
pub(super) async fn listen<R: AsyncRead + Unpin>(
    mut lines: Frames<R>,
    pid: i32,
    redactor: &Redactor,
    last_words: &LastWords,
    watch: &Watch,
) {
    let mut rate = PerSecond::default();
    while let Some(step) = lines.step().await {
        let text = match step {
            Step::Line(Line::Whole(bytes)) => redactor.text(&bytes, false),
            Step::Line(Line::Cut(bytes, _)) => redactor.text(&bytes, true),
            Step::Line(Line::Rest(_)) => continue,
            Step::Unfinished => {
                watch.unfinished(Output::Stderr, lines.unfinished());
                continue;
            }
        };
        let now = rate.admit(Instant::now());
        if let Some(dropped) = now.dropped {
            info!(target: "child", pid, dropped, "lines of stderr were not logged");
        }
        if now.logged {
            // A string is logged in its debug form: control characters are escaped.
            info!(target: "child", pid, line = text.as_str(), "stderr");
        }
        watch.mutters(&text);
        last_words.stderr.take_line(&text);
    }
    if rate.dropped > 0 {
        info!(target: "child", pid, dropped = rate.dropped, "lines of stderr were not logged");
    }
}

/// A count for each second.
#[derive(Debug, Default)]
struct PerSecond {
    second: Option<Instant>,
    logged: u32,
    dropped: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct Now {
    logged: bool,
    /// What was dropped before, to be told now.
    dropped: Option<u64>,
}

impl PerSecond {
    fn admit(&mut self, now: Instant) -> Now {
        let same = |since| now.saturating_duration_since(since) < Duration::from_secs(1);
        let mut dropped = None;
        if !self.second.is_some_and(same) {
            let before = std::mem::take(&mut self.dropped);
            dropped = (before > 0).then_some(before);
            (self.second, self.logged) = (Some(now), 0);
        }
        let logged = self.logged < LOGGED;
        if logged {
            self.logged += 1;
        } else {
            self.dropped = self.dropped.saturating_add(1);
        }
        Now { logged, dropped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_within_bounds() {
        let words = LastWords::default();
        assert_eq!(words.after("it ended"), "it ended");
        for n in 0..100 {
            words.stderr.take_line(&format!("line {n}"));
        }
        let text = words.after("it ended");
        assert!(text.starts_with("it ended; its last words: line 80\nline 81\n"), "{text}");
        assert!(text.ends_with("\nline 99"));
        words.stderr.take_line(&"x".repeat(10_000));
        assert_eq!(words.after("").len(), KEPT_BYTES + "; its last words: ".len());
        for _ in 0..10 {
            words.stderr.take_line(&"é".repeat(500));
        }
        assert!(words.after("").len() <= KEPT_BYTES + 20);
    }

    #[test]
    fn so_many_lines_a_second_and_the_rest_is_counted() {
        let mut rate = PerSecond::default();
        let begun = Instant::now();
        for _ in 0..LOGGED {
            assert_eq!(rate.admit(begun), Now { logged: true, dropped: None });
        }
        for _ in 0..7 {
            assert_eq!(rate.admit(begun), Now { logged: false, dropped: None });
        }
        let later = begun + Duration::from_secs(1);
        assert_eq!(rate.admit(later), Now { logged: true, dropped: Some(7) });
    }
}
