//! What is open on the node: listed, and ended one by one.
//!
//! It must not know what a session does.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use tidemill_proto::limits::{SESSIONS_PAGE_DEFAULT, SESSIONS_PAGE_MAX};
use tidemill_proto::sessions::{SessionId, SessionInfo, SessionList};
use tidemill_proto::{Code, Problem};
use utoipa_axum::routes;

use super::called::Called;
use super::failure::Problems;
use super::routes::{Concern, Needs};
use super::{Http, query};
use crate::access::{OpenSession, Verb, changed};
use crate::relay::Failure;

pub(super) fn routes() -> Concern {
    Concern::new()
        .route(Needs::Right(Verb::Admin), routes!(list))
        .route(Needs::Right(Verb::Admin), routes!(end))
}

/// List what is open on this node
///
/// WebSockets, streams, requests that wait, and what is watched: who has opened each, from where, since when, and how far
/// behind it is.
#[utoipa::path(
    get, path = "/api/v1/admin/sessions", tag = "operations", operation_id = "list_sessions",
    params(
        ("limit" = Option<usize>, Query, description = "How many at most, 1 to 1,000; 100 unless told"),
        ("after" = Option<String>, Query, description = "The session behind which to go on"),
    ),
    responses((status = 200, body = SessionList), Problems),
)]
pub(super) async fn list(
    State(http): State<Http>,
    Called(gate): Called,
    uri: Uri,
) -> Result<Json<SessionList>, Failure> {
    gate.check_admin()?;
    let [limit, after] = query::parameters(&uri, ["limit", "after"])?;
    let limit = query::limit(limit.as_deref(), SESSIONS_PAGE_DEFAULT, SESSIONS_PAGE_MAX)?;
    let after = after.map(|text| of_this_node(&http, "after", &text)).transpose()?;
    let sessions = http.0.relay.sessions();
    let now = http.0.relay.clock().now().as_millis();
    let shown = |session: OpenSession| SessionInfo {
        session: SessionId { node: http.0.node, number: session.number },
        kind: session.opening.kind,
        caller: session.caller.who().to_string(),
        address: session.opening.address,
        since: session.opening.since,
        topics: session.topics,
        behind_seconds: session
            .read_up_to
            .map_or(0.0, |at| Duration::from_millis(now.saturating_sub(at)).as_secs_f64()),
    };
    Ok(Json(SessionList {
        node: http.0.node,
        count: sessions.count() as u64,
        sessions: sessions.list(after, limit).into_iter().map(shown).collect(),
    }))
}

/// End what is open
///
/// Its client is told, and may come again at once: revoke its token, or lock its user out, to keep it away.
#[utoipa::path(
    delete, path = "/api/v1/admin/sessions/{session}", tag = "operations", operation_id = "end_session",
    params(("session" = String, Path, description = "The session, as it is listed")),
    responses((status = 204), Problems),
)]
pub(super) async fn end(
    State(http): State<Http>,
    Called(gate): Called,
    Path(session): Path<String>,
    uri: Uri,
) -> Result<StatusCode, Failure> {
    gate.check_admin()?;
    let [] = query::parameters(&uri, [])?;
    let number = of_this_node(&http, "session", &session)?;
    let Some(caller) = http.0.relay.sessions().cut(number) else {
        return Err(Problem::new(Code::NotFound, "the session is not open any more").into());
    };
    changed!(gate.caller().who(), gate.origin(), "session ended", session, of = %caller.who());
    Ok(StatusCode::NO_CONTENT)
}

/// Reads what names a session of this node, and returns its number.
fn of_this_node(http: &Http, field: &'static str, text: &str) -> Result<u64, Failure> {
    let id = SessionId::parse(text).map_err(|error| Problem::field(field, error))?;
    if id.node == http.0.node {
        return Ok(id.number);
    }
    let detail = format!("the session is of another node; this one is `{}`", http.0.node);
    Err(Problem::new(Code::NotFound, detail).into())
}
