//! A group of consumers of one topic: which of its messages are with whom, and until when.
//!
//! It must not know other groups, other topics, or how messages lie in memory: those it asks the log for.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tidemill_proto::work::{ClaimId, ConsumerName, GroupSettings, MessageStateName, MinuteCounts};
use tidemill_proto::{MessageId, Timestamp};

use crate::storage::{
    CRASHES_MAX, Claim, Claimed, DeadLetter, Delivery, ERROR_BYTES_MAX, Fate, Outcome, Refusal, Revived,
    STEP_MESSAGES_MAX, Settlement, StoredMessage, Tended, Verdict,
};

/// Bytes of a group beside its messages, about.
const GROUP_BYTES: usize = size_of::<Group>() + 256;
/// Bytes of a message that was given out: itself and its timer, in trees whose nodes are half full at worst, and the
/// name of its consumer.
pub(super) const PENDING_BYTES: usize =
    2 * (size_of::<(MessageId, Pending)>() + size_of::<(Timestamp, MessageId)>()) + 48;
/// Bytes of a dead letter, and of a result beside its text.
const REMEMBERED_BYTES: usize = 2 * size_of::<(MessageId, Dead)>() + 64;
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

/// What a claim got, while it can be repeated.
#[derive(Debug)]
struct RememberedClaim {
    until: Timestamp,
    messages: Vec<(MessageId, u64)>,
}

/// A message that was given out and not settled for good.
#[derive(Debug)]
struct Pending {
    deliveries: u64,
    failures: u32,
    crashes: u32,
    error: Option<Box<str>>,
    place: Place,
}

#[derive(Debug)]
enum Place {
    With(Lease),
    Waits { due: Timestamp, why: Why },
    Dying { reason: Box<str> },
}

/// A consumer's time with a message.
#[derive(Clone, Debug)]
struct Lease {
    consumer: ConsumerName,
    claimed_at: Timestamp,
    until: Timestamp,
    began: bool,
}

/// Why a message waits that was given out before.
#[derive(Debug)]
enum Why {
    /// It has failed.
    Failed,
    /// The consumer's time was over; whether that counts as a failure.
    Lapsed { lease: Lease, charged: bool },
    /// It was given back.
    Released,
    /// It was a dead letter.
    Revived,
}

