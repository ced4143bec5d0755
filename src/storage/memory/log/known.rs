//! What a log knows of its history, and of what lies behind a cursor.

use tidemill_proto::MessageId;

use super::Log;
use crate::storage::history::{Behind, Facts, Hole};

impl Log {
    /// Returns what lies behind a cursor.
    pub(super) fn behind(&self, cursor: MessageId) -> Behind {
        let place = self.position_before(|entry| entry <= cursor);
        let first = self.segments.get(place.segment).and_then(|segment| segment.entries().get(place.entry));
        let count = self.length - self.count_before(cursor.next().unwrap_or(MessageId::MAX));
        Behind {
            is_kept: self.keeps(cursor),
            first: first.map(|entry| entry.id),
            last: self.last_id(),
            count: Some(count as u64),
        }
    }

    pub(super) fn keeps(&self, id: MessageId) -> bool {
        let place = self.position_before(|entry| entry < id);
        let found = self.segments.get(place.segment).and_then(|segment| segment.entries().get(place.entry));
        found.is_some_and(|entry| entry.id == id)
    }

    pub(in crate::storage::memory) fn facts(&self, cursor: MessageId) -> Facts {
        let deleted = self.deleted.len() as u64;
        let next = cursor.next().unwrap_or(MessageId::MAX);
        let (holes, is_behind_hole) = Hole::behind(self.holes.to_vec(), cursor);
        Facts {
            epoch: self.epoch,
            first: self.first_id(),
            last_given: self.last,
            born: self.made_after.next(),
            given: Some(self.given),
            removed: Some(self.given - self.length as u64 - deleted - self.forgotten.count),
            deleted,
            last_removed: self.last_removed,
            taken_out: None,
            is_deleted: self.deleted.contains(&cursor) || self.deleted.contains(&next),
            deleted_behind: self.deleted.range(next..).count() as u64,
            deleted_in_front: match self.first_id() {
                Some(first) if first < next => 0,
                Some(first) => self.deleted.range(next..first).count() as u64,
                None => self.deleted.range(next..).count() as u64,
            },
            forgotten: self.forgotten.count,
            forgotten_behind: self.forgotten.behind(cursor),
            untold: None,
            hole: holes.first().copied(),
            is_behind_hole,
        }
    }
}
