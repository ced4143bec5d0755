//! What the types of series cannot say: which values their fields take; and requests that work.

use serde_json::{Map, Value, json};
use tidemill_proto::series::{POINT_COUNT_MAX, POINT_VALUE_MAX, POINTS_MAX};

use super::TOPIC_NAME;

/// Returns the texts of a span: 1 second to 24 hours.
pub(super) fn last() -> Value {
    json!({ "type": "string", "pattern": "^([1-9][0-9]{0,3}s?|[1-9][0-9]{0,2}m|1?[1-9]h|1d)$" })
}

/// Completes the schemas of requests about series.
pub(super) fn complete(schemas: &mut Map<String, Value>) {
    let bounds = [
        ("value", json!({ "minimum": -POINT_VALUE_MAX, "maximum": POINT_VALUE_MAX })),
        ("count", json!({ "minimum": 1, "maximum": POINT_COUNT_MAX })),
        ("name", json!({ "pattern": format!("^{TOPIC_NAME}$") })),
        ("points", json!({ "minItems": 1, "maxItems": POINTS_MAX })),
    ];
    for schema in ["PointRequest", "NamedPoint", "AddPointsRequest"] {
        let Some(fields) = schemas.get_mut(schema).map(|schema| &mut schema["properties"]) else { continue };
        for (name, bounds) in &bounds {
            if let (Some(Value::Object(field)), Value::Object(bounds)) = (fields.get_mut(*name), bounds) {
                field.extend(bounds.clone());
            }
        }
    }
}

/// Returns a body that works.
pub(super) fn example(operation: &str) -> Value {
    match operation {
        "add_point" => json!({ "value": 12.5 }),
        _ => {
            json!({ "points": [{ "name": "latency", "value": 12.5 }, { "name": "errors", "value": 1, "count": 3 }] })
        }
    }
}
