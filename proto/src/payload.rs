//! How a payload stands in JSON, in either direction: as JSON, as text, or in base64.
//!
//! It must not know what surrounds it: a message, a body, a frame.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::value::RawValue;

use crate::limits::TEXT_ESCAPED_BYTES_MAX;
use crate::{Problem, content_type};

/// What the members are called that hold the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberNames {
    /// Of JSON.
    pub json: &'static str,
    /// Of text.
    pub text: &'static str,
    /// Of anything else, in base64.
    pub base64: &'static str,
}

impl MemberNames {
    /// Those of messages.
    pub const PAYLOAD: Self = Self { json: "payload", text: "payload_text", base64: "payload_base64" };
    /// Those of keys.
    pub const VALUE: Self = Self { json: "value", text: "value_text", base64: "value_base64" };
}

/// A payload that is about to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadRef<'a> {
    /// JSON text, valid and in UTF-8, if the content type is absent or names JSON; else any bytes.
    pub bytes: &'a [u8],
    /// The content type it was published with; `None` for JSON that has no other.
    pub content_type: Option<&'a str>,
}

impl<'a> PayloadRef<'a> {
    /// Returns JSON without a content type of its own.
    #[must_use]
    pub const fn json(bytes: &'a [u8]) -> Self {
        Self { bytes, content_type: None }
    }

    /// Returns whether it is JSON.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.content_type.is_none_or(content_type::is_json)
    }

    /// Appends it to `out` as a member of this name of a JSON object, with its content type: where it is no JSON the
    /// name has `_text` or `_base64` behind it.
    pub fn write_json(&self, name: &str, out: &mut Vec<u8>) {
        let Self { bytes, content_type } = *self;
        match content_type.filter(|kind| !content_type::is_json(kind)) {
            None => {
                put_name(out, name, "");
                out.extend_from_slice(bytes);
            }
            Some(kind) => {
                let text = std::str::from_utf8(bytes).ok().filter(|_| content_type::is_text(kind));
                if !text.is_some_and(|text| write_text(name, text, out)) {
                    write_base64(name, bytes, out);
                }
            }
        }
        if let Some(kind) = content_type {
            out.extend_from_slice(br#","content_type":"#);
            // Writing a text into a vector cannot fail.
            let _ = serde_json::to_writer(&mut *out, kind);
        }
    }
}

/// Appends a payload as text, unless that takes too much.
fn write_text(name: &str, text: &str, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    put_name(out, name, "_text");
    let _ = serde_json::to_writer(&mut *out, text);
    let taken = out.len() - start;
    let fits = taken <= TEXT_ESCAPED_BYTES_MAX
        || base64::encoded_len(text.len(), true).is_some_and(|len| taken <= len);
    if !fits {
        out.truncate(start);
    }
    fits
}

