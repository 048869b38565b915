//! What a child does instead of speaking MCP.
//!
//! Most programs that never answer are no MCP servers on stdin and stdout: they ask a question, serve
//! HTTP, print a banner, or frame their messages in another way. What they write tells which. Only
//! two things are certain enough to end a child for: messages behind `Content-Length` headers, and
//! more bytes than one line may have, without one message. All else may be a server that starts
//! slowly, and is logged once.

use parking_lot::Mutex;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::looks::{Looks, is_length_header, shown};
use super::redact::Redactor;
use crate::wire::jsonrpc::{Kind, Message, RequestId};

/// How long `initialize` may wait before it is logged what the child does instead.
pub(super) const SLOW: Duration = Duration::from_secs(10);

/// How long a message behind a `Content-Length` header has for the end of its line.
const FRAMED: Duration = Duration::from_secs(2);

/// How long a child that has written more than one line may have has for a message.
const MUTE: Duration = Duration::from_secs(30);

/// Bytes of an unfinished line that are kept.
const KEPT: usize = 1024;

/// Which of a child's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    Stdout,
    Stderr,
}

/// What is certain to be no MCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoMcp {
    /// It frames its messages as the Language Server Protocol does.
    Framed,
    /// It writes and writes, and no message.
    Endless,
}

impl NoMcp {
    /// Behind "the server".
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Framed => {
                "frames its messages with Content-Length headers; MCP over stdio wants one JSON \
                 text a line"
            }
            Self::Endless => {
                "wrote more to stdout than one line may have (--max-line-bytes), and no MCP \
                 message for 30 s"
            }
        }
    }
}

/// A line that tells what a child is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Clue {
    looks: Looks,
    output: Output,
    text: String,
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
enum WatchLook {
    /// Nothing, until then.
    Wait(Option<Instant>),
    /// Log that `initialize` waits.
    Warn,
    /// End the child.
    End(NoMcp),
}

/// What is known of the first `initialize`.
#[derive(Debug, Default)]
struct Hello {
    /// Its id, and when the child was told it.
    told: Option<(RequestId, Instant)>,
    /// The child was told something else, to which an answer could belong.
    told_more: bool,
    answered: bool,
    warned: bool,
}

/// What is known of `Content-Length` headers.
#[derive(Debug, Default)]
struct HeaderFraming {
    /// There were heads of HTTP: their lines look like this framing's.
    http: bool,
    header: bool,
    /// Since when a message is there behind a header.
    since: Option<Instant>,
}

/// What is known of one child.
#[derive(Debug, Default)]
struct ChildBooks {
    max_line: usize,
    hello: Hello,
    /// It has said a message.
    spoke: bool,
    /// Bytes of stdout before its first message.
    noise: usize,
    /// Since when it has written more than one line may have, without a message.
    endless: Option<Instant>,
    framing: HeaderFraming,
    clue: Option<Clue>,
    /// What stands there of a line that has no end, of stdout and of stderr.
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl ChildBooks {
    /// The `initialize` that waits, if nothing else was told: whatever answers, answers that.
    fn sole_hello(&self) -> Option<&RequestId> {
        let waits = !self.hello.answered && !self.hello.told_more;
        self.hello.told.as_ref().map(|(id, _)| id).filter(|_| waits)
    }

    /// A line that is no message. True if it begins a time.
    fn stray(&mut self, line: &[u8], now: Instant) -> bool {
        if self.spoke {
            return false;
        }
        self.framing.http |= line.starts_with(b"HTTP/");
        self.framing.header |= is_length_header(line);
        self.noise = self.noise.saturating_add(line.len());
        let endless = self.noise > self.max_line && self.endless.is_none();
        if endless {
            self.endless = Some(now);
        }
        self.opens_frame(line, now) | endless
    }

    fn opens_frame(&mut self, line: &[u8], now: Instant) -> bool {
        let HeaderFraming { http, header, since } = &mut self.framing;
        let framed = *header && !*http && since.is_none() && !self.spoke;
        let opens = framed && line.trim_ascii_start().starts_with(b"{");
        if opens {
            *since = Some(now);
        }
        opens
    }

    fn unfinished(&mut self, output: Output, line: &[u8], now: Instant) -> bool {
        if self.hello.answered {
            return false;
        }
        let kept = match output {
            Output::Stdout => &mut self.stdout,
            Output::Stderr => &mut self.stderr,
        };
        kept.clear();
        kept.extend_from_slice(on_screen(line));
        output == Output::Stdout && self.opens_frame(line, now)
    }

    fn finished(&mut self, output: Output, text: &str) {
        if self.hello.answered {
            return;
        }
        let text = shown(text);
        let Some(looks) = Looks::of_line(&text, output == Output::Stdout) else { return };
        if self.clue.as_ref().is_none_or(|clue| looks >= clue.looks) {
            self.clue = Some(Clue { looks, output, text });
        }
    }

    fn look(&mut self, now: Instant) -> WatchLook {
        let framed = self.framing.since.filter(|_| !self.spoke).map(|since| since + FRAMED);
        if framed.is_some_and(|due| now >= due) {
            return WatchLook::End(NoMcp::Framed);
        }
        let mute = self.endless.map(|since| since + MUTE);
        if mute.is_some_and(|due| now >= due) {
            return WatchLook::End(NoMcp::Endless);
        }
        let waits = !self.hello.answered && !self.hello.warned;
        let slow = self.hello.told.as_ref().map(|(_, told)| *told + SLOW).filter(|_| waits);
        if slow.is_some_and(|due| now >= due) {
            self.hello.warned = true;
            return WatchLook::Warn;
        }
        WatchLook::Wait([framed, mute, slow].into_iter().flatten().min())
    }

    /// What the child seems to do instead of answering.
    fn suspicion(&self, redactor: &Redactor) -> String {
        let both = [(Output::Stdout, &self.stdout), (Output::Stderr, &self.stderr)];
        let unfinished = both.map(|(output, bytes)| {
            let text = shown(&redactor.unfinished(bytes));
            (!text.is_empty()).then(|| Clue { looks: Looks::of_prompt(&text), output, text })
        });
        // A prompt is what it stopped at; else the line that says most.
        let prompt = unfinished.into_iter().flatten().max_by_key(|clue| clue.looks);
        let (clue, end) = match (prompt, &self.clue) {
            (Some(prompt), Some(clue)) if clue.looks > prompt.looks => (Some(clue.clone()), true),
            (Some(prompt), _) => (Some(prompt), false),
            (None, clue) => (clue.clone(), true),
        };
        match clue {
            Some(Clue { looks, output, text }) => {
                let output = if output == Output::Stdout { "stdout" } else { "stderr" };
                let end = if end { "" } else { ", without the end of the line" };
                format!("it wrote {text:?} to {output}{end}, which looks like {}", looks.text())
            }
            None if self.endless.is_some() || !self.stdout.is_empty() => {
                "it writes to stdout what is no line of text, and not this answer".to_owned()
            }
            None if self.spoke => "it sends messages, and not this answer".to_owned(),
            None => "it wrote nothing to stdout: it may still be starting (npx and uvx download \
                     first), or it does not speak MCP on stdin and stdout"
                .to_owned(),
        }
    }
}

/// What a terminal would show of a line: a program that shows its progress begins again and again.
fn on_screen(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let end = line.get(line.len().saturating_sub(KEPT)..).unwrap_or(line);
    match end.iter().rposition(|byte| *byte == b'\r') {
        Some(at) => end.get(at + 1..).unwrap_or_default(),
        None => line.get(..KEPT).unwrap_or(line),
    }
}

/// Watches one child.
#[derive(Debug)]
pub(super) struct Watch {
    books: Mutex<ChildBooks>,
    /// A time has begun.
    begun: Notify,
}

impl Watch {
    /// Over a child whose lines may have `max_line` bytes.
    pub(super) fn new(max_line: usize) -> Self {
        let books = Mutex::new(ChildBooks { max_line, ..ChildBooks::default() });
        Self { books, begun: Notify::new() }
    }

