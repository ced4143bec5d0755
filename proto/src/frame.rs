//! Frames: what travels on a WebSocket in either direction.
//!
//! There is one set of frames and two encodings of it: JSON text ([`json`]), which today's clients
//! speak, and binary ([`binary`]), with the subprotocol [`BINARY_SUBPROTOCOL`]. A frame that one
//! encoding can say, the other can.

use std::borrow::Cow;

use crate::gap::Gap;
use crate::topics::Closed;
use crate::work::Settled;
use crate::{
    Code, Delivery, DurabilityTold, MessageId, MessageRef, OrderKey, PatternCursor, PayloadRef, Problem,
    ScheduleId, Timestamp, TopicName, TopicPattern,
};

pub mod binary;
pub mod json;
#[cfg(feature = "openapi")]
pub mod schema;
mod watch;
mod work;

pub use watch::{Change, WATCH_NAME_BYTES_MAX, Watch, WatchTarget, Watched};
pub use work::{CREDIT_MAX, Consume, Consuming, Delivered, HandedRef, Said, Settle, Work, WorkRef};

/// The subprotocol that selects the binary encoding.
pub const BINARY_SUBPROTOCOL: &str = "tidemill.bincode.v1";
/// The subprotocol that today's clients offer beside `bearer.<token>`; it selects JSON.
pub const BEARER_SUBPROTOCOL: &str = "bearer";

/// Most topics in one `subscribe` or `unsubscribe`.
pub const TOPICS_PER_FRAME_MAX: usize = 1_000;
/// Longest `ref` in bytes.
pub const REFERENCE_BYTES_MAX: usize = 128;

