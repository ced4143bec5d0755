//! Trying again: an operation on what lives in a slot follows that when it moves.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::Shard;
use super::super::failure::Redirect;
use super::super::homes::Home;
use super::places::Places;
use crate::chance::jittered;
use crate::storage::StorageError;

/// Wait before something is asked again that servers say is elsewhere.
pub(super) const AGAIN_AFTER: Duration = Duration::from_millis(10);

impl Places {
    /// Begins an operation on what has a home, or on what lives at several shards, which any of them does.
    pub(in super::super) fn tries(self: &Arc<Self>, home: Option<Home>) -> Tries<'_> {
        Tries { places: self, home, deadline: None, again: 0 }
    }
}

/// An operation on what has a home, which follows that when it moves.
pub(in super::super) struct Tries<'a> {
    places: &'a Arc<Places>,
    home: Option<Home>,
    deadline: Option<Instant>,
    again: u32,
}

impl Tries<'_> {
    /// Returns the shard to ask now.
    pub(in super::super) fn shard(&self) -> Result<Arc<Shard>, StorageError> {
        self.home.map_or_else(|| self.places.first(), |home| self.places.owner_of(home))
    }

    /// Returns whether an operation that has failed so is to be tried again, once it is: it had no effect, as what it
    /// is about lives elsewhere or is on its way.
    pub(in super::super) async fn again(&mut self, error: &StorageError) -> bool {
        if !matches!(error, StorageError::Unavailable(_)) || self.places.is_one() {
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
