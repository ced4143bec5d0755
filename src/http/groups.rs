//! Groups: making, changing and describing them, bringing dead letters back, and what became of a message.

use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use serde_json::value::RawValue;
use tidemill_proto::work::{
    GroupDetail, GroupName, GroupUpdate, MessageState, RedriveRequest, Redriven, SeekRequest,
};
use tidemill_proto::{Cursor, MessageId, Problem, Since, TopicName, duration};
use utoipa_axum::routes;

use super::body::Received;
use super::called::Called;
use super::failure::Problems;
use super::path::{GroupMessagePath, GroupPath, TopicPath};
use super::routes::{Concern, Needs};
use super::{Http, etag, json, media, query};
use crate::access::Verb;
use crate::relay::{
    Change, Failure, Fate, Gate, GroupDraft, parse_id, parse_ordering, parse_since, parse_topic, within,
};

/// Bounds of a group's settings, each with its reason. A consumer's time is at least what a round trip over a slow link
/// takes, and at most half a day.
const ACK_WAIT: [Duration; 2] = [Duration::from_millis(100), Duration::from_hours(12)];
/// For how long a message runs at most, and waits after a failure: a year, as delays.
const RUN: [Duration; 2] = [Duration::from_millis(100), Duration::from_hours(365 * 24)];
const BACKOFF: [Duration; 2] = [Duration::ZERO, RUN[1]];
/// For how long results are kept.
const RESULT_TTL: [Duration; 2] = [Duration::from_secs(1), Duration::from_hours(7 * 24)];
/// Waits of a backoff.
pub(super) const BACKOFFS_MAX: usize = 64;
pub(super) const DELIVERIES_MAX: u32 = 1_000;
pub(super) const HELD_MAX: u32 = 1_000_000;
/// Longest wait for the end of a message, and for work: proxies cut requests that are silent for longer.
pub(super) const WAIT_MAX: Duration = Duration::from_mins(1);
/// Dead letters that can be claimed again in each second.
pub(super) const RATE_MAX: u32 = 1_000_000;
/// Ids of one request.
pub(super) const IDS_MAX: usize = 1_000;

pub(super) fn routes(is_on: bool) -> Concern {
    Concern::switched(is_on)
        .route(Needs::Right(Verb::Work), routes!(list))
        .route(Needs::Right(Verb::Work), routes!(describe))
        .route(Needs::Right(Verb::Manage), routes!(put))
        .route(Needs::Right(Verb::Manage), routes!(change))
        .route(Needs::Right(Verb::Manage), routes!(delete))
        .route(Needs::Right(Verb::Manage), routes!(seek))
        .route(Needs::Right(Verb::Manage), routes!(pause))
        .route(Needs::Right(Verb::Manage), routes!(resume))
        .route(Needs::Right(Verb::Manage), routes!(redrive))
        .route(Needs::Right(Verb::Manage), routes!(purge))
        .route(Needs::Right(Verb::Read), routes!(state))
}

/// List the groups of a topic
///
/// In the order of their names. Groups that other programs have made in the storage are among them.
#[utoipa::path(
    get, path = "/api/v1/topics/{topic}/groups", tag = "work", operation_id = "list_groups",
    params(("topic" = String, Path, description = "The name of the topic")),
    responses((status = 200, body = Vec<GroupDetail>), Problems),
)]
pub(super) async fn list(
    Called(gate): Called,
    TopicPath(topic): TopicPath,
    uri: Uri,
) -> Result<Json<Vec<GroupDetail>>, Failure> {
    let [] = query::parameters(&uri, [])?;
    gate.groups(&topic).await.map(Json)
}

/// Describe a group, with its statistics
#[utoipa::path(
    get, path = "/api/v1/topics/{topic}/groups/{group}", tag = "work", operation_id = "describe_group",
    params(
        ("topic" = String, Path, description = "The name of the topic"),
        ("group" = String, Path, description = "The name of the group"),
    ),
    responses((status = 200, body = GroupDetail), Problems),
)]
pub(super) async fn describe(
    Called(gate): Called,
    GroupPath(topic, group): GroupPath,
    uri: Uri,
) -> Result<Json<GroupDetail>, Failure> {
    let [] = query::parameters(&uri, [])?;
    gate.group(&topic, &group).await.map(Json)
}

