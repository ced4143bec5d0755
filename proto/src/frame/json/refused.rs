//! Why a text is no frame of a client, in words that name the field: the decoder's own say neither which
//! frame it was nor what a client could do.
//!
//! Reads the text a second time, so only what is refused pays for it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{ErrorClass, FrameError};
use crate::{Code, Problem};

/// What a field of a frame is.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Texts,
    TextsByName,
    Number,
    Flag,
    Unique,
    Any,
}

/// The fields of a frame that publishes, behind its `type`.
const OF_PUBLISH: [&str; 16] = [
    "ref",
    "topic",
    "payload",
    "payload_text",
    "payload_base64",
    "content_type",
    "metadata",
    "ttl",
    "key",
    "delay",
    "deliver_at",
    "expected_last",
    "order_key",
    "unique",
    "durability",
    "fence",
];

/// What others call the payload.
const PAYLOADS: [&str; 5] = ["data", "message", "body", "value", "text"];

/// Every field that a frame can have.
const FIELDS: [(&str, Form); 37] = [
    ("type", Form::Text),
    ("ref", Form::Text),
    ("topics", Form::Texts),
    ("cursors", Form::TextsByName),
    ("offset", Form::Text),
    ("client_id", Form::Text),
    ("must_exist", Form::Flag),
    ("view", Form::Text),
    ("topic", Form::Text),
    ("payload", Form::Any),
    ("payload_text", Form::Text),
    ("payload_base64", Form::Text),
    ("content_type", Form::Text),
    ("metadata", Form::Any),
    ("ttl", Form::Any),
    ("key", Form::Text),
    ("delay", Form::Any),
    ("deliver_at", Form::Text),
    ("expected_last", Form::Text),
    ("order_key", Form::Text),
    ("unique", Form::Unique),
    ("durability", Form::Text),
    ("fence", Form::Text),
    ("message_id", Form::Text),
    ("group", Form::Text),
    ("credit", Form::Number),
    ("consumer", Form::Text),
    ("receipts", Form::Texts),
    ("result", Form::Any),
    ("error", Form::Text),
    ("ack_wait", Form::Any),
    ("reason", Form::Text),
    ("watch", Form::Text),
    ("bucket", Form::Text),
    ("prefix", Form::Text),
    ("room", Form::Text),
    ("cursor", Form::Text),
];

