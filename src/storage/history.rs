//! What a topic's history proves about a cursor: whether messages that its reader did not get are
//! gone.
//!
//! Both backends gather the [`Facts`] and judge by the same rules, so a reader is told the same by
//! both. A gap is reported where messages may be missing and nothing proves that none is; never
//! where a rule below proves it. The table of what is told stands in the contract (`storage`).

use tidemill_proto::{Gap, GapReason, MessageId, TopicName};

use super::{Epoch, Reader};

/// What a backend knows of a topic's history.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// Which of the topics of this name it is.
    pub(super) epoch: Epoch,
    /// The oldest kept message.
    pub(super) first: Option<MessageId>,
    /// The last id that the topic has given; its message need not be kept.
    pub(super) last_given: MessageId,
    /// The smallest id that this topic can give. The one right before it is no message's: there stands
    /// who was told that this is a new topic. Those of a topic of the same name that was deleted before
    /// are smaller still. `None` where nobody wrote it down.
    pub(super) born: Option<MessageId>,
    /// How many messages the topic was ever given, where the backend counts them.
    pub(super) given: Option<u64>,
    /// How many messages were ever removed from the old end; `None` where that is not known, or where
    /// somebody has taken out others from between.
    pub(super) removed: Option<u64>,
    /// How many messages were deleted by request, of those that are remembered.
    pub(super) deleted: u64,
    /// The newest message that was removed from the old end, where the backend knows it.
    pub(super) last_removed: Option<MessageId>,
    /// The newest message that was taken out alone, and not by request, where the backend knows of one.
    pub(super) taken_out: Option<MessageId>,
    /// Whether the cursor's message was deleted by request, or the one right behind it.
    pub(super) is_deleted: bool,
    /// How many of those that were deleted by request lay behind the cursor.
    pub(super) deleted_behind: u64,
}

/// What a read has found behind a cursor.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Behind {
    /// Whether the cursor's message is kept.
    pub(super) is_kept: bool,
    /// The first message behind the cursor that is kept.
    pub(super) first: Option<MessageId>,
    /// The last one that the read has looked at.
    pub(super) last: Option<MessageId>,
    /// How many are kept behind the cursor, where the read has come to the topic's end.
    pub(super) count: Option<u64>,
}

/// What became of what lies behind a cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// What to tell the reader.
    pub(super) gap: Gap,
    /// Where the reader goes on; `None` is at the topic's first message.
    pub(super) resume: Option<MessageId>,
}

impl Facts {
    /// Judges a cursor; `None` proves that nothing is missing.
    pub(super) fn judge(
        &self,
        topic: &TopicName,
        cursor: MessageId,
        reader: Reader,
        behind: Behind,
    ) -> Option<Verdict> {
        let judged = Judged { facts: self, cursor, reader, behind };
        let (reason, to, resume, missed) = judged.judge()?;
        Some(Verdict { gap: Gap { topic: topic.clone(), from: cursor, to, reason, missed }, resume })
    }
}

/// Reason, end, where to go on, and how many were missed.
type Told = (GapReason, MessageId, Option<MessageId>, Option<u64>);

/// A cursor while it is judged.
struct Judged<'a> {
    facts: &'a Facts,
    cursor: MessageId,
    reader: Reader,
    behind: Behind,
}

