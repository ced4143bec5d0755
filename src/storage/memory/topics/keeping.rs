//! What topics keep: what an append, a sweep and a full budget remove from them.

use std::collections::BinaryHeap;
use std::ops::Bound;
use std::time::Duration;

use tidemill_proto::{MessageId, Timestamp, TopicName};

use super::super::group::Group;
use super::super::log::Log;
use super::{PURGED_PER_LOCK_MAX, StoredTopic, Topics};
use crate::storage::{NewMessage, Swept, TopicPolicy};

impl StoredTopic {
    /// Returns what the topic keeps: what it says itself, and where it says nothing, what comes with an append.
    pub(super) fn policy(&self, common: TopicPolicy) -> TopicPolicy {
        TopicPolicy {
            number: self.max_messages.unwrap_or(common.number),
            bytes: self.max_bytes.or(common.bytes),
            age: common.age,
        }
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
        id
    }

    /// Removes the oldest messages of whichever topic is the largest, until `target` bytes are free or no message is left:
    /// first what no group holds. There is at least one message when this is called.
    pub(super) fn evict(&mut self, target: usize) {
        let mut freed = self.evict_from(target, StoredTopic::held_from);
        if freed < target {
            freed += self.evict_from(target - freed, |_| None);
        }
        self.logs_bytes -= freed;
    }

    fn evict_from(&mut self, target: usize, held_from: impl Fn(&StoredTopic) -> Option<MessageId>) -> usize {
        let topics = self.topics.values_mut().filter(|topic| topic.log.length() > 0);
        let mut logs: Vec<(Option<MessageId>, &mut Log)> =
            topics.map(|topic| (held_from(topic), &mut topic.log)).collect();
        let mut largest: BinaryHeap<(usize, usize)> =
            logs.iter().enumerate().map(|(at, (_, log))| (log.bytes(), at)).collect();
        let mut freed = 0;
        while freed < target
            && let Some((bytes, at)) = largest.pop()
        {
            let (held_from, log) = &mut logs[at];
            let count = log.evict(*held_from);
            self.messages -= count;
            freed += bytes - log.bytes();
            if count > 0 && log.length() > 0 {
                largest.push((log.bytes(), at));
            }
        }
        freed
    }

    /// Removes what topics do not keep by their own words, what is older than its retention, and idempotency keys that have
    /// ended, from up to `count`
    /// topics from `from` on. Returns what it did and where to go on, `None` at the end.
    pub(in crate::storage::memory) fn sweep(
        &mut self,
        from: &Bound<TopicName>,
        count: usize,
        now: Timestamp,
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
            let own = topic.retention_seconds.map(Duration::from_secs);
            let bytes = topic.log.bytes();
            let (before, held_from) = (topic.log.length(), topic.held_from());
            if let Some(retention) = own.or(self.options.limits.retention) {
                topic.log.remove_oldest(topic.log.count_older(retention, held_from, now));
            }
            // What is set for all topics is trimmed behind what is appended.
            let policy = topic.policy(TopicPolicy { age: None, ..TopicPolicy::newest(u64::MAX) });
            topic.log.keep(&policy, held_from, now);
            let removed = before - topic.log.length();
            if removed > 0 {
                topic.log.compact();
            }
            self.messages -= removed;
            swept.removed += removed as u64;
            topic.log.forget_deleted();
            self.logs_bytes = self.logs_bytes - bytes + topic.log.bytes();
        }
        let is_end = swept.topics < count as u64;
        (swept, last.filter(|_| !is_end).cloned().map(Bound::Excluded))
    }
}
