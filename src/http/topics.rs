//! Topics: create, list, describe, update, delete, trim, count.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::{HeaderValue, LOCATION};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::put;
use serde_json::value::RawValue;
use tidemill_proto::limits::{TOPICS_PAGE_DEFAULT, TOPICS_PAGE_MAX};
use tidemill_proto::topics::{
    Topic, TopicCreate, TopicDetail, TopicUpdate, TopicsStats, TrimRequest, Trimmed,
};
use tidemill_proto::{Code, Problem, TopicName};
use utoipa_axum::routes;

use super::body::Received;
use super::called::Called;
use super::etag::Validator;
use super::failure::Problems;
use super::linked::linked;
use super::path::{MessagePath, TopicPath};
use super::routes::{Concern, Needs};
use super::{Http, json, media, query};
use crate::access::Verb;
use crate::relay::{
    Failure, Gate, Part, TopicChange, TrimTo, parse_compact_by, parse_description, parse_idle,
    parse_max_bytes, parse_max_messages, parse_retention, parse_selector, parse_since, parse_topic,
    parse_when_full,
};

/// The parts of a description.
const ABOUT: [&str; 8] = [
    "description",
    "retention_seconds",
    "max_messages",
    "max_bytes",
    "when_full",
    "keep_until_acked",
    "idle_seconds",
    "compact_by",
];

/// Most messages that a trim keeps: the largest number that storages take.
const KEEP_MAX: u64 = i64::MAX.unsigned_abs();

pub(super) fn routes() -> Concern {
    Concern::new()
        .route(Needs::Right(Verb::Manage), routes!(create))
        .route(Needs::Right(Verb::Read), routes!(list))
        .route(Needs::Right(Verb::Admin), routes!(stats))
        .undescribed("/api/v1/topics/stats", put(update_stats).patch(change_stats).delete(delete_stats))
        .route(Needs::Right(Verb::Read), routes!(describe))
        .route(Needs::Right(Verb::Manage), routes!(update))
        .route(Needs::Right(Verb::Manage), routes!(change))
        .route(Needs::Right(Verb::Manage), routes!(delete))
        .route(Needs::Right(Verb::Manage), routes!(trim))
        .route(Needs::Right(Verb::Manage), routes!(delete_message))
}

/// Create a topic
#[utoipa::path(
    post, path = "/api/v1/topics", tag = "topics", operation_id = "create_topic",
    request_body = TopicCreate,
    responses(
        (status = 201, body = Topic, headers(("Location" = String, description = "The path of the topic"))),
        Problems,
    ),
)]
pub(super) async fn create(
    State(http): State<Http>,
    Called(gate): Called,
    request: Request,
) -> Result<Response, Failure> {
    let body = receive(&http, &gate, request).await?;
    let [one, two, three, four, five, six, seven, eight] = ABOUT;
    let names = ["topic_name", one, two, three, four, five, six, seven, eight];
    let [name, about @ ..] = json::fields(&body.bytes, names)?;
    let name = json::string("topic_name", name.ok_or_else(|| json::missing("topic_name"))?)?;
    let topic = parse_topic("topic_name", &name)?;
    let created = gate.create_topic(&topic, self::about(about)?).await?;
    let location = HeaderValue::try_from(format!("/api/v1/topics/{topic}"))
        .expect("a topic name holds nothing that a header cannot");
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(created)).into_response())
}

/// List topics
///
/// In the order of their names. Where there are more, the header `Link` has the address of the next
/// page. With `match`, only those whose names it matches: a page then ends early where it has looked at
/// 10,000 names, and may have a `Link` and fewer topics than `limit`. Where none of 50,000 matches, it is 400.
#[utoipa::path(
    get, path = "/api/v1/topics", tag = "topics", operation_id = "list_topics",
    params(
        ("limit" = Option<usize>, Query, description = "Most topics, 1 to 1,000; 100 if absent"),
        ("cursor" = Option<String>, Query, description = "The name after which to go on"),
        ("match" = Option<String>, Query, description = "A pattern, as in `orders.*`: `*` is any run of characters, 8 at most; or one name"),
    ),
    responses(
        (status = 200, body = Vec<Topic>, headers(("Link" = String, description = "`<…>; rel=\"next\"`, where there are more"))),
        Problems,
    ),
)]
pub(super) async fn list(Called(gate): Called, uri: Uri) -> Result<Response, Failure> {
    let [limit, cursor, selected] = query::parameters(&uri, ["limit", "cursor", "match"])?;
    let limit = query::limit(limit.as_deref(), TOPICS_PAGE_DEFAULT, TOPICS_PAGE_MAX)?;
    let cursor = cursor.map(|text| parse_topic("cursor", &text)).transpose()?;
    let selected = selected.map(|text| parse_selector("match", &text)).transpose()?;
    let list = gate.list_topics(selected.as_ref(), cursor.as_ref(), limit).await?;
    let next = list.next.map(|next| {
        let selected = selected.map_or_else(String::new, |selected| format!("&match={selected}"));
        format!("/api/v1/topics?limit={limit}&cursor={next}{selected}")
    });
    Ok(linked(Json(list.topics), next))
}

