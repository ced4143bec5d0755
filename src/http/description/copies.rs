//! Requests of copies that work.

use serde_json::{Value, json};
use tidemill_proto::copy::COPY_VERSION;

use super::examples::TOPIC;

/// Returns a step about the topic of the examples, with one field more.
pub(super) fn example(kind: &str, step: &str, (field, value): (&str, Value)) -> Value {
    json!({ "version": COPY_VERSION, kind: { step: { "topic": TOPIC, field: value } } })
}
