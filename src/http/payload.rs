//! The payload of one message as it was published: its bytes, and its content type.
//!
//! Anybody who may publish chooses both, and a browser would run what is a page or a script, with the rights
//! of whoever looks at it. So nothing of it may run, and what a browser would do more with than show it is
//! saved instead.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{
    CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::response::{IntoResponse as _, Response};
use tidemill_proto::{Problem, content_type};
use utoipa_axum::routes;

use super::called::Called;
use super::counted::Counted;
use super::etag::Validator;
use super::failure::Problems;
use super::media::APPLICATION_JSON;
use super::path::MessagePath;
use super::routes::{Concern, Needs};
use super::{Http, query};
use crate::access::Verb;
use crate::relay::Failure;

/// A page of another site may not draw it in either, as a script for example.
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// What browsers show without running anything in it. Of `audio` and `video` every type is.
const SHOWN: [&str; 7] =
    ["application/json", "text/plain", "image/png", "image/jpeg", "image/gif", "image/webp", "image/avif"];

pub(super) fn routes() -> Concern {
    Concern::new().route(Needs::Right(Verb::Read), routes!(read_payload))
}

/// Read the payload of one message
///
/// Its bytes as they were published, with the content type that they were published with. A browser shows
/// what is only shown, saves the rest, and runs nothing of it.
#[utoipa::path(
    get, path = "/api/v1/topics/{topic}/messages/{message_id}/payload", tag = "messages",
    params(
        ("topic" = String, Path, description = "The name of the topic"),
        ("message_id" = String, Path, description = "The id of the message"),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of an answer that is known"),
    ),
    responses(
        (status = 200, description = "The payload, of its own content type", body = Vec<u8>, content_type = "*/*"),
        (status = 304, description = "It is the one that is known"),
        Problems,
    ),
)]
pub(super) async fn read_payload(
    State(http): State<Http>,
    Called(gate): Called,
    MessagePath(topic, id): MessagePath,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Failure> {
    let [] = query::parameters(&uri, [])?;
    let body = gate.message(&topic, id).await?.body;
    http.0.metrics.messages().served(1);
    let kind = body.content_type.as_deref();
    let validator = Validator::of(&[kind.unwrap_or(content_type::JSON).as_bytes(), &body.payload]);
    let payload: Bytes = http.0.budget.charge(body.payload.len(), || body.payload.into())?;
    let response = verbatim(payload, kind, || format!("{topic}-{id}"))?;
    Ok(validator.answer(&headers, response))
}

/// Returns an answer that is these bytes, of their own content type: JSON, if they have none. Where a browser saves them,
/// the file gets this name.
///
/// # Errors
/// The content type cannot stand in a header.
pub(super) fn verbatim(
    bytes: Bytes,
    kind: Option<&str>,
    file_name: impl FnOnce() -> String,
) -> Result<Response, Failure> {
    let is_shown = kind.is_none_or(is_shown);
    let kind = match kind {
        None => APPLICATION_JSON,
        Some(kind) => HeaderValue::try_from(kind)
            .map_err(|_| Problem::field("content_type", "of what is kept cannot stand in a header"))?,
    };
    let disposition =
        if is_shown { "inline".to_owned() } else { format!("attachment; filename=\"{}\"", file_name()) };
    let mut response = (Extension(Counted), bytes).into_response();
    let out = response.headers_mut();
    out.insert(CONTENT_TYPE, kind);
    out.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
    out.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    out.insert(CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    if let Ok(disposition) = HeaderValue::try_from(disposition) {
        out.insert(CONTENT_DISPOSITION, disposition);
    }
    Ok(response)
}

/// Returns whether browsers only show what is of this type.
fn is_shown(kind: &str) -> bool {
    let essence = content_type::essence(kind).to_ascii_lowercase();
    let is_played = essence.starts_with("audio/") || essence.starts_with("video/");
    is_played || SHOWN.contains(&essence.as_str()) || content_type::is_json(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_run_is_saved() {
        for kind in ["text/plain; charset=utf-8", "Image/PNG", "application/geo+json", "video/mp4"] {
            assert!(is_shown(kind), "{kind}");
        }
        for kind in [
            "text/html",
            "TEXT/HTML; charset=utf-8",
            "image/svg+xml",
            "application/xhtml+xml",
            "text/xml",
            "text/javascript",
            "application/pdf",
            "multipart/x-mixed-replace",
            "application/octet-stream",
            "text/plainhtml",
            "image/png, text/html",
        ] {
            assert!(!is_shown(kind), "{kind}");
        }
    }
}
