//! Messages on the wire: what a publisher sends and gets back, and the one form in which a message
//! is served everywhere.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::locks::Fence;
use crate::work::GroupName;
use crate::{
    Code, Durability, DurabilityTold, MessageId, OrderKey, PayloadRef, ScheduleId, Timestamp, TopicName,
};

/// The answer to a publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Published {
    /// The id that the backend gave the message.
    pub message_id: MessageId,
    /// The topic it was published to.
    pub topic: TopicName,
    /// When the relay accepted it.
    pub timestamp: Timestamp,
    /// How durable it is, where more was asked for than that the storage has confirmed it: by the request, or for the topic
    /// or the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub durability: Option<DurabilityTold>,
}

/// A message to publish, as a client writes it: the body of `POST /api/v1/messages` and an item of a
/// bulk publish.
///
/// Exactly one of `payload`, `payload_text` and `payload_base64` is present on the wire.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Publish {
    /// The topic; it is created when it does not exist, unless the relay is set otherwise.
    pub topic: TopicName,
    /// Any JSON value. It is kept and served byte for byte; white space around it is that of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value, required = false))]
    pub payload: Option<Box<RawValue>>,
    /// In place of `payload`: text, kept in UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_text: Option<String>,
    /// In place of `payload`: any bytes, in base64 (RFC 4648 section 4).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
    /// What the payload is: a type of JSON beside `payload`, and any type beside the others;
    /// `application/json`, `text/plain; charset=utf-8` and `application/octet-stream` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 255))]
    pub content_type: Option<String>,
    /// A JSON object of the publisher's own, served with the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub metadata: Option<Box<RawValue>>,
    /// How long the message is served: a whole number of seconds, or text with a unit (`"90s"`, `"2h"`); ten years at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub ttl: Option<u64>,
    /// Groups with `ordering: by_key` give out one message of an order key at a time, in their order. 1 to 256 bytes without
    /// control characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_key: Option<OrderKey>,
    /// Publishes it so long from now: a number of seconds, or text with a unit (`"200ms"`, `"2m"`); 365 days at most. Its
    /// `ttl` counts from then.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::duration::schema))]
    pub delay: Option<crate::duration::Seconds>,
    /// In place of `delay`: publishes it at this time (RFC 3339), or at once where that has passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deliver_at: Option<Timestamp>,
    /// Keeps the message only where this is the id of the last message that the topic was given; `0-0` where
    /// it was given none, or does not exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_last: Option<MessageId>,
    /// Keeps the message only where none of its key waits or is worked on in a group; else the answer is that one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unique: Option<Unique>,
    /// What shows that the publisher holds a lock: its name, `=`, and the fence. The message is not kept once another holds
    /// it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, pattern = "^[^=]+=[0-9]{1,19}-[0-9]{1,19}$"))]
    pub fence: Option<Fence>,
    /// How durable it must be before the answer comes; what is set for the topic or the node if absent. Not beside `delay` and
    /// `deliver_at`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub durability: Option<Durability>,
    /// The idempotency key, in items of a bulk publish only; a single publish has a header for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 255))]
    pub key: Option<String>,
}

/// By what a message is told from others that wait or are worked on in a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Unique {
    /// The key, of the group alone.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 255, pattern = "^[!-~]+$"))]
    pub key: String,
    /// The group of the topic.
    #[cfg_attr(feature = "openapi", schema(value_type = String, min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_-]+$"))]
    pub group: GroupName,
}

/// A bulk publish.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PublishBulk {
    /// 1 to 1,000 messages, appended in this order.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 1000))]
    pub messages: Vec<Publish>,
}

/// The answer to a bulk or NDJSON publish: a result per message, in order.
///
/// Where `Prefer: return=minimal` was asked for, only those of rejected messages.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PublishedBulk {
    /// The results, in the order of the request.
    pub results: Vec<PublishResult>,
    /// The counts.
    pub summary: PublishSummary,
}

/// How many messages of a bulk publish were accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PublishSummary {
    /// Messages in the request.
    pub total: usize,
    /// Messages kept.
    pub accepted: usize,
    /// Messages that were not.
    pub rejected: usize,
    /// Messages of `accepted` that are kept to be published later; absent where there is none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub scheduled: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it so")]
const fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Whether one message of a bulk publish was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum PublishStatus {
    /// The backend confirmed it.
    Accepted,
    /// The backend confirmed that it will be published later.
    Scheduled,
    /// It was not kept, or (code `outcome_unknown`) may not have been; or (code `durability_not_reached`) it was, and is not
    /// as durable as was asked.
    Rejected,
}

