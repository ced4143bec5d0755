//! The trace that a message is part of (W3C Trace Context): members of its metadata, which the relay keeps and gives back.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

/// What a message says of the trace that it is part of, as its publisher has written it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// `traceparent`: the trace, and the span of the publisher.
    pub traceparent: String,
    /// `tracestate`, if there is one.
    pub tracestate: Option<String>,
}

#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    traceparent: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    tracestate: Option<Cow<'a, str>>,
}

impl Trace {
    /// Returns that of metadata, if it has one.
    #[must_use]
    pub fn of_metadata(metadata: &[u8]) -> Option<Self> {
        let Members { traceparent, tracestate } = serde_json::from_slice(metadata).ok()?;
        Some(Self { traceparent: traceparent?.into_owned(), tracestate: tracestate.map(Cow::into_owned) })
    }

    /// Returns metadata with this; what has a trace, or is no object, stays as it is.
    #[must_use]
    pub fn note(&self, metadata: Option<Box<RawValue>>) -> Option<Box<RawValue>> {
        let text = metadata.as_ref().map_or("{}", |metadata| metadata.get());
        let Ok(mut members) = serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(text) else {
            return metadata;
        };
        if members.contains_key("traceparent") {
            return metadata;
        }
        let mut put = |name: &str, value: &str| {
            if let Ok(value) = serde_json::value::to_raw_value(value) {
                members.entry(name.to_owned()).or_insert(value);
            }
        };
        put("traceparent", &self.traceparent);
        if let Some(state) = &self.tracestate {
            put("tracestate", state);
        }
        serde_json::value::to_raw_value(&members).ok().or(metadata)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).expect("JSON")
    }

    #[test]
    fn a_trace_is_noted_where_there_is_none_and_read_back() {
        let trace = Trace { traceparent: "00-a".to_owned(), tracestate: Some("v=1".to_owned()) };
        let noted = trace.note(Some(raw(r#"{"a": [1, 2]}"#))).expect("metadata");
        assert!(noted.get().contains("[1, 2]"), "{noted}");
        let read = |metadata: &RawValue| Trace::of_metadata(metadata.get().as_bytes());
        assert_eq!(read(&noted), Some(trace.clone()));
        let other = Trace { traceparent: "00-b".to_owned(), tracestate: None };
        assert_eq!(other.note(Some(noted.clone())).expect("metadata").get(), noted.get());
        assert_eq!(read(&other.note(None).expect("metadata")), Some(other));
        for text in [r#"{"traceparent": 7}"#, "{}", "[]", "7"] {
            assert_eq!(read(&raw(text)), None, "{text}");
        }
    }
}
