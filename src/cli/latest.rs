//! The key that a message is the latest of, as people are shown it.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::value::RawValue;
use tidemill_proto::TopicName;
use tidemill_proto::topics::Topic;

use super::client::Client;
use super::output;

/// Returns the field of metadata that holds the keys of a topic. Where its description is not to be had, none is known.
pub(super) async fn field_of(client: &Client, topic: &TopicName) -> Option<String> {
    let path = ["api", "v1", "topics", topic.as_str()];
    let answer = client.send(client.request(Method::GET, &path)).await.ok()?;
    client.read::<Topic>(&answer).ok()?.compact_by
}

/// Returns the key of a message, as it can be printed, with the blanks in front of what follows; nothing where it has none.
pub(super) fn shown(field: Option<&str>, metadata: Option<&[u8]>) -> String {
    let key = field.zip(metadata).and_then(|(field, metadata)| {
        let fields: BTreeMap<String, &RawValue> = serde_json::from_slice(metadata).ok()?;
        serde_json::from_str::<String>(fields.get(field)?.get()).ok()
    });
    key.map_or_else(String::new, |key| format!("{}  ", output::printable(&key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_text_in_its_field() {
        for (field, metadata, key) in [
            (Some("id"), Some(r#"{"a": 1, "id": "p-\u001b1"}"#), "p-\\u001b1  "),
            (Some("id"), Some(r#"{"id": 7}"#), ""),
            (Some("id"), Some("{}"), ""),
            (Some("id"), None, ""),
            (None, Some(r#"{"id": "a"}"#), ""),
        ] {
            assert_eq!(shown(field, metadata.map(str::as_bytes)), key, "{metadata:?}");
        }
    }
}
