//! Buckets of keys: the contract, answered by the shard of a bucket, or by all of them.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use tidemill_proto::{BucketName, KeyName, MessageId, RoomName, Timestamp};

use super::super::failure::same;
use super::super::routing::in_order;
use super::super::{Valkey, at};
use crate::storage::{
    BucketSettings, BucketState, BucketStore, FillAsked, KeyChanges, KeyEntry, KeyFill, KeyPage, KeyRange,
    KeysChanged, KeysExpired, StorageError,
};

#[async_trait]
impl BucketStore for Valkey {
    async fn change_keys(&self, changes: KeyChanges) -> Result<KeysChanged, StorageError> {
        at!(self, &changes.bucket, shard => shard.change_keys(&changes).await)
    }

    async fn key(
        &self,
        bucket: &BucketName,
        key: &KeyName,
        value: bool,
    ) -> Result<Option<KeyEntry>, StorageError> {
        at!(self, bucket, shard => shard.key(bucket, key, value).await)
    }

    async fn key_history(&self, bucket: &BucketName, key: &KeyName) -> Result<Vec<KeyEntry>, StorageError> {
        at!(self, bucket, shard => shard.key_history(bucket, key).await)
    }

    async fn touch_key(
        &self,
        bucket: &BucketName,
        key: &KeyName,
        ttl: Option<Duration>,
        value: bool,
    ) -> Result<Option<KeyEntry>, StorageError> {
        at!(self, bucket, shard => shard.touch_key(bucket, key, ttl, value).await)
    }

    async fn fill_key(&self, asked: &FillAsked) -> Result<KeyFill, StorageError> {
        at!(self, &asked.bucket, shard => shard.fill_key(asked).await)
    }

    async fn count_reads(&self, bucket: &BucketName, reads: &[(KeyName, u32)]) -> Result<(), StorageError> {
        at!(self, bucket, shard => shard.count_reads(bucket, reads).await)
    }

    async fn touch_revisions(
        &self,
        bucket: &BucketName,
        keys: &[(KeyName, MessageId)],
        ttl: Duration,
    ) -> Result<Vec<bool>, StorageError> {
        at!(self, bucket, shard => shard.touch_revisions(bucket, keys, ttl).await)
    }

    async fn list_keys(&self, bucket: &BucketName, range: KeyRange) -> Result<KeyPage, StorageError> {
        at!(self, bucket, shard => shard.list_keys(bucket, range.clone()).await)
    }

    async fn revoke_keys(
        &self,
        bucket: &BucketName,
        owner: &KeyName,
        timestamp: Timestamp,
    ) -> Result<u64, StorageError> {
        at!(self, bucket, shard => shard.revoke_keys(bucket, owner, timestamp).await)
    }

    async fn expire_keys(&self, buckets: &[BucketName]) -> Vec<Result<KeysExpired, StorageError>> {
        let groups = match self.places.groups(buckets.iter()) {
            Ok(groups) => groups,
            Err(error) => return buckets.iter().map(|_| Err(same(&error))).collect(),
        };
        let expire = groups.iter().map(|(shard, places)| async move {
            let buckets: Vec<BucketName> = places.iter().map(|place| buckets[*place].clone()).collect();
            shard.expire_keys(&buckets).await
        });
        let found = join_all(expire).await;
        in_order(groups.iter().zip(found).map(|((_, places), found)| (&places[..], found)))
    }

    async fn expiring_within(
        &self,
        within: Duration,
        limit: usize,
    ) -> Result<Vec<(BucketName, Duration)>, StorageError> {
        at!(self, shard => shard.expiring_within(within, limit).await)
    }

    async fn put_bucket(
        &self,
        bucket: &BucketName,
        settings: BucketSettings,
    ) -> Result<(BucketState, bool), StorageError> {
        at!(self, bucket, shard => shard.make_bucket(bucket, &settings, false).await)
    }

    async fn bucket(&self, bucket: &BucketName) -> Result<BucketState, StorageError> {
        at!(self, bucket, shard => shard.bucket(bucket).await)
    }

    async fn bucket_names(
        &self,
        after: Option<&BucketName>,
        limit: usize,
    ) -> Result<Vec<BucketName>, StorageError> {
        at!(self, shard => shard.bucket_names(after, limit).await)
    }

    async fn room_names(
        &self,
        after: Option<&RoomName>,
        limit: usize,
    ) -> Result<Vec<RoomName>, StorageError> {
        at!(self, shard => shard.room_names(after, limit).await)
    }

    async fn delete_bucket(&self, bucket: &BucketName) -> Result<(), StorageError> {
        at!(self, bucket, shard => shard.delete_bucket(bucket).await)
    }
}
