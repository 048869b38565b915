//! A program that ends as soon as it is started is not started as fast as clients ask.
//!
//! A start has *failed* if the program ends by itself before it has said anything, or within
//! [`STEADY`] with nothing asked of it but the handshake: what a call does to a program is that
//! call's affair. After [`FREE`] failures in a row further starts are held back, in pauses that
//! double; when one is over, one start is let through for a trial. A program that has spoken and
//! stays up for [`STEADY`] ends the row: that it could be spawned is no success.
//!
//! Where all failures are those of one client, which may be its own doing, that client alone is
//! held back. [`Starts`] is pure: time and chance come in as arguments.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::redact::shorten;
use crate::backend::Starter;
use crate::observe::metrics::{Metrics, Outcome};
use crate::wire::jsonrpc::Message;

/// Failures in a row that hold nobody back.
const FREE: u32 = 5;
/// The pause after the last of them; each further failure doubles it.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// How long a program must stay up.
const STEADY: Duration = Duration::from_secs(5);
/// How long others wait for the outcome of a trial.
const TRIAL: Duration = STEADY;
/// Failures that there may be in a [`WINDOW`], in a row or not.
const BUDGET: usize = 20;
const WINDOW: Duration = Duration::from_mins(1);
/// Bytes of a failure that are told to those who are held back.
const TOLD: usize = 600;

/// A start that may not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeldBack {
    /// When to ask again.
    pub(super) wait: Duration,
    /// What became of the last start.
    pub(super) why: String,
}

/// Whose starts have failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Suspect {
    /// This client's only: they may be its own doing.
    One(Starter),
    /// Those of several, or one of the edge's own.
    #[default]
    All,
}

impl Suspect {
    fn of(who: Starter) -> Self {
        match who {
            Starter::Edge => Self::All,
            Starter::Client(_) => Self::One(who),
        }
    }

    fn is(self, who: Starter) -> bool {
        self == Self::All || self == Self::One(who)
    }
}

/// What the starts so far have come to.
#[derive(Debug, Default)]
struct Starts {
    in_row: u32,
    suspect: Suspect,
    /// When the failures of the last [`WINDOW`] were, [`BUDGET`] at most.
    recent: VecDeque<Instant>,
    held_until: Option<Instant>,
    why: String,
}

impl Starts {
    /// Are starts held back now, and for how long?
    fn held(&self, who: Starter, now: Instant) -> Option<Duration> {
        let until = self.held_until.filter(|until| now < *until && self.suspect.is(who))?;
        Some(until - now)
    }

    /// May `who` start one? Where a pause is over, this is the trial.
    fn ask(&mut self, who: Starter, now: Instant) -> Result<(), HeldBack> {
        if let Some(wait) = self.held(who, now) {
            return Err(HeldBack { wait, why: self.why.clone() });
        }
        if self.held_until.is_some() && self.suspect.is(who) {
            self.held_until = Some(now + TRIAL);
        }
        Ok(())
    }

    /// A start has failed. `chance`, of 0 to 1, takes up to half off the pause.
    fn failed(&mut self, who: Starter, why: &str, chance: f64, now: Instant) {
        while self.recent.front().is_some_and(|at| now >= *at + WINDOW)
            || self.recent.len() >= BUDGET
        {
            self.recent.pop_front();
        }
        let first = self.in_row == 0 && self.recent.is_empty();
        let other = !first && self.suspect != Suspect::One(who);
        self.suspect = if other { Suspect::All } else { Suspect::of(who) };
        self.recent.push_back(now);
        self.in_row = self.in_row.saturating_add(1);
        why.clone_into(&mut self.why);
        shorten(&mut self.why, TOLD);
        if let Some(further) = self.in_row.checked_sub(FREE) {
            let pause = LONGEST.min(FIRST.saturating_mul(2_u32.saturating_pow(further)));
            let until = now + pause.mul_f64(1.0 - chance / 2.0);
            self.held_until = self.held_until.max(Some(until));
        }
        if let Some(oldest) = self.recent.front().filter(|_| self.recent.len() >= BUDGET) {
            self.held_until = self.held_until.max(Some(*oldest + WINDOW));
        }
    }

