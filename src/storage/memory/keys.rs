//! Idempotency keys: which message a key stands for, for as long as the window lasts.
//!
//! It owns their memory and their expiry. It must not know messages; topics are numbers to it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tidemill_proto::{MessageId, Timestamp};

use crate::storage::{Appended, Idempotency, StorageError};

/// A key of one topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The number of the topic, which no other topic ever has: a topic that is deleted and made
    /// again does not know the keys of its predecessor.
    topic: u64,
    text: Arc<str>,
}

impl Key {
    pub(super) fn new(topic: u64, text: &str) -> Self {
        Self { topic, text: Arc::from(text) }
    }
}

#[derive(Debug)]
struct Remembered {
    fingerprint: [u8; 16],
    id: MessageId,
    timestamp: Timestamp,
    until: Timestamp,
}

/// What a key costs besides its text: a slot of the table and one of the queue, both at the lowest
/// filling that growth leaves behind (7/16 and 1/2), and the header and rounding of the text.
const KEY_BYTES: usize =
    (size_of::<(Key, Remembered)>() + 1) * 16 / 7 + size_of::<(Timestamp, Key)>() * 2 + 32;

/// All keys of all topics.
#[derive(Debug)]
pub(super) struct Keys {
    window: Duration,
    table: HashMap<Key, Remembered>,
    /// In the order in which they end.
    queue: VecDeque<(Timestamp, Key)>,
    texts_bytes: usize,
}

impl Keys {
    pub(super) fn new(window: Duration) -> Self {
        Self { window, table: HashMap::new(), queue: VecDeque::new(), texts_bytes: 0 }
    }

    /// Returns the bytes that the keys hold.
    pub(super) fn bytes(&self) -> usize {
        self.queue.len() * KEY_BYTES + self.texts_bytes
    }

    /// Returns the bytes that one key holds.
    pub(super) fn bytes_of_one(key: &Idempotency) -> usize {
        KEY_BYTES + key.key.len()
    }

    /// Returns the answer that the key stands for, `None` if it is new.
    pub(super) fn find(
        &self,
        key: &Key,
        fingerprint: &[u8; 16],
        now: Timestamp,
    ) -> Result<Option<Appended>, StorageError> {
        match self.table.get(key) {
            Some(found) if found.until <= now => Ok(None),
            Some(found) if found.fingerprint != *fingerprint => Err(StorageError::KeyReused),
            Some(found) => Ok(Some(Appended { id: found.id, timestamp: found.timestamp, replayed: true })),
            None => Ok(None),
        }
    }

    /// Remembers what a key stands for.
    pub(super) fn remember(&mut self, key: Key, fingerprint: [u8; 16], appended: Appended, now: Timestamp) {
        let newest = self.queue.back().map_or(now, |(until, _)| *until);
        // Never before the one in front, also when the clock went back: the queue stays sorted.
        let until = now.saturating_add(self.window).max(newest);
        self.texts_bytes += key.text.len();
        self.queue.push_back((until, key.clone()));
        let Appended { id, timestamp, .. } = appended;
        self.table.insert(key, Remembered { fingerprint, id, timestamp, until });
    }

    /// Forgets up to `count` keys whose window has passed, and tells whether there may be more.
    pub(super) fn purge(&mut self, now: Timestamp, count: usize) -> bool {
        for _ in 0..count {
            let Some((_, key)) = self.queue.pop_front_if(|(until, _)| *until <= now) else {
                self.shrink();
                return false;
            };
            self.texts_bytes -= key.text.len();
            // The key may have been used again since; then a later place in the queue ends it.
            if self.table.get(&key).is_some_and(|found| found.until <= now) {
                self.table.remove(&key);
            }
        }
        true
    }

    fn shrink(&mut self) {
        if self.table.capacity() > 64 && self.table.len() < self.table.capacity() / 4 {
            self.table.shrink_to(self.table.len() * 2);
            self.queue.shrink_to(self.queue.len() * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1_000)
    }

    fn appended(ms: u64) -> Appended {
        Appended { id: MessageId::new(ms, 0), timestamp: at(0), replayed: false }
    }

    #[test]
    fn purged_keys_leave_nothing_behind() {
        let mut keys = Keys::new(WINDOW);
        for number in 0..10_000 {
            keys.remember(Key::new(1, &format!("key {number}")), [0; 16], appended(number), at(0));
        }
        assert!(keys.bytes() > 10_000 * 100);
        assert!(keys.purge(at(10), 4_000), "more are left");
        assert!(!keys.purge(at(10), usize::MAX));
        assert_eq!((keys.bytes(), keys.table.len()), (0, 0));
        assert!(keys.table.capacity() <= 64 && keys.queue.capacity() <= 64);
    }

    #[test]
    fn a_key_used_again_after_its_window_outlives_the_first_use() {
        let mut keys = Keys::new(WINDOW);
        let key = Key::new(1, "key");
        keys.remember(key.clone(), [1; 16], appended(1), at(0));
        assert!(matches!(keys.find(&key, &[1; 16], at(9)), Ok(Some(_))));
        assert!(matches!(keys.find(&key, &[1; 16], at(10)), Ok(None)));
        keys.remember(key.clone(), [2; 16], appended(2), at(10));
        keys.purge(at(11), usize::MAX);
        assert!(matches!(keys.find(&key, &[2; 16], at(11)), Ok(Some(found)) if found.id.ms == 2));
        assert!(matches!(keys.find(&key, &[1; 16], at(11)), Err(StorageError::KeyReused)));
        assert!(
            matches!(keys.find(&Key::new(2, "key"), &[1; 16], at(11)), Ok(None)),
            "keys are a topic's own"
        );
    }

    #[test]
    fn no_two_pairs_of_topic_and_text_are_one_key() {
        let texts = ["1", "11", "1:1", ":1", "1:", "{1}", "1}:1", "1.1"];
        let mut keys = Keys::new(WINDOW);
        let mut id = 0;
        for topic in [1, 11, 111] {
            for text in texts {
                let key = Key::new(topic, text);
                assert!(matches!(keys.find(&key, &[1; 16], at(0)), Ok(None)), "{topic} {text}");
                id += 1;
                keys.remember(key, [1; 16], appended(id), at(0));
            }
        }
        assert_eq!(keys.table.len(), 3 * texts.len());
    }

    #[test]
    fn a_clock_that_goes_back_blocks_no_later_key() {
        let mut keys = Keys::new(WINDOW);
        keys.remember(Key::new(1, "a"), [1; 16], appended(1), at(100));
        keys.remember(Key::new(1, "b"), [1; 16], appended(2), at(0));
        keys.purge(at(110), usize::MAX);
        assert_eq!(keys.bytes(), 0);
    }
}
