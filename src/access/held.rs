//! What a node holds of who may do what: a directory, and the records for it.
//!
//! It must not know how fresh it is.

use std::sync::Arc;

use tidemill_proto::Timestamp;

use super::caller::{Caller, Who};
use super::directory::Directory;
use super::documents::{USED, put_record, without_record};
use super::records::Records;
use super::token::TokenId;
use crate::storage::{AccessDocuments, RecordChanges, RecordEdit};

/// A directory and the records for it. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    pub(super) directory: Arc<Directory>,
    pub(super) records: Arc<Records>,
}

impl Held {
    /// Returns what there is after these changes: all documents, and what has changed of the records.
    pub(super) fn after(&self, documents: Option<AccessDocuments>, changes: Option<RecordChanges>) -> Self {
        let Self { mut directory, mut records } = self.clone();
        if let Some(documents) = documents {
            directory = Arc::new(Directory::read(documents, &directory));
            records = Arc::new(records.with(&directory));
        }
        if let Some(changes) = changes {
            records = Arc::new(records.after(&changes, &directory));
        }
        Self { directory, records }
    }

    /// Returns whether a caller's rights are those of now. Of who came by a log-in they are for as long as it is
    /// prolonged.
    pub(super) fn is_current(&self, caller: &Caller, now: Timestamp) -> bool {
        if let Some(id) = caller.log_in() {
            let known = self.records.log_in(id);
            return known.is_some_and(|known| known.caller == *caller && known.is_good(now));
        }
        let directory = &self.directory;
        match caller.who() {
            Who::Anyone | Who::Subject { .. } => true,
            Who::Anonymous => directory.anonymous() == *caller,
            Who::Ticket { .. } => caller.chain().nth(1).is_some_and(|maker| self.is_current(maker, now)),
            Who::User(name) => directory.user(name) == Some(caller),
            Who::Token { id, .. } => {
                let known = TokenId::parse(id).ok().and_then(|id| directory.token(id));
                known.is_some_and(|known| known.caller == *caller)
            }
        }
    }

    /// Returns when a token was used last, as far as this node knows.
    pub(super) fn last_use(&self, id: &str) -> Option<Timestamp> {
        let id = TokenId::parse(id).ok()?;
        let seen = self.directory.token(id).and_then(super::directory::KnownToken::seen);
        seen.max(self.records.used.get(&id).copied())
    }

    /// Returns the edits by which the storage knows when tokens were used that this node saw, and nothing of tokens
    /// that are gone.
    pub(super) fn uses_to_keep(&self) -> Vec<RecordEdit> {
        let seen = self.directory.seen();
        let new = seen.filter(|(id, at)| self.records.used.get(id).is_none_or(|used| used < at));
        let gone = self.records.used.keys().filter(|id| !self.directory.tokens.contains_key(id.as_str()));
        let new = new.map(|(id, at)| put_record(USED, id.as_str(), &at));
        new.chain(gone.map(|id| without_record(USED, id.as_str()))).collect()
    }
}

#[cfg(test)]
mod tests;
