//! What the types of locks cannot say: which values the fields of their requests take.

use serde_json::{Map, Value, json};

use super::{CONSUMER, TOPIC_NAME, refine};

/// The bodies of requests about locks and leases, whose variants have longer names.
const BODIES: [&str; 5] = ["LockRequest", "RenewRequest", "RenewalItem", "ReleaseRequest", "LeaseRequest"];

/// Completes the schemas of requests about locks.
pub(super) fn complete(schemas: &mut Map<String, Value>) {
    refine(schemas, |body, name| match (BODIES.iter().find(|known| body.starts_with(*known))?, name) {
        (&"LeaseRequest", "ttl") => Some(lasts()),
        _ => grammar(name),
    });
}

/// Returns how long a lease lasts.
fn lasts() -> Value {
    json!({ "anyOf": [
        { "type": "number", "minimum": 1, "maximum": 86_400 },
        { "type": "string", "pattern": "^([1-9][0-9]{0,3}s?|[1-9][0-9]{0,2}m|([1-9]|1[0-9]|2[0-4])h)$" },
    ] })
}

/// Returns which values a field takes.
fn grammar(name: &str) -> Option<Value> {
    Some(match name {
        "name" => json!({ "type": "string", "pattern": format!("^{TOPIC_NAME}$") }),
        "holder" => json!({ "type": "string", "pattern": CONSUMER }),
        "ttl" => json!({ "anyOf": [
            { "type": "number", "minimum": 0.1, "maximum": 86_400 },
            { "type": "string", "pattern": "^([1-9][0-9]{2,6}ms|[1-9][0-9]{0,3}s?|[1-9][0-9]{0,2}m|([1-9]|1[0-9]|2[0-4])h)$" },
        ] }),
        "wait" => json!({ "anyOf": [
            { "type": "number", "minimum": 0, "maximum": 60 },
            { "type": "string", "pattern": "^([0-9]{1,4}ms|([0-9]|[1-5][0-9]|60)s?|[01]m)$" },
            { "type": "null" },
        ] }),
        "token" => {
            json!({ "type": "string", "pattern": format!("^[0-9a-f]{{32}}(@(topic|bucket):{TOPIC_NAME})?$") })
        }
        "guards" => json!({ "oneOf": [
            {
                "type": "object", "required": ["topic"], "additionalProperties": false,
                "properties": { "topic": { "type": "string", "pattern": format!("^{TOPIC_NAME}$") } },
            },
            {
                "type": "object", "required": ["bucket"], "additionalProperties": false,
                "properties": { "bucket": { "type": "string", "pattern": format!("^{TOPIC_NAME}$") } },
            },
            { "type": "null" },
        ] }),
        _ => return None,
    })
}
