//! Documents on who may do what: the fields of one hash, with their revision, so that one command reads all as
//! they are at one time.

use std::collections::BTreeMap;

use bytes::Bytes;
use glide::ValkeyValue;

use super::control::{bytes_of, checked};
use super::failure::{Effect, of_key, unexpected};
use super::{Shard, keys, scripts};
use crate::storage::StorageError;
use crate::storage::access::{AccessDocuments, AccessEdit};

/// The field of the revision. Names of documents hold a `/`.
const REVISION: &str = "revision";

impl Shard {
    /// Returns all documents, unless they are those of the revision that is `known`.
    pub(super) async fn access_documents(
        &self,
        known: Option<u64>,
    ) -> Result<Option<AccessDocuments>, StorageError> {
        if known.is_some() {
            let mut pipeline = glide::pipe();
            pipeline.cmd("HGET").arg(keys::ACCESS).arg(REVISION);
            let revision = self.change.run_one(&pipeline, Effect::Read).await;
            let revision = revision.map_err(|error| of_key(error, keys::ACCESS))?;
            if known == Some(read_revision(bytes_of(revision).as_deref())?) {
                return Ok(None);
            }
        }
        let mut pipeline = glide::pipe();
        pipeline.cmd("HGETALL").arg(keys::ACCESS);
        let fields = self.change.run_one(&pipeline, Effect::Read).await;
        let mut documents = read_fields(fields.map_err(|error| of_key(error, keys::ACCESS))?)?;
        let revision = read_revision(documents.remove(REVISION).as_deref())?;
        Ok(Some(AccessDocuments { revision, documents }))
    }

    /// Makes changes, if the revision is still the one that is `known`.
    pub(super) async fn change_access(
        &self,
        known: u64,
        next: u64,
        edits: Vec<AccessEdit>,
    ) -> Result<bool, StorageError> {
        let mut pipeline = glide::pipe();
        pipeline.cmd("EVAL").arg(scripts::CHANGE_ACCESS).arg("1").arg(keys::ACCESS);
        pipeline.arg(known.to_string()).arg(next.to_string());
        for AccessEdit { name, document } in edits {
            pipeline.arg(&*name).arg(document.unwrap_or_default().to_vec());
        }
        let answer = self.change.run(&pipeline, Effect::Write).await?.pop().unwrap_or(ValkeyValue::Nil);
        match checked(answer).map_err(|error| of_key(error, keys::ACCESS))? {
            ValkeyValue::Int(0) => Ok(false),
            ValkeyValue::Int(1) => Ok(true),
            ValkeyValue::Int(2) => Err(StorageError::ForeignKey(keys::ACCESS.into())),
            _ => Err(unexpected("EVAL", Effect::Write)),
        }
    }
}

/// Reads a revision; where there is none, nothing was written yet.
fn read_revision(text: Option<&[u8]>) -> Result<u64, StorageError> {
    let Some(text) = text else { return Ok(0) };
    let revision = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    revision.ok_or_else(|| StorageError::ForeignKey(keys::ACCESS.into()))
}

fn read_fields(reply: ValkeyValue) -> Result<BTreeMap<Box<str>, Bytes>, StorageError> {
    let pairs: Vec<(ValkeyValue, ValkeyValue)> = match reply {
        ValkeyValue::Map(pairs) => pairs,
        ValkeyValue::Array(items) => {
            let mut items = items.into_iter();
            std::iter::from_fn(|| items.next().zip(items.next())).collect()
        }
        ValkeyValue::Nil => Vec::new(),
        _ => return Err(unexpected("HGETALL", Effect::Read)),
    };
    let field = |(name, value)| {
        let name = String::from_utf8(bytes_of(name)?.to_vec()).ok()?;
        Some((name.into(), bytes_of(value)?))
    };
    // What is no text is no document of the relay's.
    Ok(pairs.into_iter().filter_map(field).collect())
}
