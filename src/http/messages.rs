//! Publishing one message, and the paths whose body is the payload itself.

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::value::RawValue;
use tidemill_proto::message::{Publish, PublishedBulk};
use tidemill_proto::{Code, Problem, Published, TopicName};

use super::body::BodyLimit;
use super::media::{self, Media};
use super::path::TopicPath;
use super::{Http, bulk, json, query};
use crate::relay::{
    Appended, Checked, Draft, Failure, IdempotencyKey, JsonText, Payload, TimeToLive, parse_topic,
};

/// The header that carries an idempotency key.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The header that says that an answer is the first answer again.
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
pub(super) const APPLICATION_JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Publish a message
///
/// The topic is created by its first message, unless the relay is set otherwise. With the header
/// `Idempotency-Key`, a repeat within the window returns the first answer, with
/// `Idempotency-Replayed: true`.
#[utoipa::path(
    post, path = "/api/v1/messages", tag = "messages",
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters")),
    request_body = Publish,
    responses(
        (status = 201, description = "The backend has confirmed the message", body = Published),
        (status = "4XX", description = "Nothing was changed", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Nothing was changed; try again", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "The outcome is unknown", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn publish(State(http): State<Http>, request: Request) -> Result<Response, Failure> {
    let (head, body) = request.into_parts();
    media::require_json(&head.headers)?;
    let key = idempotency_key(&head.headers)?;
    let body = http.0.budget.receive(body, http.payload_limit()).await?;
    let message = http.counted(single(&body.bytes, key).and_then(|draft| http.0.relay.check(draft)))?;
    publish_checked(&http, message).await
}

/// Publish the body as a message
///
/// A JSON body (`application/json` or `…+json`) becomes a JSON payload. `application/x-ndjson` is one
/// JSON payload a line, answered like a bulk publish. Any other body is kept as bytes with its
/// content type.
#[utoipa::path(
    post, path = "/api/v1/topics/{topic}/messages", tag = "messages",
    params(
        ("topic" = String, Path, description = "The name of the topic"),
        ("ttl" = Option<u64>, Query, description = "Seconds after which the message is no longer served"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters"),
    ),
    request_body(
        content((serde_json::Value = "application/json"), (String = "application/x-ndjson"), (String = "application/octet-stream")),
        description = "The payload; with `application/x-ndjson`, one payload a line",
    ),
    responses(
        (status = 201, description = "The backend has confirmed the message", body = Published),
        (status = 207, description = "A result per line", body = PublishedBulk),
        (status = "4XX", description = "Nothing was changed", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Nothing was changed; try again", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "The outcome is unknown", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn publish_body(
    State(http): State<Http>,
    TopicPath(topic): TopicPath,
    request: Request,
) -> Result<Response, Failure> {
    let (head, body) = request.into_parts();
    let [ttl] = query::parameters(&head.uri, ["ttl"])?;
    let ttl = ttl.as_deref().map(TimeToLive::parse).transpose()?;
    let key = idempotency_key(&head.headers)?;
    let media = media::of(&head.headers)?;
    if matches!(media, Media::Ndjson) {
        let body = http.0.budget.receive(body, http.bulk_limit()).await?;
        return bulk::publish_lines(&http, &body.bytes, &topic, ttl, key.as_ref()).await;
    }
    let limit =
        BodyLimit { bytes_max: http.0.relay.options().payload_bytes_max as u64, ..http.payload_limit() };
    let body = http.0.budget.receive(body, limit).await?;
    let draft = whole(topic, media, &body.bytes, ttl, key);
    let message = http.counted(draft.and_then(|draft| http.0.relay.check(draft)))?;
    publish_checked(&http, message).await
}

async fn publish_checked(http: &Http, message: Checked) -> Result<Response, Failure> {
    let topic = message.topic().clone();
    let appended = publish_counted(http, message).await?;
    let body = Bytes::from(published(&topic, &appended));
    let mut response = (StatusCode::CREATED, [(CONTENT_TYPE, APPLICATION_JSON)], body).into_response();
    mark_replayed(&mut response, appended.replayed);
    Ok(response)
}

/// Publishes a message and counts what came of it.
pub(super) async fn publish_counted(http: &Http, message: Checked) -> Result<Appended, Failure> {
    let bytes = message.len_bytes();
    let appended = http.counted(http.0.relay.publish(message).await)?;
    http.0.metrics.published(bytes, appended.replayed);
    Ok(appended)
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

/// Returns the message whose payload is the whole body.
pub(super) fn whole(
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

pub(super) fn mark_replayed(response: &mut Response, replayed: bool) {
    if replayed {
        response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
}

/// Returns the message that a body describes.
pub(super) fn single(body: &Bytes, key: Option<IdempotencyKey>) -> Result<Draft, Failure> {
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
        ttl: json::optional(ttl).map(|raw| TimeToLive::parse(raw.get())).transpose()?,
        key,
    })
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Failure> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    match (keys.next(), keys.next()) {
        (None, _) => Ok(None),
        (Some(key), None) => IdempotencyKey::parse("Idempotency-Key", key.as_bytes()).map(Some),
        (Some(_), Some(_)) => Err(Problem::field("Idempotency-Key", "is there twice").into()),
    }
}

pub(super) fn bulk_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Failure> {
    idempotency_key(headers)
}

/// Returns the failure of a body with more messages than one request may have.
pub(super) fn too_many(what: &str, count: usize, max: usize) -> Failure {
    Problem::new(Code::TooLarge, format!("the body has {count} {what}; one request has at most {max}")).into()
}
