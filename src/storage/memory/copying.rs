//! Copying, behind the lock.

use std::time::Duration;

use async_trait::async_trait;
use tidemill_proto::work::GroupName;
use tidemill_proto::{MessageId, TopicName, TopicSelector};

use super::Memory;
use super::group::Group;
use crate::storage::{
    CopiedDead, CopiedGroup, CopiedPending, CopiedTopic, CopiedUnique, CopyStore, Epoch, OddNames,
    StorageError, StoredMessage, StoredRecurring, UniquePage, Unlisted, WaitingMessage,
};

impl Memory {
    fn look_at_group<T>(
        &self,
        topic: &TopicName,
        group: &GroupName,
        tell: impl FnOnce(&Group) -> T,
    ) -> Result<T, StorageError> {
        let topics = self.topics.read();
        let (groups, _) = topics.groups(topic)?;
        groups.and_then(|groups| groups.get(group)).map(tell).ok_or(StorageError::NoGroup)
    }
}

#[async_trait]
impl CopyStore for Memory {
    async fn identity(&self, _topics: Option<&TopicSelector>) -> Result<Vec<String>, StorageError> {
        Ok(vec![self.identity.clone()])
    }

    fn retention(&self) -> Option<Duration> {
        self.retention
    }

    async fn unlisted(&self) -> Result<Unlisted, StorageError> {
        Ok(Unlisted::default())
    }

    async fn odd_groups(&self, _topic: &TopicName) -> Result<OddNames, StorageError> {
        Ok(OddNames::default())
    }

    async fn claim_import(&self, _topic: &TopicName, _token: u64) -> Result<bool, StorageError> {
        // Copies to a relay have no token.
        Ok(true)
    }

    async fn list_copied(&self, _topic: &TopicName) -> Result<(), StorageError> {
        Ok(())
    }

    async fn copied(&self, topic: &TopicName) -> Result<CopiedTopic, StorageError> {
        self.topics.read().copied(topic)
    }

    async fn copied_messages(
        &self,
        topic: &TopicName,
        after: MessageId,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<StoredMessage>, StorageError> {
        Ok(self.topics.read().copied_messages(topic, after, limit, bytes_max))
    }

    async fn copied_deletions(&self, topic: &TopicName) -> Result<Vec<MessageId>, StorageError> {
        self.topics.read().copied_deletions(topic)
    }

    async fn freeze(&self, topic: &TopicName, frozen: bool) -> Result<(), StorageError> {
        self.topics.write().freeze(topic, frozen)
    }

    async fn refuse_new_topics(&self, refused: bool) -> Result<(), StorageError> {
        self.topics.write().refuse_new(refused);
        Ok(())
    }

    async fn refuses_new_topics(&self) -> Result<bool, StorageError> {
        Ok(self.topics.read().refuses_new())
    }

    async fn begin_import(&self, other: &CopiedTopic) -> Result<(), StorageError> {
        self.topics.write().begin_import(other, self.clock.now())?;
        self.hints.tell_topics([&other.topic.topic_name]);
        Ok(())
    }

    async fn import_messages(
        &self,
        topic: &TopicName,
        epoch: Epoch,
        after: MessageId,
        messages: &[StoredMessage],
    ) -> Result<(), StorageError> {
        self.topics.write().import_messages(topic, epoch, after, messages)?;
        self.hints.tell_topics([topic]);
        Ok(())
    }

    async fn import_forgotten(
        &self,
        topic: &TopicName,
        epoch: Epoch,
        messages: &[MessageId],
    ) -> Result<(), StorageError> {
        self.topics.write().import_forgotten(topic, epoch, messages)
    }

    async fn copied_group(&self, topic: &TopicName, group: &GroupName) -> Result<CopiedGroup, StorageError> {
        self.look_at_group(topic, group, |found| found.copied(group))
    }

    async fn copied_pending(
        &self,
        topic: &TopicName,
        group: &GroupName,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<Vec<CopiedPending>, StorageError> {
        self.look_at_group(topic, group, |found| found.copied_pending(after, limit))
    }

    async fn copied_dead(
        &self,
        topic: &TopicName,
        group: &GroupName,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<Vec<CopiedDead>, StorageError> {
        self.look_at_group(topic, group, |found| found.copied_dead(after, limit))
    }

    async fn copied_unique(
        &self,
        topic: &TopicName,
        group: &GroupName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<UniquePage, StorageError> {
        // Behind all, where it is none of its own.
        let after = after.map(|after| MessageId::parse(after).unwrap_or(MessageId::MAX));
        self.look_at_group(topic, group, |found| found.copied_unique(after, limit))
    }

    async fn import_group(&self, topic: &TopicName, group: &CopiedGroup) -> Result<(), StorageError> {
        self.topics.write().import_group(topic, group, self.clock.now())
    }

    async fn import_pending(
        &self,
        topic: &TopicName,
        group: &GroupName,
        pending: &[CopiedPending],
    ) -> Result<(), StorageError> {
        self.topics.write().import_pending((topic, group), pending, self.clock.now())
    }

    async fn import_dead(
        &self,
        topic: &TopicName,
        group: &GroupName,
        dead: &[CopiedDead],
    ) -> Result<(), StorageError> {
        self.topics.write().import_dead((topic, group), dead, self.clock.now())
    }

    async fn import_unique(
        &self,
        topic: &TopicName,
        group: &GroupName,
        unique: &[CopiedUnique],
    ) -> Result<(), StorageError> {
        self.topics.write().import_unique((topic, group), unique, self.clock.now())
    }

    async fn import_waiting(
        &self,
        topic: &TopicName,
        first: bool,
        waiting: &[WaitingMessage],
        recurring: &[StoredRecurring],
    ) -> Result<(), StorageError> {
        self.topics.write().import_waiting(topic, first, waiting, recurring)
    }

    async fn finish_import(&self, other: &CopiedTopic, deletions: &[MessageId]) -> Result<(), StorageError> {
        self.topics.write().finish_import(other, deletions, self.clock.now())?;
        self.hints.tell_topics([&other.topic.topic_name]);
        Ok(())
    }
}
