//! What a group tells of its messages: of those that die, of dead letters, of one, and of how many there are.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Bound;

use tidemill_proto::work::{ConsumerCounts, ConsumerName, MessageStateName};
use tidemill_proto::{MessageId, Timestamp};

use super::pending::{Dead, Pending, Place, Why};
use super::{Group, Messages};
use crate::storage::{DeadLetter, Dying, Fate, GroupsSwept, HELD_BY_MAX, Revived, StoredMessage};

/// Counts of a group's messages at one time.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::storage::memory) struct Numbers {
    pub(in crate::storage::memory) in_flight: u64,
    pub(in crate::storage::memory) backoff: u64,
    pub(in crate::storage::memory) ready: u64,
    pub(in crate::storage::memory) oldest_ready: Option<MessageId>,
    pub(in crate::storage::memory) dead: u64,
    pub(in crate::storage::memory) consumers: u64,
}

impl Group {
    /// Returns how many messages each consumer has that has some.
    fn held(&self) -> BTreeMap<&ConsumerName, u64> {
        let mut held = BTreeMap::new();
        for pending in self.pending.values() {
            if let Place::With(lease) = &pending.place {
                *held.entry(&lease.consumer).or_default() += 1;
            }
        }
        held
    }

    /// Returns the consumers that have most messages.
    pub(in crate::storage::memory) fn held_by(&self) -> Vec<ConsumerCounts> {
        let of = |(consumer, in_flight): (&ConsumerName, u64)| ConsumerCounts {
            consumer: consumer.as_str().to_owned(),
            in_flight,
        };
        let mut held: Vec<_> = self.held().into_iter().map(of).collect();
        held.sort_by_key(|of| Reverse(of.in_flight));
        held.truncate(HELD_BY_MAX);
        held
    }

    /// Returns how many messages consumers have, wait for the end of a failure's time, can be claimed again, and are
    /// dying or dead.
    pub(in crate::storage::memory) fn numbers(&self, now: Timestamp) -> Numbers {
        let mut numbers = Numbers { dead: self.dead.len() as u64, ..Numbers::default() };
        for (id, pending) in &self.pending {
            match &pending.place {
                Place::With(_) => numbers.in_flight += 1,
                Place::Waits { due, .. } if *due > now => numbers.backoff += 1,
                Place::Waits { .. } | Place::Behind => {
                    numbers.ready += 1;
                    numbers.oldest_ready.get_or_insert(*id);
                }
                Place::Dying { .. } => numbers.dead += 1,
            }
        }
        numbers.consumers = self.held().len() as u64;
        numbers
    }

    /// Returns what the group has, for a sweep.
    pub(in crate::storage::memory) fn swept(&self, messages: &impl Messages, now: Timestamp) -> GroupsSwept {
        let dying = self.dying.len() as u64;
        let counts = (
            messages.kept_behind(self.last_delivered),
            self.pending.len() as u64 - dying,
            self.dead.len() as u64 + dying,
        );
        let first = self.pending.keys().next().copied();
        let oldest = first.or_else(|| messages.behind(self.last_delivered, 1, 1).2);
        GroupsSwept::of_one(counts, oldest, self.last_claim, now)
    }

    /// Whether messages are dying.
    pub(in crate::storage::memory) fn is_dying(&self) -> bool {
        !self.dying.is_empty()
    }

    pub(in crate::storage::memory) fn dying(&self, messages: &impl Messages, limit: usize) -> Vec<Dying> {
        let dying = self.dying.iter().filter_map(|id| {
            let Pending { deliveries, failures, crashes, error, place } = self.pending.get(id)?;
            let Place::Dying { reason } = place else { return None };
            Some(Dying {
                id: *id,
                epoch: self.epoch,
                message: messages.message(*id),
                deliveries: *deliveries,
                failures: *failures,
                crashes: *crashes,
                reason: reason.clone(),
                error: error.clone(),
            })
        });
        dying.take(limit).collect()
    }

