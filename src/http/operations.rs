//! What operators ask: health, readiness, metrics.

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tidemill_proto::health::{Health, HealthDetails, LimitsHealth, Ready};
use utoipa_axum::routes;

use super::called::{ByAdmin, Called};
use super::failure::{Mistaken, Problems};
use super::routes::{Concern, Needs};
use super::{Http, query};
use crate::access::Verb;
use crate::relay::{Condition, Failure};
use crate::traces;

/// The paths that probes ask, by whatever address they have.
pub(super) const PROBES: [&str; 2] = ["/health", "/ready"];

pub(super) fn routes() -> Concern {
    Concern::new().route(Needs::Nothing, routes!(health)).route(Needs::Nothing, routes!(ready))
}

pub(super) fn metrics_routes(serve_metrics: bool) -> Concern {
    Concern::switched(serve_metrics).route(Needs::Right(Verb::Admin), routes!(metrics))
}

/// Returns what stands at the address of the metrics alone, for whoever reaches it.
pub(super) fn metrics_alone() -> axum::Router<Http> {
    axum::Router::new().route("/metrics", get(metrics_for_all))
}

/// Tell how the relay is
///
/// Always 200 while the process lives; `status` says whether it can do its work. All but `status` and `timestamp`
/// is left out for who may not administer the relay.
#[utoipa::path(get, path = "/health", tag = "operations", responses((status = 200, body = Health), Mistaken))]
pub(super) async fn health(
    State(http): State<Http>,
    ByAdmin(is_admin): ByAdmin,
    uri: Uri,
) -> Result<Json<Health>, Failure> {
    let [] = query::parameters(&uri, [])?;
    let Condition { status, backend } = http.0.relay.health().await;
    let details = is_admin.then(|| HealthDetails {
        node: http.0.node,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_seconds: http.0.started.elapsed().as_secs(),
        backend,
        limits: match http.0.entrance.limits().is_alone() {
            None => LimitsHealth::None,
            Some(false) => LimitsHealth::Shared,
            Some(true) => LimitsHealth::Alone,
        },
        kept: http.0.relay.kept().now(),
    });
    Ok(Json(Health { status, timestamp: http.0.relay.clock().now(), details }))
}

/// Tell whether a load balancer should send requests here
#[utoipa::path(
    get, path = "/ready", tag = "operations",
    responses((status = 200, body = Ready), (status = 503, description = "Not now, for these reasons", body = Ready), Mistaken),
)]
pub(super) async fn ready(
    State(http): State<Http>,
    ByAdmin(is_admin): ByAdmin,
    uri: Uri,
) -> Result<Response, Failure> {
    let [] = query::parameters(&uri, [])?;
    let mut reasons = Vec::new();
    if http.0.draining.is_told() {
        reasons.push("the relay is shutting down".to_owned());
    }
    if !http.0.relay.is_ready() {
        reasons.push("the storage cannot be used now".to_owned());
        if is_admin {
            reasons.extend(http.0.relay.health().await.backend.warnings);
        }
    }
    if !http.0.access.can_tell() {
        reasons.push("who may do what cannot be looked up now".to_owned());
    }
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let away = if is_admin { http.0.relay.servers_away() } else { Vec::new() };
    Ok((status, Json(Ready { ready: reasons.is_empty(), reasons, away })).into_response())
}

/// Metrics in the text format of Prometheus
#[utoipa::path(
    get, path = "/metrics", tag = "operations",
    responses((status = 200, body = String, content_type = "text/plain"), Problems),
)]
pub(super) async fn metrics(
    State(http): State<Http>,
    Called(gate): Called,
    uri: Uri,
) -> Result<Response, Failure> {
    gate.check_admin()?;
    tell_metrics(&http, &uri).await
}

async fn metrics_for_all(State(http): State<Http>, uri: Uri) -> Result<Response, Failure> {
    tell_metrics(&http, &uri).await
}

async fn tell_metrics(http: &Http, uri: &Uri) -> Result<Response, Failure> {
    let [] = query::parameters(uri, [])?;
    let relay = &http.0.relay;
    let (inflight, pending) = (http.budget().held_bytes(), relay.pending_bytes());
    http.0.metrics.requests().held_bytes(inflight, pending, relay.live_bytes());
    let backend = relay.health().await.backend;
    let is_ready = !http.0.draining.is_told() && relay.is_ready() && http.0.access.can_tell();
    http.0.metrics.node().tell(is_ready, &backend, relay.feeds(), relay.patterns());
    http.0.metrics.node().draining(http.0.draining.is_told());
    http.0.metrics.work().tell(relay.work_gone(), relay.work_dead());
    http.0.metrics.locks().waiting(relay.lock_waiters());
    http.0.metrics.presence().connections(relay.present_connections());
    let traces::Sent { sent, dropped, failed } = traces::sent();
    http.0.metrics.traces().tell(sent, dropped, failed);
    http.0.metrics.slow().tell(relay.slow().counts());
    let text = http.0.metrics.render();
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}
