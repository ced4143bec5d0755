//! Copying buckets of keys.
//!
//! All keys are read once, while they change; then the log tells which have changed since, and these are read again, until
//! nothing has changed any more. Where the log does not go back that far, all are read again.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use tidemill_proto::copy::CopyRead;
use tidemill_proto::{BucketName, KeyName, MessageId, Timestamp, TopicName};

use super::freezing::all_buckets;
use super::kept::Given;
use super::planning::NOT_WHOLE;
use super::side::{SideError, find};
use super::{After, Clash, Copy, CopyError, Side, Write};
use crate::storage::{CopiedBucket, CopiedKey, CopiedKeys, Freeze, KeysPart, Logged, StoredMessage};

/// How often it is looked at what has changed meanwhile, where the bucket is copied once and is not read-only.
const ROUNDS_MAX: usize = 200;

/// Whether the log of a bucket tells of all changes behind one.
fn tells_behind(source: &CopiedBucket, known: MessageId) -> bool {
    known == source.last || source.first.is_some_and(|first| first <= known)
}

impl Copy {
    /// Returns the names of the buckets that are copied: all, or none where topics are named.
    pub(super) async fn buckets(&self) -> Result<Vec<BucketName>, CopyError> {
        if !self.plan.topics.is_empty() {
            return Ok(Vec::new());
        }
        let listed = all_buckets(&*self.from).await.map_err(Side::Source.failed_at_all())?;
        let mut all: BTreeSet<BucketName> = listed.into_iter().collect();
        all.extend(self.unlisted.lock().iter().filter_map(TopicName::bucket));
        Ok(all.into_iter().collect())
    }

    pub(super) async fn look_at_bucket(
        &self,
        side: Side,
        bucket: &BucketName,
    ) -> Result<Option<CopiedBucket>, CopyError> {
        let found = find(self.side(side), CopyRead::Bucket { bucket: bucket.clone() }).await;
        let found = found.map_err(side.failed(&TopicName::log_of(bucket)))?;
        Ok(found.map(|found: Box<CopiedBucket>| *found))
    }

    async fn source_bucket(&self, bucket: &BucketName) -> Result<Option<CopiedBucket>, CopyError> {
        let found = self.look_at_bucket(Side::Source, bucket).await?;
        if found.as_ref().is_some_and(|found| found.freeze == Some(Freeze::Importing)) {
            return Err(CopyError::NotCopied { topic: TopicName::log_of(bucket), why: NOT_WHOLE });
        }
        Ok(found)
    }

    /// Has a bucket of the target be where it can get keys; `None` where it is whole.
    async fn target_bucket(&self, source: &CopiedBucket) -> Result<Option<CopiedBucket>, CopyError> {
        let bucket = &source.state.bucket;
        let log = TopicName::log_of(bucket);
        if let Some(target) = self.look_at_bucket(Side::Target, bucket).await? {
            let is_importing = target.freeze == Some(Freeze::Importing);
            if target.epoch == source.epoch {
                if is_importing {
                    self.go_on_with(&log);
                    return Ok(Some(target));
                }
                let stays = !self.replacing.lock().contains(&log);
                if stays && self.has_last_change(bucket, source, &target).await? {
                    return Ok(None);
                }
            }
            // At the source it was deleted and made again meanwhile.
            let is_ours = is_importing && self.made.lock().contains(&log);
            if !self.plan.overwrite && !is_ours {
                let is_copy = target.epoch == source.epoch;
                let clash = Clash { is_copy, source: source.state.keys, target: target.state.keys };
                return Err(CopyError::Taken(log, clash));
            }
            if is_ours && target.epoch != source.epoch {
                self.check_same_run(&log).await?;
            }
            self.delete_bucket(bucket).await?;
            if !is_ours {
                self.progress.replaced_keys.fetch_add(target.state.keys, Ordering::Relaxed);
            }
        }
        self.import(&log, Write::BeginBucket(Box::new(source.clone()))).await?;
        self.replacing.lock().remove(&log);
        self.made.lock().insert(log);
        Ok(Some(CopiedBucket { last: MessageId::MIN, has_keys: false, ..source.clone() }))
    }