/// Make a group, or replace its settings
///
/// What is absent is as for a new group. A group that is there stays where it is. The topic is made if it is not there.
#[utoipa::path(
    put, path = "/api/v1/topics/{topic}/groups/{group}", tag = "work", operation_id = "put_group",
    params(
        ("topic" = String, Path, description = "The name of the topic"),
        ("group" = String, Path, description = "The name of the group: 1 to 64 of letters, digits, `_` and `-`"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only where there is no such group; else 409 `conflict`"),
    ),
    request_body = GroupUpdate,
    responses(
        (status = 201, description = "It is new", body = GroupDetail),
        (status = 200, description = "It was there", body = GroupDetail),
        Problems,
    ),
)]
pub(super) async fn put(
    State(http): State<Http>,
    Called(gate): Called,
    GroupPath(topic, group): GroupPath,
    request: Request,
) -> Result<(StatusCode, Json<GroupDetail>), Failure> {
    let new = etag::must_be_new(request.headers())?;
    let body = receive(&http, &gate, request).await?;
    let (draft, start) = read_draft(&body.bytes)?;
    let start = start.unwrap_or(Since::Cursor(Cursor::Earliest));
    let (detail, made) = gate.put_group(&topic, &group, &draft, start, new).await?;
    Ok((if made { StatusCode::CREATED } else { StatusCode::OK }, Json(detail)))
}

/// Change settings of a group
///
/// What is absent stays as it is; null takes a bound away.
#[utoipa::path(
    patch, path = "/api/v1/topics/{topic}/groups/{group}", tag = "work", operation_id = "change_group",
    params(
        ("topic" = String, Path, description = "The name of the topic"),
        ("group" = String, Path, description = "The name of the group"),
    ),
    request_body = GroupUpdate,
    responses((status = 200, body = GroupDetail), Problems),
)]
pub(super) async fn change(
    State(http): State<Http>,
    Called(gate): Called,
    GroupPath(topic, group): GroupPath,
    request: Request,
) -> Result<Json<GroupDetail>, Failure> {
    let body = receive(&http, &gate, request).await?;
    let (draft, start) = read_draft(&body.bytes)?;
    if start.is_some() {
        let rule = "is where a new group begins; to set one to another place, `POST …/seek`";
        return Err(Problem::field("start", rule).into());
    }
    gate.change_group(&topic, &group, &draft).await.map(Json)
}

/// Delete a group
///
/// The messages stay, and so do its dead letters.
#[utoipa::path(
    delete, path = "/api/v1/topics/{topic}/groups/{group}", tag = "work", operation_id = "delete_group",
    params(
        ("topic" = String, Path, description = "The name of the topic"),
        ("group" = String, Path, description = "The name of the group"),
    ),
    responses((status = 204), Problems),
)]
pub(super) async fn delete(
    Called(gate): Called,
    GroupPath(topic, group): GroupPath,
    uri: Uri,
) -> Result<StatusCode, Failure> {
    let [] = query::parameters(&uri, [])?;
    gate.delete_group(&topic, &group).await.map(|()| StatusCode::NO_CONTENT)
}

/// Set a group to another place
///
/// What is behind it is given out, also what was acknowledged before. All receipts until now count no more, and what the
/// group knew of dead letters is forgotten; their topic keeps them.
#[utoipa::path(
    post, path = "/api/v1/topics/{topic}/groups/{group}/seek", tag = "work", operation_id = "seek_group",
    params(
        ("topic" = String, Path, description = "The name of the topic"),
        ("group" = String, Path, description = "The name of the group"),
    ),
    request_body = SeekRequest,
    responses((status = 200, body = GroupDetail), Problems),
)]
pub(super) async fn seek(
    State(http): State<Http>,
    Called(gate): Called,
    GroupPath(topic, group): GroupPath,
    request: Request,
) -> Result<Json<GroupDetail>, Failure> {
    let body = receive(&http, &gate, request).await?;
    let [to]: [Option<&RawValue>; 1] = json::fields(&body.bytes, ["to"])?;
    let to = json::optional(to).ok_or_else(|| json::missing("to"))?;
    let to = parse_since("to", &json::string("to", to)?)?;
    gate.seek_group(&topic, &group, to).await?;
    described(&gate, &topic, &group).await
}

