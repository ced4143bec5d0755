//! Buckets: tables of keys with their current values, each with a log of its changes.
//!
//! The log is a topic whose name nobody else can give ([`TopicName::log_of`](tidemill_proto::TopicName::log_of)): it is read, followed and trimmed as any
//! other, and nothing but the changes of its bucket is appended to it. The id of a change is the revision of its key.
//! A change compares, appends and writes the table in one step, and so does expiry, which is a change too: it has a
//! revision and stands in the log once, in order, however many nodes look.
//!
//! The log has its old end: it keeps the newest [`LOG_CHANGES`] changes at the least, unless they weigh more than
//! [`LOG_BYTES`]. Who is behind that is told so by the read, and takes what there is now from [`BucketStore::list`].

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tidemill_proto::locks::Fence;
use tidemill_proto::{BucketName, KeyName, MessageId, RoomName, Timestamp};

use super::error::StorageError;
use super::message::Idempotency;

mod fills;
mod logged;
mod making;
mod reads;
mod shown;

pub use fills::{FILL_MAX, FillAsked, FillToken, KeyFill};
pub use logged::{Logged, LoggedKind, LoggedRef};
pub use making::changed_without_bucket;
pub use reads::{AdaptiveTtl, READ_KEYS_MAX, READS_HALF_LIFE};
pub(crate) use reads::{cold, heat_of, reads_of};

/// Most changes of one step: it is whole or not at all, and holds up the server meanwhile.
pub const CHANGES_MAX: usize = 100;
/// Most revisions that are kept of a key: they are written anew with each of its changes.
pub const HISTORY_MAX: u32 = 64;
/// Changes that a log keeps at least, where they do not weigh more than [`LOG_BYTES`].
pub const LOG_CHANGES: u64 = 10_000;
/// Bytes that a log keeps, about.
pub const LOG_BYTES: u64 = 64 * 1024 * 1024;
/// How long nobody was in a room whose bucket the next sweep deletes: rooms come and go, and nobody says when they are over.
pub const ROOM_IDLE: Duration = Duration::from_mins(10);
/// Keys that expire in one step.
pub const EXPIRED_MAX: usize = 200;

/// What a bucket keeps, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketSettings {
    /// Revisions that are kept of each key, with the current one: 1 to [`HISTORY_MAX`].
    pub history: u32,
    /// How long a key lives that is put without a time of its own; `None` for ever.
    pub ttl: Option<Duration>,
    /// How long a key lives at most, counted from when it came to be, whatever is put or touched meanwhile.
    pub absolute_age: Option<Duration>,
    /// Most keys; at least 1.
    pub max_keys: Option<u64>,
    /// Most bytes of values, those of earlier revisions among them; at least 1.
    pub max_bytes: Option<u64>,
    /// How long a key lives that is filled without a time of its own, in place of `ttl`.
    pub adaptive_ttl: Option<AdaptiveTtl>,
}

impl Default for BucketSettings {
    fn default() -> Self {
        Self {
            history: 1,
            ttl: None,
            absolute_age: None,
            max_keys: None,
            max_bytes: None,
            adaptive_ttl: None,
        }
    }
}

/// A bucket, as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketState {
    /// Its name.
    pub bucket: BucketName,
    /// What it keeps.
    pub settings: BucketSettings,
    /// When it was made.
    pub created_at: Timestamp,
    /// How many keys it has; one that is due counts until its expiry is in the log.
    pub keys: u64,
    /// Bytes of values, those of earlier revisions among them.
    pub bytes: u64,
}

/// A value: its bytes, and what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// JSON text if `content_type` is `None` or names JSON; else any bytes.
    pub bytes: Bytes,
    /// The content type, at most 255 bytes of visible ASCII and spaces; `None` for JSON that has no other.
    pub content_type: Option<Box<str>>,
}

