//! Parking: where a reader leaves its cursors and its way to write, while it has nothing to do. It must
//! not know what they are.
//!
//! Who follows a topic live is there for the next message and for nothing else. Waking one task for
//! each of them costs more than writing the message does, so the feed writes for those that are parked,
//! one after the other. A reader takes back what it has left when it has something else to do, or when it
//! is woken: for a gap, for history, or because its client does not take everything at once.
//!
//! **Invariant:** cursors and outlet are in one place at a time: with the reader's task or parked.
//!
//! **Invariant:** a reader that parks has seen everything that it was notified of before; what it is
//! notified of later finds it parked, or wakes it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::Notify;

use super::primitives::{AtomicBool, Mutex};
use super::shared_batch::SharedBatches;
use super::subscribers::Subscriber;

/// What a reader parks: all that is needed to write to its client.
pub(super) trait Park: Sized + Send + 'static {
    /// Whether there may be something that nobody has taken.
    fn is_pending(&self) -> bool;

    /// Writes what there is for who has this waker. Returns whether that is done: else the reader has to
    /// see to it.
    fn deliver(&mut self, waker: &Waker<Self>, batches: &mut SharedBatches<'_>) -> bool;
}

/// The place of one reader.
pub(super) struct Parking<P> {
    /// Wakes the reader's task.
    wake: Notify,
    parked: Mutex<Option<P>>,
}

/// What a feed notifies for one topic of a reader.
pub(super) struct Waker<P> {
    /// Whether there may be something that nobody has taken.
    pending: AtomicBool,
    parking: Arc<Parking<P>>,
}

impl<P> fmt::Debug for Parking<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parking").finish_non_exhaustive()
    }
}

impl<P> fmt::Debug for Waker<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker").field("pending", &self.pending).finish_non_exhaustive()
    }
}

impl<P> Default for Parking<P> {
    fn default() -> Self {
        Self { wake: Notify::new(), parked: Mutex::new(None) }
    }
}

impl<P: Park> Parking<P> {
    /// Waits until the reader is woken.
    ///
    /// # Cancel safety
    /// Cancel-safe: a wake-up is kept.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Leaves what feeds need to write, unless something is pending already.
    pub(super) fn park(&self, reader: P) -> Result<(), P> {
        let mut parked = self.parked.lock();
        // Under the lock: who notifies after this finds the reader parked.
        if reader.is_pending() {
            return Err(reader);
        }
        *parked = Some(reader);
        Ok(())
    }

    /// Takes it back; `None` if nothing is parked.
    pub(super) fn unpark(&self) -> Option<P> {
        self.parked.lock().take()
    }
}

impl<P> Waker<P> {
    /// Returns a waker with something pending.
    pub(super) fn new(parking: Arc<Parking<P>>) -> Self {
        Self { pending: AtomicBool::new(true), parking }
    }

    pub(super) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// Leaves something pending, for the reader that comes back to it.
    pub(super) fn keep_pending(&self) {
        self.pending.store(true, Ordering::Release);
    }

    /// Leaves nothing pending. Whatever is notified from here on is looked at again.
    pub(super) fn clear(&self) {
        self.pending.store(false, Ordering::Release);
    }
}

impl<P: Park> Subscriber for Waker<P> {
    fn notify(&self, batches: &mut SharedBatches<'_>) {
        // Where something was pending already, the reader knows.
        if self.pending.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(reader) = &mut *self.parking.parked.lock() {
            self.clear();
            if reader.deliver(self, batches) {
                return;
            }
            self.keep_pending();
        }
        self.parking.wake();
    }
}
