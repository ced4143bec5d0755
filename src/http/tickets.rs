//! Tickets over HTTP: made with a request.
//!
//! It must not know what a ticket is good for, nor how one is shown.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use tidemill_proto::access::{TicketCreate, TicketCreated};
use utoipa_axum::routes;

use super::administration::receive;
use super::called::Administered;
use super::failure::Problems;
use super::routes::{Concern, Needs};
use super::{Http, json};
use crate::relay::{Failure, parse_selector};

pub(super) fn routes() -> Concern {
    Concern::new().route(Needs::Caller, routes!(create_ticket))
}

/// Make a ticket
///
/// For browsers, whose `EventSource` and `WebSocket` send no `Authorization`: it stands as `?ticket=` in the URL of one
/// stream or WebSocket, and opens that within 30 seconds. From then on it resumes that stream, and is good for nothing
/// else, for as long as whoever made it may call. It can do what its rules allow, and never more than whoever makes it.
#[utoipa::path(
    post, path = "/api/v1/tickets", tag = "access",
    request_body = TicketCreate,
    responses((status = 201, description = "The ticket", body = TicketCreated), Problems),
)]
pub(super) async fn create_ticket(
    State(http): State<Http>,
    Administered(administration): Administered,
    request: Request,
) -> Result<(StatusCode, Json<TicketCreated>), Failure> {
    administration.check_said()?;
    let body = receive(&http, request).await?;
    let [topics, rules] = json::fields(&body.bytes, ["topics", "rules"])?;
    let strings = |name, raw| json::optional(raw).map(|raw| json::strings(name, raw)).transpose();
    let topics = strings("topics", topics)?
        .map(|names| names.iter().map(|name| parse_selector("topics", name)).collect::<Result<Vec<_>, _>>());
    let wanted = TicketCreate { topics: topics.transpose()?, rules: strings("rules", rules)? };
    Ok((StatusCode::CREATED, Json(administration.create_ticket(&wanted).await?)))
}