/// The result of one message of a bulk publish.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PublishResult {
    /// The id that the backend gave the message; null when it was not kept, or is to be published later.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub message_id: Option<MessageId>,
    /// The topic as the request had it; null where it had none that could be read.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub topic: Option<String>,
    /// The place of the message in the request, counted from 0, where not every message has a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// Whether the message was kept.
    pub status: PublishStatus,
    /// What was wrong, in a sentence; null when accepted.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub error: Option<String>,
    /// The problem's code, where rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub code: Option<Code>,
    /// Whether sending the same message again can succeed, where rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub retryable: Option<bool>,
    /// The field of the message that is meant, where rejected and there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub field: Option<String>,
    /// The id of the last message of the topic, `0-0` for none, where the message was to follow another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub last_id: Option<MessageId>,
    /// The fence that stands against the one that was shown, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub fence: Option<MessageId>,
    /// Why the topic was cancelled, where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub reason: Option<String>,
    /// When the relay accepted the message, where accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub timestamp: Option<Timestamp>,
    /// How durable the message is, where more was asked for than that the storage has confirmed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub durability: Option<DurabilityTold>,
    /// By which the message is known until it is published, where scheduled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub schedule_id: Option<ScheduleId>,
    /// When it will be published, where scheduled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub deliver_at: Option<Timestamp>,
    /// True where the idempotency key had been used and this is the first answer again, or a message with the same `unique`
    /// waits or is worked on and this is its answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replayed: bool,
}

impl PublishResult {
    /// Returns one that says nothing beside its topic and its status.
    #[must_use]
    pub const fn new(topic: Option<String>, status: PublishStatus) -> Self {
        Self {
            message_id: None,
            topic,
            index: None,
            status,
            error: None,
            code: None,
            retryable: None,
            field: None,
            last_id: None,
            fence: None,
            reason: None,
            timestamp: None,
            durability: None,
            schedule_id: None,
            deliver_at: None,
            replayed: false,
        }
    }
}

/// A message as a client reads it.
///
/// Exactly one of `payload`, `payload_text` and `payload_base64` is present on the wire.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Message {
    /// The id; opaque, and ordered within the topic.
    pub message_id: MessageId,
    /// The topic.
    pub topic: TopicName,
    /// The payload, if it is JSON: byte for byte as it was published, with the white space around it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value, required = false))]
    pub payload: Option<Box<RawValue>>,
    /// The payload, if it is text: its content type is `text/…`, and it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_text: Option<String>,
    /// The payload in base64 (RFC 4648 section 4), if it is neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
    /// The content type it was published with; absent where that is `application/json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// When the relay accepted it.
    pub timestamp: Timestamp,
    /// The publisher's own JSON object, if it sent one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub metadata: Option<Box<RawValue>>,
    /// The order key it was published with, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub order_key: Option<OrderKey>,
}

/// A message that is about to be written: borrowed, so that stored bytes are copied once, into the
/// answer, and never decoded.
#[derive(Clone, Copy, Debug)]
pub struct MessageRef<'a> {
    /// The id.
    pub message_id: MessageId,
    /// The topic.
    pub topic: &'a TopicName,
    /// The payload.
    pub payload: PayloadRef<'a>,
    /// When the relay accepted it.
    pub timestamp: Timestamp,
    /// A JSON object, valid and in UTF-8.
    pub metadata: Option<&'a [u8]>,
    /// The order key.
    pub order_key: Option<&'a OrderKey>,
}

