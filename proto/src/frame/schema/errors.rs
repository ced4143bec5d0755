//! The schemas of the frame that refuses others.

use utoipa::ToSchema;

use super::fields::reference;
use crate::{Code, DurabilityTold, MessageId};

/// A frame that was refused. It leaves the connection and its subscriptions as they were.
#[derive(Debug, ToSchema)]
pub struct ErrorFrame {
    /// The `ref` of the refused frame, where it had one that could be read.
    #[serde(rename = "ref")]
    #[schema(schema_with = reference)]
    pub reference: Option<String>,
    /// What kind of frame was refused; for a publish, the problem's code.
    pub code: ErrorWord,
    /// What is wrong, and what to do.
    pub message: String,
    /// The problem.
    pub details: ErrorDetails,
}

/// What stands in `code` of an `error`.
#[derive(Debug, ToSchema)]
#[serde(untagged)]
pub enum ErrorWord {
    /// Of a refused frame that is no publish.
    Frame(RefusedFrame),
    /// Of a refused publish.
    Publish(Code),
}

/// What kind of frame was refused.
#[derive(Debug, ToSchema)]
pub enum RefusedFrame {
    /// A subscribe or unsubscribe.
    #[serde(rename = "SUBSCRIPTION_ERROR")]
    Subscription,
    /// A frame of a type that does not exist.
    #[serde(rename = "UNKNOWN_MESSAGE_TYPE")]
    UnknownType,
    /// Any other frame.
    #[serde(rename = "PROCESSING_ERROR")]
    Processing,
}

/// The problem for which a frame was refused.
#[derive(Debug, ToSchema)]
pub struct ErrorDetails {
    /// The problem's code.
    pub code: Code,
    /// Whether the same frame, sent again later, can succeed and does no harm.
    pub retryable: bool,
    /// The field that is meant, where there is one.
    #[schema(nullable = false)]
    pub field: Option<String>,
    /// Seconds to wait before that, where waiting helps.
    #[schema(nullable = false)]
    pub retry_after_seconds: Option<u64>,
    /// The id of the last message of the topic, `0-0` for none, where a publish was to follow another one.
    #[schema(nullable = false)]
    pub last_id: Option<MessageId>,
    /// Why the topic was cancelled, where it was.
    #[schema(nullable = false)]
    pub reason: Option<String>,
    /// The id of the message, where it is kept and not as durable as was asked.
    #[schema(nullable = false)]
    pub message_id: Option<MessageId>,
    /// How durable it is then.
    #[schema(nullable = false)]
    pub durability: Option<DurabilityTold>,
    /// The fence that stands against the one that was shown, where there is one.
    #[schema(nullable = false)]
    pub fence: Option<MessageId>,
}