impl Form {
    /// Returns the rule that a value breaks, if it breaks one. Null stands for an absent field.
    fn broken(self, value: &RawValue) -> Option<&'static str> {
        let text = value.get();
        let (keeps, rule) = match self {
            _ if text == "null" => return None,
            Self::Any => return None,
            Self::Text if text.starts_with('"') => (is::<Cow<'_, str>>(text), "must be valid Unicode"),
            Self::Text => (false, "must be a string"),
            Self::Texts => (is::<Vec<Cow<'_, str>>>(text), "must be an array of strings"),
            Self::TextsByName => {
                (is::<std::collections::BTreeMap<String, String>>(text), "must be an object of strings")
            }
            Self::Unique => (
                is::<super::AnyUnique<'_>>(text),
                "must be an object with `group` and `key`, which are strings",
            ),
            Self::Number => (is::<u64>(text), "must be a whole number, 0 or more"),
            Self::Flag => (is::<bool>(text), "must be `true` or `false`"),
        };
        (!keeps).then_some(rule)
    }
}

fn is<'a, T: Deserialize<'a>>(text: &'a str) -> bool {
    serde_json::from_str::<T>(text).is_ok()
}

/// Returns the error for a text that is no JSON object.
pub(super) fn no_object() -> Box<FrameError> {
    let problem = Problem::new(Code::InvalidJson, "the frame cannot be read: it is not a JSON object");
    Box::new(FrameError { reference: None, class: ErrorClass::Processing, problem })
}

/// Returns the error for a text that the decoder has refused.
pub(super) fn explain(text: &str, error: &serde_json::Error) -> Box<FrameError> {
    let mut members = Vec::new();
    let read = serde_json::Deserializer::from_str(text).deserialize_map(Members(&mut members));
    let member = |name: &str| members.iter().find(|(of, _)| of == name);
    let string = |name: &str| {
        member(name).and_then(|(_, value)| serde_json::from_str::<Cow<'_, str>>(value.get()).ok())
    };
    let class = match string("type").as_deref() {
        Some("subscribe" | "unsubscribe") => ErrorClass::Subscription,
        Some("publish") => ErrorClass::Publish,
        _ => ErrorClass::Processing,
    };
    let problem = match read {
        Ok(()) => of_members(&members),
        Err(_) => None,
    };
    // What is left is a mistake in the text itself, whose words are those of JSON.
    let problem = problem
        .unwrap_or_else(|| Problem::new(Code::InvalidJson, format!("the frame cannot be read: {error}")));
    Box::new(FrameError { reference: string("ref").map(Cow::into_owned), class, problem })
}

type Member<'a> = (Cow<'a, str>, &'a RawValue);

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Returns what is wrong with the first member that breaks a rule.
fn of_members(members: &[Member<'_>]) -> Option<Problem> {
    let broken = |(at, (name, value)): (usize, &Member<'_>)| {
        let Some((_, form)) = FIELDS.iter().find(|(known, _)| known == name) else {
            let is_publish = members.iter().any(|(of, value)| of == "type" && value.get() == r#""publish""#);
            let rule = if is_publish {
                let meant = PAYLOADS.contains(&name.as_ref()).then_some("; did you mean `payload`?");
                format!(
                    "is unknown in `publish`{} Its fields are {}",
                    meant.unwrap_or("."),
                    listed(&OF_PUBLISH)
                )
            } else {
                format!("is unknown in a frame; known are {}", listed(&FIELDS.map(|(known, _)| known)))
            };
            return Some(Problem::field(name.escape_debug().to_string(), rule));
        };
        if members[..at].iter().any(|(other, _)| other == name) {
            return Some(Problem::field(name.as_ref(), "is there twice"));
        }
        form.broken(value).map(|rule| Problem::field(name.as_ref(), rule))
    };
    members.iter().enumerate().find_map(broken)
}

/// Gathers the members of an object as they come, up to where it is broken.
struct Members<'m, 'de>(&'m mut Vec<Member<'de>>);

impl<'de> Visitor<'de> for Members<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        #[derive(serde::Deserialize)]
        struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

        while let Some((Name(name), value)) = map.next_entry()? {
            self.0.push((name, value));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ErrorClass, read};
    use crate::Code;

    #[test]
    fn what_is_wrong_is_named() {
        for (text, class, field) in [
            (r#"{"type":"subscribe"}"#, ErrorClass::Subscription, Some("topics")),
            (r#"{"type":"publish","topic":"t"}"#, ErrorClass::Publish, Some("payload")),
            (r#"{"type":"shout"}"#, ErrorClass::UnknownType, Some("type")),
            (r#"{"topics":[]}"#, ErrorClass::UnknownType, Some("type")),
            (r"[]", ErrorClass::Processing, None),
            (r"{", ErrorClass::Processing, None),
            (r#"{"type":"ping","tpoic":1}"#, ErrorClass::Processing, Some("tpoic")),
            (r#"{"type":7}"#, ErrorClass::Processing, Some("type")),
            (r#"{"type":"subscribe","topics":"a"}"#, ErrorClass::Subscription, Some("topics")),
            (r#"{"type":"subscribe","topics":[1]}"#, ErrorClass::Subscription, Some("topics")),
            (
                r#"{"type":"subscribe","topics":[],"cursors":{"a":1}}"#,
                ErrorClass::Subscription,
                Some("cursors"),
            ),
            (r#"{"type":"publish","ttl":-1}"#, ErrorClass::Publish, Some("ttl")),
            (r#"{"type":"publish","ttl":"soon"}"#, ErrorClass::Publish, Some("ttl")),
            (r#"{"type":"publish","ttl":[60]}"#, ErrorClass::Publish, Some("ttl")),
            (r#"{"type":"publish","topic":"t","payload":1,"delay":-1}"#, ErrorClass::Publish, Some("delay")),
            (
                r#"{"type":"publish","topic":"t","payload":1,"delay":"366d"}"#,
                ErrorClass::Publish,
                Some("delay"),
            ),
            (
                r#"{"type":"publish","topic":"t","payload":1,"delay":1,"deliver_at":"2026-01-01T00:00:00Z"}"#,
                ErrorClass::Publish,
                Some("delay"),
            ),
            (
                r#"{"type":"publish","topic":"t","payload":1,"deliver_at":"soon"}"#,
                ErrorClass::Publish,
                Some("deliver_at"),
            ),
            (
                r#"{"type":"publish","topic":"t","payload":1,"deliver_at":7}"#,
                ErrorClass::Publish,
                Some("deliver_at"),
            ),
            (
                r#"{"type":"publish","topic":"t","payload":1,"fence":{"lock":"a"}}"#,
                ErrorClass::Publish,
                Some("fence"),
            ),
            (r#"{"type":"publish","payload":1,"payload":2}"#, ErrorClass::Publish, Some("payload")),
            (
                r#"{"type":"ack","receipts":["r"],"message_id":"1-0"}"#,
                ErrorClass::Processing,
                Some("message_id"),
            ),
            (r#"{"type":"watch","bucket":"b"}"#, ErrorClass::Processing, Some("watch")),
            (r#"{"type":"unwatch","ref":"7"}"#, ErrorClass::Processing, Some("watch")),
            (r#"{"type":"watch","watch":"w"}"#, ErrorClass::Processing, Some("bucket")),
            (r#"{"type":"watch","watch":7,"bucket":"b"}"#, ErrorClass::Processing, Some("watch")),
            (r#"{"type":"watch","watch":"w","bucket":"b","room":"r"}"#, ErrorClass::Processing, Some("room")),
            (
                r#"{"type":"watch","watch":"w","bucket":"b","key":"k","prefix":"p"}"#,
                ErrorClass::Processing,
                Some("key"),
            ),
            (
                r#"{"type":"watch","watch":"w","room":"r","prefix":"p"}"#,
                ErrorClass::Processing,
                Some("prefix"),
            ),
            (r#"{"type":"watch","watch":"w","room":"r","key":"k"}"#, ErrorClass::Processing, Some("key")),
            (r#"{"type":"publish","payload_text":"\ud800"}"#, ErrorClass::Publish, Some("payload_text")),
            (
                r#"{"type":"publish","topic":"t","payload_base64":"!"}"#,
                ErrorClass::Publish,
                Some("payload_base64"),
            ),
        ] {
            let error = read(text).expect_err(text);
            assert_eq!((error.class, error.problem.field.as_deref()), (class, field), "{text}");
            let detail = &error.problem.detail;
            assert!(
                !["u64", "struct", "AnyFrame", "Cow"].iter().any(|word| detail.contains(word)),
                "{detail}"
            );
        }
    }

    #[test]
    fn an_unknown_field_of_a_publish_is_answered_with_its_fields() {
        for (text, part, suggests) in [
            (r#"{"type":"publish","topic":"t","data":1}"#, "`data` is unknown in `publish`", true),
            (r#"{"type":"publish","topic":"t","colour":1}"#, "`colour` is unknown in `publish`", false),
        ] {
            let detail = read(text).expect_err(text).problem.detail;
            assert!(detail.starts_with(part) && detail.contains("`payload_base64`"), "{detail}");
            assert!(!detail.contains("`cursors`"), "{detail}");
            assert_eq!(detail.contains("did you mean `payload`?"), suggests, "{detail}");
        }
    }

    #[test]
    fn a_refused_frame_keeps_its_reference() {
        for (text, code) in [
            (r#"{"type":"publish","ref":"7","topic":"t","payload":1,"colour":"red"}"#, Code::InvalidField),
            (r#"{"colour":"red","type":"publish","ref":"7"}"#, Code::InvalidField),
            (r#"{"type":"publish","ttl":1.5,"ref":"7"}"#, Code::InvalidField),
            (r#"{"type":"subscribe","topics":7,"ref":"7"}"#, Code::InvalidField),
            (r#"{"type":"ping","ref":"7","x":1}"#, Code::InvalidField),
            (
                r#"{"type":"publish","ref":"7","topic":"t","payload_text":"a","payload":1}"#,
                Code::InvalidField,
            ),
            (r#"{"type":"publish","ref":"7","payload":NaN}"#, Code::InvalidJson),
            (r#"{"type":"publish","ref":"7"} x"#, Code::InvalidJson),
        ] {
            let error = read(text).expect_err(text);
            assert_eq!((error.reference.as_deref(), error.problem.code), (Some("7"), code), "{text}");
        }
    }
}
