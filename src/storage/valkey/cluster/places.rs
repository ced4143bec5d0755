//! Places: the shards that there are, and where what is asked for lives.
//!
//! It knows how what has a home is found, and what shards are told that come later; not how shards come to be.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use tidemill_proto::{NodeId, Timestamp, TopicName, TopicSelector};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::Shard;
use super::super::failure::Failure;
use super::super::homes::{Home, Homes, Lives};
use super::super::lanes::detour::Detour;
use super::super::options::ValkeyOptions;
use super::super::resolver::Address;
use super::matching::{NOBODY, Owners};
use super::seat::Groups;
use crate::clock::Clock;
use crate::storage::{HintListener, StorageError, StorageLimits};

/// The shards, and who has what.
#[derive(Debug, Default)]
pub(in super::super) struct Placement {
    pub(in super::super) shards: Vec<Arc<Shard>>,
    /// Of several, the place in `shards` of who has each home. `None`: there is one, which has everything.
    pub(super) owners: Option<Owners>,
}

impl Placement {
    pub(super) fn owner_of(&self, home: Home) -> Option<&Arc<Shard>> {
        match &self.owners {
            None => self.shards.first(),
            Some(owners) => {
                let owner = owners.get(usize::from(home)).copied().filter(|owner| *owner != NOBODY)?;
                self.shards.get(usize::from(owner))
            }
        }
    }
}

/// What shards are told that come later.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    pub(super) listener: Option<Weak<dyn HintListener>>,
    pub(super) topics: HashSet<TopicName>,
    pub(super) all: bool,
    pub(super) locks: bool,
}

/// The shards of a server, or of several of them.
#[derive(Debug)]
pub(in super::super) struct Places {
    pub(super) node: NodeId,
    pub(super) homes: Homes,
    /// Of the first server, where the settings name several.
    pub(super) options: ValkeyOptions,
    pub(super) limits: StorageLimits,
    pub(super) clock: Clock,
    pub(super) tracker: TaskTracker,
    pub(super) token: CancellationToken,
    pub(super) current: ArcSwap<Placement>,
    /// How often the servers were asked.
    pub(super) asked: watch::Sender<u64>,
    pub(super) wake: Notify,
    pub(super) last_error: Mutex<String>,
    /// Held whenever shards or owners change.
    pub(super) wishes: Mutex<Wishes>,
    /// Held to read while messages are queued, and to write while slots get other shards or a detour ends.
    pub(super) detours: RwLock<HashMap<u16, Arc<Detour>>>,
    /// Slots on their way, with who gets them.
    pub(super) asks: Mutex<HashMap<u16, Address>>,
    /// All servers of the cluster that were told of: whoever answers tells who is who now.
    pub(super) known: Mutex<Vec<Address>>,
}

impl Places {
    /// Starts with the servers that the settings name, and what is placed on those behind the first; returns at once.
    pub(in super::super) fn start(
        node: NodeId,
        (options, beside): (ValkeyOptions, Vec<(Vec<TopicSelector>, ValkeyOptions)>),
        limits: StorageLimits,
        clock: Clock,
        tracker: &TaskTracker,
        token: &CancellationToken,
    ) -> Arc<Self> {
        let (selectors, others): (Vec<_>, Vec<_>) = beside.into_iter().unzip();
        let homes = if others.is_empty() { Homes::BySlot } else { Homes::ByName(selectors.into()) };
        let places = Arc::new(Self {
            node,
            homes,
            options,
            limits,
            clock,
            tracker: tracker.clone(),
            token: token.clone(),
            current: ArcSwap::default(),
            asked: watch::Sender::new(0),
            wake: Notify::new(),
            last_error: Mutex::new("not connected yet".to_owned()),
            wishes: Mutex::default(),
            detours: RwLock::default(),
            asks: Mutex::default(),
            known: Mutex::default(),
        });
        if places.options.cluster == Some(false) || !others.is_empty() {
            places.take_alone(others);
        } else {
            let keeping = Box::pin(places.clone().keep());
            tracker.spawn(token.clone().run_until_cancelled_owned(keeping));
        }
        places
    }

    pub(in super::super) fn current(&self) -> Arc<Placement> {
        self.current.load_full()
    }

    /// Returns why there are no shards.
    pub(in super::super) fn last_error(&self) -> String {
        self.last_error.lock().clone()
    }

