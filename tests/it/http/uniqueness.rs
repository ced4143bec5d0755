//! Publishes that are unique in a group, by every way over HTTP and the WebSocket.

use serde_json::{Value, json};
use tidemill::proto::Code;
use tidemill::proto::frame::{ClientFrame, Publish, ServerFrame, binary};
use tidemill::storage::Storage;
use tokio_tungstenite::tungstenite::Message;

use super::on_every_backend;
use crate::support::relay::TestRelay;
use crate::support::ws::{WsClient, publish_frame};

const JSON: (&str, &str) = ("content-type", "application/json");
const GROUP: &str = "/api/v1/topics/t/groups/workers";

on_every_backend![
    a_publish_is_answered_with_the_message_that_waits_or_is_worked_on,
    every_way_to_publish_can_be_unique,
    what_cannot_be_unique_is_refused_and_changes_nothing,
];

async fn with_group(storage: Storage) -> TestRelay {
    let relay = TestRelay::start(storage).await;
    assert_eq!(relay.send("PUT", GROUP, &[JSON], b"").await.status, 201);
    relay
}

fn unique(key: &str) -> Value {
    json!({"topic": "t", "payload": 1, "unique": {"group": "workers", "key": key}})
}

async fn a_publish_is_answered_with_the_message_that_waits_or_is_worked_on(storage: Storage) {
    let relay = with_group(storage).await;
    let publish = async |replayed: bool| {
        let answer = relay.post("/api/v1/messages", unique("k").to_string()).await;
        assert_eq!(
            (answer.status, answer.header("idempotency-replayed").is_some()),
            (201, replayed),
            "{answer:?}"
        );
        answer.json()
    };
    let first = publish(false).await;
    assert_eq!(publish(true).await, first, "with its time, too");
    let claimed = relay.post(&format!("{GROUP}/claim"), r#"{"consumer":"ann"}"#).await.json();
    assert_eq!(claimed["messages"][0]["message_id"], first["message_id"]);
    assert_eq!(publish(true).await, first);
    let receipts = json!({"receipts": [claimed["messages"][0]["receipt"]]}).to_string();
    assert_eq!(relay.post("/api/v1/work/ack", &receipts).await.json()["results"][0]["status"], "acked");
    assert_ne!(publish(false).await["message_id"], first["message_id"]);
    relay.stop().await;
}

async fn every_way_to_publish_can_be_unique(storage: Storage) {
    let relay = with_group(storage).await;
    let first = relay.post("/api/v1/messages", unique("k").to_string()).await.json()["message_id"].clone();
    let bulk = json!({"messages": [unique("k"), unique("l"), unique("l")]}).to_string();
    let results = relay.post("/api/v1/messages/bulk", bulk).await.json()["results"].clone();
    assert_eq!((&results[0]["message_id"], &results[0]["replayed"]), (&first, &json!(true)));
    assert!(results[1].get("replayed").is_none());
    assert_eq!(
        (&results[2]["message_id"], &results[2]["replayed"]),
        (&results[1]["message_id"], &json!(true))
    );
    let send = async |kind, body: &[u8]| {
        let headers = [("content-type", kind), ("tidemill-unique", "workers/k")];
        relay.send("POST", "/api/v1/topics/t/messages", &headers, body).await
    };
    assert_eq!(send("text/plain", b"other").await.json()["message_id"], first);
    let lines = send("application/x-ndjson", b"1\n2\n").await.json();
    assert_eq!(lines["summary"]["accepted"], 2);
    assert!(lines["results"][0].get("replayed").is_none(), "each line has the key with its place: {lines}");
    let again = send("application/x-ndjson", b"1\n2\n").await.json();
    for at in 0..2 {
        let result = &again["results"][at];
        assert_eq!(
            (&result["message_id"], &result["replayed"]),
            (&lines["results"][at]["message_id"], &json!(true))
        );
    }
    let mut frame = unique("k");
    frame["type"] = "publish".into();
    let mut text = WsClient::connect(relay.address).await;
    let published = text.ask(frame.to_string(), "published").await;
    assert_eq!((&published["message_id"], &published["replayed"]), (&first, &json!(true)));
    let mut bytes = WsClient::connect_binary(relay.address).await;
    let frame = Publish { unique: Some(("workers".into(), "k".into())), ..publish_frame("t", b"9") };
    bytes.send_binary(&ClientFrame::Publish(frame)).await;
    let Some(Ok(Message::Binary(answer))) = bytes.next().await else { panic!("an answer") };
    match binary::read_server(&answer).expect("a frame") {
        ServerFrame::Published { message_id, replayed, .. } => {
            assert_eq!((json!(message_id.to_string()), replayed), (first, true));
        }
        other => panic!("not published: {other:?}"),
    }
    assert_eq!(relay.get("/api/v1/topics/t").await.json()["length"], 4);
    relay.stop().await;
}

async fn what_cannot_be_unique_is_refused_and_changes_nothing(storage: Storage) {
    let relay = with_group(storage).await;
    let refused = async |body: &Value| relay.post("/api/v1/messages", body.to_string()).await.problem();
    for (wrong, field) in [
        (json!("k"), "unique"),
        (json!({"key": "k"}), "unique.group"),
        (json!({"group": "workers"}), "unique.key"),
        (json!({"group": "a.b", "key": "k"}), "unique"),
        (json!({"group": "workers", "key": ""}), "unique.key"),
        (json!({"group": "workers", "key": "a b"}), "unique.key"),
        (json!({"group": "workers", "key": 7}), "unique.key"),
        (json!({"group": "workers", "key": "k".repeat(256)}), "unique.key"),
        (json!({"group": "workers", "key": "k", "more": 1}), "more"),
    ] {
        let problem = refused(&json!({"topic": "t", "payload": 1, "unique": wrong})).await;
        assert_eq!((problem.code, problem.field.as_deref()), (Code::InvalidField, Some(field)), "{wrong}");
    }
    for (name, value) in [("delay", json!("1h")), ("deliver_at", json!("2020-01-01T00:00:00Z"))] {
        let mut later = unique("k");
        later[name] = value;
        assert_eq!(refused(&later).await.field.as_deref(), Some("unique"), "{name}");
    }
    for (path, value) in [
        ("/api/v1/messages", "workers/k"),
        ("/api/v1/messages/bulk", "workers/k"),
        ("/api/v1/topics/t/messages", "workers"),
        ("/api/v1/topics/t/messages", "a.b/k"),
    ] {
        let headers = [JSON, ("tidemill-unique", value)];
        let problem = relay.send("POST", path, &headers, br#"{"topic":"t","payload":1}"#).await.problem();
        assert_eq!(problem.field.as_deref(), Some("Tidemill-Unique"), "{path} {value}");
    }
    let mut other = unique("k");
    other["unique"]["group"] = "none".into();
    assert_eq!(refused(&other).await.code, Code::GroupNotFound);
    other["topic"] = "none".into();
    let problem = refused(&other).await;
    assert_eq!((problem.status, problem.code), (404, Code::GroupNotFound));
    assert_eq!(relay.get("/api/v1/topics/none").await.status, 404, "nothing was made");
    assert_eq!(relay.get("/api/v1/topics/t").await.json()["length"], 0, "nothing was kept");
    relay.stop().await;
}
