//! Messages, as they come and as they are to be published.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use tidemill_proto::frame::{self, ClientFrame};
use tidemill_proto::locks::Fence;
use tidemill_proto::work::GroupName;
use tidemill_proto::{
    Delivery, Durability, DurabilityTold, MessageId, MessageRef, OrderKey, PayloadRef, ScheduleId, Timestamp,
    TopicName, Trace,
};

use crate::connection::Received;

/// A message as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The id; opaque, and ordered within the topic.
    pub message_id: MessageId,
    /// The topic.
    pub topic: TopicName,
    /// The payload, byte for byte as it was published, with the white space around it. [`is_json`](Self::is_json)
    /// tells whether it is JSON.
    pub payload: Bytes,
    /// The content type it was published with; `None` for JSON that has no other.
    pub content_type: Option<String>,
    /// When the relay accepted it.
    pub timestamp: Timestamp,
    /// The publisher's own JSON object, if it sent one.
    pub metadata: Option<Bytes>,
    /// The order key it was published with, if it was.
    pub order_key: Option<OrderKey>,
}

impl Message {
    pub(crate) fn new(frame: frame::Message<'_>, received: &Received) -> Self {
        Self {
            message_id: frame.message_id,
            topic: frame.topic,
            payload: received.share(&frame.payload),
            content_type: frame.content_type.map(std::borrow::Cow::into_owned),
            timestamp: frame.timestamp,
            metadata: frame.metadata.map(|metadata| received.share(&metadata)),
            order_key: frame.order_key,
        }
    }

    /// Returns whether the payload is JSON.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.as_message_ref().payload.is_json()
    }

    /// Returns the message as a frame is written from.
    #[must_use]
    pub fn as_message_ref(&self) -> MessageRef<'_> {
        MessageRef {
            message_id: self.message_id,
            topic: &self.topic,
            payload: PayloadRef { bytes: &self.payload, content_type: self.content_type.as_deref() },
            timestamp: self.timestamp,
            metadata: self.metadata.as_deref(),
            order_key: self.order_key.as_ref(),
        }
    }
}

/// A message to publish.
#[derive(Clone, Debug)]
pub struct NewMessage {
    topic: TopicName,
    payload: Payload,
    metadata: Option<Box<RawValue>>,
    ttl_seconds: Option<u64>,
    key: Option<Key>,
    delivery: Option<Delivery>,
    expected_last: Option<MessageId>,
    order_key: Option<OrderKey>,
    unique: Option<(GroupName, String)>,
    durability: Option<Durability>,
    fence: Option<Fence>,
}

/// An idempotency key.
#[derive(Clone, Debug)]
struct Key {
    text: String,
    /// Whether the message may be published without it.
    is_optional: bool,
}

#[derive(Clone, Debug)]
enum Payload {
    Json(Box<RawValue>),
    Bytes { bytes: Bytes, content_type: String },
}

impl NewMessage {
    /// Returns a message whose payload is a value in JSON.
    ///
    /// # Errors
    /// The value has no form in JSON.
    pub fn json(topic: &TopicName, value: &(impl Serialize + ?Sized)) -> Result<Self, serde_json::Error> {
        Ok(Self::raw_json(topic, serde_json::value::to_raw_value(value)?))
    }

    /// Returns a message whose payload is JSON already; it is kept byte for byte.
    #[must_use]
    pub fn raw_json(topic: &TopicName, payload: Box<RawValue>) -> Self {
        Self::new(topic, Payload::Json(payload))
    }

    /// Returns a message of any bytes. Where the content type names JSON they must be JSON, and are kept with
    /// the white space around it.
    #[must_use]
    pub fn bytes(topic: &TopicName, bytes: impl Into<Bytes>, content_type: &str) -> Self {
        let content_type = content_type.to_owned();
        Self::new(topic, Payload::Bytes { bytes: bytes.into(), content_type })
    }

    fn new(topic: &TopicName, payload: Payload) -> Self {
        Self {
            topic: topic.clone(),
            payload,
            metadata: None,
            ttl_seconds: None,
            key: None,
            delivery: None,
            expected_last: None,
            order_key: None,
            unique: None,
            durability: None,
            fence: None,
        }
    }

