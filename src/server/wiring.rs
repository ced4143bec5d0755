//! From settings to a server that runs: the backend that was chosen, and what it needs around it.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::{Bound, ServeError, Server, ServerOptions, TcpListen};
use crate::clock::Clock;
use axum::http::HeaderValue;

use crate::config::{Backend, ConfigError, MemoryFull, Origins, Settings};
use crate::http::{HttpOptions, STREAM_TOPICS_MAX};
use crate::relay::RelayOptions;
use crate::storage::Storage;
use crate::storage::memory::{Memory, MemoryOptions, WhenFull};
#[cfg(feature = "valkey")]
use crate::storage::valkey::{Unfit, Valkey};
use crate::ws::WsOptions;

const _: () = assert!(STREAM_TOPICS_MAX == 200, "the setting's bound and its help say so");

/// Time between signs of life on a silent stream: proxies commonly cut after 30 or 60 seconds.
const PING_EVERY: Duration = Duration::from_secs(15);

/// Why no server came of the settings.
#[derive(Debug, thiserror::Error)]
pub enum WiringError {
    /// The settings are wrong.
    #[error(transparent)]
    Settings(#[from] ConfigError),
    /// The server of the backend would not keep messages, and the settings are strict.
    #[cfg(feature = "valkey")]
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
    opened: Opened,
}

/// A backend, as the process around it sees it.
#[derive(Clone, Debug)]
enum Opened {
    Memory(Arc<Memory>),
    #[cfg(feature = "valkey")]
    Valkey(Arc<Valkey>),
}

impl Node {
    /// Opens the backend and listens. Connections wait until [`Node::run`]. A Valkey server need not be
    /// there yet, unless the settings are strict.
    ///
    /// # Errors
    /// The settings are wrong, the address cannot be listened on, or in strict mode the Valkey server
    /// cannot be trusted with messages.
    pub async fn bind(settings: &Settings) -> Result<Self, WiringError> {
        let clock = Clock::system();
        let opened = Opened::new(settings, &clock)?;
        #[cfg(feature = "valkey")]
        if let Opened::Valkey(valkey) = &opened
            && settings.strict
        {
            valkey.wait_until_ready(Duration::from_millis(settings.valkey_connect_timeout_ms)).await;
            valkey.examine(true).await?;
        }
        let server = Server::with_storage(server_options(settings), opened.storage(), clock).await?;
        Ok(Self { server, opened })
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
        let result = tokio::select! {
            result = self.server.run(shutdown) => result,
            never = self.opened.look() => match never {},
        };
        self.opened.close().await;
        Ok(result?)
    }
}

impl Opened {
    fn new(settings: &Settings, clock: &Clock) -> Result<Self, ConfigError> {
        match settings.storage_backend {
            Backend::Memory => Ok(Self::Memory(Arc::new(Memory::new(MemoryOptions {
                limits: settings.storage_limits(),
                bytes_max: settings.memory_bytes_max as u64,
                when_full: match settings.memory_full {
                    MemoryFull::Trim => WhenFull::TrimLargest,
                    MemoryFull::Refuse => WhenFull::Refuse,
                },
                clock: clock.clone(),
            })))),
            #[cfg(feature = "valkey")]
            Backend::Valkey => {
                let options = settings.valkey_options()?;
                Ok(Self::Valkey(Valkey::connect(options, settings.storage_limits(), clock.clone())))
            }
            #[cfg(not(feature = "valkey"))]
            Backend::Valkey => Err(ConfigError::NoValkey { from: settings.source("storage_backend") }),
        }
    }

    fn storage(&self) -> Storage {
        match self {
            Self::Memory(memory) => Storage::new(memory.clone()),
            #[cfg(feature = "valkey")]
            Self::Valkey(valkey) => Storage::new(valkey.clone()),
        }
    }

    /// Logs, once the backend is there, what its operator should know about it.
    async fn look(&self) -> Infallible {
        match self {
            Self::Memory(_) => {}
            #[cfg(feature = "valkey")]
            Self::Valkey(valkey) => {
                while !valkey.wait_until_ready(Duration::from_hours(1)).await {}
                match valkey.examine(false).await {
                    Ok(warnings) => warnings.iter().for_each(|warning| tracing::warn!("{warning}")),
                    Err(unfit) => tracing::warn!("{unfit}"),
                }
            }
        }
        std::future::pending().await
    }

    #[cfg_attr(
        not(feature = "valkey"),
        expect(clippy::unused_async, reason = "only a server has connections to close")
    )]
    async fn close(&self) {
        match self {
            Self::Memory(_) => {}
            #[cfg(feature = "valkey")]
            Self::Valkey(valkey) => valkey.close().await,
        }
    }
}

fn server_options(settings: &Settings) -> ServerOptions {
    ServerOptions {
        listen: vec![TcpListen::at(settings.listen)],
        fast_path: settings.fast_path,
        relay: RelayOptions {
            payload_bytes_max: settings.payload_bytes_max,
            topic_auto_create: settings.topic_auto_create,
        },
        http: HttpOptions {
            body_bytes_max: settings.max_body_bytes,
            inflight_bytes_max: settings.inflight_bytes_max,
            headers_bytes_max: settings.headers_bytes_max,
            body_timeout: Duration::from_millis(settings.body_timeout_ms),
            subscriber_bytes_max: settings.subscriber_bytes_max,
            stream_topics_max: settings.stream_topics_max,
            ping_every: PING_EVERY,
            drain: Duration::from_millis(settings.drain_ms),
            allowed_origins: origins(settings),
            serve_docs: settings.serve_docs,
            serve_metrics: settings.serve_metrics,
        },
        ws: WsOptions {
            allowed_origins: settings
                .allowed_origins
                .iter()
                .flat_map(Origins::iter)
                .map(str::to_owned)
                .collect(),
            topics_max: settings.ws_topics_max,
            publishes_max: settings.ws_publishes_max,
            buffer_bytes_max: settings.subscriber_bytes_max,
            ping_every: Duration::from_millis(settings.ws_ping_interval_ms),
            ping_timeout: Duration::from_millis(settings.ws_ping_timeout_ms),
            drain: Duration::from_millis(settings.drain_ms),
        },
        connections_max: settings.connections_max,
        connections_per_address_max: settings.connections_per_address_max,
        header_timeout: Duration::from_millis(settings.header_timeout_ms),
        write_timeout: Duration::from_millis(settings.write_timeout_ms),
        drain: Duration::from_millis(settings.drain_ms),
        sweep_interval: Duration::from_millis(settings.sweep_interval_ms),
    }
}

fn origins(settings: &Settings) -> Vec<HeaderValue> {
    let origins = settings.allowed_origins.iter().flat_map(Origins::iter);
    origins.filter_map(|origin| HeaderValue::try_from(origin).ok()).collect()
}
