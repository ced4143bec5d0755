//! The server: wiring, listening, draining.
//!
//! It owns sockets and background tasks, and puts storage, relay and HTTP together. It must not know
//! what any path does.
//!
//! **Invariant:** every task runs on the tracker, or ends with the one that began it, so that `run`
//! returns only when all have ended.

mod admission;
mod backends;
mod connection;
mod handover;
mod shortcut;
mod socket;
mod upkeep;
pub mod wiring;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::Sessions;
use crate::clock::Clock;
use crate::http::{Http, HttpOptions};
use crate::link::Tcp;
use crate::metrics::Metrics;
use crate::relay::{Relay, RelayOptions};
use crate::storage::Storage;
use crate::ws::{Ws, WsOptions};
use admission::Admission;
use connection::Connections;

/// How long accepting rests when the machine has no more file descriptors or memory for sockets.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Time for connections to end once they are cut; nothing waits on the network then.
const CUT: Duration = Duration::from_secs(1);

/// What an operator may set about the server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Whether plain publishes are answered past the HTTP library and the router.
    pub fast_path: bool,
    /// The domain.
    pub relay: RelayOptions,
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
    /// Time between two sweeps of age retention.
    pub sweep_interval: Duration,
}

/// Why the server cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
}

/// A server that listens and does not answer yet.
#[derive(Debug)]
pub struct Server {
    options: ServerOptions,
    listener: TcpListener,
    local_addr: SocketAddr,
    relay: Relay,
    metrics: Metrics,
    http: Http,
    router: Router,
    /// Cancelled when the server stops accepting.
    draining: CancellationToken,
    /// Cancelled when the last connection has ended, or the drain time.
    cut: CancellationToken,
    /// The tasks of connections.
    tracker: TaskTracker,
    /// The tasks of live reading, which run as long as anybody is served.
    feeds: TaskTracker,
}

impl Server {
    /// Listens, in front of `storage`. Connections wait until [`Server::run`].
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn with_storage(
        options: ServerOptions,
        storage: Storage,
        clock: Clock,
    ) -> Result<Self, ServeError> {
        let address = options.listen;
        let failed = |source| ServeError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        let metrics = Metrics::new();
        let (draining, cut) = (CancellationToken::new(), CancellationToken::new());
        let feeds = TaskTracker::new();
        let sessions = Sessions::new(draining.clone());
        let relay = Relay::start(storage, clock, options.relay, sessions, &feeds, &cut);
        let http = Http::new(relay.clone(), options.http.clone(), metrics.clone(), draining.clone());
        let tracker = TaskTracker::new();
        let ws = Ws::new(relay.clone(), options.ws.clone(), metrics.clone());
        let router = http.router(ws.router());
        Ok(Self {
            options,
            listener,
            local_addr,
            relay,
            metrics,
            http,
            router,
            draining,
            cut,
            tracker,
            feeds,
        })
    }

    /// Returns the address that the server listens on.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Returns the counts, for whoever else has something to count.
    #[must_use]
    pub const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Returns what callers have open now.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        self.relay.sessions()
    }

    /// Serves until `shutdown` is ready; then stops accepting, lets requests under way finish within
    /// the drain time, and returns.
    ///
    /// # Errors
    /// None today: what goes wrong with a connection concerns that connection.
    ///
    /// # Cancel safety
    /// When the future is dropped, tasks of connections go on. Await it to its end.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Self {
            options,
            listener,
            local_addr: _,
            relay,
            metrics,
            http,
            router,
            draining,
            cut,
            tracker,
            feeds,
        } = self;
        tracker.spawn(upkeep::sweep(relay, options.sweep_interval, draining.clone()));
        tracker.spawn(upkeep::fold_metrics(metrics.clone(), draining.clone()));
        let admission = Admission::new(options.connections_max, options.connections_per_address_max, metrics);
        let connections =
            Connections::new(&options, (http, router), draining.clone(), cut.clone(), tracker.clone());
        {
            let mut shutdown = std::pin::pin!(shutdown);
            loop {
                let accepted = tokio::select! {
                    biased;
                    () = &mut shutdown => break,
                    accepted = listener.accept() => accepted,
                };
                match accepted {
                    Ok((stream, peer)) => match admission.admit(peer.ip()) {
                        Ok(place) => {
                            drop(tracker.spawn(connections.serve(Box::new(Tcp::new(stream)), place)))
                        }
                        Err(refusal) => connection::refuse(&Tcp::new(stream), refusal),
                    },
                    Err(error) => rest_after(&error).await,
                }
            }
        }
        drop(listener);
        tracing::info!(drain_ms = u64::try_from(options.drain.as_millis()).unwrap_or(u64::MAX), "draining");
        draining.cancel();
        tracker.close();
        if tokio::time::timeout(options.drain, tracker.wait()).await.is_err() {
            tracing::warn!(connections = tracker.len(), "the drain time is over; cutting connections");
        }
        cut.cancel();
        feeds.close();
        let all_ended = async { tokio::join!(tracker.wait(), feeds.wait()) };
        if tokio::time::timeout(CUT, all_ended).await.is_err() {
            tracing::warn!(tasks = tracker.len() + feeds.len(), "some tasks did not end");
        }
        Ok(())
    }
}

/// Waits where accepting again at once would only fail again.
async fn rest_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};

    // The client went away between its handshake and the accept.
    if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        return;
    }
    tracing::error!(%error, "cannot accept connections; resting");
    tokio::time::sleep(ACCEPT_REST).await;
}