    /// Adds a JSON object of the publisher's own, served with the message.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Box<RawValue>) -> Self {
        self.metadata = Some(metadata);
        self
    }

    /// Adds the trace that the message is part of to its metadata, unless that has one: who gets it goes on with it.
    #[must_use]
    pub fn with_trace(mut self, trace: &Trace) -> Self {
        self.metadata = trace.note(self.metadata.take());
        self
    }

    /// Sets the seconds after which the message is no longer served.
    #[must_use]
    pub fn with_ttl_seconds(mut self, seconds: u64) -> Self {
        self.ttl_seconds = Some(seconds);
        self
    }

    /// Sets the idempotency key, in place of one that the publisher makes: under one key the relay
    /// keeps one message, whoever publishes it again and however often.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(Key { text: key.into(), is_optional: false });
        self
    }

    /// Has the message kept only where this is the id of the last message that the topic was given;
    /// [`MessageId::MIN`] where it was given none, or does not exist. Else it is refused with
    /// [`Code::LastMismatch`](tidemill_proto::Code::LastMismatch), and
    /// [`last_id`](crate::Refusal::last_id) has the real one.
    #[must_use]
    pub fn with_expected_last(mut self, last: MessageId) -> Self {
        self.expected_last = Some(last);
        self
    }

    /// Sets the order key: groups with [`Ordering::ByKey`](tidemill_proto::work::Ordering::ByKey) give out one message of a
    /// key at a time, in their order.
    #[must_use]
    pub fn with_order_key(mut self, key: OrderKey) -> Self {
        self.order_key = Some(key);
        self
    }

    /// Has the message kept only where no message of this key waits or is worked on in the group of its topic; else it is
    /// [`Published`] as that one, with `replayed`. The key is 1 to 255 visible ASCII characters.
    #[must_use]
    pub fn with_unique(mut self, group: &GroupName, key: impl Into<String>) -> Self {
        self.unique = Some((group.clone(), key.into()));
        self
    }

    /// Sets how durable the message must be before it counts as published, in place of what is set for its topic or the
    /// relay. Where that is not reached in time it is refused with
    /// [`Code::DurabilityNotReached`](tidemill_proto::Code::DurabilityNotReached), although it is kept; one with a key is then
    /// published again, which finds it and waits anew. It does not stand beside a time at which it is published.
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// Shows that the publisher holds a lock, as [`Lock::named_fence`](crate::Lock::named_fence) says it. Once another holds the lock the
    /// message is not kept and is refused with [`Code::Fenced`](tidemill_proto::Code::Fenced);
    /// [`fence`](crate::Refusal::fence) of the refusal is the one that stands against it, where there is one. It does not
    /// stand beside a time at which the message is published, nor beside a unique key.
    #[must_use]
    pub fn with_fence(mut self, fence: Fence) -> Self {
        self.fence = Some(fence);
        self
    }

    /// Sets an idempotency key that is left out where the relay remembers as many as it may, as are those
    /// that the publisher makes: the message is rather published without it than refused.
    #[must_use]
    pub fn with_optional_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(Key { text: key.into(), is_optional: true });
        self
    }

    /// Has it published later.
    pub(crate) fn at(mut self, delivery: Delivery) -> Self {
        self.delivery = Some(delivery);
        self
    }

    pub(crate) fn has_key(&self) -> bool {
        self.key.is_some()
    }

    pub(crate) fn has_optional_key(&self) -> bool {
        self.key.as_ref().is_some_and(|key| key.is_optional)
    }

    /// Leaves out a key without which the message may be published.
    pub(crate) fn leave_out_key(&mut self) {
        self.key.take_if(|key| key.is_optional);
    }

    /// Returns about how much of the window the message takes.
    pub(crate) fn len_bytes(&self) -> usize {
        let payload = match &self.payload {
            Payload::Json(json) => json.get().len(),
            Payload::Bytes { bytes, .. } => bytes.len(),
        };
        payload + self.metadata.as_ref().map_or(0, |metadata| metadata.get().len())
    }

    pub(crate) fn frame<'a>(&'a self, reference: &'a str) -> ClientFrame<'a> {
        let (payload, content_type) = match &self.payload {
            Payload::Json(json) => (json.get().as_bytes(), None),
            Payload::Bytes { bytes, content_type } => (bytes.as_ref(), Some(content_type.as_str())),
        };
        ClientFrame::Publish(frame::Publish {
            reference: Some(reference.into()),
            topic: self.topic.as_str().into(),
            payload: payload.into(),
            content_type: content_type.map(Into::into),
            metadata: self.metadata.as_ref().map(|metadata| metadata.get().as_bytes()),
            ttl: self.ttl_seconds,
            key: self.key.as_ref().map(|key| key.text.as_str().into()),
            delivery: self.delivery,
            expected_last: self.expected_last.map(|last| last.to_string().into()),
            order_key: self.order_key.as_ref().map(|key| key.as_str().into()),
            unique: self.unique.as_ref().map(|(group, key)| (group.as_str().into(), key.as_str().into())),
            durability: self.durability.map(|durability| durability.to_string().into()),
            fence: self.fence.as_ref().map(|fence| fence.to_string().into()),
        })
    }
}

/// The answer to a publish: the backend has the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The id that the backend gave the message.
    pub message_id: MessageId,
    /// The topic.
    pub topic: TopicName,
    /// When the relay accepted it.
    pub timestamp: Timestamp,
    /// Whether the idempotency key had been used, or a message of its unique key was there, so that this is the first answer
    /// again.
    pub replayed: bool,
    /// How durable it is, where more was asked for than that the storage has confirmed it.
    pub durability: Option<DurabilityTold>,
}

/// The answer to a publish for later: the backend has the message, and it will be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduled {
    /// By which the message is known until it is published.
    pub schedule_id: ScheduleId,
    /// The topic.
    pub topic: TopicName,
    /// When it will be published.
    pub deliver_at: Timestamp,
    /// Whether the idempotency key had been used, so that this is the first answer again.
    pub replayed: bool,
}

/// What became of a message that was handed over.
#[derive(Debug)]
pub(crate) enum Taken {
    Published(Published),
    Scheduled(Scheduled),
}

/// What a receipt may wait for.
pub(crate) trait OfTaken: Sized {
    /// Returns what is waited for, if it is that.
    fn of(taken: Taken) -> Option<Self>;
}

impl OfTaken for Published {
    fn of(taken: Taken) -> Option<Self> {
        match taken {
            Taken::Published(published) => Some(published),
            Taken::Scheduled(_) => None,
        }
    }
}

impl OfTaken for Scheduled {
    fn of(taken: Taken) -> Option<Self> {
        match taken {
            Taken::Scheduled(scheduled) => Some(scheduled),
            Taken::Published(_) => None,
        }
    }
}
