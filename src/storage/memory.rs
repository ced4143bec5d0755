//! The memory backend: everything in this process, gone with it.
//!
//! It owns the lock around its data and the answers to the contract. It must not know HTTP, the
//! relay, or the other backend.
//!
//! | file | owns |
//! |---|---|
//! | `segment` | how messages lie in memory |
//! | `log` | the messages of one topic: ids, seeking, pages, trimming |
//! | `keys` | the idempotency keys of one topic |
//! | `group`, `work` | a group of consumers; the groups of topics |
//! | `access`, `tickets` | documents on who may do what, and tickets |
//! | `nodes` | which relays share it: this one |
//! | `limits`, `places` | allowances, and what nodes hold at one time |
//! | `takes` | limits of applications |
//! | `series` | series of measurements |
//! | `locks` | locks, and who waits for them |
//! | `leases` | what is kept alive together |
//! | `schedules` | what waits for later in one topic |
//! | `bucket`, `buckets` | a bucket of keys; buckets behind the lock |
//! | `durable` | that nothing is durable here |
//! | `runs` | how a topic ends |
//! | `copying` | how a topic is told to another storage, or taken over |
//! | `topics` | all topics and buckets, and the two budgets of bytes: of messages, and of idempotency keys |
//!
//! # Cost
//! A message costs 48 bytes beyond its body, with segments and what they waste about 55, and never
//! more than 120 (a test measures it). An append copies the body into the open segment of its topic
//! and is constant; a seek is a binary search over segments, then over entries. Pages share the bytes
//! of sealed segments and copy at most one open one. A key of a bucket costs up to 250 bytes beyond its name and value. What a request body or a page keeps alive is
//! never what storage keeps alive.
//!
//! **Invariant:** no lock is held across an `await`, nor while more than a bounded part of the data is
//! worked on.

use std::ops::Bound;
use std::sync::Weak;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;
use tidemill_proto::health::{BackendHealth, HealthStatus};
use tidemill_proto::locks::Guarded;
use tidemill_proto::topics::{RunState, Topic, TopicUpdate, TopicsStats};
use tidemill_proto::{MessageId, Timestamp, TopicName, TopicSelector};

use self::topics::Topics;
use super::hints::Hints;
use super::listing::Listing;
use super::{
    AccessDocuments, AccessEdit, AccessStore, Appended, Backend, Batch, Changes, Condition, Draw, Drawn,
    Followed, Found, GroupsSwept, HintListener, LatestRange, LimitStore, LiveStore, MessageStore, NewMessage,
    NewTicket, Places, READ_ONLY, Range, RecordChanges, RecordEdit, RecordStore, RunEnd, RunEnding, RunStore,
    Selection, StorageError, StorageLimits, StoredMessage, Swept, Tail, TicketClaim, TopicChange, TopicList,
    TopicState, TopicStore, Trim, Unfit, Upkeep,
};
use crate::chance::random;
use crate::clock::Clock;

mod access;
mod bucket;
mod buckets;
mod copied_buckets;
mod copying;
mod durable;
mod group;
mod keys;
mod latest;
mod leases;
mod limits;
mod locks;
mod log;
mod nodes;
mod places;
mod records;
mod runs;
mod schedules;
mod scheduling;
mod segment;
mod series;
mod takes;
#[cfg(test)]
mod tests;
mod tickets;
mod topics;
mod work;

/// Topics that a sweep works on before it lets others have the lock.
const SWEPT_TOPICS_PER_LOCK: usize = 256;

/// What happens to an append when the bytes are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The oldest messages of the largest topic are removed.
    TrimLargest,
    /// The append is [`StorageError::Full`].
    Refuse,
}

/// How the memory backend is set up.
#[derive(Clone, Debug)]
pub struct MemoryOptions {
    /// The bounds that every backend keeps.
    pub limits: StorageLimits,
    /// Bytes that topics and messages may hold together, with what they cost beyond what was published.
    pub bytes_max: u64,
    /// Bytes that idempotency keys may hold; past it a publish under a new one is
    /// [`StorageError::KeysFull`].
    pub keys_bytes_max: u64,
    /// What happens when the bytes are used up.
    pub when_full: WhenFull,
    /// Where the time comes from.
    pub clock: Clock,
}

