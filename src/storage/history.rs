//! What a topic's history proves about a cursor: whether messages that its reader did not get are
//! gone.
//!
//! Both backends gather the [`Facts`] and judge by the same rules, so a reader is told the same by
//! both. A gap is reported where messages may be missing and nothing proves that none is; never
//! where a rule below proves it.

use tidemill_proto::{Gap, GapReason, MessageId, TopicName};

use super::Reader;

/// What a backend knows of a topic's history.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// The oldest kept message.
    pub(super) first: Option<MessageId>,
    /// The last id that the topic has given; its message need not be kept.
    pub(super) last_given: MessageId,
    /// The smallest id that this topic can give. The one right before it is no message's: there stands
    /// who was told that this is a new topic. Those of a topic of the same name that was deleted before
    /// are smaller still. `None` where nobody wrote it down.
    pub(super) born: Option<MessageId>,
    /// How many messages were ever removed from this topic, all from its old end; `None` where that
    /// is not known, or where some were removed from between others.
    pub(super) removed: Option<u64>,
    /// The newest removed message, where the backend knows it.
    pub(super) last_removed: Option<MessageId>,
}

/// What became of what lies behind a cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// What to tell the reader.
    pub(super) gap: Gap,
    /// Where the reader goes on.
    pub(super) resume: Option<MessageId>,
}

