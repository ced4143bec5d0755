//! Queueing: appends go to the lanes of the shard that has their topic, or where it is on its way, on its detour.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::{Instant, sleep};

use super::super::Shard;
use super::super::failure::{Failure, Redirect};
use super::super::homes::{Home, Lives as _};
use super::super::lanes::detour::{Detour, Walk};
use super::super::lanes::{Lanes, Queueing, outcomes_of};
use super::super::pipeline::{Outcome, PipelineResult};
use super::super::resolver::Address;
use super::super::sending::Asked;
use super::places::Places;
use super::seat::{Cluster, Groups, HandedOn};
use super::tries::AGAIN_AFTER;
use crate::storage::{NewMessage, StorageError};

/// How often a topic is made again that is deleted as fast.
const MADE_MAX: usize = 4;

/// Where a message is queued: a lane of a shard, or a slot that is on a detour or is nobody's.
#[derive(PartialEq)]
enum To {
    Lane(*const Shard, usize),
    Slot(u16),
}

/// Messages that one shard is asked to append, with their places.
type Group = (Arc<Shard>, Asked, Vec<(usize, NewMessage)>);

impl Places {
    /// Begins a detour of slots that a shard has had, of those that have none.
    pub(super) fn begin(
        self: &Arc<Self>,
        detours: &mut HashMap<u16, Arc<Detour>>,
        shard: &Shard,
        slots: &[u16],
    ) {
        let slots: Vec<u16> = slots.iter().copied().filter(|slot| !detours.contains_key(slot)).collect();
        if slots.is_empty() {
            return;
        }
        let detour = Arc::new(Detour::default());
        detours.extend(slots.iter().map(|slot| (*slot, detour.clone())));
        let passed = shard.lanes.passed(slots.iter().copied());
        let walker = Walker { places: self.clone(), slots };
        let walk = Box::pin(detour.walk(walker, passed));
        self.tracker.spawn(self.token.clone().run_until_cancelled_owned(walk));
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

    /// Queues messages, in their order, where their topics live now.
    fn queue(&self, batch: Vec<NewMessage>) -> Vec<(Vec<usize>, Queueing)> {
        let detours = self.detours.read();
        let placement = self.current.load();
        let mut parts: Vec<(To, Home, Vec<usize>, Vec<NewMessage>)> = Vec::with_capacity(1);
        for (place, message) in batch.into_iter().enumerate() {
            let home = self.home_of(&message.topic);
            let to = match placement.owner_of(home) {
                Some(shard) if detours.is_empty() || !detours.contains_key(&home) => {
                    To::Lane(Arc::as_ptr(shard), Lanes::lane_of_slot(message.topic.slot()))
                }
                _ => To::Slot(home),
            };
            match parts.iter_mut().find(|(known, ..)| *known == to) {
                Some((_, _, places, messages)) => {
                    places.push(place);
                    messages.push(message);
                }
                None => parts.push((to, home, vec![place], vec![message])),
            }
        }
        let queue = |(to, home, places, messages): (To, Home, Vec<usize>, Vec<NewMessage>)| {
            let queueing = match (placement.owner_of(home), to) {
                (Some(shard), To::Lane(_, lane)) => shard.lanes.queue(lane, messages),
                (Some(shard), To::Slot(slot)) if let Some(detour) = detours.get(&slot) => {
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
    fn hand_on_from(
        self: &Arc<Self>,
        shard: &Shard,
        messages: Vec<NewMessage>,
    ) -> impl Future<Output = Vec<Outcome>> + Send + use<> {
        let count = messages.len();
        let mut parts: Vec<(Arc<Detour>, Vec<usize>, Vec<NewMessage>)> = Vec::new();
        let slot = |message: &NewMessage| message.topic.slot();
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
}

impl Cluster for Places {
    fn wake(&self) {
        self.wake.notify_one();
    }

    fn heed(self: Arc<Self>, redirect: &Redirect) {
        Self::heed(&self, redirect);
    }

    fn hand_on(self: Arc<Self>, from: &Address, messages: Vec<NewMessage>) -> HandedOn {
        let placement = self.current();
        match placement.shards.iter().find(|shard| shard.is_at(from)) {
            Some(shard) => Box::pin(self.hand_on_from(shard, messages)),
            None => Box::pin(async move {
                messages.iter().map(|_| Err(StorageError::Unavailable(Failure::Unserved.into()))).collect()
            }),
        }
    }

    fn shards(&self) -> Vec<Arc<Shard>> {
        self.current().shards.clone()
    }

    fn groups(&self, homes: &[Home]) -> Result<Groups, StorageError> {
        self.groups_of(homes.iter().copied())
    }

    fn owner_of(&self, home: Home) -> Result<Arc<Shard>, StorageError> {
        Self::owner_of(self, home)
    }
}

/// Who walks a detour.
pub(super) struct Walker {
    pub(super) places: Arc<Places>,
    pub(super) slots: Vec<u16>,
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
            let mut groups: Vec<Group> = Vec::new();
            open.sort_by_key(|(place, _)| *place);
            for (place, message) in open.drain(..) {
                let Some((shard, asked)) = self.way_of(message.topic.slot()) else {
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
            let mut is_missing = false;
            for (shard, asked, group) in groups {
                shard.sender.send_once(group, &mut result, asked).await;
                let missing = std::mem::take(&mut result.again);
                is_missing |= !missing.is_empty();
                if made < MADE_MAX {
                    open.extend(shard.sender.create_topics(missing, &mut result.outcomes).await);
                } else {
                    for (place, _) in missing {
                        let cause = Failure::deleted_at_once().into();
                        result.outcomes[place] = Some(Err(StorageError::Unavailable(cause)));
                    }
                }
            }
            // Rounds in which only somebody else was asked make nothing.
            made += usize::from(is_missing);
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
            let slot = message.topic.slot();
            Some((&placement.owner_of(slot)?.lanes, Lanes::lane_of_slot(slot)))
        });
    }
}
