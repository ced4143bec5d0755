//! What a topic's history proves about a cursor: whether messages that its reader did not get are
//! gone.
//!
//! Both backends gather the [`Facts`] and judge by the same rules, so a reader is told the same by
//! both. A gap is reported where messages may be missing and nothing proves that none is; never
//! where a rule below proves it. The table of what is told stands in the contract (`storage::reading`).

use tidemill_proto::{Gap, GapReason, MessageId, TopicName};

use super::latest::Untold;
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
    /// Of a topic that is compacted: what is gone of which its latest messages have no trace.
    pub(super) untold: Option<Untold>,
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
        let removed = self.facts.removed;
        (removed != Some(0)).then(|| (GapReason::Trimmed, self.oldest(), start, removed))
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
        let Facts { deleted, deleted_behind, .. } = *self.facts;
        let counted = removed.zip(self.given_before());
        let missed =
            counted.map(|(removed, before)| (removed + deleted).checked_sub(before + deleted_behind));
        let Some(missed) = missed.map_or(Some(None), |missed| missed.map(Some)) else {
            // Fewer are gone than were given up to the cursor, and none of those is there.
            return Some(self.starts_over(GapReason::Reset));
        };
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
mod tests {
    use super::*;

    const fn id(ms: u64) -> MessageId {
        MessageId::new(ms, 0)
    }

    const EPOCH: Epoch = Epoch::Marked(1);
    const TRIMMED: Facts = Facts {
        epoch: EPOCH,
        first: Some(id(50)),
        last_given: id(90),
        born: Some(id(10)),
        given: Some(10),
        removed: Some(4),
        deleted: 0,
        last_removed: None,
        taken_out: None,
        is_deleted: false,
        deleted_behind: 0,
        deleted_in_front: 0,
        untold: None,
    };
    const FOREIGN: Facts = Facts { epoch: Epoch::Unmarked, born: None, ..TRIMMED };

    fn verdict(facts: Facts, cursor: MessageId, gap_check: GapCheck, behind: Behind) -> Option<Verdict> {
        let topic = TopicName::parse("t").expect("a valid name");
        let verdict = facts.judge(&topic, cursor, gap_check, behind);
        assert!(verdict.iter().all(|verdict| verdict.gap.from == cursor));
        verdict
    }

    /// Judges a cursor whose message is not kept, in a page that does not come to the end.
    fn judged_as(
        facts: Facts,
        cursor: MessageId,
        gap_check: GapCheck,
    ) -> Option<(GapReason, MessageId, Option<MessageId>)> {
        let behind = Behind { first: facts.first.filter(|first| *first > cursor), ..Behind::default() };
        let verdict = verdict(facts, cursor, gap_check, behind);
        verdict.map(|verdict| (verdict.gap.reason, verdict.gap.to, verdict.resume))
    }

    fn judged(facts: Facts, cursor: MessageId) -> Option<(GapReason, MessageId, Option<MessageId>)> {
        judged_as(facts, cursor, GapCheck::Seen)
    }

    #[test]
    fn a_cursor_before_the_oldest_message_may_have_missed_some() {
        assert_eq!(judged(TRIMMED, id(20)), Some((GapReason::Trimmed, id(50), Some(id(20)))));
        let emptied = Facts { first: None, ..TRIMMED };
        assert_eq!(judged(emptied, id(20)), Some((GapReason::Trimmed, MessageId::new(90, 1), Some(id(20)))));
    }

    #[test]
    fn nothing_is_missing_where_it_can_be_proved() {
        let kept = Behind { is_kept: true, ..Behind::default() };
        assert_eq!(verdict(TRIMMED, id(60), GapCheck::Seen, kept), None, "it is kept");
        assert_eq!(judged(TRIMMED, MessageId::new(49, u64::MAX)), None, "the next id is kept");
        assert_eq!(judged(TRIMMED, end_of(60)), None, "the end of a time");
        assert_eq!(judged(Facts { first: None, ..TRIMMED }, id(90)), None, "the last id given");
        assert_eq!(
            judged(Facts { last_removed: Some(id(20)), ..TRIMMED }, id(20)),
            None,
            "the newest removed"
        );
        let whole = Facts { removed: Some(0), ..TRIMMED };
        assert_eq!(judged(whole, end_of(20)), None, "nothing was ever removed");
    }

