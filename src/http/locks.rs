//! Locks: acquired, held for longer, given back, looked at and taken away.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::value::RawValue;
use tidemill_proto::duration::Seconds;
use tidemill_proto::locks::{
    Guarded, ListedLock, LockGranted, LockRenewed, LockRequest, LockState, LockToken, LockWaiter,
    RENEWALS_MAX, ReleaseRequest, RenewAllRequest, RenewRequest, RenewalResult, RenewedAll, TTL, WAIT_MAX,
};
use tidemill_proto::work::ConsumerName;
use tidemill_proto::{Code, LockName, Problem};
use utoipa_axum::routes;

use super::body::Received;
use super::called::Called;
use super::failure::Problems;
use super::groups::duration_of;
use super::handed::{Handed, while_there};
use super::leases::{LEASE, under};
use super::linked::linked;
use super::media::APPLICATION_JSON;
use super::path::LockPath;
use super::publishing::{idempotency_key, mark_replayed};
use super::routes::{Concern, Needs};
use super::unconditional::Unconditional;
use super::{Http, json, media, query};
use crate::access::Verb;
use crate::link::Hangup;
use crate::relay::{
    Failure, HeldLock, LeaseHold, LockDraft, LockHeld, LockId, LockKept, LockList, LockRenewal,
};

pub(super) fn routes(is_on: bool) -> Concern {
    Concern::switched(is_on)
        .route(Needs::Right(Verb::Read), routes!(list))
        .route(Needs::Right(Verb::Work), routes!(acquire))
        .route(Needs::Right(Verb::Read), routes!(show))
        .route(Needs::Right(Verb::Manage), routes!(take))
        .route(Needs::Right(Verb::Work), routes!(renew))
        .route(Needs::Right(Verb::Work), routes!(release))
        .route(Needs::Right(Verb::Work), routes!(renew_all))
}

/// Acquire a lock
///
/// One holds it at a time, until it is released or `ttl` is over. Where another holds it, `wait` waits in line: first
/// come, first served. The `fence` is greater than every one before: who shows it with a publish or a
/// change of keys (`Tidemill-Fence`) is refused once another holds the lock. With `lease` in place of `ttl` a lease keeps it. With the header `Idempotency-Key`, a repeat finds the lock whose answer was lost.
#[utoipa::path(
    post, path = "/api/v1/locks/{lock}", tag = "locks", operation_id = "acquire_lock",
    params(
        ("lock" = String, Path, description = "The name of the lock"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters"),
    ),
    request_body = LockRequest,
    responses((status = 201, description = "The lock is held", body = LockGranted), Problems),
)]
pub(super) async fn acquire(
    State(http): State<Http>,
    Called(gate): Called,
    _: Unconditional,
    LockPath(name): LockPath,
    request: Request,
) -> Result<Response, Failure> {
    gate.check_lock(Verb::Work, &name)?;
    let hangup = request.extensions().get::<Hangup>().cloned();
    let key = idempotency_key(request.headers())?;
    let body = receive(&http, request).await?;
    let [holder, ttl, lease, wait, guards]: [Option<&RawValue>; 5] =
        json::fields(&body.bytes, ["holder", "ttl", LEASE, "wait", "guards"])?;
    let holder = json::optional(holder).ok_or_else(|| json::missing("holder"))?;
    let holder = ConsumerName::parse(&json::string("holder", holder)?);
    let holder = holder.map_err(|error| Problem::field("holder", error))?;
    let lease = json::optional(lease).map(|lease| json::string(LEASE, lease)).transpose()?;
    let has_ttl = json::optional(ttl).is_some();
    let own = if lease.is_some() && !has_ttl { Duration::ZERO } else { read_ttl(ttl)? };
    let wait = duration_of("wait", wait, [Duration::ZERO, WAIT_MAX])?.unwrap_or_default();
    let lock = LockId { name, guards: json::optional(guards).map(read_guards).transpose()? };
    gate.check_lock(Verb::Work, &lock.name)?;
    let lease = under(&gate, lease.as_deref(), has_ttl).await?;
    let ttl = lease.as_ref().map_or(own, LeaseHold::left);
    drop(body);
    let asking = gate.acquire_lock(LockDraft { lock, holder, ttl, lease, wait, key });
    let held = while_there(hangup.as_ref(), asking).await;
    let held = held.inspect_err(|failure| http.0.metrics.locks().refused(failure.code()))?;
    http.0.metrics.locks().acquired(held.handed, held.is_replayed);
    let replayed = held.is_replayed;
    let text = serde_json::to_vec(&granted(&held)).expect("names, ids and times can be written");
    let body = Body::new(Handed::new(text.into(), held, hangup));
    let mut response = (StatusCode::CREATED, [(CONTENT_TYPE, APPLICATION_JSON)], body).into_response();
    mark_replayed(&mut response, replayed);
    Ok(response)
}

