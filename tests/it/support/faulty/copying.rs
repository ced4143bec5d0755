//! Copies, as the storage behind has them.

use std::time::Duration;

use async_trait::async_trait;
use tidemill::proto::work::GroupName;
use tidemill::proto::{BucketName, KeyName, MessageId, Timestamp, TopicName, TopicSelector};
use tidemill::storage::{
    BucketCopyStore, CopiedBucket, CopiedDead, CopiedGroup, CopiedKey, CopiedKeys, CopiedPending,
    CopiedTopic, CopiedUnique, CopyStore, Epoch, KeysPart, OddNames, StorageError, StoredMessage,
    StoredRecurring, UniquePage, Unlisted, WaitingMessage,
};

use super::Faulty;

/// Copies have faults of their own: those of the connections.
#[deny(clippy::missing_trait_methods, reason = "what is new must fail, too")]
#[async_trait]
impl CopyStore for Faulty {
    async fn identity(&self, topics: Option<&TopicSelector>) -> Result<Vec<String>, StorageError> {
        self.inner.copies.identity(topics).await
    }

    fn retention(&self) -> Option<Duration> {
        self.inner.copies.retention()
    }

    async fn unlisted(&self) -> Result<Unlisted, StorageError> {
        self.inner.copies.unlisted().await
    }

    async fn odd_groups(&self, topic: &TopicName) -> Result<OddNames, StorageError> {
        self.inner.copies.odd_groups(topic).await
    }

    async fn claim_import(&self, topic: &TopicName, token: u64) -> Result<bool, StorageError> {
        self.inner.copies.claim_import(topic, token).await
    }

    async fn list_copied(&self, topic: &TopicName) -> Result<(), StorageError> {
        self.inner.copies.list_copied(topic).await
    }

    async fn copied(&self, topic: &TopicName) -> Result<CopiedTopic, StorageError> {
        self.inner.copies.copied(topic).await
    }