    /// Copies what a bucket has not got yet, and finishes it where that is all.
    pub(super) async fn copy_bucket(&self, bucket: &BucketName) -> Result<After, CopyError> {
        let log = TopicName::log_of(bucket);
        if self.finished.lock().contains(&log) {
            return Ok(After::Finished);
        }
        let Some(mut source) = self.source_bucket(bucket).await? else { return Ok(After::Gone) };
        // One that was made as the source became read-only.
        if self.plan.follow && source.freeze.is_none() && self.is_switched().await? {
            let frozen = Write::FreezeBucket { bucket: bucket.clone(), frozen: true };
            let frozen = self.from.write(frozen).await;
            frozen.map_err(Side::Source.failed(&log))?;
            let Some(frozen) = self.source_bucket(bucket).await? else { return Ok(After::Gone) };
            source = frozen;
        }
        let Some(target) = self.target_bucket(&source).await? else {
            // As with a topic.
            self.list(&log).await?;
            if self.plan.follow && source.freeze.is_none() {
                return Ok(After::Waiting);
            }
            self.finish_bucket(&log);
            return Ok(After::Finished);
        };
        self.claim(&log).await?;
        let mut last = target.last;
        // What is known of the keys is at least what they were at this change.
        let mut known = last;
        if !target.has_keys || !tells_behind(&source, last) {
            known = source.last;
            self.copy_keys(&source).await?;
        }
        for _ in 0..ROUNDS_MAX {
            last = self.copy_changes(&source, last, known).await?;
            if self.plan.follow && source.freeze.is_none() {
                return Ok(After::Waiting);
            }
            let Some(now) = self.source_bucket(bucket).await? else { return Ok(After::Gone) };
            if now.epoch != source.epoch || !tells_behind(&now, known.max(source.last)) {
                break;
            }
            known = known.max(source.last);
            if now.last == source.last {
                self.copy_ends(&now).await?;
                self.check_target().await?;
                self.claim(&log).await?;
                let whole = CopiedBucket { freeze: None, ..now };
                let (has, given) = (whole.state.keys, Given::of_bucket(&whole));
                self.import(&log, Write::FinishBucket(Box::new(whole))).await?;
                let came = self.keys_came.lock().remove(&log).unwrap_or_default();
                self.progress.keys_again.fetch_add(came.saturating_sub(has), Ordering::Relaxed);
                self.given.lock().insert(log.clone(), given);
                self.finish_bucket(&log);
                return Ok(After::Finished);
            }
            source = now;
        }
        let why = "it is changed faster than it is copied; make the source read-only, or follow it";
        Err(CopyError::NotCopied { topic: log, why })
    }

    fn finish_bucket(&self, log: &TopicName) {
        self.finished.lock().insert(log.clone());
        self.progress.buckets_finished.fetch_add(1, Ordering::Relaxed);
    }

    /// Copies all keys, in place of those that the target has.
    async fn copy_keys(&self, source: &CopiedBucket) -> Result<(), CopyError> {
        let bucket = &source.state.bucket;
        let log = TopicName::log_of(bucket);
        let read = async |after: Option<&KeyName>| {
            let asked = CopyRead::Keys { bucket: bucket.clone(), after: after.cloned() };
            self.ask_source::<CopiedKeys>(&log, asked).await
        };
        let mut is_first = true;
        let mut page = read(None).await?;
        loop {
            let (count, next) = (page.keys.len(), page.next);
            let part = match (is_first, &next) {
                (true, _) => KeysPart::First(page.keys),
                (false, Some(_)) => KeysPart::More(page.keys),
                (false, None) => KeysPart::Last(page.keys),
            };
            let is_last = matches!(part, KeysPart::Last(_));
            let import = self.import_keys(source, part, count);
            let following = async {
                match &next {
                    Some(next) => read(Some(next)).await,
                    None => Ok(CopiedKeys::default()),
                }
            };
            let (imported, following) = tokio::join!(import, following);
            imported?;
            if is_last {
                return Ok(());
            }
            (page, is_first) = (following?, false);
        }
    }