/// List locks that are held
///
/// Those that the caller may read, in the order of their names. No list of locks is kept: for each page a part of all that
/// is kept is looked through, so that a page may have few locks, or none, and others follow. As long as there is more to
/// look through, the header `Link` has the address of the next page. A lock that is held all the time is on one of them,
/// perhaps on two.
#[utoipa::path(
    get, path = "/api/v1/locks", tag = "locks", operation_id = "list_locks",
    params(("after" = Option<String>, Query, description = "Behind which to go on, as the page before has it in `Link`")),
    responses(
        (status = 200, body = Vec<ListedLock>, headers(("Link" = String, description = "`<…>; rel=\"next\"`, where there is more to look through"))),
        Problems,
    ),
)]
pub(super) async fn list(Called(gate): Called, uri: Uri) -> Result<Response, Failure> {
    let [after] = query::parameters(&uri, ["after"])?;
    let LockList { locks, next } = gate.list_locks(after.as_deref()).await?;
    let listed = |(LockId { name, guards }, held, waiting)| {
        let LockHeld { holder, fence, expires_at } = held;
        ListedLock { name, guards, holder, fence, expires_at, waiting }
    };
    let locks: Vec<ListedLock> = locks.into_iter().map(listed).collect();
    let next = next.map(|next| format!("/api/v1/locks?after={next}"));
    Ok(linked(Json(locks), next))
}

/// Describe a lock
///
/// Who holds it, and who waits for it. A lock that nobody holds or waits for is described, too: as that.
#[utoipa::path(
    get, path = "/api/v1/locks/{lock}", tag = "locks", operation_id = "show_lock",
    params(
        ("lock" = String, Path, description = "The name of the lock"),
        ("guards" = Option<String>, Query, description = "What it guards: `topic:orders` or `bucket:flows`"),
    ),
    responses((status = 200, body = LockState), Problems),
)]
pub(super) async fn show(
    Called(gate): Called,
    LockPath(name): LockPath,
    uri: Uri,
) -> Result<Json<LockState>, Failure> {
    let lock = LockId { name, guards: asked_guards(&uri)? };
    let seen = gate.lock(&lock).await?;
    let (holder, fence, expires_at) = match seen.held {
        Some(held) => (Some(held.holder), Some(held.fence), Some(held.expires_at)),
        None => (None, None, None),
    };
    let waiter = |(holder, ttl)| LockWaiter { holder, ttl: Seconds(ttl) };
    let queue = seen.queue.into_iter().map(waiter).collect();
    let LockId { name, guards } = lock;
    Ok(Json(LockState { name, guards, holder, fence, expires_at, waiting: seen.waiting, queue }))
}