    async fn copied_messages(
        &self,
        topic: &TopicName,
        after: MessageId,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<StoredMessage>, StorageError> {
        self.inner.copies.copied_messages(topic, after, limit, bytes_max).await
    }

    async fn copied_deletions(&self, topic: &TopicName) -> Result<Vec<MessageId>, StorageError> {
        self.inner.copies.copied_deletions(topic).await
    }

    async fn freeze(&self, topic: &TopicName, frozen: bool) -> Result<(), StorageError> {
        self.inner.copies.freeze(topic, frozen).await
    }

    async fn refuse_new_topics(&self, refused: bool) -> Result<(), StorageError> {
        self.inner.copies.refuse_new_topics(refused).await
    }

    async fn refuses_new_topics(&self) -> Result<bool, StorageError> {
        self.inner.copies.refuses_new_topics().await
    }

    async fn begin_import(&self, other: &CopiedTopic) -> Result<(), StorageError> {
        self.inner.copies.begin_import(other).await
    }

    async fn import_messages(
        &self,
        topic: &TopicName,
        epoch: Epoch,
        after: MessageId,
        messages: &[StoredMessage],
    ) -> Result<(), StorageError> {
        self.inner.copies.import_messages(topic, epoch, after, messages).await
    }

    async fn import_forgotten(
        &self,
        topic: &TopicName,
        epoch: Epoch,
        messages: &[MessageId],
    ) -> Result<(), StorageError> {
        self.inner.copies.import_forgotten(topic, epoch, messages).await
    }

    async fn copied_group(&self, topic: &TopicName, group: &GroupName) -> Result<CopiedGroup, StorageError> {
        self.inner.copies.copied_group(topic, group).await
    }

    async fn copied_pending(
        &self,
        topic: &TopicName,
        group: &GroupName,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<Vec<CopiedPending>, StorageError> {
        self.inner.copies.copied_pending(topic, group, after, limit).await
    }

    async fn copied_dead(
        &self,
        topic: &TopicName,
        group: &GroupName,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<Vec<CopiedDead>, StorageError> {
        self.inner.copies.copied_dead(topic, group, after, limit).await
    }

    async fn copied_unique(
        &self,
        topic: &TopicName,
        group: &GroupName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<UniquePage, StorageError> {
        self.inner.copies.copied_unique(topic, group, after, limit).await
    }

    async fn import_group(&self, topic: &TopicName, group: &CopiedGroup) -> Result<(), StorageError> {
        self.inner.copies.import_group(topic, group).await
    }

    async fn import_pending(
        &self,
        topic: &TopicName,
        group: &GroupName,
        pending: &[CopiedPending],
    ) -> Result<(), StorageError> {
        self.inner.copies.import_pending(topic, group, pending).await
    }

    async fn import_dead(
        &self,
        topic: &TopicName,
        group: &GroupName,
        dead: &[CopiedDead],
    ) -> Result<(), StorageError> {
        self.inner.copies.import_dead(topic, group, dead).await
    }

    async fn import_unique(
        &self,
        topic: &TopicName,
        group: &GroupName,
        unique: &[CopiedUnique],
    ) -> Result<(), StorageError> {
        self.inner.copies.import_unique(topic, group, unique).await
    }

    async fn import_waiting(
        &self,
        topic: &TopicName,
        first: bool,
        waiting: &[WaitingMessage],
        recurring: &[StoredRecurring],
    ) -> Result<(), StorageError> {
        self.inner.copies.import_waiting(topic, first, waiting, recurring).await
    }

    async fn finish_import(&self, other: &CopiedTopic, deletions: &[MessageId]) -> Result<(), StorageError> {
        self.inner.copies.finish_import(other, deletions).await
    }
}

/// The same of buckets.
#[deny(clippy::missing_trait_methods, reason = "what is new must fail, too")]
#[async_trait]
impl BucketCopyStore for Faulty {
    async fn copied_bucket(&self, bucket: &BucketName) -> Result<CopiedBucket, StorageError> {
        self.inner.bucket_copies.copied_bucket(bucket).await
    }

    async fn copied_keys(
        &self,
        bucket: &BucketName,
        after: Option<&KeyName>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<CopiedKeys, StorageError> {
        self.inner.bucket_copies.copied_keys(bucket, after, limit, bytes_max).await
    }

    async fn copied_some(
        &self,
        bucket: &BucketName,
        keys: &[KeyName],
        bytes_max: usize,
    ) -> Result<Vec<Option<CopiedKey>>, StorageError> {
        self.inner.bucket_copies.copied_some(bucket, keys, bytes_max).await
    }

    async fn copied_ends(
        &self,
        bucket: &BucketName,
        after: Option<&KeyName>,
        limit: usize,
    ) -> Result<Vec<(KeyName, Option<Timestamp>)>, StorageError> {
        self.inner.bucket_copies.copied_ends(bucket, after, limit).await
    }

    async fn copied_changes(
        &self,
        bucket: &BucketName,
        after: MessageId,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<StoredMessage>, StorageError> {
        self.inner.bucket_copies.copied_changes(bucket, after, limit, bytes_max).await
    }

    async fn freeze_bucket(&self, bucket: &BucketName, frozen: bool) -> Result<(), StorageError> {
        self.inner.bucket_copies.freeze_bucket(bucket, frozen).await
    }

    async fn begin_bucket(&self, other: &CopiedBucket) -> Result<(), StorageError> {
        self.inner.bucket_copies.begin_bucket(other).await
    }

    async fn import_keys(
        &self,
        bucket: &BucketName,
        epoch: Epoch,
        keys: KeysPart,
    ) -> Result<(), StorageError> {
        self.inner.bucket_copies.import_keys(bucket, epoch, keys).await
    }

    async fn import_ends(
        &self,
        bucket: &BucketName,
        epoch: Epoch,
        ends: &[(KeyName, Option<Timestamp>)],
    ) -> Result<(), StorageError> {
        self.inner.bucket_copies.import_ends(bucket, epoch, ends).await
    }

    async fn import_changes(
        &self,
        bucket: &BucketName,
        epoch: Epoch,
        after: MessageId,
        changes: &[StoredMessage],
    ) -> Result<(), StorageError> {
        self.inner.bucket_copies.import_changes(bucket, epoch, after, changes).await
    }

    async fn finish_bucket(&self, other: &CopiedBucket) -> Result<(), StorageError> {
        self.inner.bucket_copies.finish_bucket(other).await
    }
}
