//! All buckets: which there are, the room that their steps take, and when the next key of each is over.

use std::ops::Bound;
use std::time::Duration;

use tidemill_proto::{BucketName, KeyName, RoomName, Timestamp, TopicName};

use super::super::bucket::{Bucket, ENDED_PER_FILL, LOG_POLICY, Step, bytes_of_empty};
use super::super::log::Log;
use super::super::segment::BODY_BYTES_MAX;
use super::{PURGED_PER_APPEND_MAX, PURGED_PER_LOCK_MAX, Shortage, Topics};
use crate::storage::{
    BucketSettings, BucketState, EXPIRED_MAX, Epoch, FillAsked, Idempotency, KeyChanged, KeyChanges,
    KeyEntry, KeyFill, KeyRefusal, KeysChanged, KeysExpired, NewMessage, StorageError, Trim, WhyReadOnly,
    changed_without_bucket,
};

/// Keys of an owner that are deleted before others have the lock.
const REVOKED_PER_LOCK_MAX: usize = 100;
/// How often keys are taken out whose time is over, to make room for a change in its bucket.
const ROUNDS_MAX: usize = 8;

mod copying;
#[cfg(test)]
mod tests;

/// A bucket that was taken out of them. Dropping it can take long, so it is not dropped under a lock.
#[derive(Debug)]
#[expect(dead_code, reason = "it is held to be dropped")]
pub(in crate::storage::memory) struct RemovedBucket(Box<Bucket>);

fn until(due: Timestamp, now: Timestamp) -> Duration {
    Duration::from_millis(due.as_millis().saturating_sub(now.as_millis()))
}

impl Topics {
    /// Returns a bucket, if it is there.
    pub(in crate::storage::memory) fn bucket(&self, name: &BucketName) -> Result<&Bucket, StorageError> {
        self.buckets.get(name).map(|bucket| &**bucket).ok_or(StorageError::NoBucket)
    }

    /// Returns the log that has this name.
    pub(super) fn bucket_log(&self, name: &TopicName) -> Result<&Log, StorageError> {
        let bucket = name.bucket().and_then(|bucket| self.buckets.get(&bucket));
        bucket.map(|bucket| bucket.log()).ok_or(StorageError::NoTopic)
    }

    pub(super) fn trim_bucket_log(&mut self, name: &TopicName, trim: Trim) -> Result<u64, StorageError> {
        let bucket = name.bucket().filter(|bucket| self.buckets.contains_key(bucket));
        let bucket = bucket.ok_or(StorageError::NoTopic)?;
        Ok(self.with_bucket(&bucket, |bucket| bucket.log_mut().trim(trim)) as u64)
    }

