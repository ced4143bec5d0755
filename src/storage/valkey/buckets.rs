//! Buckets of keys: what they have, and what becomes of it (their changes are in `changing`).
//!
//! Everything is a script (see `scripts::buckets`), called over the connection of work.

use std::time::Duration;

use tidemill_proto::{BucketName, KeyName, Timestamp, TopicName};

use super::Shard;
use super::calls::{Call, Joining};
use super::failure::{Effect, of_key, refuses_writes, unexpected};
use super::marker::new_epoch;
use super::resp::{Arguments, Reply, Request};
use super::scripts::{self, Script};
use crate::storage::{
    BucketSettings, BucketState, EXPIRED_MAX, KeyEntry, KeyPage, KeyRange, KeysExpired, LOG_BYTES,
    LOG_CHANGES, StorageError, WhyReadOnly,
};
use replies::{Coded, coded, read_entry, read_history, read_page, read_state, read_touched};

mod changing;
mod copying;
mod filling;
mod index;
mod replies;
mod routing;
mod touching;

/// How often changes are tried whose bucket had to be made, or in which keys had to go first whose time was over.
const ROUNDS_MAX: usize = 8;
/// Keys of an owner that one step deletes.
const REVOKED_MAX: usize = 100;
/// How long the last id of the log of a deleted bucket is remembered, as that of a topic is.
const LAST_ID_KEPT_MS: &str = "60000";
/// Bytes that the answer of a script may have beside values: names and lines of a thousand keys.
const LINES_BYTES: usize = 4 * 1024 * 1024;
/// Most bytes of one value: as large as can be set.
const VALUE_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Bytes of a value for which room is left in what comes at once.
const VALUE_BYTES: usize = 64 * 1024;
/// How far off the next expiry must be for the index to be told by who has looked: what is nearer is looked for anyway.
const NEAR: Duration = Duration::from_secs(1);

fn ms_of(duration: Option<Duration>) -> String {
    duration.map_or_else(String::new, |duration| {
        u64::try_from(duration.as_millis()).unwrap_or(u64::MAX >> 11).min(u64::MAX >> 11).to_string()
    })
}

fn number_or_none(number: Option<u64>) -> String {
    number.map_or_else(String::new, |number| number.to_string())
}

/// Returns a text as records have it that may be absent.
fn said(text: Option<&str>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| format!("={text}"))
}

