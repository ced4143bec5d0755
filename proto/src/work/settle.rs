//! Settling on the wire: what a consumer says of messages that it has, and what comes of each.

use serde::{Deserialize, Serialize};

use crate::{Code, Timestamp};

/// What came of one receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum SettledStatus {
    /// The message is done.
    Acked,
    /// It waits for its next delivery, or is a dead letter where it had failed often enough.
    Nacked,
    /// The consumer has it until `deadline`.
    Extended,
    /// It is a dead letter.
    Rejected,
    /// Nothing was changed; `code` says why.
    Refused,
}

/// What came of one receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Settled {
    /// The receipt, as it was given.
    pub receipt: String,
    /// What came of it.
    pub status: SettledStatus,
    /// True where the consumer's time was over, and nobody else had got the message yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
    /// True where the message is a dead letter now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dead: bool,
    /// Until when the consumer has the message, where that was extended; when its next delivery is due, after a nack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub until: Option<Timestamp>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub code: Option<Code>,
    /// The same in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub error: Option<String>,
}

/// What came of each receipt, in their order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SettledAll {
    /// One for each receipt.
    pub results: Vec<Settled>,
}
