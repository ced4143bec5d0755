//! A topic to create, and how a topic is described.
//!
//! It must not know how topics are kept.

use tidemill_proto::topics::{Topic, TopicUpdate};
use tidemill_proto::{Timestamp, TopicName};

/// A topic to create.
#[derive(Clone, Debug)]
pub(super) struct NewTopic {
    pub(super) topic: TopicName,
    pub(super) created_at: Timestamp,
    /// Who owns it, if a user does.
    pub(super) owner: Option<Box<str>>,
}

impl NewTopic {
    /// Returns it as it is once it was created.
    pub(super) fn described(&self, description: &TopicUpdate) -> Topic {
        let topic = described(&self.topic, Some(self.created_at), description);
        Topic { owner_id: self.owner.as_deref().map(str::to_owned), ..topic }
    }
}

/// Describes a topic that nobody owns.
pub(super) fn described(
    topic: &TopicName,
    created_at: Option<Timestamp>,
    description: &TopicUpdate,
) -> Topic {
    Topic {
        topic_id: topic.clone(),
        topic_name: topic.clone(),
        owner_id: None,
        created_at,
        description: description.description.clone(),
        retention_seconds: description.retention_seconds,
        max_messages: description.max_messages,
        max_bytes: description.max_bytes,
        when_full: description.when_full.unwrap_or_default(),
        keep_until_acked: description.keep_until_acked.unwrap_or_default(),
        idle_seconds: description.idle_seconds,
        compact_by: description.compact_by.clone(),
    }
}