/// Take a lock away
///
/// From whoever holds it, which is not asked. Who is next has it then.
#[utoipa::path(
    delete, path = "/api/v1/locks/{lock}", tag = "locks", operation_id = "take_lock",
    params(
        ("lock" = String, Path, description = "The name of the lock"),
        ("guards" = Option<String>, Query, description = "What it guards: `topic:orders` or `bucket:flows`"),
    ),
    responses((status = 204, description = "Who held it does so no more"), Problems),
)]
pub(super) async fn take(
    State(http): State<Http>,
    Called(gate): Called,
    _: Unconditional,
    LockPath(name): LockPath,
    uri: Uri,
) -> Result<StatusCode, Failure> {
    let lock = LockId { name, guards: asked_guards(&uri)? };
    gate.take_lock(&lock).await?;
    http.0.metrics.locks().taken();
    Ok(StatusCode::NO_CONTENT)
}

/// Hold a lock for longer
///
/// For `ttl` from now on.
#[utoipa::path(
    post, path = "/api/v1/locks/{lock}/renew", tag = "locks", operation_id = "renew_lock",
    params(("lock" = String, Path, description = "The name of the lock")),
    request_body = RenewRequest,
    responses((status = 200, body = LockRenewed), Problems),
)]
pub(super) async fn renew(
    State(http): State<Http>,
    Called(gate): Called,
    _: Unconditional,
    LockPath(name): LockPath,
    request: Request,
) -> Result<Json<LockRenewed>, Failure> {
    gate.check_lock(Verb::Work, &name)?;
    let body = receive(&http, request).await?;
    let [token, ttl]: [Option<&RawValue>; 2] = json::fields(&body.bytes, ["token", "ttl"])?;
    let renewal = renewal_of(name.clone(), token, ttl)?;
    let kept = gate.renew_locks(vec![renewal]).await.into_iter().next().expect("there is an answer for it");
    let LockKept { fence, expires_at } =
        kept.inspect_err(|failure| http.0.metrics.locks().failed(failure.code()))?;
    Ok(Json(LockRenewed { name, fence, expires_at }))
}

/// Hold several locks for longer
///
/// Each is renewed or not by itself. Where one is none, nothing is renewed, and `field` names it, as in
/// `renewals[3].token`.
#[utoipa::path(
    post, path = "/api/v1/locks/renew", tag = "locks", operation_id = "renew_locks",
    request_body = RenewAllRequest,
    responses((status = 200, body = RenewedAll), Problems),
)]
pub(super) async fn renew_all(
    State(http): State<Http>,
    Called(gate): Called,
    _: Unconditional,
    request: Request,
) -> Result<Json<RenewedAll>, Failure> {
    gate.check_some_lock(Verb::Work)?;
    let body = receive(&http, request).await?;
    let [renewals]: [Option<&RawValue>; 1] = json::fields(&body.bytes, ["renewals"])?;
    let renewals = json::optional(renewals).ok_or_else(|| json::missing("renewals"))?;
    let rule = || {
        let rule = format!("must be a list of 1 to {RENEWALS_MAX} objects `{{name, token, ttl}}`");
        Failure::from(Problem::field("renewals", rule))
    };
    let list: Vec<&RawValue> = serde_json::from_str(renewals.get()).map_err(|_| rule())?;
    if list.is_empty() || list.len() > RENEWALS_MAX {
        return Err(rule());
    }
    let read =
        |(at, raw): (usize, &RawValue)| read_renewal(raw).map_err(|failure| failure.of_item("renewals", at));
    let renewals = list.into_iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?;
    let names: Vec<LockName> = renewals.iter().map(|renewal| renewal.lock.name.clone()).collect();
    let results = gate.renew_locks(renewals).await;
    let result = |(name, kept): (LockName, Result<LockKept, Failure>)| match kept {
        Ok(LockKept { fence, expires_at }) => {
            RenewalResult { name, fence: Some(fence), expires_at: Some(expires_at), code: None, error: None }
        }
        Err(failure) => {
            http.0.metrics.locks().failed(failure.code());
            let (code, error) = (Some(failure.code()), Some(failure.to_string()));
            RenewalResult { name, fence: None, expires_at: None, code, error }
        }
    };
    Ok(Json(RenewedAll { results: names.into_iter().zip(results).map(result).collect() }))
}

