//! Idempotency keys of one topic: which message a key stands for, for as long as the window lasts.
//!
//! It owns their memory and their expiry. It must not know messages, topics, nor how much memory all keys
//! together may take. They lie with their topic, and go with it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tidemill_proto::{MessageId, Timestamp};

use crate::storage::{Appended, Idempotency, StorageError};

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
    (size_of::<(Arc<str>, Remembered)>() + 1) * 16 / 7 + size_of::<(Timestamp, Arc<str>)>() * 2 + 32;
/// What the first key of a topic costs besides.
const KEYS_BYTES: usize = size_of::<Keys>() + 48;

/// The keys of a topic.
#[derive(Debug, Default)]
pub(super) struct Keys {
    table: HashMap<Arc<str>, Remembered>,
    /// In the order in which they end.
    queue: VecDeque<(Timestamp, Arc<str>)>,
    texts_bytes: usize,
}

impl Keys {
    /// Returns the bytes that the keys hold.
    pub(super) fn bytes(&self) -> usize {
        if self.queue.is_empty() { 0 } else { KEYS_BYTES + self.queue.len() * KEY_BYTES + self.texts_bytes }
    }

    /// Returns the bytes that one key more holds.
    pub(super) fn growth(keys: Option<&Self>, key: &Idempotency) -> usize {
        let first = if keys.is_none_or(|keys| keys.queue.is_empty()) { KEYS_BYTES } else { 0 };
        first + KEY_BYTES + key.key.len()
    }

    /// Returns the answer that the key stands for, `None` if it is new.
    pub(super) fn find(&self, key: &Idempotency, now: Timestamp) -> Result<Option<Appended>, StorageError> {
        match self.table.get(&*key.key) {
            Some(found) if found.until <= now => Ok(None),
            Some(found) if found.fingerprint != key.fingerprint => Err(StorageError::KeyReused),
            Some(found) => Ok(Some(Appended { id: found.id, timestamp: found.timestamp, replayed: true })),
            None => Ok(None),
        }
    }

    /// Remembers for the time of `window` what a key stands for.
    pub(super) fn remember(
        &mut self,
        key: &Idempotency,
        appended: Appended,
        now: Timestamp,
        window: Duration,
    ) {
        let newest = self.queue.back().map_or(now, |(until, _)| *until);
        // Never before the one in front, also when the clock went back: the queue stays sorted.
        let until = now.saturating_add(window).max(newest);
        let text: Arc<str> = Arc::from(&*key.key);
        self.texts_bytes += text.len();
        self.queue.push_back((until, text.clone()));
        let Appended { id, timestamp, .. } = appended;
        self.table.insert(text, Remembered { fingerprint: key.fingerprint, id, timestamp, until });
    }

    /// Forgets up to `count` keys whose window has passed, and returns how many that were.
    pub(super) fn purge(&mut self, now: Timestamp, count: usize) -> usize {
        for purged in 0..count {
            let Some((_, text)) = self.queue.pop_front_if(|(until, _)| *until <= now) else {
                self.shrink();
                return purged;
            };
            self.texts_bytes -= text.len();
            // The key may have been used again since; then a later place in the queue ends it.
            if self.table.get(&text).is_some_and(|found| found.until <= now) {
                self.table.remove(&text);
            }
        }
        count
    }

    /// Returns when the next key ends.
    pub(super) fn next_end(&self) -> Option<Timestamp> {
        self.queue.front().map(|(until, _)| *until)
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

    fn key(text: &str, print: u8) -> Idempotency {
        Idempotency { key: text.into(), fingerprint: [print; 16] }
    }

    #[test]
    fn purged_keys_leave_nothing_behind() {
        let mut keys = Keys::default();
        let mut expected = 0;
        for number in 0..10_000 {
            let key = key(&format!("key {number}"), 0);
            expected += Keys::growth(Some(&keys), &key);
            keys.remember(&key, appended(number), at(0), WINDOW);
        }
        assert_eq!(keys.bytes(), expected, "what is asked for is what is taken");
        assert_eq!(keys.next_end(), Some(at(10)));
        assert_eq!(keys.purge(at(10), 4_000), 4_000, "more are left");
        assert_eq!(keys.purge(at(10), usize::MAX), 6_000);
        assert_eq!((keys.bytes(), keys.table.len()), (0, 0));
        assert!(keys.table.capacity() <= 64 && keys.queue.capacity() <= 64);
    }

    #[test]
    fn a_key_used_again_after_its_window_outlives_the_first_use() {
        let mut keys = Keys::default();
        keys.remember(&key("key", 1), appended(1), at(0), WINDOW);
        assert!(matches!(keys.find(&key("key", 1), at(9)), Ok(Some(_))));
        assert!(matches!(keys.find(&key("key", 1), at(10)), Ok(None)));
        keys.remember(&key("key", 2), appended(2), at(10), WINDOW);
        keys.purge(at(11), usize::MAX);
        assert!(matches!(keys.find(&key("key", 2), at(11)), Ok(Some(found)) if found.id.ms == 2));
        assert!(matches!(keys.find(&key("key", 1), at(11)), Err(StorageError::KeyReused)));
    }

    #[test]
    fn a_clock_that_goes_back_blocks_no_later_key() {
        let mut keys = Keys::default();
        keys.remember(&key("a", 1), appended(1), at(100), WINDOW);
        keys.remember(&key("b", 1), appended(2), at(0), WINDOW);
        keys.purge(at(110), usize::MAX);
        assert_eq!(keys.bytes(), 0);
    }
}
