//! How keys and their changes are written: as events, or as lines.
//!
//! An event's type is what became of the key (`put`, `deleted`, `expired`); its id stands on the last change of a step, so
//! that whoever resumes has steps whole. Who watches a part of the bucket gets a `bookmark` with the id where the last
//! change of a step is none of its own. Lines have the same in `type` and `id`. Of members of rooms the types are `joined`
//! and `left`.

use std::borrow::Cow;
use std::io::Write as _;

use axum::body::Bytes;
use axum::http::HeaderValue;
use serde::Serialize;
use tidemill_proto::watched::{ChangeRef, WatchedKind};
use tidemill_proto::{MessageEncoding, MessageId, Problem, Timestamp, frame};

use super::events::{put_data, retry};
use super::stream::{Cursor, Cursors, Form, Opening};
use crate::metrics::Transport;
use crate::relay::{Item, KeyEntry, LiveMessage, LoggedRef, StepPlace, WatchScope, change_of, told_of_entry};

/// Changes as those get them who watch the whole bucket: a [`MessageEncoding`] for each way to write them.
macro_rules! encodings {
    ($($name:ident = $text:literal, $encoding:expr;)+) => {$(
        static $name: MessageEncoding = MessageEncoding {
            name: $text,
            write: |message, out| {
                if let Some(logged) = message.metadata.and_then(LoggedRef::read) {
                    let id = (!logged.more).then_some(message.message_id);
                    $encoding.write(&logged.told($encoding.of, message), id, out);
                }
            },
        };
    )+};
}

encodings! {
    KEY_EVENT = "key event", Encoding { form: Frames::Events, of: WatchedKind::Keys };
    KEY_LINE = "key line", Encoding { form: Frames::Lines, of: WatchedKind::Keys };
    MEMBER_EVENT = "member event", Encoding { form: Frames::Events, of: WatchedKind::Members };
    MEMBER_LINE = "member line", Encoding { form: Frames::Lines, of: WatchedKind::Members };
}

/// How frames are written, and what of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Encoding {
    form: Frames,
    of: WatchedKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frames {
    Events,
    Lines,
}

/// What a frame says that is of no key.
#[derive(Serialize)]
struct At {
    revision: MessageId,
}

/// What a frame says of where its client resumes.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Nothing: it is where it was.
    Unsaid,
    /// Behind this change.
    Behind(MessageId),
    /// Nowhere: it begins anew.
    Nowhere,
}

impl Encoding {
    /// Returns events of something.
    pub(super) const fn events(of: WatchedKind) -> Self {
        Self { form: Frames::Events, of }
    }

    /// Returns lines of something.
    pub(super) const fn lines(of: WatchedKind) -> Self {
        Self { form: Frames::Lines, of }
    }

    pub(super) const fn transport(self) -> Transport {
        match self.form {
            Frames::Events => Transport::Events,
            Frames::Lines => Transport::Lines,
        }
    }

