//! A group of consumers of one topic: which of its messages are with whom, and until when.
//!
//! It must not know other groups, other topics, or how messages lie in memory: those it asks the log for.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use bytes::Bytes;
use tidemill_proto::work::{ClaimId, ConsumerName, GroupSettings, MinuteCounts, Ordering};
use tidemill_proto::{MessageId, Timestamp};

use crate::storage::{Appended, BEHIND_MAX, Claim, Claimed, Delivery, StoredMessage};
use ordering::OrderedKeys;
use pending::{Dead, Lease, Pending, Place, RememberedClaim, Why};
use uniqueness::UniqueKeys;

mod copying;
mod ordering;
mod pending;
mod settling;
mod telling;
mod uniqueness;

pub(super) use ordering::KEYED_BYTES;
pub(super) use uniqueness::UNIQUE_BYTES;

/// Bytes of a group beside its messages, about.
const GROUP_BYTES: usize = size_of::<Group>() + 256;
/// Bytes of a message that was given out: itself and its timer, in trees whose nodes are half full at worst, and the
/// name of its consumer.
pub(super) const PENDING_BYTES: usize =
    2 * (size_of::<(MessageId, Pending)>() + size_of::<(Timestamp, MessageId)>()) + 48;
/// Bytes of a dead letter, and of a result beside its text.
const REMEMBERED_BYTES: usize = 2 * size_of::<(MessageId, Dead)>() + 64;
/// Messages that a claim has stand behind others of their keys at most, before it is to be made again.
pub(super) const LOOKED_AT_MAX: usize = 500;
/// Minutes of which it is known what happened.
const MINUTES: u64 = 24 * 60;
const MINUTE_MS: u64 = 60_000;

/// A group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) settings: GroupSettings,
    epoch: u64,
    created_at: Timestamp,
    /// Behind which it began, or was set.
    start: MessageId,
    last_delivered: MessageId,
    /// Messages of the topic up to there, those included that were gone.
    passed: u64,
    pending: BTreeMap<MessageId, Pending>,
    /// When something of a pending message is over: its consumer's time, or what it waits for.
    timers: BTreeSet<(Timestamp, MessageId)>,
    dying: VecDeque<MessageId>,
    /// The keys that are taken, where the group heeds them. In a box of its own: most groups do not.
    ordered: Option<Box<OrderedKeys>>,
    /// The keys of which one message at a time may be there, where some are.
    unique: Option<Box<UniqueKeys>>,
    dead: BTreeMap<MessageId, Dead>,
    results: BTreeMap<MessageId, (Timestamp, Bytes)>,
    results_bytes: usize,
    /// When results end.
    results_end: BTreeSet<(Timestamp, MessageId)>,
    claims: HashMap<ClaimKey, RememberedClaim>,
    /// When claims can be repeated no longer, in the order in which they were made.
    claims_end: VecDeque<(Timestamp, ClaimKey)>,
    counts: Counts,
    minutes: VecDeque<MinuteCounts>,
    /// When somebody claimed last.
    last_claim: Option<Timestamp>,
}

/// What happened in a group, ever.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) redelivered: u64,
    pub(super) gone: u64,
}

/// Who has claimed, and by which id.
type ClaimKey = (ConsumerName, ClaimId);

/// The messages of the topic, as a group needs them.
pub(super) trait Messages {
    /// Returns a message that is kept and has not expired.
    fn message(&self, id: MessageId) -> Option<StoredMessage>;

    /// Returns messages behind an id, up to so many and about so many bytes, and how many were looked at up to which.
    fn behind(
        &self,
        id: MessageId,
        limit: usize,
        bytes_max: usize,
    ) -> (Vec<StoredMessage>, u64, Option<MessageId>);

    /// Returns how many are kept behind an id.
    fn kept_behind(&self, id: MessageId) -> u64;

    /// Returns how many were ever given.
    fn given(&self) -> u64;
}

/// A place in a topic at which a group begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beginning {
    pub(super) after: MessageId,
    pub(super) passed: u64,
}

