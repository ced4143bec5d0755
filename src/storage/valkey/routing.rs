//! Routing: the contract, answered by the shard of a topic, or by all of them.
//!
//! It knows which shard is asked and how answers are put together, and not how any is found.

use std::sync::Weak;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use tidemill_proto::topics::{Topic, TopicUpdate, TopicsStats};
use tidemill_proto::work::{GroupDetail, GroupName, GroupSettings};
use tidemill_proto::{BucketName, KeyName, MessageId, Timestamp, TopicName, TopicSelector};

use super::{Shard, Valkey};
use crate::storage::{
    AccessDocuments, AccessEdit, AccessStore, Appended, Batch, BucketSettings, BucketState, BucketStore,
    Changes, Claim, Claimed, Condition, DeadLetter, Draw, Drawn, Dying, Existing, Fate, FillAsked, Followed,
    GroupChange, GroupStart, HintListener, KeyChanges, KeyEntry, KeyFill, KeyPage, KeyRange, KeysChanged,
    KeysExpired, LatestRange, LimitStore, LiveStore, MessageStore, NewMessage, NewTicket, Outcome, Places,
    Range, RecordChanges, RecordEdit, RecordStore, Revived, RunEnd, RunEnding, RunStore, Selection,
    Settlement, StorageError, StoredMessage, Swept, Tail, Tended, TicketClaim, TopicChange, TopicList,
    TopicState, TopicStore, Trim, Upkeep, WorkStore,
};

#[async_trait]
impl MessageStore for Valkey {
    async fn append(&self, batch: Vec<NewMessage>) -> Vec<Result<Appended, StorageError>> {
        let [shard] = &self.shards;
        shard.lanes.append(batch).await
    }

    async fn read(&self, topic: &TopicName, range: Range) -> Result<Batch, StorageError> {
        self.shard_of(topic).read(topic, range).await
    }

    async fn latest(&self, topic: &TopicName, range: LatestRange) -> Result<Batch, StorageError> {
        self.shard_of(topic).latest(topic, range).await
    }

    async fn get(&self, topic: &TopicName, id: MessageId) -> Result<Option<StoredMessage>, StorageError> {
        self.shard_of(topic).get(topic, id).await
    }

    async fn trim(&self, topic: &TopicName, trim: Trim) -> Result<u64, StorageError> {
        self.shard_of(topic).trim(topic, trim).await
    }

    async fn remove(&self, topic: &TopicName, id: MessageId) -> Result<bool, StorageError> {
        self.shard_of(topic).remove(topic, id).await
    }
}

#[async_trait]
impl LiveStore for Valkey {
    async fn tail(&self, topic: &TopicName) -> Result<Tail, StorageError> {
        self.shard_of(topic).tail(topic).await
    }

    async fn poll_changes(&self, topics: &[Followed]) -> Result<Changes, StorageError> {
        let [shard] = &self.shards;
        shard.poll_changes(topics).await
    }

    fn listen(&self, listener: Weak<dyn HintListener>) {
        for shard in &self.shards {
            shard.doorbell.listen(listener.clone());
        }
    }

    fn watch(&self, topic: &TopicName, watch: bool) {
        self.shard_of(topic).doorbell.watch(topic, watch);
    }

    fn watch_all(&self, watch: bool) {
        for shard in &self.shards {
            shard.doorbell.watch_all(watch);
        }
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
        self.shard_of(topic).create(topic, description, owner).await
    }

    async fn list(
        &self,
        selection: Selection<'_>,
        after: Option<&TopicName>,
        limit: usize,
    ) -> Result<TopicList, StorageError> {
        let [shard] = &self.shards;
        shard.list(selection, after, limit).await
    }

    async fn names(
        &self,
        prefix: &str,
        after: Option<&TopicName>,
        limit: usize,
    ) -> Result<Vec<TopicName>, StorageError> {
        let [shard] = &self.shards;
        shard.names(prefix, after, limit).await
    }

    async fn describe(&self, topic: &TopicName) -> Result<TopicState, StorageError> {
        self.shard_of(topic).describe(topic).await
    }

    async fn update(&self, topic: &TopicName, change: TopicChange) -> Result<Topic, StorageError> {
        self.shard_of(topic).update(topic, &change).await
    }

    async fn delete(&self, topic: &TopicName) -> Result<(), StorageError> {
        self.shard_of(topic).delete(topic).await
    }

    async fn stats(&self) -> Result<TopicsStats, StorageError> {
        let mut all = TopicsStats { total_topics: 0, total_messages: 0 };
        for shard in &self.shards {
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
        self.shard_of(topic).end_run(topic, ending).await
    }
}

#[async_trait]
impl AccessStore for Valkey {
    async fn documents(&self, known: Option<u64>) -> Result<Option<AccessDocuments>, StorageError> {
        let [shard] = &self.shards;
        shard.access_documents(known).await
    }

