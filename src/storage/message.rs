//! A message: what is appended, what comes back, and what its topic keeps.

use std::time::Duration;

use bytes::Bytes;
use tidemill_proto::locks::Fence;
use tidemill_proto::work::GroupName;
use tidemill_proto::{MessageId, OrderKey, Timestamp, TopicName};

/// What a topic keeps where its own description says nothing. It travels with appends: every 64th or so of a topic,
/// over all nodes, removes from the old end what is not kept. Other topics, and a topic without appends, are left to
/// trims and sweeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicPolicy {
    /// Messages that the topic keeps at least, once it has had as many; at least 1. A backend removes older
    /// ones soon: it may be late by as many as it removes at a time, and by some 100 appends.
    pub number: u64,
    /// Bytes that the topic's newest messages weigh at the least before older ones are removed, as the
    /// backend weighs them. `None` is without bound, and a backend that cannot weigh a topic cheaply keeps
    /// what the others keep.
    pub bytes: Option<u64>,
    /// Age from which on a message is removed, by the clock that makes ids. Exact: with the append, none
    /// older is left. `None` is without bound.
    pub age: Option<Duration>,
}

impl TopicPolicy {
    /// Returns the policy that keeps at least so many messages, and knows no other bound.
    #[must_use]
    pub const fn newest(number: u64) -> Self {
        Self { number, bytes: None, age: None }
    }
}

/// The part of a message that comes back byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// JSON text, with the white space around it, if `content_type` is `None` or names JSON; else any bytes.
    pub payload: Bytes,
    /// The content type, at most 255 bytes of visible ASCII and spaces; `None` for JSON that has no other.
    pub content_type: Option<Box<str>>,
    /// A JSON object.
    pub metadata: Option<Bytes>,
    /// Of messages of one key, a group that asks for it gives out one at a time.
    pub order_key: Option<OrderKey>,
}

impl Body {
    /// Returns the bytes that count against budgets.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.payload.len()
            + self.metadata.as_ref().map_or(0, Bytes::len)
            + self.content_type.as_ref().map_or(0, |text| text.len())
            + self.order_key.as_ref().map_or(0, |key| key.as_str().len())
    }
}

/// An idempotency key with what tells its message from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The key: 1 to 300 bytes of visible ASCII. It is the publisher's own within the topic.
    pub key: Box<str>,
    /// A digest of everything the publisher sent.
    pub fingerprint: [u8; 16],
}

/// A key of which one message at a time may wait or be worked on in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unique {
    /// The group of the topic.
    pub group: GroupName,
    /// The key: 1 to 300 bytes of visible ASCII. It is the group's own.
    pub key: Box<str>,
}

/// A message to append.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// The topic.
    pub topic: TopicName,
    /// What comes back byte for byte.
    pub body: Body,
    /// When the relay accepted it.
    pub timestamp: Timestamp,
    /// From when on it is no longer returned.
    pub expires_at: Option<Timestamp>,
    /// Makes repeats within the window return the first answer.
    pub idempotency: Option<Idempotency>,
    /// The id that must be the last one that the topic was given, or it is not appended;
    /// [`MessageId::MIN`] where it was given none, or does not exist. A key that was used wins over it.
    pub expected_last: Option<MessageId>,
    /// While a message of this key waits or is worked on in the group, that one is the answer. An idempotency key that was
    /// used wins over it, and it wins over `expected_last`.
    pub unique: Option<Unique>,
    /// What shows that the publisher holds a lock: it is not appended where that is not so. A lock that guards the topic is
    /// looked at in the same step; of another one the greatest fence counts that the topic has seen. An idempotency key that
    /// was used wins over it, and it wins over all else; it does not stand beside `unique`.
    pub fence: Option<Fence>,
    /// Whether to create the topic when it does not exist.
    pub create_topic: bool,
    /// Who owns the topic if this message creates it.
    pub owner: Option<Box<str>>,
    /// What its topic keeps from now on.
    pub policy: TopicPolicy,
}

/// The answer to an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The id of the message.
    pub id: MessageId,
    /// The timestamp of the message; of the first append, if this is a replay.
    pub timestamp: Timestamp,
    /// Whether the idempotency key had been used, or a message of the unique key is there, so that nothing was appended now.
    pub replayed: bool,
}

/// A stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// The id.
    pub id: MessageId,
    /// When the relay accepted it; the time of the id, if a foreign producer gave none.
    pub timestamp: Timestamp,
    /// From when on it is no longer returned.
    pub expires_at: Option<Timestamp>,
    /// What was published.
    pub body: Body,
}

impl StoredMessage {
    /// Returns whether its time is over.
    pub(crate) fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}