impl Judged<'_> {
    fn judge(&self) -> Option<Told> {
        let Facts { epoch, born, first, last_given, .. } = *self.facts;
        let is_another = matches!(self.reader, Reader::Follows { epoch: known, .. } if !known.may_be(epoch));
        if self.cursor == MessageId::MIN {
            return self.judge_start(is_another);
        }
        let is_of_earlier = born.is_some_and(|born| self.cursor.next().is_some_and(|next| next < born));
        if is_of_earlier {
            return Some(self.starts_over(GapReason::Deleted));
        }
        if is_another {
            return Some(self.starts_over(GapReason::Reset));
        }
        if self.behind.is_kept {
            return self.judge_ahead();
        }
        if self.cursor > last_given {
            return Some(self.lost(last_given));
        }
        if self.cursor == last_given {
            // Nothing came after it.
            return self.judge_ahead();
        }
        let is_place = self.is_place();
        if first.is_none_or(|first| self.cursor < first) {
            return self.judge_removed(is_place);
        }
        // Between kept messages nothing is ever trimmed. Single ones may have been taken out.
        match (self.facts.given, self.facts.taken_out) {
            _ if is_place => self.judge_ahead(),
            (_, Some(taken_out)) if taken_out > self.cursor => self.judge_ahead(),
            // A server that does not count, nor knows what was taken out.
            (None, None) => None,
            // The backend has lost it, and others have come since; or this is another topic.
            _ => Some(self.lost(self.cursor)),
        }
    }

    /// Judges a reader that was there before the first message, or has got none: it has missed each one that
    /// is gone.
    fn judge_start(&self, is_another: bool) -> Option<Told> {
        let start = Some(MessageId::MIN);
        if let Reader::Follows { knows_of: Some(by), .. } = self.reader {
            if is_another || self.facts.born.is_some_and(|born| by < born) {
                return Some((GapReason::Deleted, self.oldest(), start, None));
            }
            if by > self.facts.last_given {
                // Lost by the backend, as after a failover.
                return Some((GapReason::Reset, self.oldest(), start, None));
            }
        }
        let removed = self.facts.removed;
        (removed != Some(0)).then(|| (GapReason::Trimmed, self.oldest(), start, removed))
    }

    /// Judges a cursor in front of everything that is kept, whose message may have been removed.
    fn judge_removed(&self, is_place: bool) -> Option<Told> {
        let Facts { removed, last_removed, .. } = *self.facts;
        if removed == Some(0) {
            // Its message was never here: the reader made the cursor up, or had it from another topic.
            return (!is_place).then(|| self.starts_over(GapReason::Reset));
        }
        let to = self.oldest();
        if last_removed.is_some_and(|removed| self.cursor >= removed) || self.cursor.next() == Some(to) {
            return None;
        }
        // Messages go from the old end in their order, so those that went after the cursor's are as
        // many as went beyond its own number.
        let Facts { deleted, deleted_behind, .. } = *self.facts;
        let missed = removed
            .zip(self.given_before())
            .map(|(removed, before)| (removed + deleted).saturating_sub(before + deleted_behind));
        (missed != Some(0)).then_some((GapReason::Trimmed, to, Some(self.cursor), missed))
    }

    /// Judges what lies ahead of a cursor whose own message is accounted for.
    fn judge_ahead(&self) -> Option<Told> {
        let to = self.behind.first.unwrap_or_else(|| self.after_last());
        let gone = |missed| Some((GapReason::Trimmed, to, Some(self.cursor), missed));
        let counted = self.given_before().zip(self.facts.given).zip(self.behind.count);
        let Some(((before, given), kept)) = counted else {
            return if self.has_passed_a_hole() { gone(None) } else { None };
        };
        match given.checked_sub(before + kept + self.facts.deleted_behind) {
            Some(0) => None,
            missed @ Some(_) => gone(missed),
            // The topic was given fewer than the reader has got of it.
            None => Some(self.starts_over(GapReason::Reset)),
        }
    }

    /// Whether somebody has taken out a message that this read would have come by. One further on is told by
    /// the read that comes there.
    fn has_passed_a_hole(&self) -> bool {
        let is_passed = |at| self.behind.count.is_some() || self.behind.last > Some(at);
        self.facts.taken_out.is_some_and(|at| at > self.cursor && is_passed(at))
    }

    /// Tells that the backend has lost the newest messages, up to `left`. Who knows that it is the same
    /// topic has got what is left; everybody else begins at the oldest, so that nothing is passed over.
    fn lost(&self, left: MessageId) -> Told {
        let is_same = matches!(
            (self.reader, self.facts.epoch),
            (Reader::Follows { epoch: Epoch::Marked(known), .. }, Epoch::Marked(now)) if known == now
        );
        if !is_same {
            return self.starts_over(GapReason::Reset);
        }
        let to = if left == self.cursor {
            self.cursor.next().unwrap_or(MessageId::MAX)
        } else {
            self.after_last()
        };
        (GapReason::Reset, to, Some(left), None)
    }

    fn starts_over(&self, reason: GapReason) -> Told {
        (reason, self.oldest(), None, None)
    }

    /// Whether it is known why there is no message of this id: it stands between two, as those that are made of
    /// times do, and those that are handed out behind a gap; or its message was taken out.
    fn is_place(&self) -> bool {
        let next = self.cursor.next();
        self.cursor.seq == u64::MAX
            || next == self.behind.first
            || next == self.facts.born
            || self.facts.is_deleted
            || self.facts.taken_out == Some(self.cursor)
    }

    /// Returns which message of the topic the cursor's is, where the reader counts.
    fn given_before(&self) -> Option<u64> {
        if let Reader::Follows { given, .. } = self.reader { given } else { None }
    }

    fn oldest(&self) -> MessageId {
        self.facts.first.unwrap_or_else(|| self.after_last())
    }

    fn after_last(&self) -> MessageId {
        self.facts.last_given.next().unwrap_or(MessageId::MAX)
    }
}
