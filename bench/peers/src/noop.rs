//! The server that does nothing: the HTTP library of the relay, its path, an answer of its size.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::post;
use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;

/// What the relay answers to a publish.
const ANSWER: &str =
    r#"{"message_id":"1767225600000-0","topic":"bench","timestamp":"2026-01-01T00:00:00.000Z"}"#;

/// Serves until the process is told to end.
pub(crate) async fn serve(listen: SocketAddr) -> Result<(), String> {
    let listener = TcpListener::bind(listen).await.map_err(|error| format!("cannot listen: {error}"))?;
    // As the relay does: an answer waits for nothing.
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let router = Router::new().route("/api/v1/messages", post(answer));
    axum::serve(listener, router).await.map_err(|error| format!("cannot serve: {error}"))
}

/// Reads the whole body, as any handler must before it can accept a message.
async fn answer(_body: Bytes) -> impl IntoResponse {
    (StatusCode::CREATED, [(header::CONTENT_TYPE, "application/json")], ANSWER)
}
