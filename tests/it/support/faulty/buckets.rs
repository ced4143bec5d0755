//! Buckets of keys that fail by the seed.

use std::time::Duration;

use async_trait::async_trait;
use tidemill::proto::{BucketName, KeyName, MessageId, RoomName, Timestamp};
use tidemill::storage::{
    BucketSettings, BucketState, BucketStore, FillAsked, KeyChanges, KeyEntry, KeyFill, KeyPage, KeyRange,
    KeysChanged, KeysExpired, StorageError,
};

use super::fate::Call;
use super::{Effect, Faulty};

#[deny(clippy::missing_trait_methods, reason = "what is new must fail, too")]
#[async_trait]
impl BucketStore for Faulty {
    async fn change_keys(&self, changes: KeyChanges) -> Result<KeysChanged, StorageError> {
        let fate = self.fate(Call::ChangeKeys, changes.bucket.as_str());
        let store = self.inner.buckets.clone();
        let effect: Effect<_> = Box::pin(async move { store.change_keys(changes).await });
        self.change(fate, effect).await?
    }

    async fn key(
        &self,
        bucket: &BucketName,
        key: &KeyName,
        value: bool,
    ) -> Result<Option<KeyEntry>, StorageError> {
        let fate = self.fate(Call::Key, bucket.as_str());
        self.ask(fate, self.inner.buckets.key(bucket, key, value)).await
    }

    async fn key_history(&self, bucket: &BucketName, key: &KeyName) -> Result<Vec<KeyEntry>, StorageError> {
        let fate = self.fate(Call::KeyHistory, bucket.as_str());
        self.ask(fate, self.inner.buckets.key_history(bucket, key)).await
    }

    async fn touch_key(
        &self,
        bucket: &BucketName,
        key: &KeyName,
        ttl: Option<Duration>,
        value: bool,
    ) -> Result<Option<KeyEntry>, StorageError> {
        let fate = self.fate(Call::TouchKey, bucket.as_str());
        let (store, bucket, key) = (self.inner.buckets.clone(), bucket.clone(), key.clone());
        let effect: Effect<_> = Box::pin(async move { store.touch_key(&bucket, &key, ttl, value).await });
        self.change(fate, effect).await?
    }

    async fn fill_key(&self, asked: &FillAsked) -> Result<KeyFill, StorageError> {
        let fate = self.fate(Call::FillKey, asked.bucket.as_str());
        let (store, asked) = (self.inner.buckets.clone(), asked.clone());
        let effect: Effect<_> = Box::pin(async move { store.fill_key(&asked).await });
        self.change(fate, effect).await?
    }

    async fn count_reads(&self, bucket: &BucketName, reads: &[(KeyName, u32)]) -> Result<(), StorageError> {
        let fate = self.fate(Call::CountReads, bucket.as_str());
        let (store, bucket, reads) = (self.inner.buckets.clone(), bucket.clone(), reads.to_vec());
        let effect: Effect<_> = Box::pin(async move { store.count_reads(&bucket, &reads).await });
        self.change(fate, effect).await?
    }

    async fn touch_revisions(
        &self,
        bucket: &BucketName,
        keys: &[(KeyName, MessageId)],
        ttl: Duration,
    ) -> Result<Vec<bool>, StorageError> {
        let fate = self.fate(Call::TouchRevisions, bucket.as_str());
        let (store, bucket, keys) = (self.inner.buckets.clone(), bucket.clone(), keys.to_vec());
        let effect: Effect<_> = Box::pin(async move { store.touch_revisions(&bucket, &keys, ttl).await });
        self.change(fate, effect).await?
    }

    async fn list_keys(&self, bucket: &BucketName, range: KeyRange) -> Result<KeyPage, StorageError> {
        let fate = self.fate(Call::ListKeys, bucket.as_str());
        self.ask(fate, self.inner.buckets.list_keys(bucket, range)).await
    }

    async fn revoke_keys(
        &self,
        bucket: &BucketName,
        owner: &KeyName,
        timestamp: Timestamp,
    ) -> Result<u64, StorageError> {
        let fate = self.fate(Call::RevokeKeys, bucket.as_str());
        let (store, bucket, owner) = (self.inner.buckets.clone(), bucket.clone(), owner.clone());
        let effect: Effect<_> = Box::pin(async move { store.revoke_keys(&bucket, &owner, timestamp).await });
        self.change(fate, effect).await?
    }

    async fn expire_keys(&self, buckets: &[BucketName]) -> Vec<Result<KeysExpired, StorageError>> {
        let fate = self.fate(Call::ExpireKeys, "buckets");
        let (store, owned) = (self.inner.buckets.clone(), buckets.to_vec());
        let effect: Effect<_> = Box::pin(async move { store.expire_keys(&owned).await });
        match self.change(fate, effect).await {
            Ok(results) => results,
            Err(lost) => {
                let error = StorageError::from(lost);
                buckets.iter().map(|_| Err(error.again())).collect()
            }
        }
    }

    async fn expiring_within(
        &self,
        within: Duration,
        limit: usize,
    ) -> Result<Vec<(BucketName, Duration)>, StorageError> {
        let fate = self.fate(Call::ExpiringWithin, "buckets");
        self.ask(fate, self.inner.buckets.expiring_within(within, limit)).await
    }

    async fn put_bucket(
        &self,
        bucket: &BucketName,
        settings: BucketSettings,
    ) -> Result<(BucketState, bool), StorageError> {
        let fate = self.fate(Call::PutBucket, bucket.as_str());
        let (store, bucket) = (self.inner.buckets.clone(), bucket.clone());
        let effect: Effect<_> = Box::pin(async move { store.put_bucket(&bucket, settings).await });
        self.change(fate, effect).await?
    }

    async fn bucket(&self, bucket: &BucketName) -> Result<BucketState, StorageError> {
        let fate = self.fate(Call::Bucket, bucket.as_str());
        self.ask(fate, self.inner.buckets.bucket(bucket)).await
    }

    async fn bucket_names(
        &self,
        after: Option<&BucketName>,
        limit: usize,
    ) -> Result<Vec<BucketName>, StorageError> {
        let fate = self.fate(Call::BucketNames, "buckets");
        self.ask(fate, self.inner.buckets.bucket_names(after, limit)).await
    }

    async fn room_names(
        &self,
        after: Option<&RoomName>,
        limit: usize,
    ) -> Result<Vec<RoomName>, StorageError> {
        let fate = self.fate(Call::RoomNames, "rooms");
        self.ask(fate, self.inner.buckets.room_names(after, limit)).await
    }

    async fn delete_bucket(&self, bucket: &BucketName) -> Result<(), StorageError> {
        let fate = self.fate(Call::DeleteBucket, bucket.as_str());
        let (store, bucket) = (self.inner.buckets.clone(), bucket.clone());
        let effect: Effect<_> = Box::pin(async move { store.delete_bucket(&bucket).await });
        self.change(fate, effect).await?
    }
}
