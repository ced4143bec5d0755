//! The order keys of a group that gives out one message of a key at a time: who holds each, and who stands behind.
//!
//! It must not know where messages are, nor until when.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

use tidemill_proto::{MessageId, OrderKey};

/// Bytes of a message with a key, about: itself in two tables that are half full at worst, and the key.
pub(in crate::storage::memory) const KEYED_BYTES: usize =
    2 * (size_of::<(OrderKey, Queue)>() + size_of::<(MessageId, OrderKey)>()) + 320;

/// The keys that are taken.
#[derive(Debug, Default)]
pub(super) struct OrderedKeys {
    queues: HashMap<OrderKey, Queue>,
    /// The keys of those that hold one and of those that stand behind.
    keys: HashMap<MessageId, OrderKey>,
    behind: usize,
}

/// The messages of one key.
#[derive(Debug)]
struct Queue {
    holder: MessageId,
    behind: BTreeSet<MessageId>,
}

impl OrderedKeys {
    /// Returns the bytes that they hold.
    pub(super) fn bytes(&self) -> usize {
        self.keys.len() * KEYED_BYTES
    }

    /// Returns how many messages stand behind others.
    pub(super) const fn behind(&self) -> usize {
        self.behind
    }

    /// Returns the message that holds a key.
    pub(super) fn holder(&self, key: &OrderKey) -> Option<MessageId> {
        self.queues.get(key).map(|queue| queue.holder)
    }

    /// Has a message hold its key, or else stand behind; returns whether it holds it.
    pub(super) fn take(&mut self, id: MessageId, key: &OrderKey) -> bool {
        self.keys.insert(id, key.clone());
        match self.queues.entry(key.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(Queue { holder: id, behind: BTreeSet::new() });
                true
            }
            Entry::Occupied(mut entry) => {
                self.behind += usize::from(entry.get_mut().behind.insert(id));
                false
            }
        }
    }

    /// Forgets a message. Returns the one that holds its key now, if it has held it and one stood behind.
    pub(super) fn end(&mut self, id: MessageId) -> Option<MessageId> {
        let key = self.keys.remove(&id)?;
        let queue = self.queues.get_mut(&key)?;
        if queue.holder != id {
            self.behind -= usize::from(queue.behind.remove(&id));
            return None;
        }
        let next = queue.behind.pop_first();
        match next {
            Some(next) => {
                queue.holder = next;
                self.behind -= 1;
            }
            None => _ = self.queues.remove(&key),
        }
        next
    }
}
