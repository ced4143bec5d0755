//! What an operator may set about a server.

use std::sync::Arc;
use std::time::Duration;

use super::listener::Listen;
use crate::access::{AccessOptions, FirstAdministrator, WebRules};
use crate::http::HttpOptions;
use crate::limits::{KeptBound, LimitOptions, TrustedProxies};
use crate::relay::RelayOptions;
use crate::ws::WsOptions;

/// What an operator may set about the server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Where to listen.
    pub listen: Vec<Arc<dyn Listen>>,
    /// Where metrics alone are served, to whoever reaches it.
    pub metrics_listen: Option<Arc<dyn Listen>>,
    /// Whether plain publishes are answered past the HTTP library and the router.
    pub fast_path: bool,
    /// Who is let in.
    pub access: AccessOptions,
    /// How much may be done in a time.
    pub limits: LimitOptions,
    /// How many bytes topics may keep together.
    pub kept: Vec<KeptBound>,
    /// The proxies that are believed where they tell who calls through them.
    pub proxies: TrustedProxies,
    /// Who administers the relay where nobody else may.
    pub first_administrator: Option<FirstAdministrator>,
    /// The domain.
    pub relay: RelayOptions,
    /// Whose web pages may use the relay, and under which names it may be called.
    pub web: WebRules,
    /// The HTTP edge.
    pub http: HttpOptions,
    /// WebSockets.
    pub ws: WsOptions,
    /// Most connections at one time.
    pub connections_max: usize,
    /// Most connections from one address at one time.
    pub connections_per_address_max: usize,
    /// Time for a request's head to arrive, counted from the end of the request before it.
    pub header_timeout: Duration,
    /// Time in which a client must take at least some of what is written to it.
    pub write_timeout: Duration,
    /// Time that requests under way get when the server stops.
    pub drain: Duration,
    /// Time over which clients are sent away where the server is told to drain; where it stops, within the first half of
    /// `drain`.
    pub drain_spread: Duration,
    /// Time for which it takes everything still once it was told to stop, and says that it is not ready.
    pub drain_notice: Duration,
    /// Time between two sweeps of age retention.
    pub sweep_interval: Duration,
}
