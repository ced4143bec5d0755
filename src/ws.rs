//! The WebSocket edge: `GET /ws` and its description, and one task per connection that reads and writes frames.
//!
//! It takes frames apart, hands them to `relay`, and writes what comes of it. It must not know a
//! backend, the storage contract, nor the HTTP edge; sockets and their admission are `server`'s.
//!
//! | file | owns |
//! |---|---|
//! | `handshake` | what an upgrade is, and which encoding was chosen |
//! | `meter` | where frames end, and how much has come of a message that is not whole |
//! | `frames` | the socket as frames of one encoding: reading, writing, flushing, closing |
//! | `requests` | what a client's frame asks for, checked |
//! | `publishing` | publishes under way on one connection |
//! | `subscribing` | what one connection reads |
//! | `consuming` | the groups that one connection consumes, and the messages that it has of them |
//! | `settling` | what one connection says of such messages |
//! | `working` | both of them together |
//! | `watching` | the keys and rooms that one connection watches |
//! | `told` | what is told of them |
//! | `session` | the loop of one connection |
//! | `close` | the codes with which a connection is closed |
//! | `description` | the `AsyncAPI` document: what travels on a connection, for programs |
//!
//! **Invariant:** nothing waits in memory for a client but one batch on its way to the socket: a slow
//! client costs its cursors.
//!
//! **Invariant:** publishes of a connection reach storage in the order in which they came.

mod close;
mod consuming;
mod description;
mod frames;
mod handshake;
mod meter;
mod publishing;
mod requests;
mod session;
mod settling;
mod subscribing;
mod told;
mod watching;
mod working;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tidemill_proto::limits::publish_bytes_max;
use tidemill_proto::{MemberName, Problem, RoomName};

use crate::access::{Asked, Kind, Opens, Origin, SentCookie, Shown, Verb};
use crate::budget::Budget;
use crate::limits::{Asks, Entrance};
use crate::link::Handover;
use crate::metrics::Metrics;
use crate::relay::{Failure, Gate, Relay};

/// Where the relay speaks WebSocket.
const PATH: &str = "/ws";

/// What an operator may set about WebSockets.
#[derive(Clone, Debug)]
pub struct WsOptions {
    /// Most topics that one connection reads, what it watches counted with them.
    pub topics_max: usize,
    /// Most publishes of one connection that wait for their answer.
    pub publishes_max: usize,
    /// Most bytes on their way to one client, and of publishes that wait, beside one message.
    pub buffer_bytes_max: usize,
    /// Time without a sign of life after which the relay asks for one.
    pub ping_every: Duration,
    /// Time for the answer.
    pub ping_timeout: Duration,
    /// Time for a message to arrive whole.
    pub message_timeout: Duration,
    /// The drain time of the node, in which what is under way is to end.
    pub drain: Duration,
    /// Time without anything else after which a watch tells where it is.
    pub bookmark_every: Duration,
    /// Whether groups may be consumed.
    pub groups: bool,
    /// Whether what travels on a connection is described at `/asyncapi.json`.
    pub serve_docs: bool,
}

/// The WebSocket edge of a node. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Ws(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    relay: Relay,
    entrance: Entrance,
    options: WsOptions,
    metrics: Metrics,
    /// Where it counts what clients have sent.
    budget: Budget,
}

impl Ws {
    /// Tells that something that a session asked for was refused, if it was for who asked.
    fn audit(&self, gate: &Gate, session: u64, failure: &Failure) {
        let (by, session) = (Some(gate.caller().who()), Some(session));
        let asked = Asked { by, origin: gate.origin(), method: None, path: None, session };
        self.0.entrance.audit().refused(failure.problem(), asked);
    }

    /// Returns the edge of `relay`, whose callers come in by `entrance`. What clients have sent counts in `budget`.
    #[must_use]
    pub fn new(
        relay: Relay,
        entrance: Entrance,
        options: WsOptions,
        metrics: Metrics,
        budget: Budget,
    ) -> Self {
        Self(Arc::new(Inner { relay, entrance, options, metrics, budget }))
    }

    /// Returns the service that answers upgrades, and describes what travels after them.
    pub fn router(&self) -> Router {
        let mut router = Router::new().route(PATH, get(upgrade));
        if self.0.options.serve_docs {
            router = router.route("/asyncapi.json", get(description::asyncapi));
        }
        router.with_state(self.clone())
    }

