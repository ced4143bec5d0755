//! Changes that are made whatever there is: whoever says under which condition is told that it would not be heeded.
//!
//! `If-Match` is refused before a path is looked at (`exchange`), where it is not heeded; `If-None-Match` by those that
//! take [`Unconditional`].

use axum::extract::FromRequestParts;
use axum::http::header::IF_NONE_MATCH;
use axum::http::request::Parts;
use tidemill_proto::Problem;

use super::Http;
use crate::relay::Failure;

/// A request without `If-None-Match` (RFC 9110 section 13.1).
#[derive(Clone, Copy, Debug)]
pub(super) struct Unconditional;

impl FromRequestParts<Http> for Unconditional {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Http) -> Result<Self, Failure> {
        if parts.headers.contains_key(IF_NONE_MATCH) { Err(unheeded("If-None-Match")) } else { Ok(Self) }
    }
}

/// Returns why a change with this condition is not made.
pub(super) fn unheeded(header: &str) -> Failure {
    Problem::field(header, "is not heeded here; nothing was changed. Leave it out").into()
}
