//! Messages for later: when they are delivered, what a publisher is answered, and how they are listed; and
//! messages that come again and again.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::limits::{DELAY_SECONDS_MAX, RECURRING_NAME_BYTES_MAX};
use crate::{OrderKey, PayloadRef, Problem, Timestamp, TopicName, content_type, duration};

/// Longest time that a message may wait for its delivery.
pub const DELAY_MAX: Duration = Duration::from_secs(DELAY_SECONDS_MAX);

/// When a message is delivered that is published for later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// So long after it was accepted, by the backend's clock.
    After(Duration),
    /// At this time, by the backend's clock; at once where it has passed.
    At(Timestamp),
}

impl Delivery {
    /// Returns what a message says of its delivery, of which it may say one thing: `None` where it says nothing.
    ///
    /// # Errors
    /// Both are there; the problem names the field.
    pub fn one_of(delay: Option<Duration>, at: Option<Timestamp>) -> Result<Option<Self>, Box<Problem>> {
        match (delay, at) {
            (None, None) => Ok(None),
            (Some(delay), None) => Ok(Some(Self::After(delay))),
            (None, Some(at)) => Ok(Some(Self::At(at))),
            (Some(_), Some(_)) => Err(Box::new(Problem::field(
                "delay",
                "stands beside `deliver_at`; a message has one of the two",
            ))),
        }
    }

    /// Parses `delay` as a text.
    ///
    /// # Errors
    /// It is no duration, or longer than [`DELAY_MAX`]; the problem names the field.
    pub fn parse_delay(text: &str) -> Result<Duration, Box<Problem>> {
        Self::check_delay(duration::parse(text))
    }

    /// Parses `delay` as JSON.
    ///
    /// # Errors
    /// As [`parse_delay`](Self::parse_delay).
    pub fn parse_delay_json(json: &str) -> Result<Duration, Box<Problem>> {
        Self::check_delay(duration::parse_json(json))
    }

    /// Parses `deliver_at`. How far off it may be is told by the relay's clock, so not here.
    ///
    /// # Errors
    /// It is no time; the problem names the field.
    pub fn parse_at(text: &str) -> Result<Timestamp, Box<Problem>> {
        Timestamp::parse(text).map_err(|error| Box::new(Problem::field("deliver_at", error)))
    }

    /// Checks that a message is not delivered later than it may be.
    ///
    /// # Errors
    /// It is; the problem names the field.
    pub fn check(self, now: Timestamp) -> Result<(), Box<Problem>> {
        match self {
            Self::After(delay) => Self::check_delay(Ok(delay)).map(drop),
            Self::At(at) if at > now.saturating_add(DELAY_MAX) => {
                Err(Box::new(Problem::field("deliver_at", format_args!("is {}", too_far()))))
            }
            Self::At(_) => Ok(()),
        }
    }

    fn check_delay(delay: Result<Duration, duration::DurationError>) -> Result<Duration, Box<Problem>> {
        match delay {
            Ok(delay) if delay <= DELAY_MAX => Ok(delay),
            Ok(_) => Err(Box::new(Problem::field("delay", format_args!("is {}", too_far())))),
            Err(error) => Err(Box::new(Problem::field("delay", error))),
        }
    }
}

fn too_far() -> String {
    format!("too far off; a message is delivered within {} days", DELAY_MAX.as_secs() / 86_400)
}

/// The id of a message that is not delivered yet; opaque.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScheduleId(Box<str>);

/// A text is not the id of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not the id of a schedule; it is what a delayed publish was answered: digits, small letters and dashes"
)]
pub struct ScheduleIdError;

impl ScheduleId {
    /// Longest id in bytes.
    pub const BYTES_MAX: usize = 64;

