//! Server-sent events (`text/event-stream`), as the HTML standard has them.
//!
//! A message has no `event:`, so that a browser's `onmessage` gets it; `subscribed`, `gap`, `cursor`, `closed`,
//! `problem` and `end` have.
//! `open` and `error` are no names for them: a browser has events of its own that are called so.
//!
//! **Invariant:** every block has data, which is JSON: libraries hand on a block without data as an empty
//! message. A sign of life is a comment, which no client hands on.
//!
//! **Invariant:** no field holds a line break. Data has a field for each of its lines, which a client puts
//! together again with line feeds in between; names and ids have one line.

use std::borrow::Cow;
use std::io::Write as _;

use axum::body::Bytes;
use axum::http::HeaderValue;
use memchr::memchr2;
use serde::Serialize;
use tidemill_proto::topics::Closed;
use tidemill_proto::{Gap, MessageEncoding, MessageId, PatternCursor, Problem, Timestamp, TopicPattern};

use super::resume::Places;
use super::stream::{Cursors, Form, Opening, join};
use crate::chance::random;
use crate::metrics::Transport;
use crate::relay::{Item, LiveMessage};

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
        out.push(b'\n');
        put_data(out, |out| message.write_json(out));
        out.push(b'\n');
    },
};

/// Events of a stream.
#[derive(Debug)]
pub(super) struct Events(Ids);

/// What the ids of events are.
#[derive(Debug)]
enum Ids {
    /// Message ids. The first is where the reader starts: one that loses its connection before the first
    /// message would otherwise start anew.
    Messages(MessageId),
    /// A cursor for each topic.
    Places(Places),
    /// The cursor of a pattern, which comes now and then, and of the topics beside it.
    Pattern(PatternCursor, Option<Places>),
}

impl Events {
    /// Returns events of one topic, for a reader that starts at `start`.
    pub(super) const fn of_topic(start: MessageId) -> Self {
        Self(Ids::Messages(start))
    }

    /// Returns events of several topics.
    pub(super) const fn of_topics(places: Places) -> Self {
        Self(Ids::Places(places))
    }

    /// Returns events of a pattern, and of topics beside it, for a reader that starts at `start`.
    pub(super) const fn of_pattern(start: PatternCursor, beside: Option<Places>) -> Self {
        Self(Ids::Pattern(start, beside))
    }
}

impl Ids {
    /// Appends the field with the id that resumes everything; where a message is the only thing that can, it has
    /// it itself.
    fn write(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Messages(start) => write(out, format_args!("id: {start}")),
            Self::Places(places) => {
                out.extend_from_slice(b"id: ");
                places.write(out);
            }
            Self::Pattern(cursor, beside) => {
                write(out, format_args!("id: {cursor}"));
                if let Some(beside) = beside {
                    out.push(b',');
                    beside.write(out);
                }
            }
        }
        out.push(b'\n');
    }

    /// Notes a message, and appends the id of its event, if that is not its own.
    fn write_of(&mut self, message: &LiveMessage, out: &mut Vec<u8>) {
        match self {
            Self::Messages(_) | Self::Pattern(_, None) => return,
            Self::Places(places) | Self::Pattern(_, Some(places)) => {
                places.advance(message.topic(), message.id());
            }
        }
        self.write(out);
    }
}

impl Form for Events {
    fn content_type(&self) -> HeaderValue {
        HeaderValue::from_static("text/event-stream")
    }

    fn transport(&self) -> Transport {
        Transport::Events
    }

