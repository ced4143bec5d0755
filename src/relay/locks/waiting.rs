//! Those who wait for locks on this node, and locks that nobody wants any more.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tidemill_proto::{MessageId, Timestamp};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::storage::{LockId, LockSecret, Storage, StorageError};

/// How long hints are wanted when nobody waits any more: others may come.
const LINGER: Duration = Duration::from_secs(30);
/// How often, and how long, it is tried to give back a lock that nobody wants.
const GIVEN_BACK_TRIES: u32 = 5;
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(10);
/// Time between two tries.
const RETRY: Duration = Duration::from_millis(500);

/// Those who wait for locks on this node.
#[derive(Debug)]
pub(in crate::relay) struct LockWaiters {
    this: Weak<Self>,
    storage: Storage,
    waiting: Mutex<Waiting>,
    tracker: TaskTracker,
    token: CancellationToken,
}

#[derive(Debug, Default)]
struct Waiting {
    told: HashMap<LockSecret, Arc<Notify>>,
    /// Whether hints of locks are wanted.
    watched: bool,
    /// Whether it is under way to end that.
    ending: bool,
}

/// A place among those who wait, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    waiters: Arc<LockWaiters>,
    secret: LockSecret,
    told: Arc<Notify>,
}

impl Place {
    /// Waits until there is something to be looked at.
    pub(super) async fn told(&self) {
        self.told.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiters.leave(&self.secret);
    }
}

/// A lock, or a place in the line, that is given back when this is dropped, unless it was found what became of it.
#[derive(Debug)]
pub(super) struct Open(Option<GiveBackLock>);

impl Open {
    /// Says that it is known what became of it; returns what gives it back all the same.
    pub(super) fn found(&mut self) -> Option<GiveBackLock> {
        self.0.take()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(back) = self.0.take() {
            back.give();
        }
    }
}

/// Gives a lock back whose holder did not get the answer.
pub struct GiveBackLock {
    waiters: Arc<LockWaiters>,
    lock: LockId,
    secret: LockSecret,
}

impl fmt::Debug for GiveBackLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GiveBackLock").field("lock", &self.lock).finish_non_exhaustive()
    }
}

impl GiveBackLock {
    /// Gives it back. Where the storage does not answer, it is held until its time is over.
    pub fn give(self) {
        let Self { waiters, lock, secret } = self;
        let storage = waiters.storage.clone();
        waiters.tracker.spawn(async move {
            for _ in 0..GIVEN_BACK_TRIES {
                let given = timeout(GIVEN_BACK_WITHIN, storage.locks.release_lock(&lock, secret)).await;
                let again = matches!(
                    given,
                    Ok(Err(StorageError::Unavailable(_)
                        | StorageError::Indeterminate(_)
                        | StorageError::Overloaded))
                );
                if !again {
                    return;
                }
                sleep(RETRY).await;
            }
        });
    }
}

/// A lock that is held. It is given back when this is dropped, unless it was [`taken`](Self::taken).
#[derive(Debug)]
pub struct HeldLock {
    /// The lock.
    pub lock: LockId,
    /// With which it is renewed and released.
    pub secret: LockSecret,
    /// The fence.
    pub fence: MessageId,
    /// Until when it is held.
    pub expires_at: Timestamp,
    /// Whether it was waited for.
    pub handed: bool,
    /// Whether it was granted before, under the same key.
    pub is_replayed: bool,
    /// What gives it back; `None` where it can be found again.
    pub(super) back: Option<GiveBackLock>,
}

impl HeldLock {
    /// Says that who asked for it is about to get it; returns what gives it back where that fails, unless it can
    /// be found again.
    #[must_use]
    pub fn taken(mut self) -> Option<GiveBackLock> {
        self.back.take()
    }
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        if let Some(back) = self.back.take() {
            back.give();
        }
    }
}

impl LockWaiters {
    /// Returns nobody yet; they wait until `token` is cancelled, and locks are given back on `tracker`.
    pub(in crate::relay) fn new(
        storage: Storage,
        tracker: &TaskTracker,
        token: &CancellationToken,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            storage,
            waiting: Mutex::default(),
            tracker: tracker.clone(),
            token: token.clone(),
        })
    }

    /// Returns how many wait.
    pub(in crate::relay) fn count(&self) -> usize {
        self.waiting.lock().told.len()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until nobody is to wait any more.
    pub(super) async fn stopping(&self) {
        self.token.cancelled().await;
    }

    /// Begins to wait for a lock under a secret.
    pub(super) fn enter(self: &Arc<Self>, secret: LockSecret) -> Place {
        let told = Arc::new(Notify::new());
        let mut waiting = self.waiting.lock();
        waiting.told.insert(secret, told.clone());
        // Within the lock, so that the backend is told in this order.
        if !std::mem::replace(&mut waiting.watched, true) {
            self.storage.locks.watch_locks(true);
        }
        drop(waiting);
        Place { waiters: self.clone(), secret, told }
    }

    fn leave(&self, secret: &LockSecret) {
        let mut waiting = self.waiting.lock();
        waiting.told.remove(secret);
        if !waiting.told.is_empty() || std::mem::replace(&mut waiting.ending, true) {
            return;
        }
        drop(waiting);
        let (this, token) = (self.this.clone(), self.token.clone());
        self.tracker.spawn(async move {
            token.run_until_cancelled(sleep(LINGER)).await;
            if let Some(this) = this.upgrade() {
                this.end_watching();
            }
        });
    }

    fn end_watching(&self) {
        let mut waiting = self.waiting.lock();
        waiting.ending = false;
        if waiting.told.is_empty() && std::mem::take(&mut waiting.watched) {
            self.storage.locks.watch_locks(false);
        }
    }

    /// Returns what gives a lock back that is asked for, or the place in its line.
    pub(super) fn asked(self: &Arc<Self>, lock: &LockId, secret: LockSecret) -> Open {
        Open(Some(GiveBackLock { waiters: self.clone(), lock: lock.clone(), secret }))
    }

    /// Takes a hint of a lock.
    pub(in crate::relay) fn hear(&self, secret: &LockSecret) {
        if let Some(told) = self.waiting.lock().told.get(secret) {
            told.notify_one();
        }
    }

    /// Takes a hint of all locks.
    pub(in crate::relay) fn hear_everything(&self) {
        for told in self.waiting.lock().told.values() {
            told.notify_one();
        }
    }
}
