//! Limits of applications: taking of them, looking at them, and giving back.

use axum::Json;
use axum::extract::{Request, State};
use futures_util::future::join_all;
use serde_json::value::RawValue;
use tidemill_proto::Problem;
use tidemill_proto::takes::{
    LIMIT_MAX, NamedAnswer, POLICIES_MAX, TAKES_MAX, TakeAllRequest, TakeAnswer, TakeRequest, TakenAll,
};
use utoipa_axum::routes;

use super::called::Called;
use super::failure::Problems;
use super::groups::{duration_of, number_of};
use super::json::Few;
use super::path::LimitPath;
use super::routes::{Concern, Needs};
use super::unconditional::Unconditional;
use super::{Http, json, media, query};
use crate::access::Verb;
use crate::relay::{Failure, Gate, TAKE_PER, TakeDraft, TakeKind, parse_limit};

pub(super) fn routes(is_on: bool) -> Concern {
    Concern::switched(is_on)
        .route(Needs::Right(Verb::Work), routes!(take))
        .route(Needs::Right(Verb::Read), routes!(peek))
        .route(Needs::Right(Verb::Work), routes!(refund))
        .route(Needs::Right(Verb::Work), routes!(take_all))
}

/// Take of a limit
///
/// The cost is taken by every policy, or by none: `allowed` says which. Several nodes count together, to the unit. Where the
/// storage cannot be asked, the answer is `degraded`: this node has decided by itself.
#[utoipa::path(
    post, path = "/api/v1/limits/{name}/take", tag = "limits",
    params(("name" = String, Path, description = "The name of the limit")),
    request_body = TakeRequest,
    responses((status = 200, body = TakeAnswer), Problems),
)]
pub(super) async fn take(
    State(http): State<Http>,
    Called(gate): Called,
    _: Unconditional,
    limit: LimitPath,
    request: Request,
) -> Result<Json<TakeAnswer>, Failure> {
    of_one(&http, &gate, limit, TakeKind::Take, request).await
}

/// Look at a limit
///
/// The answer is that of a take, and nothing is taken.
#[utoipa::path(
    post, path = "/api/v1/limits/{name}/peek", tag = "limits",
    params(("name" = String, Path, description = "The name of the limit")),
    request_body = TakeRequest,
    responses((status = 200, body = TakeAnswer), Problems),
)]
pub(super) async fn peek(
    State(http): State<Http>,
    Called(gate): Called,
    _: Unconditional,
    limit: LimitPath,
    request: Request,
) -> Result<Json<TakeAnswer>, Failure> {
    of_one(&http, &gate, limit, TakeKind::Peek, request).await
}

/// Give back to a limit
///
/// What was taken and not used is there again for all, at most a whole burst.
#[utoipa::path(
    post, path = "/api/v1/limits/{name}/refund", tag = "limits",
    params(("name" = String, Path, description = "The name of the limit")),
    request_body = TakeRequest,
    responses((status = 200, body = TakeAnswer), Problems),
)]
pub(super) async fn refund(
    State(http): State<Http>,
    Called(gate): Called,
    _: Unconditional,
    limit: LimitPath,
    request: Request,
) -> Result<Json<TakeAnswer>, Failure> {
    of_one(&http, &gate, limit, TakeKind::Refund, request).await
}

