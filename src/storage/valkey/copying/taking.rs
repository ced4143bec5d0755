//! Which copy takes a topic or a bucket over, and that lists name it.

use tidemill_proto::TopicName;

use crate::storage::StorageError;
use crate::storage::valkey::failure::Effect;
use crate::storage::valkey::resp::{Arguments, Parts};
use crate::storage::valkey::{Shard, scripts};

/// Milliseconds for which a copy has what it takes over for itself: it says so again each second.
const CLAIM_MS: u64 = 5_000;

impl Shard {
    pub(super) async fn claim_import(&self, topic: &TopicName, token: u64) -> Result<bool, StorageError> {
        let about = match topic.bucket() {
            Some(bucket) => {
                let [_, facts, ..] = self.keys.bucket(&bucket);
                facts
            }
            None => self.keys.description(topic),
        };
        let keys = [self.keys.stream(topic), about];
        let arguments: Arguments = [format!("{token:016x}"), CLAIM_MS.to_string()].iter().collect();
        let call = (&scripts::CLAIM_IMPORT, Effect::Write);
        let read = |parts: &mut Parts<'_>| Some(parts.next()?.integer()? == 1);
        self.copy_call(call, &keys, arguments, StorageError::TopicExists, read).await
    }

    pub(super) async fn list_copied(&self, topic: &TopicName) -> Result<(), StorageError> {
        match topic.bucket() {
            Some(bucket) => self.list_bucket(&bucket).await,
            None => {
                self.indexes.topics.add(&[topic]).await?;
                self.index_due(std::slice::from_ref(topic)).await
            }
        }
    }
}
