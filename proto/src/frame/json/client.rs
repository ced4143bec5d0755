//! The client's side of the JSON encoding: writes what a client sends, reads what the relay sends.
//!
//! Reading takes fields that it does not know, so that a newer relay may say more. It must not know
//! what a client does with a frame.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::duration::Seconds;
use crate::frame::{ClientFrame, Consume, Consuming, ErrorClass, ErrorFrame, Publish, ServerFrame};
use crate::gap::{Gap, GapReason};
use crate::topics::{Closed, RunState};
use crate::work::{ConsumerName, GroupName, Settled};
use crate::{
    Code, Delivery, DurabilityTold, MessageId, OrderKey, PatternCursor, PayloadRef, ScheduleId, Timestamp,
    TopicName, TopicPattern, TopicSelector, content_type,
};

mod message;
mod watch;
mod work;

/// Why a text is not a frame of a relay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerFrameError {
    /// A type that this version does not know. A client passes such a frame over.
    #[error("a frame has a type that is not known: {0}")]
    UnknownType(String),
    /// The text is not a JSON object, or a field has another form.
    #[error("a frame cannot be read: {0}")]
    Malformed(String),
    /// The type needs this field.
    #[error("a frame of type `{0}` lacks a valid `{1}`")]
    Missing(&'static str, &'static str),
}

/// Every field that any frame of the relay can have.
#[derive(Deserialize)]
struct AnyServerFrame<'a> {
    /// Absent in a message of a group, which is no frame of its own.
    #[serde(rename = "type", borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(rename = "ref", borrow, default)]
    reference: Option<Cow<'a, str>>,
    #[serde(default)]
    topic: Option<TopicSelector>,
    #[serde(default)]
    topics: Option<Vec<TopicSelector>>,
    #[serde(default)]
    absent: Option<Vec<TopicName>>,
    #[serde(default)]
    cursors: Option<Cursors>,
    #[serde(default)]
    cursor: Option<PatternCursor>,
    #[serde(default)]
    message_id: Option<MessageId>,
    #[serde(default)]
    durability: Option<DurabilityTold>,
    #[serde(default)]
    schedule_id: Option<ScheduleId>,
    #[serde(default)]
    deliver_at: Option<Timestamp>,
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
    #[serde(default)]
    order_key: Option<OrderKey>,
    #[serde(default)]
    timestamp: Option<Timestamp>,
    #[serde(default)]
    replayed: bool,
    #[serde(borrow, default)]
    session_id: Option<Cow<'a, str>>,
    #[serde(default)]
    from: Option<MessageId>,
    #[serde(default)]
    to: Option<MessageId>,
    #[serde(borrow, default)]
    reason: Option<Cow<'a, str>>,
    #[serde(default)]
    state: Option<RunState>,
    #[serde(default)]
    missed: Option<u64>,
    #[serde(borrow, default)]
    code: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    message: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    details: Option<Details<'a>>,
    #[serde(default)]
    group: Option<GroupName>,
    #[serde(default)]
    consumer: Option<ConsumerName>,
    #[serde(default)]
    credit: Option<u32>,
    #[serde(borrow, default)]
    messages: Option<Vec<&'a RawValue>>,
    #[serde(borrow, default)]
    receipt: Option<Cow<'a, str>>,
    #[serde(default)]
    deadline: Option<Timestamp>,
    #[serde(borrow, default)]
    cancelled: Option<Cow<'a, str>>,
    #[serde(default)]
    results: Option<Vec<Settled>>,
}

/// Cursors by topic and by pattern, as texts: what each must be depends on which of the two it is of.
type Cursors = BTreeMap<TopicSelector, String>;

#[derive(Deserialize)]
struct Details<'a> {
    #[serde(borrow)]
    code: Cow<'a, str>,
    #[serde(default)]
    retryable: bool,
    #[serde(borrow, default)]
    field: Option<Cow<'a, str>>,
    #[serde(default)]
    retry_after_seconds: Option<u64>,
    #[serde(default)]
    last_id: Option<MessageId>,
    #[serde(borrow, default)]
    reason: Option<Cow<'a, str>>,
    #[serde(default)]
    message_id: Option<MessageId>,
    #[serde(default)]
    durability: Option<DurabilityTold>,
    #[serde(default)]
    fence: Option<MessageId>,
}

