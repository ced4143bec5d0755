//! Streams of lines: one frame, as JSON, a line (`application/x-ndjson`).
//!
//! **Invariant:** no line holds a line break. In JSON they stand between tokens only, where a blank means the
//! same, so those of payloads and metadata are blanks here.

use axum::body::Bytes;
use axum::http::HeaderValue;
use serde::Serialize;
use tidemill_proto::frame::{self, ServerFrame};
use tidemill_proto::{MessageEncoding, MessageId, Timestamp, TopicName};

use super::stream::{Form, Opening};
use crate::metrics::Transport;
use crate::relay::{Item, LiveMessage};

/// A large message as a line, which its readers share. Others are made into lines as they are copied.
static LINE: MessageEncoding = MessageEncoding {
    name: "line",
    write: |message, out| {
        let start = out.len();
        (frame::json::MESSAGE.write)(message, out);
        frame::json::flatten_lines(&mut out[start..]);
        out.push(b'\n');
    },
};

/// Frames as lines of JSON.
#[derive(Debug)]
pub(super) struct Lines;

impl Form for Lines {
    fn content_type(&self) -> HeaderValue {
        HeaderValue::from_static("application/x-ndjson")
    }

    fn transport(&self) -> Transport {
        Transport::Lines
    }

    fn shared_as(&self) -> Option<&'static str> {
        Some("lines")
    }

    fn greeting(&mut self, opening: &Opening) -> Bytes {
        #[derive(Serialize)]
        struct Subscribed<'a> {
            r#type: &'static str,
            #[serde(flatten)]
            opening: &'a Opening,
        }
        // Plain structures cannot fail to be written, and compact JSON has no line breaks.
        let mut out = serde_json::to_vec(&Subscribed { r#type: "subscribed", opening }).unwrap_or_default();
        out.push(b'\n');
        out.into()
    }

    fn frames(&mut self, items: &[Item]) -> Bytes {
        let bytes = items.iter().map(|item| match item {
            Item::Message(message) => message.len_bytes(),
            Item::Gap(_) => 256,
        });
        let mut out = Vec::with_capacity(bytes.sum());
        for item in items {
            let start = out.len();
            match item {
                Item::Message(message) => out.extend_from_slice(message.encoded(&frame::json::MESSAGE)),
                Item::Gap(gap) => frame::json::write(&ServerFrame::Gap(gap.as_ref().clone()), &mut out),
            }
            frame::json::flatten_lines(&mut out[start..]);
            out.push(b'\n');
        }
        out.into()
    }

    fn frame(&mut self, message: &LiveMessage, _front: &mut Vec<u8>) -> Bytes {
        message.encoded(&LINE).clone()
    }

    fn ping(&mut self, now: Timestamp) -> Bytes {
        format!("{{\"type\":\"ping\",\"timestamp\":\"{now}\"}}\n").into()
    }

    fn end(&mut self, reason: &str, cursors: Vec<(TopicName, Option<MessageId>)>) -> Bytes {
        let mut out = Vec::new();
        frame::json::write(
            &ServerFrame::End { reason: reason.into(), cursors, patterns: Vec::new() },
            &mut out,
        );
        out.push(b'\n');
        out.into()
    }
}
