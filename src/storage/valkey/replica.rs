//! A replica from which pages of history are read, where that is asked for, so that the primary has less to do.
//!
//! A replica has what the primary had a moment ago: all of it up to some place, and nothing behind that. So a full page that
//! it has is what the primary has too, but for what was trimmed or deleted since. Whatever else there is to know of a
//! topic, where it ends above all, the primary alone knows: a page that is not full, or in front of which something may be
//! missing, is read there. So are live tails, and everything that is asked by who stays.
//!
//! Which replicas there are, the primary tells with every look; one is used at a time, and another when that one is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tidemill_proto::TopicName;
use tidemill_proto::page::Order;
use tokio::time::timeout;

use super::Shard;
use super::reads::Reads;
use super::resolver::{Address, Resolver};
use super::resp::RespConnection;
use super::supervised::Supervised;
use super::target::Target;
use crate::storage::{Batch, GapCheck, Range};

/// A replica of which more time may have passed since it heard from its primary is not read from. A primary at rest says
/// something every ten seconds, as it is shipped (`repl-ping-replica-period`).
const AGE_MAX: Duration = Duration::from_secs(15);
/// How long ago its last look may be: it is looked at every second, and one that does not answer is not waited for.
const LOOKED_WITHIN: Duration = Duration::from_secs(2);
/// How long a page may take before the primary is asked.
const PAGE_WITHIN: Duration = Duration::from_millis(500);

/// Finds the replicas of a primary.
#[derive(Debug)]
pub(super) struct Replicas {
    primary: Arc<Supervised<RespConnection>>,
    /// Which is tried next.
    turn: AtomicUsize,
    found: Mutex<Option<Address>>,
}

/// What reads from a replica.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) reads: Reads,
    replicas: Arc<Replicas>,
    pages: AtomicU64,
}

impl Replicas {
    pub(super) const fn of(primary: Arc<Supervised<RespConnection>>) -> Self {
        Self { primary, turn: AtomicUsize::new(0), found: Mutex::new(None) }
    }
}

#[async_trait]
impl Resolver for Replicas {
    async fn primary_of(&self, _: &Target) -> Result<Address, String> {
        let told = self.primary.replication();
        let told = told.as_deref().map_or(&[][..], |told| &told.replicas[..]);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed).checked_rem(told.len());
        let next = turn.and_then(|turn| told.get(turn)).cloned();
        self.found.lock().clone_from(&next);
        next.ok_or_else(|| "the primary names no replica that follows it".to_owned())
    }

    fn found(&self) -> Option<Address> {
        self.found.lock().clone()
    }
}

impl Replica {
    pub(super) const fn new(reads: Reads, replicas: Arc<Replicas>) -> Self {
        Self { reads, replicas, pages: AtomicU64::new(0) }
    }

    /// Returns where it is, where it can be read from.
    pub(super) fn address(&self) -> Option<String> {
        self.age()?;
        self.replicas.found().map(|address| address.to_string())
    }

    /// Returns how many pages it has given.
    pub(super) fn pages(&self) -> u64 {
        self.pages.load(Ordering::Relaxed)
    }

    /// Returns by how much it may be behind its primary, where it can be read from.
    fn age(&self) -> Option<Duration> {
        let connection = self.reads.connection();
        let told = connection.replication().filter(|_| connection.is_up())?;
        let since = Some(told.at.elapsed()).filter(|since| *since <= LOOKED_WITHIN)?;
        told.heard.map(|heard| heard + since).filter(|age| *age <= AGE_MAX)
    }
}

impl Shard {
    /// Returns a page from a replica, where it is one that a replica may give, and that has it.
    pub(super) async fn read_replica(&self, topic: &TopicName, range: Range) -> Option<Batch> {
        let replica = self.replica.as_ref()?;
        let is_history =
            range.order == Order::Asc && matches!(range.gap_check, GapCheck::None | GapCheck::Seen);
        let age = replica.age().filter(|_| is_history)?;
        let read = timeout(PAGE_WITHIN, self.read_over(&replica.reads, topic, range));
        let Ok(read) = read.await else {
            replica.reads.connection().suspect();
            return None;
        };
        let batch = read.ok()?;
        if batch.at_end || batch.gap.is_some() || batch.messages.is_empty() {
            return None;
        }
        replica.pages.fetch_add(1, Ordering::Relaxed);
        Some(Batch { age: Some(age), ..batch })
    }
}