    pub(in crate::storage::memory) fn bucket_names(
        &self,
        after: Option<&BucketName>,
        limit: usize,
    ) -> Vec<BucketName> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let names = self.buckets.range::<BucketName, _>((from, Bound::Unbounded));
        let names = names.map(|(name, _)| name).filter(|name| name.room().is_none());
        names.take(limit).cloned().collect()
    }

    pub(in crate::storage::memory) fn room_names(
        &self,
        after: Option<&RoomName>,
        limit: usize,
    ) -> Vec<RoomName> {
        let after = after.map_or_else(BucketName::before_rooms, BucketName::of_room);
        let names = self.buckets.range::<BucketName, _>((Bound::Excluded(after), Bound::Unbounded));
        names.map_while(|(name, _)| name.room()).take(limit).collect()
    }

    /// Makes changes of keys, all of them or none, where `may` says so, which is asked unless their idempotency key was used.
    pub(in crate::storage::memory) fn change_keys(
        &mut self,
        changes: &KeyChanges,
        now: Timestamp,
        may: impl FnOnce() -> Result<(), StorageError>,
    ) -> Result<KeysChanged, StorageError> {
        let name = &changes.bucket;
        if let Some(bucket) = self.buckets.get_mut(name) {
            let (_, freed) = bucket.purge_answers(now, PURGED_PER_APPEND_MAX);
            self.keys_bytes -= freed;
            if let Some(key) = &changes.idempotency
                && let Some(changed) = bucket.answer(key, now)?
            {
                return Ok(KeysChanged::Made { changed: changed.into(), replayed: true });
            }
        }
        may()?;
        let is_there = self.buckets.contains_key(name);
        if is_there {
            self.changing(name)?;
        } else {
            if !changes.create_bucket {
                return Err(StorageError::NoBucket);
            }
            if let Some(answer) = changed_without_bucket(&changes.changes) {
                return Ok(answer);
            }
            self.check_may_make_bucket()?;
        }
        // Made where everything else has been found to be right.
        let made = (!is_there).then(|| self.new_bucket(BucketSettings::default(), now));
        let step = match self.plan(made.as_deref(), changes, now)? {
            Ok(step) => step,
            Err((at, refusal)) => return Ok(KeysChanged::Refused { at, refusal }),
        };
        if let Some(key) = &changes.idempotency {
            let count = changes.changes.len();
            let growth =
                |all: &Self| Bucket::answer_growth(all.buckets.get(name).map(|bucket| &**bucket), key, count);
            self.check_room_for_growth(growth, now)?;
        }
        let entries = step.entries(&TopicName::log_of(name), changes.timestamp, now);
        self.make_room_for_step(name, &step, &entries)?;
        if let Some(bucket) = made {
            self.insert_bucket(name, bucket);
        }
        let told = self.with_bucket(name, |bucket| bucket.make(step, &entries, now));
        if let Some(key) = &changes.idempotency {
            self.remember_changed(name, key, &told, now);
        }
        Ok(KeysChanged::Made { changed: told, replayed: false })
    }

    /// Plans changes. Keys whose time is over go first where there is no room for them.
    fn plan(
        &mut self,
        made: Option<&Bucket>,
        changes: &KeyChanges,
        now: Timestamp,
    ) -> Result<Result<Step, (usize, KeyRefusal)>, StorageError> {
        let mut rounds = 0;
        loop {
            let bucket = match made {
                Some(made) => made,
                None => self.bucket(&changes.bucket)?,
            };
            let planned = Step::of(bucket, &changes.changes, now);
            let is_full = matches!(planned, Err((_, KeyRefusal::TooManyKeys | KeyRefusal::TooManyBytes)));
            let may_help = bucket.next_due().is_some_and(|due| due <= now) && rounds < ROUNDS_MAX;
            if !is_full || !may_help {
                return Ok(planned);
            }
            self.expire_in(&changes.bucket, now);
            rounds += 1;
        }
    }

    fn remember_changed(
        &mut self,
        name: &BucketName,
        key: &Idempotency,
        changed: &[KeyChanged],
        now: Timestamp,
    ) {
        let window = self.options.limits.idempotency_window;
        let bucket = self.buckets.get_mut(name).expect("the bucket was found or made");
        self.keys_bytes += bucket.remember(key, changed, now, window);
    }

    /// Works on a bucket that is there, and keeps the books.
    fn with_bucket<T>(&mut self, name: &BucketName, work: impl FnOnce(&mut Bucket) -> T) -> T {
        let bucket = self.buckets.get_mut(name).expect("the bucket was found or made");
        let (cost, bytes, due) = (bucket.keys_cost(), bucket.log().bytes(), bucket.next_due());
        let done = work(bucket);
        self.buckets_bytes = self.buckets_bytes - cost + bucket.keys_cost();
        self.logs_bytes = self.logs_bytes - bytes + bucket.log().bytes();
        let next = bucket.next_due();
        if next != due {
            if let Some(due) = due {
                self.keys_due.remove(&(due, name.clone()));
            }
            self.keys_due.extend(next.map(|due| (due, name.clone())));
        }
        done
    }

    /// Makes room for a step, and its bucket where it is not there. One that only takes keys out always has it: where
    /// nothing else gives way, the old end of its own log does.
    fn make_room_for_step(
        &mut self,
        name: &BucketName,
        step: &Step,
        entries: &[NewMessage],
    ) -> Result<(), StorageError> {
        let bodies: Vec<usize> = entries.iter().map(|entry| entry.body.len_bytes()).collect();
        if let Some(bytes) = bodies.iter().find(|bytes| **bytes > BODY_BYTES_MAX) {
            return Err(StorageError::Full(Shortage::Body(*bytes).into()));
        }
        let growth = |all: &Self, log: usize| {
            let bucket = if all.buckets.contains_key(name) { 0 } else { bytes_of_empty(name) };
            (bucket + log + step.more).saturating_sub(step.less)
        };
        let needed = |all: &Self| {
            let log = match all.buckets.get(name) {
                Some(bucket) => bucket.log().growth_of(&bodies, &LOG_POLICY),
                None => Log::bytes_of(&bodies),
            };
            growth(all, log)
        };
        let alone = growth(self, Log::bytes_of(&bodies));
        let made = self.make_room(needed, alone);
        if step.puts || made.is_ok() {
            return made;
        }
        let max = usize::try_from(self.options.bytes_max).unwrap_or(usize::MAX);
        while self.bytes() + needed(self) > max
            && self.buckets.get(name).is_some_and(|bucket| bucket.log().length() > 0)
        {
            self.with_bucket(name, |bucket| bucket.log_mut().evict(None));
        }
        Ok(())
    }

    /// Takes keys out of a bucket that is there, each of which is in it; returns how many were deleted before their time
    /// was over.
    fn take_out(&mut self, name: &BucketName, keys: &[KeyName], timestamp: Timestamp, now: Timestamp) -> u64 {
        let Some(bucket) = self.buckets.get(name).filter(|_| !keys.is_empty()) else { return 0 };
        let (step, deleted) = Step::taking_out(bucket, keys, now);
        let entries = step.entries(&TopicName::log_of(name), timestamp, now);
        let room = self.make_room_for_step(name, &step, &entries);
        debug_assert!(room.is_ok(), "what only takes keys out has room");
        self.with_bucket(name, |bucket| bucket.make(step, &entries, now));
        deleted
    }

    /// Has keys of a bucket expire whose time is over, a bounded number of them.
    fn expire_in(&mut self, name: &BucketName, now: Timestamp) -> usize {
        let over = self.changing(name).map_or_else(|_| Vec::new(), |bucket| bucket.over(now, EXPIRED_MAX));
        self.take_out(name, &over, now, now);
        over.len()
    }

    pub(in crate::storage::memory) fn expire_keys(
        &mut self,
        name: &BucketName,
        now: Timestamp,
    ) -> KeysExpired {
        let count = self.expire_in(name, now);
        let next = self.buckets.get(name).and_then(|bucket| bucket.next_due());
        KeysExpired { count, next_in: next.map(|due| until(due, now)) }
    }

    pub(in crate::storage::memory) fn expiring_within(
        &self,
        within: Duration,
        limit: usize,
        now: Timestamp,
    ) -> Vec<(BucketName, Duration)> {
        let end = now.saturating_add(within);
        let due = self.keys_due.iter().take_while(|(due, _)| *due <= end).take(limit);
        due.map(|(due, bucket)| (bucket.clone(), until(*due, now))).collect()
    }

    /// Deletes some keys of an owner behind one; returns how many, and behind which to go on, `None` at the end.
    pub(in crate::storage::memory) fn revoke_some(
        &mut self,
        name: &BucketName,
        owner: &KeyName,
        after: Option<&KeyName>,
        timestamp: Timestamp,
        now: Timestamp,
    ) -> Result<(u64, Option<KeyName>), StorageError> {
        let keys = self.changing(name)?.owned_by(owner, after, REVOKED_PER_LOCK_MAX);
        let deleted = self.take_out(name, &keys, timestamp, now);
        Ok((deleted, keys.into_iter().nth(REVOKED_PER_LOCK_MAX - 1)))
    }

    pub(in crate::storage::memory) fn touch_key(
        &mut self,
        name: &BucketName,
        key: &KeyName,
        ttl: Option<Duration>,
        value: bool,
        now: Timestamp,
    ) -> Option<KeyEntry> {
        self.buckets.get(name)?;
        self.with_bucket(name, |bucket| bucket.touch(key, ttl, value, now))
    }

    /// Has one of all who ask fill a key.
    pub(in crate::storage::memory) fn fill_key(
        &mut self,
        asked: &FillAsked,
        now: Timestamp,
    ) -> Result<KeyFill, StorageError> {
        let FillAsked { bucket: name, key, token, within, create_bucket } = asked;
        if *create_bucket && !self.buckets.contains_key(name) {
            // A bucket is not made for who is refused then.
            let needed = bytes_of_empty(name) + Bucket::bytes_of_fill(key);
            self.check_may_make_bucket()?;
            self.make_room(|_| needed, needed)?;
            self.put_bucket(name, BucketSettings::default(), now)?;
        }
        let bucket = self.bucket(name)?;
        if let Some(entry) = bucket.fresh(key, now) {
            return Ok(KeyFill::Fresh(entry));
        }
        let stale = bucket.key(key, true, now);
        if let Some(end) = bucket.filled_until(key, now) {
            return Ok(KeyFill::Filling { stale, over_in: until(end, now) });
        }
        self.changing(name)?;
        self.with_bucket(name, |bucket| bucket.purge_fills(now, ENDED_PER_FILL));
        let needed = Bucket::bytes_of_fill(key);
        self.make_room(|_| needed, needed)?;
        self.with_bucket(name, |bucket| bucket.begin_fill(key, *token, *within, now));
        Ok(KeyFill::Granted(stale))
    }

    /// Adds to how often keys were read, where fills live by that.
    pub(in crate::storage::memory) fn count_reads(
        &mut self,
        name: &BucketName,
        reads: &[(KeyName, u32)],
        now: Timestamp,
    ) -> Result<(), StorageError> {
        if self.buckets.get(name).is_none_or(|bucket| bucket.settings.adaptive_ttl.is_none()) {
            return Ok(());
        }
        self.with_bucket(name, |bucket| bucket.forget_cold(now));
        let needed = Bucket::bytes_of_reads(reads);
        self.make_room(|_| needed, needed)?;
        self.with_bucket(name, |bucket| bucket.count_reads(reads, now));
        Ok(())
    }

    /// Makes a bucket, or gives settings to the one that is there.
    pub(in crate::storage::memory) fn put_bucket(
        &mut self,
        name: &BucketName,
        settings: BucketSettings,
        now: Timestamp,
    ) -> Result<(BucketState, bool), StorageError> {
        if self.buckets.contains_key(name) {
            self.changing(name)?;
            return Ok(self.with_bucket(name, |bucket| {
                bucket.settings = settings;
                (bucket.state(name), false)
            }));
        }
        self.check_may_make_bucket()?;
        let needed = bytes_of_empty(name);
        self.make_room(|_| needed, needed)?;
        let bucket = self.new_bucket(settings, now);
        let state = bucket.state(name);
        self.insert_bucket(name, bucket);
        Ok((state, true))
    }

    fn check_may_make_bucket(&self) -> Result<(), StorageError> {
        if self.refuses_new {
            return Err(StorageError::ReadOnly(WhyReadOnly::NotMade));
        }
        self.check_buckets_limit()
    }

    fn check_buckets_limit(&self) -> Result<(), StorageError> {
        let there_are_less = (self.buckets.len() as u64) < self.options.limits.buckets_max;
        if there_are_less { Ok(()) } else { Err(StorageError::BucketsLimit) }
    }

    fn new_bucket(&self, settings: BucketSettings, now: Timestamp) -> Box<Bucket> {
        Box::new(Bucket::new(settings, self.floor, Epoch::Marked(self.next_number), now))
    }

    fn insert_bucket(&mut self, name: &BucketName, bucket: Box<Bucket>) {
        self.next_number += 1;
        self.buckets_bytes += bytes_of_empty(name);
        self.buckets.insert(name.clone(), bucket);
    }

    pub(in crate::storage::memory) fn delete_bucket(
        &mut self,
        name: &BucketName,
    ) -> Result<RemovedBucket, StorageError> {
        let bucket = self.buckets.remove(name).ok_or(StorageError::NoBucket)?;
        self.floor = self.floor.max(bucket.log().last_given());
        self.buckets_bytes -= bytes_of_empty(name) + bucket.keys_cost();
        self.logs_bytes -= bucket.log().bytes();
        self.keys_bytes -= bucket.answers_bytes();
        if let Some(due) = bucket.next_due() {
            self.keys_due.remove(&(due, name.clone()));
        }
        Ok(RemovedBucket(bucket))
    }

    /// Deletes the bucket of a room, if nobody was in it for long.
    pub(in crate::storage::memory) fn delete_idle_room(
        &mut self,
        name: &BucketName,
        now: Timestamp,
    ) -> Option<RemovedBucket> {
        let is_idle = self.buckets.get(name).is_some_and(|bucket| bucket.is_idle(now));
        if is_idle { self.delete_bucket(name).ok() } else { None }
    }

    /// Forgets the idempotency keys and fills that have ended of up to `count` buckets from `from` on, adds rooms in which nobody
    /// was for long, and returns where to go on.
    pub(in crate::storage::memory) fn sweep_buckets(
        &mut self,
        from: &Bound<BucketName>,
        count: usize,
        now: Timestamp,
        idle: &mut Vec<BucketName>,
    ) -> Option<Bound<BucketName>> {
        let bounds = (from.as_ref(), Bound::Unbounded);
        let (mut swept, mut purged, mut last) = (0, 0, None);
        for (name, bucket) in self.buckets.range_mut::<BucketName, _>(bounds).take(count) {
            let (ended, freed) = bucket.purge_answers(now, PURGED_PER_LOCK_MAX - purged);
            self.keys_bytes -= freed;
            let cost = bucket.keys_cost();
            bucket.purge_fills(now, PURGED_PER_LOCK_MAX);
            bucket.forget_cold(now);
            self.buckets_bytes = self.buckets_bytes + bucket.keys_cost() - cost;
            purged += ended;
            if purged == PURGED_PER_LOCK_MAX {
                return Some(Bound::Included(name.clone()));
            }
            if name.room().is_some() && bucket.is_idle(now) {
                idle.push(name.clone());
            }
            (swept, last) = (swept + 1, Some(name));
        }
        last.filter(|_| swept == count).cloned().map(Bound::Excluded)
    }
}