    async fn change_documents(
        &self,
        known: u64,
        next: u64,
        edits: Vec<AccessEdit>,
    ) -> Result<bool, StorageError> {
        let [shard] = &self.shards;
        shard.change_access(known, next, edits).await
    }

    async fn put_ticket(&self, ticket: NewTicket) -> Result<bool, StorageError> {
        let [shard] = &self.shards;
        shard.put_ticket(ticket).await
    }

    async fn claim_ticket(&self, claim: &TicketClaim) -> Result<Option<Bytes>, StorageError> {
        let [shard] = &self.shards;
        shard.claim_ticket(claim).await
    }

    async fn ticket_holders(&self, ids: &[Box<str>]) -> Result<Vec<Option<u64>>, StorageError> {
        let [shard] = &self.shards;
        shard.ticket_holders(ids).await
    }
}

#[async_trait]
impl LimitStore for Valkey {
    async fn draw(&self, draw: &Draw) -> Result<Drawn, StorageError> {
        let [shard] = &self.shards;
        shard.draw(draw).await
    }

    async fn hold(&self, places: &Places) -> Result<bool, StorageError> {
        let [shard] = &self.shards;
        shard.hold(places).await
    }
}

#[async_trait]
impl RecordStore for Valkey {
    async fn records(&self, known: Option<u64>) -> Result<Option<RecordChanges>, StorageError> {
        let [shard] = &self.shards;
        shard.record_changes(known).await
    }

    async fn change_records(&self, next: u64, edits: Vec<RecordEdit>) -> Result<bool, StorageError> {
        let [shard] = &self.shards;
        shard.change_records(next, edits).await
    }
}

#[async_trait]
impl Upkeep for Valkey {
    async fn health(&self) -> Condition {
        let [shard] = &self.shards;
        shard.health().await
    }

    fn is_ready(&self) -> bool {
        self.shards.iter().all(Shard::is_up)
    }

    fn now(&self) -> Timestamp {
        let [shard] = &self.shards;
        shard.now()
    }

    async fn sweep(&self) -> Result<Swept, StorageError> {
        let mut all = Swept::default();
        for shard in &self.shards {
            let swept = shard.sweep().await?;
            all.topics += swept.topics;
            all.removed += swept.removed;
            all.groups.add(swept.groups);
            all.dying.extend(swept.dying);
        }
        Ok(all)
    }

    async fn kept(&self, topics: &[TopicSelector]) -> Result<Option<Vec<u64>>, StorageError> {
        let mut all = vec![0_u64; topics.len()];
        for shard in &self.shards {
            let Some(kept) = shard.kept(topics).await? else { return Ok(None) };
            all.iter_mut().zip(kept).for_each(|(all, kept)| *all = all.saturating_add(kept));
        }
        Ok(Some(all))
    }

    async fn sweep_one(&self, topic: &TopicName) -> Result<(), StorageError> {
        self.shard_of(topic).sweep_one(topic).await
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
        self.shard_of(topic).put_group(topic, group, settings, start, existing).await
    }

    async fn change_group(
        &self,
        topic: &TopicName,
        group: &GroupName,
        change: &GroupChange,
    ) -> Result<bool, StorageError> {
        self.shard_of(topic).change_group(topic, group, change).await
    }

    async fn groups(&self, topic: &TopicName) -> Result<Vec<GroupDetail>, StorageError> {
        self.shard_of(topic).groups(topic).await
    }

    async fn group(&self, topic: &TopicName, group: &GroupName) -> Result<GroupDetail, StorageError> {
        self.shard_of(topic).describe_group(topic, group, true).await
    }

    async fn delete_group(&self, topic: &TopicName, group: &GroupName) -> Result<(), StorageError> {
        self.shard_of(topic).delete_group(topic, group).await
    }

    async fn seek(&self, topic: &TopicName, group: &GroupName, to: GroupStart) -> Result<(), StorageError> {
        self.shard_of(topic).seek(topic, group, to).await
    }

    async fn claim(&self, claims: Vec<Claim>) -> Vec<Result<Claimed, StorageError>> {
        let mut parts: Vec<Vec<Claim>> = Vec::new();
        for claim in claims {
            match parts.last_mut() {
                Some(part) if part[0].is_of_one(&claim) => part.push(claim),
                _ => parts.push(vec![claim]),
            }
        }
        let claimed = parts.into_iter().map(|part| self.shard_of(&part[0].topic).claim_all(part));
        join_all(claimed).await.into_iter().flatten().collect()
    }

    async fn settle(
        &self,
        topic: &TopicName,
        group: &GroupName,
        settlements: Vec<Settlement>,
    ) -> Result<Vec<Outcome>, StorageError> {
        self.shard_of(topic).settle(topic, group, settlements).await
    }

