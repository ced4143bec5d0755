//! Places: the shards that there are, kept up with the servers, and where what is asked for lives.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures_util::future::join_all;
use parking_lot::{Mutex, RwLock};
use tidemill_proto::{NodeId, Timestamp, TopicName};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::failure::{Failure, Redirect};
use super::super::lanes::detour::{Detour, Walk};
use super::super::lanes::{Lanes, Queueing, outcomes_of};
use super::super::options::{KeyForm, ValkeyOptions};
use super::super::pipeline::{Outcome, PipelineResult};
use super::super::resolver::{Address, Resolver};
use super::super::sending::Asked;
use super::super::slots::{SLOTS, slot_of_tag, tag_of_slot};
use super::super::target::Target;
use super::super::{Shard, keys};
use super::asking::{map_at, map_over, mode_of};
use super::map::{Primary, SlotMap};
use super::matching::{NOBODY, Owners, nobodys, shards_of};
use crate::chance::jittered;
use crate::clock::Clock;
use crate::storage::{HintListener, NewMessage, StorageError, StorageLimits};

/// How often the servers are asked, whatever happens, and how often at most.
const ASK_EVERY: Duration = Duration::from_secs(5);
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// How often while a shard has no connection: a replica may have taken over.
const ASK_WHILE_DOWN: Duration = Duration::from_millis(200);
/// How long an answer may take. The others are heard meanwhile, so one that hangs delays only the next question.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// Servers that are asked over new connections, beside those that there are connections to.
const ASKED_MAX: usize = 8;
/// Wait between attempts to find the first server.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(2);
/// Wait before something is asked again that servers say is elsewhere.
const AGAIN_AFTER: Duration = Duration::from_millis(10);
/// How long a shard is kept that has no slot: one that gets its first has none either.
const IDLE_KEPT: Duration = Duration::from_secs(60);
/// Channels of the doorbell, with slots that are evenly spread.
const CHANNELS: u16 = 64;
/// How often a topic is made again that is deleted as fast.
const MADE_MAX: usize = 4;

/// The shards, and who has what.
#[derive(Debug, Default)]
pub(in super::super) struct Placement {
    pub(in super::super) shards: Vec<Arc<Shard>>,
    /// In a cluster, the place in `shards` of who has each slot. `None`: there is one, which has everything.
    owners: Option<Owners>,
}

impl Placement {
    fn owner_of(&self, slot: u16) -> Option<&Arc<Shard>> {
        match &self.owners {
            None => self.shards.first(),
            Some(owners) => {
                let owner = owners.get(usize::from(slot)).copied().filter(|owner| *owner != NOBODY)?;
                self.shards.get(usize::from(owner))
            }
        }
    }
}

/// What shards are told that come later.
#[derive(Debug, Default)]
struct Wishes {
    listener: Option<Weak<dyn HintListener>>,
    topics: std::collections::HashSet<TopicName>,
    all: bool,
    locks: bool,
}

/// The shards of a server, or of a cluster of them.
#[derive(Debug)]
pub(in super::super) struct Places {
    node: NodeId,
    options: ValkeyOptions,
    limits: StorageLimits,
    clock: Clock,
    tracker: TaskTracker,
    token: CancellationToken,
    current: ArcSwap<Placement>,
    /// How often the servers were asked.
    asked: watch::Sender<u64>,
    wake: Notify,
    last_error: Mutex<String>,
    /// Held whenever shards or owners change.
    wishes: Mutex<Wishes>,
    /// Held to read while messages are queued, and to write while slots get other shards or a detour ends.
    detours: RwLock<HashMap<u16, Arc<Detour>>>,
    /// Slots on their way, with who gets them.
    asks: Mutex<HashMap<u16, Address>>,
    /// All servers of the cluster that were told of: whoever answers tells who is who now.
    known: Mutex<Vec<Address>>,
}

/// Where a shard of a cluster is served.
#[derive(Debug)]
pub(in super::super) struct Seat {
    places: Weak<Places>,
    address: ArcSwap<Address>,
    slots: ArcSwap<Vec<RangeInclusive<u16>>>,
    /// The channels of the doorbell that the server has.
    channels: ArcSwap<Vec<Arc<str>>>,
    idle_since: Mutex<Option<Instant>>,
    token: CancellationToken,
}

