//! Claims: of one group, or of several in the order of their weights.

use std::time::Duration;

use tidemill_proto::limits::PAGE_BYTES_MAX;
use tidemill_proto::work::{ClaimId, ConsumerName, GroupName, Receipt};
use tidemill_proto::{Code, Problem, Timestamp, TopicName};
use tokio::time::{Instant, timeout_at};

use super::letters::Letters;
use crate::access::Verb;
use crate::chance::random;
use crate::relay::{Failure, Gate};
use crate::slow;
use crate::storage::{Claim, Claimed, Delivery, Settlement, Verdict};

pub(crate) use traced::begin_claimed;

mod traced;

/// How often several groups are looked at for whom none has a change: what becomes due is none.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Who claims, and how much.
#[derive(Clone, Copy, Debug)]
pub struct Claimant<'a> {
    /// The consumer.
    pub consumer: &'a ConsumerName,
    /// Most messages.
    pub max: usize,
    /// Payload and metadata bytes after which no more are taken; about, as [`Claim`] says.
    pub bytes_max: usize,
}

impl<'a> Claimant<'a> {
    /// Returns that a consumer claims so many messages, of as many bytes as a page may have.
    #[must_use]
    pub const fn of(consumer: &'a ConsumerName, max: usize) -> Self {
        Self { consumer, max, bytes_max: PAGE_BYTES_MAX }
    }
}

/// A group to claim from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The topic.
    pub topic: TopicName,
    /// The group.
    pub group: GroupName,
    /// Its part of what is claimed, beside the others: at least 1.
    pub weight: u32,
}

/// In which order several groups are claimed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimOrder {
    /// From the next one only what those before it do not have.
    Strict,
    /// From each its part, and what it does not have from the others. None of them starves.
    Weighted,
}

/// What somebody claimed of one group.
#[derive(Clone, Debug)]
pub struct DeliveriesOf {
    /// The topic.
    pub topic: TopicName,
    /// The group.
    pub group: GroupName,
    /// The epoch of the group.
    pub epoch: u64,
    /// The messages.
    pub deliveries: Vec<Delivery>,
    /// Why the topic was cancelled, if it was.
    pub cancelled: Option<Box<str>>,
}

impl DeliveriesOf {
    /// Returns the receipt of one of them.
    #[must_use]
    pub fn receipt(&self, delivery: &Delivery) -> Receipt {
        Receipt {
            topic: self.topic.clone(),
            group: self.group.clone(),
            epoch: self.epoch,
            id: delivery.message.id,
            delivery: delivery.delivery,
        }
    }
}

/// What somebody claimed. It is given back when this is dropped, unless it was [taken](Self::taken).
#[derive(Debug)]
pub struct Deliveries {
    /// By group.
    pub of: Vec<DeliveriesOf>,
    letters: Letters,
}

impl Deliveries {
    /// Returns how many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.of.iter().map(|of| of.deliveries.len()).sum()
    }

    /// Returns how many bytes their payloads and metadata have.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        let all = self.of.iter().flat_map(|of| &of.deliveries);
        all.map(|delivery| delivery.message.body.len_bytes()).sum()
    }

    /// Hands them over: from now on it is for whoever takes them to give them back.
    #[must_use]
    pub fn take(mut self) -> Vec<DeliveriesOf> {
        std::mem::take(&mut self.of)
    }

    /// Says that whoever claimed them is about to get them; returns what gives them back where that fails.
    #[must_use]
    pub fn taken(mut self) -> GiveBack {
        // Who has got them all the same may still say what became of them, unless somebody else has them by then.
        let verdict = Verdict::Lost { charged: false };
        GiveBack { of: given_back(std::mem::take(&mut self.of), &verdict), letters: self.letters.clone() }
    }
}

/// Gives deliveries back whose claim was answered, and whose client did not get the answer.
#[derive(Debug)]
pub struct GiveBack {
    of: Vec<(TopicName, GroupName, Vec<Settlement>)>,
    letters: Letters,
}

impl GiveBack {
    /// Gives them back: they can be claimed at once, and have not failed.
    pub fn give(self) {
        for (topic, group, settlements) in self.of {
            self.letters.give_back(&topic, &group, settlements);
        }
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        let of = given_back(std::mem::take(&mut self.of), &Verdict::Release);
        GiveBack { of, letters: self.letters.clone() }.give();
    }
}

