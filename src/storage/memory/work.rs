//! The groups of topics, behind the lock of all topics.

use std::time::Duration;

use async_trait::async_trait;
use tidemill_proto::page::Order;
use tidemill_proto::work::{GroupDetail, GroupName, GroupSettings};
use tidemill_proto::{MessageId, Timestamp, TopicName};

use super::Memory;
use super::group::{Beginning, Group, KEYED_BYTES, LOOKED_AT_MAX, Messages, PENDING_BYTES};
use super::log::Log;
use super::topics::Groups;
use crate::storage::{
    Claim, Claimed, DeadLetter, Dying, Existing, Fate, GROUPS_MAX, GapCheck, GroupChange, GroupStart,
    GroupsSwept, Outcome, Range, Revived, Settlement, StorageError, StoredMessage, Tended, Verdict,
    WorkStore,
};

/// Bytes of a new group, about.
const GROUP_BYTES: usize = 1024;

/// The messages of a topic at a time.
pub(super) struct Kept<'a> {
    pub(super) topic: &'a TopicName,
    pub(super) log: &'a Log,
    pub(super) now: Timestamp,
}

impl Messages for Kept<'_> {
    fn message(&self, id: MessageId) -> Option<StoredMessage> {
        self.log.get(id, self.now)
    }

    fn behind(
        &self,
        id: MessageId,
        limit: usize,
        bytes_max: usize,
    ) -> (Vec<StoredMessage>, u64, Option<MessageId>) {
        let range = Range { order: Order::Asc, after: Some(id), gap_check: GapCheck::None, limit, bytes_max };
        let batch = self.log.read(self.topic, range, None, self.now);
        (batch.messages, batch.looked_at, batch.reached)
    }

    fn kept_behind(&self, id: MessageId) -> u64 {
        id.next().map_or(0, |next| (self.log.length() - self.log.count_before(next)) as u64)
    }

    fn given(&self) -> u64 {
        self.log.given()
    }
}

fn beginning(kept: &Kept<'_>, start: GroupStart) -> Beginning {
    let after = match start {
        GroupStart::Earliest => MessageId::MIN,
        GroupStart::Latest => kept.log.last_given(),
        GroupStart::After(id) => id,
    };
    Beginning { after, passed: kept.given() - kept.kept_behind(after) }
}

/// Describes a group, with its minutes and who has its messages.
fn detail(
    (topic, name): (&TopicName, &GroupName),
    group: &Group,
    (log, scheduled): (&Log, u64),
    now: Timestamp,
) -> GroupDetail {
    let kept = Kept { topic, log, now };
    let numbers = group.numbers(now);
    let counts = group.counts();
    let last_delivered = group.last_delivered();
    let behind = kept.kept_behind(last_delivered);
    let range = Range {
        order: Order::Asc,
        after: Some(last_delivered),
        gap_check: GapCheck::None,
        limit: 1,
        bytes_max: 1,
    };
    let next = log.read(topic, range, None, now).messages.first().map(|message| message.id);
    let oldest = numbers.oldest_ready.into_iter().chain(next).min();
    #[expect(clippy::cast_precision_loss, reason = "it is far below 2^52")]
    let seconds = |id: MessageId| now.as_millis().saturating_sub(id.ms) as f64 / 1e3;
    GroupDetail {
        topic: topic.clone(),
        group: name.clone(),
        settings: group.settings.clone(),
        created_at: Some(group.created_at()),
        last_delivered,
        waiting: Some(numbers.ready + behind),
        scheduled,
        in_flight: numbers.in_flight,
        in_backoff: numbers.backoff,
        dead: numbers.dead,
        done: counts.done,
        failed: counts.failed,
        redelivered: counts.redelivered,
        gone: counts.gone + group.missed(&kept),
        oldest_waiting_seconds: oldest.map(seconds),
        consumers: numbers.consumers,
        last_claim: group.last_claim(),
        exact: true,
        minutes: group.minutes(now),
        held_by: group.held_by(),
    }
}