    async fn tend(&self, topic: &TopicName, group: &GroupName) -> Result<Tended, StorageError> {
        self.shard_of(topic).tend(topic, group).await
    }

    async fn dying(
        &self,
        topic: &TopicName,
        group: &GroupName,
        limit: usize,
    ) -> Result<Vec<Dying>, StorageError> {
        self.shard_of(topic).dying(topic, group, limit).await
    }

    async fn bury(
        &self,
        topic: &TopicName,
        group: &GroupName,
        epoch: u64,
        dead: DeadLetter,
    ) -> Result<bool, StorageError> {
        self.shard_of(topic).bury(topic, group, epoch, dead).await
    }

    async fn dead(
        &self,
        topic: &TopicName,
        group: &GroupName,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StorageError> {
        self.shard_of(topic).dead(topic, group, after, limit).await
    }

    async fn revive(
        &self,
        topic: &TopicName,
        group: &GroupName,
        ids: &[(MessageId, Duration)],
        wait: bool,
    ) -> Result<Vec<Revived>, StorageError> {
        self.shard_of(topic).revive(topic, group, ids, wait).await
    }

    async fn fate(
        &self,
        topic: &TopicName,
        group: &GroupName,
        id: MessageId,
    ) -> Result<Option<Fate>, StorageError> {
        self.shard_of(topic).fate(topic, group, id).await
    }
}

#[async_trait]
impl BucketStore for Valkey {
    async fn change_keys(&self, changes: KeyChanges) -> Result<KeysChanged, StorageError> {
        let [shard] = &self.shards;
        shard.change_keys(&changes).await
    }

    async fn key(
        &self,
        bucket: &BucketName,
        key: &KeyName,
        value: bool,
    ) -> Result<Option<KeyEntry>, StorageError> {
        let [shard] = &self.shards;
        shard.key(bucket, key, value).await
    }

    async fn key_history(&self, bucket: &BucketName, key: &KeyName) -> Result<Vec<KeyEntry>, StorageError> {
        let [shard] = &self.shards;
        shard.key_history(bucket, key).await
    }

    async fn touch_key(
        &self,
        bucket: &BucketName,
        key: &KeyName,
        ttl: Option<Duration>,
        value: bool,
    ) -> Result<Option<KeyEntry>, StorageError> {
        let [shard] = &self.shards;
        shard.touch_key(bucket, key, ttl, value).await
    }

    async fn fill_key(&self, asked: &FillAsked) -> Result<KeyFill, StorageError> {
        let [shard] = &self.shards;
        shard.fill_key(asked).await
    }

    async fn count_reads(&self, bucket: &BucketName, reads: &[(KeyName, u32)]) -> Result<(), StorageError> {
        let [shard] = &self.shards;
        shard.count_reads(bucket, reads).await
    }

    async fn touch_revisions(
        &self,
        bucket: &BucketName,
        keys: &[(KeyName, MessageId)],
        ttl: Duration,
    ) -> Result<Vec<bool>, StorageError> {
        let [shard] = &self.shards;
        shard.touch_revisions(bucket, keys, ttl).await
    }

    async fn list_keys(&self, bucket: &BucketName, range: KeyRange) -> Result<KeyPage, StorageError> {
        let [shard] = &self.shards;
        shard.list_keys(bucket, range).await
    }

    async fn revoke_keys(
        &self,
        bucket: &BucketName,
        owner: &KeyName,
        timestamp: Timestamp,
    ) -> Result<u64, StorageError> {
        let [shard] = &self.shards;
        shard.revoke_keys(bucket, owner, timestamp).await
    }

    async fn expire_keys(&self, buckets: &[BucketName]) -> Vec<Result<KeysExpired, StorageError>> {
        let [shard] = &self.shards;
        shard.expire_keys(buckets).await
    }

    async fn expiring_within(
        &self,
        within: Duration,
        limit: usize,
    ) -> Result<Vec<(BucketName, Duration)>, StorageError> {
        let [shard] = &self.shards;
        shard.expiring_within(within, limit).await
    }

    async fn put_bucket(
        &self,
        bucket: &BucketName,
        settings: BucketSettings,
    ) -> Result<(BucketState, bool), StorageError> {
        let [shard] = &self.shards;
        shard.make_bucket(bucket, &settings, false).await
    }

    async fn bucket(&self, bucket: &BucketName) -> Result<BucketState, StorageError> {
        let [shard] = &self.shards;
        shard.bucket(bucket).await
    }

    async fn bucket_names(
        &self,
        after: Option<&BucketName>,
        limit: usize,
    ) -> Result<Vec<BucketName>, StorageError> {
        let [shard] = &self.shards;
        shard.bucket_names(after, limit).await
    }

    async fn delete_bucket(&self, bucket: &BucketName) -> Result<(), StorageError> {
        let [shard] = &self.shards;
        shard.delete_bucket(bucket).await
    }
}
