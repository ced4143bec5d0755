//! Buckets that are copied: told to another storage, or taken over from one. Their logs are as those of topics.

use async_trait::async_trait;
use tidemill_proto::{BucketName, KeyName, MessageId, Timestamp, TopicName};

use super::super::copying::{digits, lost};
use super::super::failure::Effect;
use super::super::resp::{Arguments, Parts};
use super::super::scripts::{self, Script};
use super::super::{Shard, Valkey, at};
use super::replies::{self, number, read_record, read_state};
use super::{LINES_BYTES, VALUE_BYTES_MAX, fields, said};
use crate::storage::{
    BucketCopyStore, BucketState, CopiedBucket, CopiedKey, CopiedKeys, CopyStore as _, Epoch, Freeze,
    KeyEntry, KeysPart, StorageError, StoredMessage, WhyReadOnly,
};

/// Bytes that an answer may have for each key beside its records.
const KEY_BYTES: usize = 2 * 1024;

/// Returns a record of a key, which has these earlier revisions.
fn record_of(entry: &KeyEntry, past: &[KeyEntry]) -> Vec<u8> {
    let bytes_of = |entry: &KeyEntry| entry.value.as_ref().map_or(0, |value| value.bytes.len());
    let past: Vec<String> =
        past.iter().map(|earlier| format!("{}:{}", earlier.revision, bytes_of(earlier))).collect();
    let past = if past.is_empty() { "-".to_owned() } else { past.join(",") };
    let digest = entry.digest.as_ref().map_or_else(
        || "-".to_owned(),
        |digest| {
            let parent = digest.parent.as_ref().map(|parent| format!(".{}", replies::written(parent)));
            replies::written(&digest.own) + parent.as_deref().unwrap_or_default()
        },
    );
    let counted = if entry.is_counted { "~" } else { "" };
    let fresh = entry.fresh_until.map_or_else(|| "-".to_owned(), |fresh| fresh.as_millis().to_string());
    let owner = said(entry.owner.as_ref().map(KeyName::as_str));
    let kind = said(entry.value.as_ref().and_then(|value| value.content_type.as_deref()));
    let (revision, created) = (entry.revision, entry.created_at.as_millis());
    let line = format!("{revision} {created} {owner} {past} {digest} {counted}{fresh} {kind}\n");
    let value = entry.value.as_ref().map_or(&b""[..], |value| &value.bytes);
    [line.as_bytes(), value].concat()
}

fn ms_text(time: Option<Timestamp>) -> String {
    time.map_or_else(String::new, |time| time.as_millis().to_string())
}

fn write_key(arguments: &mut Arguments, key: &KeyName, copied: Option<&CopiedKey>) {
    let Some(CopiedKey { entry, past }) = copied else {
        arguments.extend([key.as_str(), "", "", "0"]);
        return;
    };
    arguments.add(key.as_str().as_bytes()).add(ms_text(entry.expires_at).as_bytes());
    arguments.add(&record_of(entry, past)).add(past.len().to_string().as_bytes());
    for earlier in past {
        arguments.add(earlier.revision.to_string().as_bytes()).add(&record_of(earlier, &[]));
    }
}

fn read_name(bytes: &[u8]) -> Option<KeyName> {
    KeyName::parse(std::str::from_utf8(bytes).ok()?).ok()
}

/// Reads keys, each with its name. What other programs put there is no key.
fn read_keys(parts: &mut Parts<'_>) -> Option<Vec<(KeyName, Option<CopiedKey>)>> {
    let mut keys = Vec::new();
    while let Some(name) = parts.next() {
        let name = read_name(name.bytes()?);
        let (due, record) = (number(&parts.next()?), parts.next()?);
        let record = record.bytes()?;
        let count = parts.next()?.integer()?;
        let mut past = Vec::new();
        for _ in 0..count {
            let earlier = parts.next()?;
            let Some(name) = &name else { continue };
            let mut earlier = read_record(name.clone(), None, true, earlier.bytes()?)?;
            (earlier.fresh_until, earlier.is_counted) = (None, false);
            past.push(earlier);
        }
        let Some(name) = name else { continue };
        let copied = if record.is_empty() {
            None
        } else {
            Some(CopiedKey { entry: read_record(name.clone(), due, true, record)?, past })
        };
        keys.push((name, copied));
    }
    Some(keys)
}

