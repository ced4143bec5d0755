//! Records of who is let in: the fields of one hash, with their revision, and beside it a sorted set of what the last
//! changes have changed, in their order, so that one script tells what has changed since.

use std::collections::BTreeMap;

use bytes::Bytes;
use glide::ValkeyValue;

use super::control::{bytes_of, checked};
use super::failure::{Effect, of_key, unexpected};
use super::{Shard, keys, scripts};
use crate::storage::StorageError;
use crate::storage::records::{Expected, RECORD_CHANGES_KEPT, RecordChanges, RecordEdit};

/// The field of the revision. Names of records hold a `/`.
const REVISION: &str = "revision";

impl Shard {
    /// Returns what has changed since the revision that is `known`, if anything has.
    pub(super) async fn record_changes(
        &self,
        known: Option<u64>,
    ) -> Result<Option<RecordChanges>, StorageError> {
        if known.is_some() {
            let mut pipeline = glide::pipe();
            pipeline.cmd("HGET").arg(keys::RECORDS).arg(REVISION);
            let revision = self.change.run_one(&pipeline, Effect::Read).await;
            let revision = revision.map_err(|error| of_key(error, keys::RECORDS))?;
            if known == Some(read_revision(bytes_of(revision))?) {
                return Ok(None);
            }
        }
        let mut pipeline = glide::pipe();
        pipeline.cmd("EVAL").arg(scripts::READ_RECORDS).arg("2");
        pipeline.arg(keys::RECORDS).arg(keys::RECORD_CHANGES);
        pipeline.arg(known.map(|known| known.to_string()).unwrap_or_default());
        pipeline.arg(RECORD_CHANGES_KEPT.to_string());
        let answer = self.change.run(&pipeline, Effect::Read).await?.pop().unwrap_or(ValkeyValue::Nil);
        let answer = checked(answer).map_err(|error| of_key(error, keys::RECORDS))?;
        let ValkeyValue::Array(answer) = answer else {
            return Err(StorageError::ForeignKey(keys::RECORDS.into()));
        };
        let mut answer = answer.into_iter();
        let (Some(revision), Some(ValkeyValue::Int(is_all))) = (answer.next(), answer.next()) else {
            return Err(unexpected("EVAL", Effect::Read));
        };
        let revision = read_revision(bytes_of(revision))?;
        let mut records = BTreeMap::new();
        while let (Some(name), Some(record)) = (answer.next(), answer.next()) {
            // What is no text is no record of the relay's.
            let name = bytes_of(name).and_then(|name| String::from_utf8(name.to_vec()).ok());
            let Some(name) = name.filter(|name| name != REVISION) else { continue };
            records.insert(name.into(), bytes_of(record).filter(|record| !record.is_empty()));
        }
        Ok(Some(RecordChanges { revision, is_all: is_all == 1, records }))
    }

    /// Makes changes, if before each of them there is what it expects.
    pub(super) async fn change_records(
        &self,
        next: u64,
        edits: Vec<RecordEdit>,
    ) -> Result<bool, StorageError> {
        let mut pipeline = glide::pipe();
        pipeline.cmd("EVAL").arg(scripts::CHANGE_RECORDS).arg("2");
        pipeline.arg(keys::RECORDS).arg(keys::RECORD_CHANGES);
        pipeline.arg(next.to_string()).arg(RECORD_CHANGES_KEPT.to_string());
        for RecordEdit { name, expected, record } in edits {
            pipeline.arg(&*name);
            match expected {
                Expected::Anything => pipeline.arg("anything").arg(""),
                Expected::Nothing => pipeline.arg("nothing").arg(""),
                Expected::This(bytes) => pipeline.arg("this").arg(bytes.to_vec()),
            };
            pipeline.arg(record.unwrap_or_default().to_vec());
        }
        let answer = self.change.run(&pipeline, Effect::Write).await?.pop().unwrap_or(ValkeyValue::Nil);
        match checked(answer).map_err(|error| of_key(error, keys::RECORDS))? {
            ValkeyValue::Int(0) => Ok(false),
            ValkeyValue::Int(1) => Ok(true),
            ValkeyValue::Int(2) => Err(StorageError::ForeignKey(keys::RECORDS.into())),
            _ => Err(unexpected("EVAL", Effect::Write)),
        }
    }
}

/// Reads a revision; where there is none, nothing was written yet.
fn read_revision(text: Option<Bytes>) -> Result<u64, StorageError> {
    let Some(text) = text else { return Ok(0) };
    let revision = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
    revision.ok_or_else(|| StorageError::ForeignKey(keys::RECORDS.into()))
}
