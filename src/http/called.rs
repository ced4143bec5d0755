//! Who sends a request: from its head to the gate.
//!
//! The only place of this edge where a caller comes to the gate. It must not know what the request asks for.

use axum::extract::FromRequestParts;
use axum::http::HeaderValue;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

use super::Http;
use crate::access::bearer;
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

impl Http {
    /// Returns the gate for a request that says this of who calls; `None` where the router has to find out, or to
    /// refuse it.
    pub(super) fn called_at_once(&self, authorization: Option<&[u8]>) -> Option<Gate> {
        let caller = self.0.access.find(|| bearer(authorization)).ok()?;
        Some(self.0.relay.as_caller(caller))
    }
}