    #[test]
    fn a_cursor_that_was_never_given_begins_anew() {
        let anew = Some((GapReason::Reset, id(50), None));
        assert_eq!(judged(TRIMMED, id(60)), anew, "between kept messages nothing is trimmed");
        assert_eq!(judged(Facts { removed: Some(0), ..TRIMMED }, id(20)), anew);
        let old = Facts { given: None, removed: None, ..FOREIGN };
        assert_eq!(judged(old, id(60)), None, "a server that counts nothing cannot know");
    }

    #[test]
    fn a_place_in_front_of_a_message_proves_that_this_one_is_there() {
        let in_front = |ms| id(ms).previous().expect("a place");
        let anew = Some((GapReason::Reset, id(50), None));
        let whole = Facts { removed: Some(0), born: None, ..TRIMMED };
        assert_eq!(judged(whole, in_front(50)), None);
        for ms in [20, 49, 60, 90] {
            assert_eq!(judged(whole, in_front(ms)), anew, "nothing was ever in front of {ms}");
        }
        assert_eq!(
            judged(Facts { is_deleted: true, ..whole }, in_front(60)),
            None,
            "it was deleted on purpose"
        );
        let trimmed = |to, ms| Some((GapReason::Trimmed, to, Some(in_front(ms))));
        assert_eq!(judged(TRIMMED, in_front(20)), trimmed(id(50), 20), "it went from the old end");
        let emptied = Facts { first: None, removed: Some(10), ..TRIMMED };
        let end = MessageId::new(90, 1);
        assert_eq!(judged(emptied, in_front(10)), trimmed(end, 10), "also where it was the first of all");
    }

    #[test]
    fn who_counts_knows_what_was_missed() {
        let counts = |given| GapCheck::follows(EPOCH, Some(given));
        let missed = |facts: Facts, given| {
            verdict(facts, id(20), counts(given), Behind::default()).map(|verdict| verdict.gap.missed)
        };
        assert_eq!(missed(TRIMMED, 1), Some(Some(3)));
        assert_eq!(missed(TRIMMED, 4), None, "the newest removed was the reader's own");
        assert_eq!(missed(Facts { removed: None, ..TRIMMED }, 4), Some(None));
        let replaced = judged_as(TRIMMED, id(20), counts(5));
        assert_eq!(
            replaced,
            Some((GapReason::Reset, id(50), None)),
            "five were there, of which four are gone"
        );
        let lost = judged_as(TRIMMED, id(60), counts(9));
        assert_eq!(lost, Some((GapReason::Reset, id(50), None)), "it was there");
        let taken_out = Facts { removed: None, taken_out: Some(id(70)), ..TRIMMED };
        assert_eq!(judged_as(taken_out, id(60), counts(9)), None, "somebody has taken out single messages");
        let from_nothing = |facts: Facts| {
            verdict(facts, MessageId::MIN, GapCheck::Seen, Behind::default()).map(|it| it.gap.missed)
        };
        assert_eq!(from_nothing(TRIMMED), Some(Some(4)), "there since before the first message");
        assert_eq!(from_nothing(Facts { removed: Some(0), ..TRIMMED }), None);
    }

