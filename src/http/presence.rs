//! Who is present in rooms: joining, leaving, listing and watching.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use tidemill_proto::limits::{TOPICS_PAGE_DEFAULT, TOPICS_PAGE_MAX};
use tidemill_proto::presence::{Member, Members, Room};
use tidemill_proto::{MemberName, Problem, RoomName, duration};
use utoipa_axum::routes;

use super::accept::{self, Wanted};
use super::called::Called;
use super::failure::Problems;
use super::leases::{LEASE, under};
use super::linked::linked;
use super::live::named_event_id;
use super::path::{MemberPath, RoomPath};
use super::publishing::refuse_fence;
use super::routes::{Concern, Needs};
use super::streamed::{LAST_EVENT_ID_NAMES, MEMBER, PRESENCE, Streamed, TICKET};
use super::unconditional::Unconditional;
use super::{Http, json, query, stream, watch};
use crate::access::Verb;
use crate::relay::Failure;

/// Why no fence goes with members.
const UNFENCED: &str = "no lock guards a room; put a key in place of the member, which takes one";

pub(super) fn routes(is_on: bool) -> Concern {
    Concern::switched(is_on)
        .route(Needs::Right(Verb::Read), routes!(rooms))
        .route(Needs::Right(Verb::Read), routes!(members))
        .route(Needs::Right(Verb::Publish), routes!(join))
        .route(Needs::Right(Verb::Publish), routes!(leave))
}

/// List rooms
///
/// Those in which somebody is, and whose members the caller may read, in the order of their names. Where there are more, the
/// header `Link` has the address of the next page; a page may be empty where others follow.
#[utoipa::path(
    get, path = "/api/v1/presence", tag = "presence", operation_id = "list_rooms",
    params(
        ("limit" = Option<usize>, Query, description = "Most rooms, 1 to 1,000; 100 if absent"),
        ("after" = Option<String>, Query, description = "Behind which room to begin"),
    ),
    responses(
        (status = 200, body = Vec<Room>, headers(("Link" = String, description = "`<…>; rel=\"next\"`, where there are more"))),
        Problems,
    ),
)]
pub(super) async fn rooms(Called(gate): Called, uri: Uri) -> Result<Response, Failure> {
    let [limit, after] = query::parameters(&uri, ["limit", "after"])?;
    let limit = query::limit(limit.as_deref(), TOPICS_PAGE_DEFAULT, TOPICS_PAGE_MAX)?;
    let after = after.map(|after| RoomName::parse(&after)).transpose();
    let after = after.map_err(|error| Problem::field("after", error))?;
    let (rooms, next) = gate.list_rooms(after.as_ref(), limit).await?;
    let next = next.map(|next| format!("/api/v1/presence?limit={limit}&after={next}"));
    Ok(linked(Json(rooms), next))
}