/// Reads a frame of the relay.
///
/// # Errors
/// The text is not a frame, or one of a type that this version does not know.
pub fn read_server(text: &str) -> Result<ServerFrame<'_>, ServerFrameError> {
    // The decoder would take an array for a structure whose fields stand in order.
    if !text.trim_start().starts_with('{') {
        return Err(ServerFrameError::Malformed("it is not a JSON object".to_owned()));
    }
    let mut any = parse(text)?;
    let kind = any.kind.take().ok_or_else(|| ServerFrameError::Malformed("it has no `type`".to_owned()))?;
    match kind.as_ref() {
        "message" => message::read(text, any).map(ServerFrame::Message),
        "published" => Ok(ServerFrame::Published {
            message_id: any.message_id.ok_or(ServerFrameError::Missing("published", "message_id"))?,
            topic: name(any.topic).ok_or(ServerFrameError::Missing("published", "topic"))?,
            timestamp: any.timestamp.ok_or(ServerFrameError::Missing("published", "timestamp"))?,
            reference: any.reference,
            replayed: any.replayed,
            durability: any.durability,
        }),
        "scheduled" => Ok(ServerFrame::Scheduled {
            schedule_id: any.schedule_id.ok_or(ServerFrameError::Missing("scheduled", "schedule_id"))?,
            topic: name(any.topic).ok_or(ServerFrameError::Missing("scheduled", "topic"))?,
            deliver_at: any.deliver_at.ok_or(ServerFrameError::Missing("scheduled", "deliver_at"))?,
            reference: any.reference,
            replayed: any.replayed,
        }),
        "gap" => read_gap(any).map(ServerFrame::Gap),
        "error" => read_error(any).map(ServerFrame::Error),
        "subscribed" => {
            let Apart { topics, patterns } = read_topics("subscribed", any.topics, any.cursors)?;
            Ok(ServerFrame::Subscribed {
                topics,
                patterns,
                absent: any.absent.unwrap_or_default(),
                reference: any.reference,
                session_id: any.session_id.unwrap_or_default(),
                timestamp: any.timestamp.ok_or(ServerFrameError::Missing("subscribed", "timestamp"))?,
            })
        }
        "unsubscribed" => {
            let Apart { topics, patterns } = read_topics("unsubscribed", any.topics, any.cursors)?;
            Ok(ServerFrame::Unsubscribed { topics, patterns })
        }
        "pong" => Ok(ServerFrame::Pong {
            reference: any.reference,
            timestamp: any.timestamp.ok_or(ServerFrameError::Missing("pong", "timestamp"))?,
        }),
        "end" => {
            let Apart { topics, patterns } = set_apart("end", any.cursors.unwrap_or_default())?;
            Ok(ServerFrame::End { reason: any.reason.unwrap_or_default(), cursors: topics, patterns })
        }
        "cursor" => match (any.topic, any.cursor) {
            (Some(TopicSelector::Pattern(pattern)), Some(cursor)) => {
                Ok(ServerFrame::Cursor { pattern, cursor })
            }
            (Some(TopicSelector::Pattern(_)), None) => Err(ServerFrameError::Missing("cursor", "cursor")),
            (Some(TopicSelector::Topic(_)) | None, _) => Err(ServerFrameError::Missing("cursor", "topic")),
        },
        "closed" => Ok(ServerFrame::Closed(Closed {
            topic: name(any.topic).ok_or(ServerFrameError::Missing("closed", "topic"))?,
            state: any.state.ok_or(ServerFrameError::Missing("closed", "state"))?,
            reason: any.reason.map(Cow::into_owned),
        })),
        "consuming" => Ok(ServerFrame::Consuming(Consuming {
            topic: name(any.topic).ok_or(ServerFrameError::Missing("consuming", "topic"))?,
            group: any.group.ok_or(ServerFrameError::Missing("consuming", "group"))?,
            consumer: any.consumer.ok_or(ServerFrameError::Missing("consuming", "consumer"))?,
            credit: any.credit.ok_or(ServerFrameError::Missing("consuming", "credit"))?,
            reference: any.reference,
        })),
        "work" => work::read(any).map(ServerFrame::Work),
        "settled" => Ok(ServerFrame::Settled {
            results: any.results.ok_or(ServerFrameError::Missing("settled", "results"))?,
            reference: any.reference,
        }),
        other if let Some(kind) = watch::KINDS.into_iter().find(|kind| *kind == other) => {
            watch::read(kind, text, any).map(ServerFrame::Watched)
        }
        other => Err(ServerFrameError::UnknownType(other.to_owned())),
    }
}

fn parse(text: &str) -> Result<AnyServerFrame<'_>, ServerFrameError> {
    parse_as(text)
}

