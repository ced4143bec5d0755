//! Keys: the rules of their changes and reads, and the way to storage.

use std::collections::HashSet;
use std::time::Duration;

use tidemill_proto::limits::{KEY_CHANGES_MAX, PAGE_BYTES_MAX, TTL_SECONDS_MAX};
use tidemill_proto::locks::Fence;
use tidemill_proto::{BucketName, Code, KeyName, MessageId, Problem, Timestamp, TopicName, duration};

use super::fingerprint::fingerprint_of_changes;
use super::payload::{BytesRule, Payload};
use super::{Failure, Gate, IdempotencyKey, LeaseHold, Leased, within};
use crate::access::{Kind, Verb};
use crate::storage::{
    CHANGES_MAX, Idempotency, KeyChange, KeyChanged, KeyChanges, KeyCondition, KeyDigest, KeyEdit, KeyEntry,
    KeyPage, KeyRange, KeyRefusal, KeyValue, KeysChanged, changed_without_bucket,
};

const _: () = assert!(KEY_CHANGES_MAX == CHANGES_MAX);

/// The times that a key can be given.
pub(super) const TTL: [Duration; 2] = [Duration::from_millis(1), Duration::from_secs(TTL_SECONDS_MAX)];

/// What becomes of a key, as it was asked for: its parts are well-formed, the rules are not yet checked.
#[derive(Debug)]
pub enum KeyDraft {
    /// It has this value from now on.
    Put {
        /// The value.
        value: Payload,
        /// How long it lives; the bucket's time where it is `None`.
        ttl: Option<Duration>,
        /// How long its value is fresh; as long as it lives where it is `None`.
        fresh: Option<Duration>,
        /// Whose it is.
        owner: Option<KeyName>,
    },
    /// It is gone.
    Delete,
    /// So much is added to it.
    Increment {
        /// How much more, or less.
        by: i64,
        /// It is refused where less would come out.
        min: Option<i64>,
        /// It is refused where more would come out.
        max: Option<i64>,
        /// How long a key lives that comes to be with it.
        ttl: Option<Duration>,
    },
}

/// A change of one key, as it was asked for.
#[derive(Debug)]
pub struct KeyChangeDraft {
    /// The key.
    pub key: KeyName,
    /// What must be so before.
    pub condition: KeyCondition,
    /// What becomes of it.
    pub edit: KeyDraft,
}

/// Changes that are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysMade {
    /// What came of each, in their order.
    pub changed: Vec<KeyChanged>,
    /// Whether the idempotency key had been used, so that nothing was changed now.
    pub replayed: bool,
}

/// Parses the name of a bucket; `field` is what it was called.
///
/// # Errors
/// It is none.
pub fn parse_bucket(field: &str, text: &str) -> Result<BucketName, Failure> {
    BucketName::parse(text).map_err(|error| Problem::field(field, error).into())
}

/// Parses the name of a key or an owner; `field` is what it was called.
///
/// # Errors
/// It is none.
pub fn parse_key(field: &str, text: &str) -> Result<KeyName, Failure> {
    KeyName::parse(text).map_err(|error| Problem::field(field, error).into())
}

/// Parses a revision; `field` is what it was called.
///
/// # Errors
/// It is none.
pub fn parse_revision(field: &str, text: &str) -> Result<MessageId, Failure> {
    MessageId::parse(text).map_err(|_| {
        Problem::field(field, "must be a revision, as an `ETag` has it: two numbers with `-` between").into()
    })
}

/// Parses how long a key lives, as text.
///
/// # Errors
/// It is no duration, or out of bounds.
pub fn parse_key_ttl(field: &str, text: &str) -> Result<Duration, Failure> {
    within(field, duration::parse(text).ok(), TTL)
}

/// Parses how long a key lives, as JSON.
///
/// # Errors
/// It is no duration, or out of bounds.
pub fn parse_key_ttl_json(field: &str, json: &str) -> Result<Duration, Failure> {
    within(field, duration::parse_json(json).ok(), TTL)
}

