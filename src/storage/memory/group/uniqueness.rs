//! Keys of which one message at a time may wait or be worked on in a group.
//!
//! It must not know which messages do: it is told.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeBounds;
use std::sync::Arc;

use tidemill_proto::MessageId;

use crate::storage::{Appended, CopiedUnique};

/// Bytes of a key beside its text, about: in two tables that are half full at worst.
pub(in crate::storage::memory) const UNIQUE_BYTES: usize =
    2 * (size_of::<(Arc<str>, Appended)>() + size_of::<(MessageId, Arc<str>)>()) + 64;
/// Messages at which it is looked for each that is noted, and each time that a group is tended: those that are over
/// otherwise than by what consumers say.
const LOOKED_AT_MAX: usize = 4;
const TENDED_MAX: usize = 250;

/// The keys of a group.
#[derive(Debug, Default)]
pub(super) struct UniqueKeys {
    keys: HashMap<Arc<str>, Appended>,
    messages: BTreeMap<MessageId, Arc<str>>,
    texts_bytes: usize,
}

impl UniqueKeys {
    /// Returns the bytes that they hold.
    pub(super) fn bytes(&self) -> usize {
        self.keys.len() * UNIQUE_BYTES + self.texts_bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns the message of a key.
    pub(super) fn find(&self, key: &str) -> Option<Appended> {
        self.keys.get(key).copied()
    }

    /// Returns the keys of a range of messages, in the order of these.
    pub(super) fn behind(&self, range: impl RangeBounds<MessageId>) -> impl Iterator<Item = CopiedUnique> {
        let found = self.messages.range(range).filter_map(|(_, key)| Some((key, self.keys.get(key)?)));
        found.map(|(key, appended)| (Box::from(&**key), appended.id, appended.timestamp))
    }

    /// Notes the message of a key that has none.
    pub(super) fn note(&mut self, key: &str, appended: Appended, lives: impl Fn(MessageId) -> bool) {
        self.forget_first(LOOKED_AT_MAX, lives);
        let text: Arc<str> = key.into();
        self.texts_bytes += text.len();
        self.messages.insert(appended.id, text.clone());
        self.keys.insert(text, appended);
    }

    /// Forgets a message.
    pub(super) fn forget(&mut self, id: MessageId) {
        if let Some(key) = self.messages.remove(&id) {
            self.texts_bytes -= key.len();
            self.keys.remove(&key);
        }
    }

    /// Forgets some of those that are over, the oldest first.
    pub(super) fn forget_some(&mut self, lives: impl Fn(MessageId) -> bool) {
        self.forget_first(TENDED_MAX, lives);
    }

    fn forget_first(&mut self, count: usize, lives: impl Fn(MessageId) -> bool) {
        for _ in 0..count {
            let Some(first) = self.messages.first_key_value().map(|(id, _)| *id) else { return };
            if lives(first) {
                return;
            }
            self.forget(first);
        }
    }
}
