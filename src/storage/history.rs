//! What a topic's history proves about a cursor: whether messages that its reader did not get are
//! gone.
//!
//! Both backends gather the [`Facts`] and judge by the same rules, so a reader is told the same by
//! both. A gap is reported where messages may be missing and nothing proves that none is; never
//! where a rule below proves it. The table of what is told stands in the contract (`storage::reading`).

use tidemill_proto::{Gap, GapReason, MessageId, TopicName};

use super::{Epoch, GapCheck, end_of};

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
    /// How many of these in front of the oldest that is kept, or at all where none is.
    pub(super) deleted_in_front: u64,
    /// How many more were deleted by request, of which nobody knows which they were; and how many of these lay behind the
    /// cursor, where that can be told.
    pub(super) forgotten: u64,
    pub(super) forgotten_behind: Option<u64>,
    /// Of a topic that is compacted: what is gone of which its latest messages have no trace.
    pub(super) untold: Option<Untold>,
    /// The first hole that ends behind the cursor, and whether one ends just there.
    pub(super) hole: Option<Hole>,
    pub(super) is_behind_hole: bool,
}

/// Where the backend has lost messages that it had confirmed: behind the one id, up to the other. Between them nothing is
/// left, and nothing can come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hole {
    pub(super) from: MessageId,
    pub(super) to: MessageId,
}

/// Messages that were deleted by request and that lie in front of all that is kept, as others do that were removed: of them
/// it is remembered how many they are, the oldest, and the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forgotten {
    pub(super) count: u64,
    pub(super) from: MessageId,
    pub(super) to: MessageId,
}

impl Forgotten {
    pub(super) const NONE: Self = Self { count: 0, from: MessageId::MIN, to: MessageId::MIN };

    /// Returns how many of them lie behind a cursor, where that can be told.
    pub(super) fn behind(self, cursor: MessageId) -> Option<u64> {
        if self.count == 0 || cursor >= self.to {
            Some(0)
        } else {
            (cursor < self.from).then_some(self.count)
        }
    }
}

impl Hole {
    /// Returns those that end behind a cursor, in their order, and whether one ends just there.
    pub(super) fn behind(mut holes: Vec<Self>, cursor: MessageId) -> (Vec<Self>, bool) {
        let ends_there = holes.iter().any(|hole| hole.to == cursor);
        holes.retain(|hole| hole.to > cursor);
        holes.sort_unstable_by_key(|hole| hole.to);
        (holes, ends_there)
    }

    /// Whether a reader of messages in their order who has looked at the one id comes to the other across this.
    pub(super) fn lies_between(self, after: Option<MessageId>, id: MessageId) -> bool {
        id > self.to && after.is_none_or(|after| after < self.to)
    }
}

/// What of a topic is gone for good, of which the table has no trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Untold {
    /// The newest message of which that is so, whatever its key: the table began behind it, or it was dropped from there.
    pub(super) newest: Option<MessageId>,
    /// The newest message without a key. Where it is gone from the log, it is gone.
    pub(super) keyless: Option<MessageId>,
}

impl Untold {
    /// Whether of all that is gone behind a cursor, the table has the latest of its key.
    pub(super) fn tells_behind(self, cursor: MessageId) -> bool {
        self.newest.max(self.keyless).is_none_or(|gone| gone <= cursor)
    }
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
        gap_check: GapCheck,
        behind: Behind,
    ) -> Option<Verdict> {
        let judged = Judged { facts: self, cursor, gap_check, behind };
        let (mut reason, to, resume, missed) = judged.judge()?;
        if reason == GapReason::Trimmed && self.untold.is_some_and(|untold| untold.tells_behind(cursor)) {
            reason = GapReason::Compacted;
        }
        Some(Verdict { gap: Gap { topic: topic.clone(), from: cursor, to, reason, missed }, resume })
    }

    /// Returns the smallest id that this topic can give. Where somebody has set the topic back, it gives others.
    fn valid_born(&self) -> Option<MessageId> {
        let is_kept_to = |born: &MessageId| {
            self.first.is_none_or(|first| first >= *born)
                && self.last_given.next().is_none_or(|next| next >= *born)
        };
        self.born.filter(is_kept_to)
    }
}

