//! Streams of lines: one frame, as JSON, a line (`application/x-ndjson`).

use std::borrow::Cow;

use axum::body::Bytes;
use axum::http::HeaderValue;
use tidemill_proto::frame::{self, ServerFrame};
use tidemill_proto::{MessageId, Timestamp, TopicName};

use super::stream::{Form, join};
use crate::relay::Item;

/// Frames as lines of JSON.
#[derive(Debug)]
pub(super) struct Lines;

impl Form for Lines {
    fn content_type(&self) -> HeaderValue {
        HeaderValue::from_static("application/x-ndjson")
    }

    fn shared_as(&self) -> Option<&'static str> {
        Some("lines")
    }

    fn greeting(&mut self) -> Option<Bytes> {
        None
    }

    fn frames(&mut self, items: &[Item]) -> Bytes {
        join(items, |item| match item {
            Item::Message(message) => Cow::Borrowed(message.encoded(&frame::json::MESSAGE_LINE)),
            Item::Gap(gap) => Cow::Owned(line(&ServerFrame::Gap(gap.as_ref().clone()))),
        })
    }

    fn ping(&mut self, now: Timestamp) -> Bytes {
        format!("{{\"type\":\"ping\",\"timestamp\":\"{now}\"}}\n").into()
    }

    fn end(&mut self, reason: &str, cursors: Vec<(TopicName, Option<MessageId>)>) -> Bytes {
        line(&ServerFrame::End { reason: reason.into(), cursors })
    }
}

fn line(frame: &ServerFrame<'_>) -> Bytes {
    let mut out = Vec::new();
    frame::json::write(frame, &mut out);
    out.push(b'\n');
    out.into()
}