    /// Returns the largest frame that is taken in.
    fn frame_bytes_max(&self) -> usize {
        publish_bytes_max(self.0.relay.options().payload_bytes_max)
    }
}

/// The parameters that there may be: a ticket, in place of another way to say who calls; and a room of which the
/// connection is a member, and as whom.
const TICKET: &str = "ticket";
const PRESENCE: &str = "presence";
const MEMBER: &str = "member";

/// What a query says.
#[derive(Debug, Default)]
struct Query {
    ticket: Option<String>,
    present: Option<(RoomName, Option<MemberName>)>,
}

/// Reads a query, and checks that it holds nothing else. None of the values has a character that would have to be
/// written in another way.
fn query(uri: &Uri) -> Result<Query, Failure> {
    let (mut ticket, mut room, mut member) = (None, None, None);
    for part in uri.query().unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let place = match name {
            TICKET => &mut ticket,
            PRESENCE => &mut room,
            MEMBER => &mut member,
            _ => return Err(Problem::field(name, "is not a parameter of this path").into()),
        };
        if place.replace(value).is_some() {
            return Err(Problem::field(name, "is there twice").into());
        }
    }
    let room = room.map(RoomName::parse).transpose().map_err(|error| Problem::field(PRESENCE, error))?;
    let member = member.map(MemberName::parse).transpose().map_err(|error| Problem::field(MEMBER, error))?;
    let present = match (room, member) {
        (Some(room), member) => Some((room, member)),
        (None, Some(_)) => {
            return Err(Problem::field(MEMBER, "is of a room: name that in `presence`").into());
        }
        (None, None) => None,
    };
    Ok(Query { ticket: ticket.map(str::to_owned), present })
}

async fn upgrade(State(ws): State<Ws>, request: Request) -> Response {
    let query = match query(request.uri()) {
        Ok(query) => query,
        Err(failure) => return failure.into_response(),
    };
    match handshake::accept(&request) {
        Ok(accepted) => {
            let origin = request.extensions().get::<Origin>().cloned().unwrap_or_default();
            let cookie = request.extensions().get::<SentCookie>();
            let gate = match enter(&ws, origin, request.headers(), cookie, query).await {
                Ok(gate) => gate,
                Err(failure) => return failure.into_response(),
            };
            let encoding = accepted.encoding;
            let mut response = accepted.into_response();
            let handover = Handover::to(move |taken| session::serve(ws, gate, taken, encoding));
            response.extensions_mut().insert(handover);
            response
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// Returns the gate, as whoever asks for an upgrade passes it.
async fn enter(
    ws: &Ws,
    origin: Origin,
    headers: &HeaderMap,
    cookie: Option<&SentCookie>,
    query: Query,
) -> Result<Gate, Failure> {
    let entrance = &ws.0.entrance;
    let Query { ticket, present } = query;
    let found = match ticket.as_deref() {
        None => entrance.access().identify(|| Shown::of(handshake::bearer(headers)?, cookie)).await,
        Some(_) if handshake::bearer(headers)?.is_some() => {
            return Err(Problem::field(TICKET, "stands beside a token; send one of the two").into());
        }
        // A socket that is lost is not resumed: the next one takes a ticket of its own.
        Some(ticket) => entrance.access().by_ticket(ticket, Opens { place: PATH, resumes: false }).await,
    };
    let (caller, meter) = entrance.admit(found, origin.address(), Asks::Other).await?;
    // Who may neither publish, nor work, nor read, nor watch has no use for a socket, and would only keep its place.
    let writes = [Verb::Publish, Verb::Work].into_iter().any(|verb| caller.check_some_topic(verb).is_ok());
    let watches =
        || [Kind::Key, Kind::Presence].map(|kind| caller.check_some_named(Verb::Read, kind).is_ok());
    if !writes && !watches().contains(&true) {
        caller.check_some_topic(Verb::Read)?;
    }
    let place = entrance.limits().place(&caller).await?;
    let gate = ws.0.relay.as_caller(caller).metered(meter).from(origin).at(place);
    match present {
        Some((room, member)) => {
            let gate = gate.present_in(room, member)?;
            gate.enter_room().await?;
            Ok(gate)
        }
        None => Ok(gate),
    }
}
