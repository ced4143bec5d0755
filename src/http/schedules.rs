//! What waits for later: messages that are listed, cancelled and published at once, and recurring ones.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;
use tidemill_proto::limits::{SCHEDULES_PAGE_DEFAULT, SCHEDULES_PAGE_MAX};
use tidemill_proto::schedule::{Recurring, RecurringUpdate, ScheduledMessage};
use tidemill_proto::{MessageId, PayloadRef, Scheduled, TopicName};
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::called::Called;
use super::failure::Problems;
use super::linked::linked;
use super::path::{RecurringPath, SchedulePath, TopicPath};
use super::publishing::recurring_draft;
use super::routes::{Concern, Needs};
use super::{Http, media, query};
use crate::access::Verb;
use crate::relay::{DueCursor, Failure, StoredRecurring, WaitingMessage};

pub(super) fn routes(is_on: bool) -> Concern {
    Concern::switched(is_on)
        .route(Needs::Right(Verb::Read), routes!(list_scheduled))
        .route(Needs::Right(Verb::Manage), routes!(cancel_scheduled))
        .route(Needs::Right(Verb::Manage), routes!(publish_scheduled))
        .route(Needs::Right(Verb::Read), routes!(list_recurring))
        .route(Needs::Right(Verb::Read), routes!(read_recurring))
        .route(Needs::Right(Verb::Manage), routes!(put_recurring))
        .route(Needs::Right(Verb::Manage), routes!(delete_recurring))
}

/// A message that waited and was published.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PublishedNow {
    /// The id that the backend gave the message.
    message_id: MessageId,
    /// The topic.
    topic: TopicName,
}

/// List the messages of a topic that are to be published later
///
/// Those that are due first come first; recurring messages are none of them. Where there are more, the header `Link` has
/// the address of the next page. A page ends early where its payloads weigh much.
#[utoipa::path(
    get, path = "/api/v1/topics/{topic}/scheduled", tag = "schedules",
    params(
        ("topic" = String, Path, description = "The name of the topic"),
        ("limit" = Option<usize>, Query, description = "Most messages, 1 to 1,000; 100 if absent"),
        ("cursor" = Option<String>, Query, description = "Where to go on, as the page before has told it"),
    ),
    responses(
        (status = 200, body = Vec<ScheduledMessage>, headers(("Link" = String, description = "`<…>; rel=\"next\"`, where there are more"))),
        Problems,
    ),
)]
pub(super) async fn list_scheduled(
    State(http): State<Http>,
    Called(gate): Called,
    TopicPath(topic): TopicPath,
    uri: Uri,
) -> Result<Response, Failure> {
    let [limit, cursor] = query::parameters(&uri, ["limit", "cursor"])?;
    let limit = query::limit(limit.as_deref(), SCHEDULES_PAGE_DEFAULT, SCHEDULES_PAGE_MAX)?;
    let after = cursor.as_deref().map(DueCursor::parse).transpose()?;
    let page = gate.scheduled(&topic, after, limit).await?;
    let bytes = page.messages.iter().map(|message| message.body.len_bytes()).sum();
    let write = || {
        let messages: Vec<_> = page.messages.iter().map(|message| shown(&topic, message)).collect();
        serde_json::to_vec(&messages).expect("ids, names and payloads can be written")
    };
    let body = http.0.budget.charge(bytes, write)?;
    let next = page.next.as_ref().map(|next| {
        let next = DueCursor::text_of(next);
        format!("/api/v1/topics/{topic}/scheduled?limit={limit}&cursor={next}")
    });
    Ok(linked(([(CONTENT_TYPE, media::APPLICATION_JSON)], body), next))
}

/// Cancel a message that is to be published later
#[utoipa::path(
    delete, path = "/api/v1/topics/{topic}/scheduled/{schedule_id}", tag = "schedules",
    params(
        ("topic" = String, Path, description = "The name of the topic"),
        ("schedule_id" = String, Path, description = "What the publish was answered"),
    ),
    responses((status = 204, description = "It will not be published"), Problems),
)]
pub(super) async fn cancel_scheduled(
    Called(gate): Called,
    SchedulePath(topic, id): SchedulePath,
    uri: Uri,
) -> Result<StatusCode, Failure> {
    let [] = query::parameters(&uri, [])?;
    gate.cancel_scheduled(&topic, &id).await.map(|()| StatusCode::NO_CONTENT)
}

/// Publish a message now that is to be published later
#[utoipa::path(
    post, path = "/api/v1/topics/{topic}/scheduled/{schedule_id}/now", tag = "schedules",
    params(
        ("topic" = String, Path, description = "The name of the topic"),
        ("schedule_id" = String, Path, description = "What the publish was answered"),
    ),
    responses((status = 200, body = PublishedNow), Problems),
)]
pub(super) async fn publish_scheduled(
    Called(gate): Called,
    SchedulePath(topic, id): SchedulePath,
    uri: Uri,
) -> Result<Json<PublishedNow>, Failure> {
    let [] = query::parameters(&uri, [])?;
    let message_id = gate.publish_scheduled(&topic, &id).await?;
    Ok(Json(PublishedNow { message_id, topic }))
}

