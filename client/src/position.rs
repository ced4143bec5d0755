//! Where a reader of one topic stands, and what it has had already.
//!
//! It must not know connections.

use tidemill_proto::{Cursor, Gap, GapReason, MessageId, Since};

/// Where a reader of one topic stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    /// The words to subscribe with.
    since: Since,
    /// Nothing up to here is passed on.
    passed: Option<MessageId>,
    /// The end of the gap that was passed on last, until a message is.
    gap_to: Option<MessageId>,
}

impl Position {
    pub(crate) const fn new(since: Since) -> Self {
        Self { since, passed: None, gap_to: None }
    }

    /// Returns the words that go on from here.
    pub(crate) const fn since(&self) -> Since {
        self.since
    }

    /// Takes over where the relay says that reading starts, so that words which mean another place
    /// tomorrow hold this one.
    pub(crate) fn start(&mut self, cursor: MessageId) {
        if !matches!(self.since, Since::Cursor(Cursor::After(_))) {
            self.since = Since::Cursor(Cursor::After(cursor));
        }
    }

    /// Returns whether a message is to be passed on, and stands behind it if so.
    pub(crate) fn pass(&mut self, id: MessageId) -> bool {
        if Some(id) <= self.passed {
            return false;
        }
        *self = Self { since: Since::Cursor(Cursor::After(id)), passed: Some(id), gap_to: None };
        true
    }

    /// Returns whether a gap is to be passed on, and stands behind it if so.
    pub(crate) fn pass_gap(&mut self, gap: &Gap) -> bool {
        let trimmed = gap.reason.goes_on();
        // A relay told again where we stand, or where we stood before, knows no better than to tell the same gap
        // again.
        if trimmed && self.gap_to.max(self.passed).is_some_and(|to| gap.to <= to) {
            return false;
        }
        let resume = match gap.reason {
            GapReason::Trimmed | GapReason::Compacted => self.passed.max(gap.to.previous()),
            // Nothing is there yet: whatever comes is new.
            GapReason::Deleted if gap.from.next() == Some(gap.to) => None,
            GapReason::Deleted | GapReason::Reset => gap.to.previous(),
        };
        let cursor = resume.map_or(Cursor::Earliest, Cursor::After);
        *self = Self { since: Since::Cursor(cursor), passed: resume, gap_to: Some(gap.to) };
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidemill_proto::{Timestamp, TopicName};

    use super::*;

    const fn id(ms: u64) -> MessageId {
        MessageId::new(ms, 0)
    }

    fn gap(from: u64, to: u64, reason: GapReason) -> Gap {
        let topic = TopicName::parse("t").expect("a valid name");
        Gap { topic, from: id(from), to: id(to), reason, missed: None }
    }

    #[test]
    fn words_hold_the_place_that_they_meant_at_first() {
        let words = [
            Since::Cursor(Cursor::Earliest),
            Since::Cursor(Cursor::Latest),
            Since::Ago(Duration::from_secs(10)),
            Since::Time(Timestamp::from_millis(7)),
        ];
        for since in words {
            let mut position = Position::new(since);
            position.start(id(5));
            assert_eq!(position.since(), Since::Cursor(Cursor::After(id(5))), "{since}");
            position.start(id(9));
            assert_eq!(position.since(), Since::Cursor(Cursor::After(id(5))), "{since}, told again");
        }
    }

    #[test]
    fn nothing_is_passed_on_twice() {
        let mut position = Position::new(Since::Cursor(Cursor::Earliest));
        assert!(position.pass(id(5)));
        assert!(!position.pass(id(5)) && !position.pass(id(4)));
        assert!(position.pass_gap(&gap(5, 9, GapReason::Trimmed)));
        assert_eq!(position.since(), Since::Cursor(Cursor::After(MessageId::new(8, u64::MAX))));
        assert!(!position.pass_gap(&gap(5, 9, GapReason::Trimmed)));
        assert!(position.pass_gap(&gap(5, 12, GapReason::Trimmed)), "more is gone");
        assert!(position.pass(id(12)));
        assert!(!position.pass_gap(&gap(5, 12, GapReason::Trimmed)), "what follows it was passed on");
    }

    #[test]
    fn a_topic_that_begins_anew_is_read_anew() {
        let mut position = Position::new(Since::Cursor(Cursor::Earliest));
        assert!(position.pass(id(50)));
        assert!(position.pass_gap(&gap(50, 5, GapReason::Reset)));
        assert!(position.pass(id(5)));
        let after = id(5).next().expect("there is one");
        let deleted = Gap { to: after, ..gap(5, 0, GapReason::Deleted) };
        assert!(position.pass_gap(&deleted));
        assert_eq!(position.since(), Since::Cursor(Cursor::Earliest));
        assert!(position.pass(id(2)));
    }
}
