//! Topics whose messages replace each other: of each key the latest stays, also where the topic keeps no message as old.
//!
//! The key of a message is the text in one field of its metadata, which the topic names (`compact_by`). Messages stand in
//! the topic's log as in any other, and go from its old end; beside it stands a table with the latest message of each key.
//! Nothing is taken out from between others in the log: one key that lives on would keep what lies around it.
//!
//! A message without a payload, or whose payload is `null`, says that its key is gone. It stays in the table for a day,
//! for those who come back to it.

use std::time::Duration;

use tidemill_proto::{Gap, GapReason, MessageId, TopicName, json};

use super::history::{Behind, Facts, Verdict};
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

impl Facts {
    /// Judges the cursor of who reads the latest messages; behind it is this one. `None` where nothing is missing.
    pub(super) fn judge_latest(
        &self,
        topic: &TopicName,
        (cursor, first): (MessageId, Option<MessageId>),
        range: &LatestRange,
    ) -> Option<Verdict> {
        // What has gone from the old end is no matter: the table tells of it.
        let whole = Facts { given: None, removed: Some(0), taken_out: None, ..*self };
        let behind = Behind { is_kept: cursor <= self.last_given, first, ..Behind::default() };
        if let Some(verdict) = whole.judge(topic, cursor, range.gap_check, behind) {
            return Some(verdict);
        }
        let untold = self.untold.and_then(|untold| untold.newest);
        let is_behind = cursor > MessageId::MIN && untold.is_some_and(|gone| gone > cursor);
        let is_told = matches!(range.gap_check, GapCheck::Seen | GapCheck::Follows { .. });
        (is_behind && is_told && !range.goes_on).then(|| {
            let to = first.or(self.last_given.next()).unwrap_or(MessageId::MAX);
            let gap =
                Gap { topic: topic.clone(), from: cursor, to, reason: GapReason::Trimmed, missed: None };
            Verdict { gap, resume: Some(cursor) }
        })
    }
}

/// Returns the key of a message with this metadata: the text in the field. `None` where there is none.
pub(super) fn key_of(field: &str, metadata: Option<&[u8]>) -> Option<String> {
    json::text_in(metadata?, field)
}

/// Whether a message says that its key is gone.
pub(super) fn says_gone(body: &Body) -> bool {
    body.payload.is_empty() || (body.content_type.is_none() && body.payload.trim_ascii() == b"null")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Epoch;
    use crate::storage::history::Untold;

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
        let facts = Facts {
            born: Some(id(10)),
            untold: Some(Untold { newest: Some(id(30)), keyless: Some(id(95)) }),
            ..Facts::whole(Epoch::Marked(1), Some(id(50)), id(90))
        };
        let topic = TopicName::parse("t").expect("a name");
        let told = |cursor, gap_check, goes_on| {
            let range = LatestRange { after: Some(cursor), gap_check, goes_on, limit: 1, bytes_max: 1 };
            let verdict = facts.judge_latest(&topic, (cursor, Some(id(40))), &range);
            verdict.map(|verdict| (verdict.gap.reason, verdict.gap.to, verdict.resume))
        };
        let trimmed = Some((GapReason::Trimmed, id(40), Some(id(20))));
        assert_eq!(told(id(20), GapCheck::Seen, false), trimmed);
        assert_eq!(told(id(20), GapCheck::follows(Epoch::Unmarked, None), false), trimmed);
        assert_eq!(told(id(20), GapCheck::Seen, true), None, "it has only begun");
        assert_eq!(told(id(20), GapCheck::None, false), None);
        assert_eq!(told(id(30), GapCheck::Seen, false), None, "in front of the log, but the table has it");
        assert_eq!(told(MessageId::MIN, GapCheck::Seen, false), None, "from the start there is all");
        assert_eq!(told(id(91), GapCheck::Seen, false).map(|told| told.0), Some(GapReason::Reset));
        assert_eq!(told(id(9), GapCheck::Seen, true).map(|told| told.0), Some(GapReason::Deleted));
        let other = GapCheck::follows(Epoch::Marked(2), None);
        assert_eq!(told(id(60), other, true).map(|told| told.0), Some(GapReason::Reset));
    }
}
