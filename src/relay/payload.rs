//! Payloads of messages and values of keys: any bytes with what they are, and their rules.
//!
//! It must not know where they go.

use bytes::Bytes;
use tidemill_proto::limits::CONTENT_TYPE_BYTES_MAX;
use tidemill_proto::{Code, Problem, content_type, json};

use super::{Failure, JsonText};

/// A payload.
#[derive(Debug)]
pub enum Payload {
    /// Any JSON value, with its content type where it has another than that of JSON.
    Json(JsonText, Option<ContentType>),
    /// Any bytes, with their content type. Where that is one of JSON, they must be JSON.
    Bytes(Bytes, ContentType),
    /// As these, of a member of JSON that has this name.
    Member(&'static str, Bytes, ContentType),
}

/// A content type: 1 to [`CONTENT_TYPE_BYTES_MAX`] visible ASCII characters and spaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentType(Box<str>);

impl ContentType {
    /// Parses a content type; `field` is what the publisher called it.
    ///
    /// # Errors
    /// The text is empty, too long, or has other characters.
    pub fn parse(field: &str, text: &str) -> Result<Self, Failure> {
        let allowed = (1..=CONTENT_TYPE_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        if allowed {
            return Ok(Self(text.into()));
        }
        Err(Problem::field(
            field,
            format_args!("must be 1 to {CONTENT_TYPE_BYTES_MAX} visible ASCII characters and spaces"),
        )
        .into())
    }

    /// Parses the content type of a payload of JSON; `None` if it says nothing that is not known without it.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn of_json(field: &str, text: &str) -> Result<Option<Self>, Failure> {
        if content_type::is_plain_json(text) { Ok(None) } else { Self::parse(field, text).map(Some) }
    }
}

/// What such bytes are called, and how many there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct BytesRule {
    what: &'static str,
    field: &'static str,
    bytes_max: usize,
    setting: &'static str,
}

impl BytesRule {
    /// Returns the rule of messages.
    pub(super) const fn of_payload(bytes_max: usize) -> Self {
        Self { what: "payload", field: "payload", bytes_max, setting: "TIDEMILL_PAYLOAD_BYTES_MAX" }
    }

    /// Returns the rule of keys.
    pub(super) const fn of_value(bytes_max: usize) -> Self {
        Self { what: "value", field: "value", bytes_max, setting: "TIDEMILL_VALUE_BYTES_MAX" }
    }

    fn check_len(self, len: usize) -> Result<(), Failure> {
        let Self { what, field, bytes_max, setting } = self;
        if len <= bytes_max {
            return Ok(());
        }
        let detail =
            format!("`{field}` has {len} bytes; a {what} has at most {bytes_max} (setting `{setting}`)");
        Err(Problem { field: Some(field.to_owned()), ..Problem::new(Code::TooLarge, detail) }.into())
    }
}

impl Payload {
    /// Checks it, and returns what is kept of it: bytes, and their content type where that says more than JSON.
    ///
    /// # Errors
    /// There are too many bytes, or they are not the JSON that they are called; the problem names the field.
    pub(super) fn check(self, rule: BytesRule) -> Result<(Bytes, Option<Box<str>>), Failure> {
        let rule = match &self {
            Self::Json(..) | Self::Bytes(..) => rule,
            Self::Member(field, ..) => BytesRule { field, ..rule },
        };
        let field = rule.field;
        let (json, content_type) = match self {
            Self::Json(json, content_type) => {
                rule.check_len(json.as_bytes().len())?;
                (json, content_type)
            }
            Self::Bytes(bytes, ContentType(kind)) | Self::Member(_, bytes, ContentType(kind)) => {
                rule.check_len(bytes.len())?;
                if !content_type::is_json(&kind) {
                    return Ok((bytes, Some(kind)));
                }
                let json = JsonText::parse(&bytes, &bytes).map_err(|error| {
                    let rule = format_args!("is not JSON, which is what `{kind}` says that it is: {error}")
                        .to_string();
                    Problem::field(field, rule)
                })?;
                (json, Some(ContentType(kind)).filter(|kind| !content_type::is_plain_json(&kind.0)))
            }
        };
        check_readable(field, &json)?;
        Ok((json.into_bytes(), content_type.map(|kind| kind.0)))
    }
}

/// Checks that common readers of JSON can read it.
///
/// # Errors
/// They cannot; the problem names the field.
pub(super) fn check_readable(field: &str, json: &JsonText) -> Result<(), Failure> {
    json::check_readable(json.as_bytes()).map_err(|rule| Problem::field(field, rule).into())
}