/// Describe a topic
#[utoipa::path(
    get, path = "/api/v1/topics/{topic}", tag = "topics", operation_id = "describe_topic",
    params(
        ("topic" = String, Path, description = "The name of the topic"),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of an answer that is known"),
    ),
    responses(
        (status = 200, body = TopicDetail),
        (status = 304, description = "But for its age, it is the one that is known"),
        Problems,
    ),
)]
pub(super) async fn describe(
    Called(gate): Called,
    TopicPath(topic): TopicPath,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Failure> {
    let [] = query::parameters(&uri, [])?;
    let detail = gate.describe_topic(&topic).await?;
    // Every second would make another one of it.
    let ageless = TopicDetail { oldest_age_seconds: None, ..detail.clone() };
    let text = serde_json::to_vec(&ageless).expect("names, numbers and texts can be written");
    Ok(Validator::of(&[&text]).answer(&headers, Json(detail).into_response()))
}

/// Replace the description of a topic
///
/// What is absent or null is cleared.
#[utoipa::path(
    put, path = "/api/v1/topics/{topic}", tag = "topics", operation_id = "update_topic",
    params(("topic" = String, Path, description = "The name of the topic")),
    request_body = TopicUpdate,
    responses(
        (status = 200, body = Topic),
        Problems,
    ),
)]
pub(super) async fn update(
    State(http): State<Http>,
    Called(gate): Called,
    TopicPath(topic): TopicPath,
    request: Request,
) -> Result<Json<Topic>, Failure> {
    update_named(&http, &gate, &topic, request).await
}

async fn update_named(
    http: &Http,
    gate: &Gate,
    topic: &TopicName,
    request: Request,
) -> Result<Json<Topic>, Failure> {
    let body = receive(http, gate, request).await?;
    let about = about(json::fields(&body.bytes, ABOUT)?)?;
    let updated = gate.update_topic(topic, about.into()).await;
    // With a `PUT` one may have meant to make it.
    updated.map(Json).map_err(|failure| match failure.code() {
        Code::TopicNotFound => {
            let detail = format!(
                "topic `{topic}` does not exist, and is not made so: `POST /api/v1/topics` with its `topic_name` makes it, and so does its first message"
            );
            Problem::new(Code::TopicNotFound, detail).into()
        }
        _ => failure,
    })
}

/// Change a topic
///
/// What is absent stays as it is, what is null is cleared.
#[utoipa::path(
    patch, path = "/api/v1/topics/{topic}", tag = "topics", operation_id = "change_topic",
    params(("topic" = String, Path, description = "The name of the topic")),
    request_body = TopicUpdate,
    responses(
        (status = 200, body = Topic),
        Problems,
    ),
)]
pub(super) async fn change(
    State(http): State<Http>,
    Called(gate): Called,
    TopicPath(topic): TopicPath,
    request: Request,
) -> Result<Json<Topic>, Failure> {
    change_named(&http, &gate, &topic, request).await
}

async fn change_named(
    http: &Http,
    gate: &Gate,
    topic: &TopicName,
    request: Request,
) -> Result<Json<Topic>, Failure> {
    let body = receive(http, gate, request).await?;
    let parts = json::fields(&body.bytes, ABOUT)?;
    let about = about(parts)?;
    let [one, two, three, four, five, six, seven, eight] = parts.map(|part| part.is_some());
    let change = TopicChange {
        description: part(one, about.description),
        retention_seconds: part(two, about.retention_seconds),
        max_messages: part(three, about.max_messages),
        max_bytes: part(four, about.max_bytes),
        when_full: part(five, about.when_full),
        keep_until_acked: part(six, about.keep_until_acked),
        idle_seconds: part(seven, about.idle_seconds),
        compact_by: part(eight, about.compact_by),
    };
    gate.update_topic(topic, change).await.map(Json)
}

fn part<T>(is_named: bool, value: Option<T>) -> Part<T> {
    if is_named { Part::Set(value) } else { Part::Kept }
}

/// Delete a topic with its messages
#[utoipa::path(
    delete, path = "/api/v1/topics/{topic}", tag = "topics", operation_id = "delete_topic",
    params(("topic" = String, Path, description = "The name of the topic")),
    responses(
        (status = 204),
        Problems,
    ),
)]
pub(super) async fn delete(
    Called(gate): Called,
    TopicPath(topic): TopicPath,
    uri: Uri,
) -> Result<StatusCode, Failure> {
    delete_named(&gate, &topic, &uri).await
}

async fn delete_named(gate: &Gate, topic: &TopicName, uri: &Uri) -> Result<StatusCode, Failure> {
    let [] = query::parameters(uri, [])?;
    gate.delete_topic(topic).await.map(|()| StatusCode::NO_CONTENT)
}

/// Delete a message
///
/// Readers behind it are told of no gap: it was taken out on purpose.
#[utoipa::path(
    delete, path = "/api/v1/topics/{topic}/messages/{message_id}", tag = "messages",
    params(
        ("topic" = String, Path, description = "The name of the topic"),
        ("message_id" = String, Path, description = "The id of the message"),
    ),
    responses((status = 204, description = "It is gone"), Problems),
)]
pub(super) async fn delete_message(
    Called(gate): Called,
    MessagePath(topic, id): MessagePath,
    uri: Uri,
) -> Result<StatusCode, Failure> {
    let [] = query::parameters(&uri, [])?;
    gate.delete_message(&topic, id).await.map(|()| StatusCode::NO_CONTENT)
}

