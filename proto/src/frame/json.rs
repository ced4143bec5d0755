//! Frames as JSON text: one object, its kind in `type`. NDJSON lines are the same objects.
//!
//! Payloads are borrowed from the text and copied into it as they are; they are never decoded.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{ClientFrame, Consuming, ErrorClass, ErrorFrame, Publish, ServerFrame, Subscribe};
use crate::limits::TTL_SECONDS_MAX;
use crate::message::{MessageEncoding, MessageRef};
use crate::payload::{NewPayload, PayloadMembers};
use crate::work::{ConsumerName, GroupName, Settled};
use crate::{
    Code, Delivery, DurabilityTold, MessageId, PatternCursor, Problem, ScheduleId, TopicName, TopicPattern,
    duration,
};

mod client;
mod refused;
mod watch;
mod work;

pub use client::{ServerFrameError, read_server, write_client};
pub use watch::{write_change_head, write_change_rest};
pub use work::write_work;

/// Every field that any client frame can have; which of them belong together depends on `type`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnyFrame<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(rename = "ref", borrow, default)]
    reference: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    topics: Option<Vec<Cow<'a, str>>>,
    #[serde(borrow, default)]
    cursors: Option<BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
    #[serde(borrow, default)]
    offset: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    client_id: Option<Cow<'a, str>>,
    #[serde(default)]
    must_exist: Option<bool>,
    #[serde(borrow, default)]
    view: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    topic: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "crate::json::present")]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default)]
    payload_text: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    payload_base64: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    content_type: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow, default)]
    ttl: Option<&'a RawValue>,
    #[serde(borrow, default)]
    delay: Option<&'a RawValue>,
    #[serde(borrow, default)]
    deliver_at: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    expected_last: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    order_key: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    unique: Option<AnyUnique<'a>>,
    #[serde(borrow, default)]
    durability: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    fence: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    message_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    group: Option<Cow<'a, str>>,
    #[serde(default)]
    credit: Option<u64>,
    #[serde(borrow, default)]
    consumer: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    receipts: Option<Vec<Cow<'a, str>>>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    ack_wait: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reason: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    watch: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    bucket: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    prefix: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    room: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    cursor: Option<Cow<'a, str>>,
}

/// A group, and a key in it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnyUnique<'a> {
    #[serde(borrow)]
    group: Cow<'a, str>,
    #[serde(borrow)]
    key: Cow<'a, str>,
}

/// Why a text is not a frame, and which kind of frame it would have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameError {
    /// The `ref` that the answer should carry.
    pub reference: Option<String>,
    /// What kind of frame was refused.
    pub class: ErrorClass,
    /// What is wrong.
    pub problem: Problem,
}

/// Reads a client's frame.
///
/// # Errors
/// The text is not JSON, has no known `type`, has a field that is unknown or not of its form, or lacks one
/// that the type needs. The error has the frame's `ref` wherever it can be read.
pub fn read(text: &str) -> Result<ClientFrame<'_>, Box<FrameError>> {
    // The decoder would take an array for a structure whose fields stand in order.
    if !text.trim_start().starts_with('{') {
        return Err(refused::no_object());
    }
    let any: AnyFrame<'_> = serde_json::from_str(text).map_err(|error| refused::explain(text, &error))?;
    let reference = any.reference.clone();
    let refuse = |class, problem| {
        Box::new(FrameError {
            reference: reference.as_ref().map(|text| text.clone().into_owned()),
            class,
            problem,
        })
    };
    let missing = |class, field: &str| refuse(class, Problem::field(field, "is missing"));
    match any.kind.as_deref() {
        Some("subscribe") => match any.topics {
            Some(topics) => Ok(ClientFrame::Subscribe(Subscribe {
                reference: any.reference,
                topics,
                cursors: any.cursors.into_iter().flatten().collect(),
                offset: any.offset,
                client_id: any.client_id,
                must_exist: any.must_exist.unwrap_or_default(),
                view: any.view,
            })),
            None => Err(missing(ErrorClass::Subscription, "topics")),
        },
        Some("unsubscribe") => match any.topics {
            Some(topics) => Ok(ClientFrame::Unsubscribe { topics }),
            None => Err(missing(ErrorClass::Subscription, "topics")),
        },
        Some("publish") => {
            let refuse = |problem| refuse(ErrorClass::Publish, problem);
            let ttl = any.ttl.map(|json| duration::whole_seconds_json(json.get(), TTL_SECONDS_MAX));
            let ttl = ttl.transpose().map_err(|error| refuse(Problem::field("ttl", error)))?;
            let topic = any.topic.ok_or_else(|| missing(ErrorClass::Publish, "topic"))?;
            let members = PayloadMembers {
                json: any.payload,
                text: any.payload_text,
                base64: any.payload_base64,
                content_type: any.content_type,
            };
            let NewPayload { bytes: payload, content_type } =
                members.read().map_err(|problem| refuse(*problem))?;
            let delivery =
                delivery(any.delay, any.deliver_at.as_deref()).map_err(|problem| refuse(*problem))?;
            Ok(ClientFrame::Publish(Publish {
                reference: any.reference,
                topic,
                payload,
                content_type,
                metadata: any.metadata.map(|metadata| metadata.get().as_bytes()),
                ttl,
                key: any.key,
                delivery,
                expected_last: any.expected_last,
                order_key: any.order_key,
                unique: any.unique.map(|AnyUnique { group, key }| (group, key)),
                durability: any.durability,
                fence: any.fence,
            }))
        }
        Some("ping") => Ok(ClientFrame::Ping { reference: any.reference }),
        Some("ack") if any.receipts.is_none() && any.message_id.is_some() => {
            Ok(ClientFrame::Ack { message_id: any.message_id.unwrap_or_default() })
        }
        Some("ack") if any.receipts.is_some() && any.message_id.is_some() => {
            let rule = "stands beside `receipts`: one of the two says what is acknowledged";
            Err(refuse(ErrorClass::Processing, Problem::field("message_id", rule)))
        }
        Some("consume" | "ack" | "nack" | "extend" | "reject" | "release") => {
            work::read(any).map_err(|problem| refuse(ErrorClass::Processing, *problem))
        }
        Some("watch" | "unwatch") => {
            watch::read(any).map_err(|problem| refuse(ErrorClass::Processing, *problem))
        }
        Some(other) => {
            let rule = format!(
                "is {}; known are `subscribe`, `unsubscribe`, `publish`, `ping`, `consume`, `ack`, `nack`, `extend`, `reject`, `release`, `watch` and `unwatch`",
                serde_json::Value::from(other)
            );
            Err(refuse(ErrorClass::UnknownType, Problem::field("type", rule)))
        }
        None => Err(missing(ErrorClass::UnknownType, "type")),
    }
}