/// Checks what keys, or series, are to begin with: their names have one grammar.
///
/// # Errors
/// None can begin so.
pub fn parse_prefix(field: &str, text: &str) -> Result<Box<str>, Failure> {
    // What may not stand at the end of a name may stand inside it.
    let can_begin =
        text.is_empty() || KeyName::parse(text).is_ok() || KeyName::parse(&format!("{text}x")).is_ok();
    if can_begin {
        return Ok(text.into());
    }
    let rule =
        "is what no name begins with; one has 1 to 255 letters, digits, `_`, `-`, and inside `.` and `:`";
    Err(Problem::field(field, rule).into())
}

/// Returns the problem of a key that is not there.
fn no_key(bucket: &BucketName, key: &KeyName) -> Failure {
    let detail = format!("bucket `{bucket}` has no key `{key}`");
    Problem::new(Code::KeyNotFound, detail).into()
}

/// Returns the SHA-256 of a value.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> [u8; 32] {
    KeyDigest::of(bytes)
}

fn damaged(bucket: &BucketName, key: &KeyName, why: &str) -> Failure {
    let detail = format!("key `{key}` of bucket `{bucket}`: {why}");
    Problem::new(Code::Damaged, detail).into()
}

/// Returns a key whose value is what was put.
pub(super) fn sound(bucket: &BucketName, entry: KeyEntry) -> Result<KeyEntry, Failure> {
    if entry.is_sound() {
        return Ok(entry);
    }
    let why = "its value is not what was put; `?fallback=parent` gives the newest earlier one that is";
    Err(damaged(bucket, &entry.key, why))
}

/// Has the digests of revisions be those that the next ones know: so one that was replaced with its digest is not sound.
fn linked(mut newest_first: Vec<KeyEntry>) -> Vec<KeyEntry> {
    let mut known = None;
    for entry in &mut newest_first {
        if let (Some(known), Some(digest)) = (known, &mut entry.digest) {
            digest.own = known;
        }
        known = entry.digest.and_then(|digest| digest.parent);
    }
    newest_first
}

impl Gate {
    /// Checks that the caller may do this with a key; asked before a body is read, too.
    ///
    /// # Errors
    /// It may not.
    pub fn check_key(&self, verb: Verb, bucket: &BucketName, key: &KeyName) -> Result<(), Failure> {
        Ok(self.caller().check_named(verb, Kind::Key, &[bucket.as_str(), key.as_str()])?)
    }

    /// Checks that there may be a key with which the caller may do this: asked before a body is read that names the keys.
    ///
    /// # Errors
    /// There can be none.
    pub fn check_some_key(&self, verb: Verb) -> Result<(), Failure> {
        Ok(self.caller().check_some_named(verb, Kind::Key)?)
    }

    /// Changes keys, all of them or none. What each change breaks is told as a field of it; where there are several, as
    /// `changes[2].value`.
    ///
    /// # Errors
    /// The caller may not, a rule is broken, the fence is not that of who holds the lock, a condition does not hold, what is
    /// to be incremented is no number or would
    /// leave its bounds, the bucket is full, or the storage refused it or did not answer.
    ///
    /// # Panics
    /// The backend breaks its contract.
    ///
    /// # Cancel safety
    /// Not cancel-safe: when the future is dropped, the changes may have been made.
    pub async fn change_keys(
        &self,
        bucket: &BucketName,
        drafts: Vec<KeyChangeDraft>,
        key: Option<IdempotencyKey>,
        fence: Option<Fence>,
        is_batch: bool,
    ) -> Result<KeysMade, Failure> {
        self.change_keys_under(bucket, drafts, key, fence, is_batch, None).await
    }

