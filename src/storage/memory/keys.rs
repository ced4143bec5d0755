//! Idempotency keys of one topic or bucket: which answer a key stands for, for as long as the window lasts.
//!
//! It owns their memory and their expiry. It must not know messages, topics, buckets, nor how much memory all keys
//! together may take. They lie with what they belong to, and go with it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tidemill_proto::{MessageId, Timestamp};

use crate::storage::{Idempotency, KeyChanged, StorageError};

/// What a key stands for.
pub(super) trait Answer: Clone {
    /// Returns the bytes that it holds beside itself.
    fn len_bytes(&self) -> usize;
}

/// A message.
impl Answer for (MessageId, Timestamp) {
    fn len_bytes(&self) -> usize {
        0
    }
}

/// Changes of keys.
impl Answer for Box<[KeyChanged]> {
    fn len_bytes(&self) -> usize {
        size_of_val::<[KeyChanged]>(self) + 16
    }
}

#[derive(Debug)]
struct Remembered<A> {
    fingerprint: [u8; 16],
    answer: A,
    until: Timestamp,
}

/// What a key costs besides its text: a slot of the table and one of the queue, both at the lowest
/// filling that growth leaves behind (7/16 and 1/2), and the header and rounding of the text.
const fn key_bytes<A>() -> usize {
    (size_of::<(Arc<str>, Remembered<A>)>() + 1) * 16 / 7 + size_of::<(Timestamp, Arc<str>)>() * 2 + 32
}

/// What the first key costs besides.
const fn keys_bytes<A>() -> usize {
    size_of::<Keys<A>>() + 48
}

/// The keys of a topic or a bucket.
#[derive(Debug)]
pub(super) struct Keys<A> {
    table: HashMap<Arc<str>, Remembered<A>>,
    /// In the order in which they end.
    queue: VecDeque<(Timestamp, Arc<str>)>,
    texts_bytes: usize,
    answers_bytes: usize,
}

impl<A> Default for Keys<A> {
    fn default() -> Self {
        Self { table: HashMap::new(), queue: VecDeque::new(), texts_bytes: 0, answers_bytes: 0 }
    }
}

impl<A: Answer> Keys<A> {
    /// Returns the bytes that the keys hold.
    pub(super) fn bytes(&self) -> usize {
        if self.queue.is_empty() {
            return 0;
        }
        keys_bytes::<A>() + self.queue.len() * key_bytes::<A>() + self.texts_bytes + self.answers_bytes
    }

    /// Returns the bytes that one key more holds, beside its answer.
    pub(super) fn growth(keys: Option<&Self>, key: &Idempotency) -> usize {
        let first = if keys.is_none_or(|keys| keys.queue.is_empty()) { keys_bytes::<A>() } else { 0 };
        first + key_bytes::<A>() + key.key.len()
    }

    /// Returns the answer that the key stands for, `None` if it is new.
    pub(super) fn find(&self, key: &Idempotency, now: Timestamp) -> Result<Option<A>, StorageError> {
        match self.table.get(&*key.key) {
            Some(found) if found.until <= now => Ok(None),
            Some(found) if found.fingerprint != key.fingerprint => Err(StorageError::KeyReused),
            Some(found) => Ok(Some(found.answer.clone())),
            None => Ok(None),
        }
    }

    /// Remembers for the time of `window` what a key stands for.
    pub(super) fn remember(&mut self, key: &Idempotency, answer: A, now: Timestamp, window: Duration) {
        let newest = self.queue.back().map_or(now, |(until, _)| *until);
        // Never before the one in front, also when the clock went back: the queue stays sorted.
        let until = now.saturating_add(window).max(newest);
        let text: Arc<str> = Arc::from(&*key.key);
        self.texts_bytes += text.len();
        self.queue.push_back((until, text.clone()));
        self.answers_bytes += answer.len_bytes();
        let before = self.table.insert(text, Remembered { fingerprint: key.fingerprint, answer, until });
        self.answers_bytes -= before.map_or(0, |before| before.answer.len_bytes());
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
            if self.table.get(&text).is_some_and(|found| found.until <= now)
                && let Some(ended) = self.table.remove(&text)
            {
                self.answers_bytes -= ended.answer.len_bytes();
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

    fn appended(ms: u64) -> (MessageId, Timestamp) {
        (MessageId::new(ms, 0), at(0))
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
        assert!(matches!(keys.find(&key("key", 2), at(11)), Ok(Some((found, _))) if found.ms == 2));
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