/// The memory backend.
pub struct Memory {
    /// Tells it from all others.
    identity: String,
    clock: Clock,
    bytes_max: u64,
    retention: Option<Duration>,
    topics: RwLock<Topics>,
    hints: Hints,
    access: access::Access,
    nodes: nodes::Nodes,
    records: records::Records,
    limits: limits::Limits,
    places: places::AllPlaces,
    takes: takes::Takes,
    series: series::AllSeries,
    locks: locks::Locks,
    leases: leases::Leases,
    tickets: tickets::Tickets,
}

impl Memory {
    /// Returns an empty backend.
    #[must_use]
    pub fn new(options: MemoryOptions) -> Self {
        Self {
            identity: format!("memory/{:016x}{:016x}", random(), random()),
            clock: options.clock.clone(),
            bytes_max: options.bytes_max,
            retention: options.limits.retention,
            topics: RwLock::new(Topics::new(options)),
            hints: Hints::default(),
            access: access::Access::default(),
            nodes: nodes::Nodes::default(),
            records: records::Records::default(),
            limits: limits::Limits::default(),
            places: places::AllPlaces::default(),
            takes: takes::Takes::default(),
            series: series::AllSeries::default(),
            locks: locks::Locks::default(),
            leases: leases::Leases::default(),
            tickets: tickets::Tickets::default(),
        }
    }