    /// Puts a key, and puts it under a lease, which keeps it; the time of its draft is what that has left.
    ///
    /// # Errors
    /// As [`change_keys`](Self::change_keys); the lease has ended meanwhile, or keeps as much as it may: then the key has
    /// expired.
    pub async fn put_key_under(
        &self,
        bucket: &BucketName,
        draft: KeyChangeDraft,
        (key, fence): (Option<IdempotencyKey>, Option<Fence>),
        lease: &LeaseHold,
    ) -> Result<KeysMade, Failure> {
        let name = draft.key.clone();
        let made = self.change_keys_under(bucket, vec![draft], key, fence, false, Some(lease)).await?;
        if let Some(revision) = made.changed.first().and_then(|changed| changed.revision) {
            let thing = Leased::Key { bucket: bucket.clone(), key: name, revision };
            self.put_under(lease, thing, made.replayed).await?;
        }
        Ok(made)
    }

    async fn change_keys_under(
        &self,
        bucket: &BucketName,
        drafts: Vec<KeyChangeDraft>,
        key: Option<IdempotencyKey>,
        fence: Option<Fence>,
        is_batch: bool,
        lease: Option<&LeaseHold>,
    ) -> Result<KeysMade, Failure> {
        if let Some(fence) = &fence {
            self.check_fence("Tidemill-Fence", fence)?;
        }
        let at = |index: usize, failure: Failure| {
            if is_batch { failure.of_item("changes", index) } else { failure }
        };
        let mut changes = Vec::with_capacity(drafts.len());
        let mut seen = HashSet::new();
        for (index, draft) in drafts.into_iter().enumerate() {
            self.check_key(Verb::Publish, bucket, &draft.key)?;
            if !seen.insert(draft.key.clone()) {
                let rule = "is the key of two changes; one request changes a key once";
                return Err(at(index, Problem::field("key", rule).into()));
            }
            changes.push(self.check_change(draft).map_err(|failure| at(index, failure))?);
        }
        let log = TopicName::log_of(bucket);
        self.relay().kept.check(&log)?;
        for _ in &changes {
            self.meter().message().await?;
        }
        let create_bucket = self.relay().options.topic_auto_create;
        if create_bucket && self.meter().counts_topics() && changed_without_bucket(&changes).is_none() {
            self.admit_topic(&log).await?;
        }
        let keyed = key.is_some();
        let lease = lease.map(LeaseHold::digest);
        let fingerprint = || fingerprint_of_changes(bucket, &changes, lease.as_ref());
        let idempotency = key.map(|key| Idempotency { key: key.0, fingerprint: fingerprint() });
        let shown =
            |refused: usize| changes.get(refused).map(|change| (change.key.clone(), change.condition));
        let asked = KeyChanges {
            bucket: bucket.clone(),
            changes: changes.clone(),
            idempotency,
            fence,
            create_bucket,
            timestamp: self.relay().clock.now(),
        };
        for change in changes.iter().filter(|change| matches!(change.condition, KeyCondition::Filling(_))) {
            self.relay().reads.tell_one(&*self.relay().storage.buckets, bucket, &change.key).await;
        }
        let made = self.relay().storage.buckets.change_keys(asked).await;
        match made.map_err(|error| Failure::change_keys(error, keyed, bucket))? {
            KeysChanged::Made { changed, replayed } => {
                self.note_times(bucket, &changes);
                Ok(KeysMade { changed, replayed })
            }
            KeysChanged::Refused { at: index, refusal } => {
                let (key, condition) = shown(index).expect("one of the changes is refused");
                Err(at(index, refused(bucket, &key, condition, refusal)))
            }
        }
    }