    const fn message(self) -> &'static MessageEncoding {
        match (self.form, self.of) {
            (Frames::Events, WatchedKind::Keys) => &KEY_EVENT,
            (Frames::Lines, WatchedKind::Keys) => &KEY_LINE,
            (Frames::Events, WatchedKind::Members) => &MEMBER_EVENT,
            (Frames::Lines, WatchedKind::Members) => &MEMBER_LINE,
        }
    }

    fn message_of(self, message: &LiveMessage) -> &Bytes {
        message.encoded(self.message())
    }

    /// Appends a key, with the id that resumes behind it where there is one.
    fn write(self, change: &ChangeRef<'_>, id: Option<MessageId>, out: &mut Vec<u8>) {
        match self.form {
            Frames::Events => {
                put(out, format_args!("event: {}\n", change.kind()));
                if let Some(id) = id {
                    put(out, format_args!("id: {id}\n"));
                }
                put_data(out, |out| {
                    out.push(b'{');
                    change.write_members(out);
                    out.push(b'}');
                });
                out.push(b'\n');
            }
            Frames::Lines => {
                let start = out.len();
                put(out, format_args!(r#"{{"type":"{}","#, change.kind()));
                change.write_members(out);
                if let Some(id) = id {
                    put(out, format_args!(r#","id":"{id}""#));
                }
                out.push(b'}');
                frame::json::flatten_lines(&mut out[start..]);
                out.push(b'\n');
            }
        }
    }

    /// Returns the frame that tells why a stream cannot go on. In a line the problem, which has a type of its own, is a field.
    fn problem(self, problem: &Problem) -> Bytes {
        #[derive(Serialize)]
        struct Told<'a> {
            problem: &'a Problem,
        }
        let mut out = Vec::new();
        match self.form {
            Frames::Events => self.write_other("problem", Place::Unsaid, problem, &mut out),
            Frames::Lines => self.write_other("problem", Place::Unsaid, &Told { problem }, &mut out),
        }
        out.into()
    }

    /// Appends a frame of this type that is of no key.
    fn write_other(self, kind: &str, place: Place, data: &impl Serialize, out: &mut Vec<u8>) {
        // Plain structures cannot fail to be written.
        let data = serde_json::to_string(data).unwrap_or_default();
        match self.form {
            Frames::Events => {
                put(out, format_args!("event: {kind}\n"));
                match place {
                    Place::Behind(id) => put(out, format_args!("id: {id}\n")),
                    // A browser has none from here on.
                    Place::Nowhere => out.extend_from_slice(b"id\n"),
                    Place::Unsaid => {}
                }
                put(out, format_args!("data: {data}\n\n"));
            }
            Frames::Lines => {
                put(out, format_args!(r#"{{"type":"{kind}""#));
                if let Place::Behind(id) = place {
                    put(out, format_args!(r#","id":"{id}""#));
                }
                match data.strip_prefix('{').filter(|rest| *rest != "}") {
                    Some(rest) => put(out, format_args!(",{rest}\n")),
                    None => out.extend_from_slice(b"}\n"),
                }
            }
        }
    }

    /// Returns what a stream begins with.
    pub(super) fn greeting(self) -> Bytes {
        match self.form {
            Frames::Events => retry().into(),
            Frames::Lines => Bytes::new(),
        }
    }

    /// Appends a key of a snapshot.
    pub(super) fn entry(self, entry: &KeyEntry, out: &mut Vec<u8>) {
        if let Some(change) = told_of_entry(self.of, entry) {
            self.write(&change, None, out);
        }
    }

    /// Appends a change that comes before the snapshot is whole.
    pub(super) fn change(self, message: &LiveMessage, out: &mut Vec<u8>) {
        if let Some(logged) = change_of(message) {
            let wire = crate::relay::as_wire(message.topic(), message.stored());
            self.write(&logged.told(self.of, &wire), None, out);
        }
    }

    /// Returns that everything came that there was at this revision.
    pub(super) fn synced(self, revision: MessageId) -> Bytes {
        let mut out = Vec::new();
        self.write_other("synced", Place::Behind(revision), &At { revision }, &mut out);
        out.into()
    }

    /// Returns that what came before counts no more, and a snapshot follows.
    pub(super) fn reset(self) -> Bytes {
        #[derive(Serialize)]
        struct Nothing {}
        let mut out = Vec::new();
        self.write_other("reset", Place::Nowhere, &Nothing {}, &mut out);
        out.into()
    }

    fn bookmark(self, revision: MessageId, out: &mut Vec<u8>) {
        self.write_other("bookmark", Place::Behind(revision), &At { revision }, out);
    }
}

/// The changes of keys that are watched.
pub(super) struct Watched {
    encoding: Encoding,
    scope: WatchScope,
    place: StepPlace,
}

impl Watched {
    pub(super) fn new(encoding: Encoding, scope: WatchScope) -> Self {
        Self { encoding, scope, place: StepPlace::default() }
    }

    /// Appends a change, if it is one of those that are watched.
    fn write(&mut self, message: &LiveMessage, out: &mut Vec<u8>) {
        let Some(logged) = change_of(message) else { return };
        let is_watched = self.scope.has(logged.key);
        if is_watched {
            out.extend_from_slice(self.encoding.message_of(message));
        }
        if self.place.pass(&logged, is_watched) {
            self.encoding.bookmark(message.id(), out);
        }
    }
}

impl Form for Watched {
    fn content_type(&self) -> HeaderValue {
        HeaderValue::from_static(match self.encoding.form {
            Frames::Events => "text/event-stream",
            Frames::Lines => "application/x-ndjson",
        })
    }

    fn transport(&self) -> Transport {
        self.encoding.transport()
    }

    fn shared_as(&self) -> Option<&'static str> {
        self.scope.is_everything().then_some(self.encoding.message().name)
    }

    fn greeting(&mut self, _: &Opening) -> Bytes {
        self.encoding.greeting()
    }

    fn frames(&mut self, items: &[Item]) -> Bytes {
        let mut out = Vec::new();
        for item in items {
            match item {
                Item::Message(message) => self.write(message, &mut out),
                // Whoever writes the stream sees to holes, and a log does not end.
                Item::Gap(_) | Item::Closed(_) | Item::Bookmark(..) => {}
            }
        }
        out.into()
    }

    fn frame(&mut self, message: &LiveMessage, front: &mut Vec<u8>) -> Bytes {
        match change_of(message) {
            Some(logged) if self.scope.has(logged.key) => {
                self.place.pass(&logged, true);
                self.encoding.message_of(message).clone()
            }
            Some(_) | None => {
                self.write(message, front);
                Bytes::new()
            }
        }
    }

    fn written(&mut self, items: &[Item]) {
        self.place.pass_told(items);
    }

    fn anew(&mut self) {
        self.place = StepPlace::default();
    }

    fn ping(&mut self, now: Timestamp, at: Option<MessageId>) -> Bytes {
        let mut out = Vec::new();
        match (at.filter(|_| !self.place.is_within()), self.encoding.form) {
            (Some(at), _) => self.encoding.bookmark(at, &mut out),
            (None, Frames::Events) => put(&mut out, format_args!(": {now}\n")),
            // The step ends soon, and no line says nothing.
            (None, Frames::Lines) => {}
        }
        out.into()
    }

    fn end(&mut self, reason: &str, cursors: &Cursors) -> Bytes {
        #[derive(Serialize)]
        struct End<'a> {
            reason: Cow<'a, str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            revision: Option<MessageId>,
        }
        let revision = cursors.values().find_map(|cursor| match cursor {
            Cursor::Of(id) => Some(*id).filter(|_| !self.place.is_within()),
            Cursor::OfPattern(_) => None,
        });
        let mut out = self.encoding.greeting().to_vec();
        self.encoding.write_other("end", Place::Unsaid, &End { reason: reason.into(), revision }, &mut out);
        out.into()
    }

    fn problem(&mut self, problem: &Problem) -> Bytes {
        self.encoding.problem(problem)
    }
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing into a vector cannot fail.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tidemill_proto::Code;

    use super::*;

    #[test]
    fn a_problem_is_told_whole_and_has_its_own_type() {
        let problem = Problem::new(Code::Overloaded, "too much");
        let read = |text: &[u8]| serde_json::from_slice::<Value>(text).expect("JSON");
        let told = read(&serde_json::to_vec(&problem).expect("JSON"));
        let line = Encoding::lines(WatchedKind::Keys).problem(&problem);
        assert_eq!(read(&line), serde_json::json!({ "type": "problem", "problem": told }));
        let event = Encoding::events(WatchedKind::Members).problem(&problem);
        let data = event.strip_prefix(b"event: problem\ndata: ").and_then(|data| data.strip_suffix(b"\n\n"));
        assert_eq!(read(data.expect("an event")), told);
    }
}
