//! Records of who is let in, in this process.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::storage::records::{Expected, RECORD_CHANGES_KEPT, RecordChanges, RecordEdit};

/// The records of the backend.
#[derive(Debug, Default)]
pub(super) struct Records(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    revision: u64,
    records: BTreeMap<Box<str>, Bytes>,
    /// The last changes: the revision that each has made, and what it has changed.
    changes: VecDeque<(u64, Vec<Box<str>>)>,
}

impl Records {
    pub(super) fn changes(&self, known: Option<u64>) -> Option<RecordChanges> {
        let kept = self.0.lock();
        if known == Some(kept.revision) {
            return None;
        }
        let at = kept.changes.iter().rposition(|(revision, _)| Some(*revision) == known);
        let records = match at {
            Some(at) => {
                let names = kept.changes.iter().skip(at + 1).flat_map(|(_, names)| names);
                names.map(|name| (name.clone(), kept.records.get(name).cloned())).collect()
            }
            None => kept.records.iter().map(|(name, record)| (name.clone(), Some(record.clone()))).collect(),
        };
        Some(RecordChanges { revision: kept.revision, is_all: at.is_none(), records })
    }

    pub(super) fn change(&self, next: u64, edits: Vec<RecordEdit>) -> bool {
        let mut kept = self.0.lock();
        let is_expected = |edit: &RecordEdit| match &edit.expected {
            Expected::Anything => true,
            Expected::Nothing => !kept.records.contains_key(&edit.name),
            Expected::This(expected) => kept.records.get(&edit.name) == Some(expected),
        };
        if !edits.iter().all(is_expected) {
            return false;
        }
        let mut names = Vec::with_capacity(edits.len());
        for RecordEdit { name, record, .. } in edits {
            match record {
                // A copy: the bytes may be a part of much more.
                Some(record) => drop(kept.records.insert(name.clone(), Bytes::copy_from_slice(&record))),
                None => drop(kept.records.remove(&name)),
            }
            names.push(name);
        }
        kept.revision = next;
        kept.changes.push_back((next, names));
        if kept.changes.len() > RECORD_CHANGES_KEPT {
            kept.changes.pop_front();
        }
        true
    }
}
