//! A message on its way to live readers, with what its transports have made of it.

use bytes::Bytes;
use tidemill_proto::{MessageEncoding, MessageId, TopicName};

use super::encodings::Encodings;
use crate::relay::as_wire;
use crate::storage::StoredMessage;

/// What a message weighs for each byte: it is there as it is stored, in what was read of the server, and as
/// one or two transports write it.
pub(super) const COPIES: u64 = 3;

/// What a frame has around the body, with names and times, about.
pub(super) const FRAME_BYTES: usize = 160;

/// A message on its way to live readers.
#[derive(Debug)]
pub struct LiveMessage {
    topic: TopicName,
    stored: StoredMessage,
    encodings: Encodings,
}

impl LiveMessage {
    pub(super) fn new(topic: TopicName, stored: StoredMessage) -> Self {
        Self { topic, stored, encodings: Encodings::default() }
    }

    /// Returns the topic.
    #[must_use]
    pub fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// Returns the id.
    #[must_use]
    pub fn id(&self) -> MessageId {
        self.stored.id
    }

    /// Returns the message as it is stored.
    #[must_use]
    pub fn stored(&self) -> &StoredMessage {
        &self.stored
    }

    /// Returns about how many bytes any encoding has.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.stored.body.len_bytes() + FRAME_BYTES
    }

    /// Returns the message in an encoding, which is made when the first reader needs it, and shared by
    /// all.
    #[must_use]
    pub fn encoded(&self, encoding: &'static MessageEncoding) -> &Bytes {
        self.encodings.get(encoding, || {
            let mut out = Vec::with_capacity(self.len_bytes());
            (encoding.write)(&as_wire(&self.topic, &self.stored), &mut out);
            Bytes::from(out)
        })
    }
}
