//! A group that is told to another storage, or taken over from one.

use tidemill_proto::work::GroupName;
use tidemill_proto::{MessageId, Timestamp};

use super::pending::{Dead, Pending, Place, Why};
use super::{Beginning, Counts, Group, Messages};
use crate::storage::{Appended, CopiedDead, CopiedGroup, CopiedPending, CopiedPlace};

impl Group {
    /// Returns the group with what it knows of messages that are not done.
    pub(in crate::storage::memory) fn copied(&self, group: &GroupName) -> CopiedGroup {
        let Counts { done, failed, redelivered, gone } = self.counts;
        let pending = self.pending.iter().map(|(id, pending)| CopiedPending {
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
        });
        let dead = self.dead.iter().map(|(id, dead)| CopiedDead {
            id: *id,
            letter: dead.letter,
            deliveries: dead.deliveries,
            reason: dead.reason.clone(),
        });
        CopiedGroup {
            group: group.clone(),
            settings: self.settings.clone(),
            epoch: self.epoch,
            created_at: Some(self.created_at),
            start: self.start,
            last_delivered: self.last_delivered,
            passed: Some(self.passed),
            counts: [done, failed, redelivered, gone],
            pending: pending.collect(),
            dead: dead.collect(),
            unique: self.unique.iter().flat_map(|unique| unique.all()).collect(),
        }
    }

    /// Returns a group that is taken over. What it knows of messages that are gone counts as gone.
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
        let is_behind = |pending: &CopiedPending| pending.place == CopiedPlace::Behind;
        // Those that hold their keys come before those that stand behind.
        for pending in copied.pending.iter().filter(|pending| !is_behind(pending)) {
            group.take_over(pending, messages, now);
        }
        for pending in copied.pending.iter().filter(|pending| is_behind(pending)) {
            group.take_over(pending, messages, now);
        }
        for dead in &copied.dead {
            let CopiedDead { id, letter, deliveries, reason } = dead.clone();
            group.dead.insert(id, Dead { letter, deliveries, reason });
        }
        for (key, id, timestamp) in &copied.unique {
            group.note_unique(key, Appended { id: *id, timestamp: *timestamp, replayed: false }, messages);
        }
        group
    }

    fn take_over(&mut self, copied: &CopiedPending, messages: &impl Messages, now: Timestamp) {
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

    fn waits(&mut self, id: MessageId, due: Timestamp, failures: u32) -> Place {
        self.timers.insert((due, id));
        Place::Waits { due, why: if failures > 0 { Why::Failed } else { Why::Released } }
    }
}