/// What a client sends. Texts are as they came: the session parses them and answers what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientFrame<'a> {
    /// Adds topics to what the connection reads.
    Subscribe(Subscribe<'a>),
    /// Takes topics away.
    Unsubscribe {
        /// The topics, as they were subscribed to; those that were not are passed over.
        topics: Vec<Cow<'a, str>>,
    },
    /// Publishes a message.
    Publish(Publish<'a>),
    /// Asks for a `pong`.
    Ping {
        /// Comes back with the answer.
        reference: Option<Cow<'a, str>>,
    },
    /// Today's clients send it. It has no effect: a reader's position is its cursor.
    Ack {
        /// The message.
        message_id: Cow<'a, str>,
    },
    /// Has the connection given messages of a group.
    Consume(Consume<'a>),
    /// Says what became of messages of groups.
    Settle(Settle<'a>),
    /// Watches keys, or members of a room.
    Watch(Watch<'a>),
    /// Ends that.
    Unwatch {
        /// Comes back with the answer.
        reference: Option<Cow<'a, str>>,
        /// The watch; one that there is not is passed over.
        watch: Cow<'a, str>,
    },
}

/// A `subscribe` frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Comes back with the answer.
    pub reference: Option<Cow<'a, str>>,
    /// The topics: names, and patterns in their place.
    pub topics: Vec<Cow<'a, str>>,
    /// Where to start, by topic or pattern; wins over `offset`.
    pub cursors: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// Where to start, for topics without a cursor: any cursor, or `last` for `latest`.
    pub offset: Option<Cow<'a, str>>,
    /// The client's own name, for the log.
    pub client_id: Option<Cow<'a, str>>,
    /// Whether a topic that does not exist is refused, alone; else it is waited for.
    pub must_exist: bool,
    /// `latest` for the latest message of each key of topics that are compacted, and then what comes live.
    pub view: Option<Cow<'a, str>>,
}

/// A `publish` frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Comes back with the answer, so that publishes can be pipelined.
    pub reference: Option<Cow<'a, str>>,
    /// The topic.
    pub topic: Cow<'a, str>,
    /// JSON text if `content_type` is `None` or names JSON, else any bytes.
    pub payload: Cow<'a, [u8]>,
    /// The content type; `None` for JSON that has no other.
    pub content_type: Option<Cow<'a, str>>,
    /// A JSON object.
    pub metadata: Option<&'a [u8]>,
    /// Seconds after which the message is no longer served.
    pub ttl: Option<u64>,
    /// The idempotency key.
    pub key: Option<Cow<'a, str>>,
    /// The order key.
    pub order_key: Option<Cow<'a, str>>,
    /// The group, and the key of which none may wait or be worked on in it.
    pub unique: Option<(Cow<'a, str>, Cow<'a, str>)>,
    /// When it is published; `None` for now.
    pub delivery: Option<Delivery>,
    /// The id of the message that must be the last of the topic; `0-0` for none.
    pub expected_last: Option<Cow<'a, str>>,
    /// How durable it must be before the answer comes.
    pub durability: Option<Cow<'a, str>>,
    /// What shows that the publisher holds a lock: its name, `=`, and the fence.
    pub fence: Option<Cow<'a, str>>,
}

/// What the relay sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerFrame<'a> {
    /// The answer to `subscribe`.
    Subscribed {
        /// The `ref` of the frame.
        reference: Option<Cow<'a, str>>,
        /// The topics with the cursor after which each starts: `0-0` before the first message.
        topics: Vec<(TopicName, MessageId)>,
        /// The patterns with the cursor at which each starts.
        patterns: Vec<(TopicPattern, PatternCursor)>,
        /// Those of the topics that do not exist yet.
        absent: Vec<TopicName>,
        /// Names the connection in logs.
        session_id: Cow<'a, str>,
        /// When.
        timestamp: Timestamp,
    },
    /// The answer to `unsubscribe`.
    Unsubscribed {
        /// The topics with the cursor at which each stopped.
        topics: Vec<(TopicName, MessageId)>,
        /// The patterns with the cursor at which each stopped.
        patterns: Vec<(TopicPattern, PatternCursor)>,
    },
    /// The answer to `publish`.
    Published {
        /// The `ref` of the frame.
        reference: Option<Cow<'a, str>>,
        /// The id that the backend gave the message.
        message_id: MessageId,
        /// The topic.
        topic: TopicName,
        /// When the relay accepted it.
        timestamp: Timestamp,
        /// Whether the idempotency key had been used, so that this is the first answer again.
        replayed: bool,
        /// How durable it is, where more was asked for than that the storage has confirmed it.
        durability: Option<DurabilityTold>,
    },
    /// The answer to `publish` for later.
    Scheduled {
        /// The `ref` of the frame.
        reference: Option<Cow<'a, str>>,
        /// By which the message is known until it is published.
        schedule_id: ScheduleId,
        /// The topic.
        topic: TopicName,
        /// When it will be published.
        deliver_at: Timestamp,
        /// Whether the idempotency key had been used, so that this is the first answer again.
        replayed: bool,
    },
    /// A message.
    Message(Message<'a>),
    /// A hole.
    Gap(Gap),
    /// The answer to `ping`.
    Pong {
        /// The `ref` of the frame.
        reference: Option<Cow<'a, str>>,
        /// When.
        timestamp: Timestamp,
    },
    /// A frame that was refused.
    Error(ErrorFrame<'a>),
    /// The last frame: the relay closes the connection.
    End {
        /// Why, in a sentence.
        reason: Cow<'a, str>,
        /// The cursors to resume with elsewhere.
        cursors: Vec<(TopicName, MessageId)>,
        /// Those of the patterns.
        patterns: Vec<(TopicPattern, PatternCursor)>,
    },
    /// Where a reader of a pattern goes on, behind all of its messages that came before. Only who reads a
    /// pattern is sent one.
    Cursor {
        /// The pattern.
        pattern: TopicPattern,
        /// The cursor.
        cursor: PatternCursor,
    },
    /// A topic that takes no messages any more, behind the last that it has.
    Closed(Closed),
    /// The answer to `consume`.
    Consuming(Consuming<'a>),
    /// Messages of a group, which the connection has from now on.
    Work(Work<'a>),
    /// The answer to what settles messages.
    Settled {
        /// The `ref` of the frame.
        reference: Option<Cow<'a, str>>,
        /// What came of each receipt, in their order.
        results: Vec<Settled>,
    },
    /// What is told of a watch.
    Watched(Watched<'a>),
}

/// A message in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The id.
    pub message_id: MessageId,
    /// The topic.
    pub topic: TopicName,
    /// JSON text if `content_type` is `None` or names JSON, else any bytes.
    pub payload: Cow<'a, [u8]>,
    /// The content type it was published with; `None` for JSON that has no other.
    pub content_type: Option<Cow<'a, str>>,
    /// When the relay accepted it.
    pub timestamp: Timestamp,
    /// A JSON object.
    pub metadata: Option<Cow<'a, [u8]>>,
    /// The order key.
    pub order_key: Option<OrderKey>,
}

impl Message<'_> {
    /// Returns its parts, which both encodings write.
    fn parts(&self) -> MessageRef<'_> {
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

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorFrame<'a> {
    /// The `ref` of the refused frame, where it had one that could be read.
    pub reference: Option<Cow<'a, str>>,
    /// What kind of frame was refused; today's clients know these words.
    pub class: ErrorClass,
    /// The problem's code.
    pub code: Code,
    /// What is wrong, and what to do.
    pub message: Cow<'a, str>,
    /// The field that is meant, where there is one.
    pub field: Option<Cow<'a, str>>,
    /// Whether the same frame, sent again later, can succeed and does no harm.
    pub retryable: bool,
    /// Seconds to wait before that, where waiting helps.
    pub retry_after_seconds: Option<u64>,
    /// The id of the last message of the topic, where a publish was to follow another one.
    pub last_id: Option<MessageId>,
    /// Why the topic was cancelled, where it was.
    pub reason: Option<Cow<'a, str>>,
    /// The id of the message, where it is kept and not as durable as was asked.
    pub message_id: Option<MessageId>,
    /// How durable it is then.
    pub durability: Option<DurabilityTold>,
    /// The fence that stands against the one that was shown, where there is one.
    pub fence: Option<MessageId>,
}

impl From<ErrorFrame<'_>> for Problem {
    fn from(frame: ErrorFrame<'_>) -> Self {
        Self {
            retryable: frame.retryable,
            retry_after_seconds: frame.retry_after_seconds,
            field: frame.field.map(Cow::into_owned),
            last_id: frame.last_id,
            reason: frame.reason.map(Cow::into_owned),
            message_id: frame.message_id,
            durability: frame.durability,
            fence: frame.fence,
            ..Self::new(frame.code, frame.message)
        }
    }
}

/// What kind of frame was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// A subscribe or unsubscribe.
    Subscription,
    /// A frame of a type that does not exist.
    UnknownType,
    /// Any other frame.
    Processing,
    /// A publish.
    Publish,
}
