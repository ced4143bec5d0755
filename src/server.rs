//! (to be built) The signatures that `cli::serve` is written against.

use std::future::Future;
use std::net::SocketAddr;

use crate::config::Settings;

/// The relay could not start or go on.
#[derive(Debug, thiserror::Error)]
#[error("the server is not part of this build")]
pub struct ServeError;

/// A relay that listens.
#[derive(Debug)]
pub struct Server(SocketAddr);

impl Server {
    /// Listens.
    #[expect(clippy::unused_async, reason = "the server that takes this place waits")]
    pub async fn bind(_settings: &Settings) -> Result<Self, ServeError> {
        Err(ServeError)
    }

    /// Returns the address that was bound.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.0
    }

    /// Serves until `shutdown`, then drains.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), ServeError> {
        shutdown.await;
        Ok(())
    }
}
