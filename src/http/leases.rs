//! Leases: created, renewed, shown and ended; and the lease that a request names under which something is to be put.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use serde_json::value::RawValue;
use tidemill_proto::duration::Seconds;
use tidemill_proto::leases::{
    LeaseCreated, LeaseId, LeaseRenewed, LeaseRequest, LeaseState, LeasedThing, TTL,
};
use tidemill_proto::{MemberName, Problem};
use utoipa_axum::routes;

use super::called::Called;
use super::failure::Problems;
use super::groups::duration_of;
use super::path::LeasePath;
use super::routes::{Concern, Needs};
use super::unconditional::Unconditional;
use super::{Http, json, media, query};
use crate::access::Verb;
use crate::relay::{Failure, Gate, LeaseHold, Leased, LockId, Lost};

/// The parameter, and the field, that names a lease under which something is to be put.
pub(super) const LEASE: &str = "lease";

pub(super) fn routes(is_on: bool) -> Concern {
    Concern::switched(is_on)
        .route(Needs::Right(Verb::Work), routes!(create))
        .route(Needs::Right(Verb::Work), routes!(show))
        .route(Needs::Right(Verb::Work), routes!(renew))
        .route(Needs::Right(Verb::Work), routes!(end))
}

/// Create a lease
///
/// Locks, keys and members of rooms that are made with this `lease` in place of a `ttl` live as long as it does: one renewal
/// keeps them all. Whoever may make one of them may create a lease. Its id is a secret.
#[utoipa::path(
    post, path = "/api/v1/leases", tag = "leases", operation_id = "create_lease",
    request_body = LeaseRequest,
    responses((status = 201, description = "It lasts", body = LeaseCreated), Problems),
)]
pub(super) async fn create(
    State(http): State<Http>,
    Called(gate): Called,
    _: Unconditional,
    request: Request,
) -> Result<(StatusCode, Json<LeaseCreated>), Failure> {
    gate.check_some_leased()?;
    let (head, body) = request.into_parts();
    let [] = query::parameters(&head.uri, [])?;
    media::require_json(&head.headers)?;
    let body = http.0.budget.receive(&head.headers, body, http.small_limit()).await?;
    let [ttl]: [Option<&RawValue>; 1] = json::fields(&body.bytes, ["ttl"])?;
    let ttl = duration_of("ttl", ttl, TTL)?.ok_or_else(|| json::missing("ttl"))?;
    let (lease, expires_at) = gate.create_lease(ttl).await?;
    http.0.metrics.leases().created();
    Ok((StatusCode::CREATED, Json(LeaseCreated { lease, expires_at })))
}

/// Describe a lease
///
/// When it ends, and what it keeps.
#[utoipa::path(
    get, path = "/api/v1/leases/{lease}", tag = "leases", operation_id = "show_lease",
    params(("lease" = String, Path, description = "The lease")),
    responses((status = 200, body = LeaseState), Problems),
)]
pub(super) async fn show(
    Called(gate): Called,
    LeasePath(lease): LeasePath,
    uri: Uri,
) -> Result<Json<LeaseState>, Failure> {
    let [] = query::parameters(&uri, [])?;
    let (facts, things) = gate.lease(lease).await?;
    let keeps = things.into_iter().map(thing_of).collect();
    Ok(Json(LeaseState { ttl: Seconds(facts.ttl), expires_at: facts.expires_at, keeps }))
}

/// Renew a lease
///
/// It lasts for its whole time from now on, and so does what it keeps. `lost` names what it keeps no more. Needs the rights
/// by which each thing was made.
#[utoipa::path(
    post, path = "/api/v1/leases/{lease}/renew", tag = "leases", operation_id = "renew_lease",
    params(("lease" = String, Path, description = "The lease")),
    responses((status = 200, body = LeaseRenewed), Problems),
)]
pub(super) async fn renew(
    State(http): State<Http>,
    Called(gate): Called,
    _: Unconditional,
    LeasePath(lease): LeasePath,
    uri: Uri,
) -> Result<Json<LeaseRenewed>, Failure> {
    let [] = query::parameters(&uri, [])?;
    let (expires_at, lost) = gate.renew_lease(lease).await?;
    http.0.metrics.leases().renewed(lost.len());
    let told = |Lost { thing, why }| LeasedThing {
        code: Some(why.code()),
        error: Some(why.problem().detail.clone()),
        ..thing_of(thing)
    };
    Ok(Json(LeaseRenewed { expires_at, lost: lost.into_iter().map(told).collect() }))
}

/// End a lease
///
/// And all that it keeps: locks go to who is next, keys expire, members leave. Not all at one instant.
#[utoipa::path(
    delete, path = "/api/v1/leases/{lease}", tag = "leases", operation_id = "end_lease",
    params(("lease" = String, Path, description = "The lease")),
    responses((status = 204, description = "It has ended, and what it kept"), Problems),
)]
pub(super) async fn end(
    State(http): State<Http>,
    Called(gate): Called,
    _: Unconditional,
    LeasePath(lease): LeasePath,
    uri: Uri,
) -> Result<StatusCode, Failure> {
    let [] = query::parameters(&uri, [])?;
    gate.end_lease(lease).await?;
    http.0.metrics.leases().ended();
    Ok(StatusCode::NO_CONTENT)
}

fn thing_of(thing: Leased) -> LeasedThing {
    match thing {
        Leased::Lock { lock: LockId { name, guards }, .. } => LeasedThing::lock(name, guards),
        Leased::Key { bucket, key, revision } => match (bucket.room(), MemberName::parse(key.as_str())) {
            (Some(room), Ok(member)) => LeasedThing::member(room, member),
            _ => LeasedThing::key(bucket, key, revision),
        },
    }
}

/// Returns the lease under which something is to be put, if the text of one is there; `has_ttl` says whether a time is
/// there, too.
///
/// # Errors
/// It is none, or stands beside a time; and as the gate's.
pub(super) async fn under(
    gate: &Gate,
    lease: Option<&str>,
    has_ttl: bool,
) -> Result<Option<LeaseHold>, Failure> {
    let Some(lease) = lease else { return Ok(None) };
    if has_ttl {
        let rule =
            "stands in place of `ttl`: what a lease keeps lives as long as the lease; leave one of them out";
        return Err(Problem::field(LEASE, rule).into());
    }
    let lease = LeaseId::parse(lease).map_err(|error| Problem::field(LEASE, error))?;
    gate.under_lease(lease).await.map(Some)
}
