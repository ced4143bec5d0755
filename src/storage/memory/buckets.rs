//! Buckets of keys.

use std::time::Duration;

use async_trait::async_trait;
use tidemill_proto::{BucketName, KeyName, Timestamp};

use super::Memory;
use crate::storage::{
    BucketSettings, BucketState, BucketStore, KeyChanges, KeyEntry, KeyPage, KeyRange, KeysChanged,
    KeysExpired, StorageError,
};

#[async_trait]
impl BucketStore for Memory {
    async fn change_keys(&self, _changes: KeyChanges) -> Result<KeysChanged, StorageError> {
        Err(StorageError::NoBucket)
    }

    async fn key(
        &self,
        _bucket: &BucketName,
        _key: &KeyName,
        _value: bool,
    ) -> Result<Option<KeyEntry>, StorageError> {
        Err(StorageError::NoBucket)
    }

    async fn key_history(&self, _bucket: &BucketName, _key: &KeyName) -> Result<Vec<KeyEntry>, StorageError> {
        Err(StorageError::NoBucket)
    }

    async fn touch_key(
        &self,
        _bucket: &BucketName,
        _key: &KeyName,
        _ttl: Option<Duration>,
        _value: bool,
    ) -> Result<Option<KeyEntry>, StorageError> {
        Err(StorageError::NoBucket)
    }

    async fn list_keys(&self, _bucket: &BucketName, _range: KeyRange) -> Result<KeyPage, StorageError> {
        Err(StorageError::NoBucket)
    }

    async fn revoke_keys(
        &self,
        _bucket: &BucketName,
        _owner: &KeyName,
        _timestamp: Timestamp,
    ) -> Result<u64, StorageError> {
        Err(StorageError::NoBucket)
    }

    async fn expire_keys(&self, _buckets: &[BucketName]) -> Vec<Result<KeysExpired, StorageError>> {
        Vec::new()
    }

    async fn expiring_within(
        &self,
        _within: Duration,
        _limit: usize,
    ) -> Result<Vec<(BucketName, Duration)>, StorageError> {
        Err(StorageError::NoBucket)
    }

    async fn put_bucket(
        &self,
        _bucket: &BucketName,
        _settings: BucketSettings,
    ) -> Result<(BucketState, bool), StorageError> {
        Err(StorageError::NoBucket)
    }

    async fn bucket(&self, _bucket: &BucketName) -> Result<BucketState, StorageError> {
        Err(StorageError::NoBucket)
    }

    async fn bucket_names(
        &self,
        _after: Option<&BucketName>,
        _limit: usize,
    ) -> Result<Vec<BucketName>, StorageError> {
        Err(StorageError::NoBucket)
    }

    async fn delete_bucket(&self, _bucket: &BucketName) -> Result<(), StorageError> {
        Err(StorageError::NoBucket)
    }
}