    #[test]
    fn a_count_that_disagrees_at_the_end_is_told() {
        let told = |facts: Facts, given, kept| {
            let behind = Behind { is_kept: true, first: Some(id(70)), last: Some(id(90)), count: Some(kept) };
            let verdict = verdict(facts, id(60), GapCheck::follows(EPOCH, Some(given)), behind);
            verdict.map(|verdict| (verdict.gap.reason, verdict.gap.to, verdict.gap.missed, verdict.resume))
        };
        assert_eq!(told(TRIMMED, 6, 4), None);
        let missed = (GapReason::Trimmed, id(70), Some(1), Some(id(60)));
        assert_eq!(told(TRIMMED, 6, 3), Some(missed), "one was taken out ahead");
        assert_eq!(told(Facts { deleted_behind: 1, ..TRIMMED }, 6, 3), None, "by request");
        assert_eq!(told(TRIMMED, 8, 4), Some((GapReason::Reset, id(50), None, None)), "another topic");
    }

    #[test]
    fn what_was_taken_out_ahead_is_told_by_the_read_that_comes_by() {
        let facts = Facts { removed: None, taken_out: Some(id(70)), ..TRIMMED };
        let told = |first: Option<MessageId>, last, count| {
            let behind = Behind { is_kept: true, first, last, count };
            verdict(facts, id(60), GapCheck::Seen, behind).map(|it| (it.gap.reason, it.gap.to, it.resume))
        };
        let gap = |to| Some((GapReason::Trimmed, to, Some(id(60))));
        assert_eq!(told(Some(id(80)), Some(id(80)), None), gap(id(80)));
        let nearer = [None, Some(1)].map(|count| told(Some(id(65)), Some(id(65)), count));
        assert_eq!(nearer, [None, None], "the hole lies behind what was read");
        assert_eq!(told(None, None, Some(0)), gap(MessageId::new(90, 1)), "and is the next");
        let own = Facts { taken_out: Some(id(60)), ..facts };
        assert_eq!(judged(own, id(60)), None, "the reader's own message, and no later one");
        let by_request = Facts { is_deleted: true, ..TRIMMED };
        assert_eq!(judged(by_request, id(60)), None, "it was deleted on purpose");
    }

    #[test]
    fn who_was_passed_over_is_told_what_went_with_an_earlier_topic() {
        let judged = |facts: Facts, epoch, by| {
            let gap_check = GapCheck::Follows { epoch, given: None, knows_of: Some(id(by)) };
            let verdict = verdict(facts, MessageId::MIN, gap_check, Behind::default());
            verdict.map(|verdict| (verdict.gap.reason, verdict.gap.missed, verdict.resume))
        };
        let start = Some(MessageId::MIN);
        assert_eq!(judged(TRIMMED, EPOCH, 9), Some((GapReason::Deleted, None, start)));
        assert_eq!(judged(TRIMMED, EPOCH, 60), Some((GapReason::Trimmed, Some(4), start)));
        assert_eq!(judged(TRIMMED, EPOCH, 91), Some((GapReason::Reset, None, start)));
        let whole = Facts { removed: Some(0), ..TRIMMED };
        assert_eq!((judged(whole, EPOCH, 10), judged(whole, EPOCH, 90)), (None, None), "of this very topic");
        assert_eq!(judged(whole, Epoch::Marked(2), 60), Some((GapReason::Deleted, None, start)));
        let foreign = Facts { removed: Some(0), ..FOREIGN };
        assert_eq!(judged(foreign, EPOCH, 60), Some((GapReason::Deleted, None, start)));
        assert_eq!(judged(foreign, Epoch::Unmarked, 50), None);
    }

    #[test]
    fn a_cursor_of_an_earlier_topic_of_the_name_is_told() {
        assert_eq!(judged(TRIMMED, id(9)), Some((GapReason::Deleted, id(50), None)));
        // Whom this was told stands before the first id that the topic can give, and is told no more.
        let before = id(10).previous().expect("an id");
        let empty = Facts { first: None, last_given: before, removed: Some(0), ..TRIMMED };
        assert_eq!(judged(empty, id(9)), Some((GapReason::Deleted, id(10), None)));
        assert_eq!(judged(empty, before), None);
        let filled = Facts { first: Some(id(20)), last_given: id(30), ..empty };
        assert_eq!(judged(filled, before), None);
        let foreign = Facts { removed: Some(0), ..FOREIGN };
        assert_eq!(judged(foreign, id(9)), Some((GapReason::Reset, id(50), None)));
        // Who follows knows that it is another one, also where the id is kept.
        let kept = Behind { is_kept: true, ..Behind::default() };
        let told = verdict(TRIMMED, id(60), GapCheck::follows(Epoch::Marked(2), None), kept);
        assert_eq!(told.map(|told| (told.gap.reason, told.resume)), Some((GapReason::Reset, None)));
    }

