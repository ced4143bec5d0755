//! The server: wiring, listening, draining.
//!
//! It owns sockets and background tasks, and puts storage, relay and HTTP together. It must not know
//! what any path does.
//!
//! **Invariant:** every task runs on the tracker, or ends with the one that began it, so that `run`
//! returns only when all have ended.

mod acceptor;
pub mod administration;
mod admission;
mod backends;
mod certificate;
pub mod checking;
mod connection;
mod doors;
mod fast_path;
mod handover;
mod http2;
mod leaving;
mod listener;
mod options;
pub mod reload;
mod socket;
mod unread;
mod upkeep;
pub mod wiring;

use std::future::Future;
use std::io;
use std::time::Duration;

use axum::Router;
use tidemill_proto::NodeId;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::{Access, Audit, Caller, IssuersError, Sessions};
use crate::clock::Clock;
use crate::features::Feature;
use crate::http::Http;
use crate::limits::{self, Entrance, Kept, Limits};
use crate::metrics::Metrics;
use crate::relay::Relay;
use crate::storage::Storage;
use crate::ws::Ws;
use admission::Admission;
use connection::Connections;
use doors::Doors;
use leaving::Leaving;

pub use certificate::{Certificate, CertificateError, ENDS_SOON, is_ending};
pub use listener::{Accepted, Bound, Listen, Listener, TcpListen, TlsListen};
pub use options::ServerOptions;

/// Time for connections to end once they are cut; nothing waits on the network then.
const CUT: Duration = Duration::from_secs(1);

const _: () = assert!(limits::LAST_MAX.as_millis() < CUT.as_millis());

/// How long the server waits before it listens for the first administrator to be made; it goes on trying.
const FIRST_MAX: Duration = Duration::from_secs(3);

/// Why the server cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// One of its addresses cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address, as it was set.
        address: String,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// The keys of issuers cannot be used.
    #[error(transparent)]
    Issuers(#[from] IssuersError),
}

/// A server that listens and does not answer yet.
#[derive(Debug)]
pub struct Server {
    node: NodeId,
    options: ServerOptions,
    listeners: Vec<Box<dyn Listener>>,
    /// Where metrics alone are served.
    metrics_listener: Option<Box<dyn Listener>>,
    relay: Relay,
    metrics: Metrics,
    http: Http,
    router: Router,
    access: Access,
    /// The first administrator, to be made where nobody may administer the relay.
    first: Option<upkeep::First>,
    /// Cancelled when sessions are to end.
    parting: CancellationToken,
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
    /// Listens everywhere as this node, in front of `storage`. Connections wait until [`Server::run`].
    ///
    /// # Errors
    /// One of the addresses cannot be listened on.
    pub async fn with_storage(
        node: NodeId,
        options: ServerOptions,
        storage: Storage,
        clock: Clock,
    ) -> Result<Self, ServeError> {
        let mut listeners = Vec::with_capacity(options.listen.len());
        for listen in &options.listen {
            listeners.push(bind(&**listen).await?);
        }
        let metrics_listener = match &options.metrics_listen {
            Some(listen) => Some(bind(&**listen).await?),
            None => None,
        };
        let metrics = Metrics::new();
        let [leaving, draining, cut] = std::array::from_fn(|_| CancellationToken::new());
        let parting = draining.child_token();
        let feeds = TaskTracker::new();
        let sessions = Sessions::new(parting.clone());
        let access =
            Access::start(options.access.clone(), &storage, clock.clone(), sessions.clone(), &feeds, &cut)?;
        let making = |wanted| upkeep::First::new(access.as_caller(Caller::anyone()), wanted);
        let mut first = options.first_administrator.clone().map(making);
        if let Some(first) = &mut first {
            // At once where the storage answers: whoever comes first may be the one.
            let _ = tokio::time::timeout(FIRST_MAX, first.make()).await;
        }
        access.begin().await;
        let limits = Limits::start(options.limits, storage.limits.clone(), metrics.clone(), &feeds, &cut);
        let entrance =
            Entrance::new(access.clone(), limits, options.proxies.clone(), Audit::new(metrics.clone()));
        let (upkeep, every) = (storage.upkeep.clone(), options.sweep_interval);
        let kept = Kept::start(&options.kept, upkeep, metrics.clone(), every, &feeds, &cut);
        let relay = Relay::start(storage, clock, options.relay.clone(), kept, sessions, &feeds, &cut);
        let http = Http::new(
            relay.clone(),
            entrance.clone(),
            options.http.clone(),
            options.web.clone(),
            metrics.clone(),
            node,
            leaving,
        );
        http.draining().lasts(options.drain_notice + options.drain_spread + options.drain);
        let tracker = TaskTracker::new();
        let ws = Ws::new(relay.clone(), entrance, options.ws.clone(), metrics.clone(), http.budget().clone());
        let router = http.router(ws.router());
        Ok(Self {
            node,
            options,
            listeners,
            metrics_listener,
            relay,
            metrics,
            http,
            router,
            access,
            first,
            parting,
            draining,
            cut,
            tracker,
            feeds,
        })
    }

