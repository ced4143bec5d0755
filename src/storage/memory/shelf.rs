//! The shelf: all topics of the backend, and the budget of bytes that they share.
//!
//! It owns what exists, what it weighs, and what gives way when the budget is used up. It must not
//! know locks or futures.

use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Bound;
use std::time::Duration;

use tidemill_proto::topics::{Topic, TopicUpdate, TopicsStats};
use tidemill_proto::{MessageId, Timestamp, TopicName};

use super::keys::{Key, Keys};
use super::log::Log;
use super::segment::BODY_BYTES_MAX;
use super::{MemoryOptions, WhenFull};
use crate::storage::{
    Appended, Batch, Epoch, NewMessage, Range, StorageError, StoredMessage, Swept, Tail, TopicList,
    TopicState, Trim,
};

/// What a topic costs besides its name, its description and its messages: itself, its slot in a tree
/// whose nodes are half full at worst, and the headers and rounding of the two allocations.
const TOPIC_BYTES: usize = size_of::<Shelved>() + 2 * size_of::<(TopicName, Box<Shelved>)>() + 48;
/// Idempotency keys that an append may have to clear away: more than it can add, so that keys which
/// have ended never pile up, and few enough not to be felt.
const PURGED_PER_APPEND_MAX: usize = 8;
/// The part of the budget that is freed at once when it is used up: looking for the largest topics
/// costs a look at every topic, so it must be worth it.
const SLACK_DIVISOR: usize = 100;

/// Why the budget refused.
#[derive(Debug, thiserror::Error)]
enum Shortage {
    #[error("{used} of {max} bytes are in use and {needed} more are needed")]
    Budget { used: usize, needed: usize, max: usize },
    #[error("a body of {0} bytes is more than a message can have")]
    Body(usize),
}

/// A topic.
#[derive(Debug)]
struct Shelved {
    /// Tells this topic from others of the same name before and after it.
    number: u64,
    created_at: Timestamp,
    description: Option<Box<str>>,
    retention_seconds: Option<u64>,
    log: Log,
}

impl Shelved {
    fn to_topic(&self, name: &TopicName) -> Topic {
        Topic {
            topic_id: name.clone(),
            topic_name: name.clone(),
            owner_id: None,
            created_at: Some(self.created_at),
            description: self.description.as_deref().map(str::to_owned),
            retention_seconds: self.retention_seconds,
        }
    }

    /// Returns the bytes that the topic holds without messages.
    fn empty_bytes(&self, name: &TopicName) -> usize {
        bytes_of_empty(name, self.description.as_deref())
    }
}

fn bytes_of_empty(name: &TopicName, description: Option<&str>) -> usize {
    TOPIC_BYTES + name.as_str().len() + description.map_or(0, str::len)
}

/// A topic that was taken off the shelf. Dropping it can take long, so it is not dropped under a lock.
#[derive(Debug)]
#[expect(dead_code, reason = "it is held to be dropped")]
pub(super) struct Removed(Box<Shelved>);

/// All topics.
#[derive(Debug)]
pub(super) struct Shelf {
    options: MemoryOptions,
    topics: BTreeMap<TopicName, Box<Shelved>>,
    keys: Keys,
    /// The number of the next topic.
    next_number: u64,
    /// The highest id that a deleted topic gave: topics start after it, so that a topic which is
    /// deleted and made again within a millisecond never gives an id twice.
    floor: MessageId,
    messages: usize,
    /// Bytes of topics without their messages.
    topics_bytes: usize,
    /// Bytes of messages.
    logs_bytes: usize,
}

impl Shelf {
    pub(super) fn new(options: MemoryOptions) -> Self {
        let keys = Keys::new(options.limits.idempotency_window);
        Self {
            options,
            topics: BTreeMap::new(),
            keys,
            next_number: 0,
            floor: MessageId::MIN,
            messages: 0,
            topics_bytes: 0,
            logs_bytes: 0,
        }
    }

    /// Returns the bytes that everything holds.
    pub(super) fn bytes(&self) -> usize {
        self.topics_bytes + self.keys.bytes() + self.logs_bytes
    }

    pub(super) fn append(&mut self, message: &NewMessage, now: Timestamp) -> Result<Appended, StorageError> {
        self.keys.purge(now, PURGED_PER_APPEND_MAX);
        let found = self.topics.get(&message.topic);
        if found.is_none() {
            if !message.create_topic {
                return Err(StorageError::NoTopic);
            }
            self.check_topics_limit()?;
        }
        let number = found.map_or(self.next_number, |topic| topic.number);
        let key = message.idempotency.as_ref().map(|idempotency| {
            let key = Key::new(number, &idempotency.key);
            (key, idempotency.fingerprint)
        });
        if let Some((key, fingerprint)) = &key
            && let Some(first) = self.keys.find(key, fingerprint, now)?
        {
            return Ok(first);
        }
        self.make_room_for(message, now)?;

        if !self.topics.contains_key(&message.topic) {
            self.put(&message.topic, TopicUpdate::default(), now);
        }
        let appended =
            Appended { id: self.append_to_log(message, now), timestamp: message.timestamp, replayed: false };
        if let Some((key, fingerprint)) = key {
            self.keys.remember(key, fingerprint, appended, now);
        }
        Ok(appended)
    }

