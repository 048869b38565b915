//! What a child says: each line a message; whatever else stands there is counted and skipped.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::redact::Redactor;
use crate::backend::{During, Said};
use crate::frames::{Cut, Frames, Line};
use crate::jsonrpc::{Malformed, Message, RequestId, code};
use crate::tally::{Outcome, Tally};

/// Messages taken from one line; children of 2025-03-26 may send arrays.
const MAX_BATCH: usize = 1000;

/// Skipped lines that are each warned about; of those that follow, one is in [`QUIET`].
const WARNED: u64 = 3;
const QUIET: Duration = Duration::from_mins(1);

/// Bytes of a skipped line that are shown.
const SHOWN: usize = 200;

/// Hands a child's messages on until its output ends. Once `ending`, they are thrown away: the
/// pipe is still emptied, so that a child that writes can finish. The first message is `spoke`.
pub(super) async fn hand_on<R: AsyncRead + Unpin>(
    mut lines: Frames<R>,
    said: &mpsc::Sender<Said>,
    spoke: &CancellationToken,
    ending: &CancellationToken,
    noise: &mut Noise<'_>,
) {
    while let Some(line) = lines.next().await {
        if ending.is_cancelled() {
            continue;
        }
        for what in heard(line, noise) {
            spoke.cancel();
            let said = said.send(what);
            tokio::select! {
                biased;
                () = ending.cancelled() => break,
                sent = said => if sent.is_err() { break },
            }
        }
    }
}

fn heard(line: Line, noise: &mut Noise<'_>) -> Vec<Said> {
    match line {
        Line::Whole(bytes) => {
            let said = |message| Said::Message { message, during: During::Unsaid };
            messages(&bytes, noise).into_iter().map(said).collect()
        }
        Line::Cut(bytes, cut) => {
            noise.lost = Some(cut);
            match cut {
                Cut::TooLong => noise.skipped(Outcome::LineTooLong, "too long", &bytes),
                Cut::Short => noise.skipped(Outcome::LineUnbuffered, "no memory for it", &bytes),
            }
            Vec::new()
        }
        // Whoever waits for it would wait for the call's whole time.
        Line::Rest(skim) => skim.answers().into_iter().map(|id| noise.unanswered(id)).collect(),
    }
}

fn messages(bytes: &Bytes, noise: &mut Noise<'_>) -> Vec<Message> {
    let parsed = if Message::is_batch(bytes) {
        Message::parse_batch(bytes, MAX_BATCH)
    } else {
        Message::parse(bytes.clone()).map(|message| vec![message])
    };
    parsed.unwrap_or_else(|malformed| {
        let why = match malformed {
            Malformed::Syntax(_) => "not JSON",
            Malformed::TooDeep => "nested too deep",
            Malformed::Shape { .. } => "not JSON-RPC",
        };
        noise.skipped(Outcome::LineSkipped, why, bytes);
        Vec::new()
    })
}

/// Counts the lines that are no messages, and warns about some.
#[derive(Debug)]
pub(super) struct Noise<'a> {
    pid: i32,
    redactor: &'a Redactor,
    tally: Tally,
    max_line: usize,
    skipped: u64,
    warned: Option<Instant>,
    /// Why the line that comes in is lost.
    lost: Option<Cut>,
}

impl<'a> Noise<'a> {
    /// Of the child `pid`, whose lines may have `max_line` bytes.
    pub(super) fn of(pid: i32, redactor: &'a Redactor, tally: Tally, max_line: usize) -> Self {
        Self { pid, redactor, tally, max_line, skipped: 0, warned: None, lost: None }
    }

    /// What the caller is told whose answer was in a line that is lost.
    fn unanswered(&mut self, id: RequestId) -> Said {
        let text = match self.lost.take() {
            Some(Cut::Short) => {
                "the edge has no memory for the MCP server's answer: try again later".to_owned()
            }
            Some(Cut::TooLong) | None => {
                let most = self.max_line;
                format!("the MCP server's answer is longer than {most} bytes (--max-line-bytes)")
            }
        };
        Said::Unanswered { id, code: code::INTERNAL_ERROR, text }
    }

    fn skipped(&mut self, outcome: Outcome, why: &'static str, line: &[u8]) {
        self.tally.count(outcome);
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
mod tests {
    use super::*;

    fn read(line: &str) -> (usize, u64) {
        let redactor = Redactor::default();
        let mut noise = Noise::of(1, &redactor, Tally::default(), 100);
        let messages = messages(&Bytes::copy_from_slice(line.as_bytes()), &mut noise);
        (messages.len(), noise.skipped)
    }

    #[test]
    fn a_line_is_a_message_or_a_batch_or_noise() {
        let note = r#"{"jsonrpc":"2.0","method":"a"}"#;
        assert_eq!(read(note), (1, 0));
        assert_eq!(read(&format!(" [{note},{note}]")), (2, 0));
        assert_eq!(read("Listening on stdio"), (0, 1));
        assert_eq!(read("7"), (0, 1));
        assert_eq!(read(&format!("[{note},7]")), (0, 1));
        assert_eq!(read("[]"), (0, 1));
    }
}
