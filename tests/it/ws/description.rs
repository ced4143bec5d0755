//! The `AsyncAPI` document, as a relay serves it.

use std::collections::BTreeSet;

use serde_json::Value;
use tidemill::proto::Code;
use tidemill::proto::frame::schema::{CLIENT_FRAMES, SERVER_FRAMES};
use tidemill::proto::frame::{BEARER_SUBPROTOCOL, BINARY_SUBPROTOCOL};

use crate::support::relay::{TestRelay, memory};

const WEBSOCKET_PAGE: &str = include_str!("../../../docs/websocket-api.md");

async fn document() -> Value {
    let relay = TestRelay::start(memory()).await;
    let answer = relay.get("/asyncapi.json").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert!(relay.get("/openapi.json").await.text().contains("/asyncapi.json"));
    assert_eq!(relay.post("/asyncapi.json", "{}").await.problem().code, Code::MethodNotAllowed);
    relay.stop().await;
    answer.json()
}

/// Calls `visit` with every reference in the document.
fn references(part: &Value, visit: &mut impl FnMut(&str)) {
    match part {
        Value::Object(fields) => {
            if let Some(to) = fields.get("$ref") {
                visit(to.as_str().expect("a reference is a text"));
            }
            fields.values().for_each(|field| references(field, visit));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, visit)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[tokio::test]
async fn every_reference_leads_somewhere_and_every_schema_is_used() {
    let document = document().await;
    assert_eq!(document["asyncapi"], "3.0.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut used = BTreeSet::new();
    references(&document, &mut |to| {
        let pointer = to.strip_prefix('#').expect("it stays in the document");
        assert!(document.pointer(pointer).is_some_and(Value::is_object), "{to} leads nowhere");
        used.insert(to.to_owned());
    });
    for of in ["schemas", "messages"] {
        for name in document["components"][of].as_object().expect("components").keys() {
            assert!(used.contains(&format!("#/components/{of}/{name}")), "nothing refers to {name}");
        }
    }
}

#[tokio::test]
async fn every_frame_is_a_message_that_goes_the_right_way() {
    let document = document().await;
    let channel = &document["channels"]["ws"];
    assert_eq!(channel["address"], "/ws");
    let messages = channel["messages"].as_object().expect("messages");
    assert_eq!(messages.len(), CLIENT_FRAMES.len() + SERVER_FRAMES.len());
    let operations = document["operations"].as_object().expect("operations");
    for (frames, action) in [(CLIENT_FRAMES, "receive"), (SERVER_FRAMES, "send")] {
        for frame in frames {
            let message = document["components"]["messages"][frame.kind].clone();
            let to_schema = format!("#/components/schemas/{}", frame.name);
            assert_eq!(message["payload"]["$ref"], to_schema.as_str(), "{}", frame.kind);
            assert!(message["summary"].is_string(), "{}", frame.kind);
            let to_message = format!("#/channels/ws/messages/{}", frame.kind);
            let mut ways = BTreeSet::new();
            for operation in operations.values() {
                let way = operation["action"].as_str().expect("an action");
                references(&operation["messages"], &mut |to| {
                    if to == to_message {
                        ways.insert(way);
                    }
                });
                references(&operation["reply"], &mut |to| {
                    if to == to_message {
                        assert_eq!(way, "receive", "the relay waits for no answer");
                        ways.insert("send");
                    }
                });
            }
            assert_eq!(ways, BTreeSet::from([action]), "{}", frame.kind);
        }
    }
}

#[tokio::test]
async fn the_handshake_and_the_endings_are_told() {
    let document = document().await;
    let channel = &document["channels"]["ws"];
    let headers = &channel["bindings"]["ws"]["headers"]["properties"];
    let protocols = headers["Sec-WebSocket-Protocol"].to_string();
    for protocol in [BEARER_SUBPROTOCOL, BINARY_SUBPROTOCOL] {
        assert!(protocols.contains(&format!("`{protocol}`")), "{protocol}");
    }
    // The page tells people the same codes; that the client closed is no code of the relay.
    let rows = |text: &str| -> BTreeSet<String> {
        let begins = |row: &&str| row.starts_with("| 1") || row.starts_with("| 4");
        text.lines().filter(begins).filter(|row| !row.starts_with("| 1000 ")).map(str::to_owned).collect()
    };
    let told = rows(channel["description"].as_str().expect("a description"));
    assert!(told.len() >= 6, "{told:?}");
    assert_eq!(told, rows(WEBSOCKET_PAGE));
    let codes = document["components"]["schemas"]["Code"]["enum"].as_array().expect("codes");
    assert_eq!(codes.len(), Code::ALL.len());
    for code in Code::ALL {
        assert!(codes.iter().any(|text| text == code.as_str()), "{code:?}");
    }
}

#[tokio::test]
async fn it_is_switched_off_with_the_other_documents() {
    let relay = TestRelay::start_with(memory(), |options| options.ws.serve_docs = false).await;
    assert_eq!(relay.get("/asyncapi.json").await.problem().code, Code::NotFound);
    assert_eq!(relay.get("/ws").await.problem().code, Code::InvalidRequest, "the WebSocket stays");
    relay.stop().await;
}
