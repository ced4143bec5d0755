//! Messages for later, of this process alone.

use std::time::Duration;

use async_trait::async_trait;
use tidemill_proto::{MessageId, RecurringName, ScheduleId, TopicName};

use super::Memory;
use crate::storage::{
    NewRecurring, NewSchedule, Promoted, Recurrence, ScheduleStore, Scheduled, StorageError, StoredRecurring,
    TopicPolicy, WaitingPage, WaitingRange,
};

#[async_trait]
impl ScheduleStore for Memory {
    async fn schedule(&self, batch: Vec<NewSchedule>) -> Vec<Result<Scheduled, StorageError>> {
        let results: Vec<Result<Scheduled, _>> = {
            let mut topics = self.topics.write();
            let now = self.clock.now();
            batch.iter().map(|new| topics.schedule(new, now)).collect()
        };
        // One of them may have made its topic.
        let kept = batch.iter().zip(&results).filter(|(_, result)| result.is_ok());
        self.hints.tell_topics(kept.map(|(new, _)| &new.message.topic));
        results
    }

    async fn waiting(&self, topic: &TopicName, range: WaitingRange) -> Result<WaitingPage, StorageError> {
        self.topics.read().waiting(topic, &range)
    }

    async fn cancel(&self, topic: &TopicName, id: &ScheduleId) -> Result<bool, StorageError> {
        self.topics.write().cancel(topic, id)
    }

    async fn publish_now(
        &self,
        topic: &TopicName,
        id: &ScheduleId,
        policy: TopicPolicy,
    ) -> Result<Option<MessageId>, StorageError> {
        let published = {
            let mut topics = self.topics.write();
            let now = self.clock.now();
            topics.publish_now(topic, id, policy, now)?
        };
        self.hints.tell_topics(published.map(|_| topic));
        Ok(published)
    }

    async fn promote(
        &self,
        topics: &[TopicName],
        policy: TopicPolicy,
        recurrence: &dyn Recurrence,
    ) -> Vec<Result<Promoted, StorageError>> {
        let mut results = Vec::with_capacity(topics.len());
        for topic in topics {
            let promoted = {
                let mut topics = self.topics.write();
                let now = self.clock.now();
                topics.promote(topic, policy, recurrence, now)
            };
            self.hints.tell_topics([topic]);
            results.push(promoted);
        }
        results
    }

    async fn due_within(
        &self,
        within: Duration,
        limit: usize,
    ) -> Result<Vec<(TopicName, Duration)>, StorageError> {
        Ok(self.topics.read().due_within(within, limit, self.clock.now()))
    }

    async fn count_waiting(&self) -> Result<u64, StorageError> {
        Ok(self.topics.read().count_waiting())
    }

    async fn put_recurring(
        &self,
        new: NewRecurring,
        recurrence: &dyn Recurrence,
    ) -> Result<StoredRecurring, StorageError> {
        let stored = {
            let mut topics = self.topics.write();
            let now = self.clock.now();
            topics.put_recurring(&new, recurrence, now)?
        };
        self.hints.tell_topics([&new.message.topic]);
        Ok(stored)
    }

    async fn recurring(&self, topic: &TopicName) -> Result<Vec<StoredRecurring>, StorageError> {
        self.topics.read().recurring(topic)
    }

    async fn remove_recurring(&self, topic: &TopicName, name: &RecurringName) -> Result<bool, StorageError> {
        self.topics.write().remove_recurring(topic, name)
    }
}
