//! The lines of stderr: a queue with a lid, and one thread that writes.
//!
//! Whoever logs never waits for whoever reads: a pipe that nobody empties, or a full disk behind
//! it, must not stop the service. What does not fit is dropped, and counted. (tracing-appender has
//! such a queue, bounded in lines and not in bytes; it counts no line that could not be written,
//! and says nothing when the log goes on.)

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tracing_subscriber::fmt::MakeWriter;

/// Bytes that wait to be written; as many more are being written.
const MOST_WAITING: usize = 1024 * 1024;
/// How long the end of the process waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);
/// A stderr that must not be waited for is asked again after this.
const AGAIN: Duration = Duration::from_millis(10);

/// The process has one stderr.
static STDERR: LineQueue = LineQueue::new();
/// Does a thread write what is queued?
static WRITTEN: AtomicBool = AtomicBool::new(false);

/// Has a thread of its own write the lines from now on.
pub(crate) fn start() {
    if WRITTEN.swap(true, Ordering::Relaxed) {
        return;
    }
    let write = || {
        loop {
            STDERR.write_once(&mut io::stderr());
        }
    };
    if thread::Builder::new().name("log".to_owned()).spawn(write).is_err() {
        // Then each line is written by whoever has it.
        WRITTEN.store(false, Ordering::Relaxed);
    }
}

/// Waits for what is queued to be written, for a second at most.
pub(crate) fn finish() {
    if WRITTEN.load(Ordering::Relaxed) {
        STDERR.flush(LAST_LINES);
    }
}

/// Lines that nobody will read, since the start.
pub(crate) fn dropped() -> u64 {
    STDERR.dropped.load(Ordering::Relaxed)
}

/// Gives the process's stderr to a subscriber, line by line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lines {
    /// Are colours wanted? Then ESC is let through: tracing-subscriber escapes those in values.
    pub(crate) colours: bool,
}

impl Write for Lines {
    /// Takes one event, which is one line whatever is in it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let safe = one_line(line, self.colours);
        if WRITTEN.load(Ordering::Relaxed) {
            STDERR.push(&safe);
        } else if io::stderr().write_all(&safe).is_err() {
            STDERR.lose(1);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

/// Control characters could forge a line, or speak to the terminal that shows it.
fn one_line(line: &[u8], colours: bool) -> Vec<u8> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut safe = Vec::with_capacity(line.len() + 1);
    for byte in line {
        match byte {
            b'\t' => safe.push(b'\t'),
            0x1b if colours => safe.push(0x1b),
            control if control.is_ascii_control() => safe.extend(control.escape_ascii()),
            other => safe.push(*other),
        }
    }
    safe.push(b'\n');
    safe
}

/// Lines that wait.
struct LineQueue {
    state: Mutex<Unwritten>,
    /// Something came, or was written.
    changed: Condvar,
    dropped: AtomicU64,
}

struct Unwritten {
    waiting: Vec<u8>,
    /// Is the writer at work on what it took?
    writing: bool,
    /// Dropped lines of which the log does not tell yet.
    untold: u64,
}

impl LineQueue {
    const fn new() -> Self {
        let state = Unwritten { waiting: Vec::new(), writing: false, untold: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new(), dropped: AtomicU64::new(0) }
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.state.lock();
        if state.waiting.len() + line.len() > MOST_WAITING {
            drop(state);
            return self.lose(1);
        }
        state.waiting.extend_from_slice(line);
        self.changed.notify_all();
    }

    fn lose(&self, lines: u64) {
        self.dropped.fetch_add(lines, Ordering::Relaxed);
        self.state.lock().untold += lines;
    }

    /// Waits for lines, and writes all that there are.
    fn write_once(&self, out: &mut impl Write) {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |state| state.waiting.is_empty());
        let lines = std::mem::take(&mut state.waiting);
        state.writing = true;
        drop(state);
        match unwritten(&lines, out) {
            0 => {
                let untold = std::mem::take(&mut self.state.lock().untold);
                if untold > 0 {
                    tracing::warn!(lines = untold, "lines of the log were dropped");
                }
            }
            lost => self.lose(lost),
        }
        self.state.lock().writing = false;
        self.changed.notify_all();
    }

    fn flush(&self, most: Duration) {
        let busy = |state: &mut Unwritten| state.writing || !state.waiting.is_empty();
        self.changed.wait_while_for(&mut self.state.lock(), busy, most);
    }
}

/// Writes lines; how many could not be.
fn unwritten(mut lines: &[u8], out: &mut impl Write) -> u64 {
    while !lines.is_empty() {
        match out.write(lines) {
            Ok(written @ 1..) => lines = lines.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Some other program made the pipe so; it is a thread of its own that waits.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(AGAIN),
            // The disk is full, or nobody is there to read.
            Ok(0) | Err(_) => break,
        }
    }
    lines.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, then fails.
    struct Disk {
        room: usize,
        taken: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let fits = bytes.get(..self.room.min(bytes.len())).unwrap();
            if fits.is_empty() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.taken.extend_from_slice(fits);
            self.room -= fits.len();
            Ok(fits.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let queue = LineQueue::new();
        let line = one_line(&[b'x'; 1023], false);
        for _ in 0..1030 {
            queue.push(&line);
        }
        assert_eq!(queue.state.lock().waiting.len(), MOST_WAITING);
        assert_eq!(queue.dropped.load(Ordering::Relaxed), 6);
        assert_eq!(queue.state.lock().untold, 6);
        let mut disk = Disk { room: usize::MAX, taken: Vec::new() };
        queue.write_once(&mut disk);
        assert_eq!(disk.taken.len(), MOST_WAITING);
        assert_eq!(queue.state.lock().untold, 0, "it has been told");
        queue.push(b"again\n");
        queue.write_once(&mut disk);
        assert!(disk.taken.ends_with(b"again\n"));
    }

    #[test]
    fn a_full_disk_costs_lines_and_no_more() {
        let queue = LineQueue::new();
        let mut disk = Disk { room: 9, taken: Vec::new() };
        queue.push(b"first\n");
        queue.push(b"second\n");
        queue.push(b"third\n");
        queue.write_once(&mut disk);
        assert_eq!(queue.dropped.load(Ordering::Relaxed), 2);
        assert_eq!(queue.state.lock().untold, 2, "nobody could be told");
        disk.room = 100;
        queue.push(b"fourth\n");
        queue.write_once(&mut disk);
        assert!(disk.taken.ends_with(b"fourth\n"));
        assert_eq!(queue.dropped.load(Ordering::Relaxed), 2);
        assert_eq!(queue.state.lock().untold, 0);
    }

    #[test]
    fn the_end_waits_for_what_is_queued_and_not_for_ever() {
        let queue = LineQueue::new();
        queue.flush(Duration::from_hours(1));
        queue.push(b"nobody writes this\n");
        queue.flush(Duration::from_millis(1));
        assert!(!queue.state.lock().waiting.is_empty());
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let line = b"a\r\nERROR forged\x1b[2J\x07\t\x7f\xc3\xa9\n";
        assert_eq!(one_line(line, false), b"a\\r\\nERROR forged\\x1b[2J\\x07\t\\x7f\xc3\xa9\n");
        assert_eq!(one_line(b"\x1b[31mred\x1b[0m\r\n", true), b"\x1b[31mred\x1b[0m\\r\n");
        assert_eq!(one_line(b"", false), b"\n");
    }
}