/// Stop giving messages of a group out
///
/// Who has some may settle them. Programs that read the group in the storage itself are not bound by it.
#[utoipa::path(
    post, path = "/api/v1/topics/{topic}/groups/{group}/pause", tag = "work", operation_id = "pause_group",
    params(
        ("topic" = String, Path, description = "The name of the topic"),
        ("group" = String, Path, description = "The name of the group"),
    ),
    responses((status = 200, body = GroupDetail), Problems),
)]
pub(super) async fn pause(
    Called(gate): Called,
    GroupPath(topic, group): GroupPath,
    uri: Uri,
) -> Result<Json<GroupDetail>, Failure> {
    set_paused(&gate, (&topic, &group), true, &uri).await
}

/// Give messages of a group out again
#[utoipa::path(
    post, path = "/api/v1/topics/{topic}/groups/{group}/resume", tag = "work", operation_id = "resume_group",
    params(
        ("topic" = String, Path, description = "The name of the topic"),
        ("group" = String, Path, description = "The name of the group"),
    ),
    responses((status = 200, body = GroupDetail), Problems),
)]
pub(super) async fn resume(
    Called(gate): Called,
    GroupPath(topic, group): GroupPath,
    uri: Uri,
) -> Result<Json<GroupDetail>, Failure> {
    set_paused(&gate, (&topic, &group), false, &uri).await
}

async fn set_paused(
    gate: &Gate,
    (topic, group): (&TopicName, &GroupName),
    paused: bool,
    uri: &Uri,
) -> Result<Json<GroupDetail>, Failure> {
    let [] = query::parameters(uri, [])?;
    let draft = GroupDraft { paused: Some(paused), ..GroupDraft::default() };
    gate.change_group(topic, group, &draft).await.map(Json)
}

/// Have dead letters of a group worked on again
///
/// The same messages wait again, with no failures; copies of those that are gone from the topic. Their dead letters are
/// deleted.
#[utoipa::path(
    post, path = "/api/v1/topics/{topic}/groups/{group}/redrive", tag = "work", operation_id = "redrive",
    params(
        ("topic" = String, Path, description = "The name of the topic"),
        ("group" = String, Path, description = "The name of the group"),
    ),
    request_body = RedriveRequest,
    responses((status = 200, body = Redriven), Problems),
)]
pub(super) async fn redrive(
    State(http): State<Http>,
    Called(gate): Called,
    GroupPath(topic, group): GroupPath,
    request: Request,
) -> Result<Json<Redriven>, Failure> {
    let body = receive(&http, &gate, request).await?;
    gate.redrive(&topic, &group, &read_redrive(&body.bytes)?).await.map(Json)
}

/// Delete dead letters of a group
#[utoipa::path(
    post, path = "/api/v1/topics/{topic}/groups/{group}/purge", tag = "work", operation_id = "purge",
    params(
        ("topic" = String, Path, description = "The name of the topic"),
        ("group" = String, Path, description = "The name of the group"),
    ),
    request_body = RedriveRequest,
    responses((status = 200, body = Redriven), Problems),
)]
pub(super) async fn purge(
    State(http): State<Http>,
    Called(gate): Called,
    GroupPath(topic, group): GroupPath,
    request: Request,
) -> Result<Json<Redriven>, Failure> {
    let body = receive(&http, &gate, request).await?;
    let request = read_redrive(&body.bytes)?;
    if request.rate.is_some() {
        return Err(Problem::field("rate", "is for a redrive; a purge is done at once").into());
    }
    gate.purge(&topic, &group, &request).await.map(Json)
}

