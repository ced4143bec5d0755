//! A message that was given out, and where it is.

use tidemill_proto::work::ConsumerName;
use tidemill_proto::{MessageId, Timestamp};

/// What a claim got, while it can be repeated.
#[derive(Debug)]
pub(super) struct RememberedClaim {
    pub(super) until: Timestamp,
    pub(super) messages: Vec<(MessageId, u64)>,
}

/// A message that was given out and not settled for good.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) deliveries: u64,
    pub(super) failures: u32,
    pub(super) crashes: u32,
    pub(super) error: Option<Box<str>>,
    pub(super) place: Place,
}

impl Pending {
    /// Returns a message that stands behind another one of its key, and was given out so often.
    pub(super) const fn behind(deliveries: u64) -> Self {
        Self { deliveries, failures: 0, crashes: 0, error: None, place: Place::Behind }
    }
}

#[derive(Debug)]
pub(super) enum Place {
    With(Lease),
    Waits {
        due: Timestamp,
        why: Why,
    },
    /// Another message holds its key.
    Behind,
    Dying {
        reason: Box<str>,
    },
}

/// A consumer's time with a message.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) consumer: ConsumerName,
    pub(super) claimed_at: Timestamp,
    pub(super) until: Timestamp,
    pub(super) began: bool,
}

/// Why a message waits that was given out before.
#[derive(Debug)]
pub(super) enum Why {
    /// It has failed.
    Failed,
    /// The consumer's time was over; whether that counts as a failure.
    Lapsed { lease: Lease, charged: bool },
    /// It was given back.
    Released,
    /// It was a dead letter.
    Revived,
    /// It has stood behind another one of its key.
    Freed,
}

#[derive(Clone, Debug)]
pub(super) struct Dead {
    pub(super) letter: Option<MessageId>,
    pub(super) deliveries: u64,
    pub(super) reason: Box<str>,
}