fn parse_as<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, ServerFrameError> {
    serde_json::from_str(text).map_err(|error| ServerFrameError::Malformed(error.to_string()))
}

/// Returns the topic of a frame that is of one topic.
fn name(topic: Option<TopicSelector>) -> Option<TopicName> {
    match topic {
        Some(TopicSelector::Topic(topic)) => Some(topic),
        Some(TopicSelector::Pattern(_)) | None => None,
    }
}

fn read_gap(any: AnyServerFrame<'_>) -> Result<Gap, ServerFrameError> {
    let missing = |field| ServerFrameError::Missing("gap", field);
    let reason = any.reason.ok_or(missing("reason"))?;
    Ok(Gap {
        topic: name(any.topic).ok_or(missing("topic"))?,
        from: any.from.ok_or(missing("from"))?,
        to: any.to.ok_or(missing("to"))?,
        reason: GapReason::ALL.into_iter().find(|known| known.as_str() == reason).ok_or(missing("reason"))?,
        missed: any.missed,
    })
}

fn read_error(any: AnyServerFrame<'_>) -> Result<ErrorFrame<'_>, ServerFrameError> {
    let missing = |field| ServerFrameError::Missing("error", field);
    let details = any.details.ok_or(missing("details"))?;
    let class = match any.code.as_deref() {
        Some("SUBSCRIPTION_ERROR") => ErrorClass::Subscription,
        Some("UNKNOWN_MESSAGE_TYPE") => ErrorClass::UnknownType,
        Some("PROCESSING_ERROR") => ErrorClass::Processing,
        Some(_) => ErrorClass::Publish,
        None => return Err(missing("code")),
    };
    Ok(ErrorFrame {
        reference: any.reference,
        class,
        // A code of a newer relay must not end the connection; what is said with it still holds.
        code: Code::named(&details.code).unwrap_or(Code::Internal),
        message: any.message.unwrap_or_default(),
        field: details.field,
        retryable: details.retryable,
        retry_after_seconds: details.retry_after_seconds,
        last_id: details.last_id,
        reason: details.reason,
        message_id: details.message_id,
        durability: details.durability,
        fence: details.fence,
    })
}

/// Topics and patterns, which stand together in JSON, with their cursors.
#[derive(Default)]
struct Apart {
    topics: Vec<(TopicName, MessageId)>,
    patterns: Vec<(TopicPattern, PatternCursor)>,
}

fn read_topics(
    kind: &'static str,
    topics: Option<Vec<TopicSelector>>,
    cursors: Option<Cursors>,
) -> Result<Apart, ServerFrameError> {
    let topics = topics.ok_or(ServerFrameError::Missing(kind, "topics"))?;
    let mut cursors = cursors.ok_or(ServerFrameError::Missing(kind, "cursors"))?;
    let cursors = topics.into_iter().map(|topic| {
        let cursor = cursors.remove(&topic).ok_or(ServerFrameError::Missing(kind, "cursors"))?;
        Ok((topic, cursor))
    });
    set_apart(kind, cursors.collect::<Result<Vec<_>, _>>()?)
}

fn set_apart(
    kind: &'static str,
    cursors: impl IntoIterator<Item = (TopicSelector, String)>,
) -> Result<Apart, ServerFrameError> {
    let missing = ServerFrameError::Missing(kind, "cursors");
    let mut apart = Apart::default();
    for (topic, text) in cursors {
        match topic {
            TopicSelector::Topic(topic) => {
                let cursor = MessageId::parse(&text).map_err(|_| missing.clone())?;
                apart.topics.push((topic, cursor));
            }
            TopicSelector::Pattern(pattern) => {
                let cursor = PatternCursor::parse(&text).map_err(|_| missing.clone())?;
                apart.patterns.push((pattern, cursor));
            }
        }
    }
    Ok(apart)
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Sent<'a> {
    Subscribe {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a str>,
        topics: &'a [Cow<'a, str>],
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        cursors: BTreeMap<&'a str, &'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        offset: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        client_id: Option<&'a str>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        must_exist: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        view: Option<&'a str>,
    },
    Unsubscribe {
        topics: &'a [Cow<'a, str>],
    },
    Ping {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a str>,
    },
    Ack {
        message_id: &'a str,
    },
    Consume {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a str>,
        topic: &'a str,
        group: &'a str,
        credit: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        consumer: Option<&'a str>,
    },
    Unwatch {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a str>,
        watch: &'a str,
    },
}

