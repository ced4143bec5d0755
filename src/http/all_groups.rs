//! The list of the groups of all topics.

use axum::Json;
use axum::http::Uri;
use axum::response::Response;
use tidemill_proto::limits::{TOPICS_PAGE_DEFAULT, TOPICS_PAGE_MAX};
use tidemill_proto::work::GroupDetail;
use utoipa_axum::routes;

use super::called::Called;
use super::failure::Problems;
use super::linked::linked;
use super::query;
use super::routes::{Concern, Needs};
use crate::access::Verb;
use crate::relay::{Failure, GroupList, GroupPlace};

pub(super) fn routes(is_on: bool) -> Concern {
    Concern::switched(is_on).route(Needs::Right(Verb::Work), routes!(list))
}

/// List the groups of all topics
///
/// Those whose topics the caller may work on, in the order of the topics and of their own names, each as in the list of its
/// topic. No list of groups is kept: for each page up to 1,000 topics are looked through, so that a page may have few
/// groups, or none, and others follow. As long as there is more to look through, the header `Link` has the address of the
/// next page.
#[utoipa::path(
    get, path = "/api/v1/groups", tag = "work", operation_id = "list_all_groups",
    params(
        ("limit" = Option<usize>, Query, description = "Most groups, 1 to 1,000; 100 if absent"),
        ("after" = Option<String>, Query, description = "Behind which to go on: a topic, or a group of it as in `jobs/workers`"),
        ("unattended" = Option<bool>, Query, description = "`true`: only groups that are not done, and of which nobody has asked for messages for a minute"),
    ),
    responses(
        (status = 200, body = Vec<GroupDetail>, headers(("Link" = String, description = "`<…>; rel=\"next\"`, where there is more to look through"))),
        Problems,
    ),
)]
pub(super) async fn list(Called(gate): Called, uri: Uri) -> Result<Response, Failure> {
    let [limit, after, unattended] = query::parameters(&uri, ["limit", "after", "unattended"])?;
    let limit = query::limit(limit.as_deref(), TOPICS_PAGE_DEFAULT, TOPICS_PAGE_MAX)?;
    let after = after.map(|after| GroupPlace::parse("after", &after)).transpose()?;
    let unattended = query::switch("unattended", unattended.as_deref())?;
    let GroupList { groups, next } = gate.list_groups(after, limit, unattended).await?;
    let filter = if unattended { "&unattended=true" } else { "" };
    let next = next.map(|next| format!("/api/v1/groups?limit={limit}{filter}&after={next}"));
    Ok(linked(Json(groups), next))
}
