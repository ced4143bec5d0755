//! Topics and their descriptions.

use std::fmt;

use async_trait::async_trait;
use tidemill_proto::topics::{Topic, TopicUpdate, TopicsStats, WhenFull};
use tidemill_proto::{MessageId, TopicName};

use super::error::StorageError;
use super::listing::{Selection, TopicList};
use super::runs::RunEnd;

/// A topic with what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicState {
    /// The description.
    pub topic: Topic,
    /// Messages kept, expired ones included.
    pub length: u64,
    /// The oldest kept message.
    pub first_id: Option<MessageId>,
    /// The newest kept message.
    pub last_id: Option<MessageId>,
    /// Bytes that its messages take, about; `None` where the backend does not tell.
    pub bytes: Option<u64>,
    /// How many messages it was ever given; `None` where the backend does not count them.
    pub given: Option<u64>,
    /// That the topic has ended, if it has.
    pub ended: Option<RunEnd>,
}

/// What becomes of a part of a description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Part<T> {
    /// It stays as it is.
    #[default]
    Kept,
    /// It is this from now on; nothing clears it.
    Set(Option<T>),
}

impl<T> Part<T> {
    /// Returns what the part is after the change.
    pub fn or(self, before: Option<T>) -> Option<T> {
        match self {
            Self::Kept => before,
            Self::Set(value) => value,
        }
    }
}

/// A change of the description of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicChange {
    /// What it is for.
    pub description: Part<String>,
    /// Seconds after which messages are removed.
    pub retention_seconds: Part<u64>,
    /// Messages that it keeps, about.
    pub max_messages: Part<u64>,
    /// Bytes that it keeps, about.
    pub max_bytes: Part<u64>,
    /// What becomes of a message for which there is no room.
    pub when_full: Part<WhenFull>,
    /// Whether messages are removed once every group has acknowledged them.
    pub keep_until_acked: Part<bool>,
    /// Seconds after which it is removed when nothing was done with it.
    pub idle_seconds: Part<u64>,
    /// The field of the metadata that says which messages replace each other.
    pub compact_by: Part<String>,
}

impl From<TopicUpdate> for TopicChange {
    /// Everything is replaced.
    fn from(update: TopicUpdate) -> Self {
        Self {
            description: Part::Set(update.description),
            retention_seconds: Part::Set(update.retention_seconds),
            max_messages: Part::Set(update.max_messages),
            max_bytes: Part::Set(update.max_bytes),
            when_full: Part::Set(update.when_full),
            keep_until_acked: Part::Set(update.keep_until_acked),
            idle_seconds: Part::Set(update.idle_seconds),
            compact_by: Part::Set(update.compact_by),
        }
    }
}

/// Topics and their descriptions.
#[async_trait]
pub trait TopicStore: fmt::Debug + Send + Sync {
    /// Creates a topic without messages, which this user owns, if one does. Of concurrent calls for one name, one succeeds. Whoever listens is
    /// told of it, here and on the other nodes that watch it.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Full`, `TopicExists`, `NotATopic`, `TopicsLimit`.
    async fn create(
        &self,
        topic: &TopicName,
        description: TopicUpdate,
        owner: Option<&str>,
    ) -> Result<Topic, StorageError>;

    /// Returns up to `limit` topics, which is at least 1, whose names come after `after`, and are in the
    /// selection. A topic that a foreign producer made is listed after the next sweep at the
    /// latest.
    ///
    /// A page with a `next` has `limit` topics, unless [`LISTED_NAMES_MAX`](super::LISTED_NAMES_MAX) names were looked at for it; then
    /// it may have none. Names that do not begin with the prefix of the selection are not looked at.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `ForeignKey`.
    async fn list(
        &self,
        selection: Selection<'_>,
        after: Option<&TopicName>,
        limit: usize,
    ) -> Result<TopicList, StorageError>;

    /// Returns up to `limit` names of topics that begin with a prefix and come after `after`, in their order.
    /// Fewer than `limit` are all that there are. Nothing is looked up beside the names: one may be of a topic
    /// that is gone, until the next sweep at the latest. One that a foreign producer made is among them after
    /// the next sweep at the latest.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `ForeignKey`.
    async fn names(
        &self,
        prefix: &str,
        after: Option<&TopicName>,
        limit: usize,
    ) -> Result<Vec<TopicName>, StorageError>;

    /// Returns a topic with what it holds.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoTopic`, `NotATopic`.
    async fn describe(&self, topic: &TopicName) -> Result<TopicState, StorageError>;

    /// Changes parts of the description of a topic; what it keeps from then on is part of it.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `Full`, `NoTopic`, `NotATopic`.
    async fn update(&self, topic: &TopicName, change: TopicChange) -> Result<Topic, StorageError>;

    /// Deletes a topic with its messages and its description.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`, `NoTopic`, `NotATopic`.
    async fn delete(&self, topic: &TopicName) -> Result<(), StorageError>;

    /// Counts topics and messages.
    ///
    /// # Errors
    /// `Unavailable`, `Indeterminate`.
    async fn stats(&self) -> Result<TopicsStats, StorageError>;
}