    fn append_to_log(&mut self, message: &NewMessage, now: Timestamp) -> MessageId {
        let topic = self.topics.get_mut(&message.topic).expect("an append has found or made its topic");
        let (bytes, length) = (topic.log.bytes(), topic.log.length());
        let id = topic.log.append(now, message);
        self.messages = self.messages - length + topic.log.length();
        self.logs_bytes = self.logs_bytes - bytes + topic.log.bytes();
        id
    }

    fn check_topics_limit(&self) -> Result<(), StorageError> {
        let there_are_less = (self.topics.len() as u64) < self.options.limits.topics_max;
        if there_are_less { Ok(()) } else { Err(StorageError::TopicsLimit) }
    }

    fn make_room_for(&mut self, message: &NewMessage, now: Timestamp) -> Result<(), StorageError> {
        let body_bytes = message.body.len_bytes();
        if body_bytes > BODY_BYTES_MAX {
            return Err(StorageError::Full(Shortage::Body(body_bytes).into()));
        }
        let key_bytes = message.idempotency.as_ref().map_or(0, Keys::bytes_of_one);
        let growth = |shelf: &Self| {
            key_bytes
                + match shelf.topics.get(&message.topic) {
                    Some(topic) => topic.log.growth(body_bytes, &message.policy),
                    None => bytes_of_empty(&message.topic, None) + Log::bytes_of_one(body_bytes),
                }
        };
        let alone = match self.topics.get(&message.topic) {
            Some(_) => key_bytes + Log::bytes_of_one(body_bytes),
            None => growth(self),
        };
        self.make_room(growth, alone, now)
    }

    /// Makes room for something that needs `growth`, and `alone` when no message is left.
    fn make_room(
        &mut self,
        growth: impl Fn(&Self) -> usize,
        alone: usize,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let max = usize::try_from(self.options.bytes_max).unwrap_or(usize::MAX);
        if self.bytes() + growth(self) <= max {
            return Ok(());
        }
        while self.keys.purge(now, usize::MAX) {}
        loop {
            let needed = growth(self);
            if self.bytes() + needed <= max {
                return Ok(());
            }
            // What stays when all messages are gone decides before the first one goes.
            let can_fit = self.topics_bytes + self.keys.bytes() + alone <= max;
            if self.options.when_full == WhenFull::Refuse || !can_fit {
                return Err(StorageError::Full(Shortage::Budget { used: self.bytes(), needed, max }.into()));
            }
            self.evict((self.bytes() + needed - max).saturating_add(max / SLACK_DIVISOR));
        }
    }

    /// Removes the oldest messages of whichever topic is the largest, until `target` bytes are free or
    /// no message is left. There is at least one message when this is called.
    fn evict(&mut self, target: usize) {
        let mut logs: Vec<&mut Log> =
            self.topics.values_mut().map(|topic| &mut topic.log).filter(|log| log.length() > 0).collect();
        let mut largest: BinaryHeap<(usize, usize)> =
            logs.iter().enumerate().map(|(at, log)| (log.bytes(), at)).collect();
        let mut freed = 0;
        while freed < target
            && let Some((bytes, at)) = largest.pop()
        {
            self.messages -= logs[at].evict();
            freed += bytes - logs[at].bytes();
            if logs[at].length() > 0 {
                largest.push((logs[at].bytes(), at));
            }
        }
        self.logs_bytes -= freed;
    }

    fn put(&mut self, name: &TopicName, description: TopicUpdate, now: Timestamp) {
        let topic = Box::new(Shelved {
            number: self.next_number,
            created_at: now,
            description: description.description.map(String::into_boxed_str),
            retention_seconds: description.retention_seconds,
            log: Log::new(self.floor, Epoch::Marked(self.next_number)),
        });
        self.next_number += 1;
        self.topics_bytes += topic.empty_bytes(name);
        self.topics.insert(name.clone(), topic);
    }

    pub(super) fn create(
        &mut self,
        name: &TopicName,
        description: TopicUpdate,
        now: Timestamp,
    ) -> Result<Topic, StorageError> {
        if self.topics.contains_key(name) {
            return Err(StorageError::TopicExists);
        }
        self.check_topics_limit()?;
        let needed = bytes_of_empty(name, description.description.as_deref());
        self.make_room(|_| needed, needed, now)?;
        self.put(name, description, now);
        self.topic(name).map(|topic| topic.to_topic(name))
    }

