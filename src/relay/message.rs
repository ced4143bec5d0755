//! A stored message as it is written on the wire. It must not know in which encoding.

use tidemill_proto::{MessageRef, PayloadRef, TopicName};

use super::StoredMessage;

/// Returns a stored message in the form in which it is written.
#[must_use]
pub fn as_wire<'a>(topic: &'a TopicName, message: &'a StoredMessage) -> MessageRef<'a> {
    MessageRef {
        message_id: message.id,
        topic,
        payload: PayloadRef {
            bytes: &message.body.payload,
            content_type: message.body.content_type.as_deref(),
        },
        timestamp: message.timestamp,
        metadata: message.body.metadata.as_deref(),
        order_key: message.body.order_key.as_ref(),
    }
}
