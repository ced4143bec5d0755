//! The latest message of each key of a topic.
//!
//! It owns which those are, and what they weigh. It must not know the topic's log, nor why something is told to it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use tidemill_proto::{MessageId, Timestamp};

use crate::storage::history::Untold;
use crate::storage::latest::{GONE_KEPT, key_of, says_gone};
use crate::storage::{Body, StoredMessage};

/// Bytes of a message beside its body and its key: its slots in three trees whose nodes are half full at worst, and the
/// headers of what it has allocated.
const LATEST_BYTES: usize = 2 * (size_of::<(MessageId, Kept)>() + size_of::<(Box<str>, MessageId)>())
    + 2 * size_of::<MessageId>()
    + 96;

/// The table of the latest messages.
#[derive(Debug)]
pub(super) struct LatestTable {
    field: Box<str>,
    by_key: BTreeMap<Box<str>, MessageId>,
    messages: BTreeMap<MessageId, Kept>,
    /// Of these, those that say that their key is gone.
    gone: BTreeSet<MessageId>,
    untold: Untold,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    key: Box<str>,
    message: StoredMessage,
}

impl Kept {
    fn bytes(&self) -> usize {
        LATEST_BYTES + 2 * self.key.len() + self.message.body.len_bytes()
    }
}

/// What a read has found.
pub(super) struct Found {
    pub(super) messages: Vec<StoredMessage>,
    /// The last that it has looked at.
    pub(super) reached: Option<MessageId>,
    pub(super) at_end: bool,
}

impl LatestTable {
    /// Returns an empty one; what the topic gave up to `newest` is not to be told.
    pub(super) fn new(field: &str, newest: Option<MessageId>) -> Self {
        Self {
            field: field.into(),
            by_key: BTreeMap::new(),
            messages: BTreeMap::new(),
            gone: BTreeSet::new(),
            untold: Untold { newest, keyless: None },
            bytes: size_of::<Self>() + field.len(),
        }
    }

    pub(super) fn field(&self) -> &str {
        &self.field
    }

    /// Returns the bytes that it holds.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns by how many bytes it grows at most with a message of this body.
    pub(super) fn growth(&self, body: &Body) -> usize {
        let key = key_of(&self.field, body.metadata.as_deref());
        key.map_or(0, |key| LATEST_BYTES + 2 * key.len() + body.len_bytes())
    }

    pub(super) fn untold(&self) -> Untold {
        self.untold
    }

    pub(super) fn set_untold(&mut self, untold: Untold) {
        self.untold = untold;
    }

    /// Notes a message that is newer than all before.
    pub(super) fn note(&mut self, message: &StoredMessage) {
        let StoredMessage { id, body, .. } = message;
        let Some(key) = key_of(&self.field, body.metadata.as_deref()) else {
            self.untold.keyless = Some(*id);
            return;
        };
        if let Some(before) = self.by_key.get(&*key).copied() {
            self.forget(before);
        }
        let key: Box<str> = key.into();
        if says_gone(body) {
            self.gone.insert(*id);
        }
        // Their bytes may be a part of something larger.
        let body = Body {
            payload: Bytes::copy_from_slice(&body.payload),
            metadata: body.metadata.as_deref().map(Bytes::copy_from_slice),
            ..body.clone()
        };
        let kept = Kept { key: key.clone(), message: StoredMessage { body, ..message.clone() } };
        self.bytes += kept.bytes();
        self.by_key.insert(key, *id);
        self.messages.insert(*id, kept);
    }

    /// Takes a message out, if it is one of these, and returns whether it was.
    pub(super) fn forget(&mut self, id: MessageId) -> bool {
        let Some(kept) = self.messages.remove(&id) else { return false };
        self.bytes -= kept.bytes();
        self.by_key.remove(&kept.key);
        self.gone.remove(&id);
        true
    }

    /// Drops one of which nobody is told any more.
    fn drop_one(&mut self, id: MessageId) {
        self.forget(id);
        self.untold.newest = self.untold.newest.max(Some(id));
    }

