//! Who wants a stream: as everywhere else, or with a ticket in the URL, which is taken for this stream alone.
//!
//! It must not know what is streamed, nor what a ticket is good for: `access` does.

use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, HeaderName};
use axum::http::request::Parts;
use axum::http::{Method, Uri};
use tidemill_proto::{MemberName, Problem, RoomName};

use super::Http;
use super::accept::{self, Wanted};
use super::called::{Called, origin};
use crate::access::Opens;
use crate::limits::Asks;
use crate::relay::{Failure, Gate};

/// The parameters that name the room of which a stream is a member as long as it is open, and as whom.
pub(super) const PRESENCE: &str = "presence";
pub(super) const MEMBER: &str = "member";

/// The parameter that holds a ticket.
pub(super) const TICKET: &str = "ticket";

/// The header with which a browser resumes.
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The path of streams of several topics.
const STREAM: &str = "/api/v1/stream";

/// The parameters that stand for the header with which a browser resumes, for clients that cannot set one.
/// Who has several is resumed by the first that says something: libraries add the names that stand in front
/// when they connect again, and leave what a page has written itself.
pub(super) const LAST_EVENT_ID_NAMES: [&str; 3] = ["lastEventId", "Last-Event-ID", "last_event_id"];

/// The gate, as whoever wants a stream passes it: as everywhere else, or with a ticket. Who opens the stream has it enter
/// its room ([`Gate::enter_room`]).
#[derive(Debug)]
pub(super) struct Streamed(pub(super) Gate);

impl FromRequestParts<Http> for Streamed {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, http: &Http) -> Result<Self, Failure> {
        let is_stream = parts.uri.path() == STREAM || accept::wanted(&parts.headers) != Wanted::Page;
        let Some(ticket) = parameter(&parts.uri, TICKET) else {
            let Called(gate) = Called::from_request_parts(parts, http).await?;
            // Of a head alone nothing is open.
            let opens = is_stream && parts.method == Method::GET;
            let place = if opens { http.0.entrance.limits().place(gate.caller()).await? } else { None };
            return Ok(Self(present(gate.at(place), parts, opens)?));
        };
        if parts.headers.contains_key(AUTHORIZATION) {
            return Err(Problem::field(TICKET, "stands beside `Authorization`; send one of the two").into());
        }
        if parts.method != Method::GET || !is_stream {
            let rule =
                "opens a stream or a WebSocket, and nothing else; send `Authorization: Bearer` in its place";
            return Err(Problem::field(TICKET, rule).into());
        }
        let place = place(&parts.uri);
        let said = |name: &&str| parameter(&parts.uri, name).is_some_and(|id| !id.is_empty());
        let in_head = parts.headers.get(LAST_EVENT_ID).is_some_and(|id| !id.is_empty());
        let opens = Opens { place: &place, resumes: in_head || LAST_EVENT_ID_NAMES.iter().any(said) };
        let found = http.0.access.by_ticket(&ticket, opens).await;
        let origin = origin(&parts.extensions);
        let (caller, meter) = http.0.entrance.admit(found, origin.address(), Asks::Other).await?;
        let place = http.0.entrance.limits().place(&caller).await?;
        let gate = http.0.relay.as_caller(caller).metered(meter).from(origin).at(place);
        Ok(Self(present(gate, parts, true)?))
    }
}

/// Returns the gate for a stream that is to be a member of a room, where it asks for that.
fn present(gate: Gate, parts: &Parts, opens: bool) -> Result<Gate, Failure> {
    let room = parameter(&parts.uri, PRESENCE);
    if room.is_none() && parameter(&parts.uri, MEMBER).is_some() {
        return Err(Problem::field(MEMBER, "is of a room: name that in `presence`").into());
    }
    let Some(room) = room.filter(|_| opens) else { return Ok(gate) };
    let room = RoomName::parse(&room).map_err(|error| Problem::field(PRESENCE, error))?;
    let member = parameter(&parts.uri, MEMBER).map(|member| MemberName::parse(&member));
    let member = member.transpose().map_err(|error| Problem::field(MEMBER, error))?;
    gate.present_in(room, member)
}

/// Returns the value of a parameter, the first of that name.
fn parameter(uri: &Uri, name: &str) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(uri.query()?.as_bytes());
    pairs.find(|(of, _)| of == name).map(|(_, value)| value.into_owned())
}

/// Returns what a request opens: its path and query without the ticket and the place where it resumes.
fn place(uri: &Uri) -> String {
    let is_of_place = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or(pair);
        name != TICKET && !LAST_EVENT_ID_NAMES.contains(&name)
    };
    let query: Vec<&str> = uri.query().unwrap_or_default().split('&').filter(is_of_place).collect();
    format!("{}?{}", uri.path(), query.join("&"))
}
