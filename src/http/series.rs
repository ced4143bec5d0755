//! Series of measurements: adding to them, reading and forgetting them.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde_json::value::RawValue;
use tidemill_proto::series::{
    AddPointsRequest, ListedSeries, POINT_COUNT_MAX, POINT_VALUE_MAX, POINTS_MAX, PointRequest, PointResult,
    PointsAdded, SERIES_LAST_DEFAULT, SERIES_PAGE_DEFAULT, SERIES_PAGE_MAX, SeriesMinute, SeriesState,
};
use tidemill_proto::{Problem, SeriesName, Timestamp, duration};
use utoipa_axum::routes;

use super::called::Called;
use super::failure::Problems;
use super::groups::number_of;
use super::json::Few;
use super::linked::linked;
use super::path::SeriesPath;
use super::routes::{Concern, Needs};
use super::unconditional::Unconditional;
use super::{Http, json, media, query};
use crate::access::Verb;
use crate::relay::{Failure, PointDraft, SERIES_LAST, parse_prefix, parse_series, within};

pub(super) fn routes(is_on: bool) -> Concern {
    Concern::switched(is_on)
        .route(Needs::Right(Verb::Publish), routes!(add))
        .route(Needs::Right(Verb::Read), routes!(read))
        .route(Needs::Right(Verb::Manage), routes!(delete))
        .route(Needs::Right(Verb::Read), routes!(list))
        .route(Needs::Right(Verb::Publish), routes!(add_all))
}

/// Add a point to a series
///
/// It counts in its minute, which is the answer. The first point makes the series; a day after the last it is gone.
#[utoipa::path(
    post, path = "/api/v1/series/{series}", tag = "series", operation_id = "add_point",
    params(("series" = String, Path, description = "The name of the series")),
    request_body = PointRequest,
    responses((status = 200, description = "It was added: the minute with it", body = SeriesMinute), Problems),
)]
pub(super) async fn add(
    State(http): State<Http>,
    Called(gate): Called,
    _: Unconditional,
    SeriesPath(series): SeriesPath,
    request: Request,
) -> Result<Json<SeriesMinute>, Failure> {
    let (head, body) = request.into_parts();
    let [] = query::parameters(&head.uri, [])?;
    media::require_json(&head.headers)?;
    gate.check_series(Verb::Publish, &series)?;
    let body = http.0.budget.receive(&head.headers, body, http.small_limit()).await?;
    let draft = json::fields(&body.bytes, ["value", "at", "count"]).and_then(draft);
    drop(body);
    let added = match draft {
        Ok(draft) => gate.add_point(&series, draft).await,
        Err(failure) => Err(failure),
    };
    http.0.metrics.series().point(added.is_ok());
    added.map(Json)
}

/// List series
///
/// In the order of their names, those that the caller may read and of which something is kept. Where there are more, the
/// header `Link` has the address of the next page.
#[utoipa::path(
    get, path = "/api/v1/series", tag = "series", operation_id = "list_series",
    params(
        ("prefix" = Option<String>, Query, description = "Only series that begin so"),
        ("limit" = Option<usize>, Query, description = "Most series, 1 to 1,000; 100 if absent"),
        ("after" = Option<String>, Query, description = "The name behind which to go on"),
    ),
    responses(
        (status = 200, body = Vec<ListedSeries>, headers(("Link" = String, description = "`<…>; rel=\"next\"`, where there are more"))),
        Problems,
    ),
)]
pub(super) async fn list(Called(gate): Called, uri: Uri) -> Result<Response, Failure> {
    let [prefix, limit, after] = query::parameters(&uri, ["prefix", "limit", "after"])?;
    let prefix = parse_prefix("prefix", prefix.as_deref().unwrap_or_default())?;
    let limit = query::limit(limit.as_deref(), SERIES_PAGE_DEFAULT, SERIES_PAGE_MAX)?;
    let after = after.as_deref().map(|text| parse_series("after", text)).transpose()?;
    let (names, next) = gate.list_series(&prefix, after.as_ref(), limit).await?;
    let listed: Vec<_> = names.into_iter().map(|series| ListedSeries { series }).collect();
    let next = next.map(|next| {
        let prefix = if prefix.is_empty() { String::new() } else { format!("&prefix={prefix}") };
        format!("/api/v1/series?limit={limit}&after={next}{prefix}")
    });
    Ok(linked(Json(listed), next))
}

