//! The JSON form of every frame, as schemas, for documents that describe the WebSocket.
//!
//! Each type here names the fields of one frame as they stand in JSON, without its `type`, which
//! [`FrameSchema`] adds. Nobody makes values of these types: [`json`](super::json) writes and reads
//! frames, and a test holds what it writes against these schemas. It must not know any document.
//!
//! What is described as optional is left out when it is absent, never null. Lengths count characters
//! here and bytes in the relay, so a text of other letters than ASCII can be refused although it
//! validates.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::schema::{AllOf, Object, ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{RefOr, Schema};

use super::{Change, ClientFrame, Said, ServerFrame, Settle, Watched};
use crate::message::Unique;
use crate::topics::RunState;
use crate::watched::{LoggedKind, WatchedKind};
use crate::{
    Durability, DurabilityTold, Gap, Message, MessageId, OrderKey, PatternCursor, ScheduleId, Since,
    Timestamp, TopicName, TopicPattern, TopicSelector,
};
use fields::{cursors, idempotency_key, reference, seconds_to_live, starts, topics_of_frame};

mod errors;
mod fields;
mod texts;
mod watch;
mod work;

pub use errors::{ErrorDetails, ErrorFrame, ErrorWord, RefusedFrame};
pub use watch::{
    BookmarkFrame, DeletedFrame, ExpiredFrame, JoinedFrame, LeftFrame, PutFrame, ResetFrame, SyncedFrame,
    UnwatchFrame, UnwatchedFrame, WatchFrame, WatchingFrame,
};
pub use work::{
    AckFrame, ConsumeFrame, ConsumingFrame, DeliveredMessage, ExtendFrame, NackFrame, RejectFrame,
    ReleaseFrame, SettledFrame, WorkFrame,
};

/// The description of one kind of frame.
#[derive(Clone, Copy, Debug)]
pub struct FrameSchema {
    /// What stands in `type`.
    pub kind: &'static str,
    /// What the schema is called in [`schemas`].
    pub name: &'static str,
    fields: fn() -> RefOr<Schema>,
    collect: fn(&mut Vec<(String, RefOr<Schema>)>),
}

impl FrameSchema {
    const fn of<Fields: ToSchema>(kind: &'static str, name: &'static str) -> Self {
        Self { kind, name, fields: Fields::schema, collect: Fields::schemas }
    }

    /// Returns the schema: the fields, and `type`.
    fn schema(&self) -> Schema {
        let kind = ObjectBuilder::new().schema_type(Type::String).enum_values(Some([self.kind]));
        match (self.fields)() {
            RefOr::T(Schema::Object(mut object)) => {
                object.properties.insert("type".to_owned(), kind.into());
                object.required.insert(0, "type".to_owned());
                with_one_of(object)
            }
            RefOr::T(Schema::AllOf(mut all)) => {
                all.items.push(typed(kind).into());
                Schema::AllOf(all)
            }
            other => {
                let mut all = AllOf::new();
                all.items.extend([other, typed(kind).into()]);
                Schema::AllOf(all)
            }
        }
    }
}

