//! Messages for later that fail by the seed.

use std::time::Duration;

use async_trait::async_trait;
use tidemill::proto::{MessageId, RecurringName, ScheduleId, TopicName};
use tidemill::storage::{
    NewRecurring, NewSchedule, Promoted, Recurrence, ScheduleStore, Scheduled, StorageError, StoredRecurring,
    TopicPolicy, WaitingPage, WaitingRange,
};

use super::fate::{Call, Lost, Outcome};
use super::{Effect, Faulty};

fn lost(lost: Lost) -> StorageError {
    lost.into()
}

#[deny(clippy::missing_trait_methods, reason = "what is new must fail, too")]
#[async_trait]
impl ScheduleStore for Faulty {
    async fn schedule(&self, batch: Vec<NewSchedule>) -> Vec<Result<Scheduled, StorageError>> {
        let count = batch.len();
        let fate = self.fate(Call::Schedule, &count.to_string());
        let schedules = self.inner.schedules.clone();
        let effect: Effect<_> = Box::pin(async move { schedules.schedule(batch).await });
        match self.change(fate, effect).await {
            Ok(results) => results,
            Err(Lost::Before) => (0..count).map(|_| Err(lost(Lost::Before))).collect(),
            Err(Lost::Unknown) => (0..count).map(|_| Err(lost(Lost::Unknown))).collect(),
        }
    }

    async fn waiting(&self, topic: &TopicName, range: WaitingRange) -> Result<WaitingPage, StorageError> {
        let fate = self.fate(Call::Waiting, topic.as_str());
        self.ask(fate, self.inner.schedules.waiting(topic, range)).await
    }

    async fn cancel(&self, topic: &TopicName, id: &ScheduleId) -> Result<bool, StorageError> {
        let fate = self.fate(Call::Cancel, topic.as_str());
        let (schedules, topic, id) = (self.inner.schedules.clone(), topic.clone(), id.clone());
        self.change_topic(fate, None, async move { schedules.cancel(&topic, &id).await }).await
    }

    async fn publish_now(
        &self,
        topic: &TopicName,
        id: &ScheduleId,
        policy: TopicPolicy,
    ) -> Result<Option<MessageId>, StorageError> {
        let fate = self.fate(Call::PublishNow, topic.as_str());
        let (schedules, topic, id) = (self.inner.schedules.clone(), topic.clone(), id.clone());
        self.change_topic(fate, None, async move { schedules.publish_now(&topic, &id, policy).await }).await
    }

    async fn promote(
        &self,
        topics: &[TopicName],
        policy: TopicPolicy,
        recurrence: &dyn Recurrence,
    ) -> Vec<Result<Promoted, StorageError>> {
        let fate = self.fate(Call::Promote, &format!("{topics:?}"));
        let is_after = matches!(fate.outcome, Outcome::After);
        let done = async { Ok(self.inner.schedules.promote(topics, policy, recurrence).await) };
        match self.ask(fate, done).await {
            Ok(results) => results,
            Err(_) if is_after => topics.iter().map(|_| Err(lost(Lost::Unknown))).collect(),
            Err(_) => topics.iter().map(|_| Err(lost(Lost::Before))).collect(),
        }
    }

    async fn due_within(
        &self,
        within: Duration,
        limit: usize,
    ) -> Result<Vec<(TopicName, Duration)>, StorageError> {
        let fate = self.fate(Call::DueWithin, &format!("{within:?}"));
        self.ask(fate, self.inner.schedules.due_within(within, limit)).await
    }

    async fn count_waiting(&self) -> Result<u64, StorageError> {
        let fate = self.fate(Call::CountWaiting, "");
        self.ask(fate, self.inner.schedules.count_waiting()).await
    }

    async fn put_recurring(
        &self,
        new: NewRecurring,
        recurrence: &dyn Recurrence,
    ) -> Result<StoredRecurring, StorageError> {
        let fate = self.fate(Call::PutRecurring, new.message.topic.as_str());
        self.ask(fate, self.inner.schedules.put_recurring(new, recurrence)).await
    }

    async fn recurring(&self, topic: &TopicName) -> Result<Vec<StoredRecurring>, StorageError> {
        let fate = self.fate(Call::Recurring, topic.as_str());
        self.ask(fate, self.inner.schedules.recurring(topic)).await
    }

    async fn remove_recurring(&self, topic: &TopicName, name: &RecurringName) -> Result<bool, StorageError> {
        let fate = self.fate(Call::RemoveRecurring, topic.as_str());
        let (schedules, topic, name) = (self.inner.schedules.clone(), topic.clone(), name.clone());
        self.change_topic(fate, None, async move { schedules.remove_recurring(&topic, &name).await }).await
    }
}
