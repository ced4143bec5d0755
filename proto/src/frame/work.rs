//! The frames of consumers: what they ask for, what they say of messages, and the messages that they are given.

use std::borrow::Cow;
use std::time::Duration;

use super::Message;
use crate::work::{ConsumerName, GroupName, Receipt};
use crate::{MessageId, MessageRef, Timestamp, TopicName};

/// Most messages of a group that a connection may have at one time.
pub const CREDIT_MAX: u32 = 1_000;

/// A `consume` frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consume<'a> {
    /// Comes back with the answer, and with the error that ends it.
    pub reference: Option<Cow<'a, str>>,
    /// The topic.
    pub topic: Cow<'a, str>,
    /// The group.
    pub group: Cow<'a, str>,
    /// Most messages of the group that the connection has at one time; none from now on, if 0.
    pub credit: u64,
    /// Who consumes; a name that the relay makes up, if `None`.
    pub consumer: Option<Cow<'a, str>>,
}

/// What a consumer says of deliveries: an `ack` frame, a `nack`, an `extend`, a `reject` or a `release`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settle<'a> {
    /// Comes back with the answer.
    pub reference: Option<Cow<'a, str>>,
    /// The receipts, of whichever groups and from wherever they came.
    pub receipts: Vec<Cow<'a, str>>,
    /// What is said of all of them.
    pub said: Said<'a>,
}

/// What a consumer says of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said<'a> {
    /// It is done.
    Ack {
        /// JSON text, kept with the message.
        result: Option<&'a [u8]>,
    },
    /// It has failed.
    Nack {
        /// When it comes again; by the group's backoff, if `None`.
        delay: Option<Duration>,
        /// What went wrong.
        error: Option<Cow<'a, str>>,
    },
    /// It takes longer.
    Extend {
        /// For how long from now on; the group's time, if `None`.
        ack_wait: Option<Duration>,
    },
    /// It is a dead letter.
    Reject {
        /// Why.
        reason: Cow<'a, str>,
    },
    /// It is given back unused.
    Release,
}

/// The answer to `consume`, and what is told again when its credit changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consuming<'a> {
    /// The `ref` of the frame.
    pub reference: Option<Cow<'a, str>>,
    /// The topic.
    pub topic: TopicName,
    /// The group.
    pub group: GroupName,
    /// Who consumes.
    pub consumer: ConsumerName,
    /// Most messages of the group that the connection has at one time.
    pub credit: u32,
}

/// A `work` frame: messages of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work<'a> {
    /// The topic.
    pub topic: TopicName,
    /// The group.
    pub group: GroupName,
    /// Which of the groups that have had the name, and since which seek.
    pub epoch: u64,
    /// Why the topic was cancelled, if it was.
    pub cancelled: Option<Cow<'a, str>>,
    /// The messages, in the order in which they are given out.
    pub deliveries: Vec<Delivered<'a>>,
}

/// A message of a `work` frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered<'a> {
    /// The message.
    pub message: Message<'a>,
    /// Which of its deliveries to the group this is, from 1 on.
    pub delivery: u64,
    /// Until when the consumer has it.
    pub deadline: Timestamp,
}

impl Work<'_> {
    /// Returns the receipt of one of its messages.
    #[must_use]
    pub fn receipt(&self, delivered: &Delivered<'_>) -> Receipt {
        self.head().receipt(delivered.message.message_id, delivered.delivery)
    }
}

/// What the messages of a `work` frame have in common, about to be written.
#[derive(Clone, Copy, Debug)]
pub struct WorkRef<'a> {
    /// The topic.
    pub topic: &'a TopicName,
    /// The group.
    pub group: &'a GroupName,
    /// Which of the groups that have had the name, and since which seek.
    pub epoch: u64,
    /// Why the topic was cancelled, if it was.
    pub cancelled: Option<&'a str>,
}

/// A message of a `work` frame, about to be written.
#[derive(Clone, Copy, Debug)]
pub struct HandedRef<'a> {
    /// The message.
    pub message: MessageRef<'a>,
    /// Which of its deliveries to the group this is.
    pub delivery: u64,
    /// Until when the consumer has it.
    pub deadline: Timestamp,
}

impl WorkRef<'_> {
    /// Returns the receipt of a delivery of a message.
    pub(super) fn receipt(&self, id: MessageId, delivery: u64) -> Receipt {
        let (topic, group) = (self.topic.clone(), self.group.clone());
        Receipt { topic, group, epoch: self.epoch, id, delivery }
    }
}

impl<'a> Work<'a> {
    pub(super) fn head(&self) -> WorkRef<'_> {
        let cancelled = self.cancelled.as_deref();
        WorkRef { topic: &self.topic, group: &self.group, epoch: self.epoch, cancelled }
    }

    pub(super) fn handed(&self) -> impl Iterator<Item = HandedRef<'_>> + use<'_, 'a> {
        self.deliveries.iter().map(|it| HandedRef {
            message: it.message.parts(),
            delivery: it.delivery,
            deadline: it.deadline,
        })
    }
}
