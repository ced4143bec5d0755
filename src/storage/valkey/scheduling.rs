//! Messages for later: the contract, answered by the shard of a topic, or by all of them.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use tidemill_proto::{MessageId, RecurringName, ScheduleId, TopicName};

use super::failure::same;
use super::homes::Home;
use super::routing::{in_order, unless_elsewhere};
use super::{Valkey, at};
use crate::storage::{
    NewRecurring, NewSchedule, Promoted, Recurrence, ScheduleStore, Scheduled, StorageError, StoredRecurring,
    TopicPolicy, WaitingPage, WaitingRange,
};

#[async_trait]
impl ScheduleStore for Valkey {
    async fn schedule(&self, batch: Vec<NewSchedule>) -> Vec<Result<Scheduled, StorageError>> {
        if self.places.is_one() {
            return match self.places.first() {
                Ok(shard) => shard.schedule(batch).await,
                Err(error) => batch.iter().map(|_| Err(same(&error))).collect(),
            };
        }
        let mut parts: Vec<(Home, Vec<usize>, Vec<NewSchedule>)> = Vec::new();
        for (place, new) in batch.into_iter().enumerate() {
            let home = self.places.home_of(&new.message.topic);
            match parts.iter_mut().find(|(known, ..)| *known == home) {
                Some((_, places, part)) => {
                    places.push(place);
                    part.push(new);
                }
                None => parts.push((home, vec![place], vec![new])),
            }
        }
        let schedule = |(_, places, part): (Home, Vec<usize>, Vec<NewSchedule>)| async move {
            let scheduled: Result<_, StorageError> = at!(self, &part[0].message.topic, shard => unless_elsewhere(shard.schedule(part.clone()).await));
            let scheduled =
                scheduled.unwrap_or_else(|error| part.iter().map(|_| Err(same(&error))).collect());
            (places, scheduled)
        };
        let (places, scheduled): (Vec<_>, Vec<_>) =
            join_all(parts.into_iter().map(schedule)).await.into_iter().unzip();
        in_order(places.iter().map(|places: &Vec<usize>| &places[..]).zip(scheduled))
    }

    async fn waiting(&self, topic: &TopicName, range: WaitingRange) -> Result<WaitingPage, StorageError> {
        at!(self, topic, shard => shard.waiting(topic, range.clone()).await)
    }

    async fn cancel(&self, topic: &TopicName, id: &ScheduleId) -> Result<bool, StorageError> {
        at!(self, topic, shard => shard.cancel(topic, id).await)
    }

    async fn publish_now(
        &self,
        topic: &TopicName,
        id: &ScheduleId,
        policy: TopicPolicy,
    ) -> Result<Option<MessageId>, StorageError> {
        at!(self, topic, shard => shard.publish_now(topic, id, policy).await)
    }

    async fn promote(
        &self,
        topics: &[TopicName],
        policy: TopicPolicy,
        recurrence: &dyn Recurrence,
    ) -> Vec<Result<Promoted, StorageError>> {
        let groups = match self.places.groups(topics.iter()) {
            Ok(groups) => groups,
            Err(error) => return topics.iter().map(|_| Err(same(&error))).collect(),
        };
        let promote = groups.iter().map(|(shard, places)| async move {
            let topics: Vec<TopicName> = places.iter().map(|place| topics[*place].clone()).collect();
            shard.promote(&topics, policy, recurrence).await
        });
        let found = join_all(promote).await;
        in_order(groups.iter().zip(found).map(|((_, places), found)| (&places[..], found)))
    }

    async fn due_within(
        &self,
        within: Duration,
        limit: usize,
    ) -> Result<Vec<(TopicName, Duration)>, StorageError> {
        at!(self, shard => shard.due_within(within, limit).await)
    }

    async fn count_waiting(&self) -> Result<u64, StorageError> {
        let mut all = 0;
        for shard in &self.places.current().shards {
            all += shard.count_waiting().await?;
        }
        Ok(all)
    }

    async fn put_recurring(
        &self,
        new: NewRecurring,
        recurrence: &dyn Recurrence,
    ) -> Result<StoredRecurring, StorageError> {
        at!(self, &new.message.topic, shard => shard.put_recurring(new.clone(), recurrence).await)
    }

    async fn recurring(&self, topic: &TopicName) -> Result<Vec<StoredRecurring>, StorageError> {
        at!(self, topic, shard => shard.recurring(topic).await)
    }

    async fn remove_recurring(&self, topic: &TopicName, name: &RecurringName) -> Result<bool, StorageError> {
        at!(self, topic, shard => shard.remove_recurring(topic, name).await)
    }
}