impl Memory {
    /// Works on one group, with the messages of its topic.
    fn with_group<T>(
        &self,
        topic: &TopicName,
        name: &GroupName,
        needed: usize,
        work: impl FnOnce(&mut Group, &Kept<'_>, u64) -> T,
    ) -> Result<T, StorageError> {
        let mut topics = self.topics.write();
        let now = self.clock.now();
        topics.with_groups(topic, needed, |groups, log, number| {
            let group = groups.get_mut(name).ok_or(StorageError::NoGroup)?;
            group.forget_ended(now);
            Ok(work(group, &Kept { topic, log, now }, number))
        })?
    }
}

impl Memory {
    /// Returns how many bytes more a claim can need.
    fn claim_needs(&self, claim: &Claim) -> Result<usize, StorageError> {
        let topics = self.topics.read();
        let (groups, _) = topics.groups(&claim.topic)?;
        Ok(if of(groups, &claim.group)?.is_ordered() {
            (claim.max + LOOKED_AT_MAX) * (PENDING_BYTES + KEYED_BYTES)
        } else {
            claim.max * PENDING_BYTES
        })
    }
}

fn of<'a>(groups: Option<&'a Groups>, name: &GroupName) -> Result<&'a Group, StorageError> {
    groups.and_then(|groups| groups.get(name)).ok_or(StorageError::NoGroup)
}

#[async_trait]
impl WorkStore for Memory {
    async fn put_group(
        &self,
        topic: &TopicName,
        group: &GroupName,
        settings: &GroupSettings,
        start: GroupStart,
        existing: Existing,
    ) -> Result<bool, StorageError> {
        let mut topics = self.topics.write();
        let now = self.clock.now();
        topics.with_groups(topic, GROUP_BYTES, |groups, log, number| {
            if let Some(group) = groups.get_mut(group) {
                let is_right = existing == Existing::Keep || group.set(settings);
                return if is_right { Ok(false) } else { Err(StorageError::GroupHolds) };
            }
            if groups.len() >= GROUPS_MAX {
                return Err(StorageError::GroupsLimit);
            }
            let at = beginning(&Kept { topic, log, now }, start);
            groups.insert(group.clone(), Group::new(settings.clone(), number, at, now));
            Ok(true)
        })?
    }

    async fn change_group(
        &self,
        topic: &TopicName,
        group: &GroupName,
        change: &GroupChange,
    ) -> Result<bool, StorageError> {
        self.with_group(topic, group, 0, |group, _, _| {
            let is_known = change.known.as_ref().is_none_or(|known| *known == group.settings);
            match is_known {
                true if !group.set(&change.next) => Err(StorageError::GroupHolds),
                is_known => Ok(is_known),
            }
        })?
    }

    async fn groups(&self, topic: &TopicName) -> Result<Vec<GroupDetail>, StorageError> {
        let topics = self.topics.read();
        let (groups, log) = topics.groups(topic)?;
        let all = groups.into_iter().flatten();
        let (now, scheduled) = (self.clock.now(), topics.scheduled(topic));
        let detail = |(name, group)| GroupDetail {
            minutes: Vec::new(),
            held_by: Vec::new(),
            ..detail((topic, name), group, (log, scheduled), now)
        };
        Ok(all.map(detail).collect())
    }

    async fn grouped(
        &self,
        names: &[TopicName],
    ) -> Result<Vec<(TopicName, GroupName, GroupsSwept)>, StorageError> {
        let topics = self.topics.read();
        let now = self.clock.now();
        let of_topic = |topic| {
            let (groups, log) = topics.groups(topic).ok()?;
            Some(groups?.iter().map(move |(name, group)| {
                (topic.clone(), name.clone(), group.swept(&Kept { topic, log, now }, now))
            }))
        };
        Ok(names.iter().filter_map(of_topic).flatten().collect())
    }

    async fn group(&self, topic: &TopicName, group: &GroupName) -> Result<GroupDetail, StorageError> {
        let topics = self.topics.read();
        let (groups, log) = topics.groups(topic)?;
        let beside = (log, topics.scheduled(topic));
        Ok(detail((topic, group), of(groups, group)?, beside, self.clock.now()))
    }

    async fn delete_group(&self, topic: &TopicName, group: &GroupName) -> Result<(), StorageError> {
        let removed = self.topics.write().with_groups(topic, 0, |groups, _, _| groups.remove(group))?;
        removed.map(drop).ok_or(StorageError::NoGroup)
    }