    /// Waits until there are shards.
    pub(in super::super) async fn found(&self) {
        let mut asked = self.asked.subscribe();
        while self.current.load().shards.is_empty() {
            // It lives as long as this.
            let _ = asked.changed().await;
        }
    }

    pub(super) fn nobody(&self) -> StorageError {
        let (server, why) = (self.options.place(), self.last_error());
        StorageError::Unavailable(Failure::Down { server, why }.into())
    }

    /// Returns the home of something.
    pub(in super::super) fn home_of(&self, what: &(impl Lives + ?Sized)) -> Home {
        self.homes.of(what)
    }

    /// Returns the shard that has a home.
    pub(in super::super) fn owner_of(&self, home: Home) -> Result<Arc<Shard>, StorageError> {
        self.owner_in(&self.current.load(), home).cloned()
    }

    fn owner_in<'a>(&self, placement: &'a Placement, home: Home) -> Result<&'a Arc<Shard>, StorageError> {
        placement.owner_of(home).ok_or_else(|| {
            if placement.shards.is_empty() {
                self.nobody()
            } else {
                StorageError::Unavailable(Failure::Unserved.into())
            }
        })
    }

    /// Returns a shard for what lives nowhere in particular.
    pub(in super::super) fn first(&self) -> Result<Arc<Shard>, StorageError> {
        self.any().ok_or_else(|| self.nobody())
    }

    /// Returns the shards of some things, each with the places of those that it has.
    pub(in super::super) fn groups<'a, T: Lives + 'a>(
        &self,
        all: impl Iterator<Item = &'a T>,
    ) -> Result<Groups, StorageError> {
        self.groups_of(all.map(|what| self.home_of(what)))
    }

    pub(super) fn groups_of(&self, homes: impl Iterator<Item = Home>) -> Result<Groups, StorageError> {
        let placement = self.current.load();
        let mut groups: Groups = Vec::with_capacity(1);
        for (place, home) in homes.enumerate() {
            let shard = self.owner_in(&placement, home)?;
            match groups.iter_mut().find(|(known, _)| Arc::ptr_eq(known, shard)) {
                Some((_, places)) => places.push(place),
                None => groups.push((shard.clone(), vec![place])),
            }
        }
        Ok(groups)
    }

    /// Returns one that is connected, if there is one.
    fn any(&self) -> Option<Arc<Shard>> {
        let placement = self.current.load();
        match &placement.shards[..] {
            [shard] => Some(shard.clone()),
            shards => shards.iter().find(|shard| shard.is_up()).or_else(|| shards.first()).cloned(),
        }
    }

    /// Returns what the clock of a server shows.
    pub(in super::super) fn now(&self) -> Timestamp {
        self.any().map_or_else(|| self.clock.now(), |shard| shard.now())
    }

    /// Whether there is one server that has everything.
    pub(in super::super) fn is_one(&self) -> bool {
        self.current.load().owners.is_none()
    }

    pub(in super::super) fn listen(&self, listener: Weak<dyn HintListener>) {
        let mut wishes = self.wishes.lock();
        self.current.load().shards.iter().for_each(|shard| shard.doorbell.listen(listener.clone()));
        wishes.listener = Some(listener);
    }

    pub(in super::super) fn watch(&self, topic: &TopicName, watch: bool) {
        let mut wishes = self.wishes.lock();
        let placement = self.current.load();
        if placement.owners.is_none()
            && let Some(shard) = placement.shards.first()
        {
            return shard.doorbell.watch(topic, watch);
        }
        if watch {
            wishes.topics.insert(topic.clone());
        } else {
            wishes.topics.remove(topic);
        }
        if let Some(shard) = placement.owner_of(self.home_of(topic)) {
            shard.doorbell.watch(topic, watch);
        }
    }

    pub(in super::super) fn watch_all(&self, watch: bool) {
        let mut wishes = self.wishes.lock();
        wishes.all = watch;
        self.current.load().shards.iter().for_each(|shard| shard.doorbell.watch_all(watch));
    }

    pub(in super::super) fn watch_locks(&self, watch: bool) {
        let mut wishes = self.wishes.lock();
        wishes.locks = watch;
        self.current.load().shards.iter().for_each(|shard| shard.doorbell.watch_locks(watch));
    }
}

impl Wishes {
    pub(super) fn tell(&self, shard: &Shard) {
        if let Some(listener) = &self.listener {
            shard.doorbell.listen(listener.clone());
        }
        shard.doorbell.watch_all(self.all);
        shard.doorbell.watch_locks(self.locks);
    }
}
