//! Buckets of keys, behind the lock of all topics.

use std::time::Duration;

use async_trait::async_trait;
use tidemill_proto::locks::Guarded;
use tidemill_proto::{BucketName, KeyName, MessageId, RoomName, Timestamp, TopicName};

use super::Memory;
use crate::storage::{
    BucketSettings, BucketState, BucketStore, FillAsked, KeyChanges, KeyEntry, KeyFill, KeyPage, KeyRange,
    KeysChanged, KeysExpired, StorageError,
};

#[async_trait]
impl BucketStore for Memory {
    async fn change_keys(&self, changes: KeyChanges) -> Result<KeysChanged, StorageError> {
        let answer = {
            let mut topics = self.topics.write();
            let now = self.clock.now();
            match &changes.fence {
                None => topics.change_keys(&changes, now, || Ok(()))?,
                // The locks stand still until the changes are made.
                Some(fence) => {
                    let mut locks = self.locks.still();
                    let written = Guarded::Bucket(changes.bucket.clone());
                    let may = || locks.check(&written, fence, now);
                    let answer = topics.change_keys(&changes, now, may)?;
                    if let KeysChanged::Made { replayed: false, .. } = answer
                        && topics.bucket(&changes.bucket).is_ok()
                    {
                        locks.note(&written, fence, now);
                    }
                    answer
                }
            }
        };
        self.hints.tell_topics([&TopicName::log_of(&changes.bucket)]);
        Ok(answer)
    }

    async fn key(
        &self,
        bucket: &BucketName,
        key: &KeyName,
        value: bool,
    ) -> Result<Option<KeyEntry>, StorageError> {
        let topics = self.topics.read();
        Ok(topics.bucket(bucket).ok().and_then(|bucket| bucket.key(key, value, self.clock.now())))
    }

    async fn key_history(&self, bucket: &BucketName, key: &KeyName) -> Result<Vec<KeyEntry>, StorageError> {
        let topics = self.topics.read();
        let bucket = topics.bucket(bucket).ok();
        Ok(bucket.map_or_else(Vec::new, |bucket| bucket.history(key, self.clock.now())))
    }

    async fn fill_key(&self, asked: &FillAsked) -> Result<KeyFill, StorageError> {
        let mut topics = self.topics.write();
        let now = self.clock.now();
        topics.fill_key(asked, now)
    }

    async fn count_reads(&self, bucket: &BucketName, reads: &[(KeyName, u32)]) -> Result<(), StorageError> {
        let mut topics = self.topics.write();
        let now = self.clock.now();
        topics.count_reads(bucket, reads, now)
    }

    async fn touch_key(
        &self,
        bucket: &BucketName,
        key: &KeyName,
        ttl: Option<Duration>,
        value: bool,
    ) -> Result<Option<KeyEntry>, StorageError> {
        let mut topics = self.topics.write();
        let now = self.clock.now();
        Ok(topics.touch_key(bucket, key, ttl, value, now))
    }

    async fn touch_revisions(
        &self,
        bucket: &BucketName,
        keys: &[(KeyName, MessageId)],
        ttl: Duration,
    ) -> Result<Vec<bool>, StorageError> {
        let mut topics = self.topics.write();
        let now = self.clock.now();
        let mut touch = |(key, revision): &(KeyName, MessageId)| {
            let found = topics.bucket(bucket).ok().and_then(|bucket| bucket.key(key, false, now));
            found.is_some_and(|found| found.revision == *revision)
                && topics.touch_key(bucket, key, Some(ttl), false, now).is_some()
        };
        Ok(keys.iter().map(&mut touch).collect())
    }

    async fn list_keys(&self, bucket: &BucketName, range: KeyRange) -> Result<KeyPage, StorageError> {
        let topics = self.topics.read();
        topics.bucket(bucket).map(|bucket| bucket.list(&range, self.clock.now()))
    }

    async fn revoke_keys(
        &self,
        bucket: &BucketName,
        owner: &KeyName,
        timestamp: Timestamp,
    ) -> Result<u64, StorageError> {
        let log = TopicName::log_of(bucket);
        let (mut all, mut after) = (0, None);
        loop {
            let (deleted, next) = {
                let mut topics = self.topics.write();
                let now = self.clock.now();
                topics.revoke_some(bucket, owner, after.as_ref(), timestamp, now)?
            };
            all += deleted;
            self.hints.tell_topics([&log]);
            if next.is_none() {
                return Ok(all);
            }
            after = next;
            tokio::task::yield_now().await;
        }
    }

    async fn expire_keys(&self, buckets: &[BucketName]) -> Vec<Result<KeysExpired, StorageError>> {
        let mut results = Vec::with_capacity(buckets.len());
        for bucket in buckets {
            let expired = {
                let mut topics = self.topics.write();
                let now = self.clock.now();
                topics.expire_keys(bucket, now)
            };
            if expired.count > 0 {
                self.hints.tell_topics([&TopicName::log_of(bucket)]);
            }
            results.push(Ok(expired));
        }
        results
    }

    async fn expiring_within(
        &self,
        within: Duration,
        limit: usize,
    ) -> Result<Vec<(BucketName, Duration)>, StorageError> {
        Ok(self.topics.read().expiring_within(within, limit, self.clock.now()))
    }

    async fn put_bucket(
        &self,
        bucket: &BucketName,
        settings: BucketSettings,
    ) -> Result<(BucketState, bool), StorageError> {
        let put = {
            let mut topics = self.topics.write();
            let now = self.clock.now();
            topics.put_bucket(bucket, settings, now)?
        };
        self.hints.tell_topics([&TopicName::log_of(bucket)]);
        Ok(put)
    }

    async fn bucket(&self, bucket: &BucketName) -> Result<BucketState, StorageError> {
        self.topics.read().bucket(bucket).map(|found| found.state(bucket))
    }

    async fn bucket_names(
        &self,
        after: Option<&BucketName>,
        limit: usize,
    ) -> Result<Vec<BucketName>, StorageError> {
        Ok(self.topics.read().bucket_names(after, limit))
    }

    async fn room_names(
        &self,
        after: Option<&RoomName>,
        limit: usize,
    ) -> Result<Vec<RoomName>, StorageError> {
        Ok(self.topics.read().room_names(after, limit))
    }

    async fn delete_bucket(&self, bucket: &BucketName) -> Result<(), StorageError> {
        let removed = self.topics.write().delete_bucket(bucket)?;
        self.hints.tell_topics([&TopicName::log_of(bucket)]);
        drop(removed);
        Ok(())
    }
}
