//! Buckets that are copied, behind the lock.

use async_trait::async_trait;
use tidemill_proto::page::Order;
use tidemill_proto::{BucketName, KeyName, MessageId, Timestamp, TopicName};

use super::Memory;
use crate::storage::{
    BucketCopyStore, CopiedBucket, CopiedKey, CopiedKeys, Epoch, GapCheck, KeysPart, Range, StorageError,
    StoredMessage,
};

impl Memory {
    fn tell_of(&self, bucket: &BucketName) {
        self.hints.tell_topics([&TopicName::log_of(bucket)]);
    }
}

#[async_trait]
impl BucketCopyStore for Memory {
    async fn copied_bucket(&self, bucket: &BucketName) -> Result<CopiedBucket, StorageError> {
        self.topics.read().bucket(bucket).map(|found| found.copied(bucket))
    }

    async fn copied_keys(
        &self,
        bucket: &BucketName,
        after: Option<&KeyName>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<CopiedKeys, StorageError> {
        let topics = self.topics.read();
        let found = topics.bucket(bucket).ok();
        Ok(found.map_or_else(CopiedKeys::default, |found| found.copied_keys(after, limit, bytes_max)))
    }

    async fn copied_some(
        &self,
        bucket: &BucketName,
        keys: &[KeyName],
        bytes_max: usize,
    ) -> Result<Vec<Option<CopiedKey>>, StorageError> {
        let topics = self.topics.read();
        let found = topics.bucket(bucket).ok();
        let (mut some, mut bytes) = (Vec::new(), 0);
        for key in keys {
            let copied = found.and_then(|found| found.copied_key(key));
            bytes += copied
                .iter()
                .flat_map(|copied| std::iter::once(&copied.entry).chain(&copied.past))
                .fold(0, |bytes, entry| bytes + entry.value.as_ref().map_or(0, |value| value.bytes.len()));
            if bytes > bytes_max && !some.is_empty() {
                break;
            }
            some.push(copied);
        }
        Ok(some)
    }

    async fn copied_ends(
        &self,
        bucket: &BucketName,
        after: Option<&KeyName>,
        limit: usize,
    ) -> Result<Vec<(KeyName, Option<Timestamp>)>, StorageError> {
        let topics = self.topics.read();
        Ok(topics.bucket(bucket).map_or_else(|_| Vec::new(), |found| found.copied_ends(after, limit)))
    }

    async fn copied_changes(
        &self,
        bucket: &BucketName,
        after: MessageId,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<StoredMessage>, StorageError> {
        let topics = self.topics.read();
        let Ok(found) = topics.bucket(bucket) else { return Ok(Vec::new()) };
        let after = Some(after);
        let range = Range { order: Order::Asc, after, gap_check: GapCheck::None, limit, bytes_max };
        // By that time none has expired.
        Ok(found.log().read(&TopicName::log_of(bucket), range, None, Timestamp::from_millis(0)).messages)
    }

    async fn freeze_bucket(&self, bucket: &BucketName, frozen: bool) -> Result<(), StorageError> {
        self.topics.write().freeze_bucket(bucket, frozen)
    }

    async fn begin_bucket(&self, other: &CopiedBucket) -> Result<(), StorageError> {
        self.topics.write().begin_bucket(other)?;
        self.tell_of(&other.state.bucket);
        Ok(())
    }

    async fn import_keys(
        &self,
        bucket: &BucketName,
        epoch: Epoch,
        keys: KeysPart,
    ) -> Result<(), StorageError> {
        self.topics.write().import_keys(bucket, epoch, &keys)
    }

    async fn import_ends(
        &self,
        bucket: &BucketName,
        epoch: Epoch,
        ends: &[(KeyName, Option<Timestamp>)],
    ) -> Result<(), StorageError> {
        self.topics.write().import_ends(bucket, epoch, ends)
    }

    async fn import_changes(
        &self,
        bucket: &BucketName,
        epoch: Epoch,
        after: MessageId,
        changes: &[StoredMessage],
    ) -> Result<(), StorageError> {
        self.topics.write().import_changes(bucket, epoch, after, changes)?;
        self.tell_of(bucket);
        Ok(())
    }

    async fn finish_bucket(&self, other: &CopiedBucket) -> Result<(), StorageError> {
        self.topics.write().finish_bucket(other)?;
        self.tell_of(&other.state.bucket);
        Ok(())
    }
}
