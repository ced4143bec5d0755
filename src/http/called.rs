//! Who sends a request: from its head to the gate.
//!
//! The only place of this edge where a caller comes to the gate. It must not know what the request asks for.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::Http;
use crate::relay::{Failure, Gate};

/// The gate, as whoever sent a request passes it.
#[derive(Debug)]
pub(super) struct Called(pub(super) Gate);

impl FromRequestParts<Http> for Called {
    type Rejection = Failure;

    async fn from_request_parts(_: &mut Parts, http: &Http) -> Result<Self, Failure> {
        // Without access control nothing in a head says who calls.
        Ok(Self(http.uncredited()))
    }
}

impl Http {
    /// Returns the gate for a request whose head holds nothing that could say who calls.
    pub(super) fn uncredited(&self) -> Gate {
        self.0.relay.as_caller(self.0.options.stranger.clone())
    }
}
