//! All topics and buckets of the backend, and the budget of bytes that they share.
//!
//! It owns what exists, what it weighs, and what gives way when the budget is used up. Idempotency keys
//! have a budget of their own, so that no number of them takes the place of a message. It must not know
//! locks or futures.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_proto::topics::{self, RunState, Topic, TopicUpdate};
use tidemill_proto::work::GroupName;
use tidemill_proto::{BucketName, MessageId, Timestamp, TopicName};

use super::bucket::Bucket;
use super::group::Group;
use super::keys::Keys;
use super::latest::LatestTable;
use super::log::Log;
use super::runs;
use super::schedules::Schedules;
use super::segment::BODY_BYTES_MAX;
use super::{MemoryOptions, WhenFull};
use crate::chance::random;
use crate::storage::{
    Appended, Batch, Epoch, Freeze, NewMessage, Part, Range, RunEnd, RunEnding, StorageError, StoredMessage,
    Tail, TopicChange,
};

mod buckets;
mod copying;
mod keeping;
mod latest;
mod listing;
mod remembering;
mod schedules;
mod weighing;

/// What a topic costs besides its name, its description and its messages: itself, its slot in a tree
/// whose nodes are half full at worst, and the headers and rounding of the two allocations.
const TOPIC_BYTES: usize = size_of::<StoredTopic>() + 2 * size_of::<(TopicName, Box<StoredTopic>)>() + 48;
/// Idempotency keys that an append may have to clear away: more than it can add, so that keys which
/// have ended never pile up, and few enough not to be felt.
const PURGED_PER_APPEND_MAX: usize = 8;
/// Idempotency keys that a sweep forgets before it lets others have the lock.
const PURGED_PER_LOCK_MAX: usize = 4_096;
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
    #[error("idempotency keys take {used} of {max} bytes and {needed} more are needed")]
    Keys { used: usize, needed: usize, max: usize },
}

/// A topic.
#[derive(Debug)]
struct StoredTopic {
    created_at: Timestamp,
    owner: Option<Box<str>>,
    description: Option<Box<str>>,
    retention_seconds: Option<u64>,
    max_messages: Option<u64>,
    max_bytes: Option<u64>,
    when_full: topics::WhenFull,
    keep_until_acked: bool,
    idle_seconds: Option<u64>,
    /// The latest messages of its keys, if it is compacted; in a box, as most are not.
    latest: Option<Box<LatestTable>>,
    /// When it was made, or its description changed last.
    touched_at: Timestamp,
    ended: Option<Box<RunEnd>>,
    freeze: Option<Freeze>,
    log: Log,
    /// In a box of their own: most topics have none.
    keys: Option<Box<OfMessages>>,
    groups: Option<Box<Groups>>,
    /// What waits for later; in a box, too.
    schedules: Option<Box<Schedules>>,
}

/// The idempotency keys of a topic.
type OfMessages = Keys<(MessageId, Timestamp)>;

/// The groups of a topic.
pub(super) type Groups = BTreeMap<GroupName, Group>;

impl StoredTopic {
    fn to_topic(&self, name: &TopicName) -> Topic {
        Topic {
            topic_id: name.clone(),
            topic_name: name.clone(),
            owner_id: self.owner.as_deref().map(str::to_owned),
            created_at: Some(self.created_at),
            description: self.description.as_deref().map(str::to_owned),
            retention_seconds: self.retention_seconds,
            max_messages: self.max_messages,
            max_bytes: self.max_bytes,
            when_full: self.when_full,
            keep_until_acked: self.keep_until_acked,
            idle_seconds: self.idle_seconds,
            compact_by: self.latest.as_ref().map(|latest| latest.field().to_owned()),
        }
    }

    /// Forgets up to `count` idempotency keys that have ended; returns how many, and the bytes that come free.
    fn purge_keys(&mut self, now: Timestamp, count: usize) -> (usize, usize) {
        let Some(keys) = &mut self.keys else { return (0, 0) };
        let before = keys.bytes();
        let purged = keys.purge(now, count);
        let freed = before - keys.bytes();
        self.keys.take_if(|keys| keys.bytes() == 0);
        (purged, freed)
    }