/// Returns the schema of a frame; of fields of which it has one, as of the forms of a payload, it has exactly one.
fn with_one_of(object: Object) -> Schema {
    const FORMS: [&[&str]; 4] = [
        &["payload", "payload_text", "payload_base64"],
        &["receipts", "message_id"],
        &["bucket", "room"],
        &["value", "value_text", "value_base64", "damaged"],
    ];

    let are_there = |forms: &&&[&'static str]| forms.iter().all(|form| object.properties.contains_key(*form));
    let Some(forms) = FORMS.iter().find(are_there) else { return Schema::Object(object) };
    let form = |forms: OneOfBuilder, form: &&str| forms.item(ObjectBuilder::new().required(*form));
    let forms = forms.iter().fold(OneOfBuilder::new(), form);
    let mut all = AllOf::new();
    all.description.clone_from(&object.description);
    all.items.extend([Schema::Object(object).into(), Schema::from(forms).into()]);
    Schema::AllOf(all)
}

fn typed(kind: ObjectBuilder) -> Object {
    ObjectBuilder::new().schema_type(Type::Object).property("type", kind).required("type").build()
}

/// Makes the list of all frames of one side, and the function that tells which of them a frame is: a
/// frame without a line does not compile.
macro_rules! frames {
    (
        $(#[doc = $all_doc:literal])+ $all:ident,
        $(#[doc = $of_doc:literal])+ $of:ident($side:ident):
        $($frame:pat => $fields:ident = $kind:literal;)+
    ) => {
        $(#[doc = $all_doc])+
        pub const $all: &[FrameSchema] = &[$(FrameSchema::of::<$fields>($kind, stringify!($fields))),+];

        $(#[doc = $of_doc])+
        #[must_use]
        pub const fn $of(frame: &$side<'_>) -> FrameSchema {
            match frame {
                $($frame => FrameSchema::of::<$fields>($kind, stringify!($fields))),+
            }
        }
    };
}

/// A change of something of a kind.
macro_rules! of_change {
    ($of:ident, $change:pat) => {
        ServerFrame::Watched(Watched::Change(Change { of: WatchedKind::$of, change: $change, .. }))
    };
}

frames! {
    /// Every frame that a client sends.
    CLIENT_FRAMES,
    /// Returns the description of a client's frame.
    of_client(ClientFrame):
    ClientFrame::Subscribe(_) => SubscribeFrame = "subscribe";
    ClientFrame::Unsubscribe { .. } => UnsubscribeFrame = "unsubscribe";
    ClientFrame::Publish(_) => PublishFrame = "publish";
    ClientFrame::Ping { .. } => PingFrame = "ping";
    ClientFrame::Consume(_) => ConsumeFrame = "consume";
    ClientFrame::Ack { .. } | ClientFrame::Settle(Settle { said: Said::Ack { .. }, .. }) => AckFrame = "ack";
    ClientFrame::Settle(Settle { said: Said::Nack { .. }, .. }) => NackFrame = "nack";
    ClientFrame::Settle(Settle { said: Said::Extend { .. }, .. }) => ExtendFrame = "extend";
    ClientFrame::Settle(Settle { said: Said::Reject { .. }, .. }) => RejectFrame = "reject";
    ClientFrame::Settle(Settle { said: Said::Release, .. }) => ReleaseFrame = "release";
    ClientFrame::Watch(_) => WatchFrame = "watch";
    ClientFrame::Unwatch { .. } => UnwatchFrame = "unwatch";
}

frames! {
    /// Every frame that the relay sends.
    SERVER_FRAMES,
    /// Returns the description of a frame of the relay.
    of_server(ServerFrame):
    ServerFrame::Subscribed { .. } => SubscribedFrame = "subscribed";
    ServerFrame::Unsubscribed { .. } => UnsubscribedFrame = "unsubscribed";
    ServerFrame::Published { .. } => PublishedFrame = "published";
    ServerFrame::Scheduled { .. } => ScheduledFrame = "scheduled";
    ServerFrame::Message(_) => MessageFrame = "message";
    ServerFrame::Gap(_) => GapFrame = "gap";
    ServerFrame::Pong { .. } => PongFrame = "pong";
    ServerFrame::Error(_) => ErrorFrame = "error";
    ServerFrame::End { .. } => EndFrame = "end";
    ServerFrame::Cursor { .. } => CursorFrame = "cursor";
    ServerFrame::Closed(_) => ClosedFrame = "closed";
    ServerFrame::Consuming(_) => ConsumingFrame = "consuming";
    ServerFrame::Work(_) => WorkFrame = "work";
    ServerFrame::Settled { .. } => SettledFrame = "settled";
    ServerFrame::Watched(Watched::Began { .. }) => WatchingFrame = "watching";
    ServerFrame::Watched(Watched::Ended { .. }) => UnwatchedFrame = "unwatched";
    of_change!(Keys, LoggedKind::Put) => PutFrame = "put";
    of_change!(Keys, LoggedKind::Deleted) => DeletedFrame = "deleted";
    of_change!(Keys, LoggedKind::Expired) => ExpiredFrame = "expired";
    of_change!(Members, LoggedKind::Put) => JoinedFrame = "joined";
    of_change!(Members, LoggedKind::Deleted | LoggedKind::Expired) => LeftFrame = "left";
    ServerFrame::Watched(Watched::Synced { .. }) => SyncedFrame = "synced";
    ServerFrame::Watched(Watched::Bookmark { .. }) => BookmarkFrame = "bookmark";
    ServerFrame::Watched(Watched::Reset { .. }) => ResetFrame = "reset";
}

/// Returns the schemas of all frames and of what they consist of, by name. They refer to each other
/// as `#/components/schemas/<name>`.
#[must_use]
pub fn schemas() -> BTreeMap<String, RefOr<Schema>> {
    let mut parts = Vec::new();
    let mut frames = Vec::new();
    for frame in CLIENT_FRAMES.iter().chain(SERVER_FRAMES) {
        (frame.collect)(&mut parts);
        frames.push((frame.name.to_owned(), frame.schema().into()));
    }
    parts.into_iter().chain(frames).collect()
}

/// Reads topics from now on. The answer is `subscribed`, before any message of these topics. A topic
/// that does not exist is waited for, and named in `absent`.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubscribeFrame {
    /// The client's own mark; the answer carries it.
    #[serde(rename = "ref")]
    #[schema(schema_with = reference)]
    pub reference: Option<String>,
    /// The topics: names, and patterns in their place.
    #[schema(schema_with = topics_of_frame)]
    pub topics: Vec<TopicSelector>,
    /// Where to start, by topic or pattern; only what stands in `topics` may stand here. For a pattern it is a
    /// cursor that the relay has told of the same pattern, `earliest`, `latest` or a time.
    #[schema(schema_with = starts)]
    pub cursors: Option<BTreeMap<TopicSelector, Since>>,
    /// Where to start, for topics and patterns that `cursors` does not name; `latest` where it is absent.
    #[schema(nullable = false)]
    pub offset: Option<Since>,
    /// The client's own name, for the log.
    #[schema(nullable = false)]
    pub client_id: Option<String>,
    /// Whether a topic that does not exist is refused, alone, with an `error`; false where it is absent.
    #[schema(nullable = false)]
    pub must_exist: Option<bool>,
    /// `latest`: of topics that are compacted the latest message of each key, from the start where no place is said, and
    /// then what comes live. Patterns have no such view.
    #[schema(nullable = false, pattern = "^latest$")]
    pub view: Option<String>,
}

/// Reads topics no longer; those that are not subscribed to are passed over. The answer is
/// `unsubscribed`.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UnsubscribeFrame {
    /// The topics, as they were subscribed to.
    #[schema(schema_with = topics_of_frame)]
    pub topics: Vec<TopicSelector>,
}

/// Publishes a message. The answer is `published`, or `error` with the same `ref`.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishFrame {
    /// The client's own mark; the answer carries it.
    #[serde(rename = "ref")]
    #[schema(schema_with = reference)]
    pub reference: Option<String>,
    /// The topic.
    pub topic: TopicName,
    /// Any JSON value. It is kept and served byte for byte; white space around it is that of the frame.
    #[schema(required = false)]
    pub payload: Value,
    /// In place of `payload`: text, kept in UTF-8.
    #[schema(nullable = false)]
    pub payload_text: Option<String>,
    /// In place of `payload`: any bytes, in base64 (RFC 4648 section 4).
    #[schema(nullable = false)]
    pub payload_base64: Option<String>,
    /// What the payload is: a type of JSON beside `payload`, any type beside the others.
    #[schema(nullable = false)]
    pub content_type: Option<String>,
    /// A JSON object of the publisher's own, served with the message.
    #[schema(value_type = Object, required = false)]
    pub metadata: Option<Value>,
    /// How long the message is served, from its publish on.
    #[schema(schema_with = seconds_to_live)]
    pub ttl: Option<u64>,
    /// The idempotency key: a publish is kept once under it.
    #[schema(schema_with = idempotency_key)]
    pub key: Option<String>,
    /// Publishes it so long from now, 365 days at most; the answer is then `scheduled`. Its `ttl` counts from then.
    #[schema(schema_with = crate::duration::schema)]
    pub delay: Option<f64>,
    /// In place of `delay`: publishes it at this time, or at once where that has passed.
    #[schema(nullable = false)]
    pub deliver_at: Option<Timestamp>,
    /// The id of the last message that the topic was given, `0-0` for none: only behind that one this is kept.
    #[schema(nullable = false)]
    pub expected_last: Option<MessageId>,
    /// Groups with `ordering: by_key` give out one message of an order key at a time, in their order.
    #[schema(nullable = false)]
    pub order_key: Option<OrderKey>,
    /// Kept only where no message of the key waits or is worked on in the group; else the answer is that of that one.
    #[schema(nullable = false)]
    pub unique: Option<Unique>,
    /// How durable it must be before the answer comes; what is set for the topic or the node if absent. Not beside `delay` and
    /// `deliver_at`.
    #[schema(nullable = false)]
    pub durability: Option<Durability>,
    /// What shows that the publisher holds a lock: its name, `=`, and the fence. The message is not kept once another holds
    /// it. Not beside `delay`, `deliver_at` and `unique`.
    #[schema(nullable = false, pattern = "^[^=]+=[0-9]{1,19}-[0-9]{1,19}$")]
    pub fence: Option<String>,
}

/// Asks for a `pong`.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PingFrame {
    /// The client's own mark; the answer carries it.
    #[serde(rename = "ref")]
    #[schema(schema_with = reference)]
    pub reference: Option<String>,
}

/// The answer to `subscribe`.
#[derive(Debug, ToSchema)]
pub struct SubscribedFrame {
    /// The `ref` of the frame.
    #[serde(rename = "ref")]
    #[schema(schema_with = reference)]
    pub reference: Option<String>,
    /// The topics and patterns that are read.
    pub topics: Vec<TopicSelector>,
    /// The cursor after which each starts.
    #[schema(schema_with = cursors)]
    pub cursors: BTreeMap<TopicSelector, MessageId>,
    /// Those of the topics that do not exist: their messages come once they do, from the first one on.
    pub absent: Vec<TopicName>,
    /// Names the connection in logs.
    pub session_id: String,
    /// When.
    pub timestamp: Timestamp,
}

/// The answer to `unsubscribe`.
#[derive(Debug, ToSchema)]
pub struct UnsubscribedFrame {
    /// The topics and patterns that are read no longer.
    pub topics: Vec<TopicSelector>,
    /// The cursor at which each stopped.
    #[schema(schema_with = cursors)]
    pub cursors: BTreeMap<TopicSelector, MessageId>,
}

/// The answer to `publish`: the message is kept.
#[derive(Debug, ToSchema)]
pub struct PublishedFrame {
    /// The `ref` of the frame.
    #[serde(rename = "ref")]
    #[schema(schema_with = reference)]
    pub reference: Option<String>,
    /// The id that the backend gave the message.
    pub message_id: MessageId,
    /// The topic.
    pub topic: TopicName,
    /// When the relay accepted it.
    pub timestamp: Timestamp,
    /// True where the idempotency key had been used, or a message with the same `unique` waits or is worked on, and this is
    /// its answer again; else absent.
    #[schema(nullable = false)]
    pub replayed: Option<bool>,
    /// How durable it is, where more was asked for than that the storage has confirmed it; else absent.
    #[schema(nullable = false)]
    pub durability: Option<DurabilityTold>,
}

/// The answer to `publish` with `delay` or `deliver_at`: the message is kept, and will be published.
#[derive(Debug, ToSchema)]
pub struct ScheduledFrame {
    /// The `ref` of the frame.
    #[serde(rename = "ref")]
    #[schema(schema_with = reference)]
    pub reference: Option<String>,
    /// By which the message is known until it is published.
    pub schedule_id: ScheduleId,
    /// The topic.
    pub topic: TopicName,
    /// When it will be published.
    pub deliver_at: Timestamp,
    /// True where the idempotency key had been used and this is the first answer again; else absent.
    #[schema(nullable = false)]
    pub replayed: Option<bool>,
}

/// A message of a topic that is read.
#[derive(Debug, ToSchema)]
pub struct MessageFrame {
    /// The message.
    #[serde(flatten)]
    pub message: Message,
    /// Its payload in one of three forms.
    #[serde(flatten)]
    pub payload: PayloadForm,
}

/// The forms of a payload, of which a message has exactly one.
#[derive(Debug, ToSchema)]
#[serde(untagged)]
pub enum PayloadForm {
    /// JSON.
    Json {
        /// The payload, byte for byte as it was published.
        payload: Value,
        /// The content type it was published with; absent where that is `application/json`.
        #[schema(nullable = false)]
        content_type: Option<String>,
    },
    /// Text in UTF-8.
    Text {
        /// The payload.
        payload_text: String,
        /// The content type it was published with, `text/…`.
        content_type: String,
    },
    /// Any other bytes.
    Bytes {
        /// The payload in base64 (RFC 4648 section 4).
        payload_base64: String,
        /// The content type it was published with.
        content_type: String,
    },
}

/// Messages that the reader asked for and that are gone.
#[derive(Debug, ToSchema)]
pub struct GapFrame {
    /// The hole.
    #[serde(flatten)]
    pub gap: Gap,
}

/// The answer to `ping`.
#[derive(Debug, ToSchema)]
pub struct PongFrame {
    /// The `ref` of the frame.
    #[serde(rename = "ref")]
    #[schema(schema_with = reference)]
    pub reference: Option<String>,
    /// When.
    pub timestamp: Timestamp,
}

/// The last frame: the relay closes the connection, and a close frame follows.
#[derive(Debug, ToSchema)]
pub struct EndFrame {
    /// Why, in a sentence.
    pub reason: String,
    /// The cursors to go on with elsewhere.
    #[schema(schema_with = cursors)]
    pub cursors: BTreeMap<TopicSelector, MessageId>,
}

/// Where a reader of a pattern goes on, behind all of its messages that came before. It comes between messages,
/// and only to who reads a pattern.
#[derive(Debug, ToSchema)]
pub struct CursorFrame {
    /// The pattern.
    pub topic: TopicPattern,
    /// The cursor: subscribe with the one that came last.
    pub cursor: PatternCursor,
}

/// A topic takes no messages any more, and this connection has all that it has. It comes once, behind the last message;
/// the connection goes on.
#[derive(Debug, ToSchema)]
pub struct ClosedFrame {
    /// The topic.
    pub topic: TopicName,
    /// `closed` or `cancelled`.
    pub state: RunState,
    /// Why it was cancelled, if it was.
    #[schema(nullable = false)]
    pub reason: Option<String>,
}
