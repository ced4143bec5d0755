//! Routing: the contract, answered by the shard of a topic, or by all of them.
//!
//! It knows which shard is asked and how answers are put together, and not how any is found.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use tidemill_proto::slow::SlowServer;
use tidemill_proto::topics::{Topic, TopicUpdate, TopicsStats};
use tidemill_proto::work::{GroupDetail, GroupName, GroupSettings};
use tidemill_proto::{Durability, MessageId, NodeId, Timestamp, TopicName, TopicSelector};

use super::failure::{Redirect, same};
use super::{Shard, Valkey, at, health, keys, slowlog};
use crate::storage::{
    AccessDocuments, AccessEdit, AccessStore, Appended, Batch, Changes, Claim, Claimed, Condition,
    DeadLetter, Draw, Drawn, DurableStore, Dying, Existing, Fate, Followed, Found, GroupChange, GroupStart,
    GroupsSwept, HintListener, Idempotency, LatestRange, LimitStore, LiveStore, MessageStore, NewMessage,
    NewTicket, NodeStore, Outcome, Places, Pledge, Range, RecordChanges, RecordEdit, RecordStore, Revived,
    RunEnd, RunEnding, RunStore, Selection, Settlement, StorageError, StoredMessage, Swept, Tail, Tended,
    TicketClaim, TopicChange, TopicList, TopicState, TopicStore, Trim, Upkeep, WorkStore,
};

/// Returns results, or their error where all of them say that what they are about lives elsewhere.
pub(super) fn unless_elsewhere<T>(
    mut results: Vec<Result<T, StorageError>>,
) -> Result<Vec<Result<T, StorageError>>, StorageError> {
    let is_elsewhere =
        |result: &Result<T, StorageError>| result.as_ref().is_err_and(|error| Redirect::of(error).is_some());
    if !results.is_empty()
        && results.iter().all(is_elsewhere)
        && let Some(Err(error)) = results.pop()
    {
        return Err(error);
    }
    Ok(results)
}

/// Returns what parts have, each with its places, in the order of the whole.
pub(super) fn in_order<'a, T>(parts: impl Iterator<Item = (&'a [usize], Vec<T>)>) -> Vec<T> {
    let mut all: Vec<(usize, T)> =
        parts.flat_map(|(places, part)| places.iter().copied().zip(part)).collect();
    all.sort_by_key(|(place, _)| *place);
    all.into_iter().map(|(_, one)| one).collect()
}

#[async_trait]
impl MessageStore for Valkey {
    async fn append(&self, batch: Vec<NewMessage>) -> Vec<Result<Appended, StorageError>> {
        self.places.append(batch).await
    }

    async fn read(&self, topic: &TopicName, range: Range) -> Result<Batch, StorageError> {
        at!(self, topic, shard => shard.read(topic, range).await)
    }

    async fn latest(&self, topic: &TopicName, range: LatestRange) -> Result<Batch, StorageError> {
        at!(self, topic, shard => shard.latest(topic, range).await)
    }

    async fn get(&self, topic: &TopicName, id: MessageId) -> Result<Option<StoredMessage>, StorageError> {
        at!(self, topic, shard => shard.get(topic, id).await)
    }

    async fn trim(&self, topic: &TopicName, trim: Trim) -> Result<u64, StorageError> {
        at!(self, topic, shard => shard.trim(topic, trim).await)
    }

    async fn remove(&self, topic: &TopicName, id: MessageId) -> Result<bool, StorageError> {
        at!(self, topic, shard => shard.remove(topic, id).await)
    }
}

#[async_trait]
impl DurableStore for Valkey {
    async fn pledge(
        &self,
        topic: &TopicName,
        asked: Durability,
        key: Option<&Idempotency>,
    ) -> Result<Pledge, StorageError> {
        let history = at!(self, topic, shard => shard.pledge(topic, asked, key).await)?;
        Ok(Pledge { topic: topic.clone(), asked, history })
    }