    /// Checks that it takes messages.
    fn check_open(&self) -> Result<(), StorageError> {
        match (&self.ended, self.freeze) {
            (Some(ended), _) => Err(runs::refusal(ended)),
            (None, Some(freeze)) => Err(StorageError::ReadOnly(freeze.into())),
            (None, None) => Ok(()),
        }
    }

    /// Returns the bytes that the topic holds without messages.
    fn empty_bytes(&self, name: &TopicName) -> usize {
        let groups = self.groups.iter().flat_map(|groups| groups.values());
        let groups: usize = groups.map(Group::bytes).sum();
        let ended = runs::len_bytes(self.ended.as_deref());
        let latest = self.latest.as_ref().map_or(0, |latest| latest.bytes());
        bytes_of_empty(name, self.description.as_deref(), self.owner.as_deref()) + groups + ended + latest
    }
}

fn bytes_of_empty(name: &TopicName, description: Option<&str>, owner: Option<&str>) -> usize {
    TOPIC_BYTES + name.as_str().len() + description.map_or(0, str::len) + owner.map_or(0, str::len)
}

/// A topic that was taken out of them. Dropping it can take long, so it is not dropped under a lock.
#[derive(Debug)]
#[expect(dead_code, reason = "it is held to be dropped")]
pub(super) struct Removed(Box<StoredTopic>);

/// All topics.
#[derive(Debug)]
pub(super) struct Topics {
    options: MemoryOptions,
    topics: BTreeMap<TopicName, Box<StoredTopic>>,
    /// Whether no more topics are made.
    refuses_new: bool,
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
    /// Bytes of idempotency keys, which have a budget of their own.
    keys_bytes: usize,
    /// Before this time no idempotency key ends.
    keys_end: Timestamp,
    /// Bytes of what waits for later. Like topics, it gives way to nothing.
    schedules_bytes: usize,
    /// The number that was given last to something that waits.
    last_schedule: MessageId,
    /// How much waits for later.
    waiting: u64,
    /// When something is due next, by topic.
    due: BTreeSet<(Timestamp, TopicName)>,
    buckets: BTreeMap<BucketName, Box<Bucket>>,
    /// Bytes of buckets without their logs. They give way to nothing.
    buckets_bytes: usize,
    /// When the next key of a bucket is over, by bucket.
    keys_due: BTreeSet<(Timestamp, BucketName)>,
}

impl Topics {
    pub(super) fn new(options: MemoryOptions) -> Self {
        Self {
            options,
            topics: BTreeMap::new(),
            refuses_new: false,
            // So that no topic of another process has it, of which one here may be a copy.
            next_number: random() >> 2,
            floor: MessageId::MIN,
            messages: 0,
            topics_bytes: 0,
            logs_bytes: 0,
            keys_bytes: 0,
            keys_end: Timestamp::from_millis(0),
            schedules_bytes: 0,
            last_schedule: MessageId::MIN,
            waiting: 0,
            due: BTreeSet::new(),
            buckets: BTreeMap::new(),
            buckets_bytes: 0,
            keys_due: BTreeSet::new(),
        }
    }

    /// Returns the bytes that topics, messages and buckets hold.
    pub(super) fn bytes(&self) -> usize {
        self.logs_bytes + self.bytes_without_logs()
    }

    /// Returns the bytes that give way to nothing.
    fn bytes_without_logs(&self) -> usize {
        self.topics_bytes + self.schedules_bytes + self.buckets_bytes
    }

    /// Returns the bytes that idempotency keys hold.
    pub(super) fn keys_bytes(&self) -> usize {
        self.keys_bytes
    }

    pub(super) fn append(&mut self, message: &NewMessage, now: Timestamp) -> Result<Appended, StorageError> {
        self.append_where(message, now, || Ok(()))
    }

