//! Pages of messages.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Gap, Message, MessageId};

/// The order of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Order {
    /// Oldest first.
    Asc,
    /// Newest first; the default, as today's clients expect.
    #[default]
    Desc,
}

impl Order {
    /// Returns the word that stands for the order.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Asc => "asc",
            Self::Desc => "desc",
        }
    }
}

/// A text is not an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not an order; write `asc` (oldest first) or `desc` (newest first)")]
pub struct OrderError;

impl FromStr for Order {
    type Err = OrderError;

    fn from_str(text: &str) -> Result<Self, OrderError> {
        match text {
            "asc" => Ok(Self::Asc),
            "desc" => Ok(Self::Desc),
            _ => Err(OrderError),
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A page of messages, as a client reads it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Page {
    /// The messages, in `order`.
    pub messages: Vec<Message>,
    /// How many there are in this page.
    pub total: usize,
    /// How many there may be in this page.
    pub limit: usize,
    /// The order.
    pub order: Order,
    /// The cursor that was asked for, as it was written.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub cursor: Option<String>,
    /// The cursor of the next page: the id of the last message of this one, null when it is empty.
    ///
    /// One exception: where so many expired messages lie in the way that the relay stopped looking
    /// before the end of the topic, this is the id it had reached, also on a short or empty page.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub next_cursor: Option<MessageId>,
    /// The hole between the cursor and the first message, where messages may be missing; absent where
    /// none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub gap: Option<Gap>,
    /// Where to read on after a page that was waited for, also when it is empty; absent on others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub resume: Option<MessageId>,
    /// True after a wait for a topic that does not exist; absent else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub absent: bool,
    /// Where it was read from a replica: milliseconds by which it may be behind its primary. What was deleted or trimmed
    /// since then may be in it. Absent on others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub age_ms: Option<u64>,
}
