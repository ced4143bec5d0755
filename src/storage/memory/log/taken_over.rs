//! A log that is taken over from elsewhere.

use tidemill_proto::MessageId;

use super::Log;
use crate::storage::history::{Forgotten, Hole};
use crate::storage::{
    CopiedHole, CopiedTopic, DELETED_MAX, Epoch, StorageError, StoredMessage, TopicPolicy, Trim,
};

/// Checks that a log can go on behind an id: the ids of the last millisecond that there is are as many as those of any, and
/// behind them are none.
pub(in crate::storage::memory) fn check_goes_on(id: MessageId) -> Result<(), StorageError> {
    if id.ms == u64::MAX { Err(StorageError::IdsUsedUp) } else { Ok(()) }
}

impl Log {
    /// Returns a log without messages, with the epoch of another, or this one where that has none.
    pub(in crate::storage::memory) fn taken_over(other: &CopiedTopic, epoch: Epoch) -> Self {
        let epoch = if other.epoch == Epoch::Unmarked { epoch } else { other.epoch };
        let before = other.given.unwrap_or(other.length).saturating_sub(other.length);
        Self::given_before(epoch, other.born, before)
    }

    /// Returns a log without messages that was given so many before, and gives none less than that.
    pub(in crate::storage::memory) fn given_before(
        epoch: Epoch,
        born: Option<MessageId>,
        before: u64,
    ) -> Self {
        let mut log = Self::new(MessageId::MIN, epoch, tidemill_proto::Timestamp::from_millis(0));
        log.last = MessageId::MIN;
        log.made_after = born.and_then(MessageId::previous).unwrap_or(MessageId::MIN);
        log.given = before;
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
        self.finish_as(other.first, other.last, other.given, deletions, &other.holes);
    }

    /// Returns where messages were lost.
    pub(in crate::storage::memory) fn holes(&self) -> impl Iterator<Item = CopiedHole> {
        self.holes.iter().map(|&Hole { from, to }| CopiedHole { from, to })
    }

    /// The same, where the other one has these ends, was given so many, and has lost these.
    pub(in crate::storage::memory) fn finish_as(
        &mut self,
        first: Option<MessageId>,
        last: MessageId,
        given: Option<u64>,
        deletions: &[MessageId],
        holes: &[CopiedHole],
    ) {
        self.holes = holes.iter().map(|&CopiedHole { from, to }| Hole { from, to }).collect();
        match first {
            Some(first) => _ = self.trim(Trim::Before(first)),
            None => _ = self.trim(Trim::Keep(0)),
        }
        for id in deletions {
            self.remove(*id);
        }
        let newest = deletions.len().saturating_sub(DELETED_MAX);
        self.deleted = deletions[newest..].iter().copied().collect();
        self.forgotten = Forgotten::NONE;
        let known = self.length as u64 + self.deleted.len() as u64;
        self.given = given.unwrap_or(self.given).max(known);
        self.last = if last == MessageId::MIN { self.made_after } else { last };
    }
}