/// Returns what gives deliveries back, without their messages.
fn given_back(of: Vec<DeliveriesOf>, verdict: &Verdict) -> Vec<(TopicName, GroupName, Vec<Settlement>)> {
    let settlements = |of: DeliveriesOf| {
        let DeliveriesOf { topic, group, epoch, deliveries, cancelled: _ } = of;
        let settlement = |delivery: Delivery| Settlement {
            epoch,
            id: delivery.message.id,
            delivery: delivery.delivery,
            verdict: verdict.clone(),
        };
        (topic, group, deliveries.into_iter().map(settlement).collect())
    };
    of.into_iter().filter(|of| !of.deliveries.is_empty()).map(settlements).collect()
}

impl Gate {
    /// Claims messages of a group; where there are none, waits for so long.
    ///
    /// # Errors
    /// The caller may not, there is no such group, or the storage did not answer.
    pub async fn claim(
        &self,
        topic: &TopicName,
        group: &GroupName,
        claimant: Claimant<'_>,
        wait: Duration,
        claim_id: Option<ClaimId>,
    ) -> Result<Deliveries, Failure> {
        self.check_topic(Verb::Work, topic).await?;
        let until = Instant::now() + wait;
        let claimed = self.claim_of(topic, group, claimant, until, claim_id).await?;
        Ok(self.deliveries(vec![of(topic, group, claimed)]))
    }

    /// Gives deliveries of a group back, or says that who had them is lost. Where the storage does not answer, they come
    /// back when their time is over.
    pub async fn give_back(&self, topic: &TopicName, group: &GroupName, settlements: Vec<Settlement>) {
        self.relay().stations.letters().return_all(topic, group, settlements).await;
    }

    /// Returns how long it is until a time of the storage.
    #[must_use]
    pub fn time_left(&self, until: Timestamp) -> Duration {
        let now = self.relay().storage.upkeep.now();
        Duration::from_millis(until.as_millis().saturating_sub(now.as_millis()))
    }

    fn deliveries(&self, mut of: Vec<DeliveriesOf>) -> Deliveries {
        of.retain(|of| !of.deliveries.is_empty());
        traced::note_claimed(&of);
        Deliveries { of, letters: self.relay().stations.letters().clone() }
    }

    async fn claim_of(
        &self,
        topic: &TopicName,
        group: &GroupName,
        claimant: Claimant<'_>,
        until: Instant,
        claim_id: Option<ClaimId>,
    ) -> Result<Claimed, Failure> {
        let claim = Claim {
            topic: topic.clone(),
            group: group.clone(),
            consumer: claimant.consumer.clone(),
            max: claimant.max,
            bytes_max: claimant.bytes_max,
            claim_id,
        };
        let waits = until > Instant::now();
        // A station that has just ended takes nothing: then there is another.
        loop {
            let reply = self.relay().stations.of(topic, group).claim(claim.clone(), waits);
            let answer = if waits {
                // Who waits no longer gets nothing, and nothing is lost by it.
                tokio::select! {
                    biased;
                    answer = slow::awaited(timeout_at(until, reply)) => match answer {
                        Ok(answer) => answer,
                        Err(_) => return Ok(Claimed::default()),
                    },
                    () = self.relay().sessions.draining() => return Err(stopping()),
                }
            } else {
                slow::served(reply).await
            };
            match answer {
                Ok(result) => return result.map_err(|error| Failure::work(error, topic, group)),
                Err(_) if self.relay().stations.is_stopping() => return Err(stopping()),
                Err(_) => {}
            }
        }
    }

    /// Claims messages of several groups; where there are none, waits for so long.
    ///
    /// # Errors
    /// As [`claim`](Self::claim), of any of them, where nothing could be claimed of the others.
    pub async fn claim_from(
        &self,
        sources: &[Source],
        order: ClaimOrder,
        claimant: Claimant<'_>,
        wait: Duration,
    ) -> Result<Deliveries, Failure> {
        for source in sources {
            self.check_topic(Verb::Work, &source.topic).await?;
        }
        let until = Instant::now() + wait;
        let stations = || sources.iter().map(|source| self.relay().stations.of(&source.topic, &source.group));
        loop {
            // Before they are asked, so that no change after that is missed.
            let changes: Vec<_> = stations().map(|station| station.changes()).collect();
            let claimed = self.claim_once(sources, order, claimant).await?;
            if claimed.count() > 0 || Instant::now() >= until {
                return Ok(claimed);
            }
            let look_at = until.min(Instant::now() + LOOK_EVERY);
            let ends = changes.into_iter().map(|mut changes| {
                Box::pin(async move {
                    // A station that ends is a change, too.
                    let _ = changes.changed().await;
                })
            });
            tokio::select! {
                _ = slow::awaited(timeout_at(look_at, futures_util::future::select_all(ends))) => {}
                () = self.relay().sessions.draining() => return Err(stopping()),
            }
        }
    }

