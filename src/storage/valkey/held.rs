//! What a stream holds, as `XINFO STREAM` says it.

use glide::ValkeyValue;
use tidemill_proto::MessageId;

use super::control::{bytes_of, checked, pairs, read_id, reply_text};
use super::failure::{Effect, is_no_such_key, unexpected};
use crate::storage::StorageError;

/// What a stream holds.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) length: u64,
    pub(super) first: Option<MessageId>,
    pub(super) last: Option<MessageId>,
    /// Servers before 7.0 do not count what they added.
    pub(super) added: Option<u64>,
}

impl Held {
    /// Reads the reply to `XINFO STREAM`.
    ///
    /// # Errors
    /// There is no such key, or it holds something else.
    pub(super) fn read(reply: ValkeyValue) -> Result<Self, StorageError> {
        if let ValkeyValue::ServerError(error) = &reply
            && is_no_such_key(&reply_text(error))
        {
            return Err(StorageError::NoTopic);
        }
        let mut held = Self::default();
        let mut length = None;
        for (name, value) in pairs(checked(reply)?) {
            match bytes_of(name).as_deref() {
                Some(b"length") => length = number_of(&value),
                Some(b"entries-added") => held.added = number_of(&value),
                Some(b"first-entry") => held.first = id_of(&value),
                Some(b"last-entry") => held.last = id_of(&value),
                _ => {}
            }
        }
        let length = length.ok_or_else(|| unexpected("XINFO STREAM", Effect::Read))?;
        Ok(Self { length, ..held })
    }
}

/// Returns a number that is no less than 0.
pub(super) fn number_of(reply: &ValkeyValue) -> Option<u64> {
    match reply {
        ValkeyValue::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

/// Returns the id of an entry, if there is one.
fn id_of(entry: &ValkeyValue) -> Option<MessageId> {
    match entry {
        ValkeyValue::Array(parts) => parts.first().and_then(read_id),
        _ => None,
    }
}
