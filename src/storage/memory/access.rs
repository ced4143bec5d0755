//! Documents on who may do what, in this process.

use bytes::Bytes;
use parking_lot::Mutex;

use crate::storage::access::{AccessDocuments, AccessEdit};

/// The documents of the backend.
#[derive(Debug, Default)]
pub(super) struct Access(Mutex<AccessDocuments>);

impl Access {
    pub(super) fn documents(&self, known: Option<u64>) -> Option<AccessDocuments> {
        let documents = self.0.lock();
        (known != Some(documents.revision)).then(|| documents.clone())
    }

    pub(super) fn change(&self, known: u64, next: u64, edits: Vec<AccessEdit>) -> bool {
        let mut kept = self.0.lock();
        if kept.revision != known {
            return false;
        }
        for AccessEdit { name, document } in edits {
            match document {
                // A copy: the bytes may be a part of much more.
                Some(document) => drop(kept.documents.insert(name, Bytes::copy_from_slice(&document))),
                None => drop(kept.documents.remove(&name)),
            }
        }
        kept.revision = next;
        true
    }
}
