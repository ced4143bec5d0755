//! Groups on the wire: their settings, and what they have.

use serde::{Deserialize, Serialize};

use super::names::GroupName;
use crate::duration::Seconds;
use crate::{MessageId, Timestamp, TopicName};

/// Which messages a group gives out beside each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Ordering {
    /// Any.
    #[default]
    None,
    /// Of those that have the same `order_key`, one at a time, in their order.
    ByKey,
}

/// A text is the name of no ordering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be `none` or `by_key`")]
pub struct OrderingError;

impl Ordering {
    /// Parses one.
    ///
    /// # Errors
    /// The text is none.
    pub fn parse(text: &str) -> Result<Self, OrderingError> {
        [Self::None, Self::ByKey].into_iter().find(|known| known.as_str() == text).ok_or(OrderingError)
    }

    /// Returns it as text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ByKey => "by_key",
        }
    }
}

/// How a group gives messages out, as it is kept and shown. Durations are numbers of seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GroupSettings {
    /// For how long a consumer has a message before it goes to another, unless it extends that.
    #[cfg_attr(feature = "openapi", schema(value_type = f64))]
    pub ack_wait: Seconds,
    /// After how many failures a message is a dead letter: nacks, and losses of the consumer that had begun it.
    pub max_deliveries: u32,
    /// For how long a consumer can have a message at all, however often it extends that.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<f64>, required = true))]
    pub max_run: Option<Seconds>,
    /// How long a message waits after its first failure, its second, and so on; after more, the last of them.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<f64>))]
    pub backoff: Vec<Seconds>,
    /// Most messages that all consumers have together.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub max_in_flight: Option<u32>,
    /// Most messages that one consumer has.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub per_consumer_max: Option<u32>,
    /// The topic of its dead letters.
    pub dead_letter: TopicName,
    /// Whether nothing is given out.
    pub paused: bool,
    /// For how long results are kept.
    #[cfg_attr(feature = "openapi", schema(value_type = f64))]
    pub result_ttl: Seconds,
    /// Which messages are given out beside each other. It changes only while no message of the group is in flight, waits
    /// for its next delivery, or dies.
    pub ordering: Ordering,
}

/// How often something happened in one minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MinuteCounts {
    /// When the minute began.
    pub minute: Timestamp,
    /// Messages acknowledged.
    pub done: u64,
    /// Nacks, and losses of consumers that had begun a message.
    pub failed: u64,
}

/// How many messages a consumer has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConsumerCounts {
    /// Its name.
    pub consumer: String,
    /// The messages that it has.
    pub in_flight: u64,
}

/// A group with what it has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GroupDetail {
    /// The topic.
    pub topic: TopicName,
    /// The name.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub group: GroupName,
    /// How it gives messages out.
    #[serde(flatten)]
    pub settings: GroupSettings,
    /// When it was made; null for a group that another program has made in the storage.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub created_at: Option<Timestamp>,
    /// The newest message that was given out, or behind which the group began.
    pub last_delivered: MessageId,
    /// Messages that can be claimed now, or once those in front of them with their order key are done; null where the
    /// storage cannot tell.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub waiting: Option<u64>,
    /// Messages of the topic that wait to be published [later](crate::schedule); those that recur are not among them.
    #[serde(default)]
    pub scheduled: u64,
    /// Messages that consumers have.
    pub in_flight: u64,
    /// Messages that wait for their next delivery after a failure.
    pub in_backoff: u64,
    /// Dead letters that were not brought back.
    pub dead: u64,
    /// Messages acknowledged, ever.
    pub done: u64,
    /// Nacks and losses, ever.
    pub failed: u64,
    /// Deliveries after the first one of a message, ever.
    pub redelivered: u64,
    /// Messages that were gone before the group had acknowledged them: trimmed, deleted, or expired.
    pub gone: u64,
    /// For how many seconds the oldest message that can be claimed has been there; null where there is none.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub oldest_waiting_seconds: Option<f64>,
    /// Consumers that have messages.
    pub consumers: u64,
    /// Those that have most messages, 100 at most, those with more before the others; absent in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_by: Vec<ConsumerCounts>,
    /// When a consumer last asked for messages, to about five seconds; null where none ever did.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub last_claim: Option<Timestamp>,
    /// Whether the numbers are exact: not where other programs have acknowledged messages in the server itself since the
    /// group was made or set to another place, or some were deleted before they were given out.
    pub exact: bool,
    /// What happened in each minute of the last day in which something did, the oldest first; absent in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub minutes: Vec<MinuteCounts>,
}

/// The body of `PUT` and `PATCH` of a group. Durations are numbers of seconds, or text with a unit.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GroupUpdate {
    /// Where a new group begins: `earliest` (if absent), `latest`, the id of a message, behind which it begins, an RFC
    /// 3339 time, or a time ago as in `-10m`. Not in `PATCH`.
    pub start: Option<String>,
    /// See the answer; 30 s if absent, 0.1 s to 12 h.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub ack_wait: Option<String>,
    /// See the answer; 5 if absent, 1 to 1,000.
    pub max_deliveries: Option<u32>,
    /// See the answer; without bound if absent.
    pub max_run: Option<String>,
    /// A list of 1 to 64 durations, or `{first, factor, max}`; `{"first": 1, "factor": 2, "max": 60}` if absent.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub backoff: Option<Backoff>,
    /// See the answer; 1 to 1,000,000.
    pub max_in_flight: Option<u32>,
    /// See the answer; 1 to 1,000,000.
    pub per_consumer_max: Option<u32>,
    /// See the answer; `<topic>.<group>.dead` if absent.
    pub dead_letter: Option<TopicName>,
    /// See the answer; false if absent.
    pub paused: Option<bool>,
    /// See the answer; an hour if absent, at most 7 days.
    pub result_ttl: Option<String>,
    /// See the answer; `none` if absent.
    pub ordering: Option<Ordering>,
}

/// How long a message waits after a failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Backoff {
    /// After the first, the second, and so on.
    List(Vec<Seconds>),
}

/// The body of a redrive or a purge of dead letters.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RedriveRequest {
    /// The messages, by the ids that they have in the topic of the group; at most 1,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<MessageId>>,
    /// All of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// Redriving: how many can be claimed in each second, 1 to 1,000,000; all at once if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// Whether it is only told what would be done.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// The answer to a redrive or a purge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Redriven {
    /// Messages that wait again, or dead letters that were removed; with `dry_run`, that would.
    pub messages: u64,
    /// Of these, those that were gone from the topic, and were published anew.
    pub copies: u64,
    /// Dead letters that cannot be redriven, because neither the message is there any more nor its letter: both were removed.
    pub gone: u64,
    /// Ids that are no dead letters of the group.
    pub unknown: u64,
}

/// The body of a seek.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SeekRequest {
    /// Where the group goes on: `earliest`, `latest`, the id of a message, behind which it does, an RFC 3339 time, or a
    /// time ago as in `-10m`.
    pub to: String,
}
