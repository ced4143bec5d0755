//! A read of storage for one topic of a reader.
//!
//! It must not know what becomes of the answer.

use std::pin::Pin;
use std::sync::Arc;

use super::feed::Mark;
use super::history::Outcome;
use crate::storage::StorageError;

/// A read of storage for who has this waker.
pub(super) struct StorageRead<W> {
    pub(super) waker: Arc<W>,
    /// How far the feed had come before the read: what lies before it storage has, or it is gone, and what
    /// is reset after it is not confirmed.
    pub(super) before: Mark,
    pub(super) state: State,
}

/// How far it is.
pub(super) enum State {
    UnderWay(Pin<Box<dyn Future<Output = Outcome> + Send>>),
    Known(Outcome),
}

impl<W> StorageRead<W> {
    /// Returns whether it is for the subscription of this waker.
    pub(super) fn is_for(&self, waker: &Arc<W>) -> bool {
        Arc::ptr_eq(&self.waker, waker)
    }

    pub(super) const fn is_finished(&self) -> bool {
        matches!(self.state, State::Known(_))
    }

    /// Waits for the storage.
    ///
    /// # Cancel safety
    /// Cancel-safe: the read goes on when this is called again.
    pub(super) async fn finish(&mut self) {
        if let State::UnderWay(read) = &mut self.state {
            self.state = State::Known(read.await);
        }
    }
}

/// Returns whether an error says that there is no such topic.
pub(super) fn is_gone(error: &StorageError) -> bool {
    matches!(error, StorageError::NoTopic | StorageError::NotATopic)
}
