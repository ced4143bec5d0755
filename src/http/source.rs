//! Whom a request is for, and which page it comes from, as its head says.
//!
//! It must not know who may do what: `access` does.

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::HOST;

use crate::access::RequestSource;

/// Returns what a head says of whom its request is for and where it comes from. The host of an address
/// that has one is meant, whatever `Host` says (RFC 9112 section 3.2.2).
pub(super) fn asked(request: &Request) -> RequestSource<'_> {
    let headers = request.headers();
    let host = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let host = host.or_else(|| headers.get(HOST).map(HeaderValue::as_bytes));
    let mut asked = RequestSource::of(host);
    for (name, value) in headers {
        asked.note(name.as_str(), value.as_bytes());
    }
    asked
}
