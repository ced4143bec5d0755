//! Buckets that are told to another storage, or taken over from one: which may be changed, and the room that they take.

use tidemill_proto::{BucketName, KeyName, MessageId, Timestamp};

use super::super::super::bucket::{Bucket, bytes_of_empty, cost_of_copied};
use super::super::super::log::{Log, check_goes_on};
use super::super::super::segment::BODY_BYTES_MAX;
use super::super::{Shortage, Topics};
use crate::storage::copying::follow_each_other;
use crate::storage::{
    CopiedBucket, Epoch, Freeze, KeysPart, StorageError, StoredMessage, TopicPolicy, WhyReadOnly,
};

impl Topics {
    /// Returns a bucket that may be changed, if it is there.
    pub(in crate::storage::memory) fn changing(&self, name: &BucketName) -> Result<&Bucket, StorageError> {
        let bucket = self.bucket(name)?;
        bucket.freeze().map_or(Ok(bucket), |freeze| Err(StorageError::ReadOnly(freeze.into())))
    }

    pub(in crate::storage::memory) fn freeze_bucket(
        &mut self,
        name: &BucketName,
        frozen: bool,
    ) -> Result<(), StorageError> {
        if self.bucket(name)?.freeze() == Some(Freeze::Importing) {
            return Err(StorageError::ReadOnly(WhyReadOnly::Importing));
        }
        self.with_bucket(name, |bucket| bucket.set_freeze(frozen.then_some(Freeze::ReadOnly)));
        Ok(())
    }

    pub(in crate::storage::memory) fn begin_bucket(
        &mut self,
        other: &CopiedBucket,
    ) -> Result<(), StorageError> {
        let name = &other.state.bucket;
        if self.buckets.contains_key(name) {
            return Err(StorageError::TopicExists);
        }
        check_goes_on(other.last.max(other.born.unwrap_or(MessageId::MIN)))?;
        if self.refuses_new() {
            return Err(StorageError::ReadOnly(WhyReadOnly::NotMade));
        }
        self.check_buckets_limit()?;
        let needed = bytes_of_empty(name);
        self.make_room(|_| needed, needed)?;
        let bucket = Box::new(Bucket::taken_over(other, Epoch::Marked(self.next_number)));
        self.insert_bucket(name, bucket);
        Ok(())
    }

    /// Returns the bucket that is being taken over under this epoch.
    fn importing_bucket(&self, name: &BucketName, epoch: Epoch) -> Result<&Bucket, StorageError> {
        let bucket = self.bucket(name)?;
        let is_it = bucket.freeze() == Some(Freeze::Importing) && epoch.may_be(bucket.log().tail().epoch);
        if is_it { Ok(bucket) } else { Err(StorageError::TopicExists) }
    }

    pub(in crate::storage::memory) fn import_keys(
        &mut self,
        name: &BucketName,
        epoch: Epoch,
        keys: &KeysPart,
    ) -> Result<(), StorageError> {
        self.importing_bucket(name, epoch)?;
        let needed = cost_of_copied(keys);
        self.make_room(|_| needed, needed)?;
        self.with_bucket(name, |bucket| bucket.import_keys(keys));
        Ok(())
    }

    pub(in crate::storage::memory) fn import_ends(
        &mut self,
        name: &BucketName,
        epoch: Epoch,
        ends: &[(KeyName, Option<Timestamp>)],
    ) -> Result<(), StorageError> {
        self.importing_bucket(name, epoch)?;
        self.with_bucket(name, |bucket| bucket.import_ends(ends));
        Ok(())
    }

    pub(in crate::storage::memory) fn import_changes(
        &mut self,
        name: &BucketName,
        epoch: Epoch,
        after: MessageId,
        changes: &[StoredMessage],
    ) -> Result<(), StorageError> {
        let last = self.importing_bucket(name, epoch)?.log().last_given();
        if last != after || !follow_each_other(after, changes) {
            return Err(StorageError::NotLast(last));
        }
        check_goes_on(changes.last().map_or(last, |change| change.id))?;
        let bodies: Vec<usize> = changes.iter().map(|change| change.body.len_bytes()).collect();
        if let Some(bytes) = bodies.iter().find(|bytes| **bytes > BODY_BYTES_MAX) {
            return Err(StorageError::Full(Shortage::Body(*bytes).into()));
        }
        let all = TopicPolicy::newest(u64::MAX);
        let growth = |topics: &Self| {
            topics.buckets.get(name).map_or(0, |bucket| bucket.log().growth_of(&bodies, &all))
        };
        self.make_room(growth, Log::bytes_of(&bodies))?;
        self.with_bucket(name, |bucket| bucket.import_changes(changes));
        Ok(())
    }

    pub(in crate::storage::memory) fn finish_bucket(
        &mut self,
        other: &CopiedBucket,
    ) -> Result<(), StorageError> {
        let name = &other.state.bucket;
        let found = self.bucket(name)?;
        if found.freeze() != Some(Freeze::Importing) && found.log().tail().epoch == other.epoch {
            return Ok(());
        }
        check_goes_on(other.last)?;
        let importing = self.importing_bucket(name, other.epoch)?;
        let last = importing.log().last_given();
        if last > other.last || !importing.has_keys() {
            return Err(StorageError::NotLast(last));
        }
        self.with_bucket(name, |bucket| bucket.finish_import(other));
        Ok(())
    }
}