    /// Drops what was given before this id: all of it is to be gone.
    pub(super) fn drop_before(&mut self, id: MessageId) {
        while let Some((&first, _)) = self.messages.first_key_value()
            && first < id
        {
            self.drop_one(first);
        }
        self.untold.newest = self.untold.newest.max(id.previous());
    }

    /// Drops the oldest while there are more, or they weigh more, than may be, and those that say for a day that their
    /// key is gone.
    pub(super) fn keep(&mut self, number: u64, bytes: Option<u64>, now: Timestamp) {
        let gone_before = MessageId::new(now.saturating_sub(GONE_KEPT).as_millis(), 0);
        while let Some(&first) = self.gone.first()
            && first < gone_before
        {
            self.drop_one(first);
        }
        while let Some((&first, _)) = self.messages.first_key_value()
            && (self.messages.len() as u64 > number
                || (self.messages.len() > 1 && bytes.is_some_and(|bytes| self.bytes as u64 > bytes)))
        {
            self.drop_one(first);
        }
    }

    /// Returns the message with this id, unless it has expired.
    pub(super) fn get(&self, id: MessageId, now: Timestamp) -> Option<StoredMessage> {
        let kept = self.messages.get(&id)?;
        let is_expired = kept.message.is_expired(now);
        (!is_expired).then(|| kept.message.clone())
    }

    /// Returns those behind an id that have not expired.
    pub(super) fn read(
        &self,
        after: Option<MessageId>,
        (limit, bytes_max): (usize, usize),
        now: Timestamp,
    ) -> Found {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut messages, mut bytes, mut reached) = (Vec::new(), 0, None);
        for (id, kept) in self.messages.range((after, Bound::Unbounded)) {
            if kept.message.is_expired(now) {
                continue;
            }
            bytes += kept.message.body.len_bytes();
            if messages.len() == limit || (!messages.is_empty() && bytes > bytes_max) {
                return Found { messages, reached, at_end: false };
            }
            reached = Some(*id);
            messages.push(kept.message.clone());
        }
        Found { messages, reached, at_end: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(ms: u64, key: &str, payload: &'static str) -> StoredMessage {
        let body = Body {
            payload: Bytes::from_static(payload.as_bytes()),
            content_type: None,
            metadata: Some(Bytes::from(format!(r#"{{"k": "{key}"}}"#))),
            order_key: None,
        };
        let timestamp = Timestamp::from_millis(ms);
        StoredMessage { id: MessageId::new(ms, 0), timestamp, expires_at: None, body }
    }

    fn ids(table: &LatestTable) -> Vec<u64> {
        let found = table.read(None, (100, usize::MAX), Timestamp::from_millis(0));
        found.messages.iter().map(|message| message.id.ms).collect()
    }

    #[test]
    fn the_latest_of_each_key_stays_and_weighs_what_it_did() {
        let mut table = LatestTable::new("k", None);
        let empty = table.bytes();
        for (ms, key) in [(1, "a"), (2, "b"), (3, "a"), (4, "c")] {
            table.note(&message(ms, key, "1"));
        }
        assert_eq!(ids(&table), [2, 3, 4]);
        let three = table.bytes();
        table.note(&message(5, "b", "1"));
        assert_eq!((ids(&table), table.bytes()), (vec![3, 4, 5], three));
        table.keep(1, None, Timestamp::from_millis(6));
        assert_eq!(ids(&table), [5]);
        assert_eq!(table.untold().newest, Some(MessageId::new(4, 0)));
        assert!(table.forget(MessageId::new(5, 0)) && !table.forget(MessageId::new(5, 0)));
        assert_eq!(table.bytes(), empty);
    }

    #[test]
    fn that_a_key_is_gone_is_told_for_a_day() {
        let mut table = LatestTable::new("k", None);
        table.note(&message(1, "a", "1"));
        table.note(&message(2, "a", "null"));
        table.note(&message(3, "b", "1"));
        let day = u64::try_from(GONE_KEPT.as_millis()).expect("a day");
        table.keep(10, None, Timestamp::from_millis(day + 2));
        assert_eq!(ids(&table), [2, 3]);
        table.keep(10, None, Timestamp::from_millis(day + 3));
        assert_eq!((ids(&table), table.untold().newest), (vec![3], Some(MessageId::new(2, 0))));
    }
}
