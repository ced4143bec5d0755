//! Spans of requests: which ones have one, under whose, and how they end. It must not know what is done in them.

use axum::http::{HeaderMap, Method, StatusCode};

use super::failure::Failed;
use super::metadata;
use crate::relay::Trace;
use crate::traces::{self, Operation, Span};

/// Begins the span of a request, if it is one of those that have one.
pub(super) fn begin(method: &Method, route: Option<&str>, headers: &HeaderMap) -> Span {
    if !traces::is_on() {
        return Span::none();
    }
    let Some(route) = route else { return Span::none() };
    let Some(operation) = operation(method, route) else { return Span::none() };
    let parent = metadata::trace(headers).as_deref().and_then(Trace::parent);
    let span = Span::begin(operation, parent.as_ref());
    describe(&span, method, route);
    span
}

/// Begins the span of a publish on the fast path, which has no headers of a trace.
pub(super) fn begin_publish(route: &str) -> Span {
    if !traces::is_on() {
        return Span::none();
    }
    let span = Span::begin(Operation::Publish, None);
    describe(&span, &Method::POST, route);
    span
}

fn describe(span: &Span, method: &Method, route: &str) {
    if let Some(notes) = span.notes() {
        notes.text("http.request.method", method.as_str());
        notes.text("http.route", route);
    }
}

/// Ends the span of a request that was answered.
pub(super) fn end(span: Span, status: StatusCode, failed: Option<&Failed>) {
    if let Some(notes) = span.notes() {
        notes.number("http.response.status_code", status.as_u16().into());
        if let Some(failed) = failed {
            notes.failed(failed.failure.code().as_str(), failed.failure.problem().status >= 500);
        } else if status.is_client_error() || status.is_server_error() {
            notes.failed(status.as_str(), status.is_server_error());
        }
    }
    drop(span);
}

fn operation(method: &Method, route: &str) -> Option<Operation> {
    match (method.as_str(), route) {
        ("POST", "/api/v1/messages" | "/api/v1/messages/bulk" | "/api/v1/topics/{topic}/messages") => {
            Some(Operation::Publish)
        }
        (
            "GET",
            "/api/v1/topics/{topic}/messages"
            | "/api/v1/topics/{topic}/messages/{message_id}"
            | "/api/v1/topics/{topic}/messages/{message_id}/payload",
        )
        | ("POST", "/messages/poll") => Some(Operation::Read),
        ("POST", "/api/v1/topics/{topic}/groups/{group}/claim" | "/api/v1/work/claim") => {
            Some(Operation::Claim)
        }
        ("POST", "/api/v1/work/ack") => Some(Operation::Settle("ack")),
        ("POST", "/api/v1/work/nack") => Some(Operation::Settle("nack")),
        ("POST", "/api/v1/work/extend") => Some(Operation::Settle("extend")),
        ("POST", "/api/v1/work/reject") => Some(Operation::Settle("reject")),
        ("POST", "/api/v1/work/release") => Some(Operation::Settle("release")),
        _ => None,
    }
}
