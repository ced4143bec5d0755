//! Gaps: messages that a reader asked for and that are gone.

use serde::{Deserialize, Serialize};

use crate::{MessageId, TopicName};

/// Why messages are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum GapReason {
    /// Retention or a trim removed them.
    Trimmed,
    /// Retention removed them. Of each key the latest is still there: `view=latest` gives it.
    Compacted,
    /// The topic was deleted, and perhaps made again.
    Deleted,
    /// The cursor belongs to no message that this topic can have had: the topic was made again
    /// behind the relay's back, or the backend has lost its newest messages. The reader goes on at
    /// the oldest message there is.
    Reset,
}

impl GapReason {
    /// Every reason there is.
    pub const ALL: [Self; 4] = [Self::Trimmed, Self::Compacted, Self::Deleted, Self::Reset];

    /// Whether the reader goes on in the same topic, behind its cursor.
    #[must_use]
    pub const fn goes_on(self) -> bool {
        matches!(self, Self::Trimmed | Self::Compacted)
    }

    /// Returns the word that stands for the reason.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::Compacted => "compacted",
            Self::Deleted => "deleted",
            Self::Reset => "reset",
        }
    }
}

/// A hole in what a reader gets: messages with ids strictly between `from` and `to` may have existed
/// and are gone. Where the reason is `reset`, `to` can lie before `from`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Gap {
    /// The topic.
    pub topic: TopicName,
    /// The reader's cursor.
    pub from: MessageId,
    /// The oldest message there is; where there is none, or some are left in front of what is gone, the smallest id that
    /// the next one can have.
    pub to: MessageId,
    /// Why.
    pub reason: GapReason,
    /// How many messages are gone, where that is known exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub missed: Option<u64>,
}

impl Gap {
    /// Returns whether what is gone lies ahead of the reader, which goes on behind it and does not begin anew.
    #[must_use]
    pub fn is_ahead(&self) -> bool {
        self.to > self.from
    }
}
