//! The groups that one connection consumes, and the messages that it has of them.
//!
//! As many messages are claimed as there is credit, one claim after the other: what is settled while one is under way
//! makes room for the next, so claims grow with the load. It must not know frames, nor how messages are settled.

use std::collections::HashMap;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tidemill_proto::work::{ConsumerName, GroupName, Receipt, Settled, SettledStatus};
use tidemill_proto::{Code, MessageId, Problem, Timestamp, TopicName};
use tokio::time::{Instant, Sleep, sleep_until};

use super::requests::Consumption;
use crate::budget::{Budget, Hold};
use crate::chance::jittered;
use crate::relay::{Claimant, Deliveries, DeliveriesOf, Failure, Gate, Settlement, Verdict, begin_claimed};

/// Groups that one connection consumes.
const GROUPS_MAX: usize = 64;
/// How long one claim waits; whether its caller still may is looked at again then.
const WAIT: Duration = Duration::from_secs(30);
/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often it is looked at whether messages are over that a connection without credit has.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Bytes of a message that a connection has.
const HELD_BYTES: usize = 2 * size_of::<(MessageId, Held)>();

type Claim = Pin<Box<dyn Future<Output = Result<Deliveries, Failure>> + Send>>;

/// A message that the connection has.
#[derive(Debug)]
struct Held {
    epoch: u64,
    delivery: u64,
    until: Instant,
    /// Which of all that it was given this is.
    place: u64,
    /// Whether it was extended: then its consumer has begun it.
    began: bool,
}

/// A group that is consumed.
struct Consumed {
    reference: Option<String>,
    topic: TopicName,
    group: GroupName,
    consumer: ConsumerName,
    credit: usize,
    held: HashMap<MessageId, Held>,
    claim: Option<Claim>,
    /// Whether its beginning was answered.
    is_told: bool,
    /// When it is looked at again.
    pause: Option<Pin<Box<Sleep>>>,
}

/// What came.
pub(super) enum Come {
    /// The group is consumed from now on.
    Began {
        reference: Option<String>,
        topic: TopicName,
        group: GroupName,
        consumer: ConsumerName,
        credit: u32,
    },
    /// Messages, which the connection has from now on, with what is counted of them.
    Work(DeliveriesOf, Hold),
    /// The group is not consumed any more.
    Ended { reference: Option<String>, failure: Failure },
}

/// The groups that a connection consumes.
pub(super) struct Consuming {
    gate: Gate,
    budget: Budget,
    /// Bytes of one claim.
    bytes_max: usize,
    /// Who consumes where it is not said.
    name: ConsumerName,
    consumed: Vec<Consumed>,
    come: Vec<Come>,
    places: u64,
    /// What counts for all that it may have.
    hold: Hold,
}

impl Consuming {
    pub(super) fn new(gate: Gate, bytes_max: usize, budget: Budget, name: ConsumerName) -> Self {
        Self {
            gate,
            budget,
            bytes_max,
            name,
            consumed: Vec::new(),
            come: Vec::new(),
            places: 0,
            hold: Hold::default(),
        }
    }

