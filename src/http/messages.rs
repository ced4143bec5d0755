//! Publishing one message, and the paths whose body is the payload itself.

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use tidemill_proto::message::{Publish, PublishedBulk};
use tidemill_proto::{Durability, MessageId, OrderKey, Published, Scheduled, Timestamp};
use utoipa_axum::routes;

use super::body::BodyLimit;
use super::bulk::{Answers, Lines};
use super::called::Called;
use super::failure::PublishProblems;
use super::media::{self, APPLICATION_JSON, Media};
use super::path::TopicPath;
use super::publishing::{
    About, Form, Head, Said, delivery, durability, expected_last, fence, idempotency_key, mark_replayed,
    order_key, published, read_message, refuse_about, scheduled, unique,
};
use super::routes::{Concern, Needs};
use super::{Http, bulk, metadata, query};
use crate::access::Verb;
use crate::relay::{Answered, Checked, Failure, Gate, TimeToLive};
use crate::slow;

pub(super) fn routes() -> Concern {
    Concern::new()
        .route(Needs::Right(Verb::Publish), routes!(publish))
        .route(Needs::Right(Verb::Publish), routes!(publish_body))
}

/// Publish a message
///
/// The topic is created by its first message, unless the relay is set otherwise. With the header
/// `Idempotency-Key`, a repeat within the window returns the first answer, with
/// `Idempotency-Replayed: true`. With `delay` or `deliver_at` the message waits and is published then.
#[utoipa::path(
    post, path = "/api/v1/messages", tag = "messages",
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters")),
    request_body = Publish,
    responses(
        (status = 201, description = "The backend has confirmed the message", body = Published),
        (status = 202, description = "The backend has confirmed that the message will be published", body = Scheduled),
        PublishProblems,
    ),
)]
pub(super) async fn publish(
    State(http): State<Http>,
    Called(gate): Called,
    request: Request,
) -> Result<Response, Failure> {
    let (head, body) = request.into_parts();
    let [] = query::parameters(&head.uri, [])?;
    media::require_json(&head.headers)?;
    metadata::refuse(&head.headers)?;
    refuse_about(&head.headers)?;
    let key = idempotency_key(&head.headers)?;
    http.counted(gate.check_some_topic(Verb::Publish))?;
    let body = http.0.budget.receive(&head.headers, body, http.payload_limit()).await?;
    let form = Form::Described(metadata::trace(&head.headers));
    let head = Head { form, key, expected_last: None };
    let message = http.counted(read_message(&gate, &http.0.budget, head, &body.bytes).await)?;
    publish_checked(&http, &gate, message).await
}

/// Publish the body as a message
///
/// A JSON body (`application/json` or `…+json`) becomes a JSON payload. `application/x-ndjson` is one
/// JSON payload a line, answered like a bulk publish. Any other body is kept as bytes with its
/// content type. Headers `Tidemill-Meta-<name>`, `ce-*`, `traceparent` and `tracestate` become metadata.
#[utoipa::path(
    post, path = "/api/v1/topics/{topic}/messages", tag = "messages",
    params(
        ("topic" = String, Path, description = "The name of the topic"),
        ("ttl" = Option<String>, Query, description = "How long the message is served: whole seconds, or with a unit as in `2h`; ten years at most"),
        ("delay" = Option<String>, Query, description = "Publishes it so long from now: seconds, or with a unit as in `2m`; 365 days at most"),
        ("deliver_at" = Option<Timestamp>, Query, description = "In place of `delay`: publishes it at this time"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters"),
        ("Tidemill-Expected-Last" = Option<MessageId>, Header, description = "The id of the last message of the topic, `0-0` for none: only behind that one the message is kept, or with lines the first of them, and the others with it"),
        ("Tidemill-Order-Key" = Option<OrderKey>, Header, description = "The order key, with lines that of each"),
        ("Tidemill-Unique" = Option<String>, Header, description = "A group and a key, as in `workers/invoice-7`: kept only where no message of the key waits or is worked on in the group, else the answer is that of that one. With lines each has the key with its place"),
        ("Tidemill-Fence" = Option<String>, Header, description = "The name of a lock and the fence of who holds it, as in `nightly=1517363399650-0`: refused with 412 once another holds the lock. With lines each is checked"),
        ("Tidemill-Durability" = Option<Durability>, Header, description = "How durable it must be before the answer comes; what is set for the topic or the node if absent. Not beside `delay` and `deliver_at`"),
        ("Prefer" = Option<String>, Header, description = "With lines: `return=minimal` leaves out the results of accepted ones"),
    ),
    request_body(
        content((serde_json::Value = "application/json"), (String = "application/x-ndjson"), (String = "application/octet-stream")),
        description = "The payload; with `application/x-ndjson`, one payload a line",
    ),
    responses(
        (status = 201, description = "The backend has confirmed the message", body = Published),
        (status = 202, description = "The backend has confirmed that the message will be published", body = Scheduled),
        (status = 207, description = "A result per line", body = PublishedBulk),
        PublishProblems,
    ),
)]
pub(super) async fn publish_body(
    State(http): State<Http>,
    Called(gate): Called,
    TopicPath(topic): TopicPath,
    request: Request,
) -> Result<Response, Failure> {
    let (head, body) = request.into_parts();
    let [ttl, delay, at] = query::parameters(&head.uri, ["ttl", "delay", "deliver_at"])?;
    let ttl = ttl.as_deref().map(TimeToLive::parse).transpose()?;
    let delivery = delivery(delay.as_deref(), at.as_deref())?;
    let key = idempotency_key(&head.headers)?;
    let expected_last = expected_last(&head.headers)?;
    let media = media::of(&head.headers)?;
    let order_key = order_key(&head.headers)?;
    let unique = unique(&head.headers)?;
    let fence = fence(&head.headers)?;
    let durability = durability(&head.headers)?;
    let metadata = metadata::of(&head.headers)?;
    let about = About { ttl, metadata, delivery, order_key, unique, fence, durability };
    let said = Said::by(&head.headers);
    http.counted(gate.check_some_topic(Verb::Publish))?;
    if matches!(media, Media::Ndjson) {
        let body = http.0.budget.receive(&head.headers, body, http.bulk_limit()).await?;
        let lines = Lines { topic, key, about, expected_last, said };
        return bulk::publish_lines(&http, &gate, &body.bytes, &lines, Answers::wanted(&head.headers)).await;
    }
    let limit =
        BodyLimit { bytes_max: http.0.relay.options().payload_bytes_max as u64, ..http.payload_limit() };
    let body = http.0.budget.receive(&head.headers, body, limit).await?;
    let head = Head { form: Form::Payload(topic, media, about), key, expected_last };
    let message = http.counted(read_message(&gate, &http.0.budget, head, &body.bytes).await);
    let message = message.map_err(|failure| said.named(failure))?;
    publish_checked(&http, &gate, message).await.map_err(|failure| said.named(failure))
}

async fn publish_checked(http: &Http, gate: &Gate, message: Checked) -> Result<Response, Failure> {
    let topic = message.topic().clone();
    slow::about(&topic);
    let taken = http.publish(gate, message).await?;
    let (status, body) = match &taken {
        Answered::Published(appended, durability) => {
            (StatusCode::CREATED, published(&topic, appended, *durability))
        }
        Answered::Scheduled(later) => (StatusCode::ACCEPTED, scheduled(&topic, later)),
    };
    let mut response = (status, [(CONTENT_TYPE, APPLICATION_JSON)], Bytes::from(body)).into_response();
    mark_replayed(&mut response, taken.is_replayed());
    Ok(response)
}