/// Returns where in the order of names one begins that goes on behind a key.
fn from(after: Option<&KeyName>) -> String {
    after.map_or_else(|| "-".to_owned(), |after| format!("({after}"))
}

/// Returns the error that is told of a bucket where one of its log is known.
fn of_bucket(error: StorageError) -> StorageError {
    match error {
        StorageError::NoTopic => StorageError::NoBucket,
        error => error,
    }
}

fn settings_of(state: &BucketState) -> Vec<String> {
    fields(&state.settings).into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}

impl Shard {
    async fn change_copy(
        &self,
        bucket: &BucketName,
        script: &'static Script,
        keys: &[String],
        arguments: Arguments,
    ) -> Result<(), StorageError> {
        let log = TopicName::log_of(bucket);
        let done = self.copy_change(&log, script, keys, arguments, StorageError::TopicExists).await;
        done.map_err(of_bucket)
    }

    pub(in super::super) async fn copied_bucket(
        &self,
        bucket: &BucketName,
    ) -> Result<CopiedBucket, StorageError> {
        let [_, facts, _, names, ..] = self.keys.bucket(bucket);
        let (call, name) = ((&scripts::COPIED_BUCKET, Effect::Read), bucket.clone());
        let read = move |parts: &mut Parts<'_>| {
            let freeze = match parts.next()?.bytes()? {
                b"frozen" => Some(Freeze::ReadOnly),
                b"importing" => Some(Freeze::Importing),
                _ => None,
            };
            let has_keys = !parts.next()?.bytes()?.is_empty();
            let (state, _) = read_state(name, parts)?;
            Some((state, freeze, has_keys))
        };
        let answer =
            self.copy_call(call, &[facts, names], Arguments::default(), StorageError::NoBucket, read).await;
        let (state, freeze, has_keys) = answer.map_err(of_bucket)?;
        let log = self.copied(&TopicName::log_of(bucket)).await?;
        Ok(CopiedBucket {
            state,
            epoch: log.epoch,
            born: log.born,
            first: log.first,
            last: log.last,
            length: log.length,
            holes: log.holes,
            given: log.given,
            freeze,
            has_keys,
        })
    }

    /// Asks for keys: those that are named, or where none is a page of all.
    async fn ask_for_keys(
        &self,
        bucket: &BucketName,
        page: Option<(&str, usize)>,
        wanted: &[KeyName],
        bytes_max: usize,
    ) -> Result<Vec<(KeyName, Option<CopiedKey>)>, StorageError> {
        let [_, _, values, names, due, past, ..] = self.keys.bucket(bucket);
        let (from, limit) = page.unwrap_or_default();
        let count = if page.is_some() { limit } else { wanted.len() };
        let mut arguments: Arguments =
            [from.to_owned(), limit.to_string(), bytes_max.to_string()].iter().collect();
        arguments.extend(wanted.iter().map(KeyName::as_str));
        let room = (bytes_max + count * KEY_BYTES, VALUE_BYTES_MAX + LINES_BYTES);
        let call = (&scripts::COPIED_KEYS, Effect::Read);
        let keys = [names, values, due, past];
        self.copy_call_of(call, &keys, arguments, StorageError::NoBucket, room, read_keys).await
    }

    async fn copied_keys(
        &self,
        bucket: &BucketName,
        after: Option<&KeyName>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<CopiedKeys, StorageError> {
        let found = self.ask_for_keys(bucket, Some((&from(after), limit)), &[], bytes_max).await?;
        let next = found.last().map(|(key, _)| key.clone());
        Ok(CopiedKeys { keys: found.into_iter().filter_map(|(_, copied)| copied).collect(), next })
    }

    async fn copied_ends(
        &self,
        bucket: &BucketName,
        after: Option<&KeyName>,
        limit: usize,
    ) -> Result<Vec<(KeyName, Option<Timestamp>)>, StorageError> {
        let [_, _, _, names, due, ..] = self.keys.bucket(bucket);
        let call = (&scripts::COPIED_ENDS, Effect::Read);
        let arguments: Arguments = [from(after), limit.to_string()].iter().collect();
        let room = (limit * KEY_BYTES, limit * KEY_BYTES);
        let read = |parts: &mut Parts<'_>| {
            let mut ends = Vec::new();
            while let Some(name) = parts.next() {
                let end = number(&parts.next()?).map(Timestamp::from_millis);
                ends.extend(read_name(name.bytes()?).map(|name| (name, end)));
            }
            Some(ends)
        };
        self.copy_call_of(call, &[names, due], arguments, StorageError::NoBucket, room, read).await
    }

    async fn begin_bucket(&self, other: &CopiedBucket) -> Result<(), StorageError> {
        let bucket = &other.state.bucket;
        let (count, is_closed) =
            tokio::try_join!(self.indexes.buckets.count(), self.indexes.topics.is_closed())?;
        if is_closed {
            return Err(StorageError::ReadOnly(WhyReadOnly::NotMade));
        }
        if count >= self.limits.buckets_max {
            return Err(StorageError::BucketsLimit);
        }
        let mut keys: Vec<String> = self.keys.bucket(bucket).into();
        keys.push(self.keys.last_id(&TopicName::log_of(bucket)));
        let before = other.given.unwrap_or(other.length).saturating_sub(other.length);
        let born = other.born.unwrap_or(MessageId::MIN);
        let mut arguments: Arguments =
            [digits(other.epoch), born.to_string(), before.to_string(), other.state.created_at.to_string()]
                .iter()
                .collect();
        arguments.extend(settings_of(&other.state));
        let index = &self.indexes.buckets;
        // As of a topic: no list is to lack it, whenever this is broken off.
        let is_new = index.add(&[bucket]).await? == [true];
        let begun = self.change_copy(bucket, &scripts::BEGIN_BUCKET, &keys, arguments).await;
        if is_new && let Err(StorageError::ForeignKey(_)) = &begun {
            index.remove(&[bucket]).await?;
        }
        begun?;
        self.indexes.begun.add(&[bucket]).await.map(drop)
    }

    async fn import_keys(
        &self,
        bucket: &BucketName,
        epoch: Epoch,
        part: &KeysPart,
    ) -> Result<(), StorageError> {
        let (is_first, is_last) = (matches!(part, KeysPart::First(_)), matches!(part, KeysPart::Last(_)));
        let mut arguments: Arguments =
            [digits(epoch), u8::from(is_first).to_string(), u8::from(is_last).to_string()].iter().collect();
        for (key, copied) in part.each() {
            write_key(&mut arguments, key, copied);
        }
        self.change_copy(bucket, &scripts::IMPORT_KEYS, &self.keys.bucket(bucket), arguments).await
    }

    async fn import_ends(
        &self,
        bucket: &BucketName,
        epoch: Epoch,
        ends: &[(KeyName, Option<Timestamp>)],
    ) -> Result<(), StorageError> {
        let each = ends.iter().flat_map(|(key, end)| [key.to_string(), ms_text(*end)]);
        let all: Vec<String> = std::iter::once(digits(epoch)).chain(each).collect();
        let arguments = all.iter().collect();
        self.change_copy(bucket, &scripts::IMPORT_ENDS, &self.keys.bucket(bucket), arguments).await
    }

    async fn finish_bucket(&self, other: &CopiedBucket) -> Result<(), StorageError> {
        let bucket = &other.state.bucket;
        let mut arguments: Arguments = [
            digits(other.epoch),
            other.last.to_string(),
            other.given.map_or_else(String::new, |given| given.to_string()),
            other.first.map_or_else(String::new, |first| first.to_string()),
            lost(&other.holes),
        ]
        .iter()
        .collect();
        arguments.extend(settings_of(&other.state));
        let log = TopicName::log_of(bucket);
        let changing = self.doorbell.changing([&log]);
        let call = (&scripts::FINISH_BUCKET, Effect::Write);
        let keys = self.keys.bucket(bucket);
        let done = self.copy_call(call, &keys, arguments, StorageError::TopicExists, |_| Some(())).await;
        changing.answered([&log]);
        done.map_err(of_bucket)?;
        self.list_bucket(bucket).await?;
        self.indexes.begun.remove(&[bucket]).await
    }

    /// Has lists name a bucket that is there, and find when a key of it is over next.
    pub(in super::super) async fn list_bucket(&self, bucket: &BucketName) -> Result<(), StorageError> {
        self.indexes.buckets.add(&[bucket]).await?;
        self.index_buckets(std::slice::from_ref(bucket)).await;
        Ok(())
    }
}

