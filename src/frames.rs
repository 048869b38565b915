//! Lines out of bytes, none longer than a limit.
//!
//! [`Splitter`] holds no source and never waits; [`Frames`] feeds it from a pipe. What is buffered
//! is at most one line of the greatest length allowed and its end; of a longer line the beginning
//! is handed out and the rest skipped. The buffer starts small and is small again after a huge
//! line, so that an idle child costs little.

use std::time::Duration;

use bytes::{BufMut, Bytes, buf::Limit};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// What an idle pipe's buffer takes, and the length from which a line keeps the buffer it is in.
const SMALL: usize = 8 * 1024;

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
    /// The beginning of one that is too long; the rest is lost.
    Cut(Bytes),
}

/// Splits at LF, drops a CR before it, skips blank lines.
#[derive(Debug)]
pub(crate) struct Splitter {
    buffer: Vec<u8>,
    /// Where the next line starts.
    start: usize,
    /// Before here is no LF but those already split at.
    scanned: usize,
    /// The beginning of the line that comes in has been handed out as [`Line::Cut`].
    skipping: bool,
    /// Bytes a line may have; a CR counts.
    max: usize,
}

impl Splitter {
    pub(crate) fn new(max: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, scanned: 0, skipping: false, max }
    }

    /// Where the next bytes go. There is always room for one once [`Self::next`] has given `None`.
    pub(crate) fn room(&mut self) -> Limit<&mut Vec<u8>> {
        self.buffer.drain(..self.start.min(self.buffer.len()));
        self.scanned = self.scanned.saturating_sub(self.start);
        self.start = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > SMALL {
            self.buffer = Vec::new();
        }
        let held = self.buffer.len();
        let allowed = self.max.saturating_add(1).saturating_sub(held);
        if self.buffer.capacity() == held {
            self.buffer.reserve_exact(held.max(SMALL).min(allowed));
        }
        let spare = self.buffer.capacity() - held;
        (&mut self.buffer).limit(spare.min(allowed))
    }

    /// The next line that is there.
    pub(crate) fn next(&mut self) -> Option<Line> {
        loop {
            let fresh = self.buffer.get(self.scanned..)?;
            let Some(at) = fresh.iter().position(|byte| *byte == b'\n') else {
                self.scanned = self.buffer.len();
                return self.overflow();
            };
            let line = self.take(self.scanned + at);
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if let Some(line) = trimmed(line) {
                return Some(Line::Whole(line));
            }
        }
    }

    /// What is left when no more bytes come.
    pub(crate) fn last(&mut self) -> Option<Line> {
        let line = self.take(self.buffer.len());
        if std::mem::take(&mut self.skipping) { None } else { trimmed(line).map(Line::Whole) }
    }

    /// Is no more held than one line, and its end?
    #[cfg(fuzzing)]
    pub(crate) fn check(&self) {
        assert!(self.buffer.len() <= self.max.saturating_add(1), "more than a line is held");
        assert!(self.buffer.capacity() <= SMALL.max(self.max.saturating_add(1)));
    }

    fn overflow(&mut self) -> Option<Line> {
        if self.skipping {
            self.clear();
            return None;
        }
        if self.buffer.len() - self.start <= self.max {
            return None;
        }
        self.skipping = true;
        let line = self.take(self.start + self.max);
        // What stands behind the cut belongs to the same line.
        self.clear();
        Some(Line::Cut(line))
    }

    fn clear(&mut self) {
        self.buffer.clear();
        (self.start, self.scanned) = (0, 0);
    }

    /// The bytes from `start` to `end`, and past the line end there.
    fn take(&mut self, end: usize) -> Bytes {
        let after = (end + 1).min(self.buffer.len());
        let line = self.buffer.get(self.start..end).unwrap_or_default();
        if line.len() < SMALL {
            let line = Bytes::copy_from_slice(line);
            (self.start, self.scanned) = (after, after);
            return line;
        }
        // A large line keeps the buffer instead of being copied; the few bytes behind it move.
        let rest = self.buffer.split_off(after);
        let mut line = std::mem::replace(&mut self.buffer, rest);
        line.truncate(end);
        line.drain(..self.start);
        line.shrink_to_fit();
        (self.start, self.scanned) = (0, 0);
        line.into()
    }
}

/// The line without a CR at its end; none if nothing but white space is left.
fn trimmed(mut line: Bytes) -> Option<Bytes> {
    if line.last() == Some(&b'\r') {
        line.truncate(line.len() - 1);
    }
    (!line.trim_ascii().is_empty()).then_some(line)
}

/// The lines of one pipe.
#[derive(Debug)]
pub(crate) struct Frames<R> {
    from: R,
    split: Splitter,
    ended: bool,
    /// The process that owned the other end is gone.
    exited: CancellationToken,
    patience: Duration,
    allowance: usize,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub(crate) fn new(from: R, max: usize, exited: CancellationToken) -> Self {
        Self {
            from,
            split: Splitter::new(max),
            ended: false,
            exited,
            patience: LAST_WORDS,
            allowance: LAST_BYTES,
        }
    }

    /// The next line, or none at the end. An unfinished last line is a line.
    pub(crate) async fn next(&mut self) -> Option<Line> {
        loop {
            if let Some(line) = self.split.next() {
                return Some(line);
            }
            if self.ended {
                return self.split.last();
            }
            self.ended = self.fill().await == 0;
        }
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

    /// Pours `bytes` in, in pieces of the sizes given; checks the bounds at each step.
    fn split(bytes: &[u8], sizes: &[usize], max: usize) -> Vec<Line> {
        let mut splitter = Splitter::new(max);
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
        lines.extend(splitter.last());
        lines
    }

    fn whole(text: &str) -> Line {
        Line::Whole(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn cut(text: &str) -> Line {
        Line::Cut(Bytes::copy_from_slice(text.as_bytes()))
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
        let mut splitter = Splitter::new(1 << 20);
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

    #[tokio::test(start_paused = true)]
    async fn a_pipe_that_stays_open_is_left_soon_after_the_exit() {
        let (mut theirs, ours) = tokio::io::duplex(64);
        let exited = CancellationToken::new();
        let mut frames = Frames::new(ours, 100, exited.clone());
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
    async fn a_pipe_that_never_falls_silent_is_left_too() {
        let exited = CancellationToken::new();
        exited.cancel();
        let mut frames = Frames::new(tokio::io::repeat(b'\n'), 100, exited);
        assert_eq!(frames.next().await, None);
    }

    fn simply(bytes: &[u8], max: usize) -> Vec<Line> {
        bytes
            .split(|byte| *byte == b'\n')
            .filter_map(|line| match line.get(..max) {
                Some(head) if line.len() > max => Some(Line::Cut(Bytes::copy_from_slice(head))),
                _ => trimmed(Bytes::copy_from_slice(line)).map(Line::Whole),
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
