//! Lines out of bytes, none longer than a limit.
//!
//! [`Splitter`] holds no source and never waits; [`Frames`] feeds it from a pipe. What is buffered
//! is at most one line of the greatest length allowed and its end; of a longer line the beginning
//! is handed out and the rest skipped, but for what can be told of it ([`Skim`]). The buffer starts
//! small and is small again after a huge line, so that an idle child costs little. Lines, and what
//! the buffer is larger than small, count against a quota; a line for which there is no memory is
//! as good as one that is too long.

use std::time::Duration;

use bytes::{BufMut, Bytes, buf::Limit};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::limits::bytes::{PER_MESSAGE, Quota, Share};
use crate::wire::jsonrpc::Skim;

/// What an idle pipe's buffer takes, and the length from which a line keeps the buffer it is in.
const SMALL: usize = 8 * 1024;

/// A longer line gets a buffer for the longest at once: what a buffer grows out of stays with the
/// allocator for a while, while memory that nobody has written to costs nothing.
const LARGE: usize = 1024 * 1024;

/// Bytes of a buffer that are taken of the quota at a time. Room that nobody has written to is not
/// counted.
const STEP: usize = 32 * 1024;

/// How long a pipe is listened to after the process that owned it is gone, and how many bytes are
/// taken: all it wrote is in the pipe by then, but whoever else holds the other end could go on
/// for ever. The kernel lets a pipe grow to 1 MiB (pipe(7)).
pub(crate) const LAST_WORDS: Duration = Duration::from_millis(250);
const LAST_BYTES: usize = 1024 * 1024;

/// One line, without its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// All of it.
    Whole(Bytes),
    /// The beginning of one that is lost, at most 8 KiB.
    Cut(Bytes, Cut),
    /// The line that was cut is over: what can be told of it.
    Rest(Skim),
}

/// What reading has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A line.
    Line(Line),
    /// No whole line is there; more bytes are waited for next.
    Unfinished,
}

/// Why a line is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It is too long.
    TooLong,
    /// There is no memory for it.
    Short,
}

/// Splits at LF, drops a CR before it, skips blank lines.
#[derive(Debug)]
pub(crate) struct Splitter {
    buffer: Vec<u8>,
    /// How long the buffer may grow before more is taken of the quota.
    granted: usize,
    /// Where the next line starts.
    start: usize,
    /// Before here is no LF but those already split at.
    scanned: usize,
    /// Of the line that comes in the beginning has been handed out as [`Line::Cut`].
    skipping: Option<Skim>,
    /// What is to be handed out first.
    ready: Option<Line>,
    /// Bytes a line may have; a CR counts.
    max: usize,
    quota: Quota,
    /// Of what the buffer is larger than small.
    share: Share,
}

impl Splitter {
    /// Lines and buffer are on account of `quota`.
    pub(crate) fn new(max: usize, quota: Quota) -> Self {
        Self {
            buffer: Vec::new(),
            granted: 0,
            start: 0,
            scanned: 0,
            skipping: None,
            ready: None,
            max,
            share: quota.take_anyway(0),
            quota,
        }
    }

    /// Where the next bytes go. There is always room for one once [`Self::next`] has given `None`.
    pub(crate) fn room(&mut self) -> Limit<&mut Vec<u8>> {
        self.buffer.drain(..self.start.min(self.buffer.len()));
        self.scanned = self.scanned.saturating_sub(self.start);
        self.start = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > SMALL {
            self.shrink();
        }
        if self.granted <= self.buffer.len() {
            self.grow();
        }
        let spare = self.granted.saturating_sub(self.buffer.len());
        let allowed = self.allowed();
        (&mut self.buffer).limit(spare.min(allowed))
    }

    fn allowed(&self) -> usize {
        self.max.saturating_add(1).saturating_sub(self.buffer.len())
    }

