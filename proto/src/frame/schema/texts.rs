//! The schemas of types that are text on the wire: names, ids, times.
//!
//! It must not know which frames have them.

use serde_json::json;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::fields::text;
use crate::limits::{ORDER_KEY_BYTES_MAX, RECURRING_NAME_BYTES_MAX, TOPIC_NAME_BYTES_MAX};
use crate::{MessageId, OrderKey, RecurringName, ScheduleId, Since, Timestamp, TopicName};

impl PartialSchema for TopicName {
    fn schema() -> RefOr<Schema> {
        text(1, TOPIC_NAME_BYTES_MAX)
            .pattern(Some("^[A-Za-z0-9_-]([A-Za-z0-9_.:-]*[A-Za-z0-9_-])?$"))
            .description(Some("The name of a topic."))
            .examples([json!("earthquakes")])
            .into()
    }
}

impl ToSchema for TopicName {}

impl PartialSchema for MessageId {
    fn schema() -> RefOr<Schema> {
        text(3, Self::TEXT_BYTES_MAX)
            .pattern(Some("^[0-9]+-[0-9]+$"))
            .description(Some("The id of a message; opaque, and ordered within the topic."))
            .examples([json!("1517363399650-0")])
            .into()
    }
}

impl ToSchema for MessageId {}

impl PartialSchema for ScheduleId {
    fn schema() -> RefOr<Schema> {
        text(1, Self::BYTES_MAX)
            .pattern(Some("^[0-9a-z-]+$"))
            .description(Some("The id of a message that is to be published later; opaque."))
            .examples([json!("1517363399650-000000-9f86d081")])
            .into()
    }
}

impl ToSchema for ScheduleId {}

impl PartialSchema for RecurringName {
    fn schema() -> RefOr<Schema> {
        text(1, RECURRING_NAME_BYTES_MAX)
            .pattern(Some("^[A-Za-z0-9_-]+$"))
            .description(Some("The name of a recurring message within its topic."))
            .examples([json!("every-morning")])
            .into()
    }
}

impl ToSchema for RecurringName {}

impl PartialSchema for OrderKey {
    fn schema() -> RefOr<Schema> {
        text(1, ORDER_KEY_BYTES_MAX)
            .pattern(Some("^[^\\u0000-\\u001f\\u007f-\\u009f]+$"))
            .description(Some(
                "Of messages with the same one, a group with `ordering: by_key` gives out one at a time, in their order.",
            ))
            .examples([json!("customer-7")])
            .into()
    }
}

impl ToSchema for OrderKey {}

impl PartialSchema for Timestamp {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .description(Some("A point in time: RFC 3339 in UTC, to the millisecond."))
            .examples([json!("2026-01-31T12:00:00.000Z")])
            .into()
    }
}

impl ToSchema for Timestamp {}

impl PartialSchema for Since {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(
                "Where to start: `earliest`, `latest` (also `last`), a message id (go on after it), an RFC 3339 time, or a time ago as in `-10m` (units ms, s, m, h, d).",
            ))
            .examples([json!("earliest"), json!("1517363399650-0"), json!("2026-01-31T12:00:00Z"), json!("-10m")])
            .into()
    }
}

impl ToSchema for Since {}
