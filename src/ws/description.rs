//! The description of the WebSocket for programs: `GET /asyncapi.json`, an `AsyncAPI` 3.0 document.
//!
//! The schemas of the frames are the wire contract's; what is put around them here is which of them
//! answers which, the handshake and the close codes. It must not know a connection.

use std::fmt::Write as _;
use std::sync::LazyLock;

use axum::http::Uri;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use tidemill_proto::Problem;
use tidemill_proto::frame::schema::{CLIENT_FRAMES, FrameSchema, SERVER_FRAMES, schemas};
use tidemill_proto::frame::{BEARER_SUBPROTOCOL, BINARY_SUBPROTOCOL};

use super::{PATH, close};
use crate::relay::Failure;

/// The one channel, as references in the document call it.
const CHANNEL: &str = "#/channels/ws";

/// Every frame of a client, with the frames of which one answers it.
const ANSWERS: &[(&str, &[&str])] = &[
    ("subscribe", &["subscribed", "error"]),
    ("unsubscribe", &["unsubscribed", "error"]),
    ("publish", &["published", "scheduled", "error"]),
    ("ping", &["pong", "error"]),
    ("consume", &["consuming", "error"]),
    ("ack", &["settled", "error"]),
    ("nack", &["settled", "error"]),
    ("extend", &["settled", "error"]),
    ("reject", &["settled", "error"]),
    ("release", &["settled", "error"]),
    ("watch", &["watching", "error"]),
    ("unwatch", &["unwatched", "error"]),
];

/// What the relay sends unasked.
const SENT: &[(&str, &str, &[&str])] = &[
    (
        "deliver",
        "Messages of the topics that are read, gaps where messages are gone, cursors of patterns, and that topics have ended.",
        &["message", "gap", "cursor", "closed"],
    ),
    ("hand_out", "Messages of the groups that are consumed.", &["work"]),
    (
        "tell",
        "Keys and members that are watched, as they are and as they change, and that a watch cannot go on.",
        &["put", "deleted", "expired", "joined", "left", "synced", "bookmark", "reset", "unwatched"],
    ),
    ("refuse", "A frame was refused, or a part of one: a topic of several.", &["error"]),
    ("end", "The relay closes the connection.", &["end"]),
];

/// The document, which is the same for every node.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| document().to_string().into());

/// Answers with the document.
pub(super) async fn asyncapi(uri: Uri) -> Result<impl IntoResponse, Failure> {
    if let Some(part) = uri.query().and_then(|query| query.split('&').find(|part| !part.is_empty())) {
        let name = part.split('=').next().unwrap_or(part);
        return Err(Problem::field(name, "is not a parameter of this path").into());
    }
    Ok(([(CONTENT_TYPE, "application/json")], DOCUMENT.clone()))
}

fn document() -> Value {
    let schemas = serde_json::to_value(schemas()).expect("schemas are plain data");
    let frames = || CLIENT_FRAMES.iter().chain(SERVER_FRAMES);
    let in_channel: Map<String, Value> = frames()
        .map(|frame| (frame.kind.to_owned(), reference(&format!("#/components/messages/{}", frame.kind))))
        .collect();
    let messages: Map<String, Value> =
        frames().map(|frame| (frame.kind.to_owned(), message(frame, &schemas[frame.name]))).collect();
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Tidemill",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The WebSocket of a persistent message relay built on streams: any number of topics is read live, keys and rooms are watched, and messages are published. What is done over HTTP is described in `/openapi.json`, the codes of problems in `/problems`.",
        },
        "defaultContentType": "application/json",
        "channels": {
            "ws": {
                "address": PATH,
                "title": "The WebSocket",
                "description": channel_description(),
                "messages": in_channel,
                "bindings": { "ws": binding() },
            },
        },
        "operations": operations(),
        "components": { "schemas": schemas, "messages": messages },
    })
}

fn reference(to: &str) -> Value {
    json!({ "$ref": to })
}

/// Returns references to messages of the channel, the only ones that an operation may name.
fn of_channel(kinds: &[&str]) -> Vec<Value> {
    kinds.iter().map(|kind| reference(&format!("{CHANNEL}/messages/{kind}"))).collect()
}

fn message(frame: &FrameSchema, schema: &Value) -> Value {
    let mut message = json!({
        "name": frame.kind,
        "title": frame.name,
        "summary": schema["description"],
        "payload": reference(&format!("#/components/schemas/{}", frame.name)),
    });
    let parts = schema["allOf"].as_array().into_iter().flatten().chain([schema]);
    if parts.into_iter().any(|part| part["properties"]["ref"].is_object()) {
        message["correlationId"] = json!({
            "description": "The client's own mark, which the answer carries.",
            "location": "$message.payload#/ref",
        });
    }
    message
}

/// Returns the operations, as the relay sees them: it receives what clients send.
fn operations() -> Map<String, Value> {
    let mut operations = Map::new();
    for (kind, answers) in ANSWERS {
        let mut operation = json!({
            "action": "receive",
            "channel": reference(CHANNEL),
            "messages": of_channel(&[kind]),
        });
        if !answers.is_empty() {
            operation["reply"] = json!({ "channel": reference(CHANNEL), "messages": of_channel(answers) });
        }
        operations.insert((*kind).to_owned(), operation);
    }
    for (name, summary, kinds) in SENT {
        let operation = json!({
            "action": "send",
            "summary": summary,
            "channel": reference(CHANNEL),
            "messages": of_channel(kinds),
        });
        operations.insert((*name).to_owned(), operation);
    }
    operations
}

fn channel_description() -> String {
    let mut text = format!(
        "One frame is one JSON object in a text frame. With the subprotocol `{BINARY_SUBPROTOCOL}` the same frames travel in binary frames, in an encoding of their own. The relay refuses fields and types of frames that it does not know; clients pass over those that they do not know.\n\nThe relay closes with one of these codes; below 4500, our own say \"do not come back with the same\", and the others \"come back\".\n\n| code | meaning | what to do |\n|---|---|---|\n"
    );
    for (code, meaning, what_to_do) in close::ALL {
        // Writing into a string cannot fail.
        let _ = writeln!(text, "| {code} | {meaning} | {what_to_do} |");
    }
    text
}

/// Returns what the handshake looks like.
fn binding() -> Value {
    json!({
        "method": "GET",
        "query": { "type": "object", "properties": {} },
        "headers": {
            "type": "object",
            "properties": {
                "Sec-WebSocket-Protocol": {
                    "type": "string",
                    "description": format!(
                        "Which encoding to speak, as a list of offers. `{BINARY_SUBPROTOCOL}`, also beside others, selects the binary encoding; `{BEARER_SUBPROTOCOL}`, beside `{BEARER_SUBPROTOCOL}.<token>`, selects JSON, and so does no offer at all. The token is not looked at yet."
                    ),
                    "examples": [BINARY_SUBPROTOCOL, format!("{BEARER_SUBPROTOCOL}, {BEARER_SUBPROTOCOL}.<token>")],
                },
                "Origin": {
                    "type": "string",
                    "description": "Browsers send it. Pages of the relay's own host may connect, and those of `ALLOWED_ORIGINS`; others get 403 `origin_forbidden`. `Host` must be one of `TRUSTED_HOSTS`, where that is set; others get 403 `host_forbidden`.",
                },
            },
        },
        "bindingVersion": "0.1.0",
    })
}