fn delivery(delay: Option<&RawValue>, at: Option<&str>) -> Result<Option<Delivery>, Box<Problem>> {
    let delay = delay.map(|json| Delivery::parse_delay_json(json.get())).transpose()?;
    Delivery::one_of(delay, at.map(Delivery::parse_at).transpose()?)
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Out<'a> {
    Subscribed {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a str>,
        topics: Vec<&'a str>,
        cursors: OutCursors<'a>,
        absent: &'a [TopicName],
        session_id: &'a str,
        timestamp: crate::Timestamp,
    },
    Unsubscribed {
        topics: Vec<&'a str>,
        cursors: OutCursors<'a>,
    },
    Scheduled {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a str>,
        schedule_id: &'a ScheduleId,
        topic: &'a TopicName,
        deliver_at: crate::Timestamp,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        replayed: bool,
    },
    Gap(&'a crate::gap::Gap),
    Pong {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a str>,
        timestamp: crate::Timestamp,
    },
    Error {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a str>,
        code: &'a str,
        message: &'a str,
        details: Details<'a>,
    },
    End {
        reason: &'a str,
        cursors: OutCursors<'a>,
    },
    Closed(&'a crate::topics::Closed),
    Cursor {
        topic: &'a TopicPattern,
        cursor: &'a PatternCursor,
    },
    Consuming {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a str>,
        topic: &'a TopicName,
        group: &'a GroupName,
        consumer: &'a ConsumerName,
        credit: u32,
    },
    Settled {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a str>,
        results: &'a [Settled],
    },
}

/// Cursors by topic and by pattern, whose texts are never the same.
type OutCursors<'a> = BTreeMap<&'a str, OutCursor<'a>>;

#[derive(Serialize)]
#[serde(untagged)]
enum OutCursor<'a> {
    Topic(MessageId),
    Pattern(&'a PatternCursor),
}

fn out_topics<'a>(
    topics: &'a [(TopicName, MessageId)],
    patterns: &'a [(TopicPattern, PatternCursor)],
) -> Vec<&'a str> {
    let patterns = patterns.iter().map(|(pattern, _)| pattern.as_str());
    topics.iter().map(|(topic, _)| topic.as_str()).chain(patterns).collect()
}

fn out_cursors<'a>(
    topics: &'a [(TopicName, MessageId)],
    patterns: &'a [(TopicPattern, PatternCursor)],
) -> OutCursors<'a> {
    let patterns = patterns.iter().map(|(pattern, cursor)| (pattern.as_str(), OutCursor::Pattern(cursor)));
    topics.iter().map(|(topic, cursor)| (topic.as_str(), OutCursor::Topic(*cursor))).chain(patterns).collect()
}

#[derive(Serialize)]
struct Details<'a> {
    code: Code,
    retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_id: Option<MessageId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<MessageId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    durability: Option<DurabilityTold>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fence: Option<MessageId>,
}

