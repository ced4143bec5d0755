//! Why a call of the client failed, told by what the caller may do next.

use tidemill_proto::frame::ErrorFrame;
use tidemill_proto::{Code, DurabilityTold, MessageId, Problem};

/// Why a call of the client failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The URL, an option or what was to be sent is wrong. Change it; nothing was sent.
    #[error("{0}")]
    Usage(String),
    /// There is no connection to the relay now. It may come back: try again later. A publish that ends
    /// so was never sent.
    #[error("no connection to the relay at {url} ({why})")]
    Away {
        /// Where the relay was looked for, without a password.
        url: String,
        /// Why.
        why: String,
    },
    /// The relay has refused; [`Refusal::retryable`] tells whether trying again can help.
    #[error("{0}")]
    Refused(Refusal),
    /// The message may have been kept or not. Publish it again only under the same idempotency key.
    #[error("the connection broke before the answer came: the message may have been kept or not")]
    Unknown,
    /// A request over HTTP has no answer: it may have had its effect or not. Claims can be repeated under their
    /// `claim_id`, changes of keys under their idempotency key, and what is said of messages that were claimed can be
    /// said again.
    #[error("no answer from the relay at {url} ({why})")]
    NoAnswer {
        /// Who was asked, without a password.
        url: String,
        /// Why.
        why: String,
    },
    /// The relay has closed the connection and does not want it back as it is.
    #[error("the relay has closed the connection for good (close code {code}: {reason})")]
    Stopped {
        /// The WebSocket close code.
        code: u16,
        /// What the relay said with it.
        reason: String,
    },
    /// Something answers, but not as a relay of this version does. Look at the URL.
    #[error("the answer of {url} is not a relay's: {what}")]
    NotARelay {
        /// Who answered.
        url: String,
        /// What was wrong with the answer.
        what: String,
    },
}

/// What the relay said when it refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (code {})", code.as_str())]
pub struct Refusal {
    /// What a program tells refusals apart by.
    pub code: Code,
    /// What is wrong, and what to do.
    pub message: String,
    /// The field that is meant, where there is one.
    pub field: Option<Box<str>>,
    /// Whether the same, sent again later, can succeed and does no harm.
    pub retryable: bool,
    /// Seconds to wait before that, where the relay says so.
    pub retry_after_seconds: Option<u64>,
    /// The id of the last message of the topic, where a publish was to follow another one.
    pub last_id: Option<Box<MessageId>>,
    /// The revision that a key has, where it was to have another one; `None` where there is no such key, too.
    pub revision: Option<Box<MessageId>>,
    /// Why the topic was cancelled, where it was.
    pub reason: Option<Box<str>>,
    /// The id of the message, where it is kept and not as durable as was asked.
    pub message_id: Option<Box<MessageId>>,
    /// How durable it is then.
    pub durability: Option<DurabilityTold>,
    /// The fence that stands against the one that was shown, where there is one.
    pub fence: Option<Box<MessageId>>,
}

impl ClientError {
    /// Returns whether the same call can succeed later, without any change.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Away { .. } => true,
            Self::Refused(refusal) => refusal.retryable,
            Self::Usage(_)
            | Self::Unknown
            | Self::NoAnswer { .. }
            | Self::Stopped { .. }
            | Self::NotARelay { .. } => false,
        }
    }
}

impl Refusal {
    /// Returns one that says nothing beside its code and what is wrong.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Problem::new(code, message).into()
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self {
            code: problem.code,
            message: problem.detail,
            field: problem.field.map(Into::into),
            retryable: problem.retryable,
            retry_after_seconds: problem.retry_after_seconds,
            last_id: problem.last_id.map(Box::new),
            revision: problem.revision.map(Box::new),
            reason: problem.reason.map(Into::into),
            message_id: problem.message_id.map(Box::new),
            durability: problem.durability,
            fence: problem.fence.map(Box::new),
        }
    }
}

impl From<ErrorFrame<'_>> for Refusal {
    fn from(frame: ErrorFrame<'_>) -> Self {
        Problem::from(frame).into()
    }
}

#[cfg(test)]
mod tests {
    use tidemill_proto::Durability;
    use tidemill_proto::frame::ErrorClass;

    use super::*;

    #[test]
    fn what_is_kept_and_not_as_durable_is_told_with_its_id_over_either_transport() {
        let told =
            DurabilityTold { asked: Durability { fsync: false, replicas: 1 }, reached: Durability::ACCEPTED };
        let id = MessageId::new(7, 1);
        let problem = Problem {
            message_id: Some(id),
            durability: Some(told),
            retryable: true,
            ..Problem::new(Code::DurabilityNotReached, "not yet")
        };
        let frame = ErrorFrame {
            reference: None,
            class: ErrorClass::Publish,
            code: problem.code,
            message: "not yet".into(),
            field: None,
            retryable: true,
            retry_after_seconds: None,
            last_id: None,
            reason: None,
            message_id: Some(id),
            durability: Some(told),
            fence: None,
        };
        let refusal = Refusal::from(problem);
        assert_eq!(refusal.message_id.as_deref(), Some(&id));
        assert_eq!(refusal.durability, Some(told));
        assert_eq!(refusal, Refusal::from(frame));
        assert!(!Refusal::new(Code::TooLarge, "too large").retryable);
    }
}
