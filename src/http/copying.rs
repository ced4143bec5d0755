//! Copies over HTTP: a relay as the source or the target of one.
//!
//! It must not know what is copied, nor in which order.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tidemill_proto::Problem;
use tidemill_proto::copy::{
    COPY_VERSION, CopyRead, CopyReadAnswer, CopyReadRequest, CopyWrite, CopyWriteRequest,
};
use utoipa_axum::routes;

use super::body::Received;
use super::called::Called;
use super::failure::Problems;
use super::routes::{Concern, Needs};
use super::unconditional::Unconditional;
use super::{Http, json, media, query};
use crate::access::Verb;
use crate::relay::{Failure, Gate};

pub(super) fn routes() -> Concern {
    Concern::new()
        .route(Needs::Right(Verb::Admin), routes!(read))
        .route(Needs::Right(Verb::Admin), routes!(write))
}

/// Tell who copies what is there
///
/// One question about topics or buckets, as `tidemill copy` asks them of its source. Pages have at most 1,000 items, and
/// about a mebibyte.
#[utoipa::path(
    post, path = "/api/v1/admin/copy/read", tag = "operations", operation_id = "read_copy",
    request_body = CopyReadRequest,
    responses((status = 200, body = CopyReadAnswer), Problems),
)]
pub(super) async fn read(
    State(http): State<Http>,
    Called(gate): Called,
    _: Unconditional,
    request: Request,
) -> Result<Json<CopyReadAnswer>, Failure> {
    let body = receive(&http, &gate, request).await?;
    let asked: CopyRead = step("read", &body.bytes)?;
    drop(body);
    let told = gate.read_copy(&asked).await;
    http.0.metrics.copies().step("read", told.is_ok());
    told.map(|told| Json(CopyReadAnswer { version: COPY_VERSION, told }))
}

/// Do what who copies wants done
///
/// One step, as `tidemill copy` writes its target: a topic or a bucket begins to be taken over and takes nothing else until
/// it is finished. Steps that are made again do no harm.
#[utoipa::path(
    post, path = "/api/v1/admin/copy/write", tag = "operations", operation_id = "write_copy",
    request_body = CopyWriteRequest,
    responses((status = 204, description = "It is done"), Problems),
)]
pub(super) async fn write(
    State(http): State<Http>,
    Called(gate): Called,
    _: Unconditional,
    request: Request,
) -> Result<StatusCode, Failure> {
    let body = receive(&http, &gate, request).await?;
    let write: CopyWrite = step("write", &body.bytes)?;
    drop(body);
    let written = gate.write_copy(write).await;
    http.0.metrics.copies().step("write", written.is_ok());
    written.map(|()| StatusCode::NO_CONTENT)
}

/// Reads the body of a request, unless its caller may not.
async fn receive(http: &Http, gate: &Gate, request: Request) -> Result<Received, Failure> {
    let (head, body) = request.into_parts();
    let [] = query::parameters(&head.uri, [])?;
    media::require_json(&head.headers)?;
    gate.check_admin()?;
    http.0.budget.receive(&head.headers, body, http.bulk_limit()).await
}

/// Reads a step in the form of today.
fn step<T: DeserializeOwned>(name: &'static str, body: &[u8]) -> Result<T, Failure> {
    let [version, step]: [Option<&RawValue>; 2] = json::fields(body, ["version", name])?;
    let version = json::optional(version).ok_or_else(|| json::missing("version"))?;
    if version.get() != COPY_VERSION.to_string() {
        let rule = format_args!(
            "must be {COPY_VERSION}, the form of copies of this relay; use a `tidemill copy` of its own version"
        );
        return Err(Problem::field("version", rule).into());
    }
    let step = json::optional(step).ok_or_else(|| json::missing(name))?;
    serde_json::from_str(step.get()).map_err(|_| fault::<T>(name, step))
}

/// Returns what is wrong with a step, and where: looked for only where something is.
fn fault<T: DeserializeOwned>(name: &str, step: &RawValue) -> Failure {
    let mut reader = serde_json::Deserializer::from_str(step.get());
    let error = serde_path_to_error::deserialize::<_, T>(&mut reader).err();
    let (path, rule) = error
        .map_or_else(Default::default, |error| (error.path().to_string(), error.into_inner().to_string()));
    let field = if path.is_empty() || path == "." { name.to_owned() } else { format!("{name}.{path}") };
    let rule = rule.split(" at line ").next().unwrap_or_default();
    Problem::field(&field, format_args!("is not as it must be: {rule}")).into()
}
