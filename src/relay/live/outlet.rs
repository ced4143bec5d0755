//! The outlet: the way to a client, as the feeds use it for a reader that has nothing to do.
//!
//! Each transport has its own. The feeds must not know what it writes, nor to what.

use super::shared_batch::SharedBatch;

/// Where messages go that need not be waited for.
pub trait Outlet: Send + 'static {
    /// Returns whether messages may be delivered: whether nothing of earlier ones still waits.
    fn is_free(&self) -> bool;

    /// Returns whether this may be delivered: whether nothing waits, and what the client does not take of it
    /// may be held.
    fn takes(&self, batch: &SharedBatch) -> bool;

    /// Writes messages as far as the client takes them now, and keeps the rest for the reader's task,
    /// which is woken if there is any.
    fn deliver(&mut self, batch: &SharedBatch);
}

/// The outlet of a reader that takes its messages itself.
#[derive(Debug)]
pub enum NoOutlet {}

impl Outlet for NoOutlet {
    fn is_free(&self) -> bool {
        match *self {}
    }

    fn takes(&self, _: &SharedBatch) -> bool {
        match *self {}
    }

    fn deliver(&mut self, _: &SharedBatch) {
        match *self {}
    }
}
