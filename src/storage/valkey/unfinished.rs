//! What is being taken over from elsewhere and is not whole: an index of these topics and buckets, for who asks how many
//! there are. A copy that was given up leaves them so.
//!
//! As every index it is a hint, written behind what it names; a sweep mends it.

use std::time::Duration;

use tidemill_proto::{BucketName, TopicName};
use tokio::time::{Instant, timeout};

use super::Shard;
use crate::storage::{Freeze, StorageError};

/// How long the servers may take to count.
const COUNTED_WITHIN: Duration = Duration::from_millis(500);
/// How long a count is good for.
const FRESH_FOR: Duration = Duration::from_secs(1);
/// Names that are looked at in one step.
const STEP_NAMES: usize = 64;

impl Shard {
    /// Returns about how many topics and buckets there are on all servers that are not whole; what was known last where that
    /// is not told in time. As with all of its health, the server is asked once a second.
    pub(super) async fn count_unfinished(&self) -> u64 {
        let mut kept = self.kept_unfinished.lock().await;
        if let Some((at, count)) = &*kept
            && at.elapsed() < FRESH_FOR
        {
            return *count;
        }
        let known = kept.as_ref().map_or(0, |(_, count)| *count);
        let count = async { tokio::try_join!(self.indexes.importing.count(), self.indexes.begun.count()) };
        let counted = timeout(COUNTED_WITHIN, count).await.ok().and_then(Result::ok);
        let count = counted.map_or(known, |(topics, buckets)| topics.saturating_add(buckets));
        *kept = Some((Instant::now(), count));
        count
    }

    /// Notes topics that are not whole.
    pub(super) async fn note_unfinished(&self, topics: &[&TopicName]) -> Result<(), StorageError> {
        if topics.is_empty() {
            return Ok(());
        }
        match self.indexes.importing.add(topics).await {
            // A server at its memory limit lists no more, and the list may be another program's.
            Ok(_) | Err(StorageError::Full(_) | StorageError::ForeignKey(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes out of the index what is whole, or gone.
    pub(super) async fn mend_unfinished(&self) -> Result<(), StorageError> {
        let mut after: Option<TopicName> = None;
        loop {
            let names = self.indexes.importing.near(after.as_ref(), STEP_NAMES).await?;
            let Some(last) = names.last() else { break };
            after = Some(last.clone());
            let mut whole = Vec::new();
            for name in names.iter().filter(|name| self.has(*name)) {
                match self.copied(name).await {
                    Ok(found) if found.freeze == Some(Freeze::Importing) => {}
                    Err(error @ (StorageError::Unavailable(_) | StorageError::Indeterminate(_))) => {
                        return Err(error);
                    }
                    Ok(_) | Err(_) => whole.push(name),
                }
            }
            self.indexes.importing.remove(&whole).await?;
        }
        let mut after: Option<BucketName> = None;
        loop {
            let names = self.indexes.begun.near(after.as_ref(), STEP_NAMES).await?;
            let Some(last) = names.last() else { return Ok(()) };
            after = Some(last.clone());
            let mut whole = Vec::new();
            for name in names.iter().filter(|name| self.has(*name)) {
                match self.copied_bucket(name).await {
                    Ok(found) if found.freeze == Some(Freeze::Importing) => {}
                    Err(error @ (StorageError::Unavailable(_) | StorageError::Indeterminate(_))) => {
                        return Err(error);
                    }
                    Ok(_) | Err(_) => whole.push(name),
                }
            }
            self.indexes.begun.remove(&whole).await?;
        }
    }
}