/// A key, as it is or was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEntry {
    /// The key.
    pub key: KeyName,
    /// The change that its value came with.
    pub revision: MessageId,
    /// When it came to be: the time of the first put since it was not there.
    pub created_at: Timestamp,
    /// When it expires; `None` for never, and of earlier revisions.
    pub expires_at: Option<Timestamp>,
    /// Whose it is, where its put has said so.
    pub owner: Option<KeyName>,
    /// Its value; `None` where none was asked for.
    pub value: Option<KeyValue>,
    /// What its value must have, in buckets that keep a history; `None` of increments.
    pub digest: Option<KeyDigest>,
    /// Until when its value is fresh, where its put has said so; `None` of earlier revisions.
    pub fresh_until: Option<Timestamp>,
    /// Whether how long it lives when it is filled again goes by how often it is read: of a key whose fill has lived by
    /// that; never of earlier revisions.
    pub is_counted: bool,
}

/// The digest of a value, as it was when that was put, and of the one before: so that a value is known that was damaged or
/// replaced since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyDigest {
    /// The SHA-256 of the bytes of the value.
    pub own: [u8; 32],
    /// That of the revision before, where there was one that has it.
    pub parent: Option<[u8; 32]>,
}

impl KeyDigest {
    /// Returns the digest of a value.
    #[must_use]
    pub fn of(bytes: &[u8]) -> [u8; 32] {
        Sha256::digest(bytes).into()
    }
}

impl KeyEntry {
    /// Returns whether its value is what was put, as far as its digest says; where there is none of either, that is not
    /// known to be otherwise.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        match (&self.value, &self.digest) {
            (Some(value), Some(digest)) => KeyDigest::of(&value.bytes) == digest.own,
            (Some(_) | None, _) => true,
        }
    }

    /// Returns whether its value is to be replaced by then.
    #[must_use]
    pub fn is_stale(&self, now: Timestamp) -> bool {
        self.fresh_until.is_some_and(|end| end <= now)
    }
}

/// What must be so before a key changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyCondition {
    /// Anything.
    Anything,
    /// It is not there.
    Absent,
    /// It is there.
    Present,
    /// It has this revision.
    Revision(MessageId),
    /// It is being filled under this token.
    Filling(FillToken),
}

/// What becomes of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyEdit {
    /// It has this value from now on.
    Put {
        /// The value.
        value: KeyValue,
        /// How long it lives; the bucket's time where it is `None`, which for a fill is that by how often the key was read
        /// ([`BucketStore::count_reads`]), where the bucket has one: `min`, and `min` for each time, to `max`.
        ttl: Option<Duration>,
        /// How long its value is fresh: from then on one who asks is to fill it. Increments change nothing of it.
        fresh: Option<Duration>,
        /// Whose it is.
        owner: Option<KeyName>,
    },
    /// It is gone. A key that is not there stays so, without a change.
    Delete,
    /// Its value is the number that it was, and so much more. One that is not there is 0.
    Increment {
        /// How much more, or less.
        by: i64,
        /// It is refused where less would come out.
        min: Option<i64>,
        /// It is refused where more would come out.
        max: Option<i64>,
        /// How long a key lives that comes to be with it; it stays as it is where the key was there. The bucket's time
        /// where it is `None`.
        ttl: Option<Duration>,
    },
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyChange {
    /// The key.
    pub key: KeyName,
    /// What must be so before.
    pub condition: KeyCondition,
    /// What becomes of it.
    pub edit: KeyEdit,
}

/// Changes of keys of one bucket, all of which are made, or none.
#[derive(Clone, Debug)]
pub struct KeyChanges {
    /// The bucket.
    pub bucket: BucketName,
    /// The changes, 1 to [`CHANGES_MAX`], of a key each.
    pub changes: Vec<KeyChange>,
    /// Makes repeats within the window return the first answer.
    pub idempotency: Option<Idempotency>,
    /// What shows that who makes them holds a lock, as with messages: none is made where that is not so. A lock that guards
    /// the bucket is looked at in the same step; of another one the greatest fence counts that the bucket has seen. An
    /// idempotency key that was used wins over it, and it wins over all else.
    pub fence: Option<Fence>,
    /// Whether to make the bucket, with the settings that are usual, where it is not there and a change makes a key. Where
    /// none does the answer is that of a bucket without keys ([`changed_without_bucket`]), none is made, and neither the
    /// idempotency key nor the fence is remembered.
    pub create_bucket: bool,
    /// When the relay accepted them.
    pub timestamp: Timestamp,
}