    pub(super) fn update(
        &mut self,
        name: &TopicName,
        update: TopicUpdate,
        now: Timestamp,
    ) -> Result<Topic, StorageError> {
        let old = self.topic(name)?.empty_bytes(name);
        let new = bytes_of_empty(name, update.description.as_deref());
        let needed = new.saturating_sub(old);
        self.make_room(|_| needed, needed, now)?;
        let topic = self.topics.get_mut(name).ok_or(StorageError::NoTopic)?;
        topic.description = update.description.map(String::into_boxed_str);
        topic.retention_seconds = update.retention_seconds;
        self.topics_bytes = self.topics_bytes - old + new;
        Ok(topic.to_topic(name))
    }

    pub(super) fn remove(&mut self, name: &TopicName) -> Result<Removed, StorageError> {
        let topic = self.topics.remove(name).ok_or(StorageError::NoTopic)?;
        self.floor = self.floor.max(topic.log.last_given());
        self.messages -= topic.log.length();
        self.topics_bytes -= topic.empty_bytes(name);
        self.logs_bytes -= topic.log.bytes();
        Ok(Removed(topic))
    }

    fn topic(&self, name: &TopicName) -> Result<&Shelved, StorageError> {
        self.topics.get(name).map(|topic| &**topic).ok_or(StorageError::NoTopic)
    }

    pub(super) fn read(&self, name: &TopicName, range: Range, now: Timestamp) -> Result<Batch, StorageError> {
        self.topic(name).map(|topic| topic.log.read(name, range, now))
    }

    pub(super) fn tail(&self, name: &TopicName) -> Result<Tail, StorageError> {
        self.topic(name).map(|topic| topic.log.tail())
    }

    pub(super) fn get(
        &self,
        name: &TopicName,
        id: MessageId,
        now: Timestamp,
    ) -> Result<Option<StoredMessage>, StorageError> {
        self.topic(name).map(|topic| topic.log.get(id, now))
    }

    pub(super) fn trim(&mut self, name: &TopicName, trim: Trim) -> Result<u64, StorageError> {
        let topic = self.topics.get_mut(name).ok_or(StorageError::NoTopic)?;
        let bytes = topic.log.bytes();
        let removed = topic.log.trim(trim);
        self.messages -= removed;
        self.logs_bytes = self.logs_bytes - bytes + topic.log.bytes();
        Ok(removed as u64)
    }

    pub(super) fn remove_message(&mut self, name: &TopicName, id: MessageId) -> Result<bool, StorageError> {
        let topic = self.topics.get_mut(name).ok_or(StorageError::NoTopic)?;
        let bytes = topic.log.bytes();
        let is_removed = topic.log.remove(id);
        self.messages -= usize::from(is_removed);
        self.logs_bytes = self.logs_bytes - bytes + topic.log.bytes();
        Ok(is_removed)
    }

    pub(super) fn list(&self, after: Option<&TopicName>, limit: usize) -> TopicList {
        let bounds = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let mut rest = self.topics.range::<TopicName, _>(bounds);
        let topics: Vec<Topic> =
            rest.by_ref().take(limit).map(|(name, topic)| topic.to_topic(name)).collect();
        let next = rest.next().and_then(|_| topics.last()).map(|topic| topic.topic_name.clone());
        TopicList { topics, next }
    }

    pub(super) fn describe(&self, name: &TopicName) -> Result<TopicState, StorageError> {
        self.topic(name).map(|topic| TopicState {
            topic: topic.to_topic(name),
            length: topic.log.length() as u64,
            first_id: topic.log.first_id(),
            last_id: topic.log.last_id(),
        })
    }

    pub(super) fn stats(&self) -> TopicsStats {
        TopicsStats { total_topics: self.topics.len() as u64, total_messages: self.messages as u64 }
    }

    /// Forgets up to `count` idempotency keys that have ended, and tells whether there may be more.
    pub(super) fn purge_keys(&mut self, now: Timestamp, count: usize) -> bool {
        self.keys.purge(now, count)
    }

    /// Removes what is older than its retention from up to `count` topics after `after`. Returns what
    /// it did and the name to go on from, `None` at the end.
    pub(super) fn sweep(
        &mut self,
        after: Option<&TopicName>,
        count: usize,
        now: Timestamp,
    ) -> (Swept, Option<TopicName>) {
        let bounds = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let mut swept = Swept::default();
        let mut last = None;
        for (name, topic) in self.topics.range_mut::<TopicName, _>(bounds).take(count) {
            swept.topics += 1;
            last = Some(name);
            let own = topic.retention_seconds.map(Duration::from_secs);
            let bytes = topic.log.bytes();
            if let Some(retention) = own.or(self.options.limits.retention) {
                let oldest = MessageId::new(now.saturating_sub(retention).as_millis(), 0);
                let removed = topic.log.trim(Trim::Before(oldest));
                self.messages -= removed;
                swept.removed += removed as u64;
            }
            topic.log.forget_deleted();
            self.logs_bytes = self.logs_bytes - bytes + topic.log.bytes();
        }
        let next = if swept.topics < count as u64 { None } else { last.cloned() };
        (swept, next)
    }
}