/// A way to write a message. Whoever sends one message to many keeps what was written, by the name.
#[derive(Clone, Copy, Debug)]
pub struct MessageEncoding {
    /// What no other encoding is called.
    pub name: &'static str,
    /// Appends a message.
    pub write: fn(&MessageRef<'_>, &mut Vec<u8>),
}

impl MessageRef<'_> {
    /// Appends the message to `out` as a JSON object, in the form that [`Message`] reads.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        // Names, ids and times hold nothing that JSON escapes.
        put_all(
            out,
            &[r#"{"message_id":""#, &self.message_id.text(), r#"","topic":""#, self.topic.as_str(), r#"","#],
        );
        self.payload.write_json("payload", out);
        put_all(out, &[r#","timestamp":""#, &self.timestamp.text(), r#"""#]);
        if let Some(metadata) = self.metadata {
            out.extend_from_slice(br#","metadata":"#);
            out.extend_from_slice(metadata);
        }
        if let Some(key) = self.order_key {
            out.extend_from_slice(br#","order_key":"#);
            // Writing a text into a vector cannot fail.
            let _ = serde_json::to_writer(&mut *out, key);
        }
        out.push(b'}');
    }
}

fn put_all(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

impl Message {
    /// Returns the payload's bytes: the JSON text without the white space around it, the text, or what
    /// the base64 stands for.
    ///
    /// # Errors
    /// `payload_base64` is not base64.
    pub fn payload_bytes(&self) -> Result<Vec<u8>, base64::DecodeError> {
        match (&self.payload, &self.payload_text, &self.payload_base64) {
            (Some(json), ..) => Ok(json.get().as_bytes().to_vec()),
            (None, Some(text), _) => Ok(text.as_bytes().to_vec()),
            (None, None, Some(text)) => BASE64.decode(text),
            // The reader took `"payload": null` for an absent one.
            (None, None, None) => Ok(b"null".to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::TEXT_ESCAPED_BYTES_MAX;

    fn written(payload: PayloadRef<'_>, metadata: Option<&[u8]>) -> String {
        let topic = TopicName::parse("t").expect("a valid name");
        let message = MessageRef {
            message_id: MessageId::new(5, 1),
            topic: &topic,
            payload,
            timestamp: Timestamp::from_millis(5),
            metadata,
            order_key: None,
        };
        let mut out = Vec::new();
        message.write_json(&mut out);
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn json_is_copied_byte_for_byte() {
        let payload = "\r\n {\"b\":1.10, \"a\":\"\\u00e9é\",\n\"n\":123456789012345678901234567890}\t";
        for (content_type, told) in [
            (None, ""),
            (Some("application/geo+json; a=\"b\""), r#","content_type":"application/geo+json; a=\"b\"""#),
        ] {
            let text = written(PayloadRef { bytes: payload.as_bytes(), content_type }, Some(br#"{"k":"v"}"#));
            assert_eq!(
                text,
                format!(
                    r#"{{"message_id":"5-1","topic":"t","payload":{payload}{told},"timestamp":"1970-01-01T00:00:00.005Z","metadata":{{"k":"v"}}}}"#
                )
            );
            let message: Message = serde_json::from_str(&text).expect("what is written can be read");
            assert_eq!(message.payload_bytes().expect("JSON"), payload.trim_ascii().as_bytes());
            assert_eq!(message.content_type.as_deref(), content_type);
        }
    }

    #[test]
    fn other_bytes_come_back_as_text_or_through_base64() {
        let text = |bytes: &'static [u8], content_type| (bytes, content_type, true);
        let base64 = |bytes: &'static [u8], content_type| (bytes, content_type, false);
        for (bytes, content_type, is_text) in [
            base64(b"", "a/b; c=\"d\""),
            base64(b"\xff\xfe", "a/b"),
            base64(b"plain", "application/xml"),
            base64(b"\0\x01\x02\xff", "text/plain"),
            base64("é".as_bytes(), "text/plain; charset=latin1"),
            text(b"", "text/plain"),
            text(b"\0\r\n\t\"\\", "text/csv; header=absent"),
            text("é\u{2028}\u{feff}".as_bytes(), "Text/HTML; charset=UTF-8"),
        ] {
            let written = written(PayloadRef { bytes, content_type: Some(content_type) }, None);
            let message: Message = serde_json::from_str(&written).expect("what is written can be read");
            assert_eq!(message.payload_bytes().expect("base64"), bytes);
            assert_eq!(message.content_type.as_deref(), Some(content_type));
            assert_eq!(
                (message.payload_text.is_some(), message.payload_base64.is_some()),
                (is_text, !is_text)
            );
            assert!(message.payload.is_none());
        }
    }

    #[test]
    fn a_large_text_takes_no_more_than_other_bytes() {
        for (text, is_text) in [
            ("\n".repeat(TEXT_ESCAPED_BYTES_MAX / 2 - 20), true),
            ("\n".repeat(TEXT_ESCAPED_BYTES_MAX), false),
            ("a line of a log\n".repeat(TEXT_ESCAPED_BYTES_MAX), true),
        ] {
            let payload = PayloadRef { bytes: text.as_bytes(), content_type: Some("text/plain") };
            let written = written(payload, None);
            assert!(written.len() <= text.len() * 4 / 3 + TEXT_ESCAPED_BYTES_MAX + 200);
            let message: Message = serde_json::from_str(&written).expect("what is written can be read");
            assert_eq!(message.payload_text.is_some(), is_text, "{}", text.len());
            assert_eq!(message.payload_bytes().expect("base64"), text.as_bytes());
        }
    }
}