    /// Appends a message where `may` says so, which is asked unless its idempotency key was used.
    pub(super) fn append_where(
        &mut self,
        message: &NewMessage,
        now: Timestamp,
        may: impl FnOnce() -> Result<(), StorageError>,
    ) -> Result<Appended, StorageError> {
        if let Some(topic) = self.topics.get_mut(&message.topic) {
            let (_, freed) = topic.purge_keys(now, PURGED_PER_APPEND_MAX);
            self.keys_bytes -= freed;
            if let (Some(key), Some(keys)) = (&message.idempotency, &topic.keys)
                && let Some((id, timestamp)) = keys.find(key, now)?
            {
                return Ok(Appended { id, timestamp, replayed: true });
            }
        }
        may()?;
        if !self.topics.contains_key(&message.topic) && message.unique.is_none() && !message.create_topic {
            return Err(StorageError::NoTopic);
        }
        if let Some(first) = self.find_unique(message, now)? {
            return Ok(first);
        }
        self.topics.get(&message.topic).map_or(Ok(()), |topic| topic.check_open())?;
        if let Some(expected) = message.expected_last {
            let last = self.topics.get(&message.topic).and_then(|topic| topic.log.tail().last);
            let last = last.unwrap_or(MessageId::MIN);
            if last != expected {
                return Err(StorageError::NotLast(last));
            }
        }
        match self.topics.get(&message.topic) {
            Some(topic) if topic.is_full(message.policy) => return Err(StorageError::TopicFull),
            Some(_) => {}
            None => self.check_may_make()?,
        }
        if let Some(key) = &message.idempotency {
            self.check_room_for_key(&message.topic, key, now)?;
        }
        self.make_room_for(message)?;

        if !self.topics.contains_key(&message.topic) {
            self.put(&message.topic, TopicUpdate::default(), message.owner.as_deref(), now);
        }
        let appended =
            Appended { id: self.append_to_log(message, now), timestamp: message.timestamp, replayed: false };
        if let Some(key) = &message.idempotency {
            self.remember(&message.topic, key, appended, now);
        }
        self.note_unique(message, appended, now);
        Ok(appended)
    }

    fn check_topics_limit(&self) -> Result<(), StorageError> {
        let there_are_less = (self.topics.len() as u64) < self.options.limits.topics_max;
        if there_are_less { Ok(()) } else { Err(StorageError::TopicsLimit) }
    }

    fn make_room_for(&mut self, message: &NewMessage) -> Result<(), StorageError> {
        let body_bytes = message.body.len_bytes();
        if body_bytes > BODY_BYTES_MAX {
            return Err(StorageError::Full(Shortage::Body(body_bytes).into()));
        }
        let growth = |all: &Self| match all.topics.get(&message.topic) {
            Some(topic) => {
                topic.log.growth(body_bytes, &topic.policy(message.policy))
                    + topic.latest_growth(&message.body)
            }
            None => {
                bytes_of_empty(&message.topic, None, message.owner.as_deref()) + Log::bytes_of_one(body_bytes)
            }
        };
        let alone = match self.topics.get(&message.topic) {
            Some(topic) => Log::bytes_of_one(body_bytes) + topic.latest_growth(&message.body),
            None => growth(self),
        };
        self.make_room(growth, alone)
    }

    /// Makes room for something that needs `growth`, and `alone` when no message is left.
    fn make_room(&mut self, growth: impl Fn(&Self) -> usize, alone: usize) -> Result<(), StorageError> {
        let max = usize::try_from(self.options.bytes_max).unwrap_or(usize::MAX);
        loop {
            let needed = growth(self);
            if self.bytes() + needed <= max {
                return Ok(());
            }
            // What stays when all messages are gone decides before the first one goes.
            let can_fit = self.bytes_without_logs() + alone <= max;
            if self.options.when_full == WhenFull::Refuse || !can_fit {
                return Err(StorageError::Full(Shortage::Budget { used: self.bytes(), needed, max }.into()));
            }
            self.evict((self.bytes() + needed - max).saturating_add(max / SLACK_DIVISOR));
        }
    }

