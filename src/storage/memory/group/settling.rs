//! What consumers say of messages, and what is taken back from those who say nothing.

use std::time::Duration;

use bytes::Bytes;
use tidemill_proto::work::{GroupSettings, MinuteCounts};
use tidemill_proto::{MessageId, Timestamp};

use super::pending::{Lease, Place, Why};
use super::{Group, MINUTE_MS, MINUTES, Messages};
use crate::storage::{
    CRASHES_MAX, ERROR_BYTES_MAX, Outcome, Refusal, STEP_MESSAGES_MAX, Settlement, Tended, Verdict,
};

impl Group {
    /// Settles a delivery.
    pub(in crate::storage::memory) fn settle(&mut self, settlement: Settlement, now: Timestamp) -> Outcome {
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
            Place::Waits { .. } | Place::Behind | Place::Dying { .. } => {
                return refused(Refusal::SettledBefore);
            }
        };
        if let (Verdict::Extend(_), Some(max_run)) = (&verdict, self.settings.max_run)
            && lease.claimed_at.saturating_add(max_run.0) <= now
        {
            return refused(Refusal::MaxRun);
        }
        let settled = |until, dying| Outcome::Settled { late, until, dying };
        match verdict {
            Verdict::Ack(result) => {
                self.remove(id, now);
                self.counts.done += 1;
                self.minute(now).done += 1;
                if let Some(result) = result {
                    self.keep_result(id, &result, now);
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
                self.place(id, Place::With(lease), now);
                settled(Some(until), false)
            }
            Verdict::Release => {
                self.uncharge(id, charged);
                self.place(id, Place::Waits { due: now, why: Why::Released }, now);
                settled(Some(now), false)
            }
            // Its time was over before.
            Verdict::Lost { .. } if late => refused(Refusal::SettledBefore),
            Verdict::Lost { charged } => {
                self.lose(id, lease, charged, now);
                let dying = self.dying.back() == Some(&id);
                settled((!dying).then_some(now), dying)
            }
            Verdict::Reject(reason) => {
                self.uncharge(id, charged);
                self.fail(now);
                self.place(id, Place::Dying { reason: cut(&reason) }, now);
                settled(None, true)
            }
            Verdict::Nack(delay, error) => {
                self.uncharge(id, charged);
                self.fail(now);
                let failures = {
                    let pending = self.pending.get_mut(&id).expect("it was found above");
                    pending.failures += 1;
                    if let Some(error) = error {
                        pending.error = Some(cut(&error));
                    }
                    pending.failures + pending.crashes
                };
                if failures >= self.settings.max_deliveries {
                    self.place(id, Place::Dying { reason: "failed".into() }, now);
                    return settled(None, true);
                }
                let due = now.saturating_add(delay.unwrap_or_else(|| backoff(&self.settings, failures)));
                self.place(id, Place::Waits { due, why: Why::Failed }, now);
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

    /// Puts a pending message somewhere else. One that dies frees its key.
    pub(super) fn place(&mut self, id: MessageId, place: Place, now: Timestamp) {
        let Some(pending) = self.pending.get_mut(&id) else { return };
        if let Place::With(Lease { until: at, .. }) | Place::Waits { due: at, .. } = &pending.place {
            self.timers.remove(&(*at, id));
        }
        match &place {
            Place::With(Lease { until: at, .. }) | Place::Waits { due: at, .. } => {
                self.timers.insert((*at, id));
            }
            Place::Behind => {}
            Place::Dying { .. } => self.dying.push_back(id),
        }
        let dies = matches!(place, Place::Dying { .. });
        pending.place = place;
        if dies {
            self.free_key(id, now);
            self.forget_unique(id);
        }
    }

    fn keep_result(&mut self, id: MessageId, result: &Bytes, now: Timestamp) {
        let until = now.saturating_add(self.settings.result_ttl.0);
        self.results_bytes += result.len();
        // What a request body keeps alive is never what is kept.
        let result = Bytes::copy_from_slice(result);
        if let Some((end, before)) = self.results.insert(id, (until, result)) {
            self.results_bytes -= before.len();
            self.results_end.remove(&(end, id));
        }
        self.results_end.insert((until, id));
    }

    /// Forgets results, and claims, whose time is over.
    pub(in crate::storage::memory) fn forget_ended(&mut self, now: Timestamp) {
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
            Place::Waits { .. } | Place::Behind | Place::Dying { .. } => None,
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
                Place::Waits { .. } | Place::Behind | Place::Dying { .. } => false,
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
        self.place(id, place, now);
    }

    pub(super) fn next(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Takes messages back whose deadline has passed, and tells what comes next.
    pub(in crate::storage::memory) fn tend(&mut self, messages: &impl Messages, now: Timestamp) -> Tended {
        self.forget_unique_some(messages);
        let lapsed = self.lapse(now, STEP_MESSAGES_MAX * 10);
        let next = self.next();
        let dying = !self.dying.is_empty();
        Tended { lapsed, ready: next.is_some_and(|at| at <= now), next, dying }
    }
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