/// What came of one change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyChanged {
    /// The revision; `None` where a key was to be deleted that was not there.
    pub revision: Option<MessageId>,
    /// Whether the key was not there before.
    pub is_new: bool,
    /// The number that it is, of an increment.
    pub number: Option<i64>,
    /// When the key expires since then; `None` for never, and of a deletion.
    pub expires_at: Option<Timestamp>,
}

/// What came of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysChanged {
    /// They are made: an answer for each.
    Made {
        /// What came of each, in their order.
        changed: Vec<KeyChanged>,
        /// Whether the idempotency key had been used, so that nothing was changed now.
        replayed: bool,
    },
    /// None is made, because of this one.
    Refused {
        /// Its place among the changes.
        at: usize,
        /// Why.
        refusal: KeyRefusal,
    },
}

/// Why a change is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRefusal {
    /// Its condition does not hold: this is the revision that there is, if any.
    Condition(Option<MessageId>),
    /// The value is no number of 64 bits, so that nothing can be added to it.
    NotANumber,
    /// The number would be less than it may, or more, or none of 64 bits: this is what it is.
    OutOfRange(i64),
    /// The bucket has as many keys as it may.
    TooManyKeys,
    /// The bucket has as many bytes as it may.
    TooManyBytes,
}

/// Which keys are asked for.
#[derive(Clone, Debug)]
pub struct KeyRange {
    /// What they begin with.
    pub prefix: Box<str>,
    /// Behind which to begin.
    pub after: Option<KeyName>,
    /// Most keys, at least 1.
    pub limit: usize,
    /// Bytes of values after which the page ends; the first key is always in it.
    pub bytes_max: usize,
    /// Whether their values are wanted.
    pub values: bool,
}

/// A page of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPage {
    /// The keys, in the order of their bytes. All are as they were at one moment.
    pub entries: Vec<KeyEntry>,
    /// Behind which the next page begins; `None` where this one is the last.
    pub next: Option<KeyName>,
}

/// What came of looking for what is due in a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeysExpired {
    /// How many keys have expired now.
    pub count: usize,
    /// In how long the next is due, zero where more are due now; `None` where none has a time.
    pub next_in: Option<Duration>,
}

/// Buckets of keys.
///
/// A key whose time is over is not there, for every read and every condition, whether its expiry is in the log yet or
/// not: a change of such a key appends its expiry first. Of a bucket that does not exist there are no keys.
#[async_trait]
pub trait BucketStore: fmt::Debug + Send + Sync {
    /// Makes changes of keys, all of them or none, in one step.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Overloaded`, `Full`, `KeysFull` (only under an idempotency key), `NoBucket` (only
    /// without `create_bucket`), `BucketsLimit`, `ForeignKey`, `IdsUsedUp`, `KeyReused`, `Fenced` (only with `fence`).
    ///
    /// # Cancel safety
    /// Not cancel-safe: when the future is dropped, the changes may have been made.
    async fn change_keys(&self, changes: KeyChanges) -> Result<KeysChanged, StorageError>;

    /// Returns a key.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Overloaded`, `ForeignKey`.
    async fn key(
        &self,
        bucket: &BucketName,
        key: &KeyName,
        value: bool,
    ) -> Result<Option<KeyEntry>, StorageError>;

    /// Returns the revisions that are kept of a key that is there, with their values, the newest first.
    ///
    /// # Errors
    /// As [`key`](Self::key).
    async fn key_history(&self, bucket: &BucketName, key: &KeyName) -> Result<Vec<KeyEntry>, StorageError>;

    /// Has one of all who ask fill a key that is not there, or whose value is stale. The token counts from then on, for the
    /// time asked for, unless the key is changed meanwhile, or deleted, be it there or not; that its time is over changes
    /// nothing of it.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Overloaded`, `Full`, `NoBucket` (only without `create_bucket`), `BucketsLimit`,
    /// `ForeignKey`.
    ///
    /// # Cancel safety
    /// Not cancel-safe: when the future is dropped, the token may count, and nobody fills until its time is over.
    async fn fill_key(&self, asked: &FillAsked) -> Result<KeyFill, StorageError>;

