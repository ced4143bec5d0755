//! A log that is taken over from elsewhere.

use tidemill_proto::MessageId;

use super::Log;
use crate::storage::{CopiedTopic, DELETED_MAX, Epoch, StoredMessage, TopicPolicy, Trim};

impl Log {
    /// Returns a log without messages, with the epoch of another, or this one where that has none.
    pub(in crate::storage::memory) fn taken_over(other: &CopiedTopic, epoch: Epoch) -> Self {
        let epoch = if other.epoch == Epoch::Unmarked { epoch } else { other.epoch };
        let mut log = Self::new(MessageId::MIN, epoch, tidemill_proto::Timestamp::from_millis(0));
        log.last = MessageId::MIN;
        log.made_after = other.born.and_then(MessageId::previous).unwrap_or(MessageId::MIN);
        log.given = other.given.unwrap_or(other.length).saturating_sub(other.length);
        log
    }

    /// Adds a message, with its id, behind all others.
    pub(in crate::storage::memory) fn take_over(&mut self, message: &StoredMessage, policy: &TopicPolicy) {
        let StoredMessage { id, timestamp, expires_at, body } = message;
        self.push(*id, *timestamp, *expires_at, body, policy);
    }

    /// Returns which messages were deleted by request, in their order.
    pub(in crate::storage::memory) fn deletions(&self) -> impl Iterator<Item = MessageId> {
        self.deleted.iter().copied()
    }

    /// Removes what another log does not keep any more, and takes over its counts.
    pub(in crate::storage::memory) fn finish(&mut self, other: &CopiedTopic, deletions: &[MessageId]) {
        match other.first {
            Some(first) => _ = self.trim(Trim::Before(first)),
            None => _ = self.trim(Trim::Keep(0)),
        }
        for id in deletions {
            self.remove(*id);
        }
        let newest = deletions.len().saturating_sub(DELETED_MAX);
        self.deleted = deletions[newest..].iter().copied().collect();
        let known = self.length as u64 + self.deleted.len() as u64;
        self.given = other.given.unwrap_or(self.given).max(known);
        self.last = if other.last == MessageId::MIN { self.made_after } else { other.last };
    }
}
