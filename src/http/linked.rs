//! Pages that say where the next one is.

use axum::http::header::{HeaderValue, LINK};
use axum::response::{IntoResponse, Response};

/// Returns a page with the address of the next one, where there is one, in `Link` (RFC 8288).
///
/// # Panics
/// The address has what no header can hold: names, numbers and cursors have nothing of that.
pub(super) fn linked(page: impl IntoResponse, next: Option<String>) -> Response {
    let mut response = page.into_response();
    if let Some(next) = next {
        let link = HeaderValue::try_from(format!("<{next}>; rel=\"next\""));
        response.headers_mut().insert(LINK, link.expect("an address of a page can stand in a header"));
    }
    response
}