    /// A program has stayed up. What is over the budget stays so.
    fn steady(&mut self, now: Instant) {
        self.in_row = 0;
        let spent = self.recent.len() >= BUDGET;
        self.held_until = self.held_until.filter(|until| spent && now < *until);
    }

    /// Does the program keep failing, whoever starts it?
    fn is_loop(&self) -> bool {
        self.held_until.is_some() && self.suspect == Suspect::All
    }
}

/// What every start has to pass.
#[derive(Debug)]
pub(super) struct Gate {
    starts: Mutex<Starts>,
    metrics: Metrics,
}

impl Gate {
    pub(super) fn new(metrics: Metrics) -> Arc<Self> {
        Arc::new(Self { starts: Mutex::default(), metrics })
    }

    /// Lets a start through, or says why not.
    pub(super) fn pass(self: &Arc<Self>, who: Starter) -> Result<Attempt, HeldBack> {
        let now = Instant::now();
        self.starts.lock().ask(who, now)?;
        Ok(Attempt {
            gate: Arc::clone(self),
            who,
            begun: now,
            asked: AtomicBool::new(false),
            spoke: CancellationToken::new(),
        })
    }

    /// Is everybody held back now?
    pub(super) fn is_closed(&self) -> bool {
        self.starts.lock().held(Starter::Edge, Instant::now()).is_some()
    }

    /// Changes the books, and tells of what that comes to.
    fn note(&self, change: impl FnOnce(&mut Starts, Instant)) {
        let now = Instant::now();
        let mut starts = self.starts.lock();
        let before = starts.held_until.is_some().then_some(starts.suspect);
        change(&mut starts, now);
        let after = starts.held_until.is_some().then_some(starts.suspect);
        if before == after {
            return;
        }
        self.metrics.gauges().crash_loop.store(starts.is_loop(), Ordering::Relaxed);
        let Some(suspect) = after else {
            return info!("the MCP server stays up again: it is started as clients ask");
        };
        self.metrics.count(Outcome::CrashLoop);
        let held_back = if suspect == Suspect::All { "everybody" } else { "one address" };
        let Starts { in_row: failures, ref why, .. } = *starts;
        warn!(
            failures,
            why,
            held_back,
            "the MCP server ends as soon as it is started: further starts are held back"
        );
    }
}

/// A start that was let through. It has failed, has stayed up, or was ended before that showed.
#[derive(Debug)]
pub(super) struct Attempt {
    gate: Arc<Gate>,
    who: Starter,
    begun: Instant,
    /// Something beyond the handshake.
    asked: AtomicBool,
    spoke: CancellationToken,
}

impl Attempt {
    /// Cancelled when the program says its first message.
    pub(super) fn spoke(&self) -> &CancellationToken {
        &self.spoke
    }

    /// The program is told this.
    pub(super) fn note_sent(&self, message: &Message) {
        if !matches!(message.method(), Some("initialize" | "notifications/initialized")) {
            self.asked.store(true, Ordering::Relaxed);
        }
    }

    /// Notes that the program stays up once it does.
    pub(super) async fn prove(&self) {
        self.spoke.cancelled().await;
        sleep_until(self.begun + STEADY).await;
        self.gate.note(Starts::steady);
    }

    /// It could not even be spawned: nobody's own doing.
    pub(super) fn was_not_spawned(&self, why: &str) {
        self.failed(Starter::Edge, why);
    }

    /// The program ended by itself; `why` may be told to anybody who may call.
    pub(super) fn ended(&self, why: &str) {
        let young = Instant::now() < self.begun + STEADY;
        let unasked = young && !self.asked.load(Ordering::Relaxed);
        if !self.spoke.is_cancelled() || unasked {
            self.failed(self.who, why);
        }
    }

    fn failed(&self, who: Starter, why: &str) {
        self.gate.metrics.count(Outcome::StartFailed);
        let chance = chance();
        self.gate.note(|starts, now| starts.failed(who, why, chance, now));
    }
}

/// Of 0 to 1, at random; without randomness the pause is the longest.
fn chance() -> f64 {
    let mut byte = [0_u8];
    match getrandom::fill(&mut byte) {
        Ok(()) => f64::from(byte[0]) / f64::from(u8::MAX),
        Err(_no_randomness) => 0.0,
    }
}

#[cfg(test)]
mod tests;
