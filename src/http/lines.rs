//! Streams of lines: one frame, as JSON, a line (`application/x-ndjson`).
//!
//! **Invariant:** no line holds a line break. In JSON they stand between tokens only, where a blank means the
//! same, so those of payloads and metadata are blanks here.

use axum::body::Bytes;
use axum::http::HeaderValue;
use serde::Serialize;
use tidemill_proto::frame::{self, ServerFrame};
use tidemill_proto::{MessageEncoding, MessageId, Problem, Timestamp};

use super::stream::{Cursors, Form, Opening};
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
        line(&Line::Subscribed(opening))
    }

    fn frames(&mut self, items: &[Item]) -> Bytes {
        let bytes = items.iter().map(|item| match item {
            Item::Message(message) => message.len_bytes(),
            Item::Gap(_) | Item::Closed(_) => 256,
            Item::Bookmark(_, cursor) => cursor.as_str().len() + 256,
        });
        let mut out = Vec::with_capacity(bytes.sum());
        for item in items {
            let start = out.len();
            match item {
                Item::Message(message) => out.extend_from_slice(message.encoded(&frame::json::MESSAGE)),
                Item::Gap(gap) => frame::json::write(&ServerFrame::Gap(gap.as_ref().clone()), &mut out),
                Item::Closed(closed) => {
                    frame::json::write(&ServerFrame::Closed(closed.as_ref().clone()), &mut out);
                }
                Item::Bookmark(pattern, cursor) => {
                    let (pattern, cursor) = (pattern.clone(), cursor.clone());
                    frame::json::write(&ServerFrame::Cursor { pattern, cursor }, &mut out);
                }
            }
            frame::json::flatten_lines(&mut out[start..]);
            out.push(b'\n');
        }
        out.into()
    }

    fn frame(&mut self, message: &LiveMessage, _front: &mut Vec<u8>) -> Bytes {
        message.encoded(&LINE).clone()
    }

    fn ping(&mut self, now: Timestamp, _: Option<MessageId>) -> Bytes {
        format!("{{\"type\":\"ping\",\"timestamp\":\"{now}\"}}\n").into()
    }

    fn end(&mut self, reason: &str, cursors: &Cursors) -> Bytes {
        line(&Line::End { reason, cursors })
    }

    fn problem(&mut self, problem: &Problem) -> Bytes {
        line(&Line::Problem { problem })
    }
}

/// A line that is no message.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line<'a> {
    Subscribed(&'a Opening),
    End { reason: &'a str, cursors: &'a Cursors },
    Problem { problem: &'a Problem },
}

fn line(line: &Line<'_>) -> Bytes {
    // Plain structures cannot fail to be written, and compact JSON has no line breaks.
    let mut out = serde_json::to_vec(line).unwrap_or_default();
    out.push(b'\n');
    out.into()
}