/// Read a series
///
/// The minutes of the last `last` in which something was measured, and all of them together. A series that there is not has
/// none.
#[utoipa::path(
    get, path = "/api/v1/series/{series}", tag = "series", operation_id = "read_series",
    params(
        ("series" = String, Path, description = "The name of the series"),
        ("last" = Option<String>, Query, description = "How much: a number of seconds, or with a unit, as in `60m`; 1 s to 24 h, an hour if absent. A minute of which a part lies in it is told whole"),
    ),
    responses((status = 200, body = SeriesState), Problems),
)]
pub(super) async fn read(
    Called(gate): Called,
    SeriesPath(series): SeriesPath,
    uri: Uri,
) -> Result<Json<SeriesState>, Failure> {
    let [last] = query::parameters(&uri, ["last"])?;
    let last = match last {
        Some(text) => within("last", duration::parse(&text).ok(), SERIES_LAST)?,
        None => SERIES_LAST_DEFAULT,
    };
    gate.series(&series, last).await.map(Json)
}

/// Forget a series
#[utoipa::path(
    delete, path = "/api/v1/series/{series}", tag = "series", operation_id = "delete_series",
    params(("series" = String, Path, description = "The name of the series")),
    responses((status = 204, description = "It is not there"), Problems),
)]
pub(super) async fn delete(
    Called(gate): Called,
    _: Unconditional,
    SeriesPath(series): SeriesPath,
    uri: Uri,
) -> Result<StatusCode, Failure> {
    let [] = query::parameters(&uri, [])?;
    gate.delete_series(&series).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Add points to several series
///
/// Each for itself: a result for each, in their order. What is wrong with one is told there, and the others are added.
#[utoipa::path(
    post, path = "/api/v1/series", tag = "series", operation_id = "add_points",
    request_body = AddPointsRequest,
    responses((status = 200, body = PointsAdded), Problems),
)]
pub(super) async fn add_all(
    State(http): State<Http>,
    Called(gate): Called,
    _: Unconditional,
    request: Request,
) -> Result<Json<PointsAdded>, Failure> {
    let (head, body) = request.into_parts();
    let [] = query::parameters(&head.uri, [])?;
    media::require_json(&head.headers)?;
    gate.check_some_series(Verb::Publish)?;
    let body = http.0.budget.receive(&head.headers, body, http.work_limit()).await?;
    let [points] = json::fields::<Few<'_, POINTS_MAX>, 1>(&body.bytes, ["points"])?;
    let Few { items, count } = points.ok_or_else(|| json::missing("points"))?;
    if !(1..=POINTS_MAX).contains(&count) {
        let rule = format_args!("has {count} points; a request has 1 to {POINTS_MAX}");
        return Err(Problem::field("points", rule).into());
    }
    let mut results = Vec::with_capacity(items.len());
    let (mut points, mut places) = (Vec::new(), Vec::new());
    for (at, raw) in items.into_iter().enumerate() {
        let mut name = String::new();
        let error = match named(raw, &mut name) {
            Ok(point) => {
                points.push(point);
                places.push(at);
                None
            }
            Err(failure) => Some(failure.problem().clone()),
        };
        results.push(PointResult { name, minute: None, error });
    }
    drop(body);
    for (at, added) in places.into_iter().zip(gate.add_points(&points).await) {
        match added {
            Ok(minute) => results[at].minute = Some(minute),
            Err(problem) => results[at].error = Some(*problem),
        }
    }
    for result in &results {
        http.0.metrics.series().point(result.minute.is_some());
    }
    Ok(Json(PointsAdded { results }))
}

/// Reads one point of several; its name is told whatever comes of it.
fn named(raw: &RawValue, told: &mut String) -> Result<(SeriesName, PointDraft), Failure> {
    if !raw.get().starts_with('{') {
        return Err(Problem::field("points", "must be a list of objects `{name, value, at, count}`").into());
    }
    let [name, value, at, count]: [Option<&RawValue>; 4] =
        json::fields(raw.get().as_bytes(), ["name", "value", "at", "count"])?;
    let name = json::string("name", json::optional(name).ok_or_else(|| json::missing("name"))?)?;
    name.as_ref().clone_into(told);
    Ok((parse_series("name", &name)?, draft([value, at, count])?))
}

/// Reads a point: its value, its time and its count.
fn draft([value, at, count]: [Option<&RawValue>; 3]) -> Result<PointDraft, Failure> {
    let value = json::optional(value).ok_or_else(|| json::missing("value"))?;
    // What JSON has besides numbers is none here either. The library's own reader of numbers may miss the last bit.
    let value = value.get().parse::<f64>().map_err(|_| {
        let rule = format_args!("must be a number from -{POINT_VALUE_MAX:e} to {POINT_VALUE_MAX:e}");
        Failure::from(Problem::field("value", rule))
    })?;
    let time = |raw: &RawValue| {
        let at = Timestamp::parse(&json::string("at", raw)?);
        at.map_err(|error| Failure::from(Problem::field("at", error)))
    };
    let at = json::optional(at).map(time).transpose()?;
    Ok(PointDraft { value, count: number_of("count", count, POINT_COUNT_MAX)?.unwrap_or(1), at })
}
