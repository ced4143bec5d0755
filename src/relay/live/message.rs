//! A message with its encodings, each made when the first reader needs it, and shared by all.

use std::borrow::Cow;
use std::sync::OnceLock;

use bytes::Bytes;
use tidemill_proto::frame::{self, ServerFrame};
use tidemill_proto::{MessageId, TopicName};

use crate::relay::as_wire;
use crate::storage::StoredMessage;

/// A message on its way to live readers.
#[derive(Debug)]
pub struct LiveMessage {
    topic: TopicName,
    stored: StoredMessage,
    json_line: OnceLock<Bytes>,
    binary_frame: OnceLock<Bytes>,
    event: OnceLock<Bytes>,
}

impl LiveMessage {
    pub(super) fn new(topic: TopicName, stored: StoredMessage) -> Self {
        Self {
            topic,
            stored,
            json_line: OnceLock::new(),
            binary_frame: OnceLock::new(),
            event: OnceLock::new(),
        }
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
        // The frame around the body, with names and times.
        self.stored.body.len_bytes() + 160
    }

    /// Returns the message as a JSON frame followed by a line feed, without one inside: an NDJSON
    /// line, and without its last byte the text of a WebSocket frame.
    #[must_use]
    pub fn json_line(&self) -> &Bytes {
        self.json_line.get_or_init(|| {
            let mut out = Vec::with_capacity(self.len_bytes());
            frame::json::write_message_ref(&as_wire(&self.topic, &self.stored), &mut out);
            frame::json::flatten_lines(&mut out);
            out.push(b'\n');
            Bytes::from(out)
        })
    }

    /// Returns the message as the text of a WebSocket frame.
    #[must_use]
    pub fn json_frame(&self) -> &[u8] {
        let line = self.json_line();
        &line[..line.len() - 1]
    }

    /// Returns the message as a binary frame.
    #[must_use]
    pub fn binary_frame(&self) -> &Bytes {
        self.binary_frame.get_or_init(|| {
            let body = &self.stored.body;
            let frame = ServerFrame::Message(frame::Message {
                message_id: self.stored.id,
                topic: self.topic.clone(),
                payload: Cow::Borrowed(&body.payload),
                content_type: body.content_type.as_deref().map(Cow::Borrowed),
                timestamp: self.stored.timestamp,
                metadata: body.metadata.as_deref().map(Cow::Borrowed),
            });
            let mut out = Vec::with_capacity(self.len_bytes());
            frame::binary::write_server(&frame, &mut out);
            Bytes::from(out)
        })
    }

    /// Returns the message as a server-sent event of one topic's stream: its id is the message id.
    #[must_use]
    pub fn event(&self) -> &Bytes {
        self.event.get_or_init(|| {
            let mut out = Vec::with_capacity(self.len_bytes());
            out.extend_from_slice(b"id: ");
            out.extend_from_slice(self.stored.id.text().as_bytes());
            out.extend_from_slice(b"\ndata: ");
            let start = out.len();
            as_wire(&self.topic, &self.stored).write_json(&mut out);
            frame::json::flatten_lines(&mut out[start..]);
            out.extend_from_slice(b"\n\n");
            Bytes::from(out)
        })
    }
}