/// Tell what became of a message
///
/// With `wait`, when it is done or a dead letter, or the time is over.
#[utoipa::path(
    get, path = "/api/v1/topics/{topic}/groups/{group}/messages/{message_id}", tag = "work",
    operation_id = "message_state",
    params(
        ("topic" = String, Path, description = "The name of the topic"),
        ("group" = String, Path, description = "The name of the group"),
        ("message_id" = String, Path, description = "The id of the message"),
        ("wait" = Option<String>, Query, description = "How long to wait for its end: seconds, or text with a unit, at most 60 s"),
    ),
    responses((status = 200, body = MessageState), Problems),
)]
pub(super) async fn state(
    Called(gate): Called,
    GroupMessagePath(topic, group, id): GroupMessagePath,
    uri: Uri,
) -> Result<Json<MessageState>, Failure> {
    let [wait] = query::parameters(&uri, ["wait"])?;
    let wait = match wait {
        Some(text) => within("wait", duration::parse(&text).ok(), [Duration::ZERO, WAIT_MAX])?,
        None => Duration::ZERO,
    };
    let fate = gate.fate(&topic, &group, id, wait).await?;
    Ok(Json(shown(id, fate)))
}

fn shown(id: MessageId, fate: Fate) -> MessageState {
    let Fate { state, deliveries, failures, crashes, behind, consumer, since, until, error, result } = fate;
    let result = result.and_then(|text| serde_json::from_slice::<Box<RawValue>>(&text).ok());
    MessageState {
        message_id: id,
        state,
        deliveries,
        failures,
        crashes,
        behind,
        consumer: consumer.map(String::from),
        started_at: since,
        until,
        error: error.map(String::from),
        result,
    }
}

async fn described(gate: &Gate, topic: &TopicName, group: &GroupName) -> Result<Json<GroupDetail>, Failure> {
    gate.group(topic, group).await.map(Json)
}

/// Reads the body of a request to change a group, unless its caller can change none. One without a body says nothing.
async fn receive(http: &Http, gate: &Gate, request: Request) -> Result<Received, Failure> {
    let (head, body) = request.into_parts();
    let [] = query::parameters(&head.uri, [])?;
    media::require_json(&head.headers)?;
    gate.check_some_topic(Verb::Manage)?;
    http.0.budget.receive(&head.headers, body, http.small_limit()).await
}

/// Reads a field that is a duration.
pub(super) fn duration_of(
    field: &str,
    raw: Option<&RawValue>,
    bounds: [Duration; 2],
) -> Result<Option<Duration>, Failure> {
    let Some(raw) = json::optional(raw) else { return Ok(None) };
    within(field, duration::parse_json(raw.get()).ok(), bounds).map(Some)
}

/// Reads a field that is a whole number.
pub(super) fn number_of(field: &str, raw: Option<&RawValue>, max: u32) -> Result<Option<u32>, Failure> {
    let Some(raw) = json::optional(raw) else { return Ok(None) };
    let number = json::whole(raw).parse().ok().filter(|number| (1..=max).contains(number));
    number
        .map(Some)
        .ok_or_else(|| Problem::field(field, format_args!("must be a whole number from 1 to {max}")).into())
}

/// Says that a bound is taken away where its field is null, and stays where it is absent.
fn bound<T>(raw: Option<&RawValue>, read: Option<T>) -> Change<T> {
    match (raw, read) {
        (None, _) => Change::Keep,
        (Some(_), None) => Change::Clear,
        (Some(_), Some(value)) => Change::Set(value),
    }
}