/// Returns the settings of a bucket as scripts keep them.
fn fields(settings: &BucketSettings) -> [(&'static str, String); 7] {
    let BucketSettings { history, ttl, absolute_age, max_keys, max_bytes, adaptive_ttl } = settings;
    [
        ("history", history.to_string()),
        ("ttl", ms_of(*ttl)),
        ("age", ms_of(*absolute_age)),
        ("max_keys", number_or_none(*max_keys)),
        ("max_bytes", number_or_none(*max_bytes)),
        ("adaptive_min", ms_of(adaptive_ttl.map(|adaptive| adaptive.min))),
        ("adaptive_max", ms_of(adaptive_ttl.map(|adaptive| adaptive.max))),
    ]
}

impl Shard {
    /// Returns a call of a script that changes a bucket.
    fn of_bucket(
        &self,
        bucket: &BucketName,
        script: &'static Script,
        timestamp: Timestamp,
        arguments: impl IntoIterator<Item = String>,
    ) -> Call {
        let mut all = Vec::from(self.arguments_of(bucket));
        all.push(timestamp.to_string());
        all.extend(arguments);
        Call::new(script, Effect::Write, &self.keys.bucket(bucket), &all)
    }

    /// Returns the arguments that all scripts have which change a bucket.
    fn arguments_of(&self, bucket: &BucketName) -> [String; 4] {
        let notice = format!("{} {}", self.doorbell.signature(), TopicName::log_of(bucket));
        [LOG_CHANGES.to_string(), LOG_BYTES.to_string(), self.doorbell.script_channel(), notice]
    }

    /// Calls a script that changes a bucket, and tells of it.
    async fn change_bucket<T: Send + 'static>(
        &self,
        bucket: &BucketName,
        call: Call,
        read: impl FnOnce(Reply<'_>) -> Option<Coded<T>> + Send + 'static,
    ) -> Result<Coded<T>, StorageError> {
        let log = TopicName::log_of(bucket);
        let changing = self.doorbell.changing([&log]);
        let answer = self.calls.call(call, read).await;
        match &answer {
            Ok(Coded::Well(_)) => changing.answered([&log]),
            Ok(Coded::Other(_)) => changing.answered([]),
            Err(StorageError::Indeterminate(_)) => {}
            Err(error) => {
                if let StorageError::Unavailable(cause) = error
                    && refuses_writes(&cause.to_string())
                {
                    self.calls.connection().suspect();
                }
                changing.answered([]);
            }
        }
        answer
    }

    /// Returns the error of an answer that is none of those that a script about this bucket gives by itself.
    fn of_code(&self, bucket: &BucketName, code: i64) -> StorageError {
        match code {
            1 => StorageError::NoBucket,
            15 => StorageError::ReadOnly(WhyReadOnly::Frozen),
            16 => StorageError::ReadOnly(WhyReadOnly::Importing),
            code if code < 0 => {
                let mut all: Vec<String> = self.keys.bucket(bucket).into();
                all.push(self.keys.last_id(&TopicName::log_of(bucket)));
                let at = usize::try_from(-code).unwrap_or(1) - 1;
                StorageError::ForeignKey(all.get(at).map_or("", String::as_str).into())
            }
            _ => unexpected("EVALSHA", Effect::Write),
        }
    }

    /// Makes a bucket, or gives it settings, unless it is there and keeps them.
    pub(super) async fn make_bucket(
        &self,
        bucket: &BucketName,
        settings: &BucketSettings,
        keeps: bool,
    ) -> Result<(BucketState, bool), StorageError> {
        let index = &self.indexes.buckets;
        let (count, is_known, is_refused) =
            tokio::try_join!(index.count(), index.has(bucket), self.indexes.topics.is_closed())?;
        if is_refused && !is_known {
            return Err(StorageError::ReadOnly(WhyReadOnly::NotMade));
        }
        if count >= self.limits.buckets_max && !is_known {
            return Err(StorageError::BucketsLimit);
        }
        let log = TopicName::log_of(bucket);
        let mut keys: Vec<String> = self.keys.bucket(bucket).into();
        keys.push(self.keys.last_id(&log));
        let (epoch, now) = (new_epoch(), self.now().to_string());
        let fields = fields(settings);
        let mut arguments = vec![epoch.as_str(), &now, if keeps { "1" } else { "0" }];
        arguments.extend(fields.iter().flat_map(|(name, value)| [*name, value.as_str()]));
        let call = Call::new(&scripts::PUT_BUCKET, Effect::Write, &keys, &arguments);
        let name = bucket.clone();
        let answer = self
            .change_bucket(bucket, call, move |reply| coded(reply, |_, parts| read_state(name, parts)))
            .await?;
        let made = match answer {
            Coded::Well(made) => made,
            Coded::Other(code) => return Err(self.of_code(bucket, code)),
        };
        // The bucket is there, whether the index knows it now or with the next sweep.
        if let Err(error) = index.add(&[bucket]).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "a bucket is not in the index until the next sweep"
            );
        }
        Ok(made)
    }

    /// Describes a bucket.
    pub(super) async fn bucket(&self, bucket: &BucketName) -> Result<BucketState, StorageError> {
        let [_, facts, _, names, ..] = self.keys.bucket(bucket);
        let call = Call::new(&scripts::DESCRIBE_BUCKET, Effect::Read, &[&facts, &names], &[] as &[&str]);
        let name = bucket.clone();
        let answer =
            self.calls.call(call, move |reply| coded(reply, |_, parts| read_state(name, parts))).await;
        match answer.map_err(|error| of_key(error, facts))? {
            Coded::Well((state, _)) => Ok(state),
            Coded::Other(code) => Err(self.of_code(bucket, code)),
        }
    }

    /// Deletes a bucket.
    pub(super) async fn delete_bucket(&self, bucket: &BucketName) -> Result<(), StorageError> {
        self.delete_bucket_if(bucket, None).await
    }

    /// Deletes a bucket; where a time is given only if it has no keys and nothing was done with it for so long.
    async fn delete_bucket_if(
        &self,
        bucket: &BucketName,
        idle: Option<Duration>,
    ) -> Result<(), StorageError> {
        let mut keys: Vec<String> = self.keys.bucket(bucket).into();
        keys.push(self.keys.last_id(&TopicName::log_of(bucket)));
        let idle = idle.map(|idle| ms_of(Some(idle)));
        let arguments: Vec<&str> = std::iter::once(LAST_ID_KEPT_MS).chain(idle.as_deref()).collect();
        let call = Call::new(&scripts::DELETE_BUCKET, Effect::Write, &keys, &arguments);
        let read = |reply: Reply<'_>| coded(reply, |code, _| Some(code == 0));
        match self.change_bucket(bucket, call, read).await? {
            Coded::Well(true) => {}
            Coded::Well(false) => return Ok(()),
            Coded::Other(code) => return Err(self.of_code(bucket, code)),
        }
        let mut request = Request::default();
        let notice = format!("{} {}", self.doorbell.signature(), TopicName::log_of(bucket));
        self.doorbell.add_ring(&mut request, &notice);
        // What is left of it in the indexes goes with the next sweep, and a notice is a hint, too.
        let told = self.calls.connection().exchange(&request, Effect::Write);
        let gone = [bucket];
        let _ = tokio::join!(self.unindex_buckets(&gone), told);
        Ok(())
    }

    /// Returns a key.
    pub(super) async fn key(
        &self,
        bucket: &BucketName,
        key: &KeyName,
        value: bool,
    ) -> Result<Option<KeyEntry>, StorageError> {
        let [_, _, values, _, due, ..] = self.keys.bucket(bucket);
        let wants = if value { "1" } else { "0" };
        let keys = [values, due];
        let own: Arguments = [key.as_str(), wants].iter().collect();
        let no_more: &[&str] = &[];
        let call = Call::several(&scripts::READ_KEY, Effect::Read, &keys, no_more, own, Joining::Joined)
            .replied(if value { VALUE_BYTES } else { 0 }, VALUE_BYTES_MAX);
        let name = key.clone();
        let answer = self.calls.call(call, move |reply| read_entry(name, value, reply)).await;
        let [values, _] = keys;
        answer.map_err(|error| of_key(error, values))
    }

    /// Returns the revisions of a key.
    pub(super) async fn key_history(
        &self,
        bucket: &BucketName,
        key: &KeyName,
    ) -> Result<Vec<KeyEntry>, StorageError> {
        let [_, _, values, _, due, past, ..] = self.keys.bucket(bucket);
        let call = Call::new(&scripts::KEY_HISTORY, Effect::Read, &[&values, &due, &past], &[key.as_str()])
            .replied(VALUE_BYTES, VALUE_BYTES_MAX);
        let name = key.clone();
        let answer = self.calls.call(call, move |reply| read_history(&name, reply)).await;
        answer.map_err(|error| of_key(error, values))
    }

    /// Has a key live for so long from now on.
    pub(super) async fn touch_key(
        &self,
        bucket: &BucketName,
        key: &KeyName,
        ttl: Option<Duration>,
        value: bool,
    ) -> Result<Option<KeyEntry>, StorageError> {
        let [_, facts, values, _, due, ..] = self.keys.bucket(bucket);
        let (ttl, wants) = (ms_of(ttl), if value { "1" } else { "0" });
        let arguments = [key.as_str(), &ttl, wants];
        let call = Call::new(&scripts::TOUCH_KEY, Effect::Write, &[&facts, &values, &due], &arguments)
            .replied(if value { VALUE_BYTES } else { 0 }, VALUE_BYTES_MAX);
        let name = key.clone();
        let answer = self.calls.call(call, move |reply| read_touched(name, value, reply)).await;
        let Some((entry, earliest)) = answer.map_err(|error| of_key(error, values))? else { return Ok(None) };
        if let Some(earliest) = earliest {
            self.note_expiring(&[(bucket, earliest)]).await;
        }
        Ok(Some(entry))
    }

    /// Returns a page of keys.
    pub(super) async fn list_keys(
        &self,
        bucket: &BucketName,
        range: KeyRange,
    ) -> Result<KeyPage, StorageError> {
        let [_, facts, values, names, due, ..] = self.keys.bucket(bucket);
        let KeyRange { prefix, after, limit, bytes_max, values: wants } = range;
        let from = match after {
            Some(after) if after.as_str() >= &*prefix => format!("({after}"),
            Some(_) | None => format!("[{prefix}"),
        };
        // Behind every character of a name.
        let to = format!("({prefix}\x7f");
        let (limit_text, bytes) = (limit.to_string(), bytes_max.min(VALUE_BYTES_MAX).to_string());
        let arguments = [from.as_str(), &to, &limit_text, &bytes, if wants { "1" } else { "0" }];
        let room = if wants { bytes_max.min(VALUE_BYTES_MAX) } else { 0 };
        let call = Call::new(&scripts::LIST_KEYS, Effect::Read, &[&facts, &names, &values, &due], &arguments)
            .replied(room.min(LINES_BYTES), VALUE_BYTES_MAX + LINES_BYTES);
        let answer = self.calls.call(call, move |reply| read_page(wants, reply)).await;
        answer.map_err(|error| of_key(error, values))?.ok_or(StorageError::NoBucket)
    }

    /// Deletes the keys of an owner.
    pub(super) async fn revoke_keys(
        &self,
        bucket: &BucketName,
        owner: &KeyName,
        timestamp: Timestamp,
    ) -> Result<u64, StorageError> {
        let mut all = 0;
        loop {
            let arguments = [owner.as_str().to_owned(), REVOKED_MAX.to_string()];
            let call = self.of_bucket(bucket, &scripts::REVOKE_KEYS, timestamp, arguments);
            let read = |reply: Reply<'_>| {
                coded(reply, |_, parts| {
                    let count = u64::try_from(parts.next()?.integer()?).ok()?;
                    Some((count, parts.next()?.integer()? == 1))
                })
            };
            match self.change_bucket(bucket, call, read).await? {
                Coded::Well((count, is_more)) => {
                    all += count;
                    if !is_more {
                        return Ok(all);
                    }
                }
                Coded::Other(code) => return Err(self.of_code(bucket, code)),
            }
        }
    }

    /// Has keys expire in one bucket.
    async fn expire_in(&self, bucket: &BucketName) -> Result<(KeysExpired, Option<u64>), StorageError> {
        let arguments = [EXPIRED_MAX.to_string()];
        let call = self.of_bucket(bucket, &scripts::EXPIRE_KEYS, self.now(), arguments);
        let read = |reply: Reply<'_>| {
            coded(reply, |_, parts| {
                let count = usize::try_from(parts.next()?.integer()?).ok()?;
                let now = u64::try_from(parts.next()?.integer()?).ok()?;
                let next = replies::number(&parts.next()?);
                let next_in = next.map(|next| Duration::from_millis(next.saturating_sub(now)));
                Some((KeysExpired { count, next_in }, next))
            })
        };
        match self.change_bucket(bucket, call, read).await? {
            Coded::Well(expired) => Ok(expired),
            // It is gone, or its log is, which the next change makes anew; or nothing is changed in it.
            Coded::Other(1 | 15 | 16) => Ok((KeysExpired::default(), None)),
            Coded::Other(code) => Err(self.of_code(bucket, code)),
        }
    }

    /// Has keys of buckets expire.
    pub(super) async fn expire_keys(&self, buckets: &[BucketName]) -> Vec<Result<KeysExpired, StorageError>> {
        let found = futures_util::future::join_all(buckets.iter().map(|bucket| self.expire_in(bucket))).await;
        let mut looked_at: Vec<(&BucketName, Option<u64>)> = Vec::new();
        for (bucket, found) in buckets.iter().zip(&found) {
            if let Ok((expired, next)) = found
                && expired.next_in.is_none_or(|next| next > NEAR)
            {
                looked_at.push((bucket, *next));
            }
        }
        self.mend_expiring(&looked_at).await;
        found.into_iter().map(|found| found.map(|(expired, _)| expired)).collect()
    }
}
