//! What the types of keys cannot say: which values their fields take, and which belong to which operation.

use serde_json::{Map, Value, json};
use tidemill_proto::limits::{KEPT_BYTES_MAX, KEPT_MESSAGES_MAX};

use super::{BASE64, ID, SCHEMAS, refine};

/// The bodies of requests about keys.
const BODIES: [&str; 4] = ["KeyChange", "KeyIncrement", "KeyTouch", "BucketUpdate"];

/// What a change among several may be: the end of its name, its operation, and what it has beside what all have.
const CHANGES: [(&str, &str, &[&str]); 5] = [
    ("PutValue", "put", &["value", "content_type", "ttl", "owner"]),
    ("PutValueText", "put", &["value_text", "content_type", "ttl", "owner"]),
    ("PutValueBase64", "put", &["value_base64", "content_type", "ttl", "owner"]),
    ("Delete", "delete", &[]),
    ("Increment", "increment", &["by", "min", "max", "ttl"]),
];

/// What every change has.
const OF_ALL: [&str; 4] = ["op", "key", "if_match", "if_none_match"];

/// Completes the schemas of requests about keys.
pub(super) fn complete(schemas: &mut Map<String, Value>) {
    refine(schemas, |body, name| match body {
        "AdaptiveTtl" => Some(time(&[])),
        body if BODIES.contains(&body) => grammar(name),
        _ => None,
    });
    let Some(change) = schemas.get("KeyChange").cloned() else { return };
    let mut names = Vec::new();
    for (end, op, own) in CHANGES {
        let mut variant = change.clone();
        if let Some(fields) = variant["properties"].as_object_mut() {
            fields.retain(|name, _| OF_ALL.contains(&name.as_str()) || own.contains(&name.as_str()));
            fields.insert("op".to_owned(), json!({ "type": "string", "enum": [op] }));
            if own.contains(&"value") {
                fields.insert("content_type".to_owned(), json!({
                    "type": ["string", "null"], "pattern": "^(application/json|[a-z]+/[a-z0-9.-]+\\+json)$",
                }));
            }
            for text in ["value_text", "value_base64"] {
                // Here it is there, and null is a mistake.
                if let Some(field) = fields.get_mut(text) {
                    field["type"] = "string".into();
                }
            }
        }
        let mut required = vec!["op", "key"];
        required.extend(own.first().filter(|name| name.starts_with("value")));
        variant["required"] = required.into();
        variant["not"] = json!({ "required": ["if_match", "if_none_match"] });
        let name = format!("KeyChange{end}");
        names.push(json!({ "$ref": format!("{SCHEMAS}{name}") }));
        schemas.insert(name, variant);
    }
    schemas.insert("KeyChange".to_owned(), json!({ "description": change["description"], "oneOf": names }));
}

/// Returns how long a key lives, or one of these.
fn time(or: &[Value]) -> Value {
    let number = json!({ "type": "number", "minimum": 0.001, "maximum": 315_360_000 });
    let text = json!({ "type": "string", "pattern": "^[1-9][0-9]{0,3}(ms|s|m|h|d)?$" });
    let any_of = [&[number, text], or].concat();
    json!({ "anyOf": any_of })
}

/// Returns which values a field takes.
fn grammar(name: &str) -> Option<Value> {
    Some(match name {
        "ttl" | "absolute_age" => time(&[json!({ "type": "null" })]),
        "by" | "min" | "max" => json!({
            "type": ["integer", "null"], "format": "int64", "minimum": i64::MIN, "maximum": i64::MAX,
        }),
        "key" => json!({ "$ref": format!("{SCHEMAS}KeyName") }),
        "owner" => json!({ "anyOf": [{ "$ref": format!("{SCHEMAS}KeyName") }, { "type": "null" }] }),
        "value_base64" => {
            json!({ "type": ["string", "null"], "contentEncoding": "base64", "pattern": BASE64 })
        }
        "if_match" => json!({ "type": ["string", "null"], "pattern": format!("^(\\*|{ID})$") }),
        "if_none_match" => json!({ "type": ["string", "null"], "pattern": "^\\*$" }),
        "return" => json!({ "enum": ["value", null] }),
        "max_keys" => json!({ "type": ["integer", "null"], "minimum": 1, "maximum": KEPT_MESSAGES_MAX }),
        "max_bytes" => json!({ "type": ["integer", "null"], "minimum": 1, "maximum": KEPT_BYTES_MAX }),
        _ => return None,
    })
}
