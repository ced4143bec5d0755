//! What comes and goes of who is let in: records that storage does not read, each of which changes for itself.
//!
//! They change often, and many want to know of it, so whoever holds them all is told only what has changed since.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;

use super::StorageError;

/// Changes that are remembered: who has missed more is told of all records.
pub const RECORD_CHANGES_KEPT: usize = 1_024;

/// What has changed of the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordChanges {
    /// Tells what there is now from all that there was before and that will be; 0 before anything was written.
    pub revision: u64,
    /// Whether these are all that there are, and not merely those that have changed.
    pub is_all: bool,
    /// The records, by their names; `None` where there is none any more.
    pub records: BTreeMap<Box<str>, Option<Bytes>>,
}

/// A change of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordEdit {
    /// Its name, which holds a `/` and no blank.
    pub name: Box<str>,
    /// What must stand there before.
    pub expected: Expected,
    /// What stands there from now on, not empty; `None` deletes it.
    pub record: Option<Bytes>,
}

/// What must stand at a name before it is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Whatever there is.
    Anything,
    /// Nothing.
    Nothing,
    /// This, byte for byte.
    This(Bytes),
}

/// Records.
#[async_trait]
pub trait RecordStore: std::fmt::Debug + Send + Sync {
    /// Returns what has changed since the revision that is `known`, if anything has: those records that have changed
    /// in the last [`RECORD_CHANGES_KEPT`] changes, and all where that does not reach back to `known`.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `ForeignKey`.
    async fn records(&self, known: Option<u64>) -> Result<Option<RecordChanges>, StorageError>;

    /// Makes these changes, all at once, if before each of them there is what it expects; then the revision is
    /// `next`, which is not 0 and was never one before. Returns whether that is done: where one finds something
    /// else, nothing is.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Full`, `ForeignKey`.
    async fn change_records(&self, next: u64, edits: Vec<RecordEdit>) -> Result<bool, StorageError>;
}
