//! Buckets: what they keep, and what concerns all keys of one.

use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use serde_json::value::RawValue;
use tidemill_proto::keys::{Bucket, BucketUpdate, RevokeRequest, Revoked};
use tidemill_proto::limits::{BUCKETS_PAGE_MAX, KEPT_BYTES_MAX, KEPT_MESSAGES_MAX, KEY_HISTORY_MAX};
use tidemill_proto::{BucketName, Problem};
use utoipa_axum::routes;

use super::body::Received;
use super::called::Called;
use super::failure::Problems;
use super::groups::number_of;
use super::linked::linked;
use super::path::BucketPath;
use super::publishing::refuse_fence;
use super::routes::{Concern, Needs};
use super::unconditional::Unconditional;
use super::{Http, json, media, query};
use crate::access::Verb;
use crate::relay::{AdaptiveTtl, BucketSettings, Failure, Gate, parse_bucket, parse_key, parse_key_ttl_json};

/// Why no fence goes with what concerns a bucket as a whole.
const UNFENCED: &str = "it concerns the bucket as a whole; delete its keys one by one, or in a batch";

pub(super) fn routes(is_on: bool) -> Concern {
    Concern::switched(is_on)
        .route(Needs::Right(Verb::Read), routes!(list))
        .route(Needs::Right(Verb::Read), routes!(describe))
        .route(Needs::Right(Verb::Manage), routes!(put))
        .route(Needs::Right(Verb::Manage), routes!(delete))
        .route(Needs::Right(Verb::Manage), routes!(revoke))
}

/// List buckets
///
/// In the order of their names, those all of whose keys the caller may read. Where there are more, the header `Link` has
/// the address of the next page.
#[utoipa::path(
    get, path = "/api/v1/buckets", tag = "keys", operation_id = "list_buckets",
    params(
        ("limit" = Option<usize>, Query, description = "Most buckets, 1 to 100; 100 if absent"),
        ("after" = Option<BucketName>, Query, description = "The name behind which to go on"),
    ),
    responses(
        (status = 200, body = Vec<Bucket>, headers(("Link" = String, description = "`<…>; rel=\"next\"`, where there are more"))),
        Problems,
    ),
)]
pub(super) async fn list(Called(gate): Called, uri: Uri) -> Result<Response, Failure> {
    let [limit, after] = query::parameters(&uri, ["limit", "after"])?;
    let limit = query::limit(limit.as_deref(), BUCKETS_PAGE_MAX, BUCKETS_PAGE_MAX)?;
    let after = after.as_deref().map(|text| parse_bucket("after", text)).transpose()?;
    let list = gate.list_buckets(after.as_ref(), limit).await?;
    let buckets: Vec<Bucket> = list.buckets.into_iter().map(Bucket::from).collect();
    let next = list.next.map(|next| format!("/api/v1/buckets?limit={limit}&after={next}"));
    Ok(linked(Json(buckets), next))
}

/// Describe a bucket
#[utoipa::path(
    get, path = "/api/v1/buckets/{bucket}", tag = "keys", operation_id = "describe_bucket",
    params(("bucket" = String, Path, description = "The name of the bucket")),
    responses((status = 200, body = Bucket), Problems),
)]
pub(super) async fn describe(
    Called(gate): Called,
    BucketPath(bucket): BucketPath,
    uri: Uri,
) -> Result<Json<Bucket>, Failure> {
    let [] = query::parameters(&uri, [])?;
    gate.bucket(&bucket).await.map(|state| Json(state.into()))
}

/// Make a bucket, or replace its settings
///
/// What is absent is as for a new bucket. Keys that are there stay as they are: times count for what is put or touched
/// from now on, and revisions that are too many go with the next change of their key.
#[utoipa::path(
    put, path = "/api/v1/buckets/{bucket}", tag = "keys", operation_id = "put_bucket",
    params(("bucket" = String, Path, description = "The name of the bucket")),
    request_body = BucketUpdate,
    responses(
        (status = 201, description = "It is new", body = Bucket),
        (status = 200, description = "It was there", body = Bucket),
        Problems,
    ),
)]
pub(super) async fn put(
    State(http): State<Http>,
    Called(gate): Called,
    _: Unconditional,
    BucketPath(bucket): BucketPath,
    request: Request,
) -> Result<(StatusCode, Json<Bucket>), Failure> {
    let body = receive(&http, &gate, &bucket, request).await?;
    let settings = read_settings(&body.bytes)?;
    let (state, is_new) = gate.put_bucket(&bucket, settings).await?;
    Ok((if is_new { StatusCode::CREATED } else { StatusCode::OK }, Json(state.into())))
}