impl Group {
    pub(super) fn new(settings: GroupSettings, epoch: u64, at: Beginning, now: Timestamp) -> Self {
        Self {
            settings,
            epoch,
            created_at: now,
            start: at.after,
            last_delivered: at.after,
            passed: at.passed,
            pending: BTreeMap::new(),
            timers: BTreeSet::new(),
            dying: VecDeque::new(),
            ordered: None,
            unique: None,
            dead: BTreeMap::new(),
            results: BTreeMap::new(),
            results_bytes: 0,
            results_end: BTreeSet::new(),
            claims: HashMap::new(),
            claims_end: VecDeque::new(),
            counts: Counts::default(),
            minutes: VecDeque::new(),
            last_claim: None,
        }
    }

    /// Returns the group set to another place, with its counts.
    pub(super) fn moved(self, epoch: u64, at: Beginning) -> Self {
        let Self { settings, created_at, counts, minutes, unique, last_claim, .. } = self;
        Self { unique, counts, minutes, last_claim, ..Self::new(settings, epoch, at, created_at) }
    }

    /// Returns the bytes that it holds, about.
    pub(super) fn bytes(&self) -> usize {
        GROUP_BYTES
            + self.pending.len() * PENDING_BYTES
            + self.ordered.as_ref().map_or(0, |keys| keys.bytes())
            + self.unique.as_ref().map_or(0, |keys| keys.bytes())
            + (self.dead.len() + self.results.len()) * REMEMBERED_BYTES
            + self.claims.len() * 128
            + self.results_bytes
    }

    pub(super) fn created_at(&self) -> Timestamp {
        self.created_at
    }

    pub(super) fn last_claim(&self) -> Option<Timestamp> {
        self.last_claim
    }

    pub(super) fn last_delivered(&self) -> MessageId {
        self.last_delivered
    }

    /// Returns the first id that it has not acknowledged, or may still be given.
    pub(super) fn holds_from(&self) -> MessageId {
        let next = self.last_delivered.next().unwrap_or(MessageId::MAX);
        self.pending.keys().next().map_or(next, |first| next.min(*first))
    }

    /// Returns how many messages are gone that it was not given yet, and that are not counted yet.
    pub(super) fn missed(&self, messages: &impl Messages) -> u64 {
        (messages.given() - self.passed).saturating_sub(messages.kept_behind(self.last_delivered))
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    pub(super) fn minutes(&self, now: Timestamp) -> Vec<MinuteCounts> {
        let first = (now.as_millis() / MINUTE_MS).saturating_sub(MINUTES) * MINUTE_MS;
        self.minutes.iter().filter(|minute| minute.minute.as_millis() > first).copied().collect()
    }

    /// Returns whether messages of one key are given out one at a time.
    pub(super) fn is_ordered(&self) -> bool {
        self.settings.ordering == Ordering::ByKey
    }

    /// Changes the settings; returns whether that may be: the order does not change while messages are pending.
    pub(super) fn set(&mut self, settings: &GroupSettings) -> bool {
        if settings.ordering != self.settings.ordering {
            if !self.pending.is_empty() {
                return false;
            }
            self.ordered = None;
        }
        self.settings = settings.clone();
        true
    }

    /// Claims messages for a consumer. Returns whether there may be more where it got none: it looks at a bounded number.
    pub(super) fn claim(
        &mut self,
        claim: &Claim,
        messages: &impl Messages,
        now: Timestamp,
    ) -> (Claimed, bool) {
        let mut claimed = Claimed { epoch: self.epoch, ..Claimed::default() };
        let gone = self.counts.gone;
        self.last_claim = Some(now);
        if let Some(id) = &claim.claim_id {
            let deliveries = self.claimed_before(claim, id, messages);
            if !deliveries.is_empty() {
                return (Claimed { deliveries, replayed: true, ..claimed }, false);
            }
        }
        if self.settings.paused {
            return (Claimed { paused: true, ..claimed }, false);
        }
        let room = self.room(claim);
        claimed.limited = room < claim.max;
        let mut bytes = self.claim_again(claim, room, &mut claimed, messages, now);
        let is_more = self.claim_new(claim, (room, &mut bytes), &mut claimed, messages, now);
        if let (Some(id), false) = (&claim.claim_id, claimed.deliveries.is_empty()) {
            let until = now.saturating_add(self.settings.ack_wait.0);
            let messages =
                claimed.deliveries.iter().map(|delivery| (delivery.message.id, delivery.delivery)).collect();
            let key = (claim.consumer.clone(), id.clone());
            self.claims_end.push_back((until, key.clone()));
            self.claims.insert(key, RememberedClaim { until, messages });
        }
        claimed.drained = !claimed.limited
            && self.due(now, 1).is_empty()
            && messages.behind(self.last_delivered, 1, 1).2.is_none();
        claimed.limited |= self.behind() > 0;
        claimed.next_due = self.next();
        claimed.gone = self.counts.gone - gone;
        (claimed, is_more)
    }

    /// Claims messages that were given out before, or have stood behind others; returns their bytes.
    fn claim_again(
        &mut self,
        claim: &Claim,
        room: usize,
        claimed: &mut Claimed,
        messages: &impl Messages,
        now: Timestamp,
    ) -> usize {
        let mut bytes = 0;
        loop {
            let mut are_gone = false;
            for id in self.due(now, room - claimed.deliveries.len()) {
                if claimed.deliveries.len() == room || bytes >= claim.bytes_max {
                    return bytes;
                }
                if let Some(message) = messages.message(id) {
                    bytes += message.body.len_bytes();
                    claimed.deliveries.push(self.hand_out(message, &claim.consumer, now));
                } else {
                    self.forget_gone(id, now);
                    are_gone = true;
                }
            }
            // Where one was gone, the next of its key may be due now.
            if !are_gone {
                return bytes;
            }
        }
    }

    /// Returns messages that wait no longer.
    fn due(&self, now: Timestamp, count: usize) -> Vec<MessageId> {
        // Those whose consumer's time is over come back by tending.
        let waits = |id: &MessageId| {
            self.pending.get(id).is_some_and(|pending| matches!(pending.place, Place::Waits { .. }))
        };
        let due = self.timers.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id);
        due.filter(waits).take(count).collect()
    }

