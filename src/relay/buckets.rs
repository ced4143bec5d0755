//! Buckets: what they keep, and what concerns all keys of one.

use futures_util::{StreamExt as _, stream};
use tidemill_proto::{BucketName, KeyName, TopicName};

use super::shown::{STEP_NAMES, Shown, shown};
use super::{Failure, Gate};
use crate::access::{Kind, Verb, Who, changed};
use crate::storage::{BucketSettings, BucketState, StorageError};

/// Buckets that are described at the same time.
const DESCRIBED_AT_ONCE: usize = 16;

/// A page of buckets.
#[derive(Clone, Debug)]
pub struct BucketList {
    /// The buckets, in the order of their names.
    pub buckets: Vec<BucketState>,
    /// Behind which the next page begins; `None` where this one is the last.
    pub next: Option<BucketName>,
}

impl Gate {
    fn check_bucket(&self, verb: Verb, bucket: &BucketName) -> Result<(), Failure> {
        Ok(self.caller().check_each(verb, Kind::Key, &[bucket.as_str(), ""])?)
    }

    /// Tells the log what was done with a bucket, as with a topic.
    pub(super) fn tell_bucket(&self, what: &'static str, bucket: &BucketName) {
        if *self.caller().who() != Who::Anyone {
            let bucket = bucket.as_str();
            changed!(self.caller().who(), self.origin(), "bucket changed", change = what, bucket);
        }
    }

    /// Checks that the caller may manage a bucket: asked before a body is read.
    ///
    /// # Errors
    /// It may not.
    pub fn check_manages_bucket(&self, bucket: &BucketName) -> Result<(), Failure> {
        self.check_bucket(Verb::Manage, bucket)
    }

    /// Makes a bucket with these settings, or gives them to the one that is there; returns it, and whether it is new.
    ///
    /// # Errors
    /// The caller may not, there are too many, or the storage did not answer.
    pub async fn put_bucket(
        &self,
        bucket: &BucketName,
        settings: BucketSettings,
    ) -> Result<(BucketState, bool), Failure> {
        self.check_bucket(Verb::Manage, bucket)?;
        if self.meter().counts_topics() {
            self.admit_topic(&TopicName::log_of(bucket)).await?;
        }
        let put = self.relay().storage.buckets.put_bucket(bucket, settings).await;
        let put = put.map_err(|error| Failure::change_bucket(error, bucket))?;
        self.tell_bucket(if put.1 { "made" } else { "described" }, bucket);
        Ok(put)
    }

    /// Describes a bucket.
    ///
    /// # Errors
    /// The caller may not read all its keys, it does not exist, or the storage did not answer.
    pub async fn bucket(&self, bucket: &BucketName) -> Result<BucketState, Failure> {
        self.check_bucket(Verb::Read, bucket)?;
        let state = self.relay().storage.buckets.bucket(bucket).await;
        state.map_err(|error| Failure::read_bucket(error, bucket))
    }

    /// Returns up to `limit` buckets all of whose keys the caller may read, whose names come after `after`.
    ///
    /// # Errors
    /// The caller may read no key, too many buckets that it may not read lie in between, or the storage did not answer.
    pub async fn list_buckets(
        &self,
        after: Option<&BucketName>,
        limit: usize,
    ) -> Result<BucketList, Failure> {
        self.check_some_key(Verb::Read)?;
        let store = &self.relay().storage.buckets;
        let names =
            |after: Option<BucketName>| async move { store.bucket_names(after.as_ref(), STEP_NAMES).await };
        // Those of rooms are nobody's to name.
        let is_shown =
            |name: &BucketName| name.room().is_none() && self.check_bucket(Verb::Read, name).is_ok();
        let Shown { names, next } = shown("buckets", after, limit, names, is_shown).await?;
        Ok(BucketList { buckets: self.described(names).await?, next })
    }

    /// Describes buckets, in their order, without those that have gone meanwhile.
    pub(super) async fn described(
        &self,
        names: impl IntoIterator<Item = BucketName>,
    ) -> Result<Vec<BucketState>, Failure> {
        let store = &self.relay().storage.buckets;
        let described = names.into_iter().map(|name| async move { store.bucket(&name).await });
        let described: Vec<_> = stream::iter(described).buffered(DESCRIBED_AT_ONCE).collect().await;
        let there = described.into_iter().filter(|state| !matches!(state, Err(StorageError::NoBucket)));
        there.collect::<Result<_, _>>().map_err(|error| Failure::read(error, None))
    }

    /// Deletes a bucket with all its keys.
    ///
    /// # Errors
    /// The caller may not, it does not exist, or the storage did not answer.
    pub async fn delete_bucket(&self, bucket: &BucketName) -> Result<(), Failure> {
        self.check_bucket(Verb::Manage, bucket)?;
        let deleted = self.relay().storage.buckets.delete_bucket(bucket).await;
        deleted.map_err(|error| Failure::change_bucket(error, bucket))?;
        self.tell_bucket("deleted", bucket);
        Ok(())
    }

    /// Deletes all keys of an owner, and returns how many there were.
    ///
    /// # Errors
    /// The caller may not manage the bucket, it does not exist, or the storage did not answer; some may be deleted.
    pub async fn revoke_keys(&self, bucket: &BucketName, owner: &KeyName) -> Result<u64, Failure> {
        self.check_bucket(Verb::Manage, bucket)?;
        let now = self.relay().clock.now();
        let revoked = self.relay().storage.buckets.revoke_keys(bucket, owner, now).await;
        let revoked = revoked.map_err(|error| Failure::change_bucket(error, bucket))?;
        self.tell_bucket("keys of an owner revoked", bucket);
        Ok(revoked)
    }
}
