//! Locks.

use std::fmt;

use metrics::{Counter, Gauge};
use tidemill_proto::Code;

use super::registry::Registry;

const ACQUIRED: &str = "tidemill_locks_acquired_total";
const REFUSED: &str = "tidemill_locks_refused_total";
const ENDED: &str = "tidemill_locks_ended_total";

/// The counts of locks.
pub struct Locks {
    free: Counter,
    handed: Counter,
    replayed: Counter,
    locked: Counter,
    other: Counter,
    released: Counter,
    lost: Counter,
    taken: Counter,
    waiting: Gauge,
}

impl Locks {
    pub(super) fn new(registry: &Registry) -> Self {
        registry.describe_counter(ACQUIRED, &["how"], "Locks that were granted: `free` ones, those that were waited for and `handed` over, and those found again by their key (`replayed`)");
        registry.describe_counter(REFUSED, &["why"], "Locks that were not granted: another held them to the end of the wait (`locked`), or it `failed`");
        registry.describe_counter(ENDED, &["how"], "Locks that ended over this node: `released`, found to be `lost` at a renewal or release, or `taken` away");
        let acquired = |how| registry.counter(ACQUIRED, &[("how", how)]);
        let refused = |why| registry.counter(REFUSED, &[("why", why)]);
        let ended = |how| registry.counter(ENDED, &[("how", how)]);
        Self {
            free: acquired("free"),
            handed: acquired("handed"),
            replayed: acquired("replayed"),
            locked: refused("locked"),
            other: refused("failed"),
            released: ended("released"),
            lost: ended("lost"),
            taken: ended("taken"),
            waiting: registry.gauge("tidemill_locks_waiting", "Requests that wait for a lock on this node"),
        }
    }

    /// Counts a lock that was granted.
    pub fn acquired(&self, handed: bool, replayed: bool) {
        let counted = match (replayed, handed) {
            (true, _) => &self.replayed,
            (false, true) => &self.handed,
            (false, false) => &self.free,
        };
        counted.increment(1);
    }

    /// Counts a lock that was not granted.
    pub fn refused(&self, code: Code) {
        let counted = if code == Code::Locked { &self.locked } else { &self.other };
        counted.increment(1);
    }

    /// Counts a lock that was given back.
    pub fn released(&self) {
        self.released.increment(1);
    }

    /// Counts a lock that was found to be held no more, where that is why something failed.
    pub fn failed(&self, code: Code) {
        if code == Code::LockLost {
            self.lost.increment(1);
        }
    }

    /// Counts a lock that was taken away.
    pub fn taken(&self) {
        self.taken.increment(1);
    }

    /// Tells how many wait.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is as fine as a float is")]
    pub fn waiting(&self, count: usize) {
        self.waiting.set(count as f64);
    }
}

impl fmt::Debug for Locks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locks").finish_non_exhaustive()
    }
}