    /// Bytes that a line may have.
    pub(super) fn max_line(&self) -> usize {
        self.books.lock().max_line
    }

    fn wake_if(&self, begun: bool) {
        if begun {
            self.begun.notify_one();
        }
    }

    /// The child is told this.
    pub(super) fn note_sent(&self, message: &Message) {
        let hello = &mut self.books.lock().hello;
        match (message.kind(), &hello.told) {
            (Kind::Request { id, method }, None) if &**method == "initialize" => {
                hello.told = Some((id.clone(), Instant::now()));
                self.begun.notify_one();
            }
            (Kind::Response { .. }, _) => {}
            (Kind::Request { .. } | Kind::Notification { .. }, _) => hello.told_more = true,
        }
    }

    /// The child says this. An answer that can only be that to `initialize`, and has another id, is
    /// named: by the id of `initialize`.
    pub(super) fn note_received(&self, message: &Message) -> Option<RequestId> {
        let mut books = self.books.lock();
        (books.spoke, books.endless) = (true, None);
        let id = message.answers()?;
        let misnamed = books.sole_hello().filter(|hello| *hello != id).cloned();
        let named = books.hello.told.as_ref().is_some_and(|(hello, _)| hello == id);
        books.hello.answered |= named || misnamed.is_some();
        misnamed
    }

    /// The child answers `initialize`, by something that has no id. None where it need not be that.
    pub(super) fn hears_nameless(&self) -> Option<RequestId> {
        let mut books = self.books.lock();
        let hello = books.sole_hello().cloned();
        books.hello.answered |= hello.is_some();
        hello
    }

    /// A line of stdout is no message; `text` is what may be shown of it.
    pub(super) fn stray(&self, line: &[u8], text: &str) {
        let mut books = self.books.lock();
        books.finished(Output::Stdout, text);
        let begun = books.stray(line, Instant::now());
        drop(books);
        self.wake_if(begun);
    }

    /// A line of stderr, as far as it may be shown.
    pub(super) fn mutters(&self, text: &str) {
        self.books.lock().finished(Output::Stderr, text);
    }

    /// What stands there of a line that has no end yet.
    pub(super) fn unfinished(&self, output: Output, line: &[u8]) {
        let begun = self.books.lock().unfinished(output, line, Instant::now());
        self.wake_if(begun);
    }

    /// A line of stdout became too long.
    pub(super) fn overflows(&self) {
        self.books.lock().endless.get_or_insert_with(Instant::now);
        self.begun.notify_one();
    }

    /// Such a line has ended.
    pub(super) fn ends_line(&self) {
        let mut books = self.books.lock();
        if books.spoke {
            books.endless = None;
        }
    }

    /// Resolves when it is certain that the child speaks no MCP. Where it is only slow, `tell` is
    /// told what it seems to do, once.
    pub(super) async fn verdict(&self, redactor: &Redactor, tell: impl Fn(String)) -> NoMcp {
        loop {
            let look = self.books.lock().look(Instant::now());
            match look {
                WatchLook::End(what) => return what,
                WatchLook::Warn => {
                    let text = self.books.lock().suspicion(redactor);
                    tell(text);
                }
                WatchLook::Wait(None) => self.begun.notified().await,
                WatchLook::Wait(Some(until)) => {
                    tokio::select! {
                        () = self.begun.notified() => {}
                        () = sleep_until(until) => {}
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
