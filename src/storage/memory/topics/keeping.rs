//! What topics keep: what an append, a sweep and a full budget remove from them.

use std::collections::BinaryHeap;
use std::ops::Bound;
use std::time::Duration;

use tidemill_proto::topics::WhenFull;
use tidemill_proto::{MessageId, Timestamp, TopicName};

use super::super::group::Group;
use super::super::log::Log;
use super::super::work::Kept;
use super::{PURGED_PER_LOCK_MAX, Removed, StoredTopic, Topics};
use crate::storage::{Freeze, GroupsSwept, NewMessage, StorageError, Swept, TopicPolicy, Trim};

impl StoredTopic {
    /// Returns what is removed from the topic: by what it says itself, and where it says nothing, what comes with an append.
    pub(super) fn policy(&self, common: TopicPolicy) -> TopicPolicy {
        match self.when_full {
            WhenFull::DropOld => self.bounds(common),
            WhenFull::Refuse => TopicPolicy { age: common.age, ..TopicPolicy::newest(u64::MAX) },
        }
    }

    fn bounds(&self, common: TopicPolicy) -> TopicPolicy {
        TopicPolicy {
            number: self.max_messages.unwrap_or(common.number),
            bytes: self.max_bytes.or(common.bytes),
            age: common.age,
        }
    }

    /// Returns whether the topic refuses what comes now.
    pub(super) fn is_full(&self, common: TopicPolicy) -> bool {
        let TopicPolicy { number, bytes, .. } = self.bounds(common);
        self.when_full == WhenFull::Refuse
            && (self.log.length() as u64 >= number
                || bytes.is_some_and(|bytes| self.log.bytes() as u64 >= bytes))
    }

    /// Returns whether the topic is to be removed, since nothing was done with it for as long as it says: it was given no
    /// message, nothing waits in it for later, and its groups are done with all that it has.
    fn is_idle(&self, now: Timestamp) -> bool {
        let Some(seconds) = self.idle_seconds.filter(|_| !self.is_importing()) else { return false };
        let used_at = self.touched_at.max(Timestamp::from_millis(self.log.last_given().ms));
        let waits = self.schedules.as_ref().is_some_and(|schedules| schedules.next_due().is_some());
        let is_done = |held| self.log.last_id().is_none_or(|last| last < held);
        used_at.saturating_add(Duration::from_secs(seconds)) <= now
            && !waits
            && self.held_from().is_none_or(is_done)
    }

    /// Returns whether it is being taken over.
    fn is_importing(&self) -> bool {
        self.freeze == Some(Freeze::Importing)
    }

    /// Returns the first id that not every group has acknowledged; `None` where the topic has no groups.
    fn held_from(&self) -> Option<MessageId> {
        let groups = self.groups.iter().flat_map(|groups| groups.values());
        groups.map(Group::holds_from).min()
    }
}

impl Topics {
    pub(super) fn append_to_log(&mut self, message: &NewMessage, now: Timestamp) -> MessageId {
        let topic = self.topics.get_mut(&message.topic).expect("an append has found or made its topic");
        let (bytes, length) = (topic.log.bytes(), topic.log.length());
        let (policy, held_from) = (topic.policy(message.policy), topic.held_from());
        let id = topic.log.append(now, message, &policy, held_from);
        self.messages = self.messages - length + topic.log.length();
        self.logs_bytes = self.logs_bytes - bytes + topic.log.bytes();
        if topic.latest.is_some() {
            self.topics_bytes -= topic.empty_bytes(&message.topic);
            topic.note_latest(id, message, now);
            self.topics_bytes += topic.empty_bytes(&message.topic);
        }
        id
    }

    pub(in crate::storage::memory) fn trim(
        &mut self,
        name: &TopicName,
        trim: Trim,
    ) -> Result<u64, StorageError> {
        let Some(topic) = self.topics.get_mut(name) else { return self.trim_bucket_log(name, trim) };
        let bytes = topic.log.bytes();
        let removed = topic.log.trim(trim);
        self.topics_bytes -= topic.forget_trimmed();
        self.messages -= removed;
        self.logs_bytes = self.logs_bytes - bytes + topic.log.bytes();
        Ok(removed as u64)
    }

    pub(in crate::storage::memory) fn remove_message(
        &mut self,
        name: &TopicName,
        id: MessageId,
    ) -> Result<bool, StorageError> {
        let topic = self.topics.get_mut(name).ok_or(StorageError::NoTopic)?;
        let bytes = topic.log.bytes();
        let is_removed = topic.log.remove(id);
        self.messages -= usize::from(is_removed);
        self.logs_bytes = self.logs_bytes - bytes + topic.log.bytes();
        let (was_latest, freed) = topic.forget_latest(id);
        self.topics_bytes -= freed;
        Ok(is_removed || was_latest)
    }

    /// Removes what every group of a topic has acknowledged, where the topic says so.
    pub(super) fn remove_acknowledged(&mut self, name: &TopicName) {
        let is_asked = |topic: &&mut Box<StoredTopic>| topic.keep_until_acked && !topic.is_importing();
        let Some(topic) = self.topics.get_mut(name).filter(is_asked) else { return };
        let Some(from) = topic.held_from() else { return };
        let (bytes, count) = (topic.log.bytes(), topic.log.count_before(from));
        if count > 0 {
            if topic.max_bytes.is_some() {
                topic.log.trim(Trim::Before(from));
            } else {
                // Memory goes back with whole segments.
                topic.log.remove_oldest(count);
            }
            self.messages -= count;
            self.logs_bytes = self.logs_bytes - bytes + topic.log.bytes();
        }
    }