/// Release a lock
///
/// Who is next has it then.
#[utoipa::path(
    post, path = "/api/v1/locks/{lock}/release", tag = "locks", operation_id = "release_lock",
    params(("lock" = String, Path, description = "The name of the lock")),
    request_body = ReleaseRequest,
    responses((status = 204, description = "It is held no more"), Problems),
)]
pub(super) async fn release(
    State(http): State<Http>,
    Called(gate): Called,
    _: Unconditional,
    LockPath(name): LockPath,
    request: Request,
) -> Result<StatusCode, Failure> {
    gate.check_lock(Verb::Work, &name)?;
    let body = receive(&http, request).await?;
    let [token]: [Option<&RawValue>; 1] = json::fields(&body.bytes, ["token"])?;
    let LockToken { id, guards } = read_token(token)?;
    let released = gate.release_lock(&LockId { name, guards }, id).await;
    released.inspect_err(|failure| http.0.metrics.locks().failed(failure.code()))?;
    http.0.metrics.locks().released();
    Ok(StatusCode::NO_CONTENT)
}

fn granted(held: &HeldLock) -> LockGranted {
    let LockId { name, guards } = held.lock.clone();
    let token = LockToken { id: held.secret, guards: guards.clone() };
    LockGranted { name, guards, token, fence: held.fence, expires_at: held.expires_at }
}

async fn receive(http: &Http, request: Request) -> Result<Received, Failure> {
    let (head, body) = request.into_parts();
    let [] = query::parameters(&head.uri, [])?;
    media::require_json(&head.headers)?;
    http.0.budget.receive(&head.headers, body, http.work_limit()).await
}

fn read_ttl(raw: Option<&RawValue>) -> Result<Duration, Failure> {
    duration_of("ttl", raw, TTL)?.ok_or_else(|| json::missing("ttl"))
}

fn read_token(raw: Option<&RawValue>) -> Result<LockToken, Failure> {
    let raw = json::optional(raw).ok_or_else(|| json::missing("token"))?;
    let token = LockToken::parse(&json::string("token", raw)?);
    token.map_err(|error| Problem::field("token", error).into())
}

/// Reads one renewal of several.
fn read_renewal(raw: &RawValue) -> Result<LockRenewal, Failure> {
    if !raw.get().starts_with('{') {
        return Err(Problem::new(Code::InvalidField, "must be an object `{name, token, ttl}`").into());
    }
    let [name, token, ttl]: [Option<&RawValue>; 3] =
        json::fields(raw.get().as_bytes(), ["name", "token", "ttl"])?;
    let name = json::optional(name).ok_or_else(|| json::missing("name"))?;
    let name = LockName::parse(&json::string("name", name)?);
    renewal_of(name.map_err(|error| Problem::field("name", error))?, token, ttl)
}

fn renewal_of(
    name: LockName,
    token: Option<&RawValue>,
    ttl: Option<&RawValue>,
) -> Result<LockRenewal, Failure> {
    let LockToken { id, guards } = read_token(token)?;
    Ok(LockRenewal { lock: LockId { name, guards }, secret: id, ttl: read_ttl(ttl)? })
}

fn read_guards(raw: &RawValue) -> Result<Guarded, Failure> {
    if !raw.get().starts_with('{') {
        let rule = "must be an object with one field: `{\"topic\": \"orders\"}` or `{\"bucket\": \"flows\"}`";
        return Err(Problem::field("guards", rule).into());
    }
    serde_json::from_str(raw.get()).map_err(|error| {
        let rule =
            format!("must be an object with one field, `topic` or `bucket`, and the name of one: {error}");
        Problem::field("guards", rule).into()
    })
}

fn asked_guards(uri: &Uri) -> Result<Option<Guarded>, Failure> {
    let [guards] = query::parameters(uri, ["guards"])?;
    let guards = guards.as_deref().map(Guarded::parse).transpose();
    guards.map_err(|error| Problem::field("guards", error).into())
}