impl Facts {
    /// Judges a cursor whose message is not kept; `None` proves that nothing is missing.
    pub(super) fn judge(&self, topic: &TopicName, cursor: MessageId, reader: Reader) -> Option<Verdict> {
        let after_last = self.last_given.next().unwrap_or(MessageId::MAX);
        let after_cursor = cursor.next().unwrap_or(MessageId::MAX);
        let to = self.first.unwrap_or(after_last);
        let verdict = |reason, to, resume| {
            let gap = Gap { topic: topic.clone(), from: cursor, to, reason, missed: None };
            Some(Verdict { gap, resume })
        };
        if let Reader::PassedOver(by) = reader {
            let is_of_earlier = match self.born {
                Some(born) => by < born,
                // Nobody wrote it down; but nothing of this one is gone, and all of it is later.
                None => self.removed == Some(0) && self.first > Some(by),
            };
            if is_of_earlier {
                return verdict(GapReason::Deleted, to, Some(cursor));
            }
            if by > self.last_given {
                // Lost by the backend, as after a failover.
                return verdict(GapReason::Reset, to, Some(cursor));
            }
        }
        if cursor == MessageId::MIN {
            // Who stands before every message has missed each one that is gone.
            let mut verdict = verdict(GapReason::Trimmed, to, Some(cursor))?;
            verdict.gap.missed = self.removed;
            return (self.removed != Some(0)).then_some(verdict);
        }
        if self.born.is_some_and(|born| cursor.next().is_some_and(|next| next < born)) {
            return verdict(GapReason::Deleted, to, Some(cursor));
        }
        if cursor > self.last_given {
            // The reader has seen messages of this very topic that the backend no longer has, as
            // after a failover: it goes on behind the newest that is left. Where nobody knows that it
            // is the same topic, it goes on at the oldest, so that nothing is passed over.
            return match self.born {
                Some(_) => verdict(GapReason::Reset, after_last, Some(self.last_given)),
                None => verdict(GapReason::Reset, to, None),
            };
        }
        if self.first.is_some_and(|first| cursor > first) {
            // Between kept messages nothing is ever trimmed. Who counts has seen what is not there: the
            // backend has lost it, and others have come since.
            return match reader {
                Reader::SeenAs(_) if self.removed.is_some() => {
                    verdict(GapReason::Reset, after_cursor, Some(cursor))
                }
                _ => None,
            };
        }
        if self.removed == Some(0) {
            // The message of this cursor was never here. In a topic whose beginning is known, the
            // reader made the cursor up; else it may come from another topic of the same name.
            return match self.born {
                Some(_) => None,
                None => verdict(GapReason::Reset, to, Some(cursor)),
            };
        }
        if self.last_removed.is_some_and(|removed| cursor >= removed) || cursor.next() == Some(to) {
            return None;
        }
        // Messages go from the old end in their order, so those that went after the cursor's are as
        // many as went beyond its own number.
        let seen_as = if let Reader::SeenAs(count) = reader { Some(count) } else { None };
        let missed = self.removed.zip(seen_as).map(|(removed, seen_as)| removed.saturating_sub(seen_as));
        let mut verdict = verdict(GapReason::Trimmed, to, Some(cursor))?;
        verdict.gap.missed = missed;
        (missed != Some(0)).then_some(verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn id(ms: u64) -> MessageId {
        MessageId::new(ms, 0)
    }

    const TRIMMED: Facts = Facts {
        first: Some(id(50)),
        last_given: id(90),
        born: Some(id(10)),
        removed: Some(4),
        last_removed: None,
    };

    fn judged(facts: Facts, cursor: MessageId) -> Option<(GapReason, MessageId, Option<MessageId>)> {
        let topic = TopicName::parse("t").expect("a valid name");
        facts.judge(&topic, cursor, Reader::Seen).map(|verdict| {
            assert_eq!(verdict.gap.from, cursor);
            (verdict.gap.reason, verdict.gap.to, verdict.resume)
        })
    }

    #[test]
    fn a_cursor_before_the_oldest_message_may_have_missed_some() {
        assert_eq!(judged(TRIMMED, id(20)), Some((GapReason::Trimmed, id(50), Some(id(20)))));
        let emptied = Facts { first: None, ..TRIMMED };
        assert_eq!(judged(emptied, id(20)), Some((GapReason::Trimmed, MessageId::new(90, 1), Some(id(20)))));
    }

    #[test]
    fn nothing_is_missing_where_it_can_be_proved() {
        assert_eq!(judged(TRIMMED, id(60)), None, "between kept messages");
        assert_eq!(judged(TRIMMED, MessageId::new(49, u64::MAX)), None, "the next id is kept");
        assert_eq!(judged(Facts { first: None, ..TRIMMED }, id(90)), None, "the last id given");
        assert_eq!(
            judged(Facts { last_removed: Some(id(20)), ..TRIMMED }, id(20)),
            None,
            "the newest removed"
        );
        assert_eq!(judged(Facts { removed: Some(0), ..TRIMMED }, id(20)), None, "nothing was ever removed");
    }

    #[test]
    fn who_counts_knows_what_was_missed() {
        let topic = TopicName::parse("t").expect("a valid name");
        let missed = |facts: Facts, seen_as| {
            facts.judge(&topic, id(20), Reader::SeenAs(seen_as)).map(|verdict| verdict.gap.missed)
        };
        assert_eq!(missed(TRIMMED, 1), Some(Some(3)));
        assert_eq!(missed(TRIMMED, 4), None, "the newest removed was the reader's own");
        assert_eq!(missed(Facts { removed: None, ..TRIMMED }, 4), Some(None));
        let lost = |facts: Facts| facts.judge(&topic, id(60), Reader::SeenAs(9)).map(|it| it.gap.reason);
        assert_eq!(lost(TRIMMED), Some(GapReason::Reset), "seen, and not there among others");
        assert_eq!(lost(Facts { removed: None, ..TRIMMED }), None, "somebody deleted single messages");
        let from_nothing =
            |facts: Facts| facts.judge(&topic, MessageId::MIN, Reader::Seen).map(|it| it.gap.missed);
        assert_eq!(from_nothing(TRIMMED), Some(Some(4)), "there since before the first message");
        assert_eq!(from_nothing(Facts { removed: Some(0), ..TRIMMED }), None);
    }

    #[test]
    fn who_was_passed_over_is_told_what_went_with_an_earlier_topic() {
        let topic = TopicName::parse("t").expect("a valid name");
        let judged = |facts: Facts, by| {
            let verdict = facts.judge(&topic, MessageId::MIN, Reader::PassedOver(id(by)));
            verdict.map(|verdict| (verdict.gap.reason, verdict.gap.missed, verdict.resume))
        };
        let start = Some(MessageId::MIN);
        assert_eq!(judged(TRIMMED, 9), Some((GapReason::Deleted, None, start)));
        assert_eq!(judged(TRIMMED, 60), Some((GapReason::Trimmed, Some(4), start)));
        assert_eq!(judged(TRIMMED, 91), Some((GapReason::Reset, None, start)));
        let whole = Facts { removed: Some(0), ..TRIMMED };
        assert_eq!((judged(whole, 10), judged(whole, 90)), (None, None), "of this very topic");
        let foreign = Facts { born: None, ..whole };
        assert_eq!(judged(foreign, 49), Some((GapReason::Deleted, None, start)));
        assert_eq!(judged(foreign, 50), None);
    }

    #[test]
    fn a_cursor_of_an_earlier_topic_of_the_name_is_told() {
        assert_eq!(judged(TRIMMED, id(9)), Some((GapReason::Deleted, id(50), Some(id(9)))));
        // Whom this was told stands before the first id that the topic can give, and is told no more.
        let before = id(10).previous().expect("an id");
        let empty =
            Facts { first: None, last_given: before, removed: Some(0), last_removed: None, ..TRIMMED };
        assert_eq!(judged(empty, id(9)), Some((GapReason::Deleted, id(10), Some(id(9)))));
        assert_eq!(judged(empty, before), None);
        let filled = Facts { first: Some(id(20)), last_given: id(30), ..empty };
        assert_eq!(judged(filled, before), None);
        let foreign = Facts { born: None, removed: Some(0), ..TRIMMED };
        assert_eq!(judged(foreign, id(9)), Some((GapReason::Reset, id(50), Some(id(9)))));
    }

    #[test]
    fn a_cursor_past_the_end_is_reset() {
        assert_eq!(judged(TRIMMED, id(91)), Some((GapReason::Reset, MessageId::new(90, 1), Some(id(90)))));
        let foreign = Facts { born: None, ..TRIMMED };
        assert_eq!(judged(foreign, id(91)), Some((GapReason::Reset, id(50), None)));
    }
}
