//! Which relays share the storage.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use tidemill_proto::nodes::NodeList;
use utoipa_axum::routes;

use super::called::Called;
use super::failure::Problems;
use super::routes::{Concern, Needs};
use super::{Http, query};
use crate::access::Verb;
use crate::relay::Failure;

pub(super) fn routes() -> Concern {
    Concern::new().route(Needs::Right(Verb::Admin), routes!(list))
}

/// List the nodes that share the storage
///
/// Each says every few seconds that it is there, with its version; one that has ended without a word is listed for 30
/// seconds more.
#[utoipa::path(
    get, path = "/api/v1/admin/nodes", tag = "operations", operation_id = "list_nodes",
    responses((status = 200, body = NodeList), Problems),
)]
pub(super) async fn list(
    State(http): State<Http>,
    Called(gate): Called,
    uri: Uri,
) -> Result<Json<NodeList>, Failure> {
    let [] = query::parameters(&uri, [])?;
    Ok(Json(NodeList { node: http.0.node, nodes: gate.nodes().await? }))
}
