//! Topics on the wire: descriptions, lists, trimming, statistics.

use serde::{Deserialize, Serialize};

use crate::{MessageId, Timestamp, TopicName};

/// The body of `POST /api/v1/topics`.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TopicCreate {
    /// The name: 1 to 255 of letters, digits, `_`, `-`, and inside the name `.` and `:`.
    pub topic_name: TopicName,
    /// What the topic is for; at most 4,096 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// After how long messages of this topic are removed: a whole number of seconds, or text with a unit (`"90s"`, `"7d"`); the
    /// relay's setting, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_seconds: Option<u64>,
    /// Messages that the topic keeps, about; the relay's setting, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_messages: Option<u64>,
    /// Bytes that the topic keeps, about; without bound, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// What becomes of a message for which there is no room; `drop_old`, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when_full: Option<WhenFull>,
    /// Whether messages are removed once every group has acknowledged them; not, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_until_acked: Option<bool>,
    /// After how long the topic is removed when nothing was done with it, written in the same way; never, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_seconds: Option<u64>,
    /// The field of the metadata that says which messages replace each other; none do, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compact_by: Option<String>,
}

/// The body of `PUT /api/v1/topics/{topic}`: what is absent or null is cleared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TopicUpdate {
    /// What the topic is for; at most 4,096 bytes.
    pub description: Option<String>,
    /// After how long messages of this topic are removed: a whole number of seconds, or text with a unit (`"90s"`, `"7d"`); the
    /// relay's setting, if null.
    pub retention_seconds: Option<u64>,
    /// Messages that the topic keeps, about; the relay's setting, if null.
    pub max_messages: Option<u64>,
    /// Bytes that the topic keeps, about; without bound, if null.
    pub max_bytes: Option<u64>,
    /// What becomes of a message for which there is no room; `drop_old`, if null.
    pub when_full: Option<WhenFull>,
    /// Whether messages are removed once every group has acknowledged them; not, if null.
    pub keep_until_acked: Option<bool>,
    /// After how long the topic is removed when nothing was done with it, written in the same way; never, if null.
    pub idle_seconds: Option<u64>,
    /// The field of the metadata that says which messages replace each other; none do, if null.
    pub compact_by: Option<String>,
}

/// A topic, as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Topic {
    /// The same as the name, which identifies a topic.
    pub topic_id: TopicName,
    /// The name.
    pub topic_name: TopicName,
    /// Who created it; null where nobody was asked to say.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub owner_id: Option<String>,
    /// When it was created; null for a topic that another producer made and no relay has described.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub created_at: Option<Timestamp>,
    /// What it is for.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub description: Option<String>,
    /// Its own retention in seconds; null where the relay's setting holds.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub retention_seconds: Option<u64>,
    /// Messages that it keeps, about; null where the relay's setting holds.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub max_messages: Option<u64>,
    /// Bytes that it keeps, about; null where there is no bound.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub max_bytes: Option<u64>,
    /// What becomes of a message for which there is no room.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub when_full: WhenFull,
    /// Whether messages are removed once every group has acknowledged them.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub keep_until_acked: bool,
    /// Seconds after which it is removed when nothing was done with it; null where it stays.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub idle_seconds: Option<u64>,
    /// The field of the metadata that says which messages replace each other: the latest of each text there stays, also
    /// where the topic keeps no message as old. Null where none do.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub compact_by: Option<String>,
}

/// What becomes of a message for which a topic has no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum WhenFull {
    /// It is kept, and the oldest are removed.
    #[default]
    DropOld,
    /// It is refused.
    Refuse,
}

impl WhenFull {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::DropOld, Self::Refuse];

    /// Returns the text that stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DropOld => "drop_old",
            Self::Refuse => "refuse",
        }
    }

    /// Returns the one with this text on the wire.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|what| what.as_str() == text)
    }
}

/// Whether a topic takes messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum RunState {
    /// It does.
    #[default]
    Open,
    /// It takes none any more: it has come to its end.
    Closed,
    /// It takes none any more: it was called off.
    Cancelled,
}

/// That a topic has ended, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunEnd {
    /// Closed or cancelled.
    pub state: RunState,
    /// Why it was cancelled, if it ever was.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub reason: Option<Box<str>>,
}

impl RunState {
    /// Every state there is.
    pub const ALL: [Self; 3] = [Self::Open, Self::Closed, Self::Cancelled];

    /// Returns the text that stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Returns the state with this text on the wire.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// That a topic takes no messages any more: the answer when it is closed or cancelled, and what its readers are told
/// behind its last message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Closed {
    /// The topic.
    pub topic: TopicName,
    /// `closed` or `cancelled`.
    pub state: RunState,
    /// Why it was cancelled, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub reason: Option<String>,
}

/// The body of `POST /api/v1/topics/{topic}/cancel`.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CancelRequest {
    /// Why: 1 to 1,024 bytes. Whoever publishes is told.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 1024))]
    pub reason: String,
}

/// A topic with what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TopicDetail {
    /// The description.
    #[serde(flatten)]
    pub topic: Topic,
    /// Whether it takes messages.
    pub state: RunState,
    /// Why it was cancelled; null where it was not.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub reason: Option<String>,
    /// Messages kept, those included that have expired and are no longer served.
    pub length: u64,
    /// The oldest kept message; null when there is none.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub first_id: Option<MessageId>,
    /// The newest kept message; null when there is none.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub last_id: Option<MessageId>,
    /// Bytes that its messages take, about, as the storage weighs them; null where it does not tell.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub bytes: Option<u64>,
    /// Messages that it was ever given: twice looked at, it says how many come in between. Null where the storage does
    /// not count them.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub given: Option<u64>,
    /// Live readers of it on the node that answers, those of patterns included that cover it.
    pub readers: u64,
    /// Seconds since the oldest kept message was appended, by the clock of the relay.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub oldest_age_seconds: Option<u64>,
}

/// The body of `POST /api/v1/topics/{topic}/trim`: exactly one of the two.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TrimRequest {
    /// Keep the newest so many messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<u64>,
    /// Remove what lies before this message id, RFC 3339 time, or time ago (`-10m`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

/// The answer to a trim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Trimmed {
    /// How many messages were removed.
    pub removed: u64,
}

/// The answer of `GET /api/v1/topics/stats`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TopicsStats {
    /// Topics there are.
    pub total_topics: u64,
    /// Messages kept in all of them.
    pub total_messages: u64,
}