    fn grow(&mut self) {
        let held = self.buffer.len();
        let size = held.saturating_add(held.clamp(SMALL, STEP).min(self.allowed()));
        let short = size > SMALL && self.share.set(size - SMALL).is_err();
        let room = if size > LARGE { self.allowed() } else { held.max(SMALL).min(self.allowed()) };
        let full = size > self.buffer.capacity();
        if short || full && self.buffer.try_reserve_exact(room).is_err() {
            self.cut(Cut::Short);
            self.shrink();
            self.granted = SMALL.min(self.allowed());
            return self.buffer.reserve_exact(self.granted);
        }
        self.granted = size;
    }

    fn shrink(&mut self) {
        (self.buffer, self.granted) = (Vec::new(), 0);
        self.share = self.quota.take_anyway(0);
    }

    /// Gives the line that comes in up: what is there of it is looked at and forgotten.
    fn cut(&mut self, why: Cut) {
        let skim = if let Some(mut skim) = self.skipping.take() {
            skim.feed(self.buffer.get(self.start..).unwrap_or_default());
            skim
        } else {
            let line = self.buffer.get(self.start..).unwrap_or_default();
            let head = line.get(..line.len().min(SMALL).min(self.max)).unwrap_or_default();
            self.ready = Some(Line::Cut(Bytes::copy_from_slice(head), why));
            let mut skim = Skim::default();
            skim.feed(line);
            skim
        };
        self.skipping = Some(skim);
        self.clear();
    }

    /// The next line that is there.
    pub(crate) fn next(&mut self) -> Option<Line> {
        loop {
            if let Some(line) = self.ready.take() {
                return Some(line);
            }
            let fresh = self.buffer.get(self.scanned..)?;
            let Some(at) = fresh.iter().position(|byte| *byte == b'\n') else {
                self.scanned = self.buffer.len();
                self.overflow();
                return self.ready.take();
            };
            let line = self.take(self.scanned + at);
            if line.is_some() {
                return line;
            }
        }
    }

    /// What is there of the line that comes in; nothing of one that is skipped.
    fn unfinished(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    /// What is left when no more bytes come.
    pub(crate) fn last(&mut self) -> Option<Line> {
        self.ready.take().or_else(|| self.take(self.buffer.len())).or_else(|| self.ready.take())
    }

    /// Is no more held than one line, and its end?
    #[cfg(fuzzing)]
    pub(crate) fn check(&self) {
        assert!(self.buffer.len() <= self.max.saturating_add(1), "more than a line is held");
        assert!(self.buffer.capacity() <= SMALL.max(self.max.saturating_add(1)));
    }

    fn overflow(&mut self) {
        if self.skipping.is_some() || self.buffer.len() - self.start > self.max {
            self.cut(Cut::TooLong);
        }
    }

    fn clear(&mut self) {
        self.buffer.clear();
        (self.start, self.scanned) = (0, 0);
    }

    /// The line from `start` to `end`, and past its end; none if it is blank.
    fn take(&mut self, end: usize) -> Option<Line> {
        let after = (end + 1).min(self.buffer.len());
        let line = self.buffer.get(self.start..end).unwrap_or_default();
        if let Some(mut skim) = self.skipping.take() {
            skim.feed(line);
            (self.start, self.scanned) = (after, after);
            return Some(Line::Rest(skim));
        }
        if line.len() < SMALL {
            let Some(line) = trimmed(line) else {
                (self.start, self.scanned) = (after, after);
                return None;
            };
            let held = self.quota.try_take(line.len().saturating_add(PER_MESSAGE));
            let line = match held {
                Ok(share) => Line::Whole(share.hold(Bytes::copy_from_slice(line))),
                Err(_short) => {
                    let mut skim = Skim::default();
                    skim.feed(line);
                    let cut = Line::Cut(Bytes::copy_from_slice(line), Cut::Short);
                    self.ready = Some(Line::Rest(skim));
                    cut
                }
            };
            (self.start, self.scanned) = (after, after);
            return Some(line);
        }
        // A large line keeps the buffer instead of being copied; the few bytes behind it move.
        let rest = self.buffer.split_off(after);
        let rest_share = self.quota.take_anyway(rest.capacity().saturating_sub(SMALL));
        let mut line = std::mem::replace(&mut self.buffer, rest);
        self.granted = self.buffer.capacity();
        drop(std::mem::replace(&mut self.share, rest_share));
        line.truncate(end);
        line.drain(..self.start);
        line.truncate(trimmed(&line).map_or(0, <[u8]>::len));
        line.shrink_to_fit();
        (self.start, self.scanned) = (0, 0);
        let share = self.quota.take_anyway(line.len().saturating_add(PER_MESSAGE));
        (!line.is_empty()).then(|| Line::Whole(share.hold(line)))
    }
}

/// The line without a CR at its end; none if nothing but white space is left.
fn trimmed(line: &[u8]) -> Option<&[u8]> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    (!line.trim_ascii().is_empty()).then_some(line)
}

