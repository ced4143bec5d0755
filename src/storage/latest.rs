//! Topics whose messages replace each other: of each key the latest stays, also where the topic keeps no message as old.
//!
//! The key of a message is the text in one field of its metadata, which the topic names (`compact_by`). Messages stand in
//! the topic's log as in any other, and go from its old end; beside it stands a table with the latest message of each key.
//! Nothing is taken out from between others in the log: one key that lives on would keep what lies around it.
//!
//! A message without a payload, or whose payload is `null`, says that its key is gone. It stays in the table for a day,
//! for those who come back to it.

use std::time::Duration;

use tidemill_proto::{Gap, GapReason, MessageId, json};

use super::history::{Untold, Verdict};
use super::message::Body;
use super::reading::GapCheck;

/// How long it stays that a key is gone. Who comes back later is told that something is missing.
pub(super) const GONE_KEPT: Duration = Duration::from_hours(24);

/// Which of the latest messages to read.
#[derive(Clone, Copy, Debug)]
pub struct LatestRange {
    /// The id to go on from, itself excluded; `None` is from the start.
    pub after: Option<MessageId>,
    /// What is to be told of what is missing behind it.
    pub gap_check: GapCheck,
    /// Whether the reader goes on with what it has begun to read within the last day: what has gone since is nothing to it.
    pub goes_on: bool,
    /// Most messages; at least 1.
    pub limit: usize,
    /// Payload and metadata bytes after which to stop early; the first message is always returned.
    pub bytes_max: usize,
}

impl LatestRange {
    /// Whether its reader is to be told what is missing behind its cursor.
    pub(super) const fn is_told(&self) -> bool {
        matches!(self.gap_check, GapCheck::Seen | GapCheck::Follows { .. })
    }

    /// Judges its cursor by what somebody who reads all messages would be told there, and by what is gone without a
    /// trace; `to` is the first message behind it, or the next that there can be. `None` where nothing is missing.
    pub(super) fn judge(&self, plain: Option<Gap>, untold: Untold, to: MessageId) -> Option<Verdict> {
        let cursor = self.after.filter(|_| self.is_told())?;
        let plain = plain?;
        if !plain.reason.goes_on() {
            return Some(Verdict { gap: plain, resume: None });
        }
        // What has gone from the old end is no matter else: the table tells of it.
        let is_missing =
            !self.goes_on && cursor > MessageId::MIN && untold.newest.is_some_and(|gone| gone > cursor);
        is_missing.then(|| {
            let gap = Gap { to, reason: GapReason::Trimmed, missed: None, ..plain };
            Verdict { gap, resume: Some(cursor) }
        })
    }
}

/// Returns the key of a message with this metadata: the text in the field. `None` where there is none.
pub(crate) fn key_of(field: &str, metadata: Option<&[u8]>) -> Option<String> {
    json::text_in(metadata?, field)
}

/// Whether a message says that its key is gone.
pub(super) fn says_gone(body: &Body) -> bool {
    body.payload.is_empty() || (body.content_type.is_none() && body.payload.trim_ascii() == b"null")
}

#[cfg(test)]
mod tests {
    use tidemill_proto::TopicName;

    use super::*;
    use crate::storage::Epoch;

    #[test]
    fn a_key_is_a_text_in_the_field_and_nothing_else() {
        let key = |metadata: &str| key_of("k", Some(metadata.as_bytes()));
        assert_eq!(key(r#"{"k": "a"}"#).as_deref(), Some("a"));
        assert_eq!(key(r#"{"k": "\u0000é"}"#).as_deref(), Some("\0é"));
        assert_eq!(key(r#"{"k": ""}"#).as_deref(), Some(""));
        for other in [r#"{"k": 1}"#, r#"{"k": null}"#, r#"{"k": ["a"]}"#, r#"{"K": "a"}"#, "{}", "[]", "x"] {
            assert_eq!(key(other), None, "{other}");
        }
        assert_eq!(key_of("k", None), None);
    }

    #[test]
    fn a_payload_that_is_null_or_nothing_says_that_its_key_is_gone() {
        let body = |payload: &'static str, kind: Option<&str>| Body {
            payload: bytes::Bytes::from_static(payload.as_bytes()),
            content_type: kind.map(Box::from),
            metadata: None,
            order_key: None,
        };
        assert!(says_gone(&body("null", None)) && says_gone(&body(" null\n", None)));
        assert!(says_gone(&body("", Some("text/plain"))));
        assert!(!says_gone(&body("null", Some("text/plain"))) && !says_gone(&body("\"null\"", None)));
    }

    #[test]
    fn what_is_gone_and_has_no_trace_is_told_to_who_comes_back_to_it() {
        let id = |ms| MessageId::new(ms, 0);
        let topic = TopicName::parse("t").expect("a name");
        let untold = Untold { newest: Some(id(30)), keyless: Some(id(95)) };
        let told = |cursor, gap_check, goes_on, reason: Option<GapReason>| {
            let range = LatestRange { after: Some(cursor), gap_check, goes_on, limit: 1, bytes_max: 1 };
            let plain =
                |reason| Gap { topic: topic.clone(), from: cursor, to: id(50), reason, missed: Some(3) };
            let verdict = range.judge(reason.map(plain), untold, id(40));
            verdict.map(|verdict| (verdict.gap.reason, verdict.gap.to, verdict.gap.missed, verdict.resume))
        };
        let (seen, gone) = (GapCheck::Seen, Some(GapReason::Trimmed));
        let trimmed = |cursor| Some((GapReason::Trimmed, id(40), None, Some(cursor)));
        assert_eq!(told(id(20), seen, false, gone), trimmed(id(20)));
        assert_eq!(told(id(20), GapCheck::follows(Epoch::Unmarked, None), false, gone), trimmed(id(20)));
        assert_eq!(told(id(20), seen, true, gone), None, "it has only begun");
        assert_eq!(told(id(20), GapCheck::None, false, gone), None);
        assert_eq!(told(id(30), seen, false, gone), None, "in front of the log, but the table has it");
        assert_eq!(told(MessageId::MIN, seen, false, gone), None, "from the start there is all");
        for reason in [GapReason::Reset, GapReason::Deleted] {
            let over = Some((reason, id(50), Some(3), None));
            assert_eq!(told(id(60), seen, true, Some(reason)), over);
        }
    }
}
