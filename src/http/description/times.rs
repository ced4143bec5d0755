//! Durations, which can be written in two ways: which values fields and parameters take.

use serde_json::{Value, json};
use tidemill_proto::access::LIFE_SECONDS_MAX;
use tidemill_proto::duration;
use tidemill_proto::limits::{IDLE_SECONDS_MAX, POLL_SECONDS_MAX, RETENTION_SECONDS_MAX, TTL_SECONDS_MAX};

/// The texts of how long a page or a poll may wait: 1 to 60 seconds.
const WAIT: &str = "^(([1-9]|[1-5][0-9]|60)s?|[1-9][0-9]{3}ms|1m)$";

/// Returns any duration.
pub(super) fn any() -> Value {
    serde_json::to_value(duration::schema()).unwrap_or_default()
}

/// Returns which values a field of a body takes, if it is a duration; `is_message` says whether the body is a message.
pub(super) fn field(name: &str, is_message: bool) -> Option<Value> {
    let whole = |max| Some(serde_json::to_value(duration::whole_seconds_schema(max)).unwrap_or_default());
    match name {
        "ack_wait" | "max_run" | "result_ttl" | "wait" | "delay" => Some(any()),
        "ttl" if is_message => whole(TTL_SECONDS_MAX),
        "retention_seconds" => whole(RETENTION_SECONDS_MAX),
        "idle_seconds" => whole(IDLE_SECONDS_MAX),
        "expires_in" => whole(LIFE_SECONDS_MAX),
        "timeout" => Some(json!({ "anyOf": [
            { "type": "number", "minimum": 1, "maximum": POLL_SECONDS_MAX },
            { "type": "string", "pattern": WAIT },
        ] })),
        _ => None,
    }
}

/// Returns which texts a parameter takes that is a duration of whole seconds.
pub(super) fn whole_in_words() -> Value {
    json!({ "type": "string", "pattern": duration::WHOLE_SECONDS })
}

/// Returns which texts a parameter takes that says how long to wait.
pub(super) fn wait_in_words() -> Value {
    json!({ "type": "string", "pattern": WAIT })
}
