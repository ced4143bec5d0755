//! The page that stands between a provider and the page that a browser goes on to with its cookie.
//!
//! Who comes from another site sends no such cookie, redirected or not. This page is the relay's own, so that whatever
//! it leads to is asked for with the cookie.
//!
//! **Invariant:** it leads nowhere but below the relay's own URL.

use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY};
use axum::response::{Html, IntoResponse as _, Response};

use super::device_page::escaped;

const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
);

/// Returns the page as an answer.
pub(super) fn shown(next: &str) -> Response {
    let next = escaped(next);
    let mut response = Html(format!(
        r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Signed in</title>
<meta http-equiv="refresh" content="0;url={next}">
</head><body><main>
<h1>Signed in</h1>
<p><a href="{next}">Go on</a></p>
</main></body></html>
"#
    ))
    .into_response();
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