/// The lines of one pipe.
#[derive(Debug)]
pub(crate) struct Frames<R> {
    from: R,
    split: Splitter,
    ended: bool,
    /// It was told that no whole line is there.
    looked: bool,
    /// The process that owned the other end is gone.
    exited: CancellationToken,
    patience: Duration,
    allowance: usize,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub(crate) fn new(from: R, max: usize, exited: CancellationToken, quota: Quota) -> Self {
        Self {
            from,
            split: Splitter::new(max, quota),
            ended: false,
            looked: false,
            exited,
            patience: LAST_WORDS,
            allowance: LAST_BYTES,
        }
    }

    /// The next line, or none at the end. An unfinished last line is a line.
    pub(crate) async fn next(&mut self) -> Option<Line> {
        loop {
            if let Step::Line(line) = self.step().await? {
                return Some(line);
            }
        }
    }

    /// The next line, or [`Step::Unfinished`] if its end has not come: [`Self::unfinished`] is what
    /// has. `None` at the end.
    pub(crate) async fn step(&mut self) -> Option<Step> {
        loop {
            if let Some(line) = self.split.next() {
                // A child that writes short lines without end must not keep its thread to itself.
                consume_budget().await;
                return Some(Step::Line(line));
            }
            if self.ended {
                return self.split.last().map(Step::Line);
            }
            if !std::mem::replace(&mut self.looked, true) {
                return Some(Step::Unfinished);
            }
            self.ended = self.fill().await == 0;
            self.looked = false;
        }
    }

    /// What is there of the line that comes in.
    pub(crate) fn unfinished(&self) -> &[u8] {
        self.split.unfinished()
    }

    /// Have all bytes come? Then a line that is handed out had no end.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    async fn fill(&mut self) -> usize {
        let Self { from, split, exited, patience, allowance, .. } = self;
        let mut room = split.room();
        let reading = async {
            from.read_buf(&mut room).await.unwrap_or_else(|error| {
                debug!(%error, "reading a child's output failed");
                0
            })
        };
        tokio::pin!(reading);
        if !exited.is_cancelled() {
            tokio::select! {
                biased;
                read = &mut reading => return read,
                () = exited.cancelled() => {}
            }
        }
        if *allowance == 0 {
            return 0;
        }
        let began = Instant::now();
        let read = timeout(*patience, reading).await.unwrap_or(0);
        *patience = patience.saturating_sub(began.elapsed());
        *allowance = allowance.saturating_sub(read);
        read
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::bytes::Budget;
    use crate::observe::metrics::Metrics;