    /// Claims messages that were never given out. Those whose key is taken stand behind; returns whether it has not
    /// looked at all for having found too many of them.
    fn claim_new(
        &mut self,
        claim: &Claim,
        (room, bytes): (usize, &mut usize),
        claimed: &mut Claimed,
        messages: &impl Messages,
        now: Timestamp,
    ) -> bool {
        let before = self.behind();
        while claimed.deliveries.len() < room && *bytes < claim.bytes_max {
            let mut left = room - claimed.deliveries.len();
            if self.is_ordered() {
                // All of them may have to stand behind.
                left = left.min(BEHIND_MAX.saturating_sub(self.behind()));
                if left == 0 {
                    return false;
                }
                if self.behind() - before >= LOOKED_AT_MAX {
                    return true;
                }
            }
            let missed = self.missed(messages);
            self.counts.gone += missed;
            self.passed += missed;
            let (found, looked_at, reached) =
                messages.behind(self.last_delivered, left, claim.bytes_max - *bytes);
            let Some(reached) = reached else { return false };
            self.counts.gone += looked_at - found.len() as u64;
            self.passed += looked_at;
            self.last_delivered = reached;
            for message in found {
                if self.takes_key(&message) {
                    *bytes += message.body.len_bytes();
                    claimed.deliveries.push(self.hand_out(message, &claim.consumer, now));
                } else {
                    self.pending.insert(message.id, Pending::behind(0));
                }
            }
        }
        false
    }

    /// Has a message hold its key, if it has one that the group heeds; else it is to stand behind the one that does.
    fn takes_key(&mut self, message: &StoredMessage) -> bool {
        match &message.body.order_key {
            Some(key) if self.is_ordered() => self.ordered.get_or_insert_default().take(message.id, key),
            Some(_) | None => true,
        }
    }

    /// Returns how many messages stand behind others of their keys.
    fn behind(&self) -> usize {
        self.ordered.as_ref().map_or(0, |keys| keys.behind())
    }

    /// Notes that a message holds no key any more: the next one of its key can be claimed.
    fn free_key(&mut self, id: MessageId, now: Timestamp) {
        let next = self.ordered.as_mut().and_then(|keys| keys.end(id));
        if let Some(next) = next {
            self.place(next, Place::Waits { due: now, why: Why::Freed }, now);
        }
    }

