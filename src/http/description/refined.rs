//! Schemas whose fields take fewer values than their types say.

use serde_json::{Map, Value};

/// Has the fields of schemas take the values that a grammar says, which takes the names of schema and field. Their
/// descriptions stay.
pub(super) fn refine(schemas: &mut Map<String, Value>, grammar: impl Fn(&str, &str) -> Option<Value>) {
    for (body, schema) in schemas {
        let fields = schema.get_mut("properties").and_then(Value::as_object_mut);
        for (name, field) in fields.into_iter().flatten() {
            let Some(mut refined) = grammar(body, name) else { continue };
            if let Some(description) = field.get("description") {
                refined["description"] = description.clone();
            }
            *field = refined;
        }
    }
}
