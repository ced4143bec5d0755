//! What callers have open at one time: places, of which a node holds as many as it has given away.
//!
//! Whoever opens something waits for the storage once, so the number is exact over all nodes. A place that is left is
//! free on its own node at once, and on the others within [`HOLD`](super::HOLD), when the node tells how many it
//! holds; those of a node that is gone are free after [`LEASE`].

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use crate::storage::QuotaId;

/// How long what a node tells holds.
pub(super) const LEASE: Duration = Duration::from_secs(20);

/// The places that a node has given away.
#[derive(Debug, Default)]
pub(super) struct Given(Mutex<HashMap<QuotaId, Arc<Count>>>);

/// How many places of one caller are given away.
#[derive(Debug, Default)]
pub(super) struct Count {
    open: Mutex<u32>,
    /// Held by who asks the storage for one more.
    pub(super) asking: tokio::sync::Mutex<()>,
}

/// One place, given back when dropped.
pub struct Place(Weak<Count>);

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").finish_non_exhaustive()
    }
}

impl Given {
    /// Returns how many are given away of this quota, to be looked at and raised.
    pub(super) fn of(&self, quota: QuotaId) -> Arc<Count> {
        self.0.lock().entry(quota).or_default().clone()
    }

    /// Returns what is given away now, and forgets callers who have nothing open.
    pub(super) fn now(&self) -> Vec<(QuotaId, Arc<Count>)> {
        self.0.lock().iter().map(|(quota, count)| (*quota, count.clone())).collect()
    }

    /// Forgets a caller who has nothing open, if nobody is about to open something.
    pub(super) fn forget(&self, quota: QuotaId) {
        let mut given = self.0.lock();
        // One is the table's own, and one that of who asks for this.
        let is_idle = |count: &Arc<Count>| Arc::strong_count(count) <= 2 && count.open() == 0;
        if given.get(&quota).is_some_and(is_idle) {
            given.remove(&quota);
        }
    }
}

impl Count {
    pub(super) fn open(&self) -> u32 {
        *self.open.lock()
    }

    /// Gives one more away.
    pub(super) fn give(self: &Arc<Self>) -> Place {
        *self.open.lock() += 1;
        Place(Arc::downgrade(self))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(count) = self.0.upgrade() {
            *count.open.lock() -= 1;
        }
    }
}