impl Places {
    /// Starts, and returns at once.
    pub(in super::super) fn start(
        node: NodeId,
        options: ValkeyOptions,
        limits: StorageLimits,
        clock: Clock,
        tracker: &TaskTracker,
        token: &CancellationToken,
    ) -> Arc<Self> {
        let places = Arc::new(Self {
            node,
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
        if places.options.cluster == Some(false) {
            places.take_alone();
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

    /// The server stands alone.
    fn take_alone(&self) {
        let mut wishes = self.wishes.lock();
        let shard = Arc::new(Shard::connect(
            self.node,
            self.options.clone(),
            None,
            self.limits,
            self.clock.clone(),
            &self.tracker,
            &self.token,
        ));
        wishes.tell(&shard);
        std::mem::take(&mut wishes.topics).iter().for_each(|topic| shard.doorbell.watch(topic, true));
        self.current.store(Arc::new(Placement { shards: vec![shard], owners: None }));
        self.asked.send_modify(|asked| *asked += 1);
    }

    async fn keep(self: Arc<Self>) {
        let mut wait = RETRY_FIRST;
        let seed = loop {
            match mode_of(&self.options).await {
                Ok((is_cluster, address)) if is_cluster || self.options.cluster == Some(true) => {
                    break address;
                }
                Ok(_) => return self.take_alone(),
                Err(error) => self.note(&error.to_string()),
            }
            sleep(jittered(wait)).await;
            wait = (wait * 2).min(RETRY_LAST);
        };
        self.known.lock().push(seed);
        loop {
            self.ask().await;
            let is_down = {
                let placement = self.current.load();
                placement.shards.is_empty() || placement.shards.iter().any(|shard| !shard.is_up())
            };
            let every = if is_down { ASK_WHILE_DOWN } else { ASK_EVERY };
            sleep(ASK_AGAIN).await;
            let _ = timeout(every, self.wake.notified()).await;
        }
    }

    fn note(&self, error: &str) {
        let mut last = self.last_error.lock();
        if *last != error {
            tracing::warn!(server = %self.options.target, error, "the server is not found, trying on");
            error.clone_into(&mut last);
        }
    }

    /// Asks the servers who has what, and follows the latest answer.
    async fn ask(self: &Arc<Self>) {
        let placement = self.current();
        let over = placement.shards.iter().map(|shard| async {
            let connection = shard.read.connection().current().ok()?;
            let address = shard.seat.as_ref()?.address.load_full();
            map_over(&connection, &address, ANSWER_WITHIN).await.ok()
        });
        let mut found: Vec<SlotMap> = join_all(over).await.into_iter().flatten().collect();
        if found.len() < placement.shards.len() || found.is_empty() {
            let mut known = self.known.lock().clone();
            if let Ok(Ok((_, seed))) = timeout(ANSWER_WITHIN, mode_of(&self.options)).await
                && !known.contains(&seed)
            {
                known.insert(0, seed);
            }
            let at = known
                .into_iter()
                .take(ASKED_MAX)
                .map(|address| map_at(&self.options, address, ANSWER_WITHIN));
            for answer in join_all(at).await {
                match answer {
                    Ok(map) => found.push(map),
                    Err(error) if placement.shards.is_empty() => self.note(&error),
                    Err(_) => {}
                }
            }
        }
        // One that takes the cluster for broken may be cut off from it.
        let latest = found.into_iter().max_by_key(|map| (map.is_ok, map.epoch));
        if let Some(map) = latest.filter(|map| !map.primaries.is_empty()) {
            self.take(&map);
        }
        self.asked.send_modify(|asked| *asked += 1);
    }

    /// Has the shards be as a map says.
    fn take(self: &Arc<Self>, map: &SlotMap) {
        let nodes = |primary: &Primary| {
            std::iter::once(primary.address.clone())
                .chain(primary.replicas.iter().cloned())
                .collect::<Vec<_>>()
        };
        *self.known.lock() = map.primaries.iter().flat_map(nodes).collect();
        let mut wishes = self.wishes.lock();
        let before = self.current();
        let owners_before = before.owners.clone().unwrap_or_else(nobodys);
        let addresses: Vec<(u16, Address)> = (0..)
            .zip(&before.shards)
            .filter_map(|(place, shard)| Some((place, (*shard.seat.as_ref()?.address.load_full()).clone())))
            .collect();
        let mut shards = before.shards.clone();
        let mut owners = nobodys();
        let mut is_served = vec![false; shards.len()];
        for (primary, shard) in
            map.primaries.iter().zip(shards_of(&map.primaries, &addresses, &owners_before))
        {
            let place = if let Some(place) = shard {
                usize::from(place)
            } else {
                shards.push(self.seated(primary.address.clone(), &wishes));
                shards.len() - 1
            };
            if let Some(is_served) = is_served.get_mut(place) {
                *is_served = true;
            }
            for slot in primary.slots.iter().cloned().flatten() {
                owners[usize::from(slot)] = u16::try_from(place).unwrap_or(NOBODY);
            }
            if let Some(seat) = &shards[place].seat {
                seat.serve(primary, &shards[place]);
            }
        }
        // What has no slot any more is let go in a while: something may still be under way there.
        let mut is_kept = vec![true; shards.len()];
        for (place, shard) in shards.iter().enumerate().take(is_served.len()) {
            if let Some(seat) = shard.seat.as_ref().filter(|_| !is_served[place]) {
                is_kept[place] = seat.is_wanted(shard);
            }
        }
        self.put(&mut wishes, &before, shards, owners, &is_kept);
    }

    /// Puts a placement in the place of another, with a detour for the slots of which a shard is no longer the owner.
    fn put(
        self: &Arc<Self>,
        wishes: &mut Wishes,
        before: &Placement,
        shards: Vec<Arc<Shard>>,
        owners: Owners,
        is_kept: &[bool],
    ) {
        let mut detours = self.detours.write();
        if let Some(owners_before) = &before.owners {
            let mut moved: HashMap<u16, Vec<u16>> = HashMap::new();
            for (slot, (old, new)) in (0..SLOTS).zip(owners_before.iter().zip(&owners)) {
                if old != new && *old != NOBODY {
                    moved.entry(*old).or_default().push(slot);
                }
            }
            for (old, slots) in moved {
                tracing::info!(slots = slots.len(), "slots have moved to another server");
                self.begin(&mut detours, &before.shards[usize::from(old)], &slots);
            }
        }
        let is_another = before.owners.as_ref() != Some(&owners);
        let mut places = Vec::with_capacity(shards.len());
        let mut kept = Vec::with_capacity(shards.len());
        for (shard, is_kept) in shards.into_iter().zip(is_kept) {
            places.push(if *is_kept { u16::try_from(kept.len()).unwrap_or(NOBODY) } else { NOBODY });
            if *is_kept {
                kept.push(shard);
            } else if let Some(seat) = &shard.seat {
                seat.token.cancel();
            }
        }
        let owners: Owners =
            owners.iter().map(|owner| places.get(usize::from(*owner)).copied().unwrap_or(NOBODY)).collect();
        let placement = Arc::new(Placement { shards: kept, owners: Some(owners) });
        self.current.store(placement.clone());
        drop(detours);
        if is_another {
            self.asks.lock().clear();
            for topic in &wishes.topics {
                let owner = placement.owner_of(slot_of_tag(topic.as_str().as_bytes()));
                for shard in &placement.shards {
                    shard.doorbell.watch(topic, owner.is_some_and(|owner| Arc::ptr_eq(owner, shard)));
                }
            }
        }
    }

    /// Makes a shard of the server at an address.
    fn seated(self: &Arc<Self>, address: Address, wishes: &Wishes) -> Arc<Shard> {
        tracing::info!(server = %address, "the cluster has this primary");
        let token = self.token.child_token();
        let target = Target { host: address.host.clone(), port: address.port, ..self.options.target.clone() };
        let seat = Arc::new(Seat {
            places: Arc::downgrade(self),
            address: ArcSwap::from_pointee(address),
            slots: ArcSwap::default(),
            channels: ArcSwap::default(),
            idle_since: Mutex::default(),
            token: token.clone(),
        });
        let options = ValkeyOptions {
            target,
            resolver: seat.clone(),
            key_form: KeyForm::Braces,
            ..self.options.clone()
        };
        let shard = Arc::new(Shard::connect(
            self.node,
            options,
            Some(seat),
            self.limits,
            self.clock.clone(),
            &self.tracker,
            &token,
        ));
        wishes.tell(&shard);
        shard
    }

    /// Begins a detour of slots that a shard has had, of those that have none.
    fn begin(self: &Arc<Self>, detours: &mut HashMap<u16, Arc<Detour>>, shard: &Shard, slots: &[u16]) {
        let slots: Vec<u16> = slots.iter().copied().filter(|slot| !detours.contains_key(slot)).collect();
        if slots.is_empty() {
            return;
        }
        let (detour, handed) = Detour::new();
        detours.extend(slots.iter().map(|slot| (*slot, detour.clone())));
        let passed = shard.lanes.passed(slots.iter().copied());
        let walker = Walker { places: self.clone(), slots };
        let walk = Box::pin(detour.walk(walker, handed, passed));
        self.tracker.spawn(self.token.clone().run_until_cancelled_owned(walk));
    }

    /// Notes what a server has said.
    pub(in super::super) fn heed(self: &Arc<Self>, redirect: &Redirect) {
        match redirect {
            Redirect::Moved(slot, address) => {
                self.asks.lock().remove(slot);
                if let Some(address) = address {
                    self.move_to(*slot, address);
                }
            }
            Redirect::Ask(slot, Some(address)) => {
                self.asks.lock().insert(*slot, address.clone());
                self.at(address);
            }
            Redirect::Ask(_, None) | Redirect::TryAgain => {}
        }
        self.wake.notify_one();
    }

    /// Has a slot be of the shard at an address, if there is one; who is there else, the servers tell.
    fn move_to(self: &Arc<Self>, slot: u16, address: &Address) {
        let mut wishes = self.wishes.lock();
        let before = self.current();
        let Some(mut owners) = before.owners.clone() else { return };
        let Some(place) = before.shards.iter().position(|shard| shard.is_at(address)) else { return };
        let owner = &mut owners[usize::from(slot)];
        let place = u16::try_from(place).unwrap_or(NOBODY);
        if *owner != place {
            *owner = place;
            let shards = before.shards.clone();
            let is_kept = vec![true; shards.len()];
            self.put(&mut wishes, &before, shards, owners, &is_kept);
        }
    }

    /// Returns the shard at an address; it is made where there is none yet, as of a server that gets its first slot.
    fn at(self: &Arc<Self>, address: &Address) -> Option<Arc<Shard>> {
        let wishes = self.wishes.lock();
        let before = self.current();
        let owners = before.owners.clone()?;
        if let Some(shard) = before.shards.iter().find(|shard| shard.is_at(address)) {
            return Some(shard.clone());
        }
        let shard = self.seated(address.clone(), &wishes);
        let mut shards = before.shards.clone();
        shards.push(shard.clone());
        self.current.store(Arc::new(Placement { shards, owners: Some(owners) }));
        Some(shard)
    }

    /// Appends messages, each where its topic lives, and returns a result for each.
    pub(in super::super) async fn append(self: &Arc<Self>, batch: Vec<NewMessage>) -> Vec<Outcome> {
        let placement = self.current();
        if placement.owners.is_none() {
            return match placement.shards.first() {
                Some(shard) => shard.lanes.append(batch).await,
                None => batch.iter().map(|_| Err(self.nobody())).collect(),
            };
        }
        drop(placement);
        let count = batch.len();
        let parts = self.queue(batch);
        outcomes_of(parts, count).await
    }

    fn nobody(&self) -> StorageError {
        StorageError::Unavailable(Failure::Down(self.last_error()).into())
    }

    /// Queues messages, in their order, where their topics live now.
    fn queue(&self, batch: Vec<NewMessage>) -> Vec<(Vec<usize>, Queueing)> {
        let detours = self.detours.read();
        let placement = self.current.load();
        /// Where a message is queued: a lane of a shard, or a slot that is on a detour, or nowhere.
        #[derive(PartialEq)]
        enum To {
            Lane(*const Shard, usize),
            Slot(u16),
        }
        let mut parts: Vec<(To, u16, Vec<usize>, Vec<NewMessage>)> = Vec::with_capacity(1);
        for (place, message) in batch.into_iter().enumerate() {
            let slot = slot_of_tag(message.topic.as_str().as_bytes());
            let to = match placement.owner_of(slot) {
                Some(shard) if detours.is_empty() || !detours.contains_key(&slot) => {
                    To::Lane(Arc::as_ptr(shard), Lanes::lane_of_slot(slot))
                }
                _ => To::Slot(slot),
            };
            match parts.iter_mut().find(|(known, ..)| *known == to) {
                Some((_, _, places, messages)) => {
                    places.push(place);
                    messages.push(message);
                }
                None => parts.push((to, slot, vec![place], vec![message])),
            }
        }
        let queue = |(to, slot, places, messages): (To, u16, Vec<usize>, Vec<NewMessage>)| {
            let queueing = match (placement.owner_of(slot), to) {
                (Some(shard), To::Lane(_, lane)) => shard.lanes.queue(lane, messages),
                (Some(shard), To::Slot(_)) if let Some(detour) = detours.get(&slot) => {
                    detour.hold(&shard.lanes, messages)
                }
                _ => Queueing {
                    count: messages.len(),
                    queued: Err(StorageError::Unavailable(Failure::Unserved.into())),
                },
            };
            (places, queueing)
        };
        parts.into_iter().map(queue).collect()
    }

    /// Hands messages on that a shard was told live elsewhere.
    fn hand_on(
        self: &Arc<Self>,
        shard: &Shard,
        messages: Vec<NewMessage>,
    ) -> impl Future<Output = Vec<Outcome>> + Send + use<> {
        let count = messages.len();
        let mut parts: Vec<(Arc<Detour>, Vec<usize>, Vec<NewMessage>)> = Vec::new();
        let slot = |message: &NewMessage| slot_of_tag(message.topic.as_str().as_bytes());
        let mut detours = self.detours.write();
        let slots: Vec<u16> = messages.iter().map(slot).collect();
        let mut begun = slots.clone();
        begun.sort_unstable();
        begun.dedup();
        self.begin(&mut detours, shard, &begun);
        for (place, (message, slot)) in messages.into_iter().zip(slots).enumerate() {
            let Some(detour) = detours.get(&slot) else { continue };
            match parts.iter_mut().find(|(known, ..)| Arc::ptr_eq(known, detour)) {
                Some((_, places, messages)) => {
                    places.push(place);
                    messages.push(message);
                }
                None => parts.push((detour.clone(), vec![place], vec![message])),
            }
        }
        let handed = parts.into_iter().map(|(detour, places, messages)| {
            let count = messages.len();
            (places, Queueing { count, queued: Ok(detour.hand_on(messages)) })
        });
        let handed: Vec<_> = handed.collect();
        drop(detours);
        outcomes_of(handed, count)
    }

    /// Begins an operation on what lives in a slot, or on what lives in several, which any shard does.
    pub(in super::super) fn tries(self: &Arc<Self>, slot: impl Into<Option<u16>>) -> Tries<'_> {
        Tries { places: self, slot: slot.into(), deadline: None, again: 0 }
    }

    /// Returns the shard that has a slot.
    pub(in super::super) fn owner_of(&self, slot: u16) -> Result<Arc<Shard>, StorageError> {
        let placement = self.current.load();
        match placement.owner_of(slot) {
            Some(shard) => Ok(shard.clone()),
            None if placement.shards.is_empty() => Err(self.nobody()),
            None => Err(StorageError::Unavailable(Failure::Unserved.into())),
        }
    }

    /// Returns a shard for what lives nowhere in particular.
    pub(in super::super) fn first(&self) -> Result<Arc<Shard>, StorageError> {
        self.any().ok_or_else(|| self.nobody())
    }

    /// Returns the shards of slots, each with the places of those that it has.
    pub(in super::super) fn groups(
        &self,
        slots: impl Iterator<Item = u16>,
    ) -> Result<Vec<(Arc<Shard>, Vec<usize>)>, StorageError> {
        let placement = self.current.load();
        let mut groups: Vec<(Arc<Shard>, Vec<usize>)> = Vec::with_capacity(1);
        for (place, slot) in slots.enumerate() {
            let shard = match placement.owner_of(slot) {
                Some(shard) => shard,
                None if placement.shards.is_empty() => return Err(self.nobody()),
                None => return Err(StorageError::Unavailable(Failure::Unserved.into())),
            };
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

    /// Whether there are several servers that things may move between.
    pub(in super::super) fn is_cluster(&self) -> bool {
        self.current.load().owners.is_some()
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
        if let Some(shard) = placement.owner_of(slot_of_tag(topic.as_str().as_bytes())) {
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
    fn tell(&self, shard: &Shard) {
        if let Some(listener) = &self.listener {
            shard.doorbell.listen(listener.clone());
        }
        shard.doorbell.watch_all(self.all);
        shard.doorbell.watch_locks(self.locks);
    }
}

impl Seat {
    /// Has the shard be served as a map says.
    fn serve(&self, primary: &Primary, shard: &Shard) {
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
            shard.moved();
        }
    }

    /// Returns whether a shard is still wanted that has no slot.
    fn is_wanted(&self, shard: &Shard) -> bool {
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
        if let Some(places) = self.places.upgrade() {
            places.wake.notify_one();
        }
    }

    /// Notes what the server has said.
    pub(in super::super) fn heed(&self, redirect: &Redirect) {
        if let Some(places) = self.places.upgrade() {
            places.heed(redirect);
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

    /// Returns the shards of slots, each with the places of those that it has.
    pub(in super::super) fn groups(
        &self,
        slots: impl Iterator<Item = u16>,
    ) -> Result<Vec<(Arc<Shard>, Vec<usize>)>, StorageError> {
        let places = self.places.upgrade();
        places.map_or_else(|| Ok(Vec::new()), |places| places.groups(slots))
    }

    /// Returns the shard that has a slot.
    pub(in super::super) fn owner_of(&self, slot: u16) -> Result<Arc<Shard>, StorageError> {
        let places = self.places.upgrade();
        places.map_or_else(
            || Err(StorageError::Unavailable(Failure::Unserved.into())),
            |places| places.owner_of(slot),
        )
    }

    /// Hands messages on whose topics live elsewhere.
    pub(in super::super) fn hand_on(
        &self,
        messages: Vec<NewMessage>,
    ) -> impl Future<Output = Vec<Outcome>> + Send + 'static {
        let count = messages.len();
        let shard = self.places.upgrade().and_then(|places| {
            let placement = places.current();
            let address = self.address();
            let shard = placement.shards.iter().find(|shard| shard.is_at(&address)).cloned()?;
            Some((places, shard))
        });
        let handed = shard.map(|(places, shard)| places.hand_on(&shard, messages));
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

    fn known(&self) -> Option<Address> {
        Some((*self.address()).clone())
    }

    fn own_slot(&self) -> Option<u16> {
        self.slots.load().first().map(|range| *range.start())
    }
}

/// Returns the channels of the doorbell, each with its slot.
fn channels() -> impl Iterator<Item = (u16, Arc<str>)> {
    let width = SLOTS / CHANNELS;
    (0..CHANNELS).map(move |part| {
        let slot = part * width + width / 2;
        (slot, format!("{}:{{{}}}", keys::DOORBELL, tag_of_slot(slot)).into())
    })
}

/// An operation on what lives in a slot, which follows that when it moves.
pub(in super::super) struct Tries<'a> {
    places: &'a Arc<Places>,
    slot: Option<u16>,
    deadline: Option<Instant>,
    again: u32,
}

impl Tries<'_> {
    /// Returns the shard to ask now.
    pub(in super::super) fn shard(&self) -> Result<Arc<Shard>, StorageError> {
        self.slot.map_or_else(|| self.places.first(), |slot| self.places.owner_of(slot))
    }

    /// Returns whether an operation that has failed so is to be tried again, once it is: it had no effect, as what it
    /// is about lives elsewhere or is on its way.
    pub(in super::super) async fn again(&mut self, error: &StorageError) -> bool {
        if !matches!(error, StorageError::Unavailable(_)) || !self.places.is_cluster() {
            return false;
        }
        let Some(redirect) = Redirect::of(error) else { return false };
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + self.places.options.timeout);
        if Instant::now() >= deadline {
            return false;
        }
        self.places.heed(&redirect);
        // The first time, what was said of it is enough.
        if self.again > 0 || !matches!(redirect, Redirect::Moved(_, Some(_))) {
            sleep(jittered(AGAIN_AFTER * self.again.clamp(1, 10))).await;
        }
        self.again += 1;
        true
    }
}

/// Who walks a detour.
struct Walker {
    places: Arc<Places>,
    slots: Vec<u16>,
}

impl Walker {
    /// Returns who to ask for a slot, and how.
    fn way_of(&self, slot: u16) -> Option<(Arc<Shard>, Asked)> {
        let asked = self.places.asks.lock().get(&slot).cloned();
        match asked {
            Some(address) => Some((self.places.at(&address)?, Asked::Asking)),
            None => Some((self.places.owner_of(slot).ok()?, Asked::Plainly)),
        }
    }
}

impl Walk for Walker {
    async fn follow(&self, messages: Vec<NewMessage>) -> (Vec<Outcome>, bool) {
        let deadline = Instant::now() + self.places.options.timeout;
        let mut result = PipelineResult::open(messages.len());
        let mut open: Vec<(usize, NewMessage)> = messages.into_iter().enumerate().collect();
        let mut made = 0;
        let mut agreed = true;
        while !open.is_empty() {
            let mut groups: Vec<(Arc<Shard>, Asked, Vec<(usize, NewMessage)>)> = Vec::new();
            open.sort_by_key(|(place, _)| *place);
            for (place, message) in open.drain(..) {
                let Some((shard, asked)) = self.way_of(slot_of_tag(message.topic.as_str().as_bytes())) else {
                    result.outcomes[place] = Some(Err(StorageError::Unavailable(Failure::Unserved.into())));
                    continue;
                };
                agreed &= asked == Asked::Plainly;
                let of_it = |(known, how, _): &&mut (Arc<Shard>, Asked, _)| {
                    Arc::ptr_eq(known, &shard) && *how == asked
                };
                match groups.iter_mut().find(of_it) {
                    Some((_, _, group)) => group.push((place, message)),
                    None => groups.push((shard, asked, vec![(place, message)])),
                }
            }
            for (shard, asked, group) in groups {
                shard.sender.send_once(group, &mut result, asked).await;
                let missing = std::mem::take(&mut result.again);
                if made < MADE_MAX {
                    open.extend(shard.sender.create_topics(missing, &mut result.outcomes).await);
                } else {
                    for (place, _) in missing {
                        let cause = Failure::deleted_at_once().into();
                        result.outcomes[place] = Some(Err(StorageError::Unavailable(cause)));
                    }
                }
            }
            made += 1;
            let elsewhere = std::mem::take(&mut result.elsewhere);
            if !elsewhere.is_empty() {
                agreed = false;
                if Instant::now() >= deadline {
                    for (place, _) in elsewhere {
                        let cause = Failure::OnItsWay.into();
                        result.outcomes[place] = Some(Err(StorageError::Unavailable(cause)));
                    }
                } else {
                    open.extend(elsewhere);
                    sleep(AGAIN_AFTER).await;
                }
            }
        }
        let outcomes = result.outcomes.into_iter();
        (outcomes.map(|outcome| outcome.expect("every message was decided")).collect(), agreed)
    }

    fn end(&self, detour: &Detour) {
        let mut detours = self.places.detours.write();
        let placement = self.places.current.load();
        for slot in &self.slots {
            detours.remove(slot);
        }
        detour.queue_held(|message| {
            let slot = slot_of_tag(message.topic.as_str().as_bytes());
            Some((&placement.owner_of(slot)?.lanes, Lanes::lane_of_slot(slot)))
        });
    }
}