    async fn reach(&self, pledges: &[Pledge]) -> Vec<Durability> {
        let homes = pledges.iter().map(|pledge| self.places.home_of(&pledge.topic));
        let shards: Vec<_> = homes.map(|home| self.places.owner_of(home).ok()).collect();
        // One wait does for all that ask one server for the same.
        let mut asked: Vec<(&Arc<Shard>, Durability, &Arc<str>)> = Vec::new();
        let mut waits = Vec::with_capacity(pledges.len());
        for (pledge, shard) in pledges.iter().zip(&shards) {
            let place = shard.as_ref().map(|shard| {
                let is_same = |(other, durability, history): &(&Arc<Shard>, Durability, &Arc<str>)| {
                    Arc::ptr_eq(other, shard) && *durability == pledge.asked && **history == pledge.history
                };
                asked.iter().position(is_same).unwrap_or_else(|| {
                    asked.push((shard, pledge.asked, &pledge.history));
                    asked.len() - 1
                })
            });
            waits.push(place);
        }
        let reach =
            asked.into_iter().map(|(shard, asked, history)| shard.waits.reach(asked, history.clone()));
        let reached = join_all(reach).await;
        waits.into_iter().map(|place| place.map_or(Durability::ACCEPTED, |place| reached[place])).collect()
    }
}

#[async_trait]
impl LiveStore for Valkey {
    async fn tail(&self, topic: &TopicName) -> Result<Tail, StorageError> {
        at!(self, topic, shard => shard.tail(topic).await)
    }

    async fn poll_changes(&self, topics: &[Followed]) -> Result<Changes, StorageError> {
        let groups = self.places.groups(topics.iter().map(|asked| &asked.topic))?;
        if let [(shard, _)] = &groups[..] {
            return shard.poll_changes(topics).await;
        }
        let mut all = Changes::default();
        let ask = groups.iter().map(|(shard, places)| async move {
            let asked: Vec<Followed> = places.iter().map(|place| topics[*place].clone()).collect();
            (shard.poll_changes(&asked).await, places)
        });
        let mut failed = None;
        for (found, places) in join_all(ask).await {
            match found {
                Ok(found) => {
                    let there = |place: usize| places[place];
                    all.changed.extend(found.changed.into_iter().map(there));
                    all.gone.extend(found.gone.into_iter().map(there));
                }
                // One that does not answer, or has just lost some of them, says nothing of the others.
                Err(error) => failed = Some(error),
            }
        }
        all.changed.sort_unstable();
        all.gone.sort_unstable();
        match failed {
            Some(error) if all.changed.is_empty() && all.gone.is_empty() => Err(error),
            Some(_) | None => Ok(all),
        }
    }

    fn listen(&self, listener: Weak<dyn HintListener>) {
        self.places.listen(listener);
    }

    fn watch(&self, topic: &TopicName, watch: bool) {
        self.places.watch(topic, watch);
    }

    fn watch_all(&self, watch: bool) {
        self.places.watch_all(watch);
    }
}

#[async_trait]
impl TopicStore for Valkey {
    async fn create(
        &self,
        topic: &TopicName,
        description: TopicUpdate,
        owner: Option<&str>,
    ) -> Result<Topic, StorageError> {
        at!(self, topic, shard => shard.create(topic, description.clone(), owner).await)
    }

    async fn list(
        &self,
        selection: Selection<'_>,
        after: Option<&TopicName>,
        limit: usize,
    ) -> Result<TopicList, StorageError> {
        at!(self, shard => shard.list(selection, after, limit).await)
    }

    async fn names(
        &self,
        prefix: &str,
        after: Option<&TopicName>,
        limit: usize,
    ) -> Result<Vec<TopicName>, StorageError> {
        at!(self, shard => shard.names(prefix, after, limit).await)
    }

    async fn describe(&self, topic: &TopicName) -> Result<TopicState, StorageError> {
        at!(self, topic, shard => shard.describe(topic).await)
    }

    async fn update(&self, topic: &TopicName, change: TopicChange) -> Result<Topic, StorageError> {
        at!(self, topic, shard => shard.update(topic, &change).await)
    }

    async fn delete(&self, topic: &TopicName) -> Result<(), StorageError> {
        at!(self, topic, shard => shard.delete(topic).await)
    }

    async fn stats(&self) -> Result<TopicsStats, StorageError> {
        let mut all = TopicsStats { total_topics: 0, total_messages: 0 };
        for shard in self.shards() {
            let stats = shard.stats().await?;
            all.total_topics += stats.total_topics;
            all.total_messages += stats.total_messages;
        }
        Ok(all)
    }
}

#[async_trait]
impl RunStore for Valkey {
    async fn end_run(&self, topic: &TopicName, ending: RunEnding<'_>) -> Result<RunEnd, StorageError> {
        at!(self, topic, shard => shard.end_run(topic, ending).await)
    }
}

#[async_trait]
impl AccessStore for Valkey {
    async fn documents(&self, known: Option<u64>) -> Result<Option<AccessDocuments>, StorageError> {
        at!(self, keys::ACCESS, shard => shard.access_documents(known).await)
    }

