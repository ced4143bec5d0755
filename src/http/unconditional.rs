//! Changes that are made whatever there is: whoever says under which condition is told that it would not be heeded.

use axum::extract::FromRequestParts;
use axum::http::header::{IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use tidemill_proto::Problem;

use super::Http;
use crate::relay::Failure;

/// A request without a condition on what it changes (RFC 9110 section 13.1).
#[derive(Clone, Copy, Debug)]
pub(super) struct Unconditional;

impl FromRequestParts<Http> for Unconditional {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Http) -> Result<Self, Failure> {
        for (header, name) in [(IF_MATCH, "If-Match"), (IF_NONE_MATCH, "If-None-Match")] {
            if parts.headers.contains_key(header) {
                let rule = "is not heeded here; nothing was changed. Leave it out";
                return Err(Problem::field(name, rule).into());
            }
        }
        Ok(Self)
    }
}