/// Appends a client's frame to `out` as one JSON object. A payload of JSON and metadata are copied as they
/// are and must be valid JSON.
pub fn write_client(frame: &ClientFrame<'_>, out: &mut Vec<u8>) {
    let sent = match frame {
        ClientFrame::Publish(publish) => return write_publish(publish, out),
        ClientFrame::Subscribe(it) => Sent::Subscribe {
            reference: it.reference.as_deref(),
            topics: &it.topics,
            cursors: it.cursors.iter().map(|(topic, cursor)| (topic.as_ref(), cursor.as_ref())).collect(),
            offset: it.offset.as_deref(),
            client_id: it.client_id.as_deref(),
            must_exist: it.must_exist,
            view: it.view.as_deref(),
        },
        ClientFrame::Unsubscribe { topics } => Sent::Unsubscribe { topics },
        ClientFrame::Ping { reference } => Sent::Ping { reference: reference.as_deref() },
        ClientFrame::Ack { message_id } => Sent::Ack { message_id },
        ClientFrame::Settle(settle) => return work::write_settle(settle, out),
        ClientFrame::Watch(frame) => return watch::write(frame, out),
        ClientFrame::Unwatch { reference, watch } => Sent::Unwatch { reference: reference.as_deref(), watch },
        ClientFrame::Consume(Consume { reference, topic, group, credit, consumer }) => Sent::Consume {
            reference: reference.as_deref(),
            topic,
            group,
            credit: *credit,
            consumer: consumer.as_deref(),
        },
    };
    write_value(&sent, out);
}

fn write_publish(publish: &Publish<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"publish","topic":"#);
    write_value(&publish.topic, out);
    if let Some(reference) = &publish.reference {
        out.extend_from_slice(br#","ref":"#);
        write_value(reference, out);
    }
    if let Some(key) = &publish.key {
        out.extend_from_slice(br#","key":"#);
        write_value(key, out);
    }
    if let Some(last) = &publish.expected_last {
        out.extend_from_slice(br#","expected_last":"#);
        write_value(last, out);
    }
    if let Some(key) = &publish.order_key {
        out.extend_from_slice(br#","order_key":"#);
        write_value(key, out);
    }
    if let Some((group, key)) = &publish.unique {
        out.extend_from_slice(br#","unique":{"group":"#);
        write_value(group, out);
        out.extend_from_slice(br#","key":"#);
        write_value(key, out);
        out.push(b'}');
    }
    if let Some(durability) = &publish.durability {
        out.extend_from_slice(br#","durability":"#);
        write_value(durability, out);
    }
    if let Some(fence) = &publish.fence {
        out.extend_from_slice(br#","fence":"#);
        write_value(fence, out);
    }
    if let Some(ttl) = publish.ttl {
        out.extend_from_slice(br#","ttl":"#);
        write_value(&ttl, out);
    }
    match publish.delivery {
        None => {}
        Some(Delivery::After(delay)) => {
            out.extend_from_slice(br#","delay":"#);
            write_value(&Seconds(delay), out);
        }
        Some(Delivery::At(at)) => {
            out.extend_from_slice(br#","deliver_at":"#);
            write_value(&at, out);
        }
    }
    if let Some(metadata) = publish.metadata {
        out.extend_from_slice(br#","metadata":"#);
        out.extend_from_slice(metadata);
    }
    write_payload(PayloadRef { bytes: &publish.payload, content_type: publish.content_type.as_deref() }, out);
    out.push(b'}');
}

/// Appends a payload as it can be read again: JSON with white space around it would lose that, which would
/// be taken for that of the frame.
fn write_payload(payload: PayloadRef<'_>, out: &mut Vec<u8>) {
    out.push(b',');
    if !payload.is_json() || payload.bytes.trim_ascii() == payload.bytes {
        return payload.write_json("payload", out);
    }
    out.extend_from_slice(br#""payload_base64":""#);
    out.extend_from_slice(BASE64.encode(payload.bytes).as_bytes());
    out.extend_from_slice(br#"","content_type":"#);
    write_value(payload.content_type.unwrap_or(content_type::JSON), out);
}

/// Appends a member of an object that has others before it.
fn write_member(name: &str, value: &(impl Serialize + ?Sized), out: &mut Vec<u8>) {
    out.extend_from_slice(format!(r#","{name}":"#).as_bytes());
    write_value(value, out);
}

fn write_value(value: &(impl Serialize + ?Sized), out: &mut Vec<u8>) {
    // Writing plain structures into a vector cannot fail.
    let _ = serde_json::to_writer(out, value);
}

#[cfg(test)]
mod tests;
