//! Settling on the wire: what a consumer says of messages that it has, and what comes of each.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Code, Timestamp};

/// Most receipts that are settled at once, by a request or a frame.
pub const RECEIPTS_MAX: usize = 1_000;

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
    /// It was given back, and waits again.
    Released,
    /// Nothing was changed; `code` says why.
    Refused,
}

impl SettledStatus {
    /// All there are, in the order of their numbers in binary frames.
    pub const ALL: [Self; 6] =
        [Self::Acked, Self::Nacked, Self::Extended, Self::Rejected, Self::Released, Self::Refused];
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

/// The body of a request to settle messages. Beside `receipts` each kind has what is its own: `result` of an ack, `delay`
/// and `error` of a nack, `ack_wait` of an extension, `reason` of a rejection.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SettleRequest {
    /// 1 to 1,000 receipts, of whichever groups.
    pub receipts: Vec<String>,
    /// Any JSON value, at most 64 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<serde_json::Value>))]
    pub result: Option<Box<RawValue>>,
    /// When they come again: a number of seconds, or text with a unit; by the group's backoff if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<String>,
    /// What went wrong; of more than 1,024 bytes the first are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// For how long the consumer needs them from now on; the group's time if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ack_wait: Option<String>,
    /// Why they are dead letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