    async fn import_keys(
        &self,
        source: &CopiedBucket,
        keys: KeysPart,
        count: usize,
    ) -> Result<(), CopyError> {
        let bucket = source.state.bucket.clone();
        let log = TopicName::log_of(&bucket);
        self.go_on_claiming(&log).await?;
        self.import(&log, Write::Keys { bucket, epoch: source.epoch, keys }).await?;
        *self.keys_came.lock().entry(log).or_default() += count as u64;
        self.progress.keys.fetch_add(count as u64, Ordering::Relaxed);
        *self.fails_since.lock() = None;
        Ok(())
    }

    /// Copies what the log has behind a change, up to the last that there was, and the keys that were changed behind what is
    /// known of them; returns the last change that the target has.
    async fn copy_changes(
        &self,
        source: &CopiedBucket,
        last: MessageId,
        known: MessageId,
    ) -> Result<MessageId, CopyError> {
        let bucket = &source.state.bucket;
        let log = TopicName::log_of(bucket);
        let mut last = last;
        while last < source.last {
            let asked = CopyRead::Changes { bucket: bucket.clone(), after: last };
            let mut changes: Vec<StoredMessage> = self.ask_source(&log, asked).await?;
            changes.truncate(changes.partition_point(|change| change.id <= source.last));
            let Some(end) = changes.last().map(|change| change.id) else { break };
            let unknown = changes.iter().filter(|change| change.id > known);
            let keys: BTreeSet<KeyName> =
                unknown.filter_map(|change| Some(Logged::of(change)?.key)).collect();
            self.copy_some(source, keys.into_iter().collect()).await?;
            let (bucket, epoch) = (bucket.clone(), source.epoch);
            self.import(&log, Write::Changes { bucket, epoch, after: last, changes }).await?;
            *self.fails_since.lock() = None;
            last = end;
        }
        Ok(last)
    }

    /// Copies keys as they are now.
    async fn copy_some(&self, source: &CopiedBucket, keys: Vec<KeyName>) -> Result<(), CopyError> {
        let bucket = &source.state.bucket;
        let log = TopicName::log_of(bucket);
        let mut left = &keys[..];
        while !left.is_empty() {
            let asked = CopyRead::SomeKeys { bucket: bucket.clone(), keys: left.to_vec() };
            let found: Vec<Option<CopiedKey>> = self.ask_source(&log, asked).await?;
            let count = found.len();
            let part = KeysPart::Changed(left.iter().cloned().zip(found).collect());
            self.import_keys(source, part, count).await?;
            left = &left[count..];
        }
        Ok(())
    }

    /// Copies when keys are over: that they were touched is in no log.
    async fn copy_ends(&self, source: &CopiedBucket) -> Result<(), CopyError> {
        let bucket = &source.state.bucket;
        let log = TopicName::log_of(bucket);
        let mut after = None;
        loop {
            let asked = CopyRead::Ends { bucket: bucket.clone(), after };
            let ends: Vec<(KeyName, Option<Timestamp>)> = self.ask_source(&log, asked).await?;
            let Some((key, _)) = ends.last() else { return Ok(()) };
            after = Some(key.clone());
            let (bucket, epoch) = (bucket.clone(), source.epoch);
            self.import(&log, Write::Ends { bucket, epoch, ends }).await?;
        }
    }

    /// Deletes a bucket of the target.
    pub(super) async fn delete_bucket(&self, bucket: &BucketName) -> Result<(), CopyError> {
        match self.to.write(Write::DeleteBucket { bucket: bucket.clone() }).await {
            Ok(()) | Err(SideError::Missing) => Ok(()),
            Err(error) => Err(Side::Target.failed(&TopicName::log_of(bucket))(error)),
        }
    }
}
