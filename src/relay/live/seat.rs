//! The seat: where a reader leaves its cursors and its way to write, while it has nothing to do. It must
//! not know what they are.
//!
//! Who follows a topic live is there for the next message and for nothing else. Waking one task for
//! each of them costs more than writing the message does, so the feed writes for those that sit, one
//! after the other. A reader rises when it has something else to do, or when it is called: for a gap,
//! for history, or because its client does not take everything at once.
//!
//! **Invariant:** cursors and outlet are in one place at a time: with the reader's task or in the seat.
//!
//! **Invariant:** a reader that sits down has seen everything that was rung before; what is rung later
//! finds it sitting, or calls it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::crowd::Listener;
use super::round::Rounds;

/// What can be left in a seat: all that is needed to write to a client.
pub(super) trait Sits: Sized + Send + 'static {
    /// Whether a bell has been rung for it.
    fn is_rung(&self) -> bool;

    /// Writes what there is for who has this bell. Returns whether that is done: else the reader has to
    /// see to it.
    fn deliver(&mut self, bell: &Bell<Self>, rounds: &mut Rounds<'_>) -> bool;
}

/// The seat of one reader.
pub(super) struct Seat<S> {
    /// Calls the reader's task.
    call: Notify,
    sitting: Mutex<Option<S>>,
}

/// The bell of one topic of a reader.
pub(super) struct Bell<S> {
    /// Whether there may be something that nobody has taken.
    rung: AtomicBool,
    seat: Arc<Seat<S>>,
}

impl<S> fmt::Debug for Seat<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").finish_non_exhaustive()
    }
}

impl<S> fmt::Debug for Bell<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("rung", &self.rung).finish_non_exhaustive()
    }
}

impl<S> Default for Seat<S> {
    fn default() -> Self {
        Self { call: Notify::new(), sitting: Mutex::new(None) }
    }
}

impl<S: Sits> Seat<S> {
    /// Waits until the reader is called.
    ///
    /// # Cancel safety
    /// Cancel-safe: a call is kept.
    pub(super) async fn called(&self) {
        self.call.notified().await;
    }

    pub(super) fn call(&self) {
        self.call.notify_one();
    }

    /// Sits down, unless a bell has been rung.
    pub(super) fn sit(&self, sitting: S) -> Result<(), S> {
        let mut seat = self.sitting.lock();
        // Under the lock: who rings after this finds the reader sitting.
        if sitting.is_rung() {
            return Err(sitting);
        }
        *seat = Some(sitting);
        Ok(())
    }

    /// Rises; `None` if nobody sits.
    pub(super) fn rise(&self) -> Option<S> {
        self.sitting.lock().take()
    }
}

impl<S> Bell<S> {
    /// Returns a bell that has been rung.
    pub(super) fn new(seat: Arc<Seat<S>>) -> Self {
        Self { rung: AtomicBool::new(true), seat }
    }

    pub(super) fn is_rung(&self) -> bool {
        self.rung.load(Ordering::Acquire)
    }

    /// Leaves it as if it had been rung, for the reader that comes back to it.
    pub(super) fn keep_rung(&self) {
        self.rung.store(true, Ordering::Release);
    }

    /// Silences it. Whatever is rung from here on is looked at again.
    pub(super) fn silence(&self) {
        self.rung.store(false, Ordering::Release);
    }
}

impl<S: Sits> Listener for Bell<S> {
    fn ring(&self, rounds: &mut Rounds<'_>) {
        // Where it was rung already, the reader knows.
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(sitting) = &mut *self.seat.sitting.lock() {
            self.silence();
            if sitting.deliver(self, rounds) {
                return;
            }
            self.keep_rung();
        }
        self.seat.call();
    }
}
