//! Trying again: an operation on what lives in a slot follows that when it moves.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::Shard;
use super::super::failure::Redirect;
use super::places::Places;
use crate::chance::jittered;
use crate::storage::StorageError;

/// Wait before something is asked again that servers say is elsewhere.
pub(super) const AGAIN_AFTER: Duration = Duration::from_millis(10);

impl Places {
    /// Begins an operation on what lives in a slot, or on what lives in several, which any shard does.
    pub(in super::super) fn tries(self: &Arc<Self>, slot: impl Into<Option<u16>>) -> Tries<'_> {
        Tries { places: self, slot: slot.into(), deadline: None, again: 0 }
    }
}

/// An operation on what lives in a slot, which follows that when it moves.
pub(in super::super) struct Tries<'a> {
    places: &'a Arc<Places>,
    slot: Option<u16>,
    deadline: Option<Instant>,
    again: u32,
}

impl Tries<'_> {
    /// Returns the shard to ask now.
    pub(in super::super) fn shard(&self) -> Result<Arc<Shard>, StorageError> {
        self.slot.map_or_else(|| self.places.first(), |slot| self.places.owner_of(slot))
    }

    /// Returns whether an operation that has failed so is to be tried again, once it is: it had no effect, as what it
    /// is about lives elsewhere or is on its way.
    pub(in super::super) async fn again(&mut self, error: &StorageError) -> bool {
        if !matches!(error, StorageError::Unavailable(_)) || !self.places.is_cluster() {
            return false;
        }
        let Some(redirect) = Redirect::of(error) else { return false };
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + self.places.options.timeout);
        if Instant::now() >= deadline {
            return false;
        }
        self.places.heed(&redirect);
        // The first time, what was said of it is enough.
        if self.again > 0 || !matches!(redirect, Redirect::Moved(_, Some(_))) {
            sleep(jittered(AGAIN_AFTER * self.again.clamp(1, 10))).await;
        }
        self.again += 1;
        true
    }
}
