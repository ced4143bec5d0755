//! Messages and what waits for later, as copies have them: byte for byte.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::duration::Seconds;
use crate::schedule::{RecurringName, ScheduleId};
use crate::{MessageId, OrderKey, Timestamp};

/// What was published, or put. Exactly one of `payload` and `payload_base64` is there.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CopiedBody {
    /// The bytes, if they are a JSON value without white space around it, whatever the content type says.
    #[serde(
        default,
        deserialize_with = "crate::json::present_owned",
        skip_serializing_if = "Option::is_none"
    )]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value, required = false))]
    pub payload: Option<Box<RawValue>>,
    /// The bytes in base64 (RFC 4648 section 4), if they are anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
    /// The content type; absent for JSON that has no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<Box<str>>,
    /// The publisher's own JSON object; never of a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub metadata: Option<Box<RawValue>>,
    /// The order key; never of a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_key: Option<OrderKey>,
}

/// A body stands for no bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CopiedBodyError {
    /// There is not exactly one payload.
    #[error("must have `payload` or `payload_base64`")]
    One,
    /// The text is no base64.
    #[error("`payload_base64` is not base64")]
    Base64,
}

impl CopiedBody {
    /// Returns what stands for these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let payload = raw_json(bytes);
        let payload_base64 = if payload.is_none() { Some(BASE64.encode(bytes)) } else { None };
        Self { payload, payload_base64, ..Self::default() }
    }

    /// Takes out the bytes.
    ///
    /// # Errors
    /// There are none.
    pub fn take_bytes(&mut self) -> Result<Box<[u8]>, CopiedBodyError> {
        match (self.payload.take(), self.payload_base64.take()) {
            (Some(json), None) => Ok(Box::<str>::from(json).into()),
            (None, Some(text)) => BASE64.decode(text).map(Into::into).map_err(|_| CopiedBodyError::Base64),
            (None, None) | (Some(_), Some(_)) => Err(CopiedBodyError::One),
        }
    }
}

/// Returns bytes that are a JSON value, without white space around it.
#[must_use]
pub fn raw_json(bytes: &[u8]) -> Option<Box<RawValue>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let raw: &RawValue = serde_json::from_str(text).ok()?;
    (raw.get().len() == text.len()).then(|| raw.to_owned())
}

/// A message.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CopiedMessage {
    /// The id.
    pub message_id: MessageId,
    /// When it was accepted.
    pub timestamp: Timestamp,
    /// From when on it is no longer served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// What was published.
    pub body: CopiedBody,
}

/// A message that waits to be published.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CopiedWaiting {
    /// By which it is known until then.
    pub schedule_id: ScheduleId,
    /// When it is published.
    pub deliver_at: Timestamp,
    /// For how long it is served then, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<f64>))]
    pub ttl: Option<Seconds>,
    /// What was published.
    pub body: CopiedBody,
}

/// A message that comes again and again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CopiedRecurring {
    /// Its name in the topic.
    pub name: RecurringName,
    /// When it comes, as its publisher has written it.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub cron: Box<str>,
    /// The time zone of that.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub timezone: Box<str>,
    /// For how long each is served, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<f64>))]
    pub ttl: Option<Seconds>,
    /// When it comes next; absent where it never does again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// What is published.
    pub body: CopiedBody,
}

/// Where a page of messages that wait begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DueAfter {
    /// When the last one is due that is known.
    pub deliver_at: Timestamp,
    /// By which that is known.
    pub schedule_id: ScheduleId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_as_they_are() {
        let cases: [(&[u8], bool); 9] = [
            (b"1", true),
            (b"null", true),
            (b"{\"a\": [1,\n2]}", true),
            (b"\"\\ud800\"", true),
            (b" 1", false),
            (b"1\n", false),
            (b"", false),
            (b"{", false),
            (b"\0\xff", false),
        ];
        for (bytes, is_json) in cases {
            let body = CopiedBody::of(bytes);
            assert_eq!(
                (body.payload.is_some(), body.payload_base64.is_none()),
                (is_json, is_json),
                "{bytes:?}"
            );
            let text = serde_json::to_vec(&body).expect("it is written");
            let mut read: CopiedBody = serde_json::from_slice(&text).expect("it is read");
            assert_eq!(read.take_bytes().as_deref(), Ok(bytes));
            assert_eq!(read.take_bytes(), Err(CopiedBodyError::One));
        }
        let mut broken = CopiedBody { payload_base64: Some("?".to_owned()), ..CopiedBody::default() };
        assert_eq!(broken.take_bytes(), Err(CopiedBodyError::Base64));
    }
}