    /// Claims from several groups, whatever they have now.
    ///
    /// # Errors
    /// One of them failed, and nothing was claimed: what was is not given back, as that would count as a delivery.
    async fn claim_once(
        &self,
        sources: &[Source],
        order: ClaimOrder,
        claimant: Claimant<'_>,
    ) -> Result<Deliveries, Failure> {
        let mut failed: Vec<(&Source, Failure)> = Vec::new();
        let mut claimed = self.deliveries(Vec::new());
        let max = claimant.max;
        let quotas = match order {
            ClaimOrder::Strict => sources.iter().map(|source| (source, max)).collect(),
            ClaimOrder::Weighted => quotas(sources, max),
        };
        let now = Instant::now();
        let rest = quotas.iter().map(|(source, _)| (*source, max));
        let passes: Vec<_> = match order {
            ClaimOrder::Strict => quotas,
            ClaimOrder::Weighted => quotas.iter().copied().chain(rest).collect(),
        };
        for (source, quota) in passes {
            let count = quota.min(max - claimed.count());
            if count == 0 || failed.iter().any(|(other, _)| std::ptr::eq(*other, source)) {
                continue;
            }
            let of_it = Claimant { max: count, ..claimant };
            match self.claim_of(&source.topic, &source.group, of_it, now, None).await {
                Ok(got) if got.deliveries.is_empty() => {}
                Ok(got) => claimed.of.push(of(&source.topic, &source.group, got)),
                Err(failure) => failed.push((source, failure)),
            }
        }
        match failed.into_iter().next() {
            Some((_, failure)) if claimed.count() == 0 => Err(failure),
            _ => Ok(claimed),
        }
    }
}

fn of(topic: &TopicName, group: &GroupName, claimed: Claimed) -> DeliveriesOf {
    let Claimed { epoch, deliveries, cancelled, .. } = claimed;
    DeliveriesOf { topic: topic.clone(), group: group.clone(), epoch, deliveries, cancelled }
}

/// Returns the groups in an order by chance, by their weights, each with its part. Whichever of them is first has the
/// first turn: where one message is claimed at a time, each is first as often as its weight says.
fn quotas(sources: &[Source], max: usize) -> Vec<(&Source, usize)> {
    let total: u64 = sources.iter().map(|source| u64::from(source.weight)).sum();
    let mut left: Vec<&Source> = sources.iter().collect();
    let mut quotas = Vec::with_capacity(sources.len());
    while !left.is_empty() {
        let of_left: u64 = left.iter().map(|source| u64::from(source.weight)).sum();
        let mut at = random() % of_left.max(1);
        let place = left.iter().position(|source| {
            let weight = u64::from(source.weight);
            let is_it = at < weight;
            at = at.saturating_sub(weight);
            is_it
        });
        let source = left.remove(place.unwrap_or(0));
        let part = (max as u64 * u64::from(source.weight)).div_ceil(total.max(1));
        quotas.push((source, usize::try_from(part).unwrap_or(max)));
    }
    quotas
}

/// Returns what who waits for work is told while the node drains.
fn stopping() -> Failure {
    Problem::new(Code::Overloaded, "the node is stopping; nothing was claimed, try another one").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_first_is_so_as_often_as_its_weight_says_and_has_its_part() {
        let source = |name: &str, weight| Source {
            topic: TopicName::parse(name).expect("a name"),
            group: GroupName::parse("g").expect("a name"),
            weight,
        };
        let sources = [source("a", 10), source("b", 8), source("c", 7), source("d", 3)];
        let mut first = [0_u32; 4];
        for _ in 0..28_000 {
            let quotas = quotas(&sources, 28);
            let place = sources.iter().position(|source| source.topic == quotas[0].0.topic);
            first[place.expect("one of them")] += 1;
            assert_eq!(quotas.iter().map(|(_, part)| part).sum::<usize>(), 28);
        }
        for (count, source) in first.into_iter().zip(&sources) {
            let expected = source.weight * 1_000;
            assert!(count.abs_diff(expected) < expected / 5, "{count} of {expected}");
        }
        assert!(quotas(&sources, 1).iter().all(|(_, part)| *part == 1));
    }
}
