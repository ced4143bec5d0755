//! Who sends a request: from its head to the gate.
//!
//! The only place of this edge where a caller comes to the gate. It must not know what the request asks for.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, Request};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderValue, Method};
use tidemill_proto::Problem;
use tokio::time::Instant;

use super::Http;
use crate::access::{Administration, Caller, Origin, Remembered, SentCookie, Shown, Verb, basic, bearer};
use crate::limits::{Asks, Peer};
use crate::relay::{Failure, Gate};

/// The path of bulk publishes.
const BULK: &str = "/api/v1/messages/bulk";
/// What the paths of keys begin with.
const KEYS: &str = "/api/v1/keys/";

/// The gate, as whoever sent a request passes it.
#[derive(Debug)]
pub(super) struct Called(pub(super) Gate);

/// The gate as who sent a request passes it, and what makes it that of the next request over the same connection. It
/// is handed on and not cloned: all connections would count in one place.
#[derive(Debug)]
pub(crate) struct Known {
    pub(super) gate: Gate,
    remembered: Option<Remembered>,
    /// Which limits it is counted in: those that hold may be others by now.
    limits_version: u64,
}

impl FromRequestParts<Http> for Called {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, http: &Http) -> Result<Self, Failure> {
        let found = http.0.access.identify(|| shown(parts)).await;
        let origin = origin(&parts.extensions);
        let (caller, meter) = http.0.entrance.admit(found, origin.address(), asks(parts)).await?;
        Ok(Self(http.0.relay.as_caller(caller).metered(meter).from(origin)))
    }
}

/// Users, tokens and roles, as whoever sent a request may see and change them. Here a user's name and password do,
/// too: checking them takes time, and nobody sends many such requests.
#[derive(Debug)]
pub(super) struct Administered(pub(super) Administration);

impl FromRequestParts<Http> for Administered {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, http: &Http) -> Result<Self, Failure> {
        let authorization = parts.headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes);
        let (access, origin) = (&http.0.access, origin(&parts.extensions));
        let found = match basic(authorization)? {
            Some((name, password)) => Ok(http.0.entrance.log_in(&name, &password, &origin).await?),
            None => access.identify(|| shown(parts)).await,
        };
        let (caller, _) = http.0.entrance.admit(found, origin.address(), Asks::Other).await?;
        Ok(Self(access.as_caller(caller).from(origin)))
    }
}

/// Whether somebody calls who may administer the relay. Whatever else a request says is nobody's mistake.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByAdmin(pub(super) bool);

impl FromRequestParts<Http> for ByAdmin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, http: &Http) -> Result<Self, Infallible> {
        let caller = http.0.access.find(|| shown(parts));
        Ok(Self(caller.is_ok_and(|caller| caller.check_relay(Verb::Admin).is_ok())))
    }
}

/// Returns what a request shows of who calls.
fn shown(parts: &Parts) -> Result<Shown<'_>, Box<Problem>> {
    let authorization = parts.headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes);
    Shown::of(bearer(authorization)?, parts.extensions.get::<SentCookie>())
}

/// Returns where a request comes from.
pub(super) fn origin(extensions: &Extensions) -> Origin {
    extensions.get::<Origin>().cloned().unwrap_or_default()
}

/// Returns what a request does, as far as it is counted.
fn asks(parts: &Parts) -> Asks {
    let path = parts.uri.path();
    let publishes = if path.starts_with(KEYS) {
        // Every change of a key counts as a message; a touch is none.
        !parts.method.is_safe() && !path.ends_with("/touch")
    } else {
        parts.method == Method::POST && (path.ends_with("/messages") || path == BULK)
    };
    if publishes { Asks::Publish } else { Asks::Other }
}

impl Http {
    /// Returns where a request with this id comes from.
    pub(super) fn origin(&self, request: &Request, id: &str) -> Origin {
        let peer = request.extensions().get::<Peer>().and_then(|peer| peer.0);
        let lines = |name| request.headers().get_all(name).iter().map(HeaderValue::as_bytes);
        Origin::new(self.0.entrance.address(peer, lines), id)
    }

    /// Counts a request that anybody may send, whoever calls.
    pub(super) async fn admit_anybody(&self, origin: &Origin) -> Result<(), Failure> {
        let anybody = self.0.access.identify(|| Ok(Shown::Nothing)).await;
        self.0.entrance.admit(anybody, origin.address(), Asks::Other).await?;
        Ok(())
    }

    /// Returns who shows this, as far as it is known at once.
    pub(super) fn who_shows(
        &self,
        authorization: Option<&HeaderValue>,
        cookie: Option<&SentCookie>,
    ) -> Option<Caller> {
        let shown = || Shown::of(bearer(authorization.map(HeaderValue::as_bytes))?, cookie);
        self.0.access.find(shown).ok()
    }

    /// Returns the gate for a request that says this of who calls; `None` where the router has to find out, or to
    /// refuse it. No proxy tells of the client: such requests are for the router. `known` is who sent the last one
    /// over the same connection.
    pub(super) fn called_at_once(
        &self,
        authorization: Option<&[u8]>,
        Peer(peer): Peer,
        known: &mut Option<Box<Known>>,
        now: Instant,
    ) -> Option<Box<Known>> {
        let access = &self.0.access;
        let limits = self.0.entrance.limits();
        let limits_version = limits.version();
        let before = known.take().filter(|known| {
            known.limits_version == limits_version
                && known.remembered.as_ref().is_some_and(|it| access.still_shows(it, authorization, now))
        });
        if before.is_some() {
            return before;
        }
        let (caller, remembered) = access.find_once(authorization, now).ok()?;
        let meter = limits.meter(Some(&caller), peer, Asks::Publish);
        let gate = self.0.relay.as_caller(caller).metered(meter);
        Some(Box::new(Known { gate, remembered, limits_version }))
    }
}
