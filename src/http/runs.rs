//! Runs: topics are closed, and cancelled.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::Uri;
use tidemill_proto::topics::{CancelRequest, Closed};
use utoipa_axum::routes;

use super::called::Called;
use super::failure::Problems;
use super::path::TopicPath;
use super::routes::{Concern, Needs};
use super::{Http, json, query, topics};
use crate::access::Verb;
use crate::relay::{Failure, parse_reason};

pub(super) fn routes() -> Concern {
    Concern::new()
        .route(Needs::Right(Verb::Manage), routes!(close))
        .route(Needs::Right(Verb::Manage), routes!(cancel))
}

/// Close a topic
///
/// It takes no messages from then on: publishing is 409 `topic_closed`. Its pages stay, and live readers that have
/// everything are told `closed`; streams of this topic alone end. One that is closed stays so. To begin anew, delete the
/// topic and make it again.
#[utoipa::path(
    post, path = "/api/v1/topics/{topic}/close", tag = "topics", operation_id = "close_topic",
    params(("topic" = String, Path, description = "The name of the topic")),
    responses(
        (status = 200, body = Closed),
        Problems,
    ),
)]
pub(super) async fn close(
    Called(gate): Called,
    TopicPath(topic): TopicPath,
    uri: Uri,
) -> Result<Json<Closed>, Failure> {
    let [] = query::parameters(&uri, [])?;
    gate.close_topic(&topic).await.map(Json)
}

/// Cancel a topic
///
/// As closing it, and for a reason: publishing is 409 `cancelled` with it, and live readers are told. One that is
/// cancelled stays so, for its first reason, and can be closed; one that is closed cannot be cancelled.
#[utoipa::path(
    post, path = "/api/v1/topics/{topic}/cancel", tag = "topics", operation_id = "cancel_topic",
    params(("topic" = String, Path, description = "The name of the topic")),
    request_body = CancelRequest,
    responses(
        (status = 200, body = Closed),
        Problems,
    ),
)]
pub(super) async fn cancel(
    State(http): State<Http>,
    Called(gate): Called,
    TopicPath(topic): TopicPath,
    request: Request,
) -> Result<Json<Closed>, Failure> {
    let body = topics::receive(&http, &gate, request).await?;
    let [reason] = json::fields(&body.bytes, ["reason"])?;
    let reason = json::string("reason", reason.ok_or_else(|| json::missing("reason"))?)?;
    gate.cancel_topic(&topic, parse_reason(&reason)?).await.map(Json)
}