#[async_trait]
impl BucketCopyStore for Valkey {
    async fn copied_bucket(&self, bucket: &BucketName) -> Result<CopiedBucket, StorageError> {
        at!(self, bucket, shard => shard.copied_bucket(bucket).await)
    }

    async fn copied_keys(
        &self,
        bucket: &BucketName,
        after: Option<&KeyName>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<CopiedKeys, StorageError> {
        at!(self, bucket, shard => shard.copied_keys(bucket, after, limit, bytes_max).await)
    }

    async fn copied_some(
        &self,
        bucket: &BucketName,
        keys: &[KeyName],
        bytes_max: usize,
    ) -> Result<Vec<Option<CopiedKey>>, StorageError> {
        let found = at!(self, bucket, shard => {
            shard.ask_for_keys(bucket, None, keys, bytes_max).await
        })?;
        Ok(found.into_iter().map(|(_, copied)| copied).collect())
    }

    async fn copied_ends(
        &self,
        bucket: &BucketName,
        after: Option<&KeyName>,
        limit: usize,
    ) -> Result<Vec<(KeyName, Option<Timestamp>)>, StorageError> {
        at!(self, bucket, shard => shard.copied_ends(bucket, after, limit).await)
    }

    async fn copied_changes(
        &self,
        bucket: &BucketName,
        after: MessageId,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<StoredMessage>, StorageError> {
        self.copied_messages(&TopicName::log_of(bucket), after, limit, bytes_max).await
    }

    async fn freeze_bucket(&self, bucket: &BucketName, frozen: bool) -> Result<(), StorageError> {
        at!(self, bucket, shard => {
            let [_, facts, ..] = shard.keys.bucket(bucket);
            let arguments = [if frozen { "1" } else { "" }].iter().collect();
            let (log, keys) = (TopicName::log_of(bucket), [facts]);
            let refused = StorageError::ReadOnly(WhyReadOnly::Importing);
            let frozen = shard.copy_change(&log, &scripts::FREEZE_BUCKET, &keys, arguments, refused);
            frozen.await.map_err(of_bucket)
        })
    }

    async fn begin_bucket(&self, other: &CopiedBucket) -> Result<(), StorageError> {
        at!(self, &other.state.bucket, shard => shard.begin_bucket(other).await)
    }

    async fn import_keys(
        &self,
        bucket: &BucketName,
        epoch: Epoch,
        keys: KeysPart,
    ) -> Result<(), StorageError> {
        at!(self, bucket, shard => shard.import_keys(bucket, epoch, &keys).await)
    }

    async fn import_ends(
        &self,
        bucket: &BucketName,
        epoch: Epoch,
        ends: &[(KeyName, Option<Timestamp>)],
    ) -> Result<(), StorageError> {
        at!(self, bucket, shard => shard.import_ends(bucket, epoch, ends).await)
    }

    async fn import_changes(
        &self,
        bucket: &BucketName,
        epoch: Epoch,
        after: MessageId,
        changes: &[StoredMessage],
    ) -> Result<(), StorageError> {
        self.import_messages(&TopicName::log_of(bucket), epoch, after, changes).await.map_err(of_bucket)
    }

    async fn finish_bucket(&self, other: &CopiedBucket) -> Result<(), StorageError> {
        at!(self, &other.state.bucket, shard => shard.finish_bucket(other).await)
    }
}