    fn put(&mut self, name: &TopicName, description: TopicUpdate, owner: Option<&str>, now: Timestamp) {
        let topic = Box::new(StoredTopic {
            created_at: now,
            owner: owner.map(Into::into),
            description: description.description.map(String::into_boxed_str),
            retention_seconds: description.retention_seconds,
            max_messages: description.max_messages,
            max_bytes: description.max_bytes,
            when_full: description.when_full.unwrap_or_default(),
            keep_until_acked: description.keep_until_acked.unwrap_or_default(),
            idle_seconds: description.idle_seconds,
            latest: description.compact_by.map(|field| Box::new(LatestTable::new(&field, None))),
            touched_at: now,
            ended: None,
            freeze: None,
            log: Log::new(self.floor, Epoch::Marked(self.next_number), now),
            keys: None,
            groups: None,
            schedules: None,
        });
        self.next_number += 1;
        self.topics_bytes += topic.empty_bytes(name);
        self.topics.insert(name.clone(), topic);
    }

    pub(super) fn create(
        &mut self,
        name: &TopicName,
        description: TopicUpdate,
        owner: Option<&str>,
        now: Timestamp,
    ) -> Result<Topic, StorageError> {
        if self.topics.contains_key(name) {
            return Err(StorageError::TopicExists);
        }
        self.check_may_make()?;
        let latest = description.compact_by.as_ref().map_or(0, |field| LatestTable::new(field, None).bytes());
        let needed = bytes_of_empty(name, description.description.as_deref(), owner) + latest;
        self.make_room(|_| needed, needed)?;
        self.put(name, description, owner, now);
        self.topic(name).map(|topic| topic.to_topic(name))
    }

    pub(super) fn update(
        &mut self,
        name: &TopicName,
        change: TopicChange,
        now: Timestamp,
    ) -> Result<Topic, StorageError> {
        let topic = self.topic(name)?;
        let old = topic.empty_bytes(name);
        let description = change.description.or(topic.description.as_deref().map(str::to_owned));
        let new = old - topic.description.as_deref().map_or(0, str::len)
            + description.as_deref().map_or(0, str::len);
        let latest = match &change.compact_by {
            Part::Set(Some(field)) => topic.latest_by(field),
            Part::Set(None) | Part::Kept => None,
        };
        let needed = new.saturating_sub(old) + latest.as_ref().map_or(0, |latest| latest.bytes());
        self.make_room(|_| needed, needed)?;
        let topic = self.topics.get_mut(name).ok_or(StorageError::NoTopic)?;
        topic.description = description.map(String::into_boxed_str);
        topic.retention_seconds = change.retention_seconds.or(topic.retention_seconds);
        topic.max_messages = change.max_messages.or(topic.max_messages);
        topic.max_bytes = change.max_bytes.or(topic.max_bytes);
        topic.when_full = change.when_full.or(Some(topic.when_full)).unwrap_or_default();
        let keep_until_acked = change.keep_until_acked.or(Some(topic.keep_until_acked));
        topic.keep_until_acked = keep_until_acked.unwrap_or_default();
        topic.idle_seconds = change.idle_seconds.or(topic.idle_seconds);
        topic.touched_at = now;
        if latest.is_some() || change.compact_by == Part::Set(None) {
            topic.latest = latest;
        }
        self.topics_bytes = self.topics_bytes - old + topic.empty_bytes(name);
        let changed = topic.to_topic(name);
        self.remove_acknowledged(name);
        Ok(changed)
    }

    /// Ends a topic.
    pub(super) fn end_run(
        &mut self,
        name: &TopicName,
        ending: RunEnding<'_>,
    ) -> Result<RunEnd, StorageError> {
        let topic = self.topics.get_mut(name).ok_or(StorageError::NoTopic)?;
        let before = topic.empty_bytes(name);
        let ended = runs::end(topic.ended.as_deref(), ending)?;
        // A reason is small, and a topic that cannot be ended for want of room would grow instead.
        topic.ended = Some(Box::new(ended.clone()));
        self.topics_bytes = self.topics_bytes - before + topic.empty_bytes(name);
        self.drop_schedules(name);
        Ok(ended)
    }

