//! Groups of consumers that fail by the seed.

use std::time::Duration;

use async_trait::async_trait;
use tidemill::proto::work::{GroupDetail, GroupName, GroupSettings};
use tidemill::proto::{MessageId, TopicName};
use tidemill::storage::{
    Claim, Claimed, DeadLetter, Dying, Existing, Fate, GroupChange, GroupStart, GroupsSwept, Outcome,
    Revived, Settlement, StorageError, Tended, WorkStore,
};

use super::fate::Call;
use super::{Effect, Faulty};

#[deny(clippy::missing_trait_methods, reason = "what is new must fail, too")]
#[async_trait]
impl WorkStore for Faulty {
    async fn put_group(
        &self,
        topic: &TopicName,
        group: &GroupName,
        settings: &GroupSettings,
        start: GroupStart,
        existing: Existing,
    ) -> Result<bool, StorageError> {
        let fate = self.fate(Call::PutGroup, &format!("{topic} {group}"));
        let (work, topic, group, settings) =
            (self.inner.work.clone(), topic.clone(), group.clone(), settings.clone());
        let effect: Effect<_> =
            Box::pin(async move { work.put_group(&topic, &group, &settings, start, existing).await });
        self.change(fate, effect).await?
    }

    async fn change_group(
        &self,
        topic: &TopicName,
        group: &GroupName,
        change: &GroupChange,
    ) -> Result<bool, StorageError> {
        let fate = self.fate(Call::ChangeGroup, &format!("{topic} {group}"));
        let (work, topic, group, change) =
            (self.inner.work.clone(), topic.clone(), group.clone(), change.clone());
        let effect: Effect<_> = Box::pin(async move { work.change_group(&topic, &group, &change).await });
        self.change(fate, effect).await?
    }

    async fn groups(&self, topic: &TopicName) -> Result<Vec<GroupDetail>, StorageError> {
        let fate = self.fate(Call::Groups, topic.as_str());
        self.ask(fate, self.inner.work.groups(topic)).await
    }

    async fn grouped(
        &self,
        topics: &[TopicName],
    ) -> Result<Vec<(TopicName, GroupName, GroupsSwept)>, StorageError> {
        let names: Vec<&str> = topics.iter().map(TopicName::as_str).collect();
        let fate = self.fate(Call::Grouped, &names.join(" "));
        self.ask(fate, self.inner.work.grouped(topics)).await
    }

    async fn group(&self, topic: &TopicName, group: &GroupName) -> Result<GroupDetail, StorageError> {
        let fate = self.fate(Call::Group, &format!("{topic} {group}"));
        self.ask(fate, self.inner.work.group(topic, group)).await
    }

    async fn delete_group(&self, topic: &TopicName, group: &GroupName) -> Result<(), StorageError> {
        let fate = self.fate(Call::DeleteGroup, &format!("{topic} {group}"));
        let (work, topic, group) = (self.inner.work.clone(), topic.clone(), group.clone());
        let effect: Effect<_> = Box::pin(async move { work.delete_group(&topic, &group).await });
        self.change(fate, effect).await?
    }

    async fn seek(&self, topic: &TopicName, group: &GroupName, to: GroupStart) -> Result<(), StorageError> {
        let fate = self.fate(Call::Seek, &format!("{topic} {group}"));
        let (work, topic, group) = (self.inner.work.clone(), topic.clone(), group.clone());
        let effect: Effect<_> = Box::pin(async move { work.seek(&topic, &group, to).await });
        self.change(fate, effect).await?
    }

    async fn claim(&self, claims: Vec<Claim>) -> Vec<Result<Claimed, StorageError>> {
        let fate = self.fate(Call::Claim, &format!("{claims:?}"));
        let (work, count) = (self.inner.work.clone(), claims.len());
        let effect: Effect<_> = Box::pin(async move { work.claim(claims).await });
        match self.change(fate, effect).await {
            Ok(results) => results,
            Err(lost) => (0..count).map(|_| Err(lost.into())).collect(),
        }
    }

    async fn settle(
        &self,
        topic: &TopicName,
        group: &GroupName,
        settlements: Vec<Settlement>,
    ) -> Result<Vec<Outcome>, StorageError> {
        let fate = self.fate(Call::Settle, &format!("{topic} {group} {settlements:?}"));
        let (work, topic, group) = (self.inner.work.clone(), topic.clone(), group.clone());
        let effect: Effect<_> = Box::pin(async move { work.settle(&topic, &group, settlements).await });
        self.change(fate, effect).await?
    }

    async fn tend(&self, topic: &TopicName, group: &GroupName) -> Result<Tended, StorageError> {
        let fate = self.fate(Call::Tend, &format!("{topic} {group}"));
        let (work, topic, group) = (self.inner.work.clone(), topic.clone(), group.clone());
        let effect: Effect<_> = Box::pin(async move { work.tend(&topic, &group).await });
        self.change(fate, effect).await?
    }

    async fn dying(
        &self,
        topic: &TopicName,
        group: &GroupName,
        limit: usize,
    ) -> Result<Vec<Dying>, StorageError> {
        let fate = self.fate(Call::Dying, &format!("{topic} {group}"));
        self.ask(fate, self.inner.work.dying(topic, group, limit)).await
    }

    async fn bury(
        &self,
        topic: &TopicName,
        group: &GroupName,
        epoch: u64,
        dead: DeadLetter,
    ) -> Result<bool, StorageError> {
        let fate = self.fate(Call::Bury, &format!("{topic} {group} {dead:?}"));
        let (work, topic, group) = (self.inner.work.clone(), topic.clone(), group.clone());
        let effect: Effect<_> = Box::pin(async move { work.bury(&topic, &group, epoch, dead).await });
        self.change(fate, effect).await?
    }

    async fn dead(
        &self,
        topic: &TopicName,
        group: &GroupName,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StorageError> {
        let fate = self.fate(Call::DeadLetters, &format!("{topic} {group}"));
        self.ask(fate, self.inner.work.dead(topic, group, after, limit)).await
    }

    async fn revive(
        &self,
        topic: &TopicName,
        group: &GroupName,
        ids: &[(MessageId, Duration)],
        wait: bool,
    ) -> Result<Vec<Revived>, StorageError> {
        let fate = self.fate(Call::Revive, &format!("{topic} {group} {ids:?}"));
        let (work, topic, group, ids) = (self.inner.work.clone(), topic.clone(), group.clone(), ids.to_vec());
        let effect: Effect<_> = Box::pin(async move { work.revive(&topic, &group, &ids, wait).await });
        self.change(fate, effect).await?
    }

    async fn fate(
        &self,
        topic: &TopicName,
        group: &GroupName,
        id: MessageId,
    ) -> Result<Option<Fate>, StorageError> {
        let fate = Self::fate(self, Call::Fate, &format!("{topic} {group} {id}"));
        self.ask(fate, self.inner.work.fate(topic, group, id)).await
    }
}