    pub(in crate::storage::memory) fn bury(
        &mut self,
        epoch: u64,
        letter: DeadLetter,
        now: Timestamp,
    ) -> bool {
        let DeadLetter { id, letter } = letter;
        let is_dying = self.epoch == epoch
            && matches!(self.pending.get(&id), Some(Pending { place: Place::Dying { .. }, .. }));
        if is_dying && let Some(pending) = self.remove(id, now) {
            let Place::Dying { reason } = pending.place else { return false };
            let reason = pending.error.unwrap_or(reason);
            self.dead.insert(id, Dead { letter, deliveries: pending.deliveries, reason });
        }
        is_dying
    }

    pub(in crate::storage::memory) fn dead(&self, after: Option<MessageId>, limit: usize) -> Vec<DeadLetter> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let dead = self.dead.range((from, Bound::Unbounded));
        dead.take(limit).map(|(id, dead)| DeadLetter { id: *id, letter: dead.letter }).collect()
    }

    pub(in crate::storage::memory) fn revive(
        &mut self,
        id: MessageId,
        due: Option<Timestamp>,
        messages: &impl Messages,
    ) -> Revived {
        let deliveries = match (self.dead.remove(&id), self.pending.get(&id)) {
            (Some(dead), _) => dead.deliveries,
            // There is no letter of it yet. It holds no key any more.
            (None, Some(Pending { place: Place::Dying { .. }, deliveries, .. })) => {
                let deliveries = *deliveries;
                self.dying.retain(|dying| *dying != id);
                self.pending.remove(&id);
                deliveries
            }
            (None, _) => return Revived::Unknown,
        };
        let Some((due, message)) = due.zip(messages.message(id)) else { return Revived::Gone };
        let behind = Pending::behind(deliveries);
        if self.takes_key(&message) {
            let place = Place::Waits { due, why: Why::Revived };
            self.pending.insert(id, Pending { place, ..behind });
            self.timers.insert((due, id));
        } else {
            self.pending.insert(id, behind);
        }
        Revived::Waits
    }

    /// Returns what is known of a message that the topic has, or had.
    pub(in crate::storage::memory) fn fate(
        &self,
        id: MessageId,
        kept: Option<&StoredMessage>,
        now: Timestamp,
    ) -> Option<Fate> {
        let is_kept = kept.is_some();
        let key = kept.and_then(|message| message.body.order_key.as_ref());
        let holder = key.zip(self.ordered.as_ref()).and_then(|(key, keys)| keys.holder(key));
        let behind = holder.filter(|holder| *holder != id);
        if let Some(Pending { deliveries, failures, crashes, place, error }) = self.pending.get(&id) {
            let some = |count: u32| Some(count).filter(|count| *count > 0);
            let known = Fate {
                deliveries: Some(*deliveries),
                failures: some(*failures),
                crashes: some(*crashes),
                error: error.clone(),
                ..Fate::of(MessageStateName::Waiting)
            };
            return Some(match place {
                Place::With(lease) if lease.until > now => Fate {
                    state: MessageStateName::InFlight,
                    consumer: Some(lease.consumer.as_str().into()),
                    since: Some(lease.claimed_at),
                    until: Some(lease.until),
                    ..known
                },
                Place::Waits { due, .. } if *due > now => {
                    Fate { state: MessageStateName::Backoff, until: Some(*due), ..known }
                }
                Place::Behind => Fate { behind, ..known },
                Place::With(_) | Place::Waits { .. } => known,
                Place::Dying { reason } => {
                    let error = known.error.clone().or_else(|| Some(reason.clone()));
                    Fate { state: MessageStateName::Dead, error, ..known }
                }
            });
        }
        if let Some(Dead { deliveries, reason, .. }) = self.dead.get(&id) {
            let (deliveries, error) = (Some(*deliveries), Some(reason.clone()));
            return Some(Fate { deliveries, error, ..Fate::of(MessageStateName::Dead) });
        }
        let result =
            self.results.get(&id).filter(|(until, _)| *until > now).map(|(_, result)| result.clone());
        if id > self.last_delivered {
            let waiting = Fate { deliveries: Some(0), behind, ..Fate::of(MessageStateName::Waiting) };
            return is_kept.then_some(waiting);
        }
        // What was done and is gone from the topic is not told from what was gone before.
        let is_done = result.is_some() || (is_kept && id > self.start);
        is_done.then(|| Fate { result, ..Fate::of(MessageStateName::Done) })
    }
}
