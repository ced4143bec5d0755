//! The seat: where a reader leaves its cursors and its way to write, while it has nothing to do.
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

use super::line::Line;
use super::round::{Round, Rounds};

/// Where messages go that need not be waited for.
pub trait Outlet: Send + 'static {
    /// Returns whether messages may be delivered: whether nothing of earlier ones still waits.
    fn is_free(&self) -> bool;

    /// Returns how many bytes it may hold.
    fn bytes_max(&self) -> usize;

    /// Writes messages as far as the client takes them now, and keeps the rest for the reader's task,
    /// which is called if there is any.
    fn deliver(&mut self, round: &Round);
}

/// The outlet of a reader that takes its messages itself.
#[derive(Debug)]
pub enum NoOutlet {}

impl Outlet for NoOutlet {
    fn is_free(&self) -> bool {
        match *self {}
    }

    fn bytes_max(&self) -> usize {
        match *self {}
    }

    fn deliver(&mut self, _: &Round) {
        match *self {}
    }
}

/// The seat of one reader.
pub(super) struct Seat<O> {
    /// Calls the reader's task.
    call: Notify,
    sitting: Mutex<Option<Sitting<O>>>,
}

pub(super) struct Sitting<O> {
    pub(super) lines: Vec<Line<O>>,
    pub(super) outlet: O,
}

/// What a feed tells that it has something new.
pub(super) trait Listener: fmt::Debug + Send + Sync {
    /// Takes what there is, or calls who does.
    fn ring(&self, rounds: &mut Rounds<'_>);
}

/// The bell of one line of a reader.
pub(super) struct Bell<O> {
    /// Whether there may be something that nobody has taken.
    rung: AtomicBool,
    seat: Arc<Seat<O>>,
}

impl<O> fmt::Debug for Seat<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").finish_non_exhaustive()
    }
}

impl<O> fmt::Debug for Bell<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("rung", &self.rung).finish_non_exhaustive()
    }
}

impl<O> Default for Seat<O> {
    fn default() -> Self {
        Self { call: Notify::new(), sitting: Mutex::new(None) }
    }
}

impl<O> Seat<O> {
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
    pub(super) fn sit(&self, sitting: Sitting<O>) -> Result<(), Sitting<O>> {
        let mut seat = self.sitting.lock();
        // Under the lock: who rings after this finds the reader sitting.
        if sitting.lines.iter().any(|line| line.bell.is_rung()) {
            return Err(sitting);
        }
        *seat = Some(sitting);
        Ok(())
    }

    /// Rises; `None` if nobody sits.
    pub(super) fn rise(&self) -> Option<Sitting<O>> {
        self.sitting.lock().take()
    }
}

impl<O> Bell<O> {
    /// Returns a bell that has been rung.
    pub(super) fn new(seat: Arc<Seat<O>>) -> Self {
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

impl<O: Outlet> Listener for Bell<O> {
    fn ring(&self, rounds: &mut Rounds<'_>) {
        // Where it was rung already, the reader knows.
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(Sitting { lines, outlet }) = &mut *self.seat.sitting.lock()
            && let Some(line) = lines.iter_mut().find(|line| std::ptr::eq(Arc::as_ptr(&line.bell), self))
        {
            self.silence();
            if line.deliver(rounds, outlet) {
                return;
            }
            self.keep_rung();
        }
        self.seat.call();
    }
}
