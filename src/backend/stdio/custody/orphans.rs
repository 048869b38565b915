//! What a keeper that was killed leaves behind comes to the edge, which kills and reaps it.
//!
//! The edge is a sub-reaper itself, or init of its container. So whatever is its child and was not
//! started by it is an orphan.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, WaitOptions, getpid};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::descent::{self, Families};
use crate::observe::metrics::{Metrics, Outcome};

/// How often orphans are looked for where nothing points to any: init reaps those of strangers.
const LOOK: Duration = Duration::from_secs(30);

/// How often, and with which pause, it is looked again where some were found.
const ROUNDS: usize = 200;
const AGAIN: Duration = Duration::from_millis(10);

/// Knows the children that are no orphans.
#[derive(Debug)]
pub(crate) struct Orphans {
    own: Mutex<HashSet<Pid>>,
    suspected: Notify,
    metrics: Metrics,
}

/// A child that is no orphan, until this is dropped.
#[derive(Debug)]
pub(crate) struct Own {
    orphans: Arc<Orphans>,
    pid: Pid,
}

impl Own {
    /// It was waited for. A keeper that died of a signal may not have done its work.
    pub(crate) fn reaped(self, by_signal: bool) {
        let orphans = Arc::clone(&self.orphans);
        drop(self);
        if by_signal {
            orphans.suspected.notify_one();
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.orphans.own.lock().remove(&self.pid);
    }
}

impl Orphans {
    /// From now on this process is the parent of every orphan beneath it.
    pub(crate) fn new(metrics: Metrics) -> Arc<Self> {
        if let Err(error) = rustix::process::set_child_subreaper(Some(getpid())) {
            warn!(%error, "what outlives its keeper cannot be found");
        }
        Arc::new(Self { own: Mutex::default(), suspected: Notify::new(), metrics })
    }

    /// Runs `start`; nobody looks until its child is known.
    pub(crate) fn knowing<T>(
        self: &Arc<Self>,
        start: impl FnOnce() -> io::Result<(Pid, T)>,
    ) -> io::Result<(Own, T)> {
        let mut own = self.own.lock();
        let (pid, started) = start()?;
        own.insert(pid);
        Ok((Own { orphans: Arc::clone(self), pid }, started))
    }

    /// Looks when it is told to, and now and then, until `last` resolves, and once more.
    pub(crate) async fn watch(self: Arc<Self>, last: impl Future<Output = ()>) {
        let watching = async {
            loop {
                // The time being over is a reason to look as well.
                let _told = timeout(LOOK, self.suspected.notified()).await;
                self.end_all().await;
            }
        };
        tokio::select! {
            () = watching => {}
            () = last => {}
        }
        self.end_all().await;
    }

    async fn end_all(&self) {
        for _ in 0..ROUNDS {
            if !self.sweep() {
                return;
            }
            sleep(AGAIN).await;
        }
    }

    /// Says if there was anybody.
    fn sweep(&self) -> bool {
        let own = self.own.lock();
        let dead = Families::read().dead(getpid(), &own);
        for pid in &dead {
            let _reaped = rustix::process::waitpid(Some(*pid), WaitOptions::NOHANG);
        }
        let killed = descent::kill_beneath(getpid(), &own);
        drop(own);
        if killed > 0 {
            self.metrics.count(Outcome::OrphansKilled);
            info!(killed, "killed what outlived its keeper");
        }
        killed > 0 || !dead.is_empty()
    }
}