    fn shared_as(&self) -> Option<&'static str> {
        match self.0 {
            Ids::Messages(_) => Some("events"),
            Ids::Pattern(_, None) => Some("events of patterns"),
            Ids::Places(_) | Ids::Pattern(_, Some(_)) => None,
        }
    }

    fn greeting(&mut self, opening: &Opening) -> Bytes {
        let mut out = retry();
        self.0.write(&mut out);
        put_event(&mut out, "subscribed", opening);
        out.into()
    }

    fn frames(&mut self, items: &[Item]) -> Bytes {
        if let Ids::Messages(_) = self.0 {
            return join(items, |item| match item {
                Item::Message(message) => Cow::Borrowed(message.encoded(&EVENT)),
                Item::Gap(gap) => Cow::Owned(event(gap)),
                Item::Closed(closed) => Cow::Owned(closed_event(closed)),
                // Of patterns alone.
                Item::Bookmark(..) => Cow::Owned(Bytes::new()),
            });
        }
        let mut out = Vec::new();
        for item in items {
            match item {
                Item::Message(message) => {
                    self.0.write_of(message, &mut out);
                    let event = message.encoded(&EVENT);
                    out.extend_from_slice(&event[behind_id(event)..]);
                }
                // The next message carries the reader past it; until then, who resumes is told again.
                Item::Gap(gap) => out.extend_from_slice(&event(gap)),
                Item::Closed(closed) => out.extend_from_slice(&closed_event(closed)),
                Item::Bookmark(topic, cursor) => {
                    if let Ids::Pattern(newest, _) = &mut self.0 {
                        newest.clone_from(cursor);
                    }
                    self.0.write(&mut out);
                    put_event(&mut out, "cursor", &NewCursor { topic, cursor });
                }
            }
        }
        out.into()
    }

    fn frame(&mut self, message: &LiveMessage, front: &mut Vec<u8>) -> Bytes {
        let event = message.encoded(&EVENT);
        if let Ids::Messages(_) = self.0 {
            return event.clone();
        }
        self.0.write_of(message, front);
        event.slice(behind_id(event)..)
    }

    fn ping(&mut self, now: Timestamp, _: Option<MessageId>) -> Bytes {
        // Without an empty line, which ends a block.
        format!(": {now}\n").into()
    }

    fn end(&mut self, reason: &str, cursors: &Cursors) -> Bytes {
        #[derive(Serialize)]
        struct End<'a> {
            reason: &'a str,
            cursors: &'a Cursors,
        }
        let mut out = retry();
        put_event(&mut out, "end", &End { reason, cursors });
        out.into()
    }

    fn problem(&mut self, problem: &Problem) -> Bytes {
        let mut out = Vec::new();
        put_event(&mut out, "problem", problem);
        out.into()
    }
}

/// Where a reader of a pattern can go on from here.
#[derive(Serialize)]
struct NewCursor<'a> {
    topic: &'a TopicPattern,
    cursor: &'a PatternCursor,
}

pub(super) fn retry() -> Vec<u8> {
    format!("retry: {}\n", RETRY_MS_MIN + random() % (RETRY_MS_SPREAD + 1)).into_bytes()
}

fn event(gap: &Gap) -> Bytes {
    let mut out = Vec::new();
    put_event(&mut out, "gap", gap);
    out.into()
}

fn closed_event(closed: &Closed) -> Bytes {
    let mut out = Vec::new();
    put_event(&mut out, "closed", closed);
    out.into()
}

/// Appends the rest of a block that is no message.
fn put_event(out: &mut Vec<u8>, name: &str, data: &impl Serialize) {
    write(out, format_args!("event: {name}\n"));
    put_data(out, |out| {
        // Plain structures cannot fail to be written.
        let _ = serde_json::to_writer(out, data);
    });
    out.push(b'\n');
}

/// Appends JSON as `data`, with a field for each of its lines. The standard takes a CR, and CR LF, for a line
/// break as well; a client makes a line feed of each.
pub(super) fn put_data(out: &mut Vec<u8>, json: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(b"data: ");
    let start = out.len();
    json(out);
    if memchr2(b'\n', b'\r', &out[start..]).is_some() {
        let json = out.split_off(start);
        let mut rest = json.as_slice();
        while let Some(at) = memchr2(b'\n', b'\r', rest) {
            out.extend_from_slice(&rest[..at]);
            out.extend_from_slice(b"\ndata: ");
            let is_pair = rest[at..].starts_with(b"\r\n");
            rest = &rest[at + if is_pair { 2 } else { 1 }..];
        }
        out.extend_from_slice(rest);
    }
    out.push(b'\n');
}

/// Returns where an event goes on behind its first line, which is the id for streams of one topic.
fn behind_id(event: &[u8]) -> usize {
    event.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1)
}

fn write(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing into a vector cannot fail.
    let _ = out.write_fmt(text);
}
