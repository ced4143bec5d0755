//! The trace that a publish is part of, as its request tells it: it goes into the metadata of a message that says nothing
//! of one itself.

use bytes::Bytes;
use serde_json::value::RawValue;
use tidemill_proto::TopicName;
use tidemill_proto::limits::METADATA_BYTES_MAX;

use super::{Failure, JsonText};
use crate::traces::{self, Notes, Operation, Parent, Span};

/// What the headers of W3C Trace Context say, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// `traceparent`.
    pub parent: Box<str>,
    /// `tracestate`.
    pub state: Option<Box<str>>,
}

impl Trace {
    /// Returns the span that it names, if it does.
    #[must_use]
    pub fn parent(&self) -> Option<Parent> {
        Parent::read(&self.parent, self.state.as_deref())
    }

    /// Returns metadata with it. What has a trace of its own, is no object, or would be too large with it stays as it is.
    pub(super) fn note(&self, metadata: Option<Bytes>) -> Option<Bytes> {
        let Some(metadata) = metadata else { return Some(self.members(true)).filter(fits) };
        let Some(found) = Found::among(&metadata) else { return Some(metadata) };
        let Some(rest) = metadata.trim_ascii_start().strip_prefix(b"{") else { return Some(metadata) };
        if found.parent {
            return Some(metadata);
        }
        let mut noted = self.members(!found.state).to_vec();
        noted.pop();
        if !found.is_empty {
            noted.push(b',');
        }
        noted.extend_from_slice(rest);
        let noted = Bytes::from(noted);
        Some(if fits(&noted) { noted } else { metadata })
    }

    fn members(&self, with_state: bool) -> Bytes {
        let mut members = serde_json::Map::new();
        members.insert(super::TRACE[0].to_owned(), self.parent.as_ref().into());
        if let Some(state) = self.state.as_deref().filter(|_| with_state) {
            members.insert(super::TRACE[1].to_owned(), state.into());
        }
        serde_json::to_vec(&members).expect("texts can be written").into()
    }
}

fn fits(metadata: &Bytes) -> bool {
    metadata.len() <= METADATA_BYTES_MAX
}

/// What an object has of a trace.
struct Found {
    is_empty: bool,
    parent: bool,
    state: bool,
}

impl Found {
    /// Looks for it in an object; `None` if it is none.
    fn among(metadata: &Bytes) -> Option<Self> {
        let members: std::collections::BTreeMap<String, &RawValue> = serde_json::from_slice(metadata).ok()?;
        let [parent, state] = super::TRACE.map(|name| members.contains_key(name));
        Some(Self { is_empty: members.is_empty(), parent, state })
    }
}

impl JsonText {
    /// Returns the span that this, as metadata, names.
    #[must_use]
    pub fn parent(&self) -> Option<Parent> {
        Parent::of_metadata(Some(self.as_bytes()))
    }
}

/// Notes the end on the span of something that was refused.
pub(crate) fn end_refused(span: &Span, failure: &Failure) {
    if let Some(notes) = span.notes() {
        note_failure(notes, failure);
    }
}

/// Notes a failure.
pub(super) fn note_failure(notes: Notes<'_>, failure: &Failure) {
    notes.failed(failure.code().as_str(), failure.problem().status >= 500);
}

/// Notes what was read on the span of who reads.
pub(super) fn note_read(topic: &TopicName, count: usize) {
    traces::note(|notes| {
        notes.topic(Operation::Read, topic.as_str());
        notes.count(count);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_nothing_of_a_trace_gets_it_and_all_else_stays() {
        let trace = Trace { parent: "00-a".into(), state: Some("v=1".into()) };
        let note = |text: &str| {
            let noted = trace.note(Some(Bytes::copy_from_slice(text.as_bytes()))).expect("metadata");
            String::from_utf8(noted.to_vec()).expect("UTF-8")
        };
        assert_eq!(trace.note(None).as_deref(), Some(&br#"{"traceparent":"00-a","tracestate":"v=1"}"#[..]));
        assert_eq!(note(" { } "), r#"{"traceparent":"00-a","tracestate":"v=1" } "#);
        assert_eq!(note(r#"{"a": 1}"#), r#"{"traceparent":"00-a","tracestate":"v=1","a": 1}"#);
        assert_eq!(note(r#"{"tracestate":2}"#), r#"{"traceparent":"00-a","tracestate":2}"#);
        let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(METADATA_BYTES_MAX - 10));
        for text in [r#"{"traceparent":null}"#, r#"{"tracep\u0061rent":1}"#, "[]", "7", &large] {
            assert_eq!(note(text), text);
        }
    }
}
