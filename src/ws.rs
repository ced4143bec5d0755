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
//! | `session` | the loop of one connection |
//! | `close` | the codes with which a connection is closed |
//! | `description` | the `AsyncAPI` document: what travels on a connection, for programs |
//!
//! **Invariant:** nothing waits in memory for a client but one batch on its way to the socket: a slow
//! client costs its cursors.
//!
//! **Invariant:** publishes of a connection reach storage in the order in which they came.

mod close;
mod description;
mod frames;
mod handshake;
mod meter;
mod publishing;
mod requests;
mod session;
mod subscribing;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tidemill_proto::Problem;
use tidemill_proto::limits::publish_bytes_max;

use crate::budget::Budget;
use crate::limits::{Asks, Entrance, Peer};
use crate::link::Handover;
use crate::metrics::Metrics;
use crate::relay::{Failure, Gate, Relay};

/// Where the relay speaks WebSocket.
const PATH: &str = "/ws";

/// What an operator may set about WebSockets.
#[derive(Clone, Debug)]
pub struct WsOptions {
    /// Most topics that one connection reads.
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
    /// The drain time of the node, over which goodbyes are spread.
    pub drain: Duration,
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

/// Checks that a query has no parameters: no path of this edge has any.
fn no_parameters(uri: &Uri) -> Result<(), Failure> {
    let parts = uri.query().unwrap_or_default().split('&').filter(|part| !part.is_empty());
    match parts.map(|part| part.split('=').next().unwrap_or(part)).next() {
        Some(name) => Err(Problem::field(name, "is not a parameter of this path").into()),
        None => Ok(()),
    }
}

async fn upgrade(State(ws): State<Ws>, request: Request) -> Response {
    if let Err(failure) = no_parameters(request.uri()) {
        return failure.into_response();
    }
    match handshake::accept(&request) {
        Ok(accepted) => {
            let peer = request.extensions().get::<Peer>().and_then(|peer| peer.0);
            let gate = match enter(&ws, peer, request.headers()).await {
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
async fn enter(ws: &Ws, peer: Option<IpAddr>, headers: &HeaderMap) -> Result<Gate, Failure> {
    let entrance = &ws.0.entrance;
    let found = entrance.access().identify(|| handshake::bearer(headers)).await;
    let lines = |name| headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let (caller, meter) = entrance.admit(found, entrance.address(peer, lines), Asks::Other).await?;
    Ok(ws.0.relay.as_caller(caller).metered(meter))
}
