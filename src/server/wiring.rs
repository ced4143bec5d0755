//! From settings to a server that runs: the backend that was chosen, and what it needs around it.

use std::convert::Infallible;
use std::future::Future;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tidemill_proto::{NodeId, Timestamp};

use super::backends::Purpose;
use super::checking::{self, NOBODY_YET, Standing, standing};
use super::reload::{Again, Asking, Changeable, Parts, Reloading};
use super::upkeep::NO_EFFECT;
use super::{
    Bound, Certificate, Listen, ServeError, Server, ServerOptions, TcpListen, TlsListen, backends, is_ending,
};
use crate::access::{AccessOptions, FirstAdministrator, Mode};
use crate::chance::random;
use crate::clock::Clock;
use crate::config::{ApplicationLimitsAway, ConfigError, Settings};
use crate::features::Feature;
use crate::http::{HttpOptions, OwnUrl, Reloads, STREAM_TOPICS_MAX};
use crate::metrics::Metrics;
use crate::relay::{Durabilities, PresenceOptions, RelayOptions, TakesAway};
use crate::storage::{Backend, Opened, Unfit};
use crate::ws::WsOptions;

const _: () = assert!(STREAM_TOPICS_MAX == 200, "the setting's bound and its help say so");

/// Time between signs of life on a silent stream: proxies commonly cut after 30 or 60 seconds.
const PING_EVERY: Duration = Duration::from_secs(15);

/// How long to wait for the backend before asking again. It tries by itself all the while.
const READY_ASKED_EVERY: Duration = Duration::from_hours(1);