    /// Returns the bytes that topics and messages hold together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.topics.read().bytes() as u64
    }

    /// Returns the bytes that idempotency keys hold.
    #[must_use]
    pub fn keys_bytes(&self) -> u64 {
        self.topics.read().keys_bytes() as u64
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("bytes_max", &self.bytes_max).finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for Memory {
    async fn ready(&self, _within: Duration) -> bool {
        true
    }

    async fn examine(&self, _strict: bool) -> Result<Vec<String>, Unfit> {
        Ok(Vec::new())
    }

    async fn unreadable(&self) -> Unfit {
        std::future::pending().await
    }

    async fn close(&self) {}
}

#[async_trait]
impl MessageStore for Memory {
    async fn append(&self, batch: Vec<NewMessage>) -> Vec<Result<Appended, StorageError>> {
        let results: Vec<Result<Appended, _>> = {
            let mut topics = self.topics.write();
            // Inside the lock, so that the times of appends are in the order of the appends.
            let now = self.clock.now();
            let append = |message: &NewMessage| match &message.fence {
                None => topics.append(message, now),
                // The locks stand still until the message is there.
                Some(fence) => {
                    let mut locks = self.locks.still();
                    let written = Guarded::Topic(message.topic.clone());
                    let may = || locks.check(&written, fence, now);
                    let appended = topics.append_where(message, now, may)?;
                    if !appended.replayed {
                        locks.note(&written, fence, now);
                    }
                    Ok(appended)
                }
            };
            batch.iter().map(append).collect()
        };
        let appended = batch.iter().zip(&results).filter(|(_, result)| result.is_ok());
        self.hints.tell_topics(appended.map(|(message, _)| &message.topic));
        results
    }

    async fn read(&self, topic: &TopicName, range: Range) -> Result<Batch, StorageError> {
        self.topics.read().read(topic, range, self.clock.now())
    }

    async fn latest(&self, topic: &TopicName, range: LatestRange) -> Result<Batch, StorageError> {
        self.topics.read().latest(topic, range, self.clock.now())
    }

    async fn get(&self, topic: &TopicName, id: MessageId) -> Result<Option<StoredMessage>, StorageError> {
        self.topics.read().get(topic, id, self.clock.now())
    }

    async fn trim(&self, topic: &TopicName, trim: Trim) -> Result<u64, StorageError> {
        self.topics.write().trim(topic, trim)
    }

    async fn remove(&self, topic: &TopicName, id: MessageId) -> Result<bool, StorageError> {
        let is_removed = self.topics.write().remove_message(topic, id)?;
        self.hints.tell_topics([topic]);
        Ok(is_removed)
    }
}

#[async_trait]
impl LiveStore for Memory {
    async fn tail(&self, topic: &TopicName) -> Result<Tail, StorageError> {
        self.topics.read().tail(topic)
    }

    async fn poll_changes(&self, topics: &[Followed]) -> Result<Changes, StorageError> {
        let kept = self.topics.read();
        let mut changes = Changes::default();
        for (place, Followed { topic, seen, exists, epoch, given: _, state }) in topics.iter().enumerate() {
            match kept.tail(topic) {
                Ok(tail)
                    if tail.last > *seen
                        || (*exists && (tail.epoch != *epoch || state_of(&tail) != *state)) =>
                {
                    changes.changed.push(place);
                }
                Err(_) if *exists => changes.gone.push(place),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(changes)
    }

    fn listen(&self, listener: Weak<dyn HintListener>) {
        self.hints.listen(listener);
    }

    /// Nobody but this node can change its memory.
    fn watch(&self, _topic: &TopicName, _attend: bool) {}

    fn watch_all(&self, _attend: bool) {}
}

#[async_trait]
impl TopicStore for Memory {
    async fn create(
        &self,
        topic: &TopicName,
        description: TopicUpdate,
        owner: Option<&str>,
    ) -> Result<Topic, StorageError> {
        let created = self.topics.write().create(topic, description, owner, self.clock.now())?;
        self.hints.tell_topics([topic]);
        Ok(created)
    }

    async fn list(
        &self,
        selection: Selection<'_>,
        after: Option<&TopicName>,
        limit: usize,
    ) -> Result<TopicList, StorageError> {
        let mut listing = Listing::new(selection, after, limit);
        loop {
            let names = self.topics.read().names(listing.prefix(), listing.after(), listing.wanted());
            // Not under the lock: it takes the longer, the more names are not selected.
            let chosen = listing.choose(names);
            let topics = self.topics.read().describe_all(chosen);
            if let Some(list) = listing.add(topics) {
                return Ok(list);
            }
            tokio::task::yield_now().await;
        }
    }

    async fn names(
        &self,
        prefix: &str,
        after: Option<&TopicName>,
        limit: usize,
    ) -> Result<Vec<TopicName>, StorageError> {
        Ok(self.topics.read().names(prefix, after, limit))
    }

    async fn describe(&self, topic: &TopicName) -> Result<TopicState, StorageError> {
        self.topics.read().describe(topic)
    }

    async fn update(&self, topic: &TopicName, change: TopicChange) -> Result<Topic, StorageError> {
        let now = self.clock.now();
        self.topics.write().update(topic, change, now)
    }

    async fn delete(&self, topic: &TopicName) -> Result<(), StorageError> {
        let removed = self.topics.write().remove(topic)?;
        self.hints.tell_topics([topic]);
        drop(removed);
        Ok(())
    }

    async fn stats(&self) -> Result<TopicsStats, StorageError> {
        Ok(self.topics.read().stats())
    }
}

fn state_of(tail: &Tail) -> RunState {
    tail.ended.as_ref().map_or(RunState::Open, |ended| ended.state)
}

#[async_trait]
impl RunStore for Memory {
    async fn end_run(&self, topic: &TopicName, ending: RunEnding<'_>) -> Result<RunEnd, StorageError> {
        let ended = self.topics.write().end_run(topic, ending)?;
        self.hints.tell_topics([topic]);
        Ok(ended)
    }
}

#[async_trait]
impl AccessStore for Memory {
    async fn documents(&self, known: Option<u64>) -> Result<Option<AccessDocuments>, StorageError> {
        Ok(self.access.documents(known))
    }

    async fn change_documents(
        &self,
        known: u64,
        next: u64,
        edits: Vec<AccessEdit>,
    ) -> Result<bool, StorageError> {
        Ok(self.access.change(known, next, edits))
    }

    async fn put_ticket(&self, ticket: NewTicket) -> Result<bool, StorageError> {
        Ok(self.tickets.put(ticket, self.clock.now()))
    }

    async fn claim_ticket(&self, claim: &TicketClaim) -> Result<Option<Bytes>, StorageError> {
        Ok(self.tickets.claim(claim, self.clock.now()))
    }

    async fn ticket_holders(&self, ids: &[Box<str>]) -> Result<Vec<Option<u64>>, StorageError> {
        Ok(self.tickets.holders(ids))
    }
}

#[async_trait]
impl LimitStore for Memory {
    async fn draw(&self, draw: &Draw) -> Result<Drawn, StorageError> {
        Ok(self.limits.draw(draw, self.clock.now()))
    }

    async fn hold(&self, places: &Places) -> Result<bool, StorageError> {
        Ok(self.places.hold(places, self.clock.now()))
    }
}

#[async_trait]
impl RecordStore for Memory {
    async fn records(&self, known: Option<u64>) -> Result<Option<RecordChanges>, StorageError> {
        Ok(self.records.changes(known))
    }

    async fn change_records(&self, next: u64, edits: Vec<RecordEdit>) -> Result<bool, StorageError> {
        Ok(self.records.change(next, edits))
    }
}

#[async_trait]
impl Upkeep for Memory {
    async fn health(&self) -> Condition {
        let (read_only, taken_over) = {
            let topics = self.topics.read();
            (topics.refuses_new(), topics.unfinished())
        };
        let backend = BackendHealth {
            kind: "memory".to_owned(),
            connected: true,
            accepts_writes: !read_only,
            read_only,
            taken_over,
            warnings: read_only.then(|| READ_ONLY.to_owned()).into_iter().collect(),
            memory_used_bytes: Some(self.bytes()),
            memory_limit_bytes: Some(self.bytes_max),
            ..BackendHealth::default()
        };
        let status = if read_only { HealthStatus::Degraded } else { HealthStatus::Healthy };
        Condition { status, backend }
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn sweep(&self) -> Result<Swept, StorageError> {
        let now = self.clock.now();
        self.locks.clear(now);
        self.leases.clear(now);
        self.takes.clear(now);
        let (mut total, mut groups) = (Swept::default(), GroupsSwept::default());
        let mut from = Bound::Unbounded;
        loop {
            let mut idle = Vec::new();
            let (swept, next) =
                self.topics.write().sweep(&from, SWEPT_TOPICS_PER_LOCK, now, &mut groups, &mut idle);
            for topic in idle {
                let removed = self.topics.write().remove_idle(&topic, now);
                if removed.is_some() {
                    self.hints.tell_topics([&topic]);
                }
            }
            total.topics += swept.topics;
            total.removed += swept.removed;
            total.dying.extend(swept.dying);
            total.dying.truncate(Swept::DYING_MAX);
            let Some(next) = next else { break };
            from = next;
            tokio::task::yield_now().await;
        }
        total.found = Some(Found { topics: total.topics, groups });
        let mut from = Bound::Unbounded;
        loop {
            let mut idle = Vec::new();
            let next = self.topics.write().sweep_buckets(&from, SWEPT_TOPICS_PER_LOCK, now, &mut idle);
            for room in idle {
                let removed = self.topics.write().delete_idle_room(&room, now);
                if removed.is_some() {
                    self.hints.tell_topics([&TopicName::log_of(&room)]);
                }
            }
            let Some(next) = next else { return Ok(total) };
            from = next;
            tokio::task::yield_now().await;
        }
    }

    async fn kept(&self, topics: &[TopicSelector]) -> Result<Option<Vec<u64>>, StorageError> {
        let mut kept = vec![0; topics.len()];
        let mut from = Bound::Unbounded;
        loop {
            let next = self.topics.read().weigh(&from, SWEPT_TOPICS_PER_LOCK, topics, &mut kept);
            let Some(next) = next else { return Ok(Some(kept)) };
            from = next;
            tokio::task::yield_now().await;
        }
    }

    /// Each has its epoch from the beginning.
    async fn sweep_one(&self, _topic: &TopicName) -> Result<(), StorageError> {
        Ok(())
    }
}