/// Trim a topic
///
/// Removes messages from the old end: all but the newest `keep`, or all `before` an id or a time.
#[utoipa::path(
    post, path = "/api/v1/topics/{topic}/trim", tag = "topics", operation_id = "trim_topic",
    params(("topic" = String, Path, description = "The name of the topic")),
    request_body = TrimRequest,
    responses(
        (status = 200, body = Trimmed),
        Problems,
    ),
)]
pub(super) async fn trim(
    State(http): State<Http>,
    Called(gate): Called,
    TopicPath(topic): TopicPath,
    request: Request,
) -> Result<Json<Trimmed>, Failure> {
    let body = receive(&http, &gate, request).await?;
    let [keep, before]: [Option<&RawValue>; 2] = json::fields(&body.bytes, ["keep", "before"])?;
    let to = match (json::optional(keep), json::optional(before)) {
        (Some(keep), None) => {
            let count = json::whole(keep).parse().ok().filter(|count| *count <= KEEP_MAX);
            let rule = format!("must be a whole number of messages, 0 to {KEEP_MAX}");
            TrimTo::Newest(count.ok_or_else(|| Problem::field("keep", rule))?)
        }
        (None, Some(before)) => TrimTo::From(parse_since("before", &json::string("before", before)?)?),
        _ => {
            return Err(Problem::field("keep", "or `before` must be there, and only one of the two").into());
        }
    };
    let removed = gate.trim_topic(&topic, to).await?;
    Ok(Json(Trimmed { removed }))
}

/// Count topics and messages
#[utoipa::path(
    get, path = "/api/v1/topics/stats", tag = "topics", operation_id = "topics_stats",
    responses(
        (status = 200, body = TopicsStats),
        Problems,
    ),
)]
pub(super) async fn stats(Called(gate): Called, uri: Uri) -> Result<Json<TopicsStats>, Failure> {
    let [] = query::parameters(&uri, [])?;
    gate.topics_stats().await.map(Json)
}

/// Updates the topic that is called `stats`, whose path the counts have.
pub(super) async fn update_stats(
    State(http): State<Http>,
    Called(gate): Called,
    request: Request,
) -> Result<Json<Topic>, Failure> {
    update_named(&http, &gate, &parse_topic("topic", "stats")?, request).await
}

/// Changes the topic that is called `stats`, whose path the counts have.
pub(super) async fn change_stats(
    State(http): State<Http>,
    Called(gate): Called,
    request: Request,
) -> Result<Json<Topic>, Failure> {
    change_named(&http, &gate, &parse_topic("topic", "stats")?, request).await
}

/// Deletes the topic that is called `stats`, whose path the counts have.
pub(super) async fn delete_stats(Called(gate): Called, uri: Uri) -> Result<StatusCode, Failure> {
    delete_named(&gate, &parse_topic("topic", "stats")?, &uri).await
}

/// Reads the body of a request to change a topic, unless its caller can change none.
pub(super) async fn receive(http: &Http, gate: &Gate, request: Request) -> Result<Received, Failure> {
    let (head, body) = request.into_parts();
    let [] = query::parameters(&head.uri, [])?;
    media::require_json(&head.headers)?;
    gate.check_some_topic(Verb::Manage)?;
    http.0.budget.receive(&head.headers, body, http.small_limit()).await
}

/// Returns the description whose [`ABOUT`] are these.
fn about(parts: [Option<&RawValue>; 8]) -> Result<TopicUpdate, Failure> {
    let [description, retention, messages, bytes, when_full, keep_until_acked, idle, compact_by] =
        parts.map(json::optional);
    let description = match description {
        Some(raw) => Some(parse_description(&json::string("description", raw)?)?),
        None => None,
    };
    let compact_by = match compact_by {
        Some(raw) => Some(parse_compact_by(&json::string("compact_by", raw)?)?),
        None => None,
    };
    let when_full = match when_full {
        Some(raw) => Some(parse_when_full(&json::string("when_full", raw)?)?),
        None => None,
    };
    let number = |raw: Option<&RawValue>, parse: fn(&str) -> Result<u64, Failure>| {
        raw.map(|raw| parse(&json::whole(raw))).transpose()
    };
    let time = |raw: Option<&RawValue>, parse: fn(&str) -> Result<u64, Failure>| {
        raw.map(|raw| parse(raw.get())).transpose()
    };
    Ok(TopicUpdate {
        description,
        retention_seconds: time(retention, parse_retention)?,
        max_messages: number(messages, parse_max_messages)?,
        max_bytes: number(bytes, parse_max_bytes)?,
        when_full,
        keep_until_acked: keep_until_acked.map(|raw| json::switch("keep_until_acked", raw)).transpose()?,
        idle_seconds: time(idle, parse_idle)?,
        compact_by,
    })
}