    async fn change_documents(
        &self,
        known: u64,
        next: u64,
        edits: Vec<AccessEdit>,
    ) -> Result<bool, StorageError> {
        at!(self, keys::ACCESS, shard => shard.change_access(known, next, edits.clone()).await)
    }

    async fn put_ticket(&self, ticket: NewTicket) -> Result<bool, StorageError> {
        at!(self, keys::TICKETS, shard => shard.put_ticket(ticket.clone()).await)
    }

    async fn claim_ticket(&self, claim: &TicketClaim) -> Result<Option<Bytes>, StorageError> {
        at!(self, keys::TICKETS, shard => shard.claim_ticket(claim).await)
    }

    async fn ticket_holders(&self, ids: &[Box<str>]) -> Result<Vec<Option<u64>>, StorageError> {
        at!(self, keys::TICKETS, shard => shard.ticket_holders(ids).await)
    }
}

#[async_trait]
impl LimitStore for Valkey {
    async fn draw(&self, draw: &Draw) -> Result<Drawn, StorageError> {
        at!(self, keys::quota(draw.quota).as_str(), shard => shard.draw(draw).await)
    }

    async fn hold(&self, places: &Places) -> Result<bool, StorageError> {
        at!(self, keys::places(places.quota).as_str(), shard => shard.hold(places).await)
    }
}

#[async_trait]
impl RecordStore for Valkey {
    async fn records(&self, known: Option<u64>) -> Result<Option<RecordChanges>, StorageError> {
        at!(self, keys::RECORDS, shard => shard.record_changes(known).await)
    }

    async fn change_records(&self, next: u64, edits: Vec<RecordEdit>) -> Result<bool, StorageError> {
        at!(self, keys::RECORDS, shard => shard.change_records(next, edits.clone()).await)
    }
}

#[async_trait]
impl NodeStore for Valkey {
    async fn announce(
        &self,
        node: NodeId,
        document: Bytes,
        kept_for: Duration,
    ) -> Result<bool, StorageError> {
        at!(self, keys::NODES, shard => shard.announce(node, &document, kept_for).await)
    }

    async fn retire(&self, node: NodeId) -> Result<(), StorageError> {
        at!(self, keys::NODES, shard => shard.retire(node).await)
    }

    async fn nodes(&self) -> Result<Vec<(NodeId, Bytes)>, StorageError> {
        at!(self, keys::NODES, shard => shard.nodes().await)
    }
}

#[async_trait]
impl Upkeep for Valkey {
    async fn health(&self) -> Condition {
        health::of_all(&self.places).await
    }

    async fn slow_commands(&self, limit: usize) -> Vec<SlowServer> {
        slowlog::of_all(&self.places.current().shards, limit).await
    }

    fn away(&self) -> Vec<String> {
        let placement = self.places.current();
        placement.shards.iter().filter(|shard| !shard.is_up()).filter_map(|shard| shard.name()).collect()
    }

    fn is_ready(&self) -> bool {
        self.places.current().shards.iter().any(|shard| shard.is_up())
    }

    fn now(&self) -> Timestamp {
        self.places.now()
    }

    async fn sweep(&self) -> Result<Swept, StorageError> {
        let (mut all, mut outcome) = (Swept::default(), Ok(()));
        let mut found = Some(Found::default());
        for shard in self.shards() {
            // One that cannot be swept now does not keep the others from it.
            let swept = match shard.sweep().await {
                Ok(swept) => swept,
                Err(error) => {
                    outcome = Err(error);
                    continue;
                }
            };
            all.topics += swept.topics;
            all.removed += swept.removed;
            // What is not known of one is not known of all.
            found = found.zip(swept.found).map(|(mut all, other)| {
                all.add(other);
                all
            });
            all.dying.extend(swept.dying);
        }
        outcome.map(|()| Swept { found, ..all })
    }

    async fn kept(&self, topics: &[TopicSelector]) -> Result<Option<Vec<u64>>, StorageError> {
        let mut all = vec![0_u64; topics.len()];
        for shard in self.shards() {
            let Some(kept) = shard.kept(topics).await? else { return Ok(None) };
            all.iter_mut().zip(kept).for_each(|(all, kept)| *all = all.saturating_add(kept));
        }
        Ok(Some(all))
    }

    async fn sweep_one(&self, topic: &TopicName) -> Result<(), StorageError> {
        at!(self, topic, shard => shard.sweep_one(topic).await)
    }
}