/// Appends a frame to `out` as one JSON object, without a line break of its own. Payload and metadata of
/// a message are copied as they are.
pub fn write(frame: &ServerFrame<'_>, out: &mut Vec<u8>) {
    match frame {
        ServerFrame::Message(message) => write_message_ref(&message.parts(), out),
        ServerFrame::Subscribed { reference, topics, patterns, absent, session_id, timestamp } => {
            write_out(
                &Out::Subscribed {
                    reference: reference.as_deref(),
                    topics: out_topics(topics, patterns),
                    cursors: out_cursors(topics, patterns),
                    absent,
                    session_id,
                    timestamp: *timestamp,
                },
                out,
            );
        }
        ServerFrame::Unsubscribed { topics, patterns } => {
            let cursors = out_cursors(topics, patterns);
            write_out(&Out::Unsubscribed { topics: out_topics(topics, patterns), cursors }, out);
        }
        ServerFrame::Published { reference, message_id, topic, timestamp, replayed, durability } => {
            out.extend_from_slice(br#"{"type":"published""#);
            put_reference(reference.as_deref(), out);
            // Writing into a vector cannot fail; names, ids and times hold nothing that JSON escapes.
            let _ = write!(
                out,
                r#","message_id":"{message_id}","topic":"{topic}","timestamp":"{timestamp}"{}"#,
                if *replayed { r#","replayed":true"# } else { "" }
            );
            if let Some(durability) = durability {
                out.extend_from_slice(br#","durability":"#);
                let _ = serde_json::to_writer(&mut *out, durability);
            }
            out.push(b'}');
        }
        ServerFrame::Scheduled { reference, schedule_id, topic, deliver_at, replayed } => {
            let reference = reference.as_deref();
            let (deliver_at, replayed) = (*deliver_at, *replayed);
            write_out(&Out::Scheduled { reference, schedule_id, topic, deliver_at, replayed }, out);
        }
        ServerFrame::Gap(gap) => write_out(&Out::Gap(gap), out),
        ServerFrame::Pong { reference, timestamp } => {
            write_out(&Out::Pong { reference: reference.as_deref(), timestamp: *timestamp }, out);
        }
        ServerFrame::Error(error) => write_error(error, out),
        ServerFrame::End { reason, cursors, patterns } => {
            write_out(&Out::End { reason, cursors: out_cursors(cursors, patterns) }, out);
        }
        ServerFrame::Cursor { pattern, cursor } => write_out(&Out::Cursor { topic: pattern, cursor }, out),
        ServerFrame::Closed(closed) => write_out(&Out::Closed(closed), out),
        ServerFrame::Consuming(Consuming { reference, topic, group, consumer, credit }) => {
            let (reference, credit) = (reference.as_deref(), *credit);
            write_out(&Out::Consuming { reference, topic, group, consumer, credit }, out);
        }
        ServerFrame::Work(work) => write_work(work.head(), work.handed(), out),
        ServerFrame::Settled { reference, results } => {
            write_out(&Out::Settled { reference: reference.as_deref(), results }, out);
        }
        ServerFrame::Watched(watched) => watch::write(watched, out),
    }
}

/// Appends a message frame to `out`, from its parts.
pub fn write_message_ref(message: &MessageRef<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    message.write_json(out);
    // The object's opening brace makes room for the type.
    out.splice(start..=start, *br#"{"type":"message","#);
}

/// A message frame, as the text of a WebSocket frame has it.
pub static MESSAGE: MessageEncoding = MessageEncoding { name: "text frame", write: write_message_ref };

fn write_error(error: &ErrorFrame<'_>, out: &mut Vec<u8>) {
    let code = match error.class {
        ErrorClass::Subscription => "SUBSCRIPTION_ERROR",
        ErrorClass::UnknownType => "UNKNOWN_MESSAGE_TYPE",
        ErrorClass::Processing => "PROCESSING_ERROR",
        ErrorClass::Publish => error.code.as_str(),
    };
    let details = Details {
        code: error.code,
        retryable: error.retryable,
        field: error.field.as_deref(),
        retry_after_seconds: error.retry_after_seconds,
        last_id: error.last_id,
        reason: error.reason.as_deref(),
        message_id: error.message_id,
        durability: error.durability,
        fence: error.fence,
    };
    let frame = Out::Error { reference: error.reference.as_deref(), code, message: &error.message, details };
    write_out(&frame, out);
}

/// Appends the reference of an answer, behind another member.
fn put_reference(reference: Option<&str>, out: &mut Vec<u8>) {
    if let Some(reference) = reference {
        out.extend_from_slice(br#","ref":"#);
        let _ = serde_json::to_writer(out, reference);
    }
}

fn write_out(frame: &Out<'_>, out: &mut Vec<u8>) {
    // Writing plain structures into a vector cannot fail.
    let _ = serde_json::to_writer(&mut *out, frame);
    let _ = out.flush();
}

/// Replaces the line breaks of JSON text by spaces. In valid JSON they stand between tokens only, so
/// the value stays the same; an NDJSON line and an SSE field must not hold any.
pub fn flatten_lines(json: &mut [u8]) {
    for byte in json {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}

#[cfg(test)]
mod tests;
