//! Order keys: on every way to publish, and as groups heed them over HTTP.

use std::time::Duration;

use serde_json::{Value, json};
use tidemill::proto::Code;
use tidemill::proto::frame::{ClientFrame, Publish};
use tidemill::storage::Storage;
use tokio::time::{Instant, timeout};

use super::on_every_backend;
use crate::support::relay::{STUCK, TestRelay};
use crate::support::ws::{WsClient, publish_frame};

const JSON: (&str, &str) = ("content-type", "application/json");
const GROUP: &str = "/api/v1/topics/t/groups/workers";

on_every_backend![
    every_way_to_publish_takes_an_order_key,
    what_is_no_order_key_is_named,
    a_claim_that_waits_gets_the_next_of_a_key_once_that_is_free,
    the_ordering_of_a_group_is_shown_and_changes_while_nothing_is_pending,
];

async fn served(relay: &TestRelay) -> Vec<Value> {
    let page = relay.get("/api/v1/topics/t/messages?after=earliest&limit=100").await.json();
    page["messages"].as_array().expect("messages").clone()
}

async fn claim(relay: &TestRelay, body: Value) -> Vec<Value> {
    let answer = relay.post(&format!("{GROUP}/claim"), &body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["messages"].as_array().expect("messages").clone()
}

async fn every_way_to_publish_takes_an_order_key(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let single = json!({"topic": "t", "payload": 1, "order_key": "a \"b\" \u{e9}"}).to_string();
    assert_eq!(relay.post("/api/v1/messages", &single).await.status, 201);
    let bulk = r#"{"messages":[{"topic":"t","payload":2,"order_key":"b"},{"topic":"t","payload":3}]}"#;
    assert_eq!(relay.post("/api/v1/messages/bulk", bulk).await.json()["summary"]["accepted"], 2);
    let send = async |kind, key: &str, body: &str| {
        let headers = [("content-type", kind), ("tidemill-order-key", key)];
        relay.send("POST", "/api/v1/topics/t/messages", &headers, body.as_bytes()).await
    };
    assert_eq!(send("application/json", "c d", "4").await.status, 201);
    assert_eq!(send("application/x-ndjson", "\u{e9}", "5\n6\n").await.json()["summary"]["accepted"], 2);
    let later = json!({"topic": "t", "payload": 7, "order_key": "later", "delay": 0}).to_string();
    assert_eq!(relay.post("/api/v1/messages", &later).await.status, 202);
    let mut text = WsClient::connect(relay.address).await;
    let frame = json!({"type": "publish", "topic": "t", "payload": 8, "order_key": "f"}).to_string();
    text.ask(frame, "published").await;
    let mut bytes = WsClient::connect_binary(relay.address).await;
    let frame = Publish { order_key: Some("g".into()), ..publish_frame("t", b"9") };
    bytes.send_binary(&ClientFrame::Publish(frame)).await;
    let since = Instant::now();
    let mut all = served(&relay).await;
    while all.len() < 9 {
        assert!(since.elapsed() < STUCK, "{all:?}");
        all = served(&relay).await;
    }
    all.sort_by_key(|message| message["payload"].as_u64());
    let keys: Vec<_> = all.iter().map(|message| message["order_key"].as_str()).collect();
    let expected = [
        Some("a \"b\" \u{e9}"),
        Some("b"),
        None,
        Some("c d"),
        Some("\u{e9}"),
        Some("\u{e9}"),
        Some("later"),
        Some("f"),
        Some("g"),
    ];
    assert_eq!(keys, expected);
    // Those who read live, and who lists what waits, are shown it, too.
    text.subscribe("t", "earliest").await;
    let live = text.expect("message").await;
    assert_eq!(live["order_key"], "a \"b\" \u{e9}");
    let later = json!({"topic": "t", "payload": 1, "order_key": "k", "delay": "1h"}).to_string();
    relay.post("/api/v1/messages", &later).await;
    assert_eq!(relay.get("/api/v1/topics/t/scheduled").await.json()[0]["order_key"], "k");
    let recurring = br#"{"cron":"0 3 * * *","payload":1,"order_key":"k"}"#;
    let put = relay.send("PUT", "/api/v1/topics/t/recurring/n", &[JSON], recurring).await;
    assert_eq!((put.status, &put.json()["order_key"]), (200, &json!("k")));
    // It is a part of the message: with another one it is another message.
    let headers = |key: &'static str| [JSON, ("idempotency-key", "i"), ("tidemill-order-key", key)];
    let keyed = async |key| relay.send("POST", "/api/v1/topics/t/messages", &headers(key), b"1").await;
    assert_eq!(keyed("x").await.status, 201);
    assert_eq!(keyed("x").await.header("idempotency-replayed"), Some("true"));
    assert_eq!(keyed("y").await.problem().code, Code::KeyReused);
    relay.stop().await;
}

async fn what_is_no_order_key_is_named(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    for key in [json!(""), json!("a\n"), json!("k".repeat(257)), json!(7), json!("\u{7f}")] {
        let body = json!({"topic": "t", "payload": 1, "order_key": key}).to_string();
        let problem = relay.post("/api/v1/messages", &body).await.problem();
        assert_eq!(
            (problem.code, problem.field.as_deref()),
            (Code::InvalidField, Some("order_key")),
            "{key}"
        );
    }
    let long = "k".repeat(257);
    for (path, keys) in [
        ("/api/v1/messages", &["a"][..]),
        ("/api/v1/messages/bulk", &["a"]),
        ("/api/v1/topics/t/messages", &[""]),
        ("/api/v1/topics/t/messages", &[&long]),
        ("/api/v1/topics/t/messages", &["a", "a"]),
    ] {
        let headers: Vec<_> =
            std::iter::once(JSON).chain(keys.iter().map(|key| ("tidemill-order-key", *key))).collect();
        let problem = relay.send("POST", path, &headers, br#"{"topic":"t","payload":1}"#).await.problem();
        assert_eq!(problem.field.as_deref(), Some("Tidemill-Order-Key"), "{path} {keys:?}");
    }
    assert_eq!(relay.get("/api/v1/topics/t").await.status, 404, "nothing was kept");
    relay.stop().await;
}

async fn a_claim_that_waits_gets_the_next_of_a_key_once_that_is_free(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let made = relay.send("PUT", GROUP, &[JSON], br#"{"ordering":"by_key"}"#).await;
    assert_eq!((made.status, &made.json()["ordering"]), (201, &json!("by_key")));
    for payload in 1..=3 {
        let body = json!({"topic": "t", "payload": payload, "order_key": "k"}).to_string();
        assert_eq!(relay.post("/api/v1/messages", &body).await.status, 201);
    }
    let mut held = claim(&relay, json!({"consumer": "ann", "max": 10})).await;
    for payload in 2..=3 {
        assert_eq!((held.len(), held[0]["order_key"].as_str()), (1, Some("k")));
        let settle = async {
            // The other one has begun to wait by then.
            tokio::time::sleep(Duration::from_millis(150)).await;
            let body = json!({"receipts": [held[0]["receipt"]]}).to_string();
            assert_eq!(relay.post("/api/v1/work/ack", &body).await.json()["results"][0]["status"], "acked");
            Instant::now()
        };
        let waiting = async {
            let next = claim(&relay, json!({"consumer": "bob", "max": 10, "wait": "30s"})).await;
            (next, Instant::now())
        };
        let (acked, (next, came)) =
            timeout(STUCK, async { tokio::join!(settle, waiting) }).await.expect("in time");
        assert!(came.duration_since(acked) < Duration::from_millis(300), "it waits for no look");
        assert_eq!(next[0]["payload"], payload);
        held = next;
    }
    relay.stop().await;
}

async fn the_ordering_of_a_group_is_shown_and_changes_while_nothing_is_pending(storage: Storage) {
    let relay = TestRelay::start(storage).await;
    let made = relay.send("PUT", GROUP, &[JSON], b"{}").await.json();
    assert_eq!(made["ordering"], "none");
    let change = async |ordering: &str| {
        let body = json!({"ordering": ordering}).to_string();
        relay.send("PATCH", GROUP, &[JSON], body.as_bytes()).await
    };
    assert_eq!(change("by_key").await.json()["ordering"], "by_key");
    relay.publish("t", "1").await;
    let held = claim(&relay, json!({"consumer": "ann"})).await;
    assert_eq!(change("by_key").await.status, 200, "it is so already");
    let refused = change("none").await.problem();
    assert_eq!((refused.status, refused.code), (409, Code::Conflict));
    assert_eq!(relay.send("PUT", GROUP, &[JSON], b"{}").await.problem().code, Code::Conflict);
    assert_eq!(relay.get(GROUP).await.json()["ordering"], "by_key", "nothing was changed");
    relay.post("/api/v1/work/ack", json!({"receipts": [held[0]["receipt"]]}).to_string()).await;
    assert_eq!(change("none").await.json()["ordering"], "none");
    relay.stop().await;
}
