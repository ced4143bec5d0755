//! Seats: where a shard of a cluster is served now, and whom it asks about the others.

use std::fmt;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::failure::{Failure, Redirect};
use super::super::homes::Home;
use super::super::pipeline::Outcome;
use super::super::resolver::{Address, Resolver};
use super::super::slots::{SLOTS, tag_of_slot};
use super::super::target::Target;
use super::super::{Shard, keys};
use super::map::Primary;
use crate::storage::{NewMessage, StorageError};

/// How long a shard is kept that has no slot: one that gets its first has none either.
const IDLE_KEPT: Duration = Duration::from_mins(1);
/// Channels of the doorbell, with slots that are evenly spread.
const CHANNELS: u16 = 64;

/// Shards, each with the places of those of a question that it has.
pub(super) type Groups = Vec<(Arc<Shard>, Vec<usize>)>;

/// What becomes of messages that are handed on.
pub(super) type HandedOn = Pin<Box<dyn Future<Output = Vec<Outcome>> + Send>>;

/// All shards, as one of them sees them.
pub(super) trait Cluster: fmt::Debug + Send + Sync {
    /// Has the servers asked who has what.
    fn wake(&self);

    /// Notes what a server has said.
    fn heed(self: Arc<Self>, redirect: &Redirect);

    /// Hands messages on that the server at an address says live elsewhere.
    fn hand_on(self: Arc<Self>, from: &Address, messages: Vec<NewMessage>) -> HandedOn;

    /// Returns all of them.
    fn shards(&self) -> Vec<Arc<Shard>>;

    /// Returns the shards of homes, each with the places of those that it has.
    fn groups(&self, homes: &[Home]) -> Result<Groups, StorageError>;

    /// Returns the shard that has a home.
    fn owner_of(&self, home: Home) -> Result<Arc<Shard>, StorageError>;
}

/// Where a shard of a cluster is served.
#[derive(Debug)]
pub(in super::super) struct Seat {
    pub(super) cluster: Weak<dyn Cluster>,
    pub(super) address: ArcSwap<Address>,
    /// How often another server took over; told when one does.
    pub(super) moves: AtomicU64,
    pub(super) moved: Notify,
    pub(super) slots: ArcSwap<Vec<RangeInclusive<u16>>>,
    /// The channels of the doorbell that the server has.
    pub(super) channels: ArcSwap<Vec<Arc<str>>>,
    pub(super) idle_since: Mutex<Option<Instant>>,
    pub(super) token: CancellationToken,
}

impl Seat {
    /// Has the shard be served as a map says.
    pub(super) fn serve(&self, primary: &Primary, shard: &Shard) {
        *self.idle_since.lock() = None;
        if **self.slots.load() != primary.slots {
            self.slots.store(Arc::new(primary.slots.clone()));
            let channels =
                channels().filter(|(slot, _)| self.has(*slot)).map(|(_, channel)| channel).collect();
            self.channels.store(Arc::new(channels));
            shard.doorbell.follow();
        }
        if **self.address.load() != primary.address {
            tracing::warn!(server = %primary.address, before = %self.address.load(), "another server has taken over");
            self.address.store(Arc::new(primary.address.clone()));
            self.moves.fetch_add(1, Ordering::Relaxed);
            self.moved.notify_waiters();
        }
    }

    /// Returns whether a shard is still wanted that has no slot.
    pub(super) fn is_wanted(&self, shard: &Shard) -> bool {
        if !self.slots.load().is_empty() {
            self.slots.store(Arc::default());
            self.channels.store(Arc::default());
            shard.doorbell.follow();
        }
        self.idle_since.lock().get_or_insert_with(Instant::now).elapsed() < IDLE_KEPT
    }

    pub(in super::super) fn address(&self) -> Arc<Address> {
        self.address.load_full()
    }

    /// Returns the channels of the doorbell that the server has.
    pub(in super::super) fn channels(&self) -> Arc<Vec<Arc<str>>> {
        self.channels.load_full()
    }

    /// Has the servers asked who has what.
    pub(in super::super) fn wake(&self) {
        if let Some(cluster) = self.cluster.upgrade() {
            cluster.wake();
        }
    }

    /// Notes what the server has said.
    pub(in super::super) fn heed(&self, redirect: &Redirect) {
        if let Some(cluster) = self.cluster.upgrade() {
            cluster.heed(redirect);
        }
    }

    /// Returns how many slots the server has.
    pub(in super::super) fn count(&self) -> u16 {
        self.slots.load().iter().map(|range| range.end() - range.start() + 1).sum()
    }

    /// Whether the server has a slot.
    pub(in super::super) fn has(&self, slot: u16) -> bool {
        self.slots.load().iter().any(|range| range.contains(&slot))
    }

    /// Hands messages on whose topics live elsewhere.
    pub(in super::super) fn hand_on(
        &self,
        messages: Vec<NewMessage>,
    ) -> impl Future<Output = Vec<Outcome>> + Send + 'static {
        let count = messages.len();
        let handed = self.cluster.upgrade().map(|cluster| cluster.hand_on(&self.address(), messages));
        async move {
            match handed {
                Some(handed) => handed.await,
                None => {
                    (0..count).map(|_| Err(StorageError::Unavailable(Failure::Unserved.into()))).collect()
                }
            }
        }
    }
}

#[async_trait]
impl Resolver for Seat {
    async fn primary_of(&self, _: &Target) -> Result<Address, String> {
        self.wake();
        Ok((*self.address()).clone())
    }

    fn found(&self) -> Option<Address> {
        Some((*self.address()).clone())
    }

    async fn left(&self, address: &Address) {
        loop {
            let moved = self.moved.notified();
            if *self.address() != *address {
                return;
            }
            moved.await;
        }
    }

    fn moves(&self) -> u64 {
        self.moves.load(Ordering::Relaxed)
    }

    async fn news(&self) {
        self.moved.notified().await;
    }

    fn own_slot(&self) -> Option<u16> {
        self.slots.load().first().map(|range| *range.start())
    }
}

/// Returns the channels of the doorbell, each with its slot.
pub(in super::super) fn channels() -> impl Iterator<Item = (u16, Arc<str>)> {
    let width = SLOTS / CHANNELS;
    (0..CHANNELS).map(move |part| {
        let slot = part * width + width / 2;
        (slot, format!("{}:{{{}}}", keys::DOORBELL, tag_of_slot(slot)).into())
    })
}