/// List the members of a room, or watch who joins and leaves
///
/// In the order of their names; where there are more, the header `Link` has the address of the next page. With
/// `Accept: text/event-stream` or `application/x-ndjson` all of them come as `joined`, then `synced`, and from then on
/// `joined` and `left` as it happens; `Last-Event-ID` resumes.
#[utoipa::path(
    get, path = "/api/v1/presence/{room}", tag = "presence", operation_id = "list_members",
    params(
        ("room" = String, Path, description = "The name of the room"),
        ("limit" = Option<usize>, Query, description = "Most members, 1 to 1,000; 100 if absent"),
        ("after" = Option<String>, Query, description = "Behind which member to begin"),
        ("last_event_id" = Option<String>, Query, description = "As the header, for clients that cannot set one; `lastEventId` and `Last-Event-ID` mean the same"),
        ("ticket" = Option<String>, Query, description = "A ticket, in place of `Authorization`, for clients that can send none"),
        ("presence" = Option<String>, Query, description = "Streams: a room of which the stream is a member as long as it is open"),
        ("member" = Option<String>, Query, description = "Streams: as whom; a name is made up if it is absent"),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event, to resume after it"),
    ),
    responses(
        (status = 200, description = "The members; with `Accept: text/event-stream`, as they come and go", body = Members),
        Problems,
    ),
)]
pub(super) async fn members(
    State(http): State<Http>,
    Streamed(gate): Streamed,
    RoomPath(room): RoomPath,
    method: Method,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Failure> {
    let [one, two, three] = LAST_EVENT_ID_NAMES;
    let known = ["limit", "after", one, two, three, TICKET, PRESENCE, MEMBER];
    let [limit, after, one, two, three, _, presence, member] = query::parameters(&uri, known)?;
    let wanted = accept::wanted(&headers);
    let event_id = named_event_id([one, two, three]);
    if wanted != Wanted::Page {
        for (name, value) in [("limit", limit), ("after", after)] {
            if value.is_some() {
                return Err(Problem::field(name, "does not fit a stream; leave it out").into());
            }
        }
        let watched = gate.watch_room(&room)?;
        let response = watch::respond(&http, &gate, watched, wanted, &headers, event_id).await?;
        return Ok(stream::to(&method, response));
    }
    let of_streams = [event_id.map(|(name, _)| name), presence.map(|_| PRESENCE), member.map(|_| MEMBER)];
    if let Some(name) = of_streams.into_iter().flatten().next() {
        let rule = "is for streams; ask for one with `Accept: text/event-stream`";
        return Err(Problem::field(name, rule).into());
    }
    let limit = query::limit(limit.as_deref(), TOPICS_PAGE_DEFAULT, TOPICS_PAGE_MAX)?;
    let after = after.map(|after| MemberName::parse(&after)).transpose();
    let after = after.map_err(|error| Problem::field("after", error))?;
    let (members, next) = gate.members(&room, after.as_ref(), limit).await?;
    let next = next.map(|next| format!("/api/v1/presence/{room}?limit={limit}&after={next}"));
    Ok(linked(Json(members), next))
}

/// Join a room, or stay in it
///
/// The body is any JSON, or empty: what the member says of itself. Who says the same again stays, and nobody is told.
#[utoipa::path(
    put, path = "/api/v1/presence/{room}/{member}", tag = "presence", operation_id = "join_room",
    params(
        ("room" = String, Path, description = "The name of the room"),
        ("member" = String, Path, description = "The name of the member"),
        ("ttl" = Option<String>, Query, description = "For how long: a number of seconds, or with a unit, as in `30s`; 1 s to 24 h, 30 s if absent"),
        ("lease" = Option<String>, Query, description = "The lease that keeps the member, in place of `ttl`"),
    ),
    request_body(content = Option<serde_json::Value>, description = "What the member says of itself, at most 4 KiB of JSON"),
    responses(
        (status = 201, description = "It has joined", body = Member),
        (status = 200, description = "It was there, and stays", body = Member),
        Problems,
    ),
)]
pub(super) async fn join(
    State(http): State<Http>,
    Called(gate): Called,
    _: Unconditional,
    MemberPath(room, member): MemberPath,
    uri: Uri,
    request: Request,
) -> Result<(StatusCode, Json<Member>), Failure> {
    let [ttl, lease] = query::parameters(&uri, ["ttl", LEASE])?;
    let ttl = ttl.map(|ttl| duration::parse(&ttl)).transpose();
    let ttl = ttl.map_err(|error| Problem::field("ttl", error))?;
    refuse_fence(request.headers(), UNFENCED)?;
    gate.check_room(Verb::Publish, &room, Some(&member))?;
    let (head, body) = request.into_parts();
    let body = http.0.budget.receive(&head.headers, body, http.small_limit()).await?;
    let data = if body.bytes.is_empty() { None } else { Some(json::value(&body.bytes, &body.bytes)?) };
    let lease = under(&gate, lease.as_deref(), ttl.is_some()).await?;
    let (member, is_new) = gate.join_room(&room, &member, data, ttl, lease.as_ref()).await?;
    http.0.metrics.presence().joined(is_new);
    Ok((if is_new { StatusCode::CREATED } else { StatusCode::OK }, Json(member)))
}

/// Leave a room
#[utoipa::path(
    delete, path = "/api/v1/presence/{room}/{member}", tag = "presence", operation_id = "leave_room",
    params(
        ("room" = String, Path, description = "The name of the room"),
        ("member" = String, Path, description = "The name of the member"),
    ),
    responses((status = 204, description = "It is not there"), Problems),
)]
pub(super) async fn leave(
    State(http): State<Http>,
    Called(gate): Called,
    _: Unconditional,
    MemberPath(room, member): MemberPath,
    headers: HeaderMap,
    uri: Uri,
) -> Result<StatusCode, Failure> {
    let [] = query::parameters(&uri, [])?;
    refuse_fence(&headers, UNFENCED)?;
    if gate.leave_room(&room, &member).await? {
        http.0.metrics.presence().left();
    }
    Ok(StatusCode::NO_CONTENT)
}
