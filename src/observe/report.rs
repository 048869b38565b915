//! What the server holds at one moment, and what happened at its limits since the start.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use serde::Serialize;

use super::metrics::{Gauges, Metrics};

/// Tells how a server stands. It is cheap, and may be asked at any time.
#[derive(Clone, Debug)]
pub struct Reporter {
    metrics: Metrics,
}

/// Numbers of one moment. As JSON it is one object, whose members may grow in number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Open connections.
    pub connections: usize,
    /// Those of them that have not made a request that may pass.
    pub unauthenticated: usize,
    /// Open event streams, those on passed paths too.
    pub streams: u64,
    /// Sessions that clients know.
    pub sessions: usize,
    /// Child processes.
    pub children: u32,
    /// Bytes of messages that are held: bodies, queues, event logs, answers.
    pub buffered_bytes: usize,
    /// Does COMMAND end as soon as it is started, so that starts are held back?
    pub crash_loop: bool,
    /// Bytes of memory that the process has in use, where the system tells.
    pub memory_bytes: Option<u64>,
    /// Open files and sockets, where the system tells.
    pub descriptors: Option<usize>,
    /// What happened at limits where nobody is answered, since the start.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Refused requests since the start, by the label that their answers have.
    pub refusals: BTreeMap<&'static str, u64>,
}

impl Reporter {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self { metrics }
    }

    /// How the server stands now.
    #[must_use]
    pub fn now(&self) -> Report {
        let Gauges {
            connections,
            unauthenticated,
            streams,
            sessions,
            children,
            buffered_bytes,
            crash_loop,
        } = self.metrics.gauges();
        Report {
            connections: connections.value(),
            unauthenticated: unauthenticated.value(),
            streams: u64::try_from(streams.value()).unwrap_or(u64::MAX),
            sessions: sessions.value(),
            children: u32::try_from(children.value()).unwrap_or(u32::MAX),
            buffered_bytes: buffered_bytes.value(),
            crash_loop: crash_loop.load(Ordering::Relaxed),
            memory_bytes: memory(),
            descriptors: descriptors(),
            outcomes: self.metrics.outcomes(),
            refusals: self.metrics.refusals(),
        }
    }
}

/// The resident set (proc(5), `VmRSS` in KiB).
fn memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn descriptors() -> Option<usize> {
    let open = std::fs::read_dir("/proc/self/fd").ok()?.count();
    // One of them is this look itself.
    Some(open.saturating_sub(1))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_of_memory_and_descriptors() {
        assert!(memory().is_some_and(|bytes| bytes > 1024 * 1024));
        let before = descriptors().unwrap();
        let files: Vec<_> =
            (0..100).map(|_| std::fs::File::open("/proc/self/status").unwrap()).collect();
        // Other tests of this process open and close some meanwhile.
        assert!(descriptors().unwrap() > before + 50);
        drop(files);
    }
}
