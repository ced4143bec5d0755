//! What the records of an export say, as lines of JSON: the first line of a record says what it is, and where that is a
//! question, the second is what was told.
//!
//! It must not know where records lie.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidemill_proto::copy::{COPY_VERSION, CopyRead, CopyTold};
use tidemill_proto::{BucketName, Timestamp, TopicName};

use super::super::access::Documents;
use super::super::side::Told;
use super::super::wire::{told_from, told_to};

/// The form of the file. Another one is refused.
pub const FORM: u32 = 1;
/// That of one that has users, tokens and roles, too: a version that does not know them refuses it.
pub(super) const FORM_WITH_ACCESS: u32 = 2;

/// The first record of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The form of the file.
    pub tidemill_export: u32,
    /// The form of what was told, which is that of copies over HTTP.
    pub copy_version: u32,
    /// What tells this export from others.
    pub id: String,
    /// The version of Tidemill that has written it.
    pub program: String,
    /// When that began.
    pub written_at: Timestamp,
    /// What tells the servers of the source from others.
    pub from: Vec<String>,
}

/// What the first record says that the source does not tell.
#[derive(Clone, Debug)]
pub struct Origin {
    /// What tells this export from others.
    pub id: u64,
    /// The version of the program that writes it.
    pub program: &'static str,
    /// When it begins.
    pub written_at: Timestamp,
}

impl Header {
    pub(super) fn new(origin: &Origin, from: Vec<String>, form: u32) -> Self {
        Self {
            tidemill_export: form,
            copy_version: COPY_VERSION,
            id: format!("{:016x}", origin.id),
            program: origin.program.to_owned(),
            written_at: origin.written_at,
            from,
        }
    }
}

/// What is in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Records, with the first and the last.
    pub records: u64,
    /// Topics that are whole.
    pub topics: u64,
    /// Their messages.
    pub messages: u64,
    /// Buckets that are whole.
    pub buckets: u64,
    /// Their keys.
    pub keys: u64,
}

/// What a record says, but for the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Head {
    /// The answer to this is in the next line.
    Asked(CopyRead),
    /// Who may do what is in the next line: so many documents, by their names.
    Access(u64),
    /// What was told of this topic before is void.
    Begin(TopicName),
    /// What was told of this bucket before is void.
    BeginBucket(BucketName),
    /// It is the last record: so much is in the file.
    End(Counts),
}

/// Returns a record as its text.
pub(super) fn text_of(first: &impl Serialize, told: Option<Told>) -> serde_json::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(first)?;
    text.push(b'\n');
    if let Some(told) = told {
        serde_json::to_writer(&mut text, &told_to(told))?;
        text.push(b'\n');
    }
    Ok(text)
}

/// Returns the record of documents as its text.
pub(super) fn text_of_access(documents: &Documents) -> serde_json::Result<Vec<u8>> {
    let mut text = text_of(&Head::Access(documents.len() as u64), None)?;
    let mut members: BTreeMap<&str, &RawValue> = BTreeMap::new();
    for (name, document) in documents {
        members.insert(name, serde_json::from_slice(document)?);
    }
    serde_json::to_writer(&mut text, &members)?;
    text.push(b'\n');
    Ok(text)
}

/// Returns the documents that the second line of their record has.
pub(super) fn access_of(text: &[u8]) -> Result<Documents, String> {
    let members: BTreeMap<Box<str>, Box<RawValue>> =
        serde_json::from_slice(text).map_err(|cause| cause.to_string())?;
    // A document is one line where it is kept, too.
    let bytes = |raw: Box<RawValue>| Bytes::copy_from_slice(raw.get().as_bytes());
    Ok(members.into_iter().map(|(name, raw)| (name, bytes(raw))).collect())
}

/// Returns what the second line of a record tells.
pub(super) fn told_of(text: &[u8]) -> Result<Told, String> {
    let told: CopyTold = serde_json::from_slice(text).map_err(|cause| cause.to_string())?;
    told_from(told).map_err(|problem| problem.detail.clone())
}
