//! What is checked of topics and groups that come from the wire.

use tidemill_proto::Problem;
use tidemill_proto::copy::{CopiedGroup, CopiedPending, CopiedTopic};
use tidemill_proto::limits::{
    CANCEL_REASON_BYTES_MAX, COMPACT_BY_BYTES_MAX, COPY_ITEMS_MAX, DESCRIPTION_BYTES_MAX, IDLE_SECONDS_MAX,
    KEPT_BYTES_MAX, KEPT_MESSAGES_MAX, LOST_MARKS_MAX, NAME_BYTES_MAX, RETENTION_SECONDS_MAX,
};
use tidemill_proto::topics::RunState;

use super::{Checked, check_count};

/// Most of anything that is counted: more than there is, and far from what a sum can be.
pub(super) const COUNT_MAX: u64 = 1 << 53;

pub(super) fn check_topic(field: &str, copied: &CopiedTopic) -> Checked<()> {
    let CopiedTopic { topic, ended, holes, .. } = copied;
    let fault =
        |name: &str, rule: &str| Err(Box::new(Problem::field(format!("{field}.{name}").as_str(), rule)));
    let lengths = [
        ("topic.description", topic.description.as_deref(), DESCRIPTION_BYTES_MAX),
        ("topic.owner_id", topic.owner_id.as_deref(), NAME_BYTES_MAX),
        ("topic.compact_by", topic.compact_by.as_deref(), COMPACT_BY_BYTES_MAX),
        ("ended.reason", ended.as_ref().and_then(|ended| ended.reason.as_deref()), CANCEL_REASON_BYTES_MAX),
    ];
    for (name, text, max) in lengths {
        if text.is_some_and(|text| text.len() > max) {
            return fault(name, &format!("is longer than {max} bytes"));
        }
    }
    let numbers = [
        ("topic.retention_seconds", topic.retention_seconds, RETENTION_SECONDS_MAX),
        ("topic.max_messages", topic.max_messages, KEPT_MESSAGES_MAX),
        ("topic.max_bytes", topic.max_bytes, KEPT_BYTES_MAX),
        ("topic.idle_seconds", topic.idle_seconds, IDLE_SECONDS_MAX),
    ];
    for (name, number, max) in numbers {
        if number.is_some_and(|number| !(1..=max).contains(&number)) {
            return fault(name, &format!("must be a whole number from 1 to {max}"));
        }
    }
    for (name, count) in [("length", copied.length), ("given", copied.given.unwrap_or(0))] {
        if count > COUNT_MAX {
            return fault(name, "is more than can be");
        }
    }
    if topic.topic_id != topic.topic_name {
        return fault("topic.topic_id", "must be the name");
    }
    if ended.as_ref().is_some_and(|ended| ended.state == RunState::Open) {
        return fault("ended.state", "must be `closed` or `cancelled`");
    }
    if holes.iter().any(|hole| hole.from > hole.to) {
        return fault("holes", "must each end behind where it begins");
    }
    check_count(&format!("{field}.holes"), holes.len(), LOST_MARKS_MAX)
}

pub(super) fn check_group(field: &str, group: &CopiedGroup) -> Checked<()> {
    let fault =
        |name: &str, rule: &str| Err(Box::new(Problem::field(format!("{field}.{name}").as_str(), rule)));
    let CopiedGroup { settings, counts, passed, .. } = group;
    if settings.max_deliveries == 0 {
        return fault("settings.max_deliveries", "must be at least 1");
    }
    if settings.ack_wait.0.is_zero() {
        return fault("settings.ack_wait", "must be more than nothing");
    }
    if settings.backoff.is_empty() {
        return fault("settings.backoff", "must have at least one wait");
    }
    if counts.iter().chain(passed).any(|count| *count > COUNT_MAX) {
        return fault("counts", "are more than can be");
    }
    Ok(())
}

pub(super) fn check_pending(field: &str, pending: &[CopiedPending]) -> Checked<()> {
    check_count(field, pending.len(), COPY_ITEMS_MAX)?;
    let is_over = |one: &CopiedPending| {
        one.deliveries > COUNT_MAX || one.failures > u32::MAX / 2 || one.crashes > u32::MAX / 2
    };
    if pending.iter().any(is_over) {
        return Err(Box::new(Problem::field(field, "has counts that are more than can be")));
    }
    Ok(())
}