    /// Returns where the server listens, in the order of [`ServerOptions::listen`].
    pub fn local_addrs(&self) -> impl Iterator<Item = &Bound> {
        self.listeners.iter().map(|listener| listener.bound())
    }

    /// Returns where metrics alone are served.
    #[must_use]
    pub fn metrics_addr(&self) -> Option<&Bound> {
        self.metrics_listener.as_ref().map(|listener| listener.bound())
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
    /// the drain time, and returns. Where a caller has told it to drain before, it has sent its clients away by then.
    ///
    /// # Errors
    /// None today: what goes wrong with a connection concerns that connection.
    ///
    /// # Cancel safety
    /// When the future is dropped, tasks of connections go on. Await it to its end.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Self {
            node,
            options,
            listeners,
            metrics_listener,
            relay,
            metrics,
            http,
            router,
            access,
            first,
            parting,
            draining,
            cut,
            tracker,
            feeds,
        } = self;
        tracker.spawn(upkeep::keep_administered(first, access, draining.clone()));
        if relay.options().features.has(Feature::Delays) {
            tracker.spawn(upkeep::promote(relay.clone(), node, metrics.clone(), draining.clone()));
            tracker.spawn(upkeep::count_waiting(relay.clone(), metrics.clone(), draining.clone()));
        }
        let features = relay.options().features;
        if features.has(Feature::Keys) {
            tracker.spawn(upkeep::tell_reads(relay.clone(), node, draining.clone()));
        }
        if features.has(Feature::Keys) || features.has(Feature::Presence) {
            tracker.spawn(upkeep::expire(relay.clone(), node, metrics.clone(), draining.clone()));
        }
        let sessions = relay.sessions().clone();
        let listening = listeners.iter().map(|listener| listener.bound().to_string()).collect();
        feeds.spawn(upkeep::announce(
            relay.clone(),
            node,
            listening,
            http.draining().token().clone(),
            cut.clone(),
        ));
        tracker.spawn(upkeep::sweep(relay, node, options.sweep_interval, metrics.clone(), draining.clone()));
        tracker.spawn(upkeep::fold_metrics(metrics.clone(), draining.clone()));
        let caps = (options.connections_max, options.connections_per_address_max);
        let admission = Admission::new(caps.0, caps.1, metrics.clone());
        let doors = Doors::new(&draining, http.draining().clone());
        let connections = |options: &ServerOptions, router| {
            let (http, metrics) = (http.clone(), metrics.clone());
            Connections::new(options, (http, router), metrics, doors.clone(), cut.clone(), tracker.clone())
        };
        let of_metrics = metrics_listener.map(|listener| {
            let options = ServerOptions { fast_path: false, ..options.clone() };
            (listener, connections(&options, http.metrics_router()))
        });
        let connections = connections(&options, router);
        let (accepting, acceptors) = (CancellationToken::new(), TaskTracker::new());
        // Should this future be dropped, nobody accepts any more.
        let _accepting = accepting.clone().drop_guard();
        let of_all = listeners.into_iter().map(|listener| (listener, connections.clone()));
        for (listener, connections) in of_all.chain(of_metrics) {
            let accept_all = acceptor::accept_all(listener, admission.clone(), connections, tracker.clone());
            acceptors.spawn(accepting.clone().run_until_cancelled_owned(accept_all));
        }
        let leaving = Leaving {
            node,
            options: &options,
            draining: http.draining(),
            sessions: &sessions,
            doors: &doors,
            parting: &parting,
        };
        leaving.until(shutdown).await;
        accepting.cancel();
        acceptors.close();
        acceptors.wait().await;
        tracing::info!(%node, drain_ms = u64::try_from(options.drain.as_millis()).unwrap_or(u64::MAX), "draining");
        sessions.end_within(options.drain_spread.min(options.drain / 2));
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

async fn bind(listen: &dyn Listen) -> Result<Box<dyn Listener>, ServeError> {
    let failed = |source| ServeError::Listen { address: listen.to_string(), source };
    listen.bind().await.map_err(failed)
}