fn read_settings(body: &[u8]) -> Result<BucketSettings, Failure> {
    let names = ["history", "ttl", "absolute_age", "max_keys", "max_bytes", "adaptive_ttl"];
    let [history, ttl, absolute_age, max_keys, max_bytes, adaptive_ttl]: [Option<&RawValue>; 6] =
        json::fields(body, names)?;
    let time = |field: &str, raw: Option<&RawValue>| -> Result<Option<Duration>, Failure> {
        json::optional(raw).map(|raw| parse_key_ttl_json(field, raw.get())).transpose()
    };
    let count = |field: &str, raw: Option<&RawValue>, max: u64| -> Result<Option<u64>, Failure> {
        let Some(raw) = json::optional(raw) else { return Ok(None) };
        let number = json::whole(raw).parse().ok().filter(|number| (1..=max).contains(number));
        let rule = format!("must be a whole number from 1 to {max}");
        number.map(Some).ok_or_else(|| Problem::field(field, rule).into())
    };
    Ok(BucketSettings {
        history: number_of("history", history, KEY_HISTORY_MAX)?.unwrap_or(BucketSettings::default().history),
        ttl: time("ttl", ttl)?,
        absolute_age: time("absolute_age", absolute_age)?,
        max_keys: count("max_keys", max_keys, KEPT_MESSAGES_MAX)?,
        max_bytes: count("max_bytes", max_bytes, KEPT_BYTES_MAX)?,
        adaptive_ttl: json::optional(adaptive_ttl).map(read_adaptive).transpose()?,
    })
}

fn read_adaptive(raw: &RawValue) -> Result<AdaptiveTtl, Failure> {
    const FIELD: &str = "adaptive_ttl";
    if !raw.get().starts_with('{') {
        return Err(Problem::field(FIELD, "must be an object with `min` and `max`").into());
    }
    let within = |name: &str, raw: Option<&RawValue>| {
        let field = format!("{FIELD}.{name}");
        let raw = json::optional(raw).ok_or_else(|| json::missing(&field))?;
        parse_key_ttl_json(&field, raw.get())
    };
    let [min, max]: [Option<&RawValue>; 2] = json::fields(raw.get().as_bytes(), ["min", "max"])?;
    let (min, max) = (within("min", min)?, within("max", max)?);
    if min > max {
        return Err(Problem::field("adaptive_ttl.min", "is more than `adaptive_ttl.max`").into());
    }
    Ok(AdaptiveTtl { min, max })
}

/// Delete a bucket with its keys
#[utoipa::path(
    delete, path = "/api/v1/buckets/{bucket}", tag = "keys", operation_id = "delete_bucket",
    params(("bucket" = String, Path, description = "The name of the bucket")),
    responses((status = 204, description = "It is gone"), Problems),
)]
pub(super) async fn delete(
    Called(gate): Called,
    _: Unconditional,
    BucketPath(bucket): BucketPath,
    headers: HeaderMap,
    uri: Uri,
) -> Result<StatusCode, Failure> {
    let [] = query::parameters(&uri, [])?;
    refuse_fence(&headers, UNFENCED)?;
    gate.delete_bucket(&bucket).await.map(|()| StatusCode::NO_CONTENT)
}

/// Delete all keys of an owner
///
/// As to end all sessions of a user. Each is a change, which watchers are told.
#[utoipa::path(
    post, path = "/api/v1/buckets/{bucket}/revoke", tag = "keys", operation_id = "revoke_keys",
    params(("bucket" = String, Path, description = "The name of the bucket")),
    request_body = RevokeRequest,
    responses((status = 200, body = Revoked), Problems),
)]
pub(super) async fn revoke(
    State(http): State<Http>,
    Called(gate): Called,
    _: Unconditional,
    BucketPath(bucket): BucketPath,
    request: Request,
) -> Result<Json<Revoked>, Failure> {
    let body = receive(&http, &gate, &bucket, request).await?;
    let [owner]: [Option<&RawValue>; 1] = json::fields(&body.bytes, ["owner"])?;
    let owner = json::string("owner", json::optional(owner).ok_or_else(|| json::missing("owner"))?)?;
    let owner = parse_key("owner", &owner)?;
    let revoked = gate.revoke_keys(&bucket, &owner).await?;
    Ok(Json(Revoked { revoked }))
}

/// Reads the body of a request to change a bucket, unless its caller may not.
async fn receive(
    http: &Http,
    gate: &Gate,
    bucket: &BucketName,
    request: Request,
) -> Result<Received, Failure> {
    let (head, body) = request.into_parts();
    let [] = query::parameters(&head.uri, [])?;
    refuse_fence(&head.headers, UNFENCED)?;
    media::require_json(&head.headers)?;
    gate.check_manages_bucket(bucket)?;
    http.0.budget.receive(&head.headers, body, http.small_limit()).await
}
