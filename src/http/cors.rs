//! Which pages of other origins may read answers in a browser: exactly those that are named.
//!
//! Only plain reads, which a browser sends without asking first; who may call at all is not decided
//! here.

use axum::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, VARY};
use axum::http::{HeaderMap, HeaderValue, Method};

/// Returns the origin to be let in, if it is one of `allowed`, byte for byte.
pub(super) fn admitted(allowed: &[HeaderValue], method: &Method, headers: &HeaderMap) -> Option<HeaderValue> {
    use axum::http::header::ORIGIN;

    if allowed.is_empty() || !matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    let mut origins = headers.get_all(ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (Some(only), None) if allowed.contains(only) => Some(only.clone()),
        _ => None,
    }
}

/// Marks an answer for the page that may read it.
pub(super) fn mark(origin: Option<HeaderValue>, headers: &mut HeaderMap) {
    let Some(origin) = origin else { return };
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(VARY, HeaderValue::from_static("origin"));
}