/// List the recurring messages of a topic
///
/// In the order of their names, all of them.
#[utoipa::path(
    get, path = "/api/v1/topics/{topic}/recurring", tag = "schedules",
    params(("topic" = String, Path, description = "The name of the topic")),
    responses((status = 200, body = Vec<Recurring>), Problems),
)]
pub(super) async fn list_recurring(
    Called(gate): Called,
    TopicPath(topic): TopicPath,
    uri: Uri,
) -> Result<Json<Vec<Recurring>>, Failure> {
    let [] = query::parameters(&uri, [])?;
    let all = gate.recurring(&topic).await?;
    Ok(Json(all.iter().map(|one| shown_recurring(&topic, one)).collect()))
}

/// Read a recurring message
#[utoipa::path(
    get, path = "/api/v1/topics/{topic}/recurring/{name}", tag = "schedules",
    params(
        ("topic" = String, Path, description = "The name of the topic"),
        ("name" = String, Path, description = "The name of the recurring message"),
    ),
    responses((status = 200, body = Recurring), Problems),
)]
pub(super) async fn read_recurring(
    Called(gate): Called,
    RecurringPath(topic, name): RecurringPath,
    uri: Uri,
) -> Result<Json<Recurring>, Failure> {
    let [] = query::parameters(&uri, [])?;
    let one = gate.one_recurring(&topic, &name).await?;
    Ok(Json(shown_recurring(&topic, &one)))
}

/// Publish a message again and again
///
/// In place of the one of this name, if there is one. Whoever sets it must be allowed to publish to the topic, too.
#[utoipa::path(
    put, path = "/api/v1/topics/{topic}/recurring/{name}", tag = "schedules",
    params(
        ("topic" = String, Path, description = "The name of the topic"),
        ("name" = String, Path, description = "The name of the recurring message"),
    ),
    request_body = RecurringUpdate,
    responses((status = 200, body = Recurring), Problems),
)]
pub(super) async fn put_recurring(
    State(http): State<Http>,
    Called(gate): Called,
    RecurringPath(topic, name): RecurringPath,
    request: Request,
) -> Result<Json<Recurring>, Failure> {
    let (head, body) = request.into_parts();
    let [] = query::parameters(&head.uri, [])?;
    media::require_json(&head.headers)?;
    gate.check_some_topic(Verb::Manage)?;
    let body = http.0.budget.receive(&head.headers, body, http.payload_limit()).await?;
    let draft = recurring_draft(&http.0.budget, &body.bytes, topic.clone(), name)?;
    let stored = gate.put_recurring(draft).await?;
    Ok(Json(shown_recurring(&topic, &stored)))
}

/// Publish a recurring message no longer
#[utoipa::path(
    delete, path = "/api/v1/topics/{topic}/recurring/{name}", tag = "schedules",
    params(
        ("topic" = String, Path, description = "The name of the topic"),
        ("name" = String, Path, description = "The name of the recurring message"),
    ),
    responses((status = 204, description = "It does not come again"), Problems),
)]
pub(super) async fn delete_recurring(
    Called(gate): Called,
    RecurringPath(topic, name): RecurringPath,
    uri: Uri,
) -> Result<StatusCode, Failure> {
    let [] = query::parameters(&uri, [])?;
    gate.delete_recurring(&topic, &name).await.map(|()| StatusCode::NO_CONTENT)
}

fn shown(topic: &TopicName, message: &WaitingMessage) -> ScheduledMessage {
    let WaitingMessage { id, due, body, ttl } = message;
    let scheduled = Scheduled { schedule_id: id.clone(), topic: topic.clone(), deliver_at: *due };
    let payload = PayloadRef { bytes: &body.payload, content_type: body.content_type.as_deref() };
    let ttl = ttl.map(|ttl| ttl.as_secs());
    ScheduledMessage::of(scheduled, payload, body.metadata.as_deref(), ttl, body.order_key.clone())
}

fn shown_recurring(topic: &TopicName, stored: &StoredRecurring) -> Recurring {
    let StoredRecurring { name, rule, body, ttl, next } = stored;
    let payload = PayloadRef { bytes: &body.payload, content_type: body.content_type.as_deref() };
    let rule = (rule.cron.to_string(), rule.timezone.to_string());
    let (ttl, order_key) = (ttl.map(|ttl| ttl.as_secs()), body.order_key.clone());
    let name = (topic.clone(), name.clone());
    Recurring::of(name, rule, *next, payload, body.metadata.as_deref(), ttl, order_key)
}