    fn check_change(&self, draft: KeyChangeDraft) -> Result<KeyChange, Failure> {
        let KeyChangeDraft { key, condition, edit } = draft;
        let edit = match edit {
            KeyDraft::Put { value, ttl, fresh, owner } => {
                let rule = BytesRule::of_value(self.relay().options.value_bytes_max);
                let (bytes, content_type) = value.check(rule)?;
                KeyEdit::Put { value: KeyValue { bytes, content_type }, ttl, fresh, owner }
            }
            KeyDraft::Delete => KeyEdit::Delete,
            KeyDraft::Increment { min: Some(min), max: Some(max), .. } if min > max => {
                return Err(Problem::field("min", "is more than `max`").into());
            }
            KeyDraft::Increment { by, min, max, ttl } => KeyEdit::Increment { by, min, max, ttl },
        };
        Ok(KeyChange { key, condition, edit })
    }

    /// Notes when keys expire that have a time of their own; that of their bucket is asked for.
    fn note_times(&self, bucket: &BucketName, changes: &[KeyChange]) {
        let ttl = |change: &KeyChange| match &change.edit {
            KeyEdit::Put { ttl, .. } | KeyEdit::Increment { ttl, .. } => *ttl,
            KeyEdit::Delete => None,
        };
        if let Some(first) = changes.iter().filter_map(ttl).min() {
            self.relay().expiries.note(bucket, first);
        }
    }

    /// Returns a key, with its value where that is wanted.
    ///
    /// # Errors
    /// The caller may not read it, it is not there, or the storage did not answer.
    pub async fn key(&self, bucket: &BucketName, key: &KeyName, value: bool) -> Result<KeyEntry, Failure> {
        self.check_key(Verb::Read, bucket, key)?;
        let found = self.relay().storage.buckets.key(bucket, key, value).await;
        let found = found.map_err(|error| Failure::read_bucket(error, bucket))?;
        let entry = found.ok_or_else(|| no_key(bucket, key))?;
        if value {
            self.note_read(bucket, &entry);
        }
        sound(bucket, entry)
    }

    /// Notes that the value of a key is read.
    pub(super) fn note_read(&self, bucket: &BucketName, entry: &KeyEntry) {
        if entry.is_counted {
            self.relay().reads.count(bucket, &entry.key);
        }
    }

    /// Returns a key with its value; where that is damaged, with the newest earlier one that is not.
    ///
    /// # Errors
    /// As [`key`](Self::key); no value that is kept of it is sound.
    pub async fn key_or_parent(&self, bucket: &BucketName, key: &KeyName) -> Result<KeyEntry, Failure> {
        let kept = self.key_history(bucket, key).await?;
        let damaged = || damaged(bucket, key, "no value that is kept of it is sound");
        kept.into_iter().find(KeyEntry::is_sound).ok_or_else(damaged)
    }

    /// Returns the revisions that are kept of a key, with their values, the newest first.
    ///
    /// # Errors
    /// As [`key`](Self::key).
    pub async fn key_history(&self, bucket: &BucketName, key: &KeyName) -> Result<Vec<KeyEntry>, Failure> {
        self.check_key(Verb::Read, bucket, key)?;
        let kept = self.relay().storage.buckets.key_history(bucket, key).await;
        let kept = kept.map_err(|error| Failure::read_bucket(error, bucket))?;
        if kept.is_empty() { Err(no_key(bucket, key)) } else { Ok(linked(kept)) }
    }

    /// Returns one of the revisions that are kept of a key.
    ///
    /// # Errors
    /// As [`key`](Self::key), or that revision is not kept.
    pub async fn key_at(
        &self,
        bucket: &BucketName,
        key: &KeyName,
        revision: MessageId,
    ) -> Result<KeyEntry, Failure> {
        let kept = self.key_history(bucket, key).await?;
        let Some(found) = kept.into_iter().find(|entry| entry.revision == revision) else {
            let detail = format!(
                "bucket `{bucket}` keeps no revision `{revision}` of key `{key}`; its `history` says how many are kept"
            );
            let field = Some("revision".to_owned());
            return Err(Problem { field, ..Problem::new(Code::KeyNotFound, detail) }.into());
        };
        sound(bucket, found)
    }

