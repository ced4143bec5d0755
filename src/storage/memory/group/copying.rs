//! A group that is told to another storage, or taken over from one.

use std::ops::Bound;

use tidemill_proto::work::GroupName;
use tidemill_proto::{MessageId, Timestamp};

use super::pending::{Dead, Pending, Place, Why};
use super::{Beginning, Counts, Group, Messages};
use crate::storage::{
    Appended, CopiedDead, CopiedGroup, CopiedPending, CopiedPlace, CopiedUnique, UniquePage,
};

/// Returns the range of what is behind an id.
fn behind(after: Option<MessageId>) -> (Bound<MessageId>, Bound<MessageId>) {
    (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)
}

impl Group {
    /// Returns the group without what it knows of messages.
    pub(in crate::storage::memory) fn copied(&self, group: &GroupName) -> CopiedGroup {
        let Counts { done, failed, redelivered, gone } = self.counts;
        CopiedGroup {
            group: group.clone(),
            settings: self.settings.clone(),
            epoch: self.epoch,
            created_at: Some(self.created_at),
            start: self.start,
            last_delivered: self.last_delivered,
            passed: Some(self.passed),
            counts: [done, failed, redelivered, gone],
        }
    }

    /// Returns messages that are not done behind an id, up to so many.
    pub(in crate::storage::memory) fn copied_pending(
        &self,
        after: Option<MessageId>,
        limit: usize,
    ) -> Vec<CopiedPending> {
        let copied = |(id, pending): (&MessageId, &Pending)| CopiedPending {
            id: *id,
            deliveries: pending.deliveries,
            failures: pending.failures,
            crashes: pending.crashes,
            error: pending.error.clone(),
            place: match &pending.place {
                Place::With(lease) => CopiedPlace::Waits(lease.until),
                Place::Waits { due, .. } => CopiedPlace::Waits(*due),
                Place::Behind => CopiedPlace::Behind,
                Place::Dying { reason } => CopiedPlace::Dying(reason.clone()),
            },
        };
        self.pending.range(behind(after)).take(limit).map(copied).collect()
    }

    /// Returns dead letters of messages behind an id, up to so many.
    pub(in crate::storage::memory) fn copied_dead(
        &self,
        after: Option<MessageId>,
        limit: usize,
    ) -> Vec<CopiedDead> {
        let copied = |(id, dead): (&MessageId, &Dead)| CopiedDead {
            id: *id,
            letter: dead.letter,
            deliveries: dead.deliveries,
            reason: dead.reason.clone(),
        };
        self.dead.range(behind(after)).take(limit).map(copied).collect()
    }

    /// Returns unique keys whose messages are behind an id, up to so many.
    pub(in crate::storage::memory) fn copied_unique(
        &self,
        after: Option<MessageId>,
        limit: usize,
    ) -> UniquePage {
        let all = self.unique.iter().flat_map(|unique| unique.behind(behind(after)));
        let unique: Vec<CopiedUnique> = all.take(limit).collect();
        let next = unique.last().filter(|_| unique.len() == limit).map(|(_, id, _)| id.to_string());
        UniquePage { unique, next }
    }

    /// Returns a group that is taken over, without what it knows of messages.
    pub(in crate::storage::memory) fn taken_over(
        copied: &CopiedGroup,
        messages: &impl Messages,
        now: Timestamp,
    ) -> Self {
        let at = Beginning { after: copied.start, passed: 0 };
        let mut group = Self::new(copied.settings.clone(), copied.epoch, at, now);
        let [done, failed, redelivered, gone] = copied.counts;
        group.counts = Counts { done, failed, redelivered, gone };
        group.created_at = copied.created_at.unwrap_or(now);
        group.last_delivered = copied.last_delivered;
        let behind = messages.kept_behind(copied.last_delivered);
        group.passed = copied.passed.unwrap_or_else(|| messages.given().saturating_sub(behind));
        group
    }

    /// Takes over a message that is not done. One that it has stays as it is, and one that is gone counts as gone.
    pub(in crate::storage::memory) fn take_over(
        &mut self,
        copied: &CopiedPending,
        messages: &impl Messages,
        now: Timestamp,
    ) {
        if self.pending.contains_key(&copied.id) {
            return;
        }
        let CopiedPending { id, deliveries, failures, crashes, error, place } = copied.clone();
        let Some(message) = messages.message(id) else {
            self.counts.gone += 1;
            return;
        };
        let place = match place {
            CopiedPlace::Dying(reason) => {
                self.dying.push_back(id);
                Place::Dying { reason }
            }
            CopiedPlace::Waits(_) | CopiedPlace::Behind if !self.takes_key(&message) => Place::Behind,
            CopiedPlace::Waits(due) => self.waits(id, due, failures),
            CopiedPlace::Behind => self.waits(id, now, failures),
        };
        self.pending.insert(id, Pending { deliveries, failures, crashes, error, place });
    }

    /// Takes over a dead letter.
    pub(in crate::storage::memory) fn take_over_dead(&mut self, copied: &CopiedDead) {
        let CopiedDead { id, letter, deliveries, reason } = copied.clone();
        self.dead.insert(id, Dead { letter, deliveries, reason });
    }

    /// Takes over a unique key.
    pub(in crate::storage::memory) fn take_over_unique(
        &mut self,
        (key, id, timestamp): &CopiedUnique,
        messages: &impl Messages,
    ) {
        self.note_unique(key, Appended { id: *id, timestamp: *timestamp, replayed: false }, messages);
    }

    fn waits(&mut self, id: MessageId, due: Timestamp, failures: u32) -> Place {
        self.timers.insert((due, id));
        Place::Waits { due, why: if failures > 0 { Why::Failed } else { Why::Released } }
    }
}
