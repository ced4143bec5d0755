//! Resolving: which server is dialled for a target.
//!
//! Whoever connects asks here first, at every attempt, so that a node finds a primary that has moved by
//! connecting again. It knows neither how a server is dialled nor what is done there.

use std::fmt;

use async_trait::async_trait;

use super::target::Target;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A host name or an IP address; IPv6 without brackets. With TLS, the certificate must be for it.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl Address {
    /// Reads `host:port` as servers write it: an IPv6 address stands without brackets.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = (!host.is_empty()).then(|| host.to_owned())?;
        Some(Self { host, port: port.parse().ok()? })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{open}{}{close}:{}", self.host, self.port)
    }
}

/// Finds the primary of a target.
#[async_trait]
pub trait Resolver: fmt::Debug + Send + Sync {
    /// Returns where the primary listens now. It is asked again at every attempt to connect, and given up
    /// after the time for connecting.
    ///
    /// # Errors
    /// Nobody knows at the moment: a sentence for the log and the health page, without credentials.
    async fn primary_of(&self, target: &Target) -> Result<Address, String>;

    /// Returns a slot that the server has, where it is one of a cluster: what is kept there for its own sake has its
    /// place in that.
    fn own_slot(&self) -> Option<u16> {
        None
    }

    /// Returns where the primary was found last, where that is not told by the target alone.
    fn found(&self) -> Option<Address> {
        None
    }

    /// Returns once another server than the one at this address is known to be the primary: connections to this one
    /// are of no use any more.
    async fn left(&self, address: &Address) {
        let _ = address;
        std::future::pending::<()>().await;
    }

    /// Returns how often another primary was found.
    fn moves(&self) -> u64 {
        0
    }

    /// Returns once the primary may be another than it was when this was called.
    async fn news(&self) {
        std::future::pending::<()>().await;
    }

    /// Learns of primaries that move, for as long as it is polled.
    async fn follow(&self) {
        std::future::pending::<()>().await;
    }
}

/// Takes the target for its own primary.
#[derive(Clone, Copy, Debug)]
pub struct Named;

#[async_trait]
impl Resolver for Named {
    async fn primary_of(&self, target: &Target) -> Result<Address, String> {
        Ok(Address { host: target.host.clone(), port: target.port })
    }
}
