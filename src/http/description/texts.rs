//! The texts that several parameters take.

use serde_json::{Value, json};
use tidemill_proto::limits::IDEMPOTENCY_KEY_BYTES_MAX;

use super::{AGO, ID};

/// Returns the texts of a reader's words for a cursor.
pub(super) fn since() -> Value {
    let mut schema = moment();
    if let Some(forms) = schema["anyOf"].as_array_mut() {
        forms.insert(0, json!({ "type": "string", "enum": ["earliest", "latest"] }));
    }
    schema
}

/// Returns the texts that name a place in a topic, but for its ends.
pub(super) fn moment() -> Value {
    json!({
        "type": "string",
        "anyOf": [
            { "type": "string", "pattern": format!("^{ID}$") },
            { "type": "string", "pattern": format!("^{AGO}$") },
            { "type": "string", "format": "date-time" },
        ],
    })
}

pub(super) fn key() -> Value {
    json!({ "type": "string", "pattern": format!("^[!-~]{{1,{IDEMPOTENCY_KEY_BYTES_MAX}}}$") })
}