    /// Has a key live for so long from now on, or for the time of its bucket. It never makes one, and nobody is told.
    ///
    /// # Errors
    /// The caller may not change it, or read it where its value is wanted; it is not there, or the storage did not answer.
    pub async fn touch_key(
        &self,
        bucket: &BucketName,
        key: &KeyName,
        ttl: Option<Duration>,
        value: bool,
    ) -> Result<KeyEntry, Failure> {
        self.check_key(Verb::Publish, bucket, key)?;
        if value {
            self.check_key(Verb::Read, bucket, key)?;
        }
        let found = self.relay().storage.buckets.touch_key(bucket, key, ttl, value).await;
        let entry = found.map_err(|error| Failure::change_bucket(error, bucket))?;
        let entry = sound(bucket, entry.ok_or_else(|| no_key(bucket, key))?)?;
        if let Some(at) = entry.expires_at {
            self.relay().expiries.note(bucket, until(self.relay().storage.upkeep.now(), at));
        }
        Ok(entry)
    }

    /// Returns a page of the keys that begin so.
    ///
    /// # Errors
    /// The caller may not read all of them, the bucket does not exist, or the storage did not answer.
    pub async fn list_keys(
        &self,
        bucket: &BucketName,
        prefix: Box<str>,
        after: Option<KeyName>,
        limit: usize,
        values: bool,
    ) -> Result<KeyPage, Failure> {
        self.caller().check_each(Verb::Read, Kind::Key, &[bucket.as_str(), &prefix])?;
        let range = KeyRange { prefix, after, limit, bytes_max: PAGE_BYTES_MAX, values };
        let page = self.relay().storage.buckets.list_keys(bucket, range).await;
        page.map_err(|error| Failure::read_bucket(error, bucket))
    }
}

fn until(now: Timestamp, at: Timestamp) -> Duration {
    Duration::from_millis(at.as_millis().saturating_sub(now.as_millis()))
}

/// Returns why a change was not made.
fn refused(bucket: &BucketName, key: &KeyName, condition: KeyCondition, refusal: KeyRefusal) -> Failure {
    let of = format!("key `{key}` of bucket `{bucket}`");
    let problem = match refusal {
        KeyRefusal::Condition(revision) if matches!(condition, KeyCondition::Filling(_)) => {
            let detail = format!(
                "{of} is not being filled under this token any more: its time was over, or the key was changed or deleted meanwhile; nothing was changed"
            );
            Problem { revision, ..Problem::new(Code::FillLost, detail) }
        }
        KeyRefusal::Condition(revision) => {
            let there = match (revision, condition) {
                (Some(revision), KeyCondition::Absent) => {
                    format!("{of} is there already, with revision `{revision}`")
                }
                (Some(revision), _) => format!("{of} has revision `{revision}`, and another was expected"),
                (None, _) => format!("there is no {of}, and it was expected to be there"),
            };
            let detail = format!("{there}; nothing was changed");
            Problem { revision, ..Problem::new(Code::PreconditionFailed, detail) }
        }
        KeyRefusal::NotANumber => {
            let detail = format!("the value of {of} is no whole number of 64 bits; nothing was changed");
            Problem::new(Code::Conflict, detail)
        }
        KeyRefusal::OutOfRange(number) => {
            let detail = format!("{of} is {number} and would leave its bounds; nothing was changed");
            Problem::new(Code::Conflict, detail)
        }
        KeyRefusal::TooManyKeys => {
            let detail =
                format!("bucket `{bucket}` has as many keys as it may (its `max_keys`); nothing was changed");
            Problem::new(Code::BucketFull, detail)
        }
        KeyRefusal::TooManyBytes => {
            let detail = format!(
                "bucket `{bucket}` has as many bytes as it may (its `max_bytes`); nothing was changed"
            );
            Problem::new(Code::BucketFull, detail)
        }
    };
    problem.into()
}