#[derive(Clone, Debug)]
struct Dead {
    letter: Option<MessageId>,
    deliveries: u64,
    reason: Box<str>,
}

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

    /// Returns how many messages were ever given up to an id, as far as can be told.
    fn given_up_to(&self, id: MessageId) -> u64;

    /// Returns how many were taken from the old end.
    fn removed(&self) -> u64;
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
            dead: BTreeMap::new(),
            results: BTreeMap::new(),
            results_bytes: 0,
            results_end: BTreeSet::new(),
            claims: HashMap::new(),
            claims_end: VecDeque::new(),
            counts: Counts::default(),
            minutes: VecDeque::new(),
        }
    }

    /// Returns the group set to another place, with its counts.
    pub(super) fn moved(self, epoch: u64, at: Beginning) -> Self {
        let Self { settings, created_at, counts, minutes, .. } = self;
        Self { counts, minutes, ..Self::new(settings, epoch, at, created_at) }
    }

    /// Returns the bytes that it holds, about.
    pub(super) fn bytes(&self) -> usize {
        GROUP_BYTES
            + self.pending.len() * PENDING_BYTES
            + (self.dead.len() + self.results.len()) * REMEMBERED_BYTES
            + self.claims.len() * 128
            + self.results_bytes
    }

    pub(super) fn created_at(&self) -> Timestamp {
        self.created_at
    }

    pub(super) fn last_delivered(&self) -> MessageId {
        self.last_delivered
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    pub(super) fn minutes(&self, now: Timestamp) -> Vec<MinuteCounts> {
        let first = (now.as_millis() / MINUTE_MS).saturating_sub(MINUTES) * MINUTE_MS;
        self.minutes.iter().filter(|minute| minute.minute.as_millis() > first).copied().collect()
    }

    /// Returns how many messages consumers have, wait for the end of a failure's time, can be claimed again, and are
    /// dying or dead.
    pub(super) fn numbers(&self, now: Timestamp) -> Numbers {
        let mut numbers = Numbers { dead: self.dead.len() as u64, ..Numbers::default() };
        let mut consumers = BTreeSet::new();
        for (id, pending) in &self.pending {
            match &pending.place {
                Place::With(lease) => {
                    numbers.in_flight += 1;
                    consumers.insert(&lease.consumer);
                }
                Place::Waits { due, .. } if *due > now => numbers.backoff += 1,
                Place::Waits { .. } => {
                    numbers.ready += 1;
                    numbers.oldest_ready.get_or_insert(*id);
                }
                Place::Dying { .. } => numbers.dead += 1,
            }
        }
        numbers.consumers = consumers.len() as u64;
        numbers
    }

    /// Claims messages for a consumer.
    pub(super) fn claim(&mut self, claim: &Claim, messages: &impl Messages, now: Timestamp) -> Claimed {
        let mut claimed = Claimed { epoch: self.epoch, ..Claimed::default() };
        if let Some(id) = &claim.claim_id {
            let deliveries = self.claimed_before(claim, id, messages);
            if !deliveries.is_empty() {
                return Claimed { deliveries, replayed: true, ..claimed };
            }
        }
        if self.settings.paused {
            return Claimed { paused: true, ..claimed };
        }
        let room = self.room(claim);
        let mut bytes = 0;
        let due: Vec<MessageId> =
            self.timers.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id).collect();
        for id in due {
            if claimed.deliveries.len() == room || bytes >= claim.bytes_max {
                break;
            }
            match messages.message(id) {
                Some(message) => {
                    bytes += message.body.len_bytes();
                    claimed.deliveries.push(self.hand_out(message, &claim.consumer, now));
                }
                None => self.forget_gone(id),
            }
        }
        while claimed.deliveries.len() < room && bytes < claim.bytes_max {
            let left = room - claimed.deliveries.len();
            let removed = messages.removed();
            self.counts.gone += removed.saturating_sub(self.passed);
            self.passed = self.passed.max(removed);
            let (found, looked_at, reached) =
                messages.behind(self.last_delivered, left, claim.bytes_max - bytes);
            let Some(reached) = reached else { break };
            self.counts.gone += looked_at - found.len() as u64;
            self.passed += looked_at;
            self.last_delivered = reached;
            for message in found {
                bytes += message.body.len_bytes();
                claimed.deliveries.push(self.hand_out(message, &claim.consumer, now));
            }
        }
        if let (Some(id), false) = (&claim.claim_id, claimed.deliveries.is_empty()) {
            let until = now.saturating_add(self.settings.ack_wait.0);
            let messages =
                claimed.deliveries.iter().map(|delivery| (delivery.message.id, delivery.delivery)).collect();
            let key = (claim.consumer.clone(), id.clone());
            self.claims_end.push_back((until, key.clone()));
            self.claims.insert(key, RememberedClaim { until, messages });
        }
        claimed.next_due = self.next();
        claimed
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
                Place::Waits { .. } | Place::Dying { .. } => None,
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

    /// Forgets a message that is gone from its topic.
    fn forget_gone(&mut self, id: MessageId) {
        self.remove(id);
        self.counts.gone += 1;
    }

    fn remove(&mut self, id: MessageId) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        match &pending.place {
            Place::With(Lease { until: at, .. }) | Place::Waits { due: at, .. } => {
                self.timers.remove(&(*at, id));
            }
            Place::Dying { .. } => self.dying.retain(|dying| *dying != id),
        }
        Some(pending)
    }

    /// Settles a delivery.
    pub(super) fn settle(&mut self, settlement: Settlement, now: Timestamp) -> Outcome {
        let Settlement { epoch, id, delivery, verdict } = settlement;
        let refused = |refusal| Outcome::Refused(refusal);
        if epoch != self.epoch {
            return refused(Refusal::Void);
        }
        let Some(pending) = self.pending.get(&id) else { return refused(Refusal::SettledBefore) };
        if pending.deliveries != delivery {
            return refused(Refusal::DeliveredAgain);
        }
        let (lease, late, charged) = match &pending.place {
            Place::With(lease) => (lease.clone(), lease.until <= now, false),
            Place::Waits { why: Why::Lapsed { lease, charged }, .. } => (lease.clone(), true, *charged),
            Place::Waits { .. } | Place::Dying { .. } => return refused(Refusal::SettledBefore),
        };
        if let (Verdict::Extend(_), Some(max_run)) = (&verdict, self.settings.max_run)
            && lease.claimed_at.saturating_add(max_run.0) <= now
        {
            return refused(Refusal::MaxRun);
        }
        let settled = |until, dying| Outcome::Settled { late, until, dying };
        match verdict {
            Verdict::Ack(result) => {
                self.remove(id);
                self.counts.done += 1;
                self.minute(now).done += 1;
                if let Some(result) = result {
                    self.keep_result(id, result, now);
                }
                settled(None, false)
            }
            Verdict::Extend(wait) => {
                self.uncharge(id, charged);
                let wait = wait.unwrap_or(self.settings.ack_wait.0);
                let last = self
                    .settings
                    .max_run
                    .map_or(Timestamp::MAX, |max| lease.claimed_at.saturating_add(max.0));
                let until = now.saturating_add(wait).min(last);
                let lease = Lease { until, began: true, ..lease };
                self.place(id, Place::With(lease));
                settled(Some(until), false)
            }
            Verdict::Release => {
                self.uncharge(id, charged);
                self.place(id, Place::Waits { due: now, why: Why::Released });
                settled(Some(now), false)
            }
            Verdict::Reject(reason) => {
                self.uncharge(id, charged);
                self.fail(now);
                self.place(id, Place::Dying { reason: cut(&reason) });
                settled(None, true)
            }
            Verdict::Nack(delay, error) => {
                self.uncharge(id, charged);
                self.fail(now);
                let charges = {
                    let pending = self.pending.get_mut(&id).expect("it was found above");
                    pending.failures += 1;
                    if let Some(error) = error {
                        pending.error = Some(cut(&error));
                    }
                    pending.failures + pending.crashes
                };
                if charges >= self.settings.max_deliveries {
                    self.place(id, Place::Dying { reason: "failed".into() });
                    return settled(None, true);
                }
                let due = now.saturating_add(delay.unwrap_or_else(|| backoff(&self.settings, charges)));
                self.place(id, Place::Waits { due, why: Why::Failed });
                settled(Some(due), false)
            }
        }
    }

    /// Takes back that the loss of its consumer was counted as a failure: the consumer is there.
    fn uncharge(&mut self, id: MessageId, charged: bool) {
        if charged && let Some(pending) = self.pending.get_mut(&id) {
            pending.crashes -= 1;
        }
    }

    fn fail(&mut self, now: Timestamp) {
        self.counts.failed += 1;
        self.minute(now).failed += 1;
    }

    fn minute(&mut self, now: Timestamp) -> &mut MinuteCounts {
        let minute = Timestamp::from_millis(now.as_millis() / MINUTE_MS * MINUTE_MS);
        if self.minutes.back().is_none_or(|last| last.minute < minute) {
            self.minutes.push_back(MinuteCounts { minute, done: 0, failed: 0 });
            if self.minutes.len() as u64 > MINUTES {
                self.minutes.pop_front();
            }
        }
        self.minutes.back_mut().expect("one was there or put there")
    }

    /// Puts a pending message somewhere else.
    fn place(&mut self, id: MessageId, place: Place) {
        let Some(pending) = self.pending.get_mut(&id) else { return };
        if let Place::With(Lease { until: at, .. }) | Place::Waits { due: at, .. } = &pending.place {
            self.timers.remove(&(*at, id));
        }
        match &place {
            Place::With(Lease { until: at, .. }) | Place::Waits { due: at, .. } => {
                self.timers.insert((*at, id));
            }
            Place::Dying { .. } => self.dying.push_back(id),
        }
        pending.place = place;
    }

    fn keep_result(&mut self, id: MessageId, result: Bytes, now: Timestamp) {
        let until = now.saturating_add(self.settings.result_ttl.0);
        self.results_bytes += result.len();
        // What a request body keeps alive is never what is kept.
        let result = Bytes::copy_from_slice(&result);
        if let Some((end, before)) = self.results.insert(id, (until, result)) {
            self.results_bytes -= before.len();
            self.results_end.remove(&(end, id));
        }
        self.results_end.insert((until, id));
    }

    /// Forgets results, and claims, whose time is over.
    pub(super) fn forget_ended(&mut self, now: Timestamp) {
        while let Some((end, id)) = self.results_end.first().copied()
            && end <= now
        {
            self.results_end.pop_first();
            if let Some((_, result)) = self.results.remove(&id) {
                self.results_bytes -= result.len();
            }
        }
        while let Some((_, key)) = self.claims_end.pop_front_if(|(end, _)| *end <= now) {
            if self.claims.get(&key).is_some_and(|claim| claim.until <= now) {
                self.claims.remove(&key);
            }
        }
    }

    /// Takes up to `count` messages back whose consumer's time is over; returns how many.
    fn lapse(&mut self, now: Timestamp, count: usize) -> u64 {
        let due = self.timers.iter().take_while(|(at, _)| *at <= now);
        let leased = due.filter_map(|(_, id)| match &self.pending.get(id)?.place {
            Place::With(lease) => Some((lease.consumer.clone(), lease.claimed_at, *id, lease.clone())),
            Place::Waits { .. } | Place::Dying { .. } => None,
        });
        let mut lapsed: Vec<_> = leased.take(count).collect();
        lapsed.sort_by(|one, other| (&one.0, one.1, one.2).cmp(&(&other.0, other.1, other.2)));
        let count = lapsed.len() as u64;
        for claim in lapsed.chunk_by(|one, next| (&one.0, one.1) == (&next.0, next.1)) {
            let (consumer, claimed_at, ..) = &claim[0];
            let has_begun = self.pending.values().any(|pending| match &pending.place {
                Place::With(lease) => {
                    lease.began && lease.consumer == *consumer && lease.claimed_at == *claimed_at
                }
                Place::Waits { .. } | Place::Dying { .. } => false,
            });
            for (at, (.., id, lease)) in claim.iter().enumerate() {
                let charged = if has_begun { lease.began } else { at == 0 };
                self.lose(*id, lease.clone(), charged, now);
            }
        }
        count
    }

    fn lose(&mut self, id: MessageId, lease: Lease, charged: bool, now: Timestamp) {
        let max = self.settings.max_deliveries;
        let Some(pending) = self.pending.get_mut(&id) else { return };
        let mut dies = false;
        if charged {
            pending.crashes += 1;
            dies = pending.crashes >= CRASHES_MAX || pending.failures + pending.crashes >= max;
        }
        if charged {
            self.fail(now);
        }
        let place = if dies {
            Place::Dying { reason: "crashed".into() }
        } else {
            Place::Waits { due: now, why: Why::Lapsed { lease, charged } }
        };
        self.place(id, place);
    }

    fn next(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Takes messages back whose deadline has passed, and tells what comes next.
    pub(super) fn tend(&mut self, now: Timestamp) -> Tended {
        let lapsed = self.lapse(now, STEP_MESSAGES_MAX * 10);
        let next = self.next();
        let dying = !self.dying.is_empty();
        Tended { lapsed, ready: next.is_some_and(|at| at <= now), next, dying }
    }

    pub(super) fn dying(&self, messages: &impl Messages, limit: usize) -> Vec<crate::storage::Dying> {
        let dying = self.dying.iter().filter_map(|id| {
            let Pending { deliveries, failures, crashes, error, place } = self.pending.get(id)?;
            let Place::Dying { reason } = place else { return None };
            Some(crate::storage::Dying {
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

    pub(super) fn bury(&mut self, epoch: u64, letter: DeadLetter) -> bool {
        let DeadLetter { id, letter } = letter;
        let is_dying = self.epoch == epoch
            && matches!(self.pending.get(&id), Some(Pending { place: Place::Dying { .. }, .. }));
        if is_dying && let Some(pending) = self.remove(id) {
            let Place::Dying { reason } = pending.place else { return false };
            let reason = pending.error.unwrap_or(reason);
            self.dead.insert(id, Dead { letter, deliveries: pending.deliveries, reason });
        }
        is_dying
    }

    pub(super) fn dead(&self, after: Option<MessageId>, limit: usize) -> Vec<DeadLetter> {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let dead = self.dead.range((from, std::ops::Bound::Unbounded));
        dead.take(limit).map(|(id, dead)| DeadLetter { id: *id, letter: dead.letter }).collect()
    }

    pub(super) fn revive(
        &mut self,
        id: MessageId,
        wait: bool,
        messages: &impl Messages,
        now: Timestamp,
    ) -> Revived {
        let Some(dead) = self.dead.remove(&id) else { return Revived::Unknown };
        if !wait || messages.message(id).is_none() {
            return Revived::Gone;
        }
        let place = Place::Waits { due: now, why: Why::Revived };
        let pending = Pending { deliveries: dead.deliveries, failures: 0, crashes: 0, error: None, place };
        self.pending.insert(id, pending);
        self.timers.insert((now, id));
        Revived::Waits
    }

    /// Returns what is known of a message that the topic has, or had.
    pub(super) fn fate(&self, id: MessageId, is_kept: bool, now: Timestamp) -> Option<Fate> {
        let fate = |state| Fate {
            state,
            deliveries: None,
            consumer: None,
            since: None,
            until: None,
            error: None,
            result: None,
        };
        if let Some(Pending { deliveries, place, error, .. }) = self.pending.get(&id) {
            let known = Fate {
                deliveries: Some(*deliveries),
                error: error.clone(),
                ..fate(MessageStateName::Waiting)
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
                Place::With(_) | Place::Waits { .. } => known,
                Place::Dying { reason } => {
                    let error = known.error.clone().or_else(|| Some(reason.clone()));
                    Fate { state: MessageStateName::Dead, error, ..known }
                }
            });
        }
        if let Some(Dead { deliveries, reason, .. }) = self.dead.get(&id) {
            let (deliveries, error) = (Some(*deliveries), Some(reason.clone()));
            return Some(Fate { deliveries, error, ..fate(MessageStateName::Dead) });
        }
        let result =
            self.results.get(&id).filter(|(until, _)| *until > now).map(|(_, result)| result.clone());
        if id > self.last_delivered {
            return is_kept.then(|| Fate { deliveries: Some(0), ..fate(MessageStateName::Waiting) });
        }
        // What was done and is gone from the topic is not told from what was gone before.
        let is_done = result.is_some() || (is_kept && id > self.start);
        is_done.then(|| Fate { result, ..fate(MessageStateName::Done) })
    }
}

/// Counts of a group's messages at one time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Numbers {
    pub(super) in_flight: u64,
    pub(super) backoff: u64,
    pub(super) ready: u64,
    pub(super) oldest_ready: Option<MessageId>,
    pub(super) dead: u64,
    pub(super) consumers: u64,
}

/// Returns how long a message waits that has failed so often.
fn backoff(settings: &GroupSettings, charges: u32) -> Duration {
    let place = usize::try_from(charges.saturating_sub(1)).unwrap_or(usize::MAX);
    let wait = settings.backoff.get(place).or(settings.backoff.last());
    wait.map_or(Duration::ZERO, |wait| wait.0)
}

fn cut(text: &str) -> Box<str> {
    let mut end = text.len().min(ERROR_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].into()
}