/// Reason, end, where to go on, and how many were missed.
type Told = (GapReason, MessageId, Option<MessageId>, Option<u64>);

/// A cursor while it is judged.
struct Judged<'a> {
    facts: &'a Facts,
    cursor: MessageId,
    gap_check: GapCheck,
    behind: Behind,
}

impl Judged<'_> {
    fn judge(&self) -> Option<Told> {
        let Facts { epoch, first, last_given, .. } = *self.facts;
        let born = self.facts.valid_born();
        let (is_another, is_same) = match self.gap_check {
            GapCheck::Follows { epoch: known, .. } => {
                (!known.may_be(epoch), known == epoch && epoch != Epoch::Unmarked)
            }
            GapCheck::None | GapCheck::Epoch | GapCheck::Seen => (false, false),
        };
        if self.cursor == MessageId::MIN {
            return self.judge_start(is_another);
        }
        let is_before = born.is_some_and(|born| self.cursor.next().is_some_and(|next| next < born));
        // Who knows that it is the same topic has its cursor from there, whatever was done to it.
        if is_before && !is_same {
            return Some(self.starts_over(GapReason::Deleted));
        }
        if is_another {
            return Some(self.starts_over(GapReason::Reset));
        }
        if let Some(told) = self.judge_hole() {
            return Some(told);
        }
        if self.behind.is_kept {
            return self.judge_ahead();
        }
        // Somebody has set back the topic, and the reader was told.
        let is_told = first.is_none() && self.cursor > last_given && self.cursor.next() == self.facts.born;
        if self.cursor == last_given || is_told {
            // Nothing came after it.
            return self.judge_ahead();
        }
        if self.cursor > last_given {
            return Some(self.starts_over(GapReason::Reset));
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
            _ => Some(self.starts_over(GapReason::Reset)),
        }
    }

    /// Judges a reader that was there before the first message, or has got none: it has missed each one that
    /// is gone.
    fn judge_start(&self, is_another: bool) -> Option<Told> {
        let start = Some(MessageId::MIN);
        if let GapCheck::Follows { knows_of: Some(by), .. } = self.gap_check {
            if is_another || self.facts.valid_born().is_some_and(|born| by < born) {
                return Some((GapReason::Deleted, self.oldest(), start, None));
            }
            if by > self.facts.last_given {
                // Lost by the backend, as after a failover.
                return Some((GapReason::Reset, self.oldest(), start, None));
            }
        }
        if let Some(told) = self.judge_hole() {
            return Some(told);
        }
        let removed = self.facts.removed;
        (removed != Some(0)).then(|| (GapReason::Trimmed, self.oldest(), start, removed))
    }

    /// Judges what the backend has lost. What is left in front of the hole comes first.
    fn judge_hole(&self) -> Option<Told> {
        let hole = self.facts.hole?;
        let is_next = self.cursor >= hole.from || self.behind.first.is_some_and(|first| first > hole.to);
        let to = hole.to.next().unwrap_or(MessageId::MAX);
        is_next.then_some((GapReason::Reset, to, Some(hole.to), None))
    }

    /// Judges a cursor in front of everything that is kept, whose message may have been removed.
    fn judge_removed(&self, is_place: bool) -> Option<Told> {
        let Facts { removed, last_removed, .. } = *self.facts;
        if removed == Some(0) {
            // Its message was never here: the reader made the cursor up, or had it from another topic. One that counts
            // and has been given none, as behind a topic that was set back, misses none.
            let is_known = is_place || self.given_before() == Some(0);
            return (!is_known).then(|| self.starts_over(GapReason::Reset));
        }
        let to = self.oldest();
        if last_removed.is_some_and(|removed| self.cursor >= removed) || self.were_deleted_up_to(to) {
            return None;
        }
        // Messages go from the old end in their order, so those that went after the cursor's are as
        // many as went beyond its own number.
        let Facts { deleted, forgotten, .. } = *self.facts;
        let counted = removed.zip(self.given_before());
        let missed = counted.map(|(removed, before)| {
            (removed + deleted + forgotten).checked_sub(before + self.deleted_behind())
        });
        let Some(missed) = missed.map_or(Some(None), |missed| missed.map(Some)) else {
            // Fewer are gone than were given up to the cursor, and none of those is there.
            return Some(self.starts_over(GapReason::Reset));
        };
        (missed != Some(0)).then(|| (GapReason::Trimmed, to, Some(self.cursor), self.told(missed)))
    }

    /// Judges what lies ahead of a cursor whose own message is accounted for.
    fn judge_ahead(&self) -> Option<Told> {
        let to = self.behind.first.unwrap_or_else(|| self.after_last());
        let gone = |missed| Some((GapReason::Trimmed, to, Some(self.cursor), self.told(missed)));
        let counted = self.given_before().zip(self.facts.given).zip(self.behind.count);
        let Some(((before, given), kept)) = counted else {
            return if self.has_passed_a_hole() { gone(None) } else { None };
        };
        match given.checked_sub(before + kept + self.deleted_behind()) {
            Some(0) => None,
            missed @ Some(_) => gone(missed),
            // It has got what was lost since: what comes is behind that.
            None if self.facts.is_behind_hole => Some((GapReason::Reset, to, Some(self.cursor), None)),
            // The topic was given fewer than the reader has got of it.
            None => Some(self.starts_over(GapReason::Reset)),
        }
    }

    /// Whether somebody has taken out a message that this read has come by, or would be the next to come to. One
    /// further on is told by the read that comes there.
    fn has_passed_a_hole(&self) -> bool {
        let Behind { last, count, .. } = self.behind;
        let is_passed = |at| last.map_or(count.is_some(), |last| last > at);
        self.facts.taken_out.is_some_and(|at| at > self.cursor && is_passed(at))
    }

    /// Whether there was no message between the cursor and this id that was not deleted by request: where each
    /// id there is one that was.
    fn were_deleted_up_to(&self, to: MessageId) -> bool {
        self.cursor.next().is_none_or(|next| {
            next.ms == to.ms && to.seq.checked_sub(next.seq) == Some(self.facts.deleted_in_front)
        })
    }

    /// Returns how many are known to lie behind the cursor that were deleted by request.
    fn deleted_behind(&self) -> u64 {
        self.facts.deleted_behind + self.facts.forgotten_behind.unwrap_or_default()
    }

    /// Returns how many were missed, where none of them may have been deleted by request.
    fn told(&self, missed: Option<u64>) -> Option<u64> {
        missed.filter(|_| self.facts.forgotten_behind.is_some())
    }

    fn starts_over(&self, reason: GapReason) -> Told {
        (reason, self.oldest(), None, None)
    }

    /// Whether it is known why there is no message of this id: its message was taken out; or it was handed out
    /// as the place in front of a message, and that one stands there still, or was deleted by request; or it is
    /// the end of a time.
    fn is_place(&self) -> bool {
        let next = self.cursor.next();
        self.cursor == end_of(self.cursor.ms)
            || next == self.behind.first
            || next == self.facts.born
            || self.facts.is_deleted
            || self.facts.taken_out == Some(self.cursor)
            || self.facts.is_behind_hole
    }

    /// Returns which message of the topic the cursor's is, where the reader counts.
    fn given_before(&self) -> Option<u64> {
        if let GapCheck::Follows { given, .. } = self.gap_check { given } else { None }
    }

    /// Returns the oldest message, or the smallest id that the next one can have.
    fn oldest(&self) -> MessageId {
        self.facts.first.unwrap_or_else(|| self.after_last().max(self.facts.born.unwrap_or(MessageId::MIN)))
    }

    fn after_last(&self) -> MessageId {
        self.facts.last_given.next().unwrap_or(MessageId::MAX)
    }
}

#[cfg(test)]
mod tests;
