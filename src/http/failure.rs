//! How a failure becomes a response.
//!
//! A handler's failure travels to the edge inside the response, unrendered: only there are the
//! request id and the log line known. It must not know what any failure means.

use std::sync::Arc;

use axum::http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use tidemill_proto::{Code, Problem};

use super::encoding;
use crate::limits::Exceeded;
use crate::relay::Failure;

/// The content type of problem documents.
pub(super) const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// What is left of a limit, and what it lets through.
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// What an operation answers instead of what it was asked for, for the document of the API.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "it describes answers, and none is made of it")]
pub(super) enum Problems {
    /// The request was refused; nothing was changed
    #[response(status = "4XX", content_type = "application/problem+json")]
    Refused(Problem),
    /// The relay or its storage could not do it now
    #[response(status = "5XX", content_type = "application/problem+json")]
    Failed(Problem),
}

/// The same for what needs no storage.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "it describes answers, and none is made of it")]
pub(super) enum Mistaken {
    /// The request was refused
    #[response(status = "4XX", content_type = "application/problem+json")]
    Refused(Problem),
}

/// The same for a publish, whose outcome may be unknown.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "it describes answers, and none is made of it")]
pub(super) enum PublishProblems {
    /// Nothing was changed
    #[response(status = "4XX", content_type = "application/problem+json")]
    Refused(Problem),
    /// Nothing was changed; try again
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
    /// The outcome is unknown
    #[response(status = 504, content_type = "application/problem+json")]
    Unknown(Problem),
    /// The storage is full; nothing was changed
    #[response(status = 507, content_type = "application/problem+json")]
    Full(Problem),
}

/// Failures on their way to the edge.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    /// The failure to log, the only one or the first.
    pub(super) failure: Arc<Failure>,
    /// How many there were.
    pub(super) count: usize,
    /// Whether the response is still to be written from the failure.
    pub(super) unrendered: bool,
}

/// Marks a response after which the connection cannot go on.
#[derive(Clone, Copy, Debug)]
pub(super) struct CloseConnection;

/// Marks an answer that says by itself what is wrong, in another form than a problem.
#[derive(Clone, Copy, Debug)]
pub(super) struct AsItIs;

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let closes = matches!(self.code(), Code::RequestTimeout | Code::TooLarge | Code::InvalidRequest);
        let mut response = Response::default();
        *response.status_mut() = status(self.code());
        if let Some(exceeded) = self.exceeded() {
            tell_limit(exceeded, &mut response);
        }
        response.extensions_mut().insert(Failed { failure: Arc::new(self), count: 1, unrendered: true });
        if closes {
            response.extensions_mut().insert(CloseConnection);
        }
        response
    }
}

/// Tells which limit is reached, and when there is something again (draft-ietf-httpapi-ratelimit-headers-10).
fn tell_limit(exceeded: &Exceeded, response: &mut Response) {
    let Exceeded { limit, rate, wait } = exceeded;
    let name = limit.as_str();
    let seconds = wait.as_millis().div_ceil(1_000).max(1);
    let window = match rate.within.as_secs() {
        0 => String::new(),
        within => format!(";w={within}"),
    };
    for (header, text) in [
        (RATE_LIMIT, format!("\"{name}\";r=0;t={seconds}")),
        (RATE_LIMIT_POLICY, format!("\"{name}\";q={}{window}", rate.amount)),
    ] {
        if let Ok(value) = HeaderValue::try_from(text) {
            response.headers_mut().insert(header, value);
        }
    }
}

/// Writes a problem document over what the response holds.
pub(super) fn render(response: &mut Response, problem: &Problem, request_id: &str) {
    let mut problem = problem.clone();
    problem.request_id = Some(request_id.to_owned());
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    *response.status_mut() = status(problem.code);
    *response.body_mut() = body.into();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, PROBLEM_JSON);
    if let Some(seconds) = problem.retry_after_seconds {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if problem.code == Code::Unauthenticated {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"tidemill\""));
    }
    if problem.code == Code::UnsupportedEncoding {
        response.headers_mut().insert(ACCEPT_ENCODING, encoding::ACCEPTED);
    }
    if response.extensions().get::<CloseConnection>().is_some() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

fn status(code: Code) -> StatusCode {
    StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