/// Why no server came of the settings.
#[derive(Debug, thiserror::Error)]
pub enum WiringError {
    /// The settings are wrong.
    #[error(transparent)]
    Settings(#[from] ConfigError),
    /// The backend would not keep messages, and the settings are strict.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// The server cannot serve.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// A server with the backend behind it.
#[derive(Debug)]
pub struct Node {
    server: Server,
    backend: Arc<dyn Backend>,
    /// `None` where it does not speak TLS.
    certificate: Option<Certificate>,
    clock: Clock,
    asking: Asking,
    /// `None` where the settings are not read again.
    reloading: Option<Reloading>,
}

impl Node {
    /// Opens the backend and listens. Connections wait until [`Node::run`]. What the backend needs outside
    /// this process need not be there yet, unless the settings are strict.
    ///
    /// # Errors
    /// The settings are wrong, the address cannot be listened on, or in strict mode the backend cannot be
    /// trusted with messages.
    pub async fn bind(settings: &Settings, handed: Option<TcpListener>) -> Result<Self, WiringError> {
        let clock = Clock::system();
        // Made here alone, and handed down to whoever says which node it is.
        let node = NodeId::new(random());
        let Opened { backend, storage } = backends::open(node, settings, &clock, Purpose::Serve)?;
        // Servers that topics are placed on must stand alone.
        if settings.strict || settings.servers.valkey_placement.is_some() {
            backend.ready(Duration::from_millis(settings.servers.valkey_connect_timeout_ms)).await;
            backend.examine(settings.strict).await?;
        }
        let (access, first) = (settings.access_options()?, settings.first_administrator()?);
        // Whom it knows is told, and who is to administer the relay is kept, by a storage that is there.
        if access.mode == Mode::Closed {
            backend.ready(Duration::from_millis(settings.servers.valkey_connect_timeout_ms)).await;
        }
        if access.mode == Mode::Closed && first.is_none() {
            match standing(settings, &*storage.access, clock.now()).await {
                Standing::Somebody => {}
                Standing::Nobody(error) => {
                    backend.close().await;
                    return Err(error.into());
                }
                Standing::NobodyYet => tracing::warn!("{NOBODY_YET}"),
                Standing::Unknown => tracing::warn!("{UNKNOWN}"),
            }
        }
        let certificate = checking::certificate(settings)?;
        let decided = settings.access_because();
        let who = access.mode.as_str();
        let listen = listen(settings, certificate.as_ref(), handed);
        let options = server_options(settings, node, listen, access, first);
        let asking = Asking::new(storage.access.clone(), clock.clone());
        let server = Server::with_storage(node, options, storage, clock.clone()).await;
        let server = server.map_err(|error| match error {
            ServeError::Issuers(error) => checking::wrong_issuers(settings, &error).into(),
            error @ ServeError::Listen { .. } => WiringError::Serve(error),
        })?;
        for bound in server.local_addrs() {
            let backend = settings.storage_backend.as_str();
            tracing::info!(%node, %bound, backend, access = who, decided_by = decided, "listening");
        }
        if let Some(certificate) = &certificate {
            tell_end(certificate.good_until(), &clock, server.metrics());
        }
        if let Some(bound) = server.metrics_addr() {
            tracing::info!(%node, %bound, "serving metrics");
        }
        Ok(Self { server, backend, certificate, clock, asking, reloading: None })
    }

    /// Reads the settings again whenever it is asked to, from [`run`](Self::run) on; returns where that is asked. `settings`
    /// are those that it was bound with.
    pub fn read_again(&mut self, settings: &Settings, again: Again) -> Reloads {
        let (reloads, asked) = Reloads::new();
        self.server.http.reload_by(reloads.clone());
        self.reloading = Some(Reloading::new(settings, again, self.asking.clone(), asked));
        reloads
    }

    /// Returns where the server listens.
    pub fn local_addrs(&self) -> impl Iterator<Item = &Bound> {
        self.server.local_addrs()
    }

    /// Serves until `shutdown` is ready, drains, and closes the backend.
    ///
    /// # Errors
    /// The server cannot go on.
    ///
    /// # Cancel safety
    /// As that of [`Server::run`].
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), WiringError> {
        let (backend, mut unfit) = (self.backend.clone(), None);
        let stop = async {
            tokio::select! {
                () = shutdown => {}
                found = backend.unreadable() => {
                    tracing::error!("{found}");
                    unfit = Some(found);
                }
            }
        };
        let (clock, metrics, parts) = (self.clock, self.server.metrics().clone(), Parts::of(&self.server));
        let certificate = self.certificate.as_ref();
        let replaced = |good_until| tell_end(good_until, &clock, &metrics);
        let result = tokio::select! {
            result = self.server.run(stop) => result,
            never = look(&*self.backend) => match never {},
            never = watch(certificate, &replaced) => match never {},
            never = reload(self.reloading, &parts, certificate, &replaced) => match never {},
        };
        self.backend.close().await;
        match unfit {
            Some(unfit) => Err(unfit.into()),
            None => Ok(result?),
        }
    }
}

const UNKNOWN: &str = "the storage does not tell yet whom it knows: nobody is let in before it does";

/// Says who is let in where these settings hold.
///
/// # Errors
/// The relay would not start; or a sentence on what its operator should look at.
pub async fn explain_access(settings: &Settings) -> Result<Result<String, String>, WiringError> {
    let (access, first) = (settings.access_options()?, settings.first_administrator()?);
    if access.mode == Mode::Open {
        return Ok(Ok(format!("everybody who reaches {} is let in", settings.listen)));
    }
    let clock = Clock::system();
    let Opened { backend, storage } =
        backends::open(NodeId::new(random()), settings, &clock, Purpose::Visit)?;
    backend.ready(Duration::from_millis(settings.servers.valkey_connect_timeout_ms)).await;
    let standing = standing(settings, &*storage.access, clock.now()).await;
    backend.close().await;
    if first.is_some() {
        let name = &settings.admin_name;
        let from = settings.source("admin_password");
        return Ok(Ok(match standing {
            Standing::Somebody => format!("admin_password (from {from}) {NO_EFFECT}"),
            _ => format!("the first administrator is `{name}`, where nobody else may administer the relay"),
        }));
    }
    match standing {
        Standing::Somebody => Ok(Ok("the storage knows who may administer the relay".to_owned())),
        Standing::Nobody(error) => Err(error.into()),
        Standing::NobodyYet => Ok(Err(NOBODY_YET.to_owned())),
        Standing::Unknown => Ok(Err(UNKNOWN.to_owned())),
    }
}

/// Logs, once the backend is there, what its operator should know about it.
async fn look(backend: &dyn Backend) -> Infallible {
    while !backend.ready(READY_ASKED_EVERY).await {}
    match backend.examine(false).await {
        Ok(warnings) => warnings.iter().for_each(|warning| tracing::warn!("{warning}")),
        Err(unfit) => tracing::warn!("{unfit}"),
    }
    std::future::pending().await
}

async fn reload(
    reloading: Option<Reloading>,
    parts: &Parts,
    certificate: Option<&Certificate>,
    replaced: impl Fn(Option<Timestamp>),
) -> Infallible {
    match reloading {
        Some(reloading) => reloading.serve(parts, certificate, replaced).await,
        None => std::future::pending().await,
    }
}

async fn watch(certificate: Option<&Certificate>, replaced: impl Fn(Option<Timestamp>)) -> Infallible {
    match certificate {
        Some(certificate) => certificate.watch(replaced).await,
        None => std::future::pending().await,
    }
}

/// Tells until when a certificate is good, where it says so: in the counts, and where that is soon in the log.
fn tell_end(good_until: Option<Timestamp>, clock: &Clock, metrics: &Metrics) {
    let Some(good_until) = good_until else { return };
    metrics.node().certificate(good_until);
    if let Some(warning) = is_ending(good_until, clock.now()) {
        tracing::warn!(%good_until, "{warning}");
    }
}

/// Returns where to listen.
fn listen(
    settings: &Settings,
    certificate: Option<&Certificate>,
    handed: Option<TcpListener>,
) -> Vec<Arc<dyn Listen>> {
    let tcp = match handed {
        Some(handed) => TcpListen::on(settings.listen, handed),
        None => TcpListen::at(settings.listen),
    };
    vec![match certificate {
        Some(certificate) => TlsListen::over(tcp, certificate.tls().clone()),
        None => tcp,
    }]
}

fn server_options(
    settings: &Settings,
    node: NodeId,
    listen: Vec<Arc<dyn Listen>>,
    access: AccessOptions,
    first_administrator: Option<FirstAdministrator>,
) -> ServerOptions {
    let Changeable { limits, kept, proxies, web, slow } =
        Changeable::of(settings, settings.listen.ip(), access.mode);
    ServerOptions {
        listen,
        metrics_listen: settings.metrics_listen.map(TcpListen::at),
        fast_path: settings.fast_path,
        limits,
        kept,
        proxies,
        access,
        first_administrator,
        relay: RelayOptions {
            payload_bytes_max: settings.payload_bytes_max,
            value_bytes_max: settings.beside.value_bytes_max,
            pending_bytes_max: settings.pending_bytes_max,
            live_bytes_max: settings.live_bytes_max,
            live_topics_max: settings.live_topics_max,
            topic_auto_create: settings.topic_auto_create,
            durability: durabilities(settings),
            policy: settings.topic_policy(),
            retention: settings.storage_limits().retention,
            features: settings.beside.features,
            presence: PresenceOptions {
                node,
                ttl: Duration::from_millis(settings.beside.presence_ttl_ms),
                grace: Duration::from_millis(settings.beside.presence_grace_ms),
            },
            takes_away: takes_away(settings),
            slow_after: slow,
        },
        web,
        http: HttpOptions {
            body_bytes_max: settings.max_body_bytes,
            inflight_bytes_max: settings.inflight_bytes_max,
            headers_bytes_max: settings.headers_bytes_max,
            body_timeout: Duration::from_millis(settings.body_timeout_ms),
            subscriber_bytes_max: settings.subscriber_bytes_max,
            stream_topics_max: settings.stream_topics_max,
            ping_every: PING_EVERY,
            serve_docs: settings.docs,
            serve_console: settings.console,
            serve_metrics: settings.metrics,
            features: settings.beside.features,
            own_url: own_url(settings),
        },
        ws: WsOptions {
            topics_max: settings.ws_topics_max,
            publishes_max: settings.ws_publishes_max,
            buffer_bytes_max: settings.subscriber_bytes_max,
            ping_every: Duration::from_millis(settings.ws_ping_interval_ms),
            ping_timeout: Duration::from_millis(settings.ws_ping_timeout_ms),
            message_timeout: Duration::from_millis(settings.ws_message_timeout_ms),
            drain: Duration::from_millis(settings.draining.drain_ms),
            bookmark_every: PING_EVERY,
            groups: settings.beside.features.has(Feature::Groups),
            serve_docs: settings.docs,
        },
        connections_max: settings.connections_max,
        connections_per_address_max: settings.connections_per_address_max,
        header_timeout: Duration::from_millis(settings.header_timeout_ms),
        write_timeout: Duration::from_millis(settings.write_timeout_ms),
        drain: Duration::from_millis(settings.draining.drain_ms),
        drain_notice: Duration::from_millis(settings.draining.drain_notice_ms),
        drain_spread: Duration::from_millis(settings.draining.spread_ms()),
        sweep_interval: Duration::from_millis(settings.sweep_interval_ms),
    }
}

fn durabilities(settings: &Settings) -> Durabilities {
    let topics = settings
        .durability
        .durability_topics
        .as_ref()
        .map_or_else(Vec::new, |rules| rules.as_slice().to_vec());
    Durabilities { node: settings.durability.durability, topics }
}

fn takes_away(settings: &Settings) -> TakesAway {
    match settings.beside.application_limits_away {
        ApplicationLimitsAway::Alone => TakesAway::CountAlone,
        ApplicationLimitsAway::Refuse => TakesAway::Refuse,
        ApplicationLimitsAway::Allow => TakesAway::Allow,
    }
}

fn own_url(settings: &Settings) -> OwnUrl {
    match &settings.public_url {
        Some(url) => OwnUrl::Named(url.as_str().to_owned()),
        None => OwnUrl::AsAsked { tls: settings.tls_cert.is_some() },
    }
}