    async fn seek(&self, topic: &TopicName, group: &GroupName, to: GroupStart) -> Result<(), StorageError> {
        let mut topics = self.topics.write();
        let now = self.clock.now();
        topics.with_groups(topic, 0, |groups, log, number| {
            let before = groups.remove(group).ok_or(StorageError::NoGroup)?;
            let at = beginning(&Kept { topic, log, now }, to);
            groups.insert(group.clone(), before.moved(number, at));
            Ok::<_, StorageError>(())
        })?
    }

    async fn claim(&self, claims: Vec<Claim>) -> Vec<Result<Claimed, StorageError>> {
        let claim = |claim: Claim| {
            let needed = self.claim_needs(&claim)?;
            loop {
                let (mut claimed, is_more) =
                    self.with_group(&claim.topic, &claim.group, needed, |group, kept, _| {
                        group.claim(&claim, kept, kept.now)
                    })?;
                if !claimed.deliveries.is_empty() {
                    claimed.cancelled = self.topics.read().cancelled(&claim.topic);
                    return Ok(claimed);
                }
                if !is_more {
                    return Ok(claimed);
                }
            }
        };
        claims.into_iter().map(claim).collect()
    }

    async fn settle(
        &self,
        topic: &TopicName,
        group: &GroupName,
        settlements: Vec<Settlement>,
    ) -> Result<Vec<Outcome>, StorageError> {
        let results = settlements.iter().map(|settlement| match &settlement.verdict {
            Verdict::Ack(Some(result)) => result.len() + 256,
            Verdict::Ack(None)
            | Verdict::Nack(..)
            | Verdict::Extend(_)
            | Verdict::Reject(_)
            | Verdict::Release
            | Verdict::Lost { .. } => 0,
        });
        let needed = results.sum();
        self.with_group(topic, group, needed, |group, kept, _| {
            settlements.into_iter().map(|settlement| group.settle(settlement, kept.now)).collect()
        })
    }

    async fn tend(&self, topic: &TopicName, group: &GroupName) -> Result<Tended, StorageError> {
        self.with_group(topic, group, 0, |group, kept, _| group.tend(kept, kept.now))
    }

    async fn dying(
        &self,
        topic: &TopicName,
        group: &GroupName,
        limit: usize,
    ) -> Result<Vec<Dying>, StorageError> {
        let topics = self.topics.read();
        let (groups, log) = topics.groups(topic)?;
        let kept = Kept { topic, log, now: self.clock.now() };
        Ok(of(groups, group)?.dying(&kept, limit))
    }

    async fn bury(
        &self,
        topic: &TopicName,
        group: &GroupName,
        epoch: u64,
        dead: DeadLetter,
    ) -> Result<bool, StorageError> {
        self.with_group(topic, group, 0, |group, kept, _| group.bury(epoch, dead, kept.now))
    }

    async fn dead(
        &self,
        topic: &TopicName,
        group: &GroupName,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StorageError> {
        let topics = self.topics.read();
        let (groups, _) = topics.groups(topic)?;
        Ok(of(groups, group)?.dead(after, limit))
    }

    async fn revive(
        &self,
        topic: &TopicName,
        group: &GroupName,
        ids: &[(MessageId, Duration)],
        wait: bool,
    ) -> Result<Vec<Revived>, StorageError> {
        let needed = if wait { ids.len() * (PENDING_BYTES + KEYED_BYTES) } else { 0 };
        self.with_group(topic, group, needed, |group, kept, _| {
            let revived = ids.iter().map(|(id, delay)| {
                let due = wait.then(|| kept.now.saturating_add(*delay));
                group.revive(*id, due, kept)
            });
            revived.collect()
        })
    }

    async fn fate(
        &self,
        topic: &TopicName,
        group: &GroupName,
        id: MessageId,
    ) -> Result<Option<Fate>, StorageError> {
        let topics = self.topics.read();
        let (groups, log) = topics.groups(topic)?;
        let now = self.clock.now();
        Ok(of(groups, group)?.fate(id, log.get(id, now).as_ref(), now))
    }
}