fn read_draft(body: &[u8]) -> Result<(GroupDraft, Option<Since>), Failure> {
    const NAMES: [&str; 11] = [
        "start",
        "ack_wait",
        "max_deliveries",
        "max_run",
        "backoff",
        "max_in_flight",
        "per_consumer_max",
        "dead_letter",
        "paused",
        "result_ttl",
        "ordering",
    ];
    let body = if body.is_empty() { b"{}" } else { body };
    let [
        start,
        ack_wait,
        max_deliveries,
        max_run,
        backoff,
        max_in_flight,
        per_consumer_max,
        dead_letter,
        paused,
        result_ttl,
        ordering,
    ]: [Option<&RawValue>; 11] = json::fields(body, NAMES)?;
    let start = json::optional(start).map(|raw| parse_since("start", &json::string("start", raw)?));
    let draft = GroupDraft {
        ack_wait: duration_of("ack_wait", ack_wait, ACK_WAIT)?,
        max_deliveries: number_of("max_deliveries", max_deliveries, DELIVERIES_MAX)?,
        max_run: bound(max_run, duration_of("max_run", max_run, RUN)?),
        backoff: json::optional(backoff).map(read_backoff).transpose()?,
        max_in_flight: bound(max_in_flight, number_of("max_in_flight", max_in_flight, HELD_MAX)?),
        per_consumer_max: bound(per_consumer_max, number_of("per_consumer_max", per_consumer_max, HELD_MAX)?),
        dead_letter: json::optional(dead_letter)
            .map(|raw| parse_topic("dead_letter", &json::string("dead_letter", raw)?))
            .transpose()?,
        paused: json::optional(paused).map(|raw| json::switch("paused", raw)).transpose()?,
        result_ttl: duration_of("result_ttl", result_ttl, RESULT_TTL)?,
        ordering: json::optional(ordering)
            .map(|raw| parse_ordering(&json::string("ordering", raw)?))
            .transpose()?,
    };
    Ok((draft, start.transpose()?))
}

/// Reads how long a message waits after a failure: a list, or where to begin, by how much more each time, and where to
/// end.
fn read_backoff(raw: &RawValue) -> Result<Vec<Duration>, Failure> {
    let rule = || {
        let rule = format!(
            "must be a list of 1 to {BACKOFFS_MAX} durations, or an object `{{\"first\": 1, \"factor\": 2, \"max\": \"1m\"}}`"
        );
        Failure::from(Problem::field("backoff", rule))
    };
    if raw.get().starts_with('[') {
        let list: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(|_| rule())?;
        if list.is_empty() || list.len() > BACKOFFS_MAX {
            return Err(rule());
        }
        let wait = |raw: &RawValue| within("backoff", duration::parse_json(raw.get()).ok(), BACKOFF);
        return list.into_iter().map(wait).collect();
    }
    if !raw.get().starts_with('{') {
        return Err(rule());
    }
    let [first, factor, max]: [Option<&RawValue>; 3] =
        json::fields(raw.get().as_bytes(), ["first", "factor", "max"])?;
    let first = duration_of("backoff.first", first, BACKOFF)?.ok_or_else(rule)?;
    let max = duration_of("backoff.max", max, BACKOFF)?.ok_or_else(rule)?;
    let factor = match json::optional(factor) {
        None => 2.0,
        Some(raw) => {
            let factor = raw.get().parse::<f64>().ok().filter(|factor| (1.0..=100.0).contains(factor));
            factor.ok_or_else(|| Problem::field("backoff.factor", "must be a number from 1 to 100"))?
        }
    };
    let mut waits = vec![first.min(max)];
    while waits.len() < BACKOFFS_MAX
        && let Some(last) = waits.last().copied()
        && last < max
    {
        let next = last.mul_f64(factor).min(max);
        if next <= last {
            break;
        }
        // To the millisecond, as all durations.
        waits.push(Duration::from_millis(u64::try_from(next.as_millis()).unwrap_or(u64::MAX)));
    }
    Ok(waits)
}

fn read_redrive(body: &[u8]) -> Result<RedriveRequest, Failure> {
    let [ids, all, rate, dry_run]: [Option<&RawValue>; 4] =
        json::fields(body, ["ids", "all", "rate", "dry_run"])?;
    let switch = |field, raw| json::optional(raw).map_or(Ok(false), |raw| json::switch(field, raw));
    let ids = match json::optional(ids) {
        None => None,
        Some(raw) => {
            let texts = json::strings("ids", raw)?;
            if texts.is_empty() || texts.len() > IDS_MAX {
                return Err(Problem::field("ids", format_args!("must be 1 to {IDS_MAX} ids")).into());
            }
            Some(texts.iter().map(|text| parse_id("ids", text)).collect::<Result<_, _>>()?)
        }
    };
    let rate = number_of("rate", rate, RATE_MAX)?;
    Ok(RedriveRequest { ids, all: switch("all", all)?, rate, dry_run: switch("dry_run", dry_run)? })
}
