//! Which patterns have feeds on this node.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tidemill_proto::{TopicName, TopicPattern};
use tokio::sync::Semaphore;

use super::pattern_feed::PatternFeed;
use super::primitives::Mutex;
use super::ring_bytes::RingBytes;
use crate::access::ReadScope;

/// Patterns that have feeds at one time.
const PATTERNS_MAX: usize = 1_000;
/// Topics that readers of patterns read one by one at one time, as they do until they have come to the ring of
/// their pattern; a few hundred bytes each. A pattern that covers more takes all of it.
const BY_TOPIC_MAX: u32 = 32 * 1_024;

/// The feeds of patterns.
#[derive(Debug)]
pub(in crate::relay) struct Patterns {
    feeds: Mutex<HashMap<(TopicPattern, ReadScope), PatternEntry>>,
    /// The number of feeds, so that a node without any asks for no lock when it hears of a topic.
    count: AtomicUsize,
    /// Counts the topics that are read one by one.
    by_topic: Arc<Semaphore>,
    rings: RingBytes,
}

#[derive(Debug)]
struct PatternEntry {
    feed: Arc<PatternFeed>,
    readers: usize,
}

/// What came of joining.
#[derive(Debug)]
pub(super) enum JoinedPattern {
    /// The feed runs, or begins for somebody else.
    There(Arc<PatternFeed>),
    /// It is new, and to be begun.
    New(Arc<PatternFeed>),
    /// There are so many, as many as may be.
    Full(usize),
}

impl Patterns {
    /// Returns none yet. Their rings are counted with all of these.
    pub(super) fn new(rings: RingBytes) -> Self {
        let by_topic = Arc::new(Semaphore::new(BY_TOPIC_MAX as usize));
        Self { feeds: Mutex::default(), count: AtomicUsize::new(0), by_topic, rings }
    }

    /// Returns what counts the topics that are read one by one, and how many of it a pattern takes that covers
    /// so many.
    pub(super) fn room_by_topic(&self, topics: usize) -> (Arc<Semaphore>, u32) {
        let topics = u32::try_from(topics).unwrap_or(u32::MAX);
        (self.by_topic.clone(), topics.clamp(1, BY_TOPIC_MAX))
    }

    /// Returns how many there are.
    pub(in crate::relay) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Returns the feed of a pattern for a new reader who may read so much. Before the first, `watch` is told.
    pub(super) fn join(
        &self,
        pattern: &TopicPattern,
        scope: ReadScope,
        watch: impl FnOnce(bool),
    ) -> JoinedPattern {
        let key = (pattern.clone(), scope);
        let mut feeds = self.feeds.lock();
        if let Some(entry) = feeds.get_mut(&key)
            && !entry.feed.has_ended()
        {
            entry.readers += 1;
            return JoinedPattern::There(entry.feed.clone());
        }
        if feeds.len() >= PATTERNS_MAX {
            return JoinedPattern::Full(PATTERNS_MAX);
        }
        // Under the lock, so that what was said last holds.
        if feeds.is_empty() {
            watch(true);
        }
        let feed = Arc::new(PatternFeed::new(pattern.clone(), key.1.clone(), &self.rings));
        feeds.insert(key, PatternEntry { feed: feed.clone(), readers: 1 });
        self.count.store(feeds.len(), Ordering::Relaxed);
        JoinedPattern::New(feed)
    }

    /// Takes a reader away. Returns whether nobody is left.
    pub(super) fn leave(&self, feed: &Arc<PatternFeed>) -> bool {
        let mut feeds = self.feeds.lock();
        let Some(entry) = feeds.get_mut(&key_of(feed)).filter(|entry| Arc::ptr_eq(&entry.feed, feed)) else {
            return false;
        };
        entry.readers -= 1;
        entry.readers == 0
    }

    /// Ends a feed that nobody reads. After the last, `watch` is told.
    pub(super) fn end_if_idle(&self, feed: &Arc<PatternFeed>, watch: impl FnOnce(bool)) {
        let mut feeds = self.feeds.lock();
        let is_idle = |entry: &PatternEntry| Arc::ptr_eq(&entry.feed, feed) && entry.readers == 0;
        let key = key_of(feed);
        if feeds.get(&key).is_some_and(is_idle) {
            feeds.remove(&key);
            feed.stop();
            if feeds.is_empty() {
                watch(false);
            }
        }
        self.count.store(feeds.len(), Ordering::Relaxed);
    }

    /// Returns how many patterns cover a topic, and how many read it by them.
    pub(super) fn covering(&self, topic: &TopicName) -> (usize, usize) {
        if self.count() == 0 {
            return (0, 0);
        }
        let feeds = self.feeds.lock();
        let covering = feeds.values().filter(|entry| entry.feed.covered().lock().topics.contains_key(topic));
        covering.fold((0, 0), |(patterns, readers), entry| (patterns + 1, readers + entry.readers))
    }

    /// Tells those that cover a topic that there may be one.
    pub(super) fn hear(&self, topic: &TopicName) {
        if self.count() > 0 {
            self.feeds.lock().values().for_each(|entry| entry.feed.names().hear(topic));
        }
    }

    /// Has all look at the list of topics.
    pub(super) fn list_soon(&self) {
        self.feeds.lock().values().for_each(|entry| entry.feed.names().list_soon());
    }
}

fn key_of(feed: &PatternFeed) -> (TopicPattern, ReadScope) {
    (feed.pattern().clone(), feed.scope().clone())
}