    /// Removes a topic, if nothing was done with it for as long as it says.
    pub(in crate::storage::memory) fn remove_idle(
        &mut self,
        name: &TopicName,
        now: Timestamp,
    ) -> Option<Removed> {
        let is_idle = self.topics.get(name).is_some_and(|topic| topic.is_idle(now));
        if is_idle { self.remove(name).ok() } else { None }
    }

    /// Removes the oldest messages of whichever topic, or log of a bucket, is the largest, until `target` bytes are free or no message is left:
    /// first what no group holds, and of topics that refuse what has no room nothing. There is at least one message when this is called.
    pub(super) fn evict(&mut self, target: usize) {
        let mut freed = self.evict_from(target, |topic| match topic.when_full {
            WhenFull::DropOld => topic.held_from(),
            WhenFull::Refuse => Some(MessageId::MIN),
        });
        if freed < target {
            freed += self.evict_from(target - freed, |_| None);
        }
        self.logs_bytes -= freed;
    }

    fn evict_from(&mut self, target: usize, held_from: impl Fn(&StoredTopic) -> Option<MessageId>) -> usize {
        let topics = self.topics.values_mut().filter(|topic| topic.log.length() > 0);
        let topics = topics.map(|topic| (true, held_from(topic), &mut topic.log));
        let buckets = self.buckets.values_mut().map(|bucket| (false, None, bucket.log_mut()));
        let mut logs: Vec<(bool, Option<MessageId>, &mut Log)> =
            topics.chain(buckets.filter(|(.., log)| log.length() > 0)).collect();
        let mut largest: BinaryHeap<(usize, usize)> =
            logs.iter().enumerate().map(|(at, (.., log))| (log.bytes(), at)).collect();
        let mut freed = 0;
        while freed < target
            && let Some((bytes, at)) = largest.pop()
        {
            let (is_topic, held_from, log) = &mut logs[at];
            let count = log.evict(*held_from);
            // What is in the log of a bucket is no message to those who count them.
            self.messages -= if *is_topic { count } else { 0 };
            freed += bytes - log.bytes();
            if count > 0 && log.length() > 0 {
                largest.push((log.bytes(), at));
            }
        }
        freed
    }

    /// Removes what topics do not keep by their own words, what is older than its retention, and idempotency keys that have
    /// ended, from up to `count`
    /// topics from `from` on, and adds what their groups have, and those that are idle. Returns what it did and where to go on, `None` at the end.
    pub(in crate::storage::memory) fn sweep(
        &mut self,
        from: &Bound<TopicName>,
        count: usize,
        now: Timestamp,
        all: &mut GroupsSwept,
        idle: &mut Vec<TopicName>,
    ) -> (Swept, Option<Bound<TopicName>>) {
        let bounds = (from.as_ref(), Bound::Unbounded);
        let mut swept = Swept::default();
        let mut purged = 0;
        let mut last = None;
        for (name, topic) in self.topics.range_mut::<TopicName, _>(bounds).take(count) {
            let (ended, freed) = topic.purge_keys(now, PURGED_PER_LOCK_MAX - purged);
            self.keys_bytes -= freed;
            purged += ended;
            if purged == PURGED_PER_LOCK_MAX {
                return (swept, Some(Bound::Included(name.clone())));
            }
            swept.topics += 1;
            last = Some(name);
            if topic.is_importing() {
                // It has not got its groups yet, which may hold some of it.
                continue;
            }
            let own = topic.retention_seconds.map(Duration::from_secs);
            let bytes = topic.log.bytes();
            let (before, held_from) = (topic.log.length(), topic.held_from());
            if let Some(retention) = own.or(self.options.limits.retention) {
                topic.log.remove_oldest(topic.log.count_older(retention, held_from, now));
            }
            // What is set for all topics is trimmed behind what is appended.
            let policy = topic.policy(TopicPolicy { age: None, ..TopicPolicy::newest(u64::MAX) });
            topic.log.keep(&policy, held_from, now);
            if let Some(latest) = &mut topic.latest {
                let before = latest.bytes();
                latest.keep(policy.number, policy.bytes, now);
                self.topics_bytes -= before - latest.bytes();
            }
            let removed = before - topic.log.length();
            if removed > 0 {
                topic.log.compact();
            }
            self.messages -= removed;
            swept.removed += removed as u64;
            let StoredTopic { groups, log, .. } = &**topic;
            for (group, of) in groups.iter().flat_map(|groups| groups.iter()) {
                all.add(of.swept(&Kept { topic: name, log, now }, now));
                if of.is_dying() && swept.dying.len() < Swept::DYING_MAX {
                    swept.dying.push((name.clone(), group.clone()));
                }
            }
            if topic.is_idle(now) {
                idle.push(name.clone());
            }
            topic.log.forget_deleted();
            self.logs_bytes = self.logs_bytes - bytes + topic.log.bytes();
        }
        let is_end = swept.topics < count as u64;
        (swept, last.filter(|_| !is_end).cloned().map(Bound::Excluded))
    }
}