    /// Pours `bytes` in, in pieces of the sizes given; checks the bounds at each step.
    fn split(bytes: &[u8], sizes: &[usize], max: usize) -> Vec<Line> {
        let mut splitter = Splitter::new(max, Quota::unbounded());
        let mut lines = Vec::new();
        let mut sizes = sizes.iter().copied().cycle();
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut room = splitter.room();
            let n = sizes.next().unwrap_or(1).clamp(1, room.remaining_mut().max(1)).min(rest.len());
            assert!(room.remaining_mut() >= n, "no room for one byte");
            room.put_slice(&rest[..n]);
            rest = &rest[n..];
            assert!(splitter.buffer.len() <= max + 1);
            assert!(splitter.buffer.capacity() <= SMALL.max(max + 1));
            while let Some(line) = splitter.next() {
                lines.push(line);
            }
        }
        lines.extend(std::iter::from_fn(|| splitter.last()));
        let (cut, over): (Vec<_>, Vec<_>) = (0..lines.len())
            .map(|at| matches!(lines[at], Line::Cut(..)))
            .zip(lines.iter().map(|line| matches!(line, Line::Rest(_))).skip(1).chain([false]))
            .unzip();
        assert_eq!(cut, over, "a cut line is told of twice, at its beginning and its end");
        lines.retain(|line| !matches!(line, Line::Rest(_)));
        lines
    }

    fn whole(text: &str) -> Line {
        Line::Whole(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn cut(text: &str) -> Line {
        Line::Cut(Bytes::copy_from_slice(text.as_bytes()), Cut::TooLong)
    }

    #[test]
    fn lines_end_in_lf_or_crlf_or_the_end_and_blank_ones_are_skipped() {
        let lines = split(b"\n\r\n  \na\r\nb\n\nc", &[1], 10);
        assert_eq!(lines, [whole("a"), whole("b"), whole("c")]);
    }

    #[test]
    fn a_line_of_the_limit_is_whole_and_one_byte_more_is_cut() {
        for sizes in [[1], [3], [1000]] {
            assert_eq!(
                split(b"12345\n123456\n1\n", &sizes, 5),
                [whole("12345"), cut("12345"), whole("1")]
            );
            assert_eq!(split(b"1\n12345678901234567890", &sizes, 5), [whole("1"), cut("12345")]);
        }
    }

    #[test]
    fn the_buffer_is_small_again_after_a_huge_line() {
        let mut splitter = Splitter::new(1 << 20, Quota::unbounded());
        let mut huge = vec![b'x'; 1 << 20];
        huge.extend_from_slice(b"\nnext\n");
        let mut rest = &huge[..];
        while !rest.is_empty() {
            let mut room = splitter.room();
            let n = room.remaining_mut().min(rest.len());
            room.put_slice(&rest[..n]);
            rest = &rest[n..];
            if let Some(Line::Whole(line)) = splitter.next() {
                assert!(line.len() == 1 << 20 || line == "next");
            }
        }
        assert_eq!(splitter.next(), None);
        assert!(splitter.room().remaining_mut() > 0);
        assert!(splitter.buffer.capacity() <= SMALL);
    }

    #[test]
    fn a_line_that_never_ends_takes_its_limit_once_and_nothing_afterwards() {
        let max = 16 << 20;
        let mut sizes = std::collections::BTreeSet::new();
        let budget = Budget::new(64 << 20, 0, Metrics::default());
        let mut splitter = Splitter::new(max, budget.quota());
        let (mut poured, mut cut) = (0, 0);
        while poured < 3 * max {
            let mut room = splitter.room();
            let n = room.remaining_mut().min(256 * 1024);
            room.put_bytes(b'x', n);
            poured += n;
            sizes.insert(splitter.buffer.capacity());
            cut += usize::from(splitter.next().is_some());
            if poured > max {
                assert!(splitter.room().remaining_mut() <= SMALL && budget.taken() == 0);
            } else {
                assert!(budget.taken() <= 2 * poured);
            }
        }
        // What the buffer grew out of counts, too: the allocator keeps it for a while.
        let all = sizes.iter().sum::<usize>();
        assert!(cut == 1 && all <= max + 2 * LARGE + SMALL, "{cut} {all}: {sizes:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pipe_that_stays_open_is_left_soon_after_the_exit() {
        let (mut theirs, ours) = tokio::io::duplex(64);
        let exited = CancellationToken::new();
        let mut frames = Frames::new(ours, 100, exited.clone(), Quota::unbounded());
        tokio::io::AsyncWriteExt::write_all(&mut theirs, b"a\nunfinished").await.unwrap();
        assert_eq!(frames.next().await, Some(whole("a")));
        exited.cancel();
        let began = Instant::now();
        assert_eq!(frames.next().await, Some(whole("unfinished")));
        assert_eq!(frames.next().await, None);
        assert!(began.elapsed() <= LAST_WORDS + Duration::from_millis(1));
        drop(theirs);
    }

    #[tokio::test]
    async fn short_lines_without_end_leave_the_thread_to_others_now_and_then() {
        const LINES: usize = 10_000;
        let lines = "y\n".repeat(LINES);
        let mut frames =
            Frames::new(lines.as_bytes(), 100, CancellationToken::new(), Quota::unbounded());
        let read = std::cell::Cell::new(0);
        let reading = async {
            while frames.next().await.is_some() {
                read.set(read.get() + 1);
            }
        };
        let other = async {
            tokio::task::yield_now().await;
            read.get()
        };
        let ((), meanwhile) = tokio::join!(reading, other);
        assert_eq!(read.get(), LINES);
        assert!(meanwhile < LINES / 10, "{meanwhile} lines before anybody else had a turn");
    }

    #[tokio::test]
    async fn a_pipe_that_never_falls_silent_is_left_too() {
        let exited = CancellationToken::new();
        exited.cancel();
        let mut frames = Frames::new(tokio::io::repeat(b'\n'), 100, exited, Quota::unbounded());
        assert_eq!(frames.next().await, None);
    }

    #[test]
    fn an_idle_pipe_takes_8_kib_and_a_line_below_a_mebibyte_twice_its_length_at_most() {
        let mut splitter = Splitter::new(16 << 20, Quota::unbounded());
        assert_eq!(splitter.room().remaining_mut(), 8 * 1024);
        let mut poured = 0;
        while poured < 600 * 1024 {
            let mut room = splitter.room();
            let n = room.remaining_mut();
            room.put_bytes(b'x', n);
            poured += n;
            assert_eq!(splitter.next(), None);
            assert!(splitter.buffer.capacity() <= (2 * poured).max(8 * 1024));
        }
        assert_eq!(splitter.buffer.capacity(), 1024 * 1024);
    }

    #[tokio::test]
    async fn what_has_come_of_a_line_can_be_looked_at() {
        let (mut theirs, ours) = tokio::io::duplex(64);
        let mut frames = Frames::new(ours, 100, CancellationToken::new(), Quota::unbounded());
        tokio::io::AsyncWriteExt::write_all(&mut theirs, b"a\nhalf").await.unwrap();
        assert_eq!(frames.step().await, Some(Step::Unfinished));
        assert_eq!(frames.step().await, Some(Step::Line(whole("a"))));
        assert_eq!(frames.step().await, Some(Step::Unfinished));
        assert_eq!((frames.unfinished(), frames.is_ended()), (&b"half"[..], false));
        drop(theirs);
        assert_eq!(frames.step().await, Some(Step::Line(whole("half"))));
        assert!(frames.is_ended());
        assert_eq!(frames.step().await, None);
    }

    #[tokio::test]
    async fn of_a_pipe_that_never_falls_silent_a_mebibyte_is_taken_after_the_exit() {
        let exited = CancellationToken::new();
        exited.cancel();
        let lines = "y\n".repeat(2 << 20);
        let mut frames = Frames::new(lines.as_bytes(), 100, exited, Quota::unbounded());
        let mut read = 0;
        while frames.next().await.is_some() {
            read += 2;
        }
        assert!((1 << 20..(1 << 20) + 8 * 1024).contains(&read), "{read}");
    }

    #[test]
    fn of_a_line_that_is_too_long_its_id_is_told() {
        let text = format!(r#"{{"result":"{}","id":7}}"#, "x".repeat(100_000));
        let mut splitter = Splitter::new(20_000, Quota::unbounded());
        let mut lines = Vec::new();
        let mut rest = format!("{text}\nnext\n").into_bytes();
        while !rest.is_empty() {
            let mut room = splitter.room();
            let n = room.remaining_mut().min(rest.len());
            room.put_slice(&rest[..n]);
            rest.drain(..n);
            lines.extend(std::iter::from_fn(|| splitter.next()));
        }
        let [Line::Cut(head, Cut::TooLong), Line::Rest(skim), next] = &lines[..] else {
            panic!("{lines:?}");
        };
        assert_eq!((&head[..], next), (&text.as_bytes()[..SMALL], &whole("next")));
        assert_eq!(skim.answers(), [7.into()]);
    }

    #[test]
    fn a_line_without_memory_is_cut_and_the_next_ones_come() {
        let budget = Budget::new(400_000, 0, Metrics::default());
        let quota = budget.quota();
        for (filler, size) in [(0, 150_000), (99_900, 100)] {
            let filled = quota.try_take(filler).unwrap();
            let mut lines = Vec::new();
            let mut splitter = Splitter::new(1 << 20, quota.clone());
            let mut rest =
                format!("{{\"id\":7,\"result\":\"{}\"}}\n", "x".repeat(size)).into_bytes();
            while !rest.is_empty() {
                let mut room = splitter.room();
                let n = room.remaining_mut().min(rest.len());
                room.put_slice(&rest[..n]);
                rest.drain(..n);
                lines.extend(std::iter::from_fn(|| splitter.next()));
                assert!(budget.taken() <= 100_000);
            }
            let [Line::Cut(_, Cut::Short), Line::Rest(skim)] = &lines[..] else {
                panic!("{lines:?}");
            };
            assert_eq!(skim.answers(), [7.into()]);
            drop(filled);
            splitter.room().put_slice(b"next\n");
            let next = splitter.next().unwrap();
            assert_eq!((&next, budget.taken()), (&whole("next"), 4 + PER_MESSAGE));
        }
    }

    #[test]
    fn what_is_buffered_counts_and_large_lines_take_their_share_along() {
        let budget = Budget::new(4_000_000, 0, Metrics::default());
        let mut splitter = Splitter::new(1 << 20, budget.quota());
        let mut rest = vec![b'x'; 500_000];
        rest.push(b'\n');
        let line = loop {
            let mut room = splitter.room();
            let n = room.remaining_mut().min(rest.len());
            room.put_slice(&rest[..n]);
            rest.drain(..n);
            let line = splitter.next();
            if line.is_some() {
                break line;
            }
            let counted = budget.taken() + SMALL;
            let written = splitter.buffer.len();
            assert!((written..=written + STEP).contains(&counted), "{counted} of {written}");
        };
        drop(splitter);
        assert_eq!(budget.taken(), 500_000 + PER_MESSAGE);
        drop(line);
        assert_eq!(budget.taken(), 0);
    }

    fn simply(bytes: &[u8], max: usize) -> Vec<Line> {
        bytes
            .split(|byte| *byte == b'\n')
            .filter_map(|line| match line.get(..max) {
                Some(head) if line.len() > max => {
                    let head = Bytes::copy_from_slice(&head[..head.len().min(SMALL)]);
                    Some(Line::Cut(head, Cut::TooLong))
                }
                _ => trimmed(line).map(|line| Line::Whole(Bytes::copy_from_slice(line))),
            })
            .collect()
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_lines(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b' '), any::<u8>()], 0..400),
            sizes in proptest::collection::vec(1_usize..50, 1..20),
            max in 0_usize..40,
        ) {
            prop_assert_eq!(split(&bytes, &sizes, max), simply(&bytes, max));
        }

        #[test]
        fn large_lines_are_no_different(
            lengths in proptest::collection::vec(0_usize..40_000, 1..5),
            sizes in proptest::collection::vec(1_usize..70_000, 1..5),
            max in 7_000_usize..30_000,
        ) {
            let bytes: Vec<u8> = lengths.iter().zip(b"abcde").flat_map(|(n, byte)| {
                let mut line = vec![*byte; *n];
                line.push(b'\n');
                line
            }).collect();
            prop_assert_eq!(split(&bytes, &sizes, max), simply(&bytes, max));
        }
    }
}
