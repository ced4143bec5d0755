//! Server-sent events (`text/event-stream`), as the HTML standard has them.
//!
//! A message has no `event:`, so that a browser's `onmessage` gets it; `gap`, `ping` and `end` have.
//! **Invariant:** no field holds a line break: payloads are flattened, names and ids have none.

use std::borrow::Cow;
use std::io::Write as _;

use axum::body::Bytes;
use axum::http::HeaderValue;
use serde::Serialize;
use tidemill_proto::{Gap, MessageEncoding, MessageId, Timestamp, TopicName, frame};

use super::random;
use super::resume::Places;
use super::stream::{Form, join};
use crate::relay::Item;

/// The wait before a browser connects again, in milliseconds: at least, and at most so much more, so
/// that many do not come back at once.
const RETRY_MS_MIN: u64 = 1_000;
const RETRY_MS_SPREAD: u64 = 2_000;

/// A message as an event of one topic's stream: its id is the message id.
static EVENT: MessageEncoding = MessageEncoding {
    name: "event",
    write: |message, out| {
        out.extend_from_slice(b"id: ");
        out.extend_from_slice(message.message_id.text().as_bytes());
        out.extend_from_slice(b"\ndata: ");
        let start = out.len();
        message.write_json(out);
        frame::json::flatten_lines(&mut out[start..]);
        out.extend_from_slice(b"\n\n");
    },
};

/// Events of a stream.
#[derive(Debug)]
pub(super) struct Events(Ids);

/// What the ids of events are.
#[derive(Debug)]
enum Ids {
    /// Message ids. The first is where the reader starts, if it has to be told.
    OfMessages(Option<MessageId>),
    /// A cursor for each topic.
    OfPlaces(Places),
}

impl Events {
    /// Returns events of one topic. Where the reader starts from now on, `start` tells it where that
    /// is: one that loses its connection before the first message would otherwise start anew.
    pub(super) const fn of_topic(start: Option<MessageId>) -> Self {
        Self(Ids::OfMessages(start))
    }

    /// Returns events of several topics.
    pub(super) fn of_topics(places: Places) -> Self {
        Self(Ids::OfPlaces(places))
    }
}

impl Form for Events {
    fn content_type(&self) -> HeaderValue {
        HeaderValue::from_static("text/event-stream")
    }

    fn shared_as(&self) -> Option<&'static str> {
        matches!(self.0, Ids::OfMessages(_)).then_some("events")
    }

    fn greeting(&mut self) -> Option<Bytes> {
        let mut out = retry();
        // A block without data is no event: it only sets the id with which the client resumes.
        match &mut self.0 {
            Ids::OfMessages(None) => {}
            Ids::OfMessages(Some(start)) => write(&mut out, format_args!("id: {start}\n")),
            Ids::OfPlaces(places) => write_id(places, &mut out),
        }
        out.push(b'\n');
        Some(out.into())
    }

    fn frames(&mut self, items: &[Item]) -> Bytes {
        let places = match &mut self.0 {
            Ids::OfMessages(_) => {
                return join(items, |item| match item {
                    Item::Message(message) => Cow::Borrowed(message.encoded(&EVENT)),
                    Item::Gap(gap) => Cow::Owned(event("gap", gap.as_ref())),
                });
            }
            Ids::OfPlaces(places) => places,
        };
        let mut out = Vec::new();
        for item in items {
            match item {
                Item::Message(message) => {
                    places.advance(message.topic(), message.id());
                    write_id(places, &mut out);
                    let event = message.encoded(&EVENT);
                    // Its first line is the id for streams of one topic.
                    let rest = event.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                    out.extend_from_slice(&event[rest..]);
                }
                // The next message carries the reader past it; until then, who resumes is told again.
                Item::Gap(gap) => out.extend_from_slice(&event("gap", gap.as_ref() as &Gap)),
            }
        }
        out.into()
    }

    fn ping(&mut self, now: Timestamp) -> Bytes {
        format!(":\nevent: ping\ndata: {{\"timestamp\":\"{now}\"}}\n\n").into()
    }

    fn end(&mut self, reason: &str, cursors: Vec<(TopicName, Option<MessageId>)>) -> Bytes {
        #[derive(Serialize)]
        struct End<'a> {
            reason: &'a str,
            cursors: std::collections::BTreeMap<&'a str, Option<MessageId>>,
        }
        let cursors = cursors.iter().map(|(topic, cursor)| (topic.as_str(), *cursor)).collect();
        let mut out = retry();
        out.extend_from_slice(&event("end", &End { reason, cursors }));
        out.into()
    }
}

fn retry() -> Vec<u8> {
    format!("retry: {}\n", RETRY_MS_MIN + random() % (RETRY_MS_SPREAD + 1)).into_bytes()
}

fn event(name: &str, data: &impl Serialize) -> Bytes {
    let mut out = Vec::new();
    write(&mut out, format_args!("event: {name}\ndata: "));
    // Plain structures cannot fail to be written, and compact JSON has no line breaks.
    let _ = serde_json::to_writer(&mut out, data);
    out.extend_from_slice(b"\n\n");
    out.into()
}

fn write_id(places: &mut Places, out: &mut Vec<u8>) {
    out.extend_from_slice(b"id: ");
    places.write(out);
    out.push(b'\n');
}

fn write(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing into a vector cannot fail.
    let _ = out.write_fmt(text);
}