    fn claimed_before(&self, claim: &Claim, id: &ClaimId, messages: &impl Messages) -> Vec<Delivery> {
        let key = (claim.consumer.clone(), id.clone());
        let Some(before) = self.claims.get(&key) else { return Vec::new() };
        let held = before.messages.iter().filter_map(|(id, delivery)| {
            let pending = self.pending.get(id).filter(|pending| pending.deliveries == *delivery)?;
            let Place::With(lease) = &pending.place else { return None };
            let message = messages.message(*id)?;
            Some(Delivery { message, delivery: *delivery, deadline: lease.until })
        });
        held.collect()
    }

    /// Returns how many messages a claim may get.
    fn room(&self, claim: &Claim) -> usize {
        let GroupSettings { max_in_flight, per_consumer_max, .. } = self.settings;
        if max_in_flight.is_none() && per_consumer_max.is_none() {
            return claim.max;
        }
        let leases = || {
            self.pending.values().filter_map(|pending| match &pending.place {
                Place::With(lease) => Some(lease),
                Place::Waits { .. } | Place::Behind | Place::Dying { .. } => None,
            })
        };
        let left = |max: Option<u32>, held: usize| {
            max.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX).saturating_sub(held))
        };
        let own = leases().filter(|lease| lease.consumer == claim.consumer).count();
        claim.max.min(left(max_in_flight, leases().count())).min(left(per_consumer_max, own))
    }

    fn hand_out(&mut self, message: StoredMessage, consumer: &ConsumerName, now: Timestamp) -> Delivery {
        let id = message.id;
        let until = now.saturating_add(self.settings.ack_wait.0);
        let lease = Lease { consumer: consumer.clone(), claimed_at: now, until, began: false };
        let pending = self.pending.entry(id).or_insert(Pending {
            deliveries: 0,
            failures: 0,
            crashes: 0,
            error: None,
            place: Place::With(lease.clone()),
        });
        if let Place::Waits { due, .. } = &pending.place {
            self.timers.remove(&(*due, id));
        }
        pending.deliveries += 1;
        self.counts.redelivered += u64::from(pending.deliveries > 1);
        pending.place = Place::With(lease);
        self.timers.insert((until, id));
        Delivery { message, delivery: pending.deliveries, deadline: until }
    }

    /// Returns the message of a unique key, if it waits or is worked on.
    pub(super) fn unique(&self, key: &str, messages: &impl Messages) -> Option<Appended> {
        let first = self.unique.as_ref()?.find(key)?;
        self.lives(first.id, messages).then_some(first)
    }

    /// Notes the message of a unique key.
    pub(super) fn note_unique(&mut self, key: &str, appended: Appended, messages: &impl Messages) {
        let mut unique = self.unique.take().unwrap_or_default();
        if let Some(first) = unique.find(key) {
            unique.forget(first.id);
        }
        unique.note(key, appended, |id| self.lives(id, messages));
        self.unique = Some(unique);
    }

    /// Forgets some unique keys whose messages are over.
    pub(super) fn forget_unique_some(&mut self, messages: &impl Messages) {
        let Some(mut unique) = self.unique.take() else { return };
        unique.forget_some(|id| self.lives(id, messages));
        self.unique = Some(unique).filter(|unique| !unique.is_empty());
    }

    fn forget_unique(&mut self, id: MessageId) {
        if let Some(unique) = &mut self.unique {
            unique.forget(id);
        }
    }

    /// Returns whether a message waits or is worked on.
    fn lives(&self, id: MessageId, messages: &impl Messages) -> bool {
        let is_pending = |pending: &Pending| !matches!(pending.place, Place::Dying { .. });
        (id > self.last_delivered || self.pending.get(&id).is_some_and(is_pending))
            && messages.message(id).is_some()
    }

    /// Forgets a message that is gone from its topic.
    fn forget_gone(&mut self, id: MessageId, now: Timestamp) {
        self.remove(id, now);
        self.counts.gone += 1;
    }

    fn remove(&mut self, id: MessageId, now: Timestamp) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        match &pending.place {
            Place::With(Lease { until: at, .. }) | Place::Waits { due: at, .. } => {
                self.timers.remove(&(*at, id));
            }
            Place::Behind => {}
            Place::Dying { .. } => self.dying.retain(|dying| *dying != id),
        }
        self.free_key(id, now);
        self.forget_unique(id);
        Some(pending)
    }
}
