//! What topics there are, and what they hold.

use std::ops::Bound;

use tidemill_proto::TopicName;
use tidemill_proto::topics::{Topic, TopicsStats};

use super::Topics;
use crate::storage::{StorageError, TopicState};

impl Topics {
    pub(in crate::storage::memory) fn names(
        &self,
        prefix: &str,
        after: Option<&TopicName>,
        limit: usize,
    ) -> Vec<TopicName> {
        let from = match after {
            Some(after) if after.as_str() >= prefix => Bound::Excluded(after.as_str()),
            Some(_) | None => Bound::Included(prefix),
        };
        let names = self.topics.range::<str, _>((from, Bound::Unbounded)).map(|(name, _)| name);
        names.take_while(|name| name.as_str().starts_with(prefix)).take(limit).cloned().collect()
    }

    pub(in crate::storage::memory) fn describe(&self, name: &TopicName) -> Result<TopicState, StorageError> {
        self.topic(name).map(|topic| TopicState {
            topic: topic.to_topic(name),
            length: topic.log.length() as u64,
            first_id: topic.log.first_id(),
            last_id: topic.log.last_id(),
            bytes: Some(topic.log.bytes() as u64),
            given: Some(topic.log.given()),
            ended: topic.ended.as_deref().cloned(),
        })
    }

    /// Returns the descriptions of those topics that exist.
    pub(in crate::storage::memory) fn describe_all(&self, names: Vec<TopicName>) -> Vec<Topic> {
        names.into_iter().filter_map(|name| Some(self.topics.get(&name)?.to_topic(&name))).collect()
    }

    pub(in crate::storage::memory) fn stats(&self) -> TopicsStats {
        TopicsStats { total_topics: self.topics.len() as u64, total_messages: self.messages as u64 }
    }
}
