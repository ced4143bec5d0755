//! What publishes are remembered by: idempotency keys of all topics and buckets, and the room that they have together; and
//! keys that are unique in groups.

use tidemill_proto::{Timestamp, TopicName};

use super::{OfMessages, Shortage, Topics};
use crate::storage::memory::group::UNIQUE_BYTES;
use crate::storage::memory::work::Kept;
use crate::storage::{Appended, Idempotency, NewMessage, StorageError};

impl Topics {
    /// Checks that one key more may be remembered. Those that have ended make room for it; nothing else
    /// does.
    pub(super) fn check_room_for_key(
        &mut self,
        topic: &TopicName,
        key: &Idempotency,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let keys = |all: &Self| {
            let keys = all.topics.get(topic).and_then(|topic| topic.keys.as_deref());
            OfMessages::growth(keys, key)
        };
        self.check_room_for_growth(keys, now)
    }

    /// The same, of what this many bytes are needed for.
    pub(super) fn check_room_for_growth(
        &mut self,
        growth: impl Fn(&Self) -> usize,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let max = usize::try_from(self.options.keys_bytes_max).unwrap_or(usize::MAX);
        // A look at every topic, so not before it can be of use.
        if self.keys_bytes + growth(self) > max && self.keys_end <= now {
            self.purge_all_keys(now);
        }
        let needed = growth(self);
        if self.keys_bytes + needed <= max {
            return Ok(());
        }
        Err(StorageError::KeysFull(Shortage::Keys { used: self.keys_bytes, needed, max }.into()))
    }

    fn purge_all_keys(&mut self, now: Timestamp) {
        let mut next_end = now.saturating_add(self.options.limits.idempotency_window);
        for topic in self.topics.values_mut() {
            let (_, freed) = topic.purge_keys(now, usize::MAX);
            self.keys_bytes -= freed;
            next_end = topic
                .keys
                .as_ref()
                .and_then(|keys| keys.next_end())
                .map_or(next_end, |end| next_end.min(end));
        }
        for bucket in self.buckets.values_mut() {
            let (_, freed) = bucket.purge_answers(now, usize::MAX);
            self.keys_bytes -= freed;
            next_end = bucket.next_answer_end().map_or(next_end, |end| next_end.min(end));
        }
        self.keys_end = next_end;
    }

    pub(super) fn remember(
        &mut self,
        topic: &TopicName,
        key: &Idempotency,
        appended: Appended,
        now: Timestamp,
    ) {
        let topic = self.topics.get_mut(topic).expect("an append has found or made its topic");
        let keys = topic.keys.get_or_insert_default();
        let before = keys.bytes();
        keys.remember(key, (appended.id, appended.timestamp), now, self.options.limits.idempotency_window);
        self.keys_bytes += keys.bytes() - before;
    }

    /// Whether an idempotency key was used in a topic.
    pub(in super::super) fn is_used(&self, topic: &TopicName, key: &Idempotency, now: Timestamp) -> bool {
        let keys = self.topics.get(topic).and_then(|topic| topic.keys.as_ref());
        keys.is_some_and(|keys| !matches!(keys.find(key, now), Ok(None)))
    }

    /// Returns the answer to a publish under a unique key of which a message waits or is worked on, and makes room to
    /// remember another one.
    pub(super) fn find_unique(
        &mut self,
        message: &NewMessage,
        now: Timestamp,
    ) -> Result<Option<Appended>, StorageError> {
        let Some(unique) = &message.unique else { return Ok(None) };
        let name = &message.topic;
        let found = {
            let (groups, log) = self.groups(name).map_err(|_| StorageError::NoGroup)?;
            let group = groups.and_then(|groups| groups.get(&unique.group)).ok_or(StorageError::NoGroup)?;
            group.unique(&unique.key, &Kept { topic: name, log, now })
        };
        let Some(first) = found else {
            let needed = UNIQUE_BYTES + unique.key.len();
            self.make_room(|_| needed, needed)?;
            return Ok(None);
        };
        if let Some(key) = &message.idempotency {
            self.check_room_for_key(name, key, now)?;
            self.remember(name, key, first, now);
        }
        Ok(Some(Appended { replayed: true, ..first }))
    }

    pub(super) fn note_unique(&mut self, message: &NewMessage, appended: Appended, now: Timestamp) {
        let Some(unique) = &message.unique else { return };
        let name = &message.topic;
        let noted = self.with_groups(name, 0, |groups, log, _| {
            if let Some(group) = groups.get_mut(&unique.group) {
                group.note_unique(&unique.key, appended, &Kept { topic: name, log, now });
            }
        });
        debug_assert!(noted.is_ok(), "an append has found its topic");
    }
}
