//! What a child says: each line a message; whatever else stands there is counted and skipped. A line
//! that was meant for an answer, and cannot be read, is told to its caller.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::redact::Redactor;
use super::stderr::LastWords;
use super::watch::{Output, Watch};
use crate::backend::{During, FromBackend, say};
use crate::limits::lines::{Cut, Frames, Line, Step};
use crate::observe::metrics::{Metrics, Outcome};
use crate::wire::jsonrpc::{Malformed, Message, RequestId, Skim, code, error_in};

/// Messages taken from one line; children of 2025-03-26 may send arrays.
const MAX_BATCH: usize = 1000;

/// Skipped lines that are each warned about; of those that follow, one is in [`QUIET`].
const WARNED: u64 = 3;
const QUIET: Duration = Duration::from_mins(1);

/// Bytes of a skipped line that are logged, and that are kept for the last words.
const SHOWN: usize = 200;
const KEPT: usize = 1000;

/// Hands a child's messages on until its output ends. Once `ending`, they are thrown away: the
/// pipe is still emptied, so that a child that writes can finish. The first message is `spoke`.
pub(super) async fn hand_on<R: AsyncRead + Unpin>(
    mut lines: Frames<R>,
    to_session: &mpsc::Sender<FromBackend>,
    spoke: &CancellationToken,
    ending: &CancellationToken,
    noise: &mut Noise<'_>,
) {
    while let Some(step) = lines.step().await {
        if ending.is_cancelled() {
            continue;
        }
        let line = match step {
            Step::Line(line) => line,
            Step::Unfinished => {
                noise.watch.unfinished(Output::Stdout, lines.unfinished());
                continue;
            }
        };
        let broken_off = lines.is_ended();
        for what in heard(line, broken_off, noise) {
            spoke.cancel();
            let sending = say(to_session, what);
            tokio::select! {
                biased;
                () = ending.cancelled() => break,
                sent = sending => if sent.is_err() { break },
            }
        }
    }
}

/// What a line comes to. One that is `broken_off` is what a child wrote when it ended: its end says
/// more of that than the line.
fn heard(line: Line, broken_off: bool, noise: &mut Noise<'_>) -> Vec<FromBackend> {
    match line {
        Line::Whole(bytes) => match messages(&bytes) {
            Ok(messages) => messages.into_iter().map(|it| noise.said(it)).collect(),
            Err(malformed) => noise.unreadable(&bytes, &malformed, broken_off),
        },
        Line::Cut(bytes, cut) => {
            noise.lost = Some(cut);
            match cut {
                Cut::TooLong => {
                    noise.watch.overflows();
                    noise.skipped(Outcome::LineTooLong, "too long", &bytes);
                }
                Cut::Short => noise.skipped(Outcome::LineUnbuffered, "no memory for it", &bytes),
            }
            Vec::new()
        }
        // Whoever waits for it would wait for the call's whole time.
        Line::Rest(skim) => {
            noise.watch.ends_line();
            let text = noise.loss();
            skim.answers().into_iter().map(|id| unanswered(id, text.clone())).collect()
        }
    }
}

fn messages(bytes: &Bytes) -> Result<Vec<Message>, Malformed> {
    if Message::is_batch(bytes) {
        Message::parse_batch(bytes, MAX_BATCH)
    } else {
        Message::parse(bytes.clone()).map(|message| vec![message])
    }
}

fn unanswered(id: RequestId, text: String) -> FromBackend {
    FromBackend::Unanswered { id, code: code::INTERNAL_ERROR, text }
}

/// What `initialize` comes to that is answered under another id, or none.
fn nameless(hello: RequestId, named: Option<&RequestId>, answer: &[u8]) -> FromBackend {
    let named = named.map_or_else(|| "without an id".to_owned(), |id| format!("under id {id}"));
    let text = format!("the MCP server answered `initialize` {named}, not under {hello}");
    match error_in(answer) {
        Some((code, error)) => {
            FromBackend::Unanswered { id: hello, code, text: format!("{text}: {error}") }
        }
        None => unanswered(hello, text),
    }
}

