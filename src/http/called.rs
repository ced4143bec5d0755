//! Who sends a request: from its head to the gate.
//!
//! The only place of this edge where a caller comes to the gate. It must not know what the request asks for.

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};

use super::Http;
use crate::access::{Administration, Verb, basic, bearer};
use crate::relay::{Failure, Gate};

/// The gate, as whoever sent a request passes it.
#[derive(Debug)]
pub(super) struct Called(pub(super) Gate);

impl FromRequestParts<Http> for Called {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, http: &Http) -> Result<Self, Failure> {
        let authorization = parts.headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes);
        let caller = http.0.access.identify(|| bearer(authorization)).await?;
        Ok(Self(http.0.relay.as_caller(caller)))
    }
}

/// Users, tokens and roles, as whoever sent a request may see and change them. Here a user's name and password do,
/// too: checking them takes time, and nobody sends many such requests.
#[derive(Debug)]
pub(super) struct Administered(pub(super) Administration);

impl FromRequestParts<Http> for Administered {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, http: &Http) -> Result<Self, Failure> {
        let authorization = || parts.headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes);
        let access = &http.0.access;
        let caller = match basic(authorization())? {
            Some((name, password)) => access.by_password(&name, &password).await?,
            None => access.identify(|| bearer(authorization())).await?,
        };
        Ok(Self(access.as_caller(caller)))
    }
}

impl Http {
    /// Returns whether a request says that somebody calls who may administer the relay. Whatever else it says is
    /// nobody's mistake.
    pub(super) fn is_called_by_admin(&self, headers: &HeaderMap) -> bool {
        let authorization = headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes);
        let caller = self.0.access.find(|| bearer(authorization));
        caller.is_ok_and(|caller| caller.check_relay(Verb::Admin).is_ok())
    }

    /// Returns the gate for a request that says this of who calls; `None` where the router has to find out, or to
    /// refuse it.
    pub(super) fn called_at_once(&self, authorization: Option<&[u8]>) -> Option<Gate> {
        let caller = self.0.access.find(|| bearer(authorization)).ok()?;
        Some(self.0.relay.as_caller(caller))
    }
}
