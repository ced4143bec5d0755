//! Limits of applications, in this process.

use async_trait::async_trait;
use tidemill_proto::Timestamp;

use super::Memory;
use crate::storage::takes::TakeTable;
use crate::storage::{StorageError, Take, TakeStore, Taken};

/// Most limits of which something is owed: about 300 bytes each, and their names.
const LIMITS_MAX: usize = 1_000_000;

/// The limits of which something is owed.
#[derive(Debug)]
pub(super) struct Takes(TakeTable);

impl Default for Takes {
    fn default() -> Self {
        Self(TakeTable::new(LIMITS_MAX))
    }
}

impl Takes {
    /// Forgets limits of which nothing is owed.
    pub(super) fn clear(&self, now: Timestamp) {
        self.0.clear(micros(now));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

fn micros(now: Timestamp) -> u64 {
    now.as_millis().saturating_mul(1_000)
}

#[async_trait]
impl TakeStore for Memory {
    async fn take(&self, take: &Take) -> Result<Taken, StorageError> {
        self.takes.0.take(take, micros(self.clock.now()))
    }
}
