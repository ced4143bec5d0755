//! Metadata in headers, of publishes whose body is the payload and nothing else.
//!
//! `Tidemill-Meta-<name>` is the member `<name>`; `ce-*` (`CloudEvents` over HTTP, binary mode) and the two
//! headers of W3C Trace Context are members under their own names. Values are strings, as they came. Where the body has a
//! place for metadata, those of a trace alone are taken. It must not know what becomes of them.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::http::HeaderMap;
use tidemill_proto::Problem;

use crate::relay::{Failure, JsonText, TRACE, Trace};

/// What stands before the name of a member.
const PREFIX: &str = "tidemill-meta-";
/// What the attributes of a cloud event begin with.
const EVENT_PREFIX: &str = "ce-";

/// Returns the metadata that the headers have.
///
/// # Errors
/// A member is there twice, has no name, or is not UTF-8.
pub(super) fn of(headers: &HeaderMap) -> Result<Option<JsonText>, Failure> {
    // In the order of names, so that a repeat which a proxy has put into another order is the same message.
    let mut members = BTreeMap::new();
    for header in headers.keys() {
        let Some(name) = member(header.as_str()) else { continue };
        let fault = |rule| Err(Problem::field(header.as_str(), rule).into());
        if name.is_empty() {
            return fault("must have a name behind its last dash");
        }
        let mut values = headers.get_all(header).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return fault("is there twice") };
        let Ok(value) = std::str::from_utf8(value.as_bytes()) else { return fault("must be UTF-8") };
        if members.insert(name, value).is_some() {
            return fault("names a member that another header has");
        }
    }
    if members.is_empty() {
        return Ok(None);
    }
    let text = Bytes::from(serde_json::to_vec(&members).expect("names and texts can be written"));
    Ok(Some(JsonText::of_parsed(&text, &text)))
}

/// Checks that the headers have no metadata, where the body has a place for it.
///
/// # Errors
/// A header is meant as metadata. Those that programs add by themselves are not.
pub(super) fn refuse(headers: &HeaderMap) -> Result<(), Failure> {
    match headers.keys().find(|name| name.as_str().starts_with(PREFIX)) {
        None => Ok(()),
        Some(name) => {
            let rule = "is for a body that is the payload itself; write `metadata` into this one";
            Err(Problem::field(name.as_str(), rule).into())
        }
    }
}

/// Returns the trace that the headers tell of, for a body that has a place for metadata. What is there twice, or no text,
/// is none: programs add it by themselves.
pub(super) fn trace(headers: &HeaderMap) -> Option<Box<Trace>> {
    let one = |name: &str| {
        let mut values = headers.get_all(name).iter();
        let value = values.next().filter(|_| values.next().is_none())?;
        std::str::from_utf8(value.as_bytes()).ok()
    };
    let parent = one(TRACE[0])?;
    Some(Box::new(Trace { parent: parent.into(), state: one(TRACE[1]).map(Box::from) }))
}

/// Returns the name of the member that a header is.
fn member(header: &str) -> Option<&str> {
    if let Some(name) = header.strip_prefix(PREFIX) {
        return Some(name);
    }
    let is_own = header.starts_with(EVENT_PREFIX) || TRACE.contains(&header);
    is_own.then_some(header)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(lines: &[(&str, &[u8])]) -> HeaderMap {
        let line = |(name, value): &(&str, &[u8])| {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            (name, HeaderValue::from_bytes(value).expect("a value"))
        };
        let mut headers = HeaderMap::new();
        for (name, value) in lines.iter().map(line) {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn headers_become_members_in_one_order() {
        let headers = headers(&[
            ("traceparent", b"00-a"),
            ("Tidemill-Meta-Source", "caf\u{e9} \"x\"".as_bytes()),
            ("ce-id", b"7"),
            ("x-other", b"1"),
            ("tidemill-meta-a.b", b""),
        ]);
        let text = of(&headers).expect("metadata").expect("some");
        assert_eq!(
            text.as_bytes(),
            "{\"a.b\":\"\",\"ce-id\":\"7\",\"source\":\"caf\u{e9} \\\"x\\\"\",\"traceparent\":\"00-a\"}"
                .as_bytes()
        );
        assert_eq!(of(&HeaderMap::new()).expect("none"), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (lines, field) in [
            (&[("tidemill-meta-", &b"1"[..])][..], "tidemill-meta-"),
            (&[("ce-id", b"1"), ("ce-id", b"2")], "ce-id"),
            (&[("ce-id", b"1"), ("tidemill-meta-ce-id", b"1")], "tidemill-meta-ce-id"),
            (&[("tidemill-meta-a", b"\xff")], "tidemill-meta-a"),
        ] {
            let failure = of(&headers(lines)).expect_err(field);
            assert_eq!(failure.problem().field.as_deref(), Some(field));
        }
        let own = headers(&[("tidemill-meta-a", b"1")]);
        assert!(refuse(&own).is_err());
        assert!(refuse(&headers(&[("traceparent", b"1"), ("ce-id", b"1")])).is_ok());
    }
}
