//! The headers that stand around every answer, whatever its path: what browsers and caches may do with it.
//!
//! The router sets them in one place, and the fast path writes the same ones as constant bytes.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue};

use super::cors;
use super::failure::PROBLEM_JSON;
use super::media::APPLICATION_JSON;
use crate::access::WebRules;

/// What stands on every answer in JSON, as lines, each with the end of the line before it: caches keep
/// nothing, because the next answer may be another one, a browser takes it for nothing but JSON, and tells
/// no other site where its user came from.
pub(crate) const JSON_LINES: &str =
    "\r\ncache-control: no-store\r\nx-content-type-options: nosniff\r\nreferrer-policy: no-referrer";

/// The line of relays whose answers depend on the origin of the page that asks.
const VARY_LINE: &str = "\r\nvary: origin";

/// Sets the headers; `origin` is the one whose pages may read the answer, where there is one.
pub(super) fn set(web: &WebRules, origin: Option<HeaderValue>, headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let is_json =
        headers.get(CONTENT_TYPE).is_some_and(|kind| *kind == APPLICATION_JSON || *kind == PROBLEM_JSON);
    if is_json && !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    // Also where no page asks: a cache would hand that answer to one.
    if web.has_origins() {
        headers.append(VARY, HeaderValue::from_static("origin"));
    }
    if let Some(origin) = origin {
        cors::mark(origin, headers);
    }
}

/// Returns the lines of an answer in JSON to no page, up to where the request id goes.
pub(super) fn lines_of_json(web: &WebRules) -> String {
    let vary = if web.has_origins() { VARY_LINE } else { "" };
    ["\r\ncontent-type: application/json", JSON_LINES, vary, "\r\nx-request-id: "].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::TrustedHosts;

    #[test]
    fn the_lines_are_the_headers() {
        for origins in [&[][..], &["https://app.example".to_owned()]] {
            let web = WebRules::new(origins.iter().cloned(), TrustedHosts::Any);
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, APPLICATION_JSON);
            set(&web, None, &mut headers);
            let mut written: Vec<_> = headers
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
                .collect();
            written.push("x-request-id: ".to_owned());
            written.sort_unstable();
            let lines = lines_of_json(&web);
            let mut lines: Vec<_> = lines.split("\r\n").skip(1).map(str::to_owned).collect();
            lines.sort_unstable();
            assert_eq!(written, lines);
        }
    }
}
