//! Messages for later: the contract, answered by the shard of a topic, or by all of them.

use std::time::Duration;

use async_trait::async_trait;
use tidemill_proto::{MessageId, RecurringName, ScheduleId, TopicName};

use super::Valkey;
use crate::storage::{
    NewRecurring, NewSchedule, Promoted, Recurrence, ScheduleStore, Scheduled, StorageError, StoredRecurring,
    TopicPolicy, WaitingPage, WaitingRange,
};

#[async_trait]
impl ScheduleStore for Valkey {
    async fn schedule(&self, batch: Vec<NewSchedule>) -> Vec<Result<Scheduled, StorageError>> {
        let [shard] = &self.shards;
        shard.schedule(batch).await
    }

    async fn waiting(&self, topic: &TopicName, range: WaitingRange) -> Result<WaitingPage, StorageError> {
        self.shard_of(topic).waiting(topic, range).await
    }

    async fn cancel(&self, topic: &TopicName, id: &ScheduleId) -> Result<bool, StorageError> {
        self.shard_of(topic).cancel(topic, id).await
    }

    async fn publish_now(
        &self,
        topic: &TopicName,
        id: &ScheduleId,
        policy: TopicPolicy,
    ) -> Result<Option<MessageId>, StorageError> {
        self.shard_of(topic).publish_now(topic, id, policy).await
    }

    async fn promote(
        &self,
        topics: &[TopicName],
        policy: TopicPolicy,
        recurrence: &dyn Recurrence,
    ) -> Vec<Result<Promoted, StorageError>> {
        let [shard] = &self.shards;
        shard.promote(topics, policy, recurrence).await
    }

    async fn due_within(
        &self,
        within: Duration,
        limit: usize,
    ) -> Result<Vec<(TopicName, Duration)>, StorageError> {
        let [shard] = &self.shards;
        shard.due_within(within, limit).await
    }

    async fn count_waiting(&self) -> Result<u64, StorageError> {
        let mut all = 0;
        for shard in &self.shards {
            all += shard.count_waiting().await?;
        }
        Ok(all)
    }

    async fn put_recurring(
        &self,
        new: NewRecurring,
        recurrence: &dyn Recurrence,
    ) -> Result<StoredRecurring, StorageError> {
        self.shard_of(&new.message.topic).put_recurring(new, recurrence).await
    }

    async fn recurring(&self, topic: &TopicName) -> Result<Vec<StoredRecurring>, StorageError> {
        self.shard_of(topic).recurring(topic).await
    }

    async fn remove_recurring(&self, topic: &TopicName, name: &RecurringName) -> Result<bool, StorageError> {
        self.shard_of(topic).remove_recurring(topic, name).await
    }
}
