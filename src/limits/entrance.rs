//! The entrance: who calls, from where, and what that is counted in. Every transport asks here, for each request or
//! connection, and gets a caller that is counted from then on.
//!
//! It must not know how a head is read, nor what is asked for.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use secrecy::SecretString;
use tidemill_proto::Problem;

use super::address::TrustedProxies;
use super::meter::{Asks, Meter};
use super::{Limits, Over};
use crate::access::{Access, Audit, Caller, Origin, Refused, Who};

/// What everybody passes who calls. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Entrance {
    access: Access,
    limits: Limits,
    proxies: Arc<ArcSwap<TrustedProxies>>,
    audit: Audit,
}

/// Why nobody is let in.
#[derive(Debug)]
pub enum Turned {
    /// A limit is reached.
    Over(Over),
    /// Nobody calls, or it cannot be told who.
    Unknown(Box<Problem>),
    /// A password was not taken, or what it is for was not done.
    Refused(Refused),
}

impl From<Over> for Turned {
    fn from(over: Over) -> Self {
        Self::Over(over)
    }
}

impl From<Box<Problem>> for Turned {
    fn from(problem: Box<Problem>) -> Self {
        Self::Unknown(problem)
    }
}

impl Entrance {
    /// Returns the entrance where callers are found by `access`, and counted in these limits; these proxies are
    /// believed where they tell who calls through them. What is refused is told to `audit`.
    #[must_use]
    pub fn new(access: Access, limits: Limits, proxies: TrustedProxies, audit: Audit) -> Self {
        Self { access, limits, proxies: Arc::new(ArcSwap::from_pointee(proxies)), audit }
    }

    /// Returns what finds callers.
    #[must_use]
    pub const fn access(&self) -> &Access {
        &self.access
    }

    /// Returns what is told of log-ins and refusals.
    #[must_use]
    pub const fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Returns the limits.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Believes these proxies from now on, and no others.
    pub fn trust(&self, proxies: TrustedProxies) {
        self.proxies.store(Arc::new(proxies));
    }

    /// Returns where a request comes from whose connection comes from `peer`; `lines` are those of a header with
    /// this name, in their order.
    #[must_use]
    pub fn address<'a, L>(&self, peer: Option<IpAddr>, lines: impl Fn(&'static str) -> L) -> Option<IpAddr>
    where
        L: Iterator<Item = &'a [u8]>,
    {
        self.proxies.load().client(peer, lines)
    }

    /// Returns whether a proxy that is believed tells that a request came to it over TLS.
    #[must_use]
    pub fn is_encrypted<'a, L>(&self, peer: Option<IpAddr>, lines: impl Fn(&'static str) -> L) -> bool
    where
        L: Iterator<Item = &'a [u8]>,
    {
        self.proxies.load().is_encrypted(peer, lines)
    }

    /// Counts a request of whoever was found, who calls from this address. Where nobody was, it counts as one of
    /// who does not say who calls, so that guessing has a limit.
    ///
    /// # Errors
    /// There are too many, or nobody was found.
    pub async fn admit(
        &self,
        found: Result<Caller, Box<Problem>>,
        address: Option<IpAddr>,
        asks: Asks,
    ) -> Result<(Caller, Meter), Turned> {
        let meter = self.limits.meter(found.as_ref().ok(), address, asks);
        meter.request(asks).await?;
        Ok((found?, meter))
    }

    /// Tells which user calls from there, by its name and password, and counts that it was asked.
    ///
    /// # Errors
    /// There are too many, they are wrong, or it cannot be found out now.
    pub async fn log_in(
        &self,
        name: &str,
        password: &SecretString,
        origin: &Origin,
    ) -> Result<Caller, Turned> {
        self.log_in_with(name, origin, async || Ok(self.access.by_password(name, password).await?)).await
    }

    /// Counts a log-in with a password, and tells what came of it. Every door for passwords goes through here:
    /// `look` is what looks at the password.
    ///
    /// # Errors
    /// There are too many, or those of `look`.
    pub async fn log_in_with<T>(
        &self,
        name: &str,
        origin: &Origin,
        look: impl AsyncFnOnce() -> Result<T, Refused>,
    ) -> Result<T, Turned> {
        self.limits.log_in(origin.address()).await?;
        let found = look().await;
        match &found {
            // Where everybody is let in, nobody has looked at the name.
            Ok(_) if self.access.is_open() => self.audit.logged_in(&Who::Anyone, origin),
            Ok(_) => self.audit.logged_in(&Who::User(name.into()), origin),
            Err(Refused::Problem(problem)) => {
                // A name that nobody has may be a password.
                let user = Some(name).filter(|name| self.access.has_user(name));
                self.audit.log_in_refused(user, origin, problem);
            }
            Err(Refused::Read(_) | Refused::Change(_)) => {}
        }
        found.map_err(Turned::Refused)
    }
}