    /// Parses an id.
    ///
    /// # Errors
    /// It is empty, too long, or has other characters.
    pub fn parse(text: &str) -> Result<Self, ScheduleIdError> {
        let allowed = (1..=Self::BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase() || byte == b'-');
        if allowed { Ok(Self(text.into())) } else { Err(ScheduleIdError) }
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ScheduleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ScheduleId {
    type Err = ScheduleIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Serialize for ScheduleId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

deserialize_from_text!(ScheduleId);

/// The name of a recurring message, which it has within its topic: 1 to [`RECURRING_NAME_BYTES_MAX`] of
/// `A-Z a-z 0-9 _ -`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecurringName(Box<str>);

/// A text is not the name of a recurring message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {RECURRING_NAME_BYTES_MAX} letters, digits, `_` and `-`")]
pub struct RecurringNameError;

impl RecurringName {
    /// Parses a name.
    ///
    /// # Errors
    /// It is empty, too long, or has other characters.
    pub fn parse(text: &str) -> Result<Self, RecurringNameError> {
        let allowed = (1..=RECURRING_NAME_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        if allowed { Ok(Self(text.into())) } else { Err(RecurringNameError) }
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RecurringName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for RecurringName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

deserialize_from_text!(RecurringName);

/// The answer to a publish for later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Scheduled {
    /// By which the message is known until it is delivered.
    pub schedule_id: ScheduleId,
    /// The topic it will be published to.
    pub topic: TopicName,
    /// When, by the backend's clock.
    pub deliver_at: Timestamp,
}

/// A message that is to be delivered, as it is listed.
///
/// Exactly one of `payload`, `payload_text` and `payload_base64` is present on the wire.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ScheduledMessage {
    /// By which the message is known until it is delivered.
    pub schedule_id: ScheduleId,
    /// The topic it will be published to.
    pub topic: TopicName,
    /// When, by the backend's clock.
    pub deliver_at: Timestamp,
    /// The payload, if it is JSON: byte for byte as it was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value, required = false))]
    pub payload: Option<Box<RawValue>>,
    /// The payload, if it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_text: Option<String>,
    /// The payload in base64 (RFC 4648 section 4), if it is neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
    /// The content type it was published with; absent where that is `application/json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The publisher's own JSON object, if it sent one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub metadata: Option<Box<RawValue>>,
    /// Seconds after its delivery after which it is no longer served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u64>,
    /// The order key, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub order_key: Option<OrderKey>,
}

/// A message that comes again and again, as a client asks for it.
///
/// Exactly one of `payload`, `payload_text` and `payload_base64` is present on the wire.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RecurringUpdate {
    /// When it comes: a cron pattern of five fields, or of six with seconds in front, or a nickname as `@daily`.
    #[cfg_attr(feature = "openapi", schema(max_length = 255, example = "*/5 * * * *"))]
    pub cron: String,
    /// The time zone in which the pattern is read, by its IANA name; `UTC` where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 64, example = "Europe/Berlin"))]
    pub timezone: Option<String>,
    /// Any JSON value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value, required = false))]
    pub payload: Option<Box<RawValue>>,
    /// In place of `payload`: text, kept in UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_text: Option<String>,
    /// In place of `payload`: any bytes, in base64 (RFC 4648 section 4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
    /// What the payload is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 255))]
    pub content_type: Option<String>,
    /// A JSON object, served with each message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub metadata: Option<Box<RawValue>>,
    /// How long a message is served from its delivery on: a whole number of seconds, or text with a unit (`"90s"`, `"2h"`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub ttl: Option<u64>,
    /// The order key that each message has: groups with `ordering: by_key` give out one of a key at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_key: Option<OrderKey>,
}

/// A message that comes again and again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Recurring {
    /// Its name within the topic.
    pub name: RecurringName,
    /// The topic it is published to.
    pub topic: TopicName,
    /// When it comes next, by the backend's clock; absent where it never does again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub next_at: Option<Timestamp>,
    /// The cron pattern.
    pub cron: String,
    /// The time zone in which it is read.
    pub timezone: String,
    /// The payload, if it is JSON: byte for byte as it was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value, required = false))]
    pub payload: Option<Box<RawValue>>,
    /// The payload, if it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_text: Option<String>,
    /// The payload in base64 (RFC 4648 section 4), if it is neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
    /// The content type it was set with; absent where that is `application/json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The JSON object that is served with each message, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub metadata: Option<Box<RawValue>>,
    /// Seconds after its delivery after which a message is no longer served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u64>,
    /// The order key of each message, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub order_key: Option<OrderKey>,
}

impl Recurring {
    /// Returns a recurring message in the form in which it is shown.
    ///
    /// # Panics
    /// What is kept as JSON is none.
    #[must_use]
    pub fn of(
        (topic, name): (TopicName, RecurringName),
        (cron, timezone): (String, String),
        next_at: Option<Timestamp>,
        payload: PayloadRef<'_>,
        metadata: Option<&[u8]>,
        ttl: Option<u64>,
        order_key: Option<OrderKey>,
    ) -> Self {
        let content_type = payload.content_type.map(str::to_owned);
        let Parts { payload, payload_text, payload_base64 } = Parts::of(payload);
        Self {
            name,
            topic,
            next_at,
            cron,
            timezone,
            payload,
            payload_text,
            payload_base64,
            content_type,
            metadata: metadata.map(raw),
            ttl,
            order_key,
        }
    }
}

/// A payload in one of the forms that JSON has for it.
struct Parts {
    payload: Option<Box<RawValue>>,
    payload_text: Option<String>,
    payload_base64: Option<String>,
}

impl Parts {
    fn of(payload: PayloadRef<'_>) -> Self {
        let mut parts = Self { payload: None, payload_text: None, payload_base64: None };
        match std::str::from_utf8(payload.bytes) {
            Ok(_) if payload.is_json() => parts.payload = Some(raw(payload.bytes)),
            Ok(text) if payload.content_type.is_some_and(content_type::is_text) => {
                parts.payload_text = Some(text.to_owned());
            }
            Ok(_) | Err(_) => parts.payload_base64 = Some(BASE64.encode(payload.bytes)),
        }
        parts
    }
}

fn raw(json: &[u8]) -> Box<RawValue> {
    let text = String::from_utf8_lossy(json).into_owned();
    RawValue::from_string(text).expect("what is kept as JSON is JSON")
}

impl ScheduledMessage {
    /// Returns a message in the form in which it is listed.
    ///
    /// # Panics
    /// What is kept as JSON is none.
    #[must_use]
    pub fn of(
        scheduled: Scheduled,
        payload: PayloadRef<'_>,
        metadata: Option<&[u8]>,
        ttl: Option<u64>,
        order_key: Option<OrderKey>,
    ) -> Self {
        let Scheduled { schedule_id, topic, deliver_at } = scheduled;
        let content_type = payload.content_type.map(str::to_owned);
        let Parts { payload, payload_text, payload_base64 } = Parts::of(payload);
        Self {
            schedule_id,
            topic,
            deliver_at,
            payload,
            payload_text,
            payload_base64,
            content_type,
            metadata: metadata.map(raw),
            ttl,
            order_key,
        }
    }
}