#[async_trait]
impl WorkStore for Valkey {
    async fn put_group(
        &self,
        topic: &TopicName,
        group: &GroupName,
        settings: &GroupSettings,
        start: GroupStart,
        existing: Existing,
    ) -> Result<bool, StorageError> {
        at!(self, topic, shard => shard.put_group(topic, group, settings, start, existing).await)
    }

    async fn change_group(
        &self,
        topic: &TopicName,
        group: &GroupName,
        change: &GroupChange,
    ) -> Result<bool, StorageError> {
        at!(self, topic, shard => shard.change_group(topic, group, change).await)
    }

    async fn groups(&self, topic: &TopicName) -> Result<Vec<GroupDetail>, StorageError> {
        at!(self, topic, shard => shard.groups(topic).await)
    }

    async fn grouped(
        &self,
        topics: &[TopicName],
    ) -> Result<Vec<(TopicName, GroupName, GroupsSwept)>, StorageError> {
        at!(self, shard => shard.grouped(topics).await)
    }

    async fn group(&self, topic: &TopicName, group: &GroupName) -> Result<GroupDetail, StorageError> {
        at!(self, topic, shard => shard.describe_group(topic, group, false).await)
    }

    async fn delete_group(&self, topic: &TopicName, group: &GroupName) -> Result<(), StorageError> {
        at!(self, topic, shard => shard.delete_group(topic, group).await)
    }

    async fn seek(&self, topic: &TopicName, group: &GroupName, to: GroupStart) -> Result<(), StorageError> {
        at!(self, topic, shard => shard.seek(topic, group, to).await)
    }

    async fn claim(&self, claims: Vec<Claim>) -> Vec<Result<Claimed, StorageError>> {
        let mut parts: Vec<Vec<Claim>> = Vec::new();
        for claim in claims {
            match parts.last_mut() {
                Some(part) if part[0].is_of_one(&claim) => part.push(claim),
                _ => parts.push(vec![claim]),
            }
        }
        let claim = |part: Vec<Claim>| async move {
            if self.places.is_one() {
                return match self.places.first() {
                    Ok(shard) => shard.claim_all(part).await,
                    Err(error) => part.iter().map(|_| Err(same(&error))).collect(),
                };
            }
            let claimed: Result<_, StorageError> =
                at!(self, &part[0].topic, shard => unless_elsewhere(shard.claim_all(part.clone()).await));
            claimed.unwrap_or_else(|error| part.iter().map(|_| Err(same(&error))).collect())
        };
        join_all(parts.into_iter().map(claim)).await.into_iter().flatten().collect()
    }

    async fn settle(
        &self,
        topic: &TopicName,
        group: &GroupName,
        settlements: Vec<Settlement>,
    ) -> Result<Vec<Outcome>, StorageError> {
        if self.places.is_one() {
            return self.places.first()?.settle(topic, group, settlements).await;
        }
        at!(self, topic, shard => shard.settle(topic, group, settlements.clone()).await)
    }

    async fn tend(&self, topic: &TopicName, group: &GroupName) -> Result<Tended, StorageError> {
        at!(self, topic, shard => shard.tend(topic, group).await)
    }

    async fn dying(
        &self,
        topic: &TopicName,
        group: &GroupName,
        limit: usize,
    ) -> Result<Vec<Dying>, StorageError> {
        at!(self, topic, shard => shard.dying(topic, group, limit).await)
    }

    async fn bury(
        &self,
        topic: &TopicName,
        group: &GroupName,
        epoch: u64,
        dead: DeadLetter,
    ) -> Result<bool, StorageError> {
        at!(self, topic, shard => shard.bury(topic, group, epoch, dead).await)
    }

    async fn dead(
        &self,
        topic: &TopicName,
        group: &GroupName,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StorageError> {
        at!(self, topic, shard => shard.dead(topic, group, after, limit).await)
    }

    async fn revive(
        &self,
        topic: &TopicName,
        group: &GroupName,
        ids: &[(MessageId, Duration)],
        wait: bool,
    ) -> Result<Vec<Revived>, StorageError> {
        at!(self, topic, shard => shard.revive(topic, group, ids, wait).await)
    }

    async fn fate(
        &self,
        topic: &TopicName,
        group: &GroupName,
        id: MessageId,
    ) -> Result<Option<Fate>, StorageError> {
        at!(self, topic, shard => shard.fate(topic, group, id).await)
    }
}
