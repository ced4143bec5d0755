//! The schemas of fields that stand in several frames, or that no type says alone.
//!
//! It must not know which frames have them.

use utoipa::ToSchema as _;
use utoipa::openapi::schema::{AnyOfBuilder, ArrayBuilder, Object, ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{Ref, Schema};

use crate::frame::{CREDIT_MAX, REFERENCE_BYTES_MAX, TOPICS_PER_FRAME_MAX};
use crate::limits::{IDEMPOTENCY_KEY_BYTES_MAX, TTL_SECONDS_MAX};
use crate::work::RECEIPTS_MAX;
use crate::{MessageId, PatternCursor, Since, TopicName, TopicPattern, TopicSelector};

/// Returns a text with bounds on its length.
pub(super) fn text(min: usize, max: usize) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).min_length(Some(min)).max_length(Some(max))
}

pub(super) fn reference() -> Object {
    text(0, REFERENCE_BYTES_MAX)
        .description(Some(format!("The client's own mark, at most {REFERENCE_BYTES_MAX} bytes.")))
        .build()
}

pub(super) fn topics_of_frame() -> Schema {
    ArrayBuilder::new()
        .items(Ref::from_schema_name(TopicSelector::name()))
        .min_items(Some(1))
        .max_items(Some(TOPICS_PER_FRAME_MAX))
        .description(Some("The topics."))
        .into()
}

pub(super) fn cursors() -> Object {
    let cursor = OneOfBuilder::new()
        .item(Ref::from_schema_name(MessageId::name()))
        .item(Ref::from_schema_name(PatternCursor::name()));
    by_topic(
        cursor.into(),
        "Cursors by topic: the id after which to go on, `0-0` before the first message. Cursors by pattern.",
    )
}

/// Where to start, which may be said in words: a text can be of both forms.
pub(super) fn starts() -> Object {
    let start = AnyOfBuilder::new()
        .item(Ref::from_schema_name(Since::name()))
        .item(Ref::from_schema_name(PatternCursor::name()));
    by_topic(
        start.into(),
        "Where to start, by topic or pattern; only what stands in `topics` may stand here. For a pattern it is a cursor that the relay has told of the same pattern, `earliest`, `latest` or a time.",
    )
}

fn by_topic(cursor: Schema, description: &str) -> Object {
    let name = OneOfBuilder::new()
        .item(Ref::from_schema_name(TopicName::name()))
        .item(Ref::from_schema_name(TopicPattern::name()));
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .property_names(Some(name))
        .additional_properties(Some(cursor))
        .description(Some(description))
        .build()
}

pub(super) fn seconds_to_live() -> Schema {
    crate::duration::whole_seconds_schema(TTL_SECONDS_MAX)
}

pub(super) fn idempotency_key() -> Object {
    text(1, IDEMPOTENCY_KEY_BYTES_MAX)
        .pattern(Some("^[!-~]+$"))
        .description(Some("The idempotency key: a publish is kept once under it."))
        .build()
}

pub(super) fn credit() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(0))
        .maximum(Some(CREDIT_MAX))
        .description(Some("Most messages of the group that the connection has at one time."))
        .build()
}

pub(super) fn receipts() -> Schema {
    ArrayBuilder::new()
        .items(ObjectBuilder::new().schema_type(Type::String))
        .min_items(Some(1))
        .max_items(Some(RECEIPTS_MAX))
        .description(Some("The receipts, of whichever groups."))
        .into()
}