/// What is wrong with an answer, for those who mend the server.
fn fault(bytes: &[u8], malformed: &Malformed) -> String {
    match (std::str::from_utf8(bytes), malformed) {
        (Err(error), _) => format!(
            "it is not UTF-8 from its byte {} on: have the server write UTF-8 (a Python one with \
             `--env PYTHONUTF8=1`)",
            error.valid_up_to().saturating_add(1)
        ),
        (Ok(text), _) if text.contains('\0') => "it holds zero bytes, as UTF-16 does".to_owned(),
        (Ok(text), Malformed::Syntax(_)) if has_no_number(text) => {
            "it holds NaN or Infinity, which JSON does not have".to_owned()
        }
        (Ok(_), _) => malformed.to_string(),
    }
}

/// Does NaN or Infinity stand there outside of strings?
fn has_no_number(text: &str) -> bool {
    let mut in_string = false;
    let mut escaped = false;
    text.bytes().enumerate().any(|(at, byte)| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'N' | b'I' if !in_string => {
                let rest = text.get(at..).unwrap_or_default();
                return rest.starts_with("NaN") || rest.starts_with("Infinity");
            }
            _ => {}
        }
        false
    })
}

/// Counts the lines that are no messages, and warns about some.
#[derive(Debug)]
pub(super) struct Noise<'a> {
    pid: i32,
    redactor: &'a Redactor,
    metrics: Metrics,
    watch: &'a Watch,
    last_words: &'a LastWords,
    skipped: u64,
    warned: Option<Instant>,
    /// Why the line that comes in is lost.
    lost: Option<Cut>,
}

impl<'a> Noise<'a> {
    /// Of the child `pid`.
    pub(super) fn of(
        pid: i32,
        redactor: &'a Redactor,
        metrics: Metrics,
        (watch, last_words): (&'a Watch, &'a LastWords),
    ) -> Self {
        Self { pid, redactor, metrics, watch, last_words, skipped: 0, warned: None, lost: None }
    }

    fn said(&self, message: Message) -> FromBackend {
        match self.watch.note_received(&message) {
            None => FromBackend::Message { message, during: During::Unknown },
            Some(hello) => nameless(hello, message.id(), message.bytes()),
        }
    }

    /// What the caller is told whose answer was in a line that is lost.
    fn loss(&mut self) -> String {
        match self.lost.take() {
            Some(Cut::Short) => {
                "the edge has no memory for the MCP server's answer: try again later".to_owned()
            }
            Some(Cut::TooLong) | None => {
                let most = self.watch.max_line();
                format!("the MCP server's answer is longer than {most} bytes (--max-line-bytes)")
            }
        }
    }

    /// A line that is no message: the caller that waits for an answer in it is told what is wrong.
    fn unreadable(
        &mut self,
        line: &[u8],
        malformed: &Malformed,
        broken_off: bool,
    ) -> Vec<FromBackend> {
        let skim = Skim::of(line);
        if broken_off || !skim.is_rpc() {
            let why = match malformed {
                Malformed::Syntax(_) => "not JSON",
                Malformed::TooDeep => "nested too deep",
                Malformed::Shape { .. } => "not JSON-RPC",
            };
            let text = self.redactor.excerpt(line, KEPT);
            self.watch.stray(line, &text);
            if !skim.is_rpc() {
                self.last_words.stdout.take_line(&text);
            }
            self.skipped(Outcome::LineSkipped, why, line);
            return Vec::new();
        }
        let text = fault(line, malformed);
        let answers = skim.answers();
        if answers.is_empty() {
            let error = error_in(line);
            let Some(hello) = error.and_then(|_error| self.watch.hears_nameless()) else {
                self.skipped(Outcome::LineSkipped, &text, line);
                return Vec::new();
            };
            self.skipped(Outcome::AnswerUnreadable, &text, line);
            return vec![nameless(hello, None, line)];
        }
        self.skipped(Outcome::AnswerUnreadable, &text, line);
        let text = format!("the MCP server's answer cannot be read: {text}");
        answers.into_iter().map(|id| unanswered(id, text.clone())).collect()
    }

    fn skipped(&mut self, outcome: Outcome, why: &str, line: &[u8]) {
        self.metrics.count(outcome);
        self.skipped = self.skipped.saturating_add(1);
        let quiet = self.warned.is_some_and(|at| at.elapsed() < QUIET);
        if self.skipped > WARNED && quiet {
            return;
        }
        self.warned = Some(Instant::now());
        let line = self.redactor.excerpt(line, SHOWN);
        warn!(
            target: "child", pid = self.pid, why, line, skipped = self.skipped,
            "skipped a line of output: stdout is for JSON-RPC messages only"
        );
    }
}

#[cfg(test)]
mod tests;