fn write_base64(name: &str, bytes: &[u8], out: &mut Vec<u8>) {
    put_name(out, name, "_base64");
    out.push(b'"');
    let start = out.len();
    out.resize(start + base64::encoded_len(bytes.len(), true).unwrap_or(0), 0);
    let written = BASE64.encode_slice(bytes, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
    out.push(b'"');
}

fn put_name(out: &mut Vec<u8>, name: &str, end: &str) {
    for part in ["\"", name, end, "\":"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// The members of a JSON object that publish a payload, as they came.
#[derive(Debug, Default)]
pub struct PayloadMembers<'a> {
    /// `payload`: any JSON value.
    pub json: Option<&'a RawValue>,
    /// `payload_text`: text.
    pub text: Option<Cow<'a, str>>,
    /// `payload_base64`: any bytes, in base64.
    pub base64: Option<Cow<'a, str>>,
    /// `content_type`: what they are.
    pub content_type: Option<Cow<'a, str>>,
}

/// A payload as it was published.
#[derive(Debug)]
pub struct NewPayload<'a> {
    /// Its bytes.
    pub bytes: Cow<'a, [u8]>,
    /// Its content type; `None` for JSON that has no other.
    pub content_type: Option<Cow<'a, str>>,
}

impl<'a> PayloadMembers<'a> {
    /// Returns the payload that they make.
    ///
    /// # Errors
    /// There is not exactly one payload, its content type does not fit it, or the base64 is none.
    pub fn read(self) -> Result<NewPayload<'a>, Box<Problem>> {
        self.read_as(MemberNames::PAYLOAD)
    }

    /// Returns what they make where they have these names.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_as(self, names: MemberNames) -> Result<NewPayload<'a>, Box<Problem>> {
        let Self { json, text, base64, content_type } = self;
        let MemberNames { json: name, text: text_name, base64: base64_name } = names;
        let fault = |field: &str, rule: &str| Err(Box::new(Problem::field(field, rule)));
        let (bytes, content_type) = match (json, text, base64) {
            (Some(json), None, None) => {
                if content_type.as_deref().is_some_and(|kind| !content_type::is_json(kind)) {
                    let rule = format!(
                        "names no JSON, and `{name}` is JSON; a {name} of another type is written as `{text_name}` or `{base64_name}`"
                    );
                    return fault("content_type", &rule);
                }
                (Cow::Borrowed(json.get().as_bytes()), content_type)
            }
            (None, Some(text), None) => {
                let bytes = match text {
                    Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                    Cow::Owned(text) => Cow::Owned(text.into_bytes()),
                };
                (bytes, content_type.or(Some(Cow::Borrowed(content_type::TEXT))))
            }
            (None, None, Some(base64)) => match BASE64.decode(base64.as_bytes()) {
                Ok(bytes) => (Cow::Owned(bytes), content_type.or(Some(Cow::Borrowed(content_type::BYTES)))),
                Err(_) => {
                    return fault(
                        base64_name,
                        "is not base64; write the alphabet with `+` and `/`, and `=` at the end (RFC 4648 section 4)",
                    );
                }
            },
            (None, None, None) => {
                let rule = format!(
                    "is missing; write any JSON value, or in its place `{text_name}` or `{base64_name}`"
                );
                return fault(name, &rule);
            }
            (_, Some(_), _) => return Err(twice(text_name, names)),
            (_, None, Some(_)) => return Err(twice(base64_name, names)),
        };
        Ok(NewPayload { bytes, content_type })
    }
}

fn twice(field: &str, names: MemberNames) -> Box<Problem> {
    let MemberNames { json, text, base64 } = names;
    let rule = format!("is not the only {json}; write one of `{json}`, `{text}` and `{base64}`");
    Box::new(Problem::field(field, rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_make_one_payload() {
        let json = serde_json::value::to_raw_value(&[1]).expect("JSON");
        let text = || Some(Cow::Borrowed("a"));
        let members = |json, text, base64, content_type: Option<&'static str>| PayloadMembers {
            json,
            text,
            base64,
            content_type: content_type.map(Cow::Borrowed),
        };
        let json = Some(&*json);
        for (members, payload, kind) in [
            (members(json, None, None, None), &b"[1]"[..], None),
            (members(json, None, None, Some("a/b+json")), b"[1]", Some("a/b+json")),
            (members(None, text(), None, None), b"a", Some(content_type::TEXT)),
            (members(None, text(), None, Some("application/json")), b"a", Some("application/json")),
            (members(None, None, Some("AP8=".into()), None), b"\0\xff", Some(content_type::BYTES)),
            (members(None, None, Some("".into()), Some("a/b")), b"", Some("a/b")),
        ] {
            let NewPayload { bytes, content_type } = members.read().expect("a payload");
            assert_eq!((&*bytes, content_type.as_deref()), (payload, kind));
        }
        for (members, field) in [
            (members(None, None, None, Some("a/b")), "payload"),
            (members(json, text(), None, None), "payload_text"),
            (members(json, None, Some("".into()), None), "payload_base64"),
            (members(None, text(), Some("".into()), None), "payload_text"),
            (members(json, None, None, Some("text/plain")), "content_type"),
            (members(None, None, Some("AP8".into()), None), "payload_base64"),
            (members(None, None, Some("_-8=".into()), None), "payload_base64"),
        ] {
            assert_eq!(members.read().expect_err(field).field.as_deref(), Some(field));
        }
    }
}