    /// Consumes a group, or changes the credit of one. What comes of it is told by
    /// [`poll_come`](Self::poll_come).
    ///
    /// # Errors
    /// There are too many, another consumer has begun, or nothing more may be held.
    pub(super) fn consume(&mut self, asked: Consumption) -> Result<(), Failure> {
        let Consumption { reference, topic, group, credit, consumer } = asked;
        let credit_before = self.consumed.iter().map(|one| one.credit).sum::<usize>();
        let place = self.consumed.iter().position(|one| one.topic == topic && one.group == group);
        let known = place.map(|place| &self.consumed[place]);
        if let (Some(known), Some(consumer)) = (known, &consumer)
            && known.consumer != *consumer
        {
            let rule =
                format_args!("must be `{}`, as whom this connection consumes the group", known.consumer);
            return Err(Problem::field("consumer", rule).into());
        }
        if known.is_none() && credit > 0 && self.consumed.len() >= GROUPS_MAX {
            let rule = format_args!("is one too many: a connection consumes at most {GROUPS_MAX} groups");
            return Err(Problem::field("group", rule).into());
        }
        let size = usize::try_from(credit).unwrap_or(usize::MAX);
        let all = credit_before - known.map_or(0, |known| known.credit) + size;
        let bytes = all.saturating_mul(HELD_BYTES) as u64;
        if self.budget.raise(&mut self.hold, bytes).is_err() {
            let detail =
                "the relay holds as much for its clients as it may; consume less, or try again later";
            return Err(Problem::new(Code::Overloaded, detail).into());
        }
        self.hold.lower(bytes);
        let told = |consumer: ConsumerName, reference, topic, group| Come::Began {
            reference,
            topic,
            group,
            consumer,
            credit,
        };
        match place {
            Some(place) => {
                let known = &mut self.consumed[place];
                // Each question has an answer, also that which another follows before it has begun.
                let is_open = !known.is_told && known.credit > 0;
                if is_open {
                    self.come.push(known.began());
                }
                if size < known.credit {
                    // What a claim gets that is under way is given back.
                    known.claim = None;
                }
                known.credit = size;
                known.reference.clone_from(&reference);
                if known.is_told || is_open && credit == 0 {
                    self.come.push(told(known.consumer.clone(), reference, topic, group));
                }
            }
            None if credit == 0 => {
                let consumer = consumer.unwrap_or_else(|| self.name.clone());
                self.come.push(told(consumer, reference, topic, group));
            }
            None => self.consumed.push(Consumed {
                reference,
                topic,
                group,
                consumer: consumer.unwrap_or_else(|| self.name.clone()),
                credit: size,
                held: HashMap::new(),
                claim: None,
                is_told: false,
                pause: None,
            }),
        }
        Ok(())
    }

    /// Returns what came once something has.
    pub(super) fn poll_come(&mut self, cx: &mut Context<'_>) -> Poll<Vec<Come>> {
        let mut at = 0;
        while at < self.consumed.len() {
            match self.poll_one(at, cx) {
                Next::Stays => at += 1,
                Next::Goes => {
                    self.consumed.swap_remove(at);
                    let all = self.consumed.iter().map(|one| one.credit).sum::<usize>();
                    self.hold.lower(all.saturating_mul(HELD_BYTES) as u64);
                }
            }
        }
        if self.come.is_empty() { Poll::Pending } else { Poll::Ready(std::mem::take(&mut self.come)) }
    }

    fn poll_one(&mut self, at: usize, cx: &mut Context<'_>) -> Next {
        let Self { gate, budget, bytes_max, consumed, come, places, .. } = self;
        let one = &mut consumed[at];
        loop {
            if let Some(pause) = &mut one.pause {
                let Poll::Ready(()) = pause.as_mut().poll(cx) else { return Next::Stays };
                one.pause = None;
            }
            if one.claim.is_none() {
                if one.held.len() >= one.credit {
                    let now = Instant::now();
                    one.held.retain(|_, held| held.until > now);
                }
                if one.credit == 0 && one.held.is_empty() {
                    return Next::Goes;
                }
                let free = one.credit.saturating_sub(one.held.len());
                if free == 0 {
                    one.pause_for(LOOK_EVERY);
                    continue;
                }
                one.claim = Some(claim(gate.clone(), one, free, *bytes_max));
            }
            let Some(claim) = &mut one.claim else { return Next::Stays };
            let Poll::Ready(claimed) = claim.as_mut().poll(cx) else { return Next::Stays };
            one.claim = None;
            match claimed {
                Ok(deliveries) => {
                    if !std::mem::replace(&mut one.is_told, true) {
                        come.push(one.began());
                    }
                    if deliveries.count() == 0 {
                        continue;
                    }
                    let mut hold = Hold::default();
                    if budget.raise(&mut hold, deliveries.len_bytes() as u64).is_err() {
                        // They are given back: others may have room.
                        drop(deliveries);
                        one.pause_for(jittered(AGAIN));
                        continue;
                    }
                    let _span = begin_claimed(&deliveries.of);
                    for of in deliveries.take() {
                        one.keep(gate, &of, places);
                        come.push(Come::Work(of, std::mem::take(&mut hold)));
                    }
                    return Next::Stays;
                }
                Err(failure) if one.is_told && failure.problem().retryable => one.pause_for(jittered(AGAIN)),
                Err(failure) => {
                    come.push(Come::Ended { reference: one.reference.clone(), failure });
                    // What it has of it can still be settled.
                    one.credit = 0;
                    one.is_told = false;
                    if one.held.is_empty() {
                        return Next::Goes;
                    }
                }
            }
        }
    }