/// Take of several limits
///
/// Each for itself, in no order among them: a result for each. What is wrong with one is told there, and the others are
/// taken.
#[utoipa::path(
    post, path = "/api/v1/limits/take", tag = "limits",
    request_body = TakeAllRequest,
    responses((status = 200, body = TakenAll), Problems),
)]
pub(super) async fn take_all(
    State(http): State<Http>,
    Called(gate): Called,
    _: Unconditional,
    request: Request,
) -> Result<Json<TakenAll>, Failure> {
    let (head, body) = request.into_parts();
    let [] = query::parameters(&head.uri, [])?;
    media::require_json(&head.headers)?;
    gate.check_some_limit()?;
    let body = http.0.budget.receive(&head.headers, body, http.work_limit()).await?;
    let [takes] = json::fields::<Few<'_, TAKES_MAX>, 1>(&body.bytes, ["takes"])?;
    let Few { items, count } = takes.ok_or_else(|| json::missing("takes"))?;
    if !(1..=TAKES_MAX).contains(&count) {
        let rule = format_args!("has {count} takes; a request has 1 to {TAKES_MAX}");
        return Err(Problem::field("takes", rule).into());
    }
    let results = join_all(items.iter().map(|raw| async {
        let mut name = String::new();
        match named(&gate, raw, &mut name).await {
            Ok(answer) => {
                http.0.metrics.takes().answered(TakeKind::Take.as_str(), answer.allowed, answer.degraded);
                NamedAnswer { name, answer, error: None }
            }
            Err(failure) => {
                let error = Some(failure.problem().clone());
                NamedAnswer { name, answer: TakeAnswer::default(), error }
            }
        }
    }));
    Ok(Json(TakenAll { results: results.await }))
}

/// Takes of one limit of several; its name is told whatever comes of it.
async fn named(gate: &Gate, raw: &RawValue, told: &mut String) -> Result<TakeAnswer, Failure> {
    if !raw.get().starts_with('{') {
        return Err(Problem::field("takes", "must be a list of objects `{name, cost, policies}`").into());
    }
    let [name, cost, policies]: [Option<&RawValue>; 3] =
        json::fields(raw.get().as_bytes(), ["name", "cost", "policies"])?;
    let name = json::string("name", json::optional(name).ok_or_else(|| json::missing("name"))?)?;
    name.as_ref().clone_into(told);
    let name = parse_limit("name", &name)?;
    gate.take(&name, &draft(cost, policies)?, TakeKind::Take).await
}

async fn of_one(
    http: &Http,
    gate: &Gate,
    LimitPath(name): LimitPath,
    kind: TakeKind,
    request: Request,
) -> Result<Json<TakeAnswer>, Failure> {
    let (head, body) = request.into_parts();
    let [] = query::parameters(&head.uri, [])?;
    media::require_json(&head.headers)?;
    gate.check_limit(&name, kind)?;
    let body = http.0.budget.receive(&head.headers, body, http.small_limit()).await?;
    let [cost, policies]: [Option<&RawValue>; 2] = json::fields(&body.bytes, ["cost", "policies"])?;
    let draft = draft(cost, policies)?;
    drop(body);
    let answer = gate.take(&name, &draft, kind).await?;
    http.0.metrics.takes().answered(kind.as_str(), answer.allowed, answer.degraded);
    Ok(Json(answer))
}

/// Reads what is asked of a limit.
fn draft(cost: Option<&RawValue>, policies: Option<&RawValue>) -> Result<TakeDraft, Failure> {
    let policies = json::optional(policies).ok_or_else(|| json::missing("policies"))?;
    let rule = || {
        let rule = format!("must be a list of 1 to {POLICIES_MAX} objects `{{limit, per, burst}}`");
        Failure::from(Problem::field("policies", rule))
    };
    let Few { items, count }: Few<'_, POLICIES_MAX> =
        serde_json::from_str(policies.get()).map_err(|_| rule())?;
    if !(1..=POLICIES_MAX).contains(&count) || items.iter().any(|raw| !raw.get().starts_with('{')) {
        return Err(rule());
    }
    let cost = number_of("cost", cost, LIMIT_MAX)?.unwrap_or(1);
    let policy = |raw: &RawValue| {
        let [limit, per, burst]: [Option<&RawValue>; 3] =
            json::fields(raw.get().as_bytes(), ["limit", "per", "burst"])?;
        let limit = number_of("limit", limit, LIMIT_MAX)?.ok_or_else(|| json::missing("limit"))?;
        let per = duration_of("per", per, TAKE_PER)?.ok_or_else(|| json::missing("per"))?;
        Ok((limit, per, number_of("burst", burst, LIMIT_MAX)?))
    };
    let policies = items.into_iter().map(policy).collect::<Result<Vec<_>, Failure>>()?;
    Ok(TakeDraft { cost, policies })
}