    pub(super) fn remove(&mut self, name: &TopicName) -> Result<Removed, StorageError> {
        let topic = self.topics.remove(name).ok_or(StorageError::NoTopic)?;
        self.floor = self.floor.max(topic.log.last_given());
        self.messages -= topic.log.length();
        self.topics_bytes -= topic.empty_bytes(name);
        self.logs_bytes -= topic.log.bytes();
        self.keys_bytes -= topic.keys.as_ref().map_or(0, |keys| keys.bytes());
        if let Some(schedules) = &topic.schedules {
            self.schedules_bytes -= schedules.bytes();
            self.waiting -= schedules.count();
            if let Some(due) = schedules.next_due() {
                self.due.remove(&(due, name.clone()));
            }
        }
        Ok(Removed(topic))
    }

    fn topic(&self, name: &TopicName) -> Result<&StoredTopic, StorageError> {
        self.topics.get(name).map(|topic| &**topic).ok_or(StorageError::NoTopic)
    }

    pub(super) fn read(&self, name: &TopicName, range: Range, now: Timestamp) -> Result<Batch, StorageError> {
        let Some(topic) = self.topics.get(name) else {
            return Ok(self.bucket_log(name)?.read(name, range, None, now));
        };
        let untold = topic.latest.as_ref().map(|latest| latest.untold());
        let mut batch = topic.log.read(name, range, untold, now);
        batch.state = topic.ended.as_ref().map_or(RunState::Open, |ended| ended.state);
        Ok(batch)
    }

    pub(super) fn tail(&self, name: &TopicName) -> Result<Tail, StorageError> {
        let Some(topic) = self.topics.get(name) else { return Ok(self.bucket_log(name)?.tail()) };
        Ok(Tail { ended: topic.ended.as_deref().cloned(), ..topic.log.tail() })
    }

    pub(super) fn get(
        &self,
        name: &TopicName,
        id: MessageId,
        now: Timestamp,
    ) -> Result<Option<StoredMessage>, StorageError> {
        let Some(topic) = self.topics.get(name) else { return Ok(self.bucket_log(name)?.get(id, now)) };
        let latest = || topic.latest.as_ref().and_then(|latest| latest.get(id, now));
        Ok(topic.log.get(id, now).or_else(latest))
    }

    /// Works on the groups of a topic, and counts what they hold then.
    ///
    /// # Errors
    /// There is no such topic, or no room for `needed` bytes more.
    pub(super) fn with_groups<T>(
        &mut self,
        name: &TopicName,
        needed: usize,
        work: impl FnOnce(&mut Groups, &Log, u64) -> T,
    ) -> Result<T, StorageError> {
        self.topic(name)?;
        if needed > 0 {
            self.make_room(|_| needed, needed)?;
        }
        let number = self.next_number;
        self.next_number += 1;
        let topic = self.topics.get_mut(name).ok_or(StorageError::NoTopic)?;
        let before = topic.empty_bytes(name);
        let StoredTopic { groups, log, .. } = &mut **topic;
        let done = work(groups.get_or_insert_default(), log, number);
        groups.take_if(|groups| groups.is_empty());
        self.topics_bytes = self.topics_bytes - before + topic.empty_bytes(name);
        self.remove_acknowledged(name);
        Ok(done)
    }

    /// Returns why a topic was cancelled, if it ever was.
    pub(super) fn cancelled(&self, name: &TopicName) -> Option<Box<str>> {
        self.topics.get(name)?.ended.as_ref()?.reason.clone()
    }

    /// Returns the groups of a topic, if it has any, and its messages.
    pub(super) fn groups(&self, name: &TopicName) -> Result<(Option<&Groups>, &Log), StorageError> {
        self.topic(name).map(|topic| (topic.groups.as_deref(), &topic.log))
    }
}
