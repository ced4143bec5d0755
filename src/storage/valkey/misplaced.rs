//! Topics and logs of buckets that are on a server, and that nobody sees there: they live elsewhere by the settings, or their
//! keys have the other form.

use tidemill_proto::{MessageId, TopicName};

use super::cluster::others::{Others, Own};
use super::failure::{causes_of, lacks_right};
use super::{Shard, Valkey};
use crate::storage::{Epoch, Freeze, StorageError};

/// How many are looked at.
const LOOKED_AT: usize = 32;

/// What tells whether one has all that another has: which it is, its last id, and whether it is whole.
type Told = (Epoch, MessageId, bool);

impl Valkey {
    /// Returns a topic, or the log of a bucket, whose keys have the other form than those of this node, if one is found on any
    /// server. One that lets its user not look for it has none.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`.
    pub async fn hidden(&self) -> Result<Option<TopicName>, StorageError> {
        // In a cluster there is one form.
        for shard in self.shards().iter().filter(|shard| shard.seat().is_none()) {
            match shard.hidden_topic().await {
                Ok(None) => {}
                Ok(found) => return Ok(found),
                Err(error) if lacks_right(&causes_of(&error)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

impl Shard {
    /// Returns what an operator should know of what is here and lives elsewhere by the settings.
    pub(super) async fn misplaced(&self) -> Result<Option<String>, StorageError> {
        let others = match &self.others {
            Some(others) if matches!(others.own(), Own::Server(_)) => others,
            Some(_) | None => return Ok(None),
        };
        let found = self.find_topics(self.keys, |topic| !self.has(topic), LOOKED_AT).await?;
        let Some(first) = found.first() else { return Ok(None) };
        for topic in &found {
            if !self.is_whole_elsewhere(others, topic).await? {
                return Ok(Some(format!(
                    "the server has topics that VALKEY_PLACEMENT has elsewhere, as {}: nobody sees them here; move them with `tidemill copy`",
                    named(topic)
                )));
            }
        }
        Ok(Some(format!(
            "the server has topics that VALKEY_PLACEMENT has elsewhere, as {}: nobody sees them here, and they were copied to where they live and are whole there, so what is left here can be deleted, with `tidemill topics delete` or `tidemill buckets delete` on a relay with this server alone",
            named(first)
        )))
    }

    /// Whether where it lives there is the same one, whole, with all that there is here.
    async fn is_whole_elsewhere(&self, others: &Others, topic: &TopicName) -> Result<bool, StorageError> {
        let owner = others.owner_of(others.homes().of(topic))?;
        let (Some((epoch, last, _)), Some((there, last_there, is_whole))) =
            (self.told_of(topic).await?, owner.told_of(topic).await?)
        else {
            return Ok(false);
        };
        Ok(epoch == there && epoch != Epoch::Unmarked && is_whole && last <= last_there)
    }

    async fn told_of(&self, topic: &TopicName) -> Result<Option<Told>, StorageError> {
        let is_whole = |freeze| freeze != Some(Freeze::Importing);
        let told = match topic.bucket() {
            Some(bucket) => {
                let found = self.copied_bucket(&bucket).await;
                found.map(|found| (found.epoch, found.last, is_whole(found.freeze)))
            }
            None => self.copied(topic).await.map(|found| (found.epoch, found.last, is_whole(found.freeze))),
        };
        match told {
            Ok(told) => Ok(Some(told)),
            Err(error @ (StorageError::Unavailable(_) | StorageError::Indeterminate(_))) => Err(error),
            Err(_) => Ok(None),
        }
    }
}

fn named(topic: &TopicName) -> String {
    topic.bucket().map_or_else(|| format!("`{topic}`"), |bucket| format!("the bucket `{bucket}`"))
}
