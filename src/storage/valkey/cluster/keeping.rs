//! Keeping the shards up with the servers: finding out what the target is, asking who has what, and following that.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::super::Shard;
use super::super::failure::Redirect;
use super::super::homes::{Home, Homes};
use super::super::options::ValkeyOptions;
use super::super::resolver::Address;
use super::super::slots::SLOTS;
use super::asking::{map_at, map_over, mode_of};
use super::map::{Primary, SlotMap};
use super::matching::{NOBODY, Owners, nobodys, shards_of};
use super::others::{Others, Own};
use super::places::{Placement, Places, Wishes};
use super::seat::{Cluster, Seat};
use crate::chance::jittered;

/// How often the servers are asked, whatever happens, and how often at most.
const ASK_EVERY: Duration = Duration::from_secs(5);
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// How often while a shard has no connection: a replica may have taken over.
const ASK_WHILE_DOWN: Duration = Duration::from_millis(200);
/// How long an answer may take. The others are heard meanwhile, so one that hangs delays only the next question.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// Servers that are asked over new connections, beside those that there are connections to.
const ASKED_MAX: usize = 8;
/// What is said of servers in cluster mode that are no cluster yet.
const NO_SLOTS: &str = "the server is in cluster mode, and no server of its cluster has slots; `valkey-cli --cluster create` gives them out";
/// Wait between attempts to find the first server.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(2);

impl Places {
    /// The server stands alone, and so do those that the settings name beside it.
    pub(super) fn take_alone(self: &Arc<Self>, beside: Vec<ValkeyOptions>) {
        let mut wishes = self.wishes.lock();
        let is_one = beside.is_empty();
        let connect = |(number, options): (Home, ValkeyOptions)| {
            let all = Arc::downgrade(&(self.clone() as Arc<dyn Cluster>));
            let others =
                (!is_one).then(|| Others { all, homes: self.homes.clone(), own: Own::Server(number) });
            let (clock, tracker) = (self.clock.clone(), &self.tracker);
            Arc::new(Shard::connect(self.node, options, others, self.limits, clock, tracker, &self.token))
        };
        let all = std::iter::once(self.options.clone()).chain(beside);
        let shards: Vec<Arc<Shard>> = (0..).zip(all).map(connect).collect();
        for shard in &shards {
            wishes.tell(shard);
        }
        // The number of each is its place.
        let owners = (!is_one).then(|| (0..).take(shards.len()).collect());
        let placement = Placement { shards, owners };
        for topic in std::mem::take(&mut wishes.topics) {
            if let Some(shard) = placement.owner_of(self.home_of(&topic)) {
                shard.doorbell.watch(&topic, true);
            }
        }
        self.current.store(Arc::new(placement));
        self.asked.send_modify(|asked| *asked += 1);
    }

    pub(super) async fn keep(self: Arc<Self>) {
        let mut wait = RETRY_FIRST;
        let seed = loop {
            match mode_of(&self.options).await {
                Ok((is_cluster, address)) if is_cluster || self.options.cluster == Some(true) => {
                    break address;
                }
                Ok(_) => return self.take_alone(Vec::new()),
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
            let address = shard.seat()?.address.load_full();
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
        match latest {
            Some(map) if !map.primaries.is_empty() => self.take(&map),
            Some(_) if placement.shards.is_empty() => self.note(NO_SLOTS),
            Some(_) | None => {}
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
            .filter_map(|(place, shard)| Some((place, (*shard.seat()?.address.load_full()).clone())))
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
            if let Some(seat) = shards[place].seat() {
                seat.serve(primary, &shards[place]);
            }
        }
        // What has no slot any more is let go in a while: something may still be under way there.
        let mut is_kept = vec![true; shards.len()];
        for (place, shard) in shards.iter().enumerate().take(is_served.len()) {
            if let Some(seat) = shard.seat().filter(|_| !is_served[place]) {
                is_kept[place] = seat.is_wanted(shard);
            }
        }
        self.put(&mut wishes, &before, shards, &owners, &is_kept);
    }

    /// Puts a placement in the place of another, with a detour for the slots of which a shard is no longer the owner.
    fn put(
        self: &Arc<Self>,
        wishes: &mut Wishes,
        before: &Placement,
        shards: Vec<Arc<Shard>>,
        owners: &Owners,
        is_kept: &[bool],
    ) {
        let mut detours = self.detours.write();
        if let Some(owners_before) = &before.owners {
            let mut moved: HashMap<u16, Vec<u16>> = HashMap::new();
            for (slot, (old, new)) in (0..SLOTS).zip(owners_before.iter().zip(owners)) {
                if old != new && *old != NOBODY {
                    moved.entry(*old).or_default().push(slot);
                }
            }
            for (old, slots) in moved {
                tracing::info!(slots = slots.len(), "slots have moved to another server");
                self.begin(&mut detours, &before.shards[usize::from(old)], &slots);
            }
        }
        let is_another = before.owners.as_ref() != Some(owners);
        let mut places = Vec::with_capacity(shards.len());
        let mut kept = Vec::with_capacity(shards.len());
        for (shard, is_kept) in shards.into_iter().zip(is_kept) {
            places.push(if *is_kept { u16::try_from(kept.len()).unwrap_or(NOBODY) } else { NOBODY });
            if *is_kept {
                kept.push(shard);
            } else if let Some(seat) = shard.seat() {
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
                let owner = placement.owner_of(self.home_of(topic));
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
        let options = self.options.of_primary(address.clone());
        let seat = Arc::new(Seat {
            cluster: Arc::downgrade(&(self.clone() as Arc<dyn Cluster>)),
            address: ArcSwap::from_pointee(address),
            moves: AtomicU64::new(0),
            moved: Notify::new(),
            slots: ArcSwap::default(),
            channels: ArcSwap::default(),
            idle_since: Mutex::default(),
            token: token.clone(),
        });
        let others =
            Others { all: seat.cluster.clone(), homes: self.homes.clone(), own: Own::Seat(seat.clone()) };
        let options = ValkeyOptions { resolver: seat, ..options };
        let shard = Arc::new(Shard::connect(
            self.node,
            options,
            Some(others),
            self.limits,
            self.clock.clone(),
            &self.tracker,
            &token,
        ));
        wishes.tell(&shard);
        shard
    }

    /// Notes what a server has said.
    pub(in super::super) fn heed(self: &Arc<Self>, redirect: &Redirect) {
        if matches!(self.homes, Homes::ByName(_)) {
            return;
        }
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
            self.put(&mut wishes, &before, shards, &owners, &is_kept);
        }
    }

    /// Returns the shard at an address; it is made where there is none yet, as of a server that gets its first slot.
    pub(super) fn at(self: &Arc<Self>, address: &Address) -> Option<Arc<Shard>> {
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
}
