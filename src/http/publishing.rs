//! What every publish over HTTP has in common: its head and body become a message, the gate takes it, and
//! what comes of it is counted and answered. The router's handlers and the fast path both go this way.
//!
//! It must not know how a request was read.

use axum::body::Bytes;
use axum::http::header::HeaderValue;
use axum::http::{HeaderMap, HeaderName};
use axum::response::Response;
use serde_json::value::RawValue;
use tidemill_proto::{Code, Problem, Published, TopicName};

use super::media::Media;
use super::{Http, json};
use crate::relay::{
    Appended, Checked, Draft, Failure, Gate, IdempotencyKey, JsonText, Payload, TimeToLive, parse_topic,
};

/// The header that carries an idempotency key.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The header that says that an answer is the first answer again.
pub(super) const IDEMPOTENCY_REPLAYED: &str = "idempotency-replayed";

/// What the head of a publish of one message says.
#[derive(Debug)]
pub(super) struct Head<'a> {
    /// Where the message goes, and what the body is.
    pub(super) form: Form<'a>,
    /// The idempotency key.
    pub(super) key: Option<IdempotencyKey>,
}

/// What the body of a publish is.
#[derive(Debug)]
pub(super) enum Form<'a> {
    /// A JSON object with the topic, the payload, and what else belongs to a message.
    Described,
    /// The payload of a message for this topic, served for so long.
    Payload(TopicName, Media<'a>, Option<TimeToLive>),
}

/// Returns the message that a head and a body make, if `gate` lets its caller publish it.
///
/// # Errors
/// The body is not what the head says, the message breaks a rule, or the caller may not publish it.
pub(super) fn read_message(gate: &Gate, head: Head<'_>, body: &Bytes) -> Result<Checked, Failure> {
    let draft = match head.form {
        Form::Described => described(body, head.key),
        Form::Payload(topic, media, ttl) => whole(topic, media, body, ttl, head.key),
    };
    gate.check(draft?)
}

impl Http {
    /// Publishes a message, and counts what came of it.
    ///
    /// # Errors
    /// The storage refused it or did not answer.
    pub(super) async fn publish(&self, gate: &Gate, message: Checked) -> Result<Appended, Failure> {
        let bytes = message.len_bytes();
        let appended = self.counted(gate.publish(message).await)?;
        self.0.metrics.messages().published(bytes, appended.replayed);
        Ok(appended)
    }

    /// Counts the messages of a publish that was refused.
    pub(super) fn counted<T>(&self, result: Result<T, Failure>) -> Result<T, Failure> {
        result.inspect_err(|failure| self.0.metrics.messages().rejected(failure.code()))
    }
}

/// Returns the body of the answer to a publish.
pub(super) fn published(topic: &TopicName, appended: &Appended) -> Vec<u8> {
    let published =
        Published { message_id: appended.id, topic: topic.clone(), timestamp: appended.timestamp };
    // Room for the longest names of the common kind, so that the text is written without growing.
    let mut body = Vec::with_capacity(128 + topic.as_str().len());
    let written = serde_json::to_writer(&mut body, &published);
    debug_assert!(written.is_ok(), "ids, names and times can be written");
    body
}

pub(super) fn mark_replayed(response: &mut Response, replayed: bool) {
    if replayed {
        response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
}

/// Returns the message whose payload is the whole body.
fn whole(
    topic: TopicName,
    media: Media<'_>,
    body: &Bytes,
    ttl: Option<TimeToLive>,
    key: Option<IdempotencyKey>,
) -> Result<Draft, Failure> {
    let payload = match media {
        Media::Other(content_type) => Payload::Bytes(body.clone(), content_type.into()),
        Media::Json | Media::Ndjson => Payload::Json(json::value(body, body)?),
    };
    Ok(Draft { topic, payload, metadata: None, ttl, key })
}

/// Returns the message that a body describes.
fn described(body: &Bytes, key: Option<IdempotencyKey>) -> Result<Draft, Failure> {
    let [topic, payload, metadata, ttl] = json::fields(body, ["topic", "payload", "metadata", "ttl"])?;
    draft(body, [topic, payload, metadata, ttl], key)
}

/// Returns the message whose fields `topic, payload, metadata, ttl` are these.
pub(super) fn draft(
    body: &Bytes,
    [topic, payload, metadata, ttl]: [Option<&RawValue>; 4],
    key: Option<IdempotencyKey>,
) -> Result<Draft, Failure> {
    let topic = json::string("topic", topic.ok_or_else(|| json::missing("topic"))?)?;
    Ok(Draft {
        topic: parse_topic("topic", &topic)?,
        payload: Payload::Json(JsonText::of(body, payload.ok_or_else(|| json::missing("payload"))?)),
        metadata: json::optional(metadata).map(|raw| JsonText::of(body, raw)),
        ttl: json::optional(ttl).map(|raw| TimeToLive::parse(&json::whole(raw))).transpose()?,
        key,
    })
}

/// Returns the idempotency key that the headers have.
///
/// # Errors
/// There are two, or it is none.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Failure> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    match (keys.next(), keys.next()) {
        (None, _) => Ok(None),
        (Some(key), None) => IdempotencyKey::parse("Idempotency-Key", key.as_bytes()).map(Some),
        (Some(_), Some(_)) => Err(Problem::field("Idempotency-Key", "is there twice").into()),
    }
}

/// Returns the failure of a body with more messages than one request may have.
pub(super) fn too_many(what: &str, count: usize, max: usize) -> Failure {
    Problem::new(Code::TooLarge, format!("the body has {count} {what}; one request has at most {max}")).into()
}
