//! Buckets that are copied: their settings, their keys, and their logs, so that who watches one goes on at the copy.

use std::fmt;

use async_trait::async_trait;
use tidemill_proto::{BucketName, KeyName, MessageId, Timestamp};

use super::{CopiedHole, Freeze};
use crate::storage::buckets::{BucketState, KeyEntry};
use crate::storage::error::StorageError;
use crate::storage::message::StoredMessage;
use crate::storage::reading::Epoch;

/// A bucket without its keys, as a copy has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedBucket {
    /// What it keeps, and how much that is.
    pub state: BucketState,
    /// Which of the buckets of its name it is, by its log.
    pub epoch: Epoch,
    /// The smallest revision that it can give, where somebody has written it down.
    pub born: Option<MessageId>,
    /// The oldest change that its log keeps.
    pub first: Option<MessageId>,
    /// The last change of which its log tells; [`MessageId::MIN`] where there was none.
    pub last: MessageId,
    /// Changes that its log keeps.
    pub length: u64,
    /// How many changes there ever were, where the backend counts them.
    pub given: Option<u64>,
    /// Where changes were lost that the backend had confirmed, in their order.
    pub holes: Vec<CopiedHole>,
    /// Why nothing is changed in it, if that is so.
    pub freeze: Option<Freeze>,
    /// Whether all keys were taken over once, where it is being taken over.
    pub has_keys: bool,
}

/// A key with all that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedKey {
    /// The key as it is, with its value.
    pub entry: KeyEntry,
    /// Its earlier revisions, with their values, the newest first.
    pub past: Vec<KeyEntry>,
}

/// A page of keys that are copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopiedKeys {
    /// The keys, in the order of their names.
    pub keys: Vec<CopiedKey>,
    /// Behind which the next page begins; `None` where this one is the last.
    pub next: Option<KeyName>,
}

/// What a target is given of keys in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysPart {
    /// All keys that it has go, and these come in their place, before others.
    First(Vec<CopiedKey>),
    /// These come, too.
    More(Vec<CopiedKey>),
    /// These come, and with them all have.
    Last(Vec<CopiedKey>),
    /// These were changed since: what becomes of each, which is gone where it is `None`.
    Changed(Vec<(KeyName, Option<CopiedKey>)>),
}

impl KeysPart {
    /// Returns each key, with what becomes of it.
    pub(in crate::storage) fn each(&self) -> Vec<(&KeyName, Option<&CopiedKey>)> {
        match self {
            Self::First(keys) | Self::More(keys) | Self::Last(keys) => {
                keys.iter().map(|copied| (&copied.entry.key, Some(copied))).collect()
            }
            Self::Changed(keys) => keys.iter().map(|(key, copied)| (key, copied.as_ref())).collect(),
        }
    }
}

/// Buckets that are copied.
///
/// A bucket that is frozen is read as any other, and nothing is changed in it: what would change it is `ReadOnly`, its keys
/// do not expire (they are over all the same), and a touch changes nothing of when a key is over.
#[async_trait]
pub trait BucketCopyStore: fmt::Debug + Send + Sync {
    /// Returns a bucket without its keys.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoBucket`, `ForeignKey`; `NoTopic` where its log is gone.
    async fn copied_bucket(&self, bucket: &BucketName) -> Result<CopiedBucket, StorageError>;

    /// Returns a page of keys behind one, those whose time is over among them, up to so many and about so many bytes.
    /// Of no bucket there are none.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `ForeignKey`.
    async fn copied_keys(
        &self,
        bucket: &BucketName,
        after: Option<&KeyName>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<CopiedKeys, StorageError>;

    /// Returns keys, each as it is, up to about so many bytes: of the first of them at least one, and of so many.
    ///
    /// # Errors
    /// As [`copied_keys`](Self::copied_keys).
    async fn copied_some(
        &self,
        bucket: &BucketName,
        keys: &[KeyName],
        bytes_max: usize,
    ) -> Result<Vec<Option<CopiedKey>>, StorageError>;

    /// Returns up to so many keys behind one in their order, each with when it is over.
    ///
    /// # Errors
    /// As [`copied_keys`](Self::copied_keys).
    async fn copied_ends(
        &self,
        bucket: &BucketName,
        after: Option<&KeyName>,
        limit: usize,
    ) -> Result<Vec<(KeyName, Option<Timestamp>)>, StorageError>;

    /// Returns changes of the log behind one in their order, up to so many and about so many bytes.
    ///
    /// # Errors
    /// As [`copied_keys`](Self::copied_keys).
    async fn copied_changes(
        &self,
        bucket: &BucketName,
        after: MessageId,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<StoredMessage>, StorageError>;

    /// Has nothing be changed in a bucket from now on, or has it be changed again.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Full`, `NoBucket`, `ForeignKey`; `ReadOnly` where it is being taken over.
    async fn freeze_bucket(&self, bucket: &BucketName, frozen: bool) -> Result<(), StorageError>;

    /// Makes a bucket that is to be taken over, with the epoch, the settings and the time of the other one. It has no keys
    /// yet, and is frozen. The limit of buckets is heeded.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Full`, `BucketsLimit`, `ForeignKey`; `TopicExists` where there is one; `ReadOnly` where
    /// no more topics are made.
    async fn begin_bucket(&self, other: &CopiedBucket) -> Result<(), StorageError>;

    /// Takes over keys. Done again it changes nothing more.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Full`, `NoBucket`, `ForeignKey`; `TopicExists` where a bucket of that name is not being
    /// taken over, or another one is.
    async fn import_keys(
        &self,
        bucket: &BucketName,
        epoch: Epoch,
        keys: KeysPart,
    ) -> Result<(), StorageError>;

    /// Takes over when keys are over that were taken over before; others are passed over.
    ///
    /// # Errors
    /// As [`import_keys`](Self::import_keys).
    async fn import_ends(
        &self,
        bucket: &BucketName,
        epoch: Epoch,
        ends: &[(KeyName, Option<Timestamp>)],
    ) -> Result<(), StorageError>;

    /// Takes over changes of the log with their revisions, which increase strictly, behind the last that was: all of them, or
    /// none.
    ///
    /// # Errors
    /// As [`import_keys`](Self::import_keys); `NotLast` where the last is not `after`, or revisions do not increase.
    async fn import_changes(
        &self,
        bucket: &BucketName,
        epoch: Epoch,
        after: MessageId,
        changes: &[StoredMessage],
    ) -> Result<(), StorageError>;

    /// Ends taking over: gives the bucket the settings, the counts and the last revision of the other one, and has it be changed.
    /// One of that epoch that is not being taken over any more stays as it is.
    ///
    /// # Errors
    /// As [`import_keys`](Self::import_keys); `NotLast` where a change was taken over that the other one has not made, or not
    /// all keys have come.
    async fn finish_bucket(&self, other: &CopiedBucket) -> Result<(), StorageError>;
}
