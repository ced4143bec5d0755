//! The schemas of the frames of consumers.

use serde_json::Value;
use utoipa::ToSchema;

use super::PayloadForm;
use super::fields::{credit, receipts, reference};
use crate::work::{ConsumerName, GroupName, Settled};
use crate::{Message, Timestamp, TopicName};

/// Has the connection given messages of a group, as many at one time as `credit` says: what it settles makes room
/// for others. The answer is `consuming`, before any message; a second one for the same group changes the credit. What
/// the connection has when it ends comes back at once.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsumeFrame {
    /// The client's own mark; the answer carries it, and so does the `error` that ends it.
    #[serde(rename = "ref")]
    #[schema(schema_with = reference)]
    pub reference: Option<String>,
    /// The topic.
    pub topic: TopicName,
    /// The group.
    #[schema(value_type = String)]
    pub group: GroupName,
    /// Most messages of the group that the connection has at one time; 0 ends it.
    #[schema(schema_with = credit)]
    pub credit: u32,
    /// Who consumes; a name of the connection, if absent.
    #[schema(value_type = Option<String>, nullable = false)]
    pub consumer: Option<ConsumerName>,
}

/// Says that messages are done; the answer is `settled`. With `message_id` in place of `receipts` it has no effect and no
/// answer: a reader's position is its cursor.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AckFrame {
    /// The client's own mark; the answer carries it.
    #[serde(rename = "ref")]
    #[schema(schema_with = reference)]
    pub reference: Option<String>,
    /// The receipts, of whichever groups.
    #[schema(schema_with = receipts)]
    pub receipts: Option<Vec<String>>,
    /// Any JSON value, at most 64 KiB, kept with each message for as long as its group says.
    #[schema(required = false)]
    pub result: Option<Value>,
    /// A message that was read. It is not looked at.
    #[schema(nullable = false)]
    pub message_id: Option<String>,
}

/// Says that messages have failed; the answer is `settled`. They come again.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NackFrame {
    /// The client's own mark; the answer carries it.
    #[serde(rename = "ref")]
    #[schema(schema_with = reference)]
    pub reference: Option<String>,
    /// The receipts, of whichever groups.
    #[schema(schema_with = receipts)]
    pub receipts: Vec<String>,
    /// When they come again, 365 days at most; by the group's backoff if absent.
    #[schema(schema_with = crate::duration::schema)]
    pub delay: Option<f64>,
    /// What went wrong; of more than 1,024 bytes the first are kept.
    #[schema(nullable = false)]
    pub error: Option<String>,
}

/// Goes on with messages; the answer is `settled`.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExtendFrame {
    /// The client's own mark; the answer carries it.
    #[serde(rename = "ref")]
    #[schema(schema_with = reference)]
    pub reference: Option<String>,
    /// The receipts, of whichever groups.
    #[schema(schema_with = receipts)]
    pub receipts: Vec<String>,
    /// For how long they are needed from now on, 12 hours at most; the group's time if absent.
    #[schema(schema_with = crate::duration::schema)]
    pub ack_wait: Option<f64>,
}

/// Makes messages dead letters; the answer is `settled`.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RejectFrame {
    /// The client's own mark; the answer carries it.
    #[serde(rename = "ref")]
    #[schema(schema_with = reference)]
    pub reference: Option<String>,
    /// The receipts, of whichever groups.
    #[schema(schema_with = receipts)]
    pub receipts: Vec<String>,
    /// Why.
    pub reason: String,
}

/// Gives messages back unused; the answer is `settled`.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseFrame {
    /// The client's own mark; the answer carries it.
    #[serde(rename = "ref")]
    #[schema(schema_with = reference)]
    pub reference: Option<String>,
    /// The receipts, of whichever groups.
    #[schema(schema_with = receipts)]
    pub receipts: Vec<String>,
}

/// The answer to `consume`.
#[derive(Debug, ToSchema)]
pub struct ConsumingFrame {
    /// The `ref` of the frame.
    #[serde(rename = "ref")]
    #[schema(schema_with = reference)]
    pub reference: Option<String>,
    /// The topic.
    pub topic: TopicName,
    /// The group.
    #[schema(value_type = String)]
    pub group: GroupName,
    /// Who consumes.
    #[schema(value_type = String)]
    pub consumer: ConsumerName,
    /// Most messages of the group that the connection has at one time.
    #[schema(schema_with = credit)]
    pub credit: u32,
}

/// Messages of a group, which the connection has from now on.
#[derive(Debug, ToSchema)]
pub struct WorkFrame {
    /// The topic.
    pub topic: TopicName,
    /// The group.
    #[schema(value_type = String)]
    pub group: GroupName,
    /// The messages, in the order in which they are given out.
    pub messages: Vec<DeliveredMessage>,
}

/// A message that the connection has.
#[derive(Debug, ToSchema)]
pub struct DeliveredMessage {
    /// The message.
    #[serde(flatten)]
    pub message: Message,
    /// Its payload in one of three forms.
    #[serde(flatten)]
    pub payload: PayloadForm,
    /// What settles it.
    pub receipt: String,
    /// Which of its deliveries to the group this is, from 1 on.
    pub delivery: u64,
    /// Until when the connection has it.
    pub deadline: Timestamp,
    /// Why the topic was cancelled, if it was.
    #[schema(nullable = false)]
    pub cancelled: Option<String>,
}

/// The answer to what settles messages: what came of each receipt.
#[derive(Debug, ToSchema)]
pub struct SettledFrame {
    /// The `ref` of the frame.
    #[serde(rename = "ref")]
    #[schema(schema_with = reference)]
    pub reference: Option<String>,
    /// One for each receipt, in their order.
    pub results: Vec<Settled>,
}