    /// Adds to how often keys were read, each at least once and up to [`READ_KEYS_MAX`] of them, in a bucket whose fills live
    /// by that; elsewhere nothing is done. How often a key was read counts half after each [`READS_HALF_LIFE`], also where the key is not there.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Overloaded`, `Full`, `ForeignKey`.
    ///
    /// # Cancel safety
    /// Not cancel-safe: when the future is dropped, they may count.
    async fn count_reads(&self, bucket: &BucketName, reads: &[(KeyName, u32)]) -> Result<(), StorageError>;

    /// Has a key live for so long from now on, or for ever, or for the time of its bucket: without a revision, and
    /// nobody is told. Returns the key, if it is there.
    ///
    /// # Errors
    /// As [`key`](Self::key).
    async fn touch_key(
        &self,
        bucket: &BucketName,
        key: &KeyName,
        ttl: Option<Duration>,
        value: bool,
    ) -> Result<Option<KeyEntry>, StorageError>;

    /// Has keys live for so long from now on that have these revisions, up to [`CHANGES_MAX`], and no others, as
    /// [`touch_key`](Self::touch_key) does. Returns for each whether it had its revision. Of no time at all, a key is over.
    ///
    /// # Errors
    /// As [`key`](Self::key).
    async fn touch_revisions(
        &self,
        bucket: &BucketName,
        keys: &[(KeyName, MessageId)],
        ttl: Duration,
    ) -> Result<Vec<bool>, StorageError>;

    /// Returns a page of keys.
    ///
    /// # Errors
    /// As [`key`](Self::key), and `NoBucket`.
    async fn list_keys(&self, bucket: &BucketName, range: KeyRange) -> Result<KeyPage, StorageError>;

    /// Deletes the keys of an owner, and returns how many: each is a change. All that the owner has when this is called
    /// are gone when it returns.
    ///
    /// # Errors
    /// As [`change_keys`](Self::change_keys); some may be deleted.
    async fn revoke_keys(
        &self,
        bucket: &BucketName,
        owner: &KeyName,
        timestamp: Timestamp,
    ) -> Result<u64, StorageError>;

    /// Has the keys of buckets expire whose time is over, up to [`EXPIRED_MAX`] of each, those first that were due first.
    ///
    /// # Errors
    /// Per bucket: as [`change_keys`](Self::change_keys).
    async fn expire_keys(&self, buckets: &[BucketName]) -> Vec<Result<KeysExpired, StorageError>>;

    /// Returns up to `limit` buckets in which a key expires within this time, with in how long.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `ForeignKey`.
    async fn expiring_within(
        &self,
        within: Duration,
        limit: usize,
    ) -> Result<Vec<(BucketName, Duration)>, StorageError>;

    /// Makes a bucket with these settings, or gives them to the one that is there; returns it, and whether it is new.
    /// Earlier revisions that are too many by them go with the next change of their key.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Full`, `BucketsLimit`, `ForeignKey`.
    async fn put_bucket(
        &self,
        bucket: &BucketName,
        settings: BucketSettings,
    ) -> Result<(BucketState, bool), StorageError>;

    /// Describes a bucket.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoBucket`, `ForeignKey`.
    async fn bucket(&self, bucket: &BucketName) -> Result<BucketState, StorageError>;

    /// Returns up to `limit` names of buckets, in the order of their bytes, behind `after`.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `ForeignKey`.
    async fn bucket_names(
        &self,
        after: Option<&BucketName>,
        limit: usize,
    ) -> Result<Vec<BucketName>, StorageError>;

    /// Returns up to `limit` names of rooms that somebody is or was in, in the order of their bytes, behind `after`.
    ///
    /// # Errors
    /// As [`bucket_names`](Self::bucket_names).
    async fn room_names(&self, after: Option<&RoomName>, limit: usize)
    -> Result<Vec<RoomName>, StorageError>;

    /// Deletes a bucket with its keys and its log. Nobody finds its keys again under its name, and its log gives no id of
    /// this one.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoBucket`, `ForeignKey`.
    async fn delete_bucket(&self, bucket: &BucketName) -> Result<(), StorageError>;
}