    #[test]
    fn a_cursor_past_the_end_is_reset() {
        assert_eq!(judged(TRIMMED, id(91)), Some((GapReason::Reset, id(50), None)));
        assert_eq!(judged(FOREIGN, id(91)), Some((GapReason::Reset, id(50), None)));
        // Others may have come in the place of what was lost, so what is left proves nothing.
        let follows = GapCheck::follows(EPOCH, None);
        assert_eq!(judged_as(TRIMMED, id(91), follows), Some((GapReason::Reset, id(50), None)));
    }

    #[test]
    fn what_was_set_back_is_told_once() {
        let (last, given) = (MessageId::new(0, 5), Some(0));
        let empty = Facts { first: None, last_given: last, given, removed: Some(0), ..TRIMMED };
        let before = id(10).previous().expect("an id");
        for gap_check in [GapCheck::Seen, GapCheck::follows(EPOCH, Some(6)), GapCheck::follows(EPOCH, None)] {
            assert_eq!(judged_as(empty, id(60), gap_check), Some((GapReason::Reset, id(10), None)));
        }
        for gap_check in [GapCheck::Seen, GapCheck::follows(EPOCH, None)] {
            let later = Facts { first: Some(id(95)), last_given: id(95), given: Some(1), ..empty };
            for facts in [empty, later] {
                assert_eq!(judged_as(facts, before, gap_check), None, "{gap_check:?}");
            }
            // What it gives instead has smaller ids than the topic can have.
            let own = MessageId::new(0, 6);
            let filled = Facts { first: Some(own), last_given: own, given: Some(1), ..empty };
            assert_eq!(judged_as(filled, before, gap_check), Some((GapReason::Reset, own, None)));
            for facts in [filled, Facts { last_given: id(95), ..filled }] {
                let kept = Behind { is_kept: true, ..Behind::default() };
                assert_eq!(verdict(facts, own, gap_check, kept), None, "{gap_check:?}");
            }
        }
    }

    #[test]
    fn what_was_deleted_by_request_in_front_of_the_oldest_is_not_missing() {
        let facts = Facts { first: Some(MessageId::new(50, 3)), ..TRIMMED };
        let told = |seq, deleted_in_front| {
            judged(Facts { deleted_in_front, ..facts }, MessageId::new(50, seq)).is_some()
        };
        assert_eq!((told(0, 2), told(1, 1), told(2, 0)), (false, false, false));
        assert_eq!((told(0, 1), told(0, 0), told(1, 0)), (true, true, true));
        assert!(judged(Facts { deleted_in_front: 3, ..facts }, id(49)).is_some(), "nobody knows how many");
    }

    #[test]
    fn what_is_gone_from_a_compacted_topic_is_told_as_such_where_its_latest_are_kept() {
        let told = |newest: Option<u64>, keyless: Option<u64>, cursor| {
            let untold = Some(Untold { newest: newest.map(id), keyless: keyless.map(id) });
            judged(Facts { untold, ..TRIMMED }, cursor).map(|told| told.0)
        };
        assert_eq!(told(None, None, id(20)), Some(GapReason::Compacted));
        assert_eq!(told(Some(20), Some(20), id(20)), Some(GapReason::Compacted));
        assert_eq!(told(Some(21), None, id(20)), Some(GapReason::Trimmed), "gone without a trace");
        assert_eq!(told(None, Some(60), id(20)), Some(GapReason::Trimmed), "it may be gone, and has no key");
        assert_eq!(told(None, None, id(91)), Some(GapReason::Reset));
    }
}