    /// Takes what came of receipts: what is settled makes room.
    pub(super) fn settled(&mut self, receipts: &[Option<Receipt>], results: &[Settled]) {
        for (receipt, settled) in receipts.iter().zip(results) {
            let Some(receipt) = receipt else { continue };
            let is_it = |one: &&mut Consumed| one.topic == receipt.topic && one.group == receipt.group;
            let Some(one) = self.consumed.iter_mut().find(is_it) else { continue };
            let Some(held) = one.held.get_mut(&receipt.id) else { continue };
            if (held.epoch, held.delivery) != (receipt.epoch, receipt.delivery) {
                continue;
            }
            let has_it_still = match settled.status {
                SettledStatus::Extended => {
                    held.began = true;
                    held.until = settled.until.map_or(held.until, |until| ends(&self.gate, until));
                    true
                }
                SettledStatus::Refused => !matches!(
                    settled.code,
                    Some(Code::ReceiptVoid | Code::DeliveredAgain | Code::AlreadySettled)
                ),
                SettledStatus::Acked
                | SettledStatus::Nacked
                | SettledStatus::Rejected
                | SettledStatus::Released => false,
            };
            if has_it_still {
                continue;
            }
            one.held.remove(&receipt.id);
            if one.claim.is_none() {
                one.pause = None;
            }
        }
    }

    /// Gives back all that the connection has, and whatever is being claimed; where its client `is_lost`, of each group
    /// the message that it had the longest, or those that it had begun, are charged with that.
    pub(super) async fn end(self, is_lost: bool) {
        let Self { gate, consumed, .. } = self;
        let give_back = consumed.into_iter().filter_map(|one| {
            let Consumed { topic, group, held, claim, .. } = one;
            drop(claim);
            let has_begun = held.values().any(|held| held.began);
            let first = held.values().map(|held| held.place).min()?;
            let settlement = |(id, held): (MessageId, Held)| {
                let charged = if has_begun { held.began } else { held.place == first };
                let verdict = if is_lost { Verdict::Lost { charged } } else { Verdict::Release };
                Settlement { epoch: held.epoch, id, delivery: held.delivery, verdict }
            };
            let settlements = held.into_iter().map(settlement).collect();
            let gate = gate.clone();
            Some(async move { gate.give_back(&topic, &group, settlements).await })
        });
        futures_util::future::join_all(give_back).await;
    }
}

/// Whether a group is consumed any more.
enum Next {
    Stays,
    Goes,
}

/// Returns when a consumer's time ends.
fn ends(gate: &Gate, deadline: Timestamp) -> Instant {
    Instant::now() + gate.time_left(deadline)
}

fn claim(gate: Gate, one: &Consumed, max: usize, bytes_max: usize) -> Claim {
    let (topic, group, consumer) = (one.topic.clone(), one.group.clone(), one.consumer.clone());
    // The first one tells whether there is such a group.
    let wait = if one.is_told { WAIT } else { Duration::ZERO };
    Box::pin(async move {
        let claimant = Claimant { consumer: &consumer, max, bytes_max };
        gate.claim(&topic, &group, claimant, wait, None).await
    })
}

impl Consumed {
    fn pause_for(&mut self, time: Duration) {
        self.pause = Some(Box::pin(sleep_until(Instant::now() + time)));
    }

    fn began(&self) -> Come {
        Come::Began {
            reference: self.reference.clone(),
            topic: self.topic.clone(),
            group: self.group.clone(),
            consumer: self.consumer.clone(),
            credit: u32::try_from(self.credit).unwrap_or(u32::MAX),
        }
    }

    fn keep(&mut self, gate: &Gate, of: &DeliveriesOf, places: &mut u64) {
        for delivery in &of.deliveries {
            *places += 1;
            let held = Held {
                epoch: of.epoch,
                delivery: delivery.delivery,
                until: ends(gate, delivery.deadline),
                place: *places,
                began: false,
            };
            self.held.insert(delivery.message.id, held);
        }
    }
}
